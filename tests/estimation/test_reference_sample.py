"""The file of a reference sample: it holds the units and the design, and refuses what was changed by mistake."""

import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
from affine import Affine
from tests import worlds

from landscribe.errors import LandscribeError
from landscribe.estimation.reference_sample import ReferenceSample, holds_design
from landscribe.geo.classes import Classes
from landscribe.geo.rasters.raster import Raster
from landscribe.maps.class_map import CLASSES_TAG, classes_as_tag
from landscribe.sampling.draw import draw_sample
from landscribe.sampling.plan import plan_sample
from landscribe.sampling.spec import SampleSpec

VALUES = np.random.default_rng(1).choice([0, 1, 2, 255], (40, 50), p=[0.2, 0.3, 0.4, 0.1]).astype(np.uint8)
NAMES = ("background", "forêt <1>", "NA")


def written_map(folder, values=VALUES, name="map.tif"):
    path = worlds.write_raster(folder / name, values, nodata=255)
    with rasterio.open(path, "r+") as dataset:
        classes = Classes.from_labels(NAMES[1:], background=True)
        dataset.update_tags(**{CLASSES_TAG: classes_as_tag(classes)})
    return path


def sample_of(path, **settings):
    return draw_sample(plan_sample(Raster.open([path]), SampleSpec.of({"size": 30} | settings)))


@pytest.fixture
def sample(tmp_path):
    return sample_of(written_map(tmp_path))


CLUSTER = {"design": "cluster", "size": None, "clusters": 4, "cluster_size": 9, "per_cluster": 5}


@pytest.mark.parametrize("suffix", [".gpkg", ".csv", ".GPKG"])
@pytest.mark.parametrize("settings", [{}, CLUSTER, {"unit": 2, "design": "simple"}])
def test_a_file_gives_back_the_units_and_the_design(tmp_path, suffix, settings):
    sample, path = sample_of(written_map(tmp_path), **settings), tmp_path / f"my points{suffix}"
    sample.save(path)
    opened = ReferenceSample.open(path)
    assert opened.design == sample.design
    pd.testing.assert_frame_equal(opened.units, sample.units, check_dtype=False)
    assert holds_design(path)


@pytest.mark.parametrize("suffix", [".gpkg", ".csv"])
def test_a_map_without_a_crs_gives_back_its_units(tmp_path, suffix):
    path = worlds.write_raster(tmp_path / "map.tif", VALUES, crs=None, transform=None, nodata=255)
    sample = sample_of(path)
    sample.save(tmp_path / f"points{suffix}")
    opened = ReferenceSample.open(tmp_path / f"points{suffix}")
    assert opened.units["area_m2"].isna().all()
    assert opened.design.map == sample.design.map


def test_the_same_sample_gives_the_same_bytes(tmp_path, sample):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        sample.save(tmp_path / name / "points.gpkg")
    assert (tmp_path / "a/points.gpkg").read_bytes() == (tmp_path / "b/points.gpkg").read_bytes()


def test_points_lie_in_the_middle_of_their_pixels(tmp_path, sample):
    sample.save(tmp_path / "points.gpkg")
    points = pyogrio.read_dataframe(tmp_path / "points.gpkg", layer="points")
    assert points.crs.to_epsg() == 32632
    assert (points.geometry.x == worlds.CORNER[0] + points["col"] + 0.5).all()
    assert (points.geometry.y == worlds.CORNER[1] - points["row"] - 0.5).all()
    assert points["reference"].isna().all()


def test_gdal_reads_the_design_among_the_metadata(tmp_path, sample):
    sample.save(tmp_path / "points.gpkg")
    info = pyogrio.read_info(tmp_path / "points.gpkg", layer="points")
    texts = [text for text in (info["layer_metadata"] or {}).values() if text.startswith("{")]
    assert json.loads(texts[0])["kind"] == "stratified"


def test_the_form_offers_the_classes_and_hides_what_would_bias_a_label(tmp_path, sample):
    sample.save(tmp_path / "points.gpkg")
    with closing(sqlite3.connect(tmp_path / "points.gpkg")) as database:
        (text,) = database.execute("SELECT styleQML FROM layer_styles").fetchone()
    form = ET.fromstring(text.partition("\n")[2])
    widgets = {field.get("name"): field.find("editWidget") for field in form.find("fieldConfiguration")}
    choices = [option.get("value") for option in widgets["reference"].iter("Option") if option.get("value")]
    assert widgets["reference"].get("type") == "ValueMap"
    assert set(choices[1:]) == set(NAMES)
    assert {name for name, widget in widgets.items() if widget.get("type") == "Hidden"} >= {"map", "stratum"}
    editable = {field.get("name") for field in form.find("editable") if field.get("editable") == "1"}
    assert editable == {"reference"}
    columns = [column.get("name") for column in form.iter("column")]
    assert columns[-2:] == ["stratum", "map"]


