"""Object numbers of chips: copied, read from the scenes, in batches and in a training."""

import json
import logging

import numpy as np
import pytest
import torch

import landscribe as ls
from landscribe.data.batches.dataset import ChipDataset, to_float
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.data.chips.files import dense_numbers
from landscribe.geo.grid import Window
from worlds import noise, pixel_box, write_polygons, write_raster

SIDE = 64
BOXES = [pixel_box(row, col, 7, 8) for row in range(2, 60, 9) for col in range(2, 56, 8)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows_of_houses")
    image = write_raster(folder / "scene.tif", noise(3, SIDE, SIDE))
    return image, write_polygons(folder / "houses.gpkg", BOXES)


def cut(files, out, **settings) -> Chips:
    image, labels = files
    return ls.chip(images=[image], labels=labels, out=out, size=32, val=0.25, test=0, **settings)


@pytest.fixture(scope="module")
def copied(files, tmp_path_factory) -> Chips:
    return cut(files, tmp_path_factory.mktemp("copied") / "chips", objects=True)


def read_all(chips: Chips) -> list[np.ndarray]:
    reader = ChipReader(chips)
    return [reader.read_objects(index) for index in range(len(chips))]


@pytest.mark.parametrize("settings", [{"format": "png"}, {"format": "jpg", "mode": "separate"}, {"virtual": True}])
def test_numbers_of_chips_are_the_same_in_all_formats(files, copied, tmp_path, settings):
    other = cut(files, tmp_path / "chips", objects=True, **settings)
    for one, another in zip(read_all(copied), read_all(other), strict=True):
        np.testing.assert_array_equal(one, another)


def test_each_touching_house_of_a_chip_has_a_number(copied):
    reader = ChipReader(copied)
    for index, (window, objects) in enumerate(zip(copied.windows, read_all(copied), strict=True)):
        np.testing.assert_array_equal(objects > 0, reader.read(index).mask == 1)
        boxes = [box for box in BOXES if box.intersects(pixel_box(window.row + 0.1, window.col + 0.1, 31.8, 31.8))]
        assert set(np.unique(objects)) - {0} == set(range(1, len(boxes) + 1))


@pytest.mark.parametrize("virtual", [False, True], ids=["copied", "virtual"])
def test_pixels_that_are_not_valid_have_no_object(files, tmp_path, virtual):
    pixels = noise(3, SIDE, SIDE)
    pixels[:, 4:12, 5:40] = 0
    image = write_raster(tmp_path / "hole.tif", pixels, nodata=0)
    chips = cut((image, files[1]), tmp_path / "chips", objects=True, virtual=virtual)
    reader = ChipReader(chips)
    for index, objects in enumerate(read_all(chips)):
        np.testing.assert_array_equal(objects > 0, reader.read(index).mask == 1)
    scene = chips.scenes()["hole"]
    np.testing.assert_array_equal(scene.read_objects(Window(4, 5, 8, 35)), 0)


def test_background_chips_that_are_dropped_leave_no_object_numbers(files, tmp_path):
    image, labels = files[0], write_polygons(tmp_path / "corner.gpkg", BOXES[:2])
    chips = cut((image, labels), tmp_path / "chips", objects=True, background_share=0, stride=16)
    assert len(chips) < 9
    for kind in ("images", "masks", "objects"):
        assert len(list((chips.folder / kind).iterdir())) == len(chips)


def test_chips_without_object_numbers_are_as_before(files, copied, tmp_path):
    plain = cut(files, tmp_path / "chips")
    assert not plain.has_objects
    assert not (plain.folder / "objects").exists()
    assert copied.has_objects
    assert copied.table.drop(columns="objects").equals(plain.table)
    first, second = (json.loads((chips.folder / "chips.json").read_text()) for chips in (copied, plain))
    assert first == second
    assert "objects" not in ChipDataset(plain)[0]


def test_a_batch_holds_object_numbers(copied):
    sample = ChipDataset(copied)[0]
    assert sample["objects"].dtype == torch.int32
    np.testing.assert_array_equal(sample["objects"], read_all(copied)[0])
    assert to_float(sample)["objects"].dtype == torch.int64


def test_object_numbers_of_windows_are_those_of_the_scene(copied):
    scene = next(iter(copied.scenes().values()))
    window = copied.windows[0]
    sample = ChipDataset(copied)[0, window.row + 5, window.col + 3]
    moved = scene.read_objects(type(window)(window.row + 5, window.col + 3, *window.shape))
    np.testing.assert_array_equal(sample["objects"], dense_numbers(moved))


def test_a_transform_of_a_user_moves_object_numbers_too(copied):
    def flipped(*, image, masks):
        assert [mask.dtype.name for mask in masks] == ["uint8", "uint8", "uint16"]
        return {"image": image[:, ::-1], "masks": [mask[:, ::-1] for mask in masks]}

    plain, changed = ChipDataset(copied)[0], ChipDataset(copied, flipped)[0]
    assert torch.equal(changed["objects"], plain["objects"].flip(-1))


def test_a_recipe_of_unet_id_cuts_object_numbers(files, tmp_path):
    image, labels = files
    recipe = tmp_path / "recipe.toml"
    scene = f'[[scenes]]\nimage = ["{image}"]\nlabels = "{labels}"\n'
    recipe.write_text(f'{scene}[chips]\nsize = 32\n[split]\nval = 0\ntest = 0\n[train]\narchitecture = "unet_id"\n')
    assert ls.chip(recipe, out=tmp_path / "chips").has_objects


def test_a_raster_of_classes_gives_a_warning_with_the_remedy(files, tmp_path, caplog):
    classes = np.zeros((SIDE, SIDE), np.uint8)
    classes[3:9, 4:60] = 1
    labels = write_raster(tmp_path / "labels.tif", classes)
    with caplog.at_level(logging.WARNING):
        cut((files[0], labels), tmp_path / "chips", objects=True)
    assert "touching objects count as one. Pass --label-objects" in caplog.text


def test_a_training_on_chips_without_object_numbers_says_what_it_learns(files, copied, tmp_path, caplog):
    settings = {"architecture": "unet_id", "encoder": "plain", "options": {"encoder_widths": [4, 8]}, "steps": 2,
                "batch": 2, "augment": "strong", "learning_rate": 0.01}  # fmt: skip
    with caplog.at_level(logging.WARNING):
        ls.train(copied, out=tmp_path / "numbers", **settings)
        assert "touching objects" not in caplog.text
        ls.train(cut(files, tmp_path / "chips"), out=tmp_path / "none", **settings)
    assert "touching objects count as one. Cut the chips with --objects" in caplog.text
    first, second = (ls.Model.load(tmp_path / name).network.state_dict() for name in ("numbers", "none"))
    assert any(not torch.equal(first[name], second[name]) for name in first)
