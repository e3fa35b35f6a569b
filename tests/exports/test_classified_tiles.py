"""Chips as Classified Tiles of ArcGIS."""

import json

import numpy as np
import pytest
import rasterio

from landscribe import verbs
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.errors import OutputError
from worlds import noise, pixel_box, write_polygons, write_raster

SIDE = 16


@pytest.fixture(scope="module")
def chips(tmp_path_factory) -> Chips:
    folder = tmp_path_factory.mktemp("chips")
    image = write_raster(folder / "scene.tif", noise(3, 40, 48))
    labels = write_polygons(folder / "labels.gpkg", [pixel_box(3, 3, 9, 20), pixel_box(20, 0, 20, 9)], kind=["a", "b"])
    return verbs.chip(images=[image], labels=labels, label_field="kind", size=SIDE, out=folder / "chips", val=0, test=0)


def test_chips_written_as_classified_tiles_are_read_back_unchanged(chips, tmp_path):
    out = verbs.export(chips, out=tmp_path / "esri")
    again = verbs.chip(images=[out], labels=None, size=SIDE, out=tmp_path / "again", val=0, test=0)
    assert again.classes.names == chips.classes.names
    # Raised by 1 in the tiles, where 0 means unlabelled.
    assert again.classes.values == chips.classes.values == (0, 1, 2)
    assert again.classes.background == 0
    for index in range(len(chips)):
        ours, theirs = ChipReader(chips).read(index), ChipReader(again).read(index)
        np.testing.assert_array_equal(theirs[0], ours[0])
        np.testing.assert_array_equal(theirs[2], ours[2])


def test_classified_tiles_have_the_entries_that_arcgis_learn_reads(chips, tmp_path):
    out = verbs.export(chips, out=tmp_path / "esri")
    lines = (out / "map.txt").read_bytes().split(b"\r\n")
    assert lines[0] == b"images\\000000000.tif  labels\\000000000.tif "
    assert len(lines) == len(chips) + 1
    definition = json.loads((out / "esri_model_definition.emd").read_text())
    assert definition["MetaDataMode"] == "Classified_Tiles"
    assert [row["Value"] for row in definition["Classes"]] == [1, 2, 3]
    pixels = np.stack([ChipReader(chips).read(index)[0] for index in range(len(chips))], axis=1)
    for band, row in zip(pixels.reshape(3, -1), definition["AllTilesStats"], strict=True):
        assert (row["Min"], row["Max"]) == (band.min(), band.max())
        assert (row["Mean"], row["StdDev"]) == pytest.approx((band.mean(), band.std()))
    statistics = json.loads((out / "esri_accumulated_stats.json").read_text())
    assert statistics["ClassPixelStats"]["NumPixelsPerClass"] == chips.counts.sum(axis=0).tolist()
    state = statistics["BandStatsState"][0]
    assert np.sqrt(state["M2"] / state["Num"]) == pytest.approx(pixels[0].std())


def test_tiles_have_the_grid_of_their_chips(chips, tmp_path):
    out = verbs.export(chips, out=tmp_path / "esri")
    grid = chips.images()["scene"].grid[chips.windows[1]]
    with rasterio.open(out / "labels" / "000000001.tif") as tile:
        assert tile.transform == grid.transform
    lines = (out / "images" / "000000001.tfw").read_text().split()
    assert tuple(map(float, lines[4:])) == grid.xy(0.5, 0.5)


def test_an_export_never_replaces_the_folder_of_its_chips(chips):
    with pytest.raises(OutputError, match="exists already"):
        verbs.export(chips, out=chips.folder)