def test_labels_that_a_gis_stores_are_read(tmp_path, sample):
    path = tmp_path / "points.gpkg"
    sample.save(path)
    with closing(sqlite3.connect(path)) as database, database:
        # SQLite alone does not have the functions of the spatial index's triggers.
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f'DROP TRIGGER "{trigger}"')
        database.execute("UPDATE points SET reference = 'NA' WHERE id <= 10")
    assert ReferenceSample.open(path).units["reference"].value_counts().to_dict() == {"": 20, "NA": 10}


def labelled(sample, **changes):
    return replace(sample, units=sample.units.assign(**changes))


@pytest.mark.parametrize("suffix", [".gpkg", ".csv"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda units: units.assign(reference="foret <1>"), "reference 'foret <1>' .*did you mean 'forêt <1>'"),
        (lambda units: units.assign(id=7), "has id 7 more than once"),
        (lambda units: units.assign(stratum="x"), "has stratum 'x'"),
        (lambda units: units.assign(stratum=NAMES[0]), "other values in its column stratum"),
        (lambda units: units.assign(reference="0.4"), r"has a share in column reference, 0\.4 \(id .*ls\.estimate"),
        (lambda units: units.drop(columns="probability"), "has no column probability"),
        (lambda units: units.assign(probability=0.5), "other values in its column probability"),
        (lambda units: units.iloc[1:], r"but the draw gave 1[0-9]\. Expected all"),
        (lambda units: units.assign(map=NAMES[0]), "other values in its column map"),
        (lambda units: units.assign(area_m2=units["area_m2"] * 2), "other values in its column area_m2"),
        (lambda units: units.assign(row=units["row"].iloc[::-1].to_numpy()), "other values in its column row"),
    ],
)
def test_a_change_by_mistake_is_refused(tmp_path, sample, suffix, change, message):
    path = tmp_path / f"points{suffix}"
    replace(sample, units=change(sample.units)).save(path)
    with pytest.raises(LandscribeError, match=message):
        ReferenceSample.open(path)


@pytest.mark.parametrize("suffix", [".gpkg", ".csv"])
def test_a_sample_of_clusters_without_its_column_cluster_is_refused(tmp_path, suffix):
    sample, path = sample_of(written_map(tmp_path), **CLUSTER), tmp_path / f"points{suffix}"
    replace(sample, units=sample.units.drop(columns="cluster")).save(path)
    with pytest.raises(LandscribeError, match="has no column cluster"):
        ReferenceSample.open(path)


@pytest.mark.parametrize(
    "save",
    [
        lambda table, path: table.to_csv(path, index=False, sep=";", decimal=",", encoding="utf-8-sig"),
        lambda table, path: table.to_csv(path, index=False, sep="\t"),
        # As many digits as a spreadsheet saves, a note, and another order of the rows.
        lambda table, path: table.sort_values("map").assign(note="x").to_csv(path, index=False, float_format="%.9g"),
    ],
)
def test_a_table_that_a_spreadsheet_saved_is_read(tmp_path, sample, save):
    path = tmp_path / "points.csv"
    sample = labelled(sample, reference=sample.units["map"])
    sample.save(path)
    save(sample.units, path)
    opened = ReferenceSample.open(path).units.sort_values("id", ignore_index=True)
    pd.testing.assert_frame_equal(opened, sample.units, check_dtype=False, rtol=1e-8)


@pytest.fixture
def in_degrees(tmp_path):
    """A sample of pixels of 0.0001 degrees, whose centres, such as 20.31705, have 17 digits as binary numbers."""
    grid = {"crs": "EPSG:4326", "transform": Affine(1e-4, 0, 20.3, 0, -1e-4, 60.1)}
    path = worlds.write_raster(tmp_path / "map.tif", np.ones((99, 99), np.uint8), **grid)
    return sample_of(path, design="simple", size=200)


def test_centres_between_two_numbers_of_six_digits_are_those_that_were_drawn(tmp_path, in_degrees):
    in_degrees.save(tmp_path / "points.csv")
    in_degrees.units.to_csv(tmp_path / "points.csv", index=False, float_format="%.15g")
    assert len(ReferenceSample.open(tmp_path / "points.csv").units) == 200


def test_a_sample_whose_columns_were_hashed_by_an_earlier_version_is_read(tmp_path, in_degrees):
    """Numbers were rounded once, to six digits: of 0.0001 degrees, some centres have another hash."""
    texts = [f"{value:.6g}" for value in in_degrees.units.sort_values("id")["x"]]
    earlier = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    hashes = in_degrees.design.columns_sha256
    assert earlier != hashes["x"]
    replace(in_degrees, design=replace(in_degrees.design, columns_sha256=hashes | {"x": earlier})).save(
        tmp_path / "points.csv"
    )
    assert len(ReferenceSample.open(tmp_path / "points.csv").units) == 200


