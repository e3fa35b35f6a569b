"""`image_area`: the pixels of an image outside of polygons are nodata in chips, statistics and maps."""

from pathlib import Path

import numpy as np
import pytest

from landscribe import pipeline, verbs
from landscribe.data.chips import cutting
from landscribe.data.chips.chips import ChipReader
from landscribe.data.scenes.scene import open_image
from landscribe.data.scenes.spec import SceneSpec
from landscribe.errors import ChipError, LabelError
from landscribe.geo.features import Features
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.burning import rasterize_mask
from landscribe.maps.class_map import fingerprint_in, read_tags
from worlds import noise, pixel_box, write_polygons, write_raster

SIDE = 96
QUADRANGLE = pixel_box(16, 20, 60, 64)
INSIDE = np.zeros((SIDE, SIDE), bool)
INSIDE[16:76, 20:84] = True


@pytest.fixture
def topo(tmp_path) -> Path:
    """A scanned map whose collar is 250, the mines on it, some of them in the collar, and its quadrangle."""
    array = np.where(INSIDE, noise(3, SIDE, SIDE), 250).astype(np.uint8)
    write_raster(tmp_path / "topo.tif", array)
    mines = [pixel_box(20, 24, 30, 20), pixel_box(60, 60, 30, 30), pixel_box(0, 0, 9, 9)]
    write_polygons(tmp_path / "mines.shp", mines)
    write_polygons(tmp_path / "quad.shp", [QUADRANGLE])
    return tmp_path


def cut(folder: Path, name: str = "chips", **settings):
    whole = {"size": 32, "val": 0, "test": 0, "image_area": folder / "quad.shp"}
    return verbs.chip(
        images=[folder / "topo.tif"], labels=folder / "mines.shp", out=folder / name, **(whole | settings)
    )


@pytest.mark.parametrize("virtual", [False, True])
def test_pixels_outside_the_area_are_nodata_in_chips(topo, virtual):
    chips = cut(topo, virtual=virtual)
    reader, collar = ChipReader(chips), 0
    for index, window in enumerate(chips.windows):
        pixels, valid, mask = reader.read(index)
        np.testing.assert_array_equal(valid, INSIDE[window.slices])
        assert (mask[~valid] == 255).all()
        assert (mask[valid] != 255).all()
        assert not pixels[:, ~valid].any()
        collar += int((~valid).sum())
    assert chips.table["valid_pixels"].sum() == INSIDE.sum()
    assert collar > 0


def test_statistics_leave_out_pixels_outside_the_area(topo):
    table = cut(topo, virtual=True).table
    weights = table["valid_pixels"] / table["valid_pixels"].sum()
    assert (table["mean_1"] * weights).sum() == pytest.approx(noise(3, SIDE, SIDE)[0][INSIDE].mean())


def test_chips_outside_the_area_are_not_cut(topo):
    write_polygons(topo / "quad.shp", [pixel_box(0, 0, 40, 32)])
    chips = cut(topo, unlabelled=True)
    assert [(window.row, window.col) for window in chips.windows] == [(0, 0), (32, 0)]


def test_an_area_in_another_crs_is_reprojected(topo):
    features = Features.read(topo / "quad.shp")
    import geopandas as gpd

    gpd.read_file(topo / "quad.shp").to_crs(3857).to_file(topo / "mercator.gpkg")
    spec = SceneSpec(image=(str(topo / "topo.tif"),), image_area=str(topo / "mercator.gpkg"))
    image = open_image(spec)
    _, valid = image.read(image.grid.window)
    expected = rasterize_mask(features, image.grid)
    np.testing.assert_array_equal(expected, INSIDE)
    # A vertex may move by a rounding error across the centre of a pixel at most.
    assert (valid != expected).sum() <= 2 * (60 + 64)


def test_one_file_of_many_areas_serves_all_images(topo):
    write_polygons(topo / "quad.shp", [pixel_box(500, 500, 60, 60), QUADRANGLE])
    assert cut(topo).table["valid_pixels"].sum() == INSIDE.sum()


def test_the_map_of_a_run_is_nodata_outside_the_area(topo):
    small = {"encoder": "plain", "weights": "none", "options": {"encoder_widths": [8, 16]}, "steps": 2, "size": 32}
    settings = small | {"tile": 64, "margin": 8, "engine": "torch", "image_area": topo / "quad.shp"}
    out = pipeline.run(images=[topo / "topo.tif"], labels=topo / "mines.shp", out=topo / "run", **settings)
    mapped = Raster.open([out / "map.tif"])
    np.testing.assert_array_equal(mapped.read(mapped.grid.window)[1], INSIDE)
    assert fingerprint_in(read_tags(out / "map.tif"))["image area"][0] == "quad.shp"


def test_an_area_that_changes_while_chips_are_cut_is_noticed(topo, monkeypatch):
    cut_all = cutting._cut

    def edited(*args):
        table = cut_all(*args)
        write_polygons(topo / "quad.shp", [QUADRANGLE, pixel_box(0, 0, 5, 5)])
        return table

    monkeypatch.setattr(cutting, "_cut", edited)
    for setting in ("image_area", "labelled_area"):
        with pytest.raises(ChipError, match=r"quad\.shp changed while chips were cut"):
            cut(topo, **({"image_area": None} | {setting: topo / "quad.shp"}))
        write_polygons(topo / "quad.shp", [QUADRANGLE])
    assert not (topo / "chips").exists()


def test_a_quadrangle_and_a_map_apart_are_named_with_both_extents(topo):
    write_polygons(topo / "quad.shp", [pixel_box(1000, 2000, 60, 64)])
    words = r"no polygon of \S*quad\.shp lies on \S*topo\.tif: they cover x 502000 .*, the raster covers x 500000 to"
    with pytest.raises(LabelError, match=words):
        cut(topo)
    found = verbs.check(
        images=[topo / "topo.tif"], labels=topo / "mines.shp", image_area=topo / "quad.shp", trial=False
    )
    assert len(found.errors) == 1
    assert "lies on" in found.errors[0]


def test_check_samples_an_area_that_is_small_on_its_image(tmp_path):
    array = np.zeros((1, 3000, 3000), np.uint8)
    array[:, 2001:2031, 1111:1151] = noise(1, 30, 40)
    image = write_raster(tmp_path / "large.tif", array, nodata=0)
    labels = write_polygons(tmp_path / "mines.gpkg", [pixel_box(2001, 1111, 15, 20)])
    area = write_polygons(tmp_path / "quad.gpkg", [pixel_box(2001, 1111, 30, 40)])
    found = verbs.check(images=[image], labels=labels, image_area=area, size=32, trial=False)
    assert found.errors == ()
    outside = write_polygons(tmp_path / "outside.gpkg", [pixel_box(10, 10, 30, 40)])
    (error,) = verbs.check(images=[image], labels=labels, image_area=outside, size=32, trial=False).errors
    assert "large.tif has no valid pixel in the area of" in error
