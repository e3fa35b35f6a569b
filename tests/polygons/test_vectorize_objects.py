"""Objects that touch become polygons of their own."""

import logging
import resource
import shutil
import signal
import sys

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine
from rasterio.features import rasterize
from shapely import affinity
from shapely.geometry import Point, box
from typer.testing import CliRunner

import landscribe as ls
from landscribe.commands.app import app
from landscribe.errors import OutputError, RasterError, RecipeError
from worlds import pixel_box, write_raster

BANDS = ("segment", "border", "inner")


@pytest.fixture
def halves(tmp_path):
    """A house of two halves that touch at column 30, and their object probabilities."""
    classes, layers = np.zeros((40, 60), np.uint8), np.zeros((3, 40, 60), np.uint8)
    classes[10:30, 10:50] = 1
    layers[0][classes == 1] = 254
    layers[2, 12:28, 12:28] = layers[2, 12:28, 32:48] = 254
    mapped = write_raster(tmp_path / "map.tif", classes, nodata=255)
    return mapped, write_raster(tmp_path / "objects.tif", layers, nodata=255, descriptions=BANDS)


def test_each_object_of_the_heads_is_a_polygon_with_a_score(tmp_path, halves):
    mapped, layers = halves
    file = ls.vectorize(mapped, out=tmp_path / "objects.gpkg", object_probabilities=layers)
    table = gpd.read_file(file, layer="map")
    boxes = [pixel_box(10, 10, 20, 20), pixel_box(10, 30, 20, 20)]
    assert sorted(polygon.equals(box) for polygon in table.geometry for box in boxes) == [False, False, True, True]
    np.testing.assert_allclose(table["score"], 256 / 400, atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_no_note_offers_objects_of_the_background(tmp_path, halves, caplog):
    mapped, layers = halves
    with caplog.at_level(logging.INFO):
        ls.vectorize(mapped, out=tmp_path / "objects.fgb", object_probabilities=layers)
        assert "--classes all" not in caplog.text
        ls.vectorize(mapped, out=tmp_path / "classes.fgb")
    assert "class 0 of" in caplog.text


@pytest.mark.parametrize("folders", [("map.tif", "objects.tif"), ("maps/a.tif", "objects/a.tif")])
def test_the_object_probabilities_of_a_run_need_no_name(tmp_path, halves, folders, monkeypatch):
    moved = [tmp_path / "run" / name for name in folders]
    for source, target in zip(halves, moved, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    out = tmp_path / "o.fgb"
    monkeypatch.chdir(moved[0].parent)
    done = CliRunner().invoke(app, ["vectorize", moved[0].name, "--instances", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert len(gpd.read_file(out)) == 2
    moved[1].unlink()
    with pytest.raises(RasterError, match="has no object probabilities beside it"):
        ls.vectorize(moved[0].name, out=tmp_path / "p.fgb", object_probabilities="beside")


def test_split_touching_needs_no_probabilities(tmp_path, halves):
    classes = np.zeros((40, 60), np.uint8)
    classes[10:30, 5:25], classes[18:22, 25:29], classes[10:30, 29:49] = 1, 1, 1
    mapped = write_raster(tmp_path / "neck.tif", classes, nodata=255)
    counts = [
        len(gpd.read_file(ls.vectorize(mapped, out=tmp_path / f"{split}.fgb", split_touching=split)))
        for split in (False, True)
    ]
    assert counts == [1, 2]


def test_an_object_of_one_middle_is_not_cut_at_its_corners_or_necks(tmp_path):
    rng, grid = np.random.default_rng(0), Affine(2, 0, 500_000, 0, -2, 5_300_000)
    houses = []
    for number in range(36):
        (width, height), centre = rng.uniform(8, 25, 2), (500_030 + 40 * (number % 6), 5_299_970 - 40 * (number // 6))
        turned = affinity.rotate(box(-width / 2, -height / 2, width / 2, height / 2), rng.uniform(0, 90))
        houses.append(affinity.translate(turned, *centre))
    discs = [Point(x, 5_299_650).buffer(15) for x in (500_030, 500_055)]  # a neck of 16 m between two middles
    mask = rasterize([(shape, 1) for shape in houses + discs], (200, 140), transform=grid, dtype="uint8")
    mapped = write_raster(tmp_path / "houses.tif", mask, transform=grid, nodata=255)
    table = gpd.read_file(ls.vectorize(mapped, out=tmp_path / "o.fgb", split_touching=True))
    assert len(table) == len(houses) + len(discs)
    assert table.area.min() >= 50


def test_objects_have_the_probability_of_their_class(tmp_path, halves):
    mapped, layers = halves
    shares = np.stack([np.full((40, 60), share, np.float32) for share in (0.9, 0.1)])
    probabilities = write_raster(tmp_path / "p.tif", shares, descriptions=("0", "1"))
    file = ls.vectorize(
        mapped, out=tmp_path / "o.fgb", object_probabilities=layers, probabilities=probabilities, classes="all"
    )
    table = gpd.read_file(file).sort_values("id")
    np.testing.assert_allclose(table["probability"], np.where(table["value"] == 1, 0.1, 0.9), rtol=1e-6)
    assert sorted(table["value"]) == [0, 1, 1]


def test_a_full_disk_ends_in_one_line_about_the_output(tmp_path, halves, monkeypatch, capfd):
    mapped, layers = halves
    ls.vectorize(mapped, out=tmp_path / "o.fgb", object_probabilities=layers)  # imports what would be cut when cached
    # A limit on the size of files stands for the disk: writing beyond it fails with "File too large".
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
        with pytest.raises(OutputError, match="numbers of objects could not be written beside the output"):
            ls.vectorize(mapped, out=tmp_path / "new.fgb", object_probabilities=layers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert capfd.readouterr().err == ""
    assert not list(tmp_path.glob("*new*"))


def test_nodata_is_no_object_of_class_255(tmp_path):
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 5:25] = 255
    mapped = write_raster(tmp_path / "mask.tif", mask, nodata=0)
    table = gpd.read_file(ls.vectorize(mapped, out=tmp_path / "o.fgb", split_touching=True))
    assert [shape.equals(pixel_box(10, 5, 20, 20)) for shape in table.geometry] == [True]


def test_a_class_table_may_hold_values_that_the_map_does_not(tmp_path, halves):
    table = tmp_path / "classes.csv"
    table.write_text("value,name\n-1,nothing\n1,house\n300,tower\n")
    file = ls.vectorize(halves[0], out=tmp_path / "o.fgb", split_touching=True, class_table=table)
    assert gpd.read_file(file)["class"].tolist() == ["house"]


def test_two_ways_to_separate_objects_are_refused(tmp_path, halves):
    mapped, layers = halves
    with pytest.raises(RecipeError, match="split_touching and object_probabilities both separate objects"):
        ls.vectorize(mapped, out=tmp_path / "o.gpkg", object_probabilities=layers, split_touching=True)