def test_classes_that_a_table_holds_as_floats_are_read(tmp_path):
    values = np.random.default_rng(0).integers(11, 13, (30, 40)).astype(np.uint8)
    sample = sample_of(worlds.write_raster(tmp_path / "map.tif", values), design="simple", size=20)
    numbers = sample.units["map"].astype(float).where(sample.units["id"] > 3)
    sample.save(tmp_path / "points.csv")
    labelled(sample, reference=numbers).units.to_csv(tmp_path / "points.csv", index=False)
    assert "11.0" in (tmp_path / "points.csv").read_text()
    opened = ReferenceSample.open(tmp_path / "points.csv").units.set_index("id").sort_index()
    expected = sample.units.set_index("id").sort_index()["map"]
    assert opened["reference"].tolist() == ["", "", "", *expected.tolist()[3:]]


def test_a_table_in_another_encoding_is_refused_in_words(tmp_path, sample):
    sample.save(tmp_path / "points.csv")
    labelled(sample, reference="forêt <1>").units.to_csv(tmp_path / "points.csv", index=False, encoding="cp1252")
    with pytest.raises(LandscribeError, match=r"is not UTF-8 text .* CSV UTF-8"):
        ReferenceSample.open(tmp_path / "points.csv")


@pytest.mark.parametrize("odd", ["1.5", "inf", "x", ""])
def test_an_id_that_is_no_whole_number_is_refused(tmp_path, sample, odd):
    labelled(sample, id=[odd, *map(str, range(2, 31))]).save(tmp_path / "points.csv")
    with pytest.raises(LandscribeError, match=f"has '{odd}' in its column id. Expected whole numbers"):
        ReferenceSample.open(tmp_path / "points.csv")


@pytest.mark.parametrize("edit", [('"stratified"', '"other"'), ('"units": ', '"units": -'), ('"PROJCS[', '"PROJ[')])
def test_a_design_that_was_edited_by_mistake_is_refused(tmp_path, sample, edit):
    sample.save(tmp_path / "points.csv")
    design = tmp_path / "points.design.json"
    text = design.read_text(encoding="utf-8")
    assert edit[0] in text
    design.write_text(text.replace(*edit), encoding="utf-8")
    with pytest.raises(LandscribeError, match=r"the design in points.csv cannot be read"):
        ReferenceSample.open(tmp_path / "points.csv")


def test_a_file_without_a_design_is_refused(tmp_path, sample):
    worlds.write_polygons(tmp_path / "other.gpkg", [worlds.pixel_box(0, 0, 1, 1)])
    with pytest.raises(LandscribeError, match=r"other.gpkg holds no sampling design"):
        ReferenceSample.open(tmp_path / "other.gpkg")
    assert not holds_design(tmp_path / "other.gpkg")
    sample.save(tmp_path / "points.csv")
    (tmp_path / "points.design.json").unlink()
    with pytest.raises(LandscribeError, match=r"Expected points.design.json"):
        ReferenceSample.open(tmp_path / "points.csv")
    (tmp_path / "points.design.json").write_text("{}")
    with pytest.raises(LandscribeError, match=r"the design in points.csv cannot be read"):
        ReferenceSample.open(tmp_path / "points.csv")


def test_another_suffix_is_refused(tmp_path, sample):
    with pytest.raises(LandscribeError, match="no suffix for a reference sample"):
        sample.save(tmp_path / "points.shp")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.tif"]


def test_a_sample_knows_its_map(tmp_path, sample):
    own = Raster.open([tmp_path / "map.tif"])
    sample.require_map(own)
    changed = Raster.open([written_map(tmp_path, np.where(VALUES == 1, 2, VALUES).astype(np.uint8), "b.tif")])
    with pytest.raises(LandscribeError, match="has other class values on the same grid"):
        sample.require_map(changed)
    smaller = Raster.open([written_map(tmp_path, VALUES[1:], "c.tif")])
    with pytest.raises(LandscribeError, match=r"drawn from map.tif .50 x 40 pixels .*, but .*c.tif is 50 x 39 pixels"):
        sample.require_map(smaller)


def test_labels_join_by_id(sample):
    joined = sample.with_labels({3: "NA"}).with_labels({4: "background"})
    assert joined.units["reference"].tolist()[2:4] == ["NA", "background"]
    with pytest.raises(LandscribeError, match="has id 99, which the sample does not have"):
        sample.with_labels({99: "NA"})
    with pytest.raises(LandscribeError, match=r"labels.csv has reference 'x'"):
        sample.with_labels({1: "x"}, "labels.csv")
