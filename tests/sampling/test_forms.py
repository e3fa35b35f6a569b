"""The files for other programs: their columns, and the way back from their labels to the sample."""

import numpy as np
import pandas as pd
import pyogrio
import pytest
from tests import worlds

import landscribe as ls
from landscribe.errors import LandscribeError
from landscribe.estimation.label_tables import read_labels

VALUES = np.random.default_rng(1).choice([1, 2, 255], (30, 40), p=[0.5, 0.4, 0.1]).astype(np.uint8)


@pytest.fixture
def sample(tmp_path):
    path = worlds.write_raster(tmp_path / "map.tif", VALUES, nodata=255)
    return ls.sample(path, out=tmp_path / "points.gpkg", size=20, forms=["ceo", "acatama"])


def test_collect_earth_online_gets_longitudes_latitudes_and_ids_alone(tmp_path, sample):
    text = (tmp_path / "points.ceo.csv").read_text()
    assert text.startswith("LON,LAT,PLOTID\n9.000")
    table = pd.read_csv(tmp_path / "points.ceo.csv")
    points = pyogrio.read_dataframe(tmp_path / "points.gpkg", layer="points").to_crs("EPSG:4326")
    assert table["PLOTID"].tolist() == points["id"].tolist()
    assert table["LON"].to_numpy() == pytest.approx(points.geometry.x.to_numpy(), abs=1e-8)
    assert table["LAT"].to_numpy() == pytest.approx(points.geometry.y.to_numpy(), abs=1e-8)


def test_acatama_gets_points_and_ids_alone(tmp_path, sample):
    points = pyogrio.read_dataframe(tmp_path / "points.acatama.gpkg")
    assert list(points.columns) == ["id", "geometry"]
    assert points["id"].tolist() == sample.units["id"].tolist()
    assert points.geometry.x.tolist() == sample.units["x"].tolist()
    assert points.crs.to_epsg() == 32632


@pytest.mark.parametrize(
    "table",
    [
        {"id": [3, 4, 5], "reference": ["1", "2", ""]},
        {"plotid": [3, 4, 5], "lon": [9.0, 9.1, 9.2], "email": ["a@b", "", ""], "LAND COVER?": ["1", "2", ""]},
        {"ID": [3, 4, 5], "Label": ["1", "2", None], "Label ID": [1, 2, None]},
        # Of Collect Earth Online: plots with ids of its own, per cent of the sample points, all columns in capitals.
        {"plotid": [5, 3, 4], "LAND COVER?": ["1", "2", ""], "pl_plotid": [3, 4, 5]},
        {"PLOT_ID": [901, 902, 903], "PL_PLOTID": [3, 4, 5], "COVER:1": [100, 0, 0], "COVER:2": [0, 60, 0]},
        {"id": [3, 4, 5], "map": ["2", "2", "1"], "truth": ["1", "2", ""]},
        {"id": [3, 4, 5], "cover": ["1", "2", ""], "certain:1": ["yes", "no", ""]},
    ],
)
def test_labels_come_back_by_id(tmp_path, sample, table):
    pd.DataFrame(table).to_csv(tmp_path / "labels.csv", index=False)
    classes = [entry.name for entry in sample.design.classes]
    labels = read_labels(tmp_path / "labels.csv", classes)
    assert labels == {3: "1", 4: "2"}
    assert sample.with_labels(labels).units["reference"].tolist()[2:5] == ["1", "2", ""]


@pytest.mark.parametrize(
    "text",
    [
        "id,reference\n3,1,\n4,2,\n",
        "id,reference\n3,1,,\n4,2\n",
        "id;reference;\n3;1;\n4;2;;\n",
        '\ufeffid\treference\r\n3\t1\t\r\n"4"\t"2"\r\n',
    ],
)
def test_separators_at_the_end_of_rows_do_not_shift_the_labels(tmp_path, text):
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8", newline="")
    assert read_labels(tmp_path / "labels.csv", ["1", "2"]) == {3: "1", 4: "2"}


