"""Real imagery with real quirks, where the folder of shared data exists."""

import numpy as np
import pytest
import rasterio
from rasterio.features import rasterize
from rasterio.warp import transform_geom

from landscribe import pipeline, verbs
from landscribe.data.chips import Chips
from landscribe.data.scene import SceneSpec, open_scenes
from landscribe.geo.features import Features
from landscribe.geo.grid import Window
from landscribe.geo.raster import read_band

QUICK = {"encoder": "resnet10t", "weights": "none", "steps": 2}


@pytest.fixture(scope="module")
def banepa(shared_data):
    folder = shared_data / "banepa_buildings" / "dev"
    return folder / "scene.tif", folder / "buildings.geojson"


def test_banepa_labels_are_burned_where_gdal_puts_them(banepa):
    image, labels = banepa
    (scene,), classes = open_scenes([SceneSpec(image=(str(image),), labels=str(labels))])
    window = Window(1000, 500, 1024, 1024)
    grid = scene.image.grid[window]
    read = Features.read(labels)
    shapes = [transform_geom(read.crs, grid.crs, geometry) for geometry in read.geometries]
    expected = rasterize(shapes, out_shape=grid.shape, transform=grid.transform, dtype="uint8")
    assert (scene.labels.read(window) == expected).mean() > 0.9999
    assert classes.names == ("background", "buildings")


def test_banepa_is_cut_into_465_chips_of_256_at_stride_128(banepa, tmp_path):
    chips = verbs.chip(images=[banepa[0]], labels=banepa[1], out=tmp_path / "chips", stride=128, virtual=True)
    assert len(chips) == 465
    assert len(set(chips.windows)) == 465
    share = chips.counts[:, 1].sum() / chips.counts.sum()
    assert share == pytest.approx(0.444, abs=0.02)


def test_banepa_pixels_are_as_large_as_its_page_says(banepa):
    (scene,), _ = open_scenes([SceneSpec(image=(str(banepa[0]),), labels=str(banepa[1]))])
    assert scene.image.grid.pixel_size == pytest.approx(0.132, abs=0.001)


def test_banepa_check_says_that_labels_are_reprojected(banepa):
    found = verbs.check(images=[banepa[0]], labels=banepa[1], trial=False)
    assert found.errors == ()
    assert any("EPSG:4326 and is reprojected to EPSG:3857" in finding.text for finding in found.findings)
    assert found.forecast.chips == 128


def test_eight_sentinel_bands_and_sparse_polygons_go_all_the_way(shared_data, tmp_path):
    folder = shared_data / "rcr_sentinel2"
    bands = [folder / "bands" / f"B{number:02d}.tif" for number in range(1, 9)]
    out = pipeline.run(
        images=[bands], labels=folder / "dev" / "landcover.shp", label_field="Classname", out=tmp_path / "run",
        size=64, mode="positive", **QUICK,
    )  # fmt: skip
    chips = Chips.open(out / "chips")
    assert chips.head.bands == tuple(f"B{number:02d}" for number in range(1, 9))
    assert len(chips.classes) == 7
    with rasterio.open(out / "map.tif") as source:
        assert source.shape == (2201, 2629)


def test_amazon_masks_without_georeference_lie_on_their_images(shared_data, tmp_path):
    folder = shared_data / "amazon_forest" / "dev"
    images = sorted((folder / "images").glob("*.tif"))[:4]
    masks = [folder / "masks" / f"{image.stem}.png" for image in images]
    chips = verbs.chip(images=images, labels=masks, out=tmp_path / "chips")
    assert len(chips) == 16
    assert chips.classes.values == (1, 2)
    whole = read_band(masks[0])
    first = chips.table[chips.table["scene"] == images[0].stem]
    assert first["count_1"].sum() == np.count_nonzero(whole == 1)


def test_tiles_whose_place_lies_in_a_side_file_are_mapped(shared_data, banepa, tmp_path):
    chips = verbs.chip(images=[banepa[0]], labels=banepa[1], out=tmp_path / "chips", virtual=True)
    verbs.train(chips, out=tmp_path / "model", **QUICK)
    tiles = sorted((shared_data / "banepa_buildings" / "dev" / "unlabelled_tiles").glob("*.tif"))[:2]
    maps = verbs.predict(tmp_path / "model", tiles, out=tmp_path / "maps")
    with rasterio.open(maps[0]) as made, rasterio.open(tiles[0]) as tile:
        assert made.transform.almost_equals(tile.transform)
        assert made.crs == tile.crs
