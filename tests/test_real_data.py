"""Real imagery with real quirks, where the folder of shared data exists."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.features import rasterize
from rasterio.warp import transform_geom

from landscribe import pipeline, verbs
from landscribe.data.chips.chips import Chips
from landscribe.data.scenes.scene import open_scenes
from landscribe.data.scenes.spec import SceneSpec
from landscribe.geo.classes import rgb
from landscribe.geo.features import Features
from landscribe.geo.grid import Window
from landscribe.geo.rasters.whole_files import read_band
from landscribe.recipe import Recipe

QUICK = {"encoder": "plain", "options": {"encoder_widths": [4, 8]}, "weights": "none", "steps": 2}


@pytest.fixture(scope="module")
def banepa(shared_data):
    folder = shared_data / "banepa_buildings" / "dev"
    return folder / "scene.tif", folder / "buildings.geojson"


def test_banepa_labels_are_burned_like_gdal_does(banepa):
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


@pytest.fixture
def beside(tmp_path):
    """Puts a recipe of the project beside the data that it is for."""

    def placed(name: str, **data) -> Path:
        for target, source in data.items():
            (tmp_path / target.replace("__", ".")).symlink_to(source)
        shutil.copy(Path(__file__).parents[1] / "recipes" / name, tmp_path)
        return tmp_path / name

    return placed


def test_eight_sentinel_bands_and_sparse_polygons_are_chipped_and_mapped(shared_data, tmp_path, beside):
    folder = shared_data / "rcr_sentinel2"
    sides = {f"landcover__{suffix}": folder / "dev" / f"landcover.{suffix}" for suffix in ("shp", "shx", "dbf", "prj")}
    out = pipeline.run(
        beside("rcr_sentinel2.toml", bands=folder / "bands", **sides), out=tmp_path / "run", **QUICK
    )  # fmt: skip
    chips = Chips.open(out / "chips")
    assert chips.metadata.bands == tuple(f"B{number:02d}" for number in range(1, 9))
    # Each class is there to be learned, and only what polygons cover is known.
    assert (chips.of_split("train").counts.sum(axis=0) > 0).all()
    assert len(chips.classes) == 6
    assert chips.counts.sum() < 500
    assert json.loads((out / "assessment.json").read_text())["pixels"] > 0
    with rasterio.open(out / "map.tif") as source:
        assert source.shape == (2201, 2629)
        share = (source.read(1) == 255).mean()
    assert share == pytest.approx(0.315, abs=0.001)  # the corners without imagery


def test_amazon_masks_without_georeference_are_aligned_to_their_images(shared_data, tmp_path, beside):
    folder = shared_data / "amazon_forest" / "dev"
    recipe = Recipe.load(beside("amazon_forest.toml", images=folder / "images", masks=folder / "masks"))
    chips = verbs.chip_scenes(recipe.listed(), tmp_path / "chips")
    assert len(chips) == 29 * 4
    assert chips.metadata.bands == ("red", "green", "blue")
    for name in ("Amazon_970_1", "Amazon_5_50"):
        whole = read_band(folder / "masks" / f"{name}.png")
        rows = chips.table[chips.table["scene"] == name]
        assert rows["split"].nunique() == 1
        assert [rows[f"count_{value}"].sum() for value in (1, 2)] == [np.count_nonzero(whole == v) for v in (1, 2)]
    assert set(chips.table["split"]) == {"train", "val", "test"}


def test_an_amazon_mask_that_is_wider_than_its_image_is_refused_with_both_sizes(shared_data):
    folder = shared_data / "amazon_forest" / "dev"
    (error,) = verbs.check(images=[folder / "images"], labels=folder / "masks", trial=False).errors
    assert "Amazon_181_34.png has no CRS and 515 x 512 pixels, but" in error
    assert "has 512 x 512. Without a CRS, sizes must be equal." in error


def test_dubai_colours_are_classes_in_palettes_and_true_colours(shared_data, tmp_path, beside):
    folder = shared_data / "dubai" / "dev"
    recipe = Recipe.load(beside("dubai.toml", images=folder / "images", masks=folder / "masks"))
    some = recipe.model_copy(
        update={
            "scenes": tuple(
                scene.model_copy(update={"image": (f"{tmp_path}/images/{name}.jpg",), "split": split})
                for scene, name, split in zip(
                    recipe.scenes, ("tile2_part[12]", "tile8_part1"), ("train", "val"), strict=True
                )
            )
        }
    )
    chips = verbs.chip_scenes(some.listed(), tmp_path / "chips")
    assert chips.classes.names == ("building", "land", "road", "vegetation", "water")
    assert chips.classes.unknown == ("#9b9b9b", "#000000")
    for name in ("tile2_part1", "tile8_part1"):
        with Image.open(folder / "masks" / f"{name}.png") as picture:
            colours = np.asarray(picture.convert("RGB"))
        scene = next(scene for scene in some.listed().scenes if name in scene.image[0])
        (opened,), _ = open_scenes([scene], some.classes)
        values = opened.labels.read(opened.image.grid.window)
        for entry in chips.classes:
            expected = (colours == rgb(entry.colour)).all(axis=-1)
            np.testing.assert_array_equal(values == entry.value, expected)
        assert (values == 255).sum() == np.isin(colours @ [65536, 256, 1], [0x9B9B9B, 0]).sum()


def test_images_georeferenced_by_a_side_file_are_mapped(shared_data, banepa, tmp_path):
    chips = verbs.chip(images=[banepa[0]], labels=banepa[1], out=tmp_path / "chips", virtual=True)
    verbs.train(chips, out=tmp_path / "model", **QUICK)
    tiles = sorted((shared_data / "banepa_buildings" / "dev" / "unlabelled_tiles").glob("*.tif"))[:2]
    maps = verbs.predict(tmp_path / "model", tiles, out=tmp_path / "maps")
    with rasterio.open(maps[0]) as made, rasterio.open(tiles[0]) as tile:
        assert made.transform.almost_equals(tile.transform)
        assert made.crs == tile.crs
