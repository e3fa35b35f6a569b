"""Maps are assessed with the reference samples that were drawn from them."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
from affine import Affine
from tests import worlds

import landscribe as ls
from landscribe.assessment import samples
from landscribe.errors import LandscribeError
from landscribe.estimation.estimate import estimate
from landscribe.geo.classes import Classes
from landscribe.geo.pixel_area import pixel_areas
from landscribe.maps.class_map import CLASSES_TAG, classes_as_tag

NAMES = ("background", "forest", "water")
SHAPE = (120, 160)
PIXEL_HA = pixel_areas(worlds.grid(*SHAPE)) / 1e4


def smooth(seed):
    coarse = np.random.default_rng(seed).normal(size=(15, 20))
    return np.kron(coarse, np.ones((8, 8)))


TRUTH = np.digitize(smooth(1), [0.0, 1.0]).astype(np.uint8)
MAPPED = np.where(smooth(2) + np.random.default_rng(3).normal(size=SHAPE) > 1.8, (TRUTH + 1) % 3, TRUTH).astype(
    np.uint8
)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    path = worlds.write_raster(tmp_path_factory.mktemp("sampled") / "map.tif", MAPPED, nodata=255)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(**{CLASSES_TAG: classes_as_tag(Classes.from_labels(NAMES[1:], background=True))})
    return path


def labelled(mapped, path, **settings):
    """A sample whose units were labelled with the truth."""
    sample = ls.sample(mapped, out=path, overwrite=True, **settings)
    units = sample.units
    truth = TRUTH[units["row"], units["col"]]
    sample.with_labels(dict(zip(units["id"], np.array(NAMES)[truth].tolist(), strict=True))).save(path)
    return path


def hectares(values):
    return [np.count_nonzero(values == value) * PIXEL_HA for value in range(3)]


DESIGNS = {
    "stratified": {"size": 240},
    "equal": {"size": 240, "allocation": "equal"},
    "simple": {"design": "simple", "size": 240},
    "systematic": {"design": "systematic", "size": 240},
    "cluster": {"design": "cluster", "clusters": 40, "cluster_size": 8, "per_cluster": 6},
}


@pytest.mark.parametrize("design", DESIGNS)
def test_true_areas_and_accuracies_lie_in_about_95_percent_of_the_intervals(mapped, tmp_path, design):
    """8 seeds, 7 intervals each: fewer than 82 % would be rarer than one in a thousand if intervals hold."""
    true_areas, hits = hectares(TRUTH), []
    for seed in range(8):
        points = labelled(mapped, tmp_path / "points.csv", seed=seed, **DESIGNS[design])
        result = ls.assess(mapped, reference=points)
        hits.append(result.overall.lower <= np.mean(TRUTH == MAPPED) <= result.overall.upper)
        for value, name in enumerate(NAMES):
            area, users = result.areas[name], result.users[name]
            hits.append(area.lower <= true_areas[value] <= area.upper)
            hits.append(users.lower <= np.mean(TRUTH[value == MAPPED] == value) <= users.upper)
    assert np.mean(hits) > 0.82


def test_a_sample_of_all_pixels_is_the_truth(mapped, tmp_path):
    points = labelled(mapped, tmp_path / "points.csv", design="simple", size=TRUTH.size)
    result = ls.assess(mapped, reference=points)
    counts = pd.crosstab(MAPPED.ravel(), TRUTH.ravel()).to_numpy()
    np.testing.assert_allclose(result.matrix.to_numpy(), counts / TRUTH.size, rtol=1e-9)
    assert [area.value for area in result.areas.values()] == pytest.approx(hectares(TRUTH), rel=1e-5)
    assert result.overall.se == pytest.approx(0, abs=1e-9)


def test_shares_of_a_class_in_all_blocks_have_its_area_by_the_readme(mapped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = ls.sample(mapped, out=tmp_path / "blocks.gpkg", design="simple", unit=10, size=TRUTH.size // 100)
    row, col = blocks.units["row"], blocks.units["col"]
    is_forest = [
        [np.mean(values[top : top + 10, left : left + 10] == 1) for top, left in zip(row, col, strict=True)]
        for values in (MAPPED, TRUTH)
    ]
    shares = pd.DataFrame({"id": blocks.units["id"], "map_share": is_forest[0], "reference_share": is_forest[1]})
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL) if "share_of" in block)
    names = {"ls": ls, "shares": shares}
    exec(compile(code, "README.md", "exec"), names)
    area = names["area"]
    assert area.value == pytest.approx(hectares(TRUTH)[1] * 1e4, rel=1e-5)
    assert area.se == pytest.approx(0, abs=1e-6)


def test_the_estimator_is_named_with_the_counts_of_the_map_beside_it(mapped, tmp_path):
    points = labelled(mapped, tmp_path / "points.gpkg", design="systematic", size=300)
    ls.assess(mapped, reference=points, out=tmp_path / "measures.json", confidence=0.9)
    summary = json.loads((tmp_path / "measures.json").read_text())
    assert summary["estimator"] == ("systematic sample, post-stratified by map class, as if simple random: approximate")
    assert summary["confidence"] == 0.9
    areas = [summary["map_counts"][name]["area"] for name in NAMES]
    assert areas == pytest.approx(hectares(MAPPED), rel=1e-5)
    assert sum(each["value"] for each in summary["areas"].values()) == pytest.approx(sum(areas))


def test_settings_of_pixels_and_chips_are_refused_with_a_sample(mapped, tmp_path):
    points = labelled(mapped, tmp_path / "points.gpkg", size=100)
    for name, value in {"seed": 3, "block_size": 64, "split": "val"}.items():
        with pytest.raises(ls.LandscribeError, match=rf"--{name.replace('_', '-')} .*points\.gpkg.* Leave it out"):
            ls.assess(mapped, reference=points, **{name: value})
    (tmp_path / "each").mkdir()
    points.rename(tmp_path / "each" / f"{mapped.stem}.gpkg")
    with pytest.raises(ls.LandscribeError, match="is a sample of one map"):
        ls.assess(mapped, reference=tmp_path / "each")


RARE = np.repeat([1, 2, 3], [18_000, 1_000, 200]).reshape(120, 160).astype(np.uint8)
RARE = np.random.default_rng(4).permuted(RARE.ravel()).reshape(RARE.shape)


@pytest.fixture(scope="module")
def rare(tmp_path_factory):
    """A map of a frequent, a rarer, and a rare class."""
    return worlds.write_raster(tmp_path_factory.mktemp("rare") / "map.tif", RARE, nodata=255)


@pytest.mark.parametrize("design", ["simple", "systematic"])
@pytest.mark.parametrize(("size", "joined"), [(300, "3, 2"), (80, None), (1000, "")])
def test_expected_numbers_decide_the_post_strata_whatever_was_drawn(rare, tmp_path, design, size, joined):
    """Expected of the rare class: 3, 0.8 and 10 units; of the rarer one: 16, 4 and 52."""
    estimators = set()
    for seed in range(4):
        sample = ls.sample(rare, out=tmp_path / f"{seed}.csv", design=design, size=size, seed=seed)
        units = sample.units
        sample.with_labels(dict(zip(units["id"], units["map"], strict=True))).save(tmp_path / f"{seed}.csv")
        estimators.add(ls.assess(rare, reference=tmp_path / f"{seed}.csv").estimator)
    (estimator,) = estimators
    assert ("post-stratified" in estimator) == (joined is not None)
    assert ("one stratum of few expected units" in estimator) == (joined == "3, 2")
    assert not joined or f"few expected units: {joined})" in estimator


def test_the_area_of_a_rare_class_is_right_in_the_mean_over_simple_samples(rare, tmp_path):
    """1.7 units expected, 400 draws: a standard error of 4 %. If drawn numbers decide, the mean is 17 % too small."""
    pixels, sample = [], ls.sample(rare, out=tmp_path / "points.csv", design="simple", size=160)
    rng = np.random.default_rng(0)
    for _ in range(400):
        values = RARE.ravel()[rng.choice(RARE.size, 160, replace=False)].astype(str)
        units = sample.units.assign(map=values, reference=values)
        tables, _ = samples._tables(units, sample.design)
        pixels.append(estimate(*tables, classes=["1", "2", "3"]).areas["3"].value / PIXEL_HA)
    assert np.mean(pixels) == pytest.approx(200, rel=0.1)


def test_a_simple_sample_without_a_rare_class_is_not_stratified_afterwards(mapped, tmp_path):
    points = labelled(mapped, tmp_path / "points.gpkg", design="simple", size=3, seed=4)
    assert ls.assess(mapped, reference=points).estimator == "simple random sample"


def test_units_without_a_reference_class_are_refused_or_skipped(mapped, tmp_path):
    path = tmp_path / "points.gpkg"
    sample = ls.sample(mapped, out=path, size=150, allocation="equal")
    with pytest.raises(LandscribeError, match="column reference is empty in all 150 units"):
        ls.assess(mapped, reference=path)
    first = sample.units["id"][:120]
    sample.with_labels(dict.fromkeys(first.tolist(), "forest")).save(path)
    with pytest.raises(LandscribeError, match="no reference class for 30 of 150 units"):
        ls.assess(mapped, reference=path)
    result = ls.assess(mapped, reference=path, skip_unlabelled=True)
    assert (result.estimate.units, result.unlabelled) == (120, 30)


def test_a_sample_of_another_map_is_refused(mapped, tmp_path):
    points = labelled(mapped, tmp_path / "points.gpkg", size=150)
    other = worlds.write_raster(tmp_path / "other.tif", (MAPPED + 1) % 3, nodata=255)
    with pytest.raises(LandscribeError, match="other class values on the same grid"):
        ls.assess(other, reference=points)
    smaller = worlds.write_raster(tmp_path / "smaller.tif", MAPPED[:50, :60], nodata=255)
    with pytest.raises(LandscribeError, match=r"was drawn from map\.tif"):
        ls.assess(smaller, reference=points)
    with pytest.raises(LandscribeError, match=r"--nodata-as is about labels, but .* is a sample"):
        ls.assess(mapped, reference=points, nodata_as="background")
    with pytest.raises(LandscribeError, match="that of one map, but there are 2"):
        ls.assess([mapped, other], reference=points)


def test_a_reference_class_that_the_map_does_not_have_is_refused(mapped, tmp_path):
    points = labelled(mapped, tmp_path / "points.csv", size=150)
    table = pd.read_csv(points)
    table.loc[0, "reference"] = "forrest"
    table.to_csv(points, index=False)
    with pytest.raises(LandscribeError, match=r"'forrest'.*forest"):
        ls.assess(mapped, reference=points)


def test_points_without_a_design_have_no_intervals_and_a_warning(mapped, tmp_path, caplog):
    points = labelled(mapped, tmp_path / "points.gpkg", size=150)
    plain = tmp_path / "plain.geojson"
    pyogrio.write_dataframe(pyogrio.read_dataframe(points, layer="points"), plain)
    result = ls.assess(mapped, reference=plain, label_field="reference")
    assert result.confusion.total == 150
    assert "plain.geojson holds no sampling design" in caplog.text


@pytest.mark.parametrize(("pixel", "unit"), [(70, "ha"), (80, "km²")])
def test_areas_are_in_hectares_up_to_100_square_kilometres(tmp_path, pixel, unit):
    """19 200 pixels of 70 m are 94 km², of 80 m 123 km²."""
    origin = Affine(pixel, 0, 459_700, 0, -pixel, 4_827_000)
    path = worlds.write_raster(tmp_path / "map.tif", MAPPED, nodata=255, transform=origin)
    sample = ls.sample(path, out=tmp_path / "points.csv", size=150)
    sample.with_labels(dict(zip(sample.units["id"], sample.units["map"], strict=True))).save(tmp_path / "points.csv")
    result = ls.assess(path, reference=tmp_path / "points.csv")
    assert result.area_unit == unit
    square_metres = {"ha": 1e4, "km²": 1e6}[unit]
    assert sum(area.value for area in result.areas.values()) == pytest.approx(
        TRUTH.size * pixel**2 / square_metres, rel=2e-3
    )


def test_a_map_without_a_crs_has_areas_in_pixels(tmp_path):
    path = worlds.write_raster(tmp_path / "map.tif", MAPPED, nodata=255, crs=None)
    sample = ls.sample(path, out=tmp_path / "points.csv", size=200)
    names = [entry.name for entry in sample.design.classes]
    truth = TRUTH[sample.units["row"], sample.units["col"]]
    labels = dict(zip(sample.units["id"], [names[value] for value in truth], strict=True))
    sample.with_labels(labels).save(tmp_path / "points.csv")
    result = ls.assess(path, reference=tmp_path / "points.csv")
    assert result.area_unit == "pixels"
    assert sum(area.value for area in result.areas.values()) == pytest.approx(TRUTH.size)


@pytest.mark.parametrize("suffix", [".gpkg", ".csv", ".shp"])
def test_a_copy_that_lost_the_design_is_refused_and_gives_its_labels_to_the_original(mapped, tmp_path, suffix):
    points, copy = labelled(mapped, tmp_path / "points.gpkg", size=60), tmp_path / f"copy{suffix}"
    table = pyogrio.read_dataframe(points, layer="points")
    if suffix == ".csv":
        table.drop(columns="geometry").to_csv(copy, index=False)
    else:
        # A Shapefile holds names of ten letters.
        pyogrio.write_dataframe(
            table if suffix == ".gpkg" else table.rename(columns={"probability": "probabilit"}), copy
        )
    with pytest.raises(LandscribeError, match=r"but not its design.* this copy as --sample-labels"):
        ls.assess(mapped, reference=copy)
    ls.sample(mapped, out=tmp_path / "empty.gpkg", size=60)
    again = ls.assess(mapped, reference=tmp_path / "empty.gpkg", sample_labels=copy)
    assert again.overall == ls.assess(mapped, reference=points).overall


def test_settings_of_another_reference_are_refused(mapped, tmp_path):
    points = labelled(mapped, tmp_path / "points.gpkg", size=60)
    with pytest.raises(LandscribeError, match=r"--label-field is about labels, but .* is a sample"):
        ls.assess(mapped, reference=points, label_field="reference")
    for settings in ({"skip_unlabelled": True}, {"sample_labels": points}):
        with pytest.raises(LandscribeError, match=r"map.tif holds no sampling design. Leave it out"):
            ls.assess(mapped, reference=mapped, **settings)


def wetland_world(folder, **settings):
    """A sample of a map without wetlands, where a part of the forest is wetland; and the file of further classes."""
    path = worlds.write_raster(folder / "map.tif", MAPPED.astype(np.int16))
    table = folder / "classes.csv"
    table.write_text("value,name\n0,0\n1,1\n2,2\n9,wetland\n")
    sample = ls.sample(path, out=folder / "points.csv", **settings)
    truth = np.where((TRUTH == 1) & (np.arange(SHAPE[1]) < 80), 9, TRUTH)
    own = truth[sample.units["row"], sample.units["col"]]
    labels = pd.DataFrame({"id": sample.units["id"], "label": np.where(own == 9, "wetland", own.astype(str))})
    labels.to_csv(folder / "labels.csv", index=False)
    return path, truth, table


def test_a_class_on_the_ground_that_the_map_lacks_has_an_area_and_a_producers_accuracy_of_0(tmp_path):
    path, truth, table = wetland_world(tmp_path, design="simple", size=TRUTH.size)
    settings = {"reference": tmp_path / "points.csv", "sample_labels": tmp_path / "labels.csv"}
    with pytest.raises(LandscribeError, match=r"labels\.csv has reference 'wetland' .*Known: 0, 1, 2.*--class-table"):
        ls.assess(path, **settings)
    result = ls.assess(path, class_table=table, **settings)
    # All pixels are in the sample.
    assert result.areas["wetland"].value == pytest.approx(np.count_nonzero(truth == 9) * PIXEL_HA, rel=1e-5)
    assert result.producers["wetland"].value == 0
    assert np.isnan(result.users["wetland"].value)
    assert result.overall.value == pytest.approx(np.mean(truth == MAPPED))
    assert result.as_dict()["map_counts"]["wetland"] == {"units": 0, "area": 0.0}


def test_a_sample_that_was_drawn_with_the_class_table_needs_it_no_more(tmp_path):
    path, truth, table = wetland_world(tmp_path, size=200)
    settings = {"reference": tmp_path / "points.csv", "sample_labels": tmp_path / "labels.csv"}
    later = ls.assess(path, class_table=table, **settings)
    ls.sample(path, out=tmp_path / "points.csv", size=200, class_table=table, overwrite=True)
    at_first = ls.assess(path, **settings)
    assert at_first.areas == later.areas
    area = at_first.areas["wetland"]
    assert 0 < area.lower < np.count_nonzero(truth == 9) * PIXEL_HA < area.upper


@pytest.mark.parametrize("row", ["1,wood", "7,1"])
def test_a_class_table_that_renames_the_classes_of_a_sample_is_refused(tmp_path, row):
    path, _, table = wetland_world(tmp_path, size=200)
    table.write_text(f"value,name\n0,0\n2,2\n9,wetland\n{row}\n")
    value, name = row.split(",")
    message = rf"classes\.csv has the class '{name}' with value {value}, but the sample was drawn with '1' of value 1"
    with pytest.raises(LandscribeError, match=message):
        ls.assess(path, reference=tmp_path / "points.csv", sample_labels=tmp_path / "labels.csv", class_table=table)


@pytest.mark.parametrize("suffix", [".csv", ".gpkg"])
def test_the_reference_of_a_sample_may_be_names_or_values(mapped, tmp_path, suffix):
    points = labelled(mapped, tmp_path / f"points{suffix}", size=90)
    expected, sample = ls.assess(mapped, reference=points).overall, ls.ReferenceSample.open(points)
    values = sample.units["reference"].map(NAMES.index)
    for texts in (values.astype(str), values.astype(float).astype(str)):
        table = tmp_path / "labels.csv"
        pd.DataFrame({"id": sample.units["id"], "reference": texts}).to_csv(table, index=False)
        assert ls.assess(mapped, reference=points, sample_labels=table).overall == expected
    if suffix == ".csv":
        sample.units.assign(reference=values).to_csv(points, index=False)
        assert ls.assess(mapped, reference=points).overall == expected
