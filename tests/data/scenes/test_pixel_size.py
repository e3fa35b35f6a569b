"""`pixel_size`: imagery, label rasters and polygons of a scene in pixels of another size."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from landscribe import pipeline, verbs
from landscribe.data.batches.dataset import ChipDataset
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.data.scenes.scene import Scene, open_image, open_scenes
from landscribe.data.scenes.spec import ClassSpec, SceneSpec
from landscribe.errors import GridError, LandscribeError, RecipeError
from landscribe.geo.classes import Classes
from landscribe.geo.rasters.raster import Raster
from landscribe.model import Model
from landscribe.synthetic import draw
from landscribe.synthetic import write as write_world
from worlds import CORNER, METRE, noise, pixel_box, write_polygons, write_raster

H, W = 20, 30
"""Of the coarse grid."""
FINE = Affine(0.6, 0, CORNER[0], 0, -0.6, CORNER[1])
COARSE = Affine(3, 0, CORNER[0], 0, -3, CORNER[1])


def image_of(folder: Path, array: np.ndarray | None = None, name: str = "image.tif", **layout) -> Path:
    """An image of 0.6 m that covers the coarse grid exactly."""
    array = noise(3, 5 * H, 5 * W) if array is None else array
    return write_raster(folder / name, array, **({"transform": FINE} | layout))


def opened(image: Path, labels: Path, table=(), **settings) -> tuple[Scene, Classes]:
    spec = SceneSpec.of({"image": str(image), "labels": str(labels), "pixel_size": 3} | settings)
    (scene,), classes = open_scenes([spec], table)
    return scene, classes


def mask_of(scene: Scene) -> np.ndarray:
    return scene.labels.read(scene.image.grid.window)


def majority(blocks: np.ndarray) -> np.ndarray:
    """(rows, cols) of blocks (rows, cols, 25) of values: the most frequent one, the lowest of equal ones."""
    return np.array([[np.bincount(block).argmax() for block in row] for row in blocks])


def blocks_of(array: np.ndarray) -> np.ndarray:
    """(rows, cols, 25) the fine pixels under each coarse one."""
    return array.reshape(H, 5, W, 5).swapaxes(1, 2).reshape(H, W, 25)


# ---- imagery


def test_a_pixel_of_3_m_is_the_mean_of_25_of_60_cm(tmp_path):
    array = noise(3, 5 * H, 5 * W, "uint16")
    image = open_image(SceneSpec(image=(str(image_of(tmp_path, array)),), pixel_size=3))
    pixels, valid = image.read(image.grid.window)
    assert image.grid.transform.almost_equals(COARSE)
    assert valid.all()
    for band, fine in zip(pixels, array, strict=True):
        np.testing.assert_array_equal(band, np.floor(blocks_of(fine).mean(axis=2) + 0.5))


def test_a_pixel_is_valid_if_half_of_its_area_is(tmp_path):
    array = np.full((1, 5 * H, 5 * W), 7, np.uint8)
    array[0, :5, :5].flat[:12] = 0
    array[0, :5, 5:10].flat[:13] = 0
    image = open_image(SceneSpec(image=(str(image_of(tmp_path, array, nodata=0)),), pixel_size=3))
    pixels, valid = image.read(image.grid.window)
    assert valid[0, :3].tolist() == [True, False, True]
    assert pixels[0, 0, :3].tolist() == [7, 0, 7]


def test_finer_pixels_are_interpolated_and_take_the_nearest_label(tmp_path):
    image = write_raster(tmp_path / "image.tif", np.array([[10, 30], [10, 30]], np.uint8))
    labels = write_raster(tmp_path / "labels.tif", np.array([[1, 2], [1, 2]], np.uint8))
    scene, _ = opened(image, labels, pixel_size=0.5)
    assert scene.image.read(scene.image.grid.window)[0][0, 0].tolist() == [10, 15, 25, 30]
    assert mask_of(scene)[0].tolist() == [1, 1, 2, 2]


# ---- label rasters


def test_a_label_of_3_m_is_the_majority_of_25_of_60_cm(tmp_path):
    labels = np.random.default_rng(1).integers(1, 4, (5 * H, 5 * W)).astype(np.uint8)
    scene, classes = opened(image_of(tmp_path), image_of(tmp_path, labels, "labels.tif"))
    assert classes.values == (1, 2, 3)
    np.testing.assert_array_equal(mask_of(scene), majority(blocks_of(labels)))


def test_unlabelled_pixels_do_not_vote_and_half_a_pixel_is_labelled(tmp_path):
    labels = np.full((5 * H, 5 * W), 2, np.uint8)
    labels[:5, :5].flat[:12] = 255
    labels[:5, 5:10].flat[:13] = 255
    labels[:5, 10:15].flat[:24] = np.repeat([255, 3, 1], [8, 8, 8])
    labels[:5, 15:20].flat[:12] = 0
    table = [ClassSpec(name=str(value), value=value) for value in (1, 2, 3)]
    scene, _ = opened(image_of(tmp_path), image_of(tmp_path, labels, "labels.tif", nodata=0), table)
    assert mask_of(scene)[0, :5].tolist() == [2, 255, 1, 2, 2]


def test_labels_vote_by_class_and_ignored_labels_do_not(tmp_path):
    labels = np.full((5 * H, 5 * W), 1, np.uint8)
    labels[:5, :5].flat[:25] = np.repeat([10, 11, 12], [9, 8, 8])
    labels[:5, 5:10].flat[:25] = np.repeat([20, 10, 1], [12, 6, 7])
    table = [
        ClassSpec(name="field", value=1, label=1), ClassSpec(name="roof", value=2, label=10),
        ClassSpec(name="roof, grey", value=3, label=11), ClassSpec(name="tiles", value=4, label=12),
        ClassSpec(name="cloud", value=255, label=20),
    ]  # fmt: skip
    scene, _ = opened(image_of(tmp_path), image_of(tmp_path, labels, "labels.tif"), table)
    assert mask_of(scene)[0, :2].tolist() == [2, 1]


def test_thresholds_and_colours_vote_as_classes(tmp_path):
    masks = np.full((5 * H, 5 * W), 30, np.uint8)
    masks[:5, :5].flat[:25] = np.repeat([0, 1, 2, 200, 255], [4, 4, 4, 6, 7])
    scene, _ = opened(image_of(tmp_path), image_of(tmp_path, masks, "masks.tif"), label_threshold=128)
    assert mask_of(scene)[0, :2].tolist() == [1, 0]
    red, blue = np.array([255, 0, 0], np.uint8), np.array([0, 0, 254], np.uint8)
    colours = np.tile(blue[:, None, None], (1, 5 * H, 5 * W))
    colours[:, :4, :5] = red[:, None, None]
    table = [ClassSpec(name="roof", value=1, label="#ff0000"), ClassSpec(name="water", value=2, label="#0000fe")]
    scene, _ = opened(image_of(tmp_path), image_of(tmp_path, colours, "rgb.tif", photometric="rgb"), table)
    assert mask_of(scene)[0, :2].tolist() == [1, 2]


def test_a_mask_without_a_crs_lies_on_the_pixels_of_the_image_file(tmp_path):
    labels = np.random.default_rng(1).integers(1, 4, (5 * H, 5 * W)).astype(np.uint8)
    plain = write_raster(tmp_path / "mask.png", labels, crs=None, transform=None)
    scene, _ = opened(image_of(tmp_path), plain)
    np.testing.assert_array_equal(mask_of(scene), majority(blocks_of(labels)))
    other = write_raster(tmp_path / "other.png", labels[1:], crs=None, transform=None)
    with pytest.raises(GridError, match=r"other\.png has no CRS and 150 x 99 pixels, but \S*image\.tif has 150 x 100"):
        opened(image_of(tmp_path), other)


def test_finer_labels_vote_on_an_image_that_has_the_pixel_size(tmp_path):
    labels = np.random.default_rng(1).integers(1, 4, (5 * H, 5 * W)).astype(np.uint8)
    image = image_of(tmp_path, noise(3, H, W), transform=COARSE)
    scene, _ = opened(image, image_of(tmp_path, labels, "labels.tif"))
    np.testing.assert_array_equal(mask_of(scene), majority(blocks_of(labels)))


def test_labels_that_have_the_pixel_size_are_as_they_are(tmp_path):
    labels = np.random.default_rng(1).integers(1, 4, (H, W)).astype(np.uint8)
    scene, _ = opened(image_of(tmp_path), image_of(tmp_path, labels, "labels.tif", transform=COARSE))
    np.testing.assert_array_equal(mask_of(scene), labels)


# ---- polygons


@pytest.mark.parametrize("side", [3, 2.2])
def test_polygons_are_burned_in_the_coarse_pixels(tmp_path, side):
    boxes = [pixel_box(3.3, 4, 20, 31.7), pixel_box(30, 40, 7.5, 9.1)]
    labels = write_polygons(tmp_path / "labels.gpkg", boxes, kind=["house", "road"])
    fine, _ = opened(image_of(tmp_path), labels, label_field="kind", pixel_size=side)
    grid = fine.image.grid
    coarse = write_raster(tmp_path / "coarse.tif", noise(3, *grid.shape), transform=grid.transform)
    plain, _ = opened(coarse, labels, label_field="kind", pixel_size=None)
    np.testing.assert_array_equal(mask_of(fine), mask_of(plain))
    assert len(np.unique(mask_of(fine))) == 3


# ---- chips, models and maps


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 0), ("int16", 100), ("float32", float("nan"))])
def test_virtual_chips_equal_copied_chips(tmp_path, dtype, nodata):
    array = np.random.default_rng(0).choice([98, 102], (1, 5 * H, 5 * W)).astype(dtype)
    array[:, :40, 70:] = nodata
    labels = np.random.default_rng(1).integers(0, 3, (5 * H, 5 * W)).astype(np.uint8)
    labels[:, 90:] = 255
    image, masks = image_of(tmp_path, array, nodata=nodata), image_of(tmp_path, labels, "labels.tif")
    settings = {"size": 8, "stride": 8, "pixel_size": 3, "label_ignore": "255", "val": 0, "test": 0}
    copied, virtual = (
        verbs.chip(images=[image], labels=masks, out=tmp_path / f"{kind}", virtual=kind, **settings)
        for kind in (False, True)
    )
    assert len(copied) == len(virtual) > 4
    for index in range(len(copied)):
        for own, other in zip(ChipReader(copied).read(index), ChipReader(virtual).read(index), strict=True):
            np.testing.assert_array_equal(own, other)
        np.testing.assert_array_equal(ChipDataset(copied)[index]["image"], ChipDataset(virtual)[index]["image"])
    assert copied.metadata.pixel_size == pytest.approx(3, rel=0.002)
    means = copied.table.filter(like="mean_")
    assert means.equals(virtual.table.filter(like="mean_"))


def test_a_model_of_3_m_maps_the_60_cm_image_to_the_map_of_its_run(tmp_path):
    world = draw(480, 480, seed=2)
    scene, _, _ = write_world(world, tmp_path / "world")
    with rasterio.open(scene) as source:
        pixels, valid = source.read(), source.dataset_mask() > 0
    image = write_raster(tmp_path / "image.tif", np.where(valid, pixels, 0), transform=FINE, nodata=0)
    labels = write_raster(tmp_path / "labels.tif", (pixels[0] > np.median(pixels[0])).astype(np.uint8), transform=FINE)
    settings = {"encoder": "plain", "weights": "none", "options": {"encoder_widths": [8, 16]}, "steps": 3}
    tiles = {"tile": 64, "margin": 8, "engine": "torch"}
    run = pipeline.run(images=[image], labels=labels, out=tmp_path / "run", pixel_size=3, size=32, **settings, **tiles)
    mapped = Raster.open([run / "map.tif"])
    assert mapped.grid.transform.almost_equals(COARSE)
    assert mapped.grid.shape == (96, 96)
    assert Model.load(run / "model").pixel_size == pytest.approx(3, rel=0.002)
    assert Chips.open(run / "chips").metadata.sources[0].pixel_size == 3
    verbs.predict(run / "model", [image], out=tmp_path / "map.tif", resample=True, **tiles)
    again = Raster.open([tmp_path / "map.tif"])
    assert again.grid == mapped.grid
    for own, other in zip(again.read(again.grid.window), mapped.read(mapped.grid.window), strict=True):
        np.testing.assert_array_equal(own, other)


# ---- bad input


@pytest.mark.parametrize("value", [0, -3, float("nan"), float("inf"), "fine"])
def test_a_pixel_size_that_is_none_is_refused_in_a_line(value):
    with pytest.raises(RecipeError, match=r"'pixel_size' is .*; input should be"):
        SceneSpec.of({"image": "a.tif", "pixel_size": value})


def test_a_pixel_larger_than_the_scene_is_refused_by_check(tmp_path):
    labels = write_polygons(tmp_path / "labels.gpkg", [pixel_box(3, 4, 20, 30)])
    found = verbs.check(images=[image_of(tmp_path)], labels=labels, pixel_size=91, trial=False)
    assert len(found.errors) == 1
    assert "image.tif (150 x 100 pixels of 0.6 m) cannot be resampled to pixels of 91 m." in found.errors[0]


def test_an_image_without_a_crs_has_no_pixel_size_to_change(tmp_path):
    image = write_raster(tmp_path / "plain.tif", noise(3, H, W), crs=None, transform=METRE)
    labels = write_raster(tmp_path / "labels.tif", noise(1, H, W), crs=None, transform=None)
    with pytest.raises(LandscribeError, match=r"plain\.tif has no CRS, so its pixel size is unknown and cannot become"):
        opened(image, labels)


def test_check_says_that_labels_are_read_by_majority(tmp_path):
    labels = image_of(tmp_path, noise(1, 5 * H, 5 * W) % 3, "labels.tif")
    found = verbs.check(images=[image_of(tmp_path)], labels=labels, pixel_size=3, size=16, trial=False)
    notes = [finding.text for finding in found.findings]
    assert any("each pixel gets the majority label" in text for text in notes)
    assert any("30 x 20 pixels of 3 m" in text for text in notes)