@pytest.mark.parametrize("column", ["reference", "cover"])
def test_labels_that_a_program_wrote_as_floats_are_the_classes(tmp_path, column):
    pd.DataFrame({"id": [3.0, 4.0, 5.0], column: [1.0, 2.0, None]}).to_csv(tmp_path / "labels.csv", index=False)
    assert "3.0,1.0" in (tmp_path / "labels.csv").read_text()
    assert read_labels(tmp_path / "labels.csv", ["1", "2"]) == {3: "1", 4: "2"}


def test_a_row_with_more_cells_than_the_header_is_refused_with_its_line(tmp_path):
    (tmp_path / "labels.csv").write_text("id,reference\n3,1\n4,2,seen twice\n")
    with pytest.raises(LandscribeError, match=r"the cell 'seen twice' in line 3, but its header names 2 columns"):
        read_labels(tmp_path / "labels.csv", ["1", "2"])


@pytest.mark.parametrize(("text", "count"), [("id,reference\n", "0 rows"), ("id,reference\n3,\n4,\n", "2 rows")])
def test_a_table_without_labels_is_refused(tmp_path, text, count):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(LandscribeError, match=rf"labels.csv has no class in its column reference \({count}\)"):
        read_labels(tmp_path / "labels.csv", ["1", "2"])


def test_a_class_with_a_colon_is_an_answer(tmp_path):
    (tmp_path / "labels.csv").write_text("plotid,cover:urban: dense,cover:field\n1,90,10\n")
    assert read_labels(tmp_path / "labels.csv", ["urban: dense", "field"]) == {1: "urban: dense"}


def test_labels_of_a_layer_of_points_come_back_by_id(tmp_path, sample):
    worlds.write_polygons(tmp_path / "a.gpkg", [worlds.pixel_box(0, 0, 1, 1)] * 2, ID=[7, 8], Label=["2", None])
    assert read_labels(tmp_path / "a.gpkg", ["1", "2"]) == {7: "2"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"x": [1], "reference": ["1"]}, "has the columns x, reference. Expected one of id"),
        ({"id": [1], "cover": ["forest"]}, "has no column of class names. Expected"),
        (
            {"id": [1, 2, 3], "map": ["1", "1", "2"], "stratum": ["all"] * 3, "truth": ["1", "2", "unsure"]},
            r"has no column of class names \(but truth holds unsure, which is no class\)",
        ),
        ({"id": [1], "a:1": [100], "a:2": [0], "b:1": [0], "b:2": [100]}, "the classes in answers to a, b. Expected"),
        ({"id": [1, 2], "a:1": [100, 50], "a:2": [0, 50]}, "of row 2, two answers have the largest per cent"),
        ({"id": [1], "a:1": [30], "a:cloud": [70]}, "of row 1, a:cloud, which is no class, has the largest per cent"),
        ({"id": [1], "a:1": ["30%"], "a:2": ["70%"]}, "has '30%' among the answers to a. Expected per cent"),
        ({"id": [1, 2], "map": ["1", "2"]}, r"has no column of class names \(but map is the sample's own\)"),
        ({"id": [1], "a": ["1"], "b": ["2"]}, "has the classes in a, b. Expected one column"),
        (
            {"id": [1, 1], "reference": ["1", "2"]},
            "has '1' in its column id more than once. Expected the number of each unit once",
        ),
        ({"id": ["a"], "reference": ["1"]}, "has 'a' in its column id"),
    ],
)
def test_a_table_that_names_no_labels_is_refused(tmp_path, table, message):
    pd.DataFrame(table).to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(LandscribeError, match=message):
        read_labels(tmp_path / "labels.csv", ["1", "2"])


def test_an_unknown_form_and_a_map_without_a_crs_are_refused_before_anything_is_written(tmp_path):
    path = worlds.write_raster(tmp_path / "map.tif", VALUES, nodata=255, crs=None, transform=None)
    with pytest.raises(LandscribeError, match="no form is called 'ceos'; did you mean 'ceo'"):
        ls.sample(path, out=tmp_path / "points.gpkg", size=20, forms=["ceos"])
    with pytest.raises(LandscribeError, match=r"map.tif has no CRS, and points.ceo.csv holds longitudes"):
        ls.sample(path, out=tmp_path / "points.gpkg", size=20, forms=["ceo"])
    assert [file.name for file in tmp_path.iterdir()] == ["map.tif"]
