"""Chips: pairs of image and mask, and their index."""

import hashlib
import json
import pickle
import shutil
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window as RasterioWindow

import landscribe as ls
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.data.chips.cutting import chip
from landscribe.data.chips.spec import ChipSpec
from landscribe.data.chips.stats import band_statistics
from landscribe.data.scenes.scene import open_scenes
from landscribe.data.scenes.spec import SceneSpec
from landscribe.data.splits.folds import fold_splits
from landscribe.data.splits.spec import SplitSpec
from landscribe.errors import ChipError, OutputError, RasterError, RecipeError
from landscribe.geo.access import open_dataset
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.rasters.whole_files import mask_file
from worlds import METRE, noise, pixel_box, write_polygons, write_raster

H, W, SIZE = 40, 60, 16
SPLIT_NAMES = ("train", "val", "test")
ALL_TO_TRAIN = SplitSpec(val=0, test=0)
BOXES = [pixel_box(2, 3, 5, 6), pixel_box(20, 40, 9, 12)]


@dataclass
class World:
    """A folder with a scene of H x W pixels and two polygons."""

    folder: Path

    def scene(self, array=None, name="scene.tif", **options) -> SceneSpec:
        path = write_raster(self.folder / name, noise(3, H, W) if array is None else array, **options)
        return SceneSpec(image=(str(path),), labels=str(self.labels()), label_field="kind")

    def labels(self) -> Path:
        path = self.folder / "labels.geojson"
        return path if path.exists() else write_polygons(path, BOXES, kind=["house", "road"])

    def chip(self, *specs: SceneSpec, out="chips", split=ALL_TO_TRAIN, seed=0, overwrite=False, **settings) -> Chips:
        specs = specs or (self.scene(),)
        scenes, classes = open_scenes(specs)
        spec = ChipSpec(**({"size": SIZE} | settings))
        folder = self.folder / out
        return chip(scenes, classes, specs, folder, spec=spec, split=split, seed=seed, overwrite=overwrite)


@pytest.fixture
def world(tmp_path) -> World:
    return World(tmp_path)


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file, by its relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# Bytes and files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{}, {"format": "png"}, {"format": "jpg"}, {"virtual": True}, {"mode": "separate"}, {"background_share": 0.5}],
)
def test_chipping_twice_gives_the_same_bytes(world, settings):
    first, second = (world.chip(out=out, split=SplitSpec(), **settings) for out in ("one", "two"))
    assert digests(first.folder) == digests(second.folder)


def test_another_seed_changes_the_split_only(world):
    spec = world.scene(noise(1, 12 * 16, 12 * 16))
    first, second = (world.chip(spec, out=f"{n}", seed=n, split=SplitSpec(), virtual=True) for n in (0, 1))
    assert first.table["split"].tolist() != second.table["split"].tolist()
    pd.testing.assert_frame_equal(first.table.drop(columns="split"), second.table.drop(columns="split"))


@pytest.mark.parametrize(
    ("settings", "image_suffix", "mask_suffix"),
    [
        ({"format": "tif"}, ".tif", ".tif"),
        ({"format": "png"}, ".png", ".png"),
        ({"format": "jpg"}, ".jpg", ".png"),
        ({"format": "tif", "mode": "separate"}, ".tif", ".tif"),
    ],
)
def test_image_and_mask_share_their_name_and_there_are_no_other_files(world, settings, image_suffix, mask_suffix):
    chips = world.chip(**settings)
    images = {Path(name).with_suffix("").relative_to("images") for name in chips.table["image"]}
    masks = {Path(name).with_suffix("").relative_to("masks") for name in chips.table["mask"]}
    assert images == masks
    expected = {f"images/{name}{image_suffix}" for name in images} | {f"masks/{name}{mask_suffix}" for name in masks}
    assert set(digests(chips.folder)) == expected | {"chips.json", "chips.parquet"}


def test_chip_names_sort_like_their_windows(world):
    table = world.chip().table
    assert table["chip"].tolist() == sorted(table["chip"])
    assert table["chip"].is_unique


def test_tif_chips_have_the_grid_of_their_window(world):
    chips = world.chip(edge="pad")
    scene = Raster.open([world.folder / "scene.tif"])
    for row, window in zip(chips.table.to_dict("records"), chips.windows, strict=True):
        for path in (row["image"], row["mask"]):
            grid = Raster.open([chips.folder / path]).grid
            assert grid == scene.grid[window]


def test_tif_chips_hold_the_pixels_of_their_window(world):
    chips = world.chip()
    with rasterio.open(world.folder / "scene.tif") as scene:
        for row in chips.table.to_dict("records"):
            with rasterio.open(chips.folder / row["image"]) as image:
                part = RasterioWindow(row["col"], row["row"], row["width"], row["height"])
                np.testing.assert_array_equal(image.read(), scene.read(window=part))


def test_masks_hold_the_polygons_of_their_window(world):
    chips = world.chip()
    #      background 0, house 1, road 2
    truth = np.zeros((H, W), np.uint8)
    truth[2:7, 3:9] = 1
    truth[20:29, 40:52] = 2
    reader = ChipReader(chips)
    for index, window in enumerate(chips.windows):
        np.testing.assert_array_equal(reader.read(index)[2], truth[window.slices])


@pytest.mark.parametrize("file_format", ["png", "jpg"])
def test_masks_of_pictures_are_lossless(world, file_format):
    exact, copied = ChipReader(world.chip(out="tif")), ChipReader(world.chip(out="other", format=file_format))
    for index in range(len(exact)):
        np.testing.assert_array_equal(copied.read(index)[2], exact.read(index)[2])


def test_jpegs_are_close_to_the_pixels(world):
    rows, cols = np.mgrid[0:H, 0:W]
    smooth = np.stack([60 + 2 * rows, 60 + 2 * cols, 200 - rows - cols]).astype(np.uint8)
    reader, exact = ChipReader(world.chip(world.scene(smooth), format="jpg")), Raster.open([world.folder / "scene.tif"])
    for index, window in enumerate(reader.chips.windows):
        pixels, valid, _ = reader.read(index)
        assert valid.all()
        assert np.abs(pixels.astype(int) - exact.read(window)[0]).max() <= 12


# Copies read like windows -----------------------------------------------------------------------------------------


def assert_reads_like_the_scene(chips: Chips, scene) -> None:
    reader = ChipReader(chips)
    assert len(chips) > 0
    for index, window in enumerate(chips.windows):
        for copied, original in zip(reader.read(index), scene.read(window), strict=True):
            assert copied.dtype == original.dtype
            np.testing.assert_array_equal(copied, original)


@pytest.mark.parametrize("virtual", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("bands", [1, 3, 4, 8])
def test_chips_of_any_bands_and_dtype_equal_the_scene(world, bands, dtype, virtual):
    spec = world.scene(noise(bands, H, W, dtype))
    (scene,), _ = open_scenes([spec])
    assert_reads_like_the_scene(world.chip(spec, size=32, virtual=virtual), scene)


@pytest.mark.parametrize(("bands", "dtype"), [(1, "uint8"), (3, "uint8"), (4, "uint8"), (1, "uint16"), (4, "uint16")])
def test_png_chips_read_like_the_scene(world, bands, dtype):
    spec = world.scene(noise(bands, H, W, dtype))
    (scene,), _ = open_scenes([spec])
    assert_reads_like_the_scene(world.chip(spec, size=32, format="png"), scene)


@pytest.mark.parametrize("virtual", [False, True])
@pytest.mark.parametrize("edge", ["shift", "pad"])
@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("uint8", None),
        ("uint8", 0),
        ("uint8", 255),
        ("uint16", None),
        ("int16", None),
        ("int16", -9999),
        ("float32", None),
        ("float32", -9999),
        ("float32", float("nan")),
    ],
)
def test_chips_are_valid_where_the_scene_is(world, dtype, nodata, edge, virtual):
    array = noise(3, H, W, dtype)
    array[:, 10:14, 10:30] = 0  # black pixels, which only nodata = 0 makes invalid
    if nodata is not None:
        array[:, 12:30, 14:40] = nodata
    spec = world.scene(array).model_copy(update={"nodata": nodata})
    (scene,), _ = open_scenes([spec])
    assert_reads_like_the_scene(world.chip(spec, size=32, edge=edge, virtual=virtual), scene)


@pytest.mark.parametrize("rule", ["any", "all"])
@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 0), ("uint8", 7), ("int16", -9999), ("float32", 7)])
def test_copied_chips_keep_the_nodata_rule_of_the_scene(world, dtype, nodata, rule):
    array = noise(3, H, W, dtype)
    array[0, 8:20, 10:30] = nodata  # one band only
    array[:, 16:30, 14:40] = nodata
    spec = world.scene(array).model_copy(update={"nodata": nodata, "nodata_rule": rule})
    (scene,), _ = open_scenes([spec])
    assert_reads_like_the_scene(world.chip(spec), scene)


def test_copied_chips_keep_the_nodata_value_of_each_band(world):
    array = noise(3, H, W, "int16")
    array[0, 8:20, 10:30], array[1, 16:30, 14:40] = -1, -2
    array[2, 30:32], array[0, 32:34] = -1, -2  # values of other bands
    spec = world.scene(array).model_copy(update={"nodata": (-1, -2, -3)})
    (scene,), _ = open_scenes([spec])
    chips = world.chip(spec)
    assert_reads_like_the_scene(chips, scene)
    assert chips.metadata.nodata == (-1, -2, -3)


@pytest.mark.parametrize("virtual", [False, True])
def test_black_pixels_under_an_alpha_band_stay_valid(world, virtual):
    array = noise(4, H, W)
    array[:3, 10:14, 10:30] = 0
    array[3] = 255
    array[3, 12:30, 14:40] = 0
    spec = world.scene(array, alpha=True)
    (scene,), _ = open_scenes([spec])
    assert_reads_like_the_scene(world.chip(spec, size=32, virtual=virtual), scene)


def test_black_pixels_of_pictures_stay_valid(world):
    array = noise(3, H, W)
    array[:, 10:14, 10:30] = 0
    spec = world.scene(array)
    (scene,), _ = open_scenes([spec])
    assert_reads_like_the_scene(world.chip(spec, size=32, format="png"), scene)


def test_labelled_black_pixels_of_pictures_without_a_mask_file_stay_valid(world):
    array = noise(3, H, W)
    array[:, 10:14, 10:30] = 0
    array[:, 16:30, 14:40] = 7
    spec = world.scene(array, nodata=7)
    (scene,), _ = open_scenes([spec])
    chips = world.chip(spec, size=32, format="png")
    for path in chips.table["image"]:
        mask_file(chips.folder / path).unlink(missing_ok=True)
    assert_reads_like_the_scene(chips, scene)


def test_scenes_with_different_nodata_read_like_themselves(world):
    specs = []
    for index, nodata in enumerate((None, 255, 7)):
        array = noise(3, H, W, seed=index)
        array[:, 12:30, 14:40] = 0 if nodata is None else nodata
        specs.append(world.scene(array, name=f"scene{index}.tif", nodata=nodata))
    scenes, _ = open_scenes(specs)
    chips = world.chip(*specs)
    reader = ChipReader(chips)
    by_name = {scene.name: scene for scene in scenes}
    for index, (name, window) in enumerate(zip(chips.table["scene"], chips.windows, strict=True)):
        for copied, original in zip(reader.read(index), by_name[name].read(window), strict=True):
            np.testing.assert_array_equal(copied, original)


def test_chips_of_stacked_files_read_like_the_scene(world):
    array = noise(3, H, W, "uint16")
    paths = tuple(str(write_raster(world.folder / f"B{n}.tif", array[n])) for n in range(3))
    spec = SceneSpec(image=paths, labels=str(world.labels()), label_field="kind")
    (scene,), _ = open_scenes([spec])
    assert_reads_like_the_scene(world.chip(spec), scene)


def test_stacked_files_are_named_by_their_folder_and_chips_of_earlier_versions_by_the_first_file(world):
    stacks = []
    for folder in ("april", "may"):
        (world.folder / folder).mkdir()
        files = [write_raster(world.folder / folder / f"B{n}.tif", noise(1, H, W, seed=n)) for n in range(2)]
        stacks.append(SceneSpec(image=tuple(map(str, files)), labels=str(world.labels()), label_field="kind"))
    for virtual in (False, True):
        chips = world.chip(*stacks, out=f"chips_{virtual}", virtual=virtual)
        assert list(chips.by_scene) == list(chips.images()) == list(chips.scenes()) == ["april", "may"]
        assert chips.ids[0] == "april_r00_c00"
    first = ChipReader(chips).read(0)
    # As an earlier version wrote them.
    metadata = json.loads((chips.folder / "chips.json").read_text())
    del metadata["scenes"]
    (chips.folder / "chips.json").write_text(json.dumps(metadata))
    table = chips.table.assign(scene=chips.table["scene"].map({"april": "B0_0", "may": "B0_1"}))
    table.to_parquet(chips.folder / "chips.parquet", index=False)
    earlier = Chips.open(chips.folder)
    assert list(earlier.by_scene) == list(earlier.images()) == list(earlier.scenes()) == ["B0_0", "B0_1"]
    np.testing.assert_array_equal(ChipReader(earlier).read(0)[0], first[0])


def test_a_pickled_reader_reads_the_same(world):
    reader = ChipReader(world.chip(virtual=True))
    reader.read(0)
    copy = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(copy.read(3)[0], reader.read(3)[0])


def test_virtual_chips_are_an_index_only(world):
    chips = world.chip(virtual=True)
    assert set(digests(chips.folder)) == {"chips.json", "chips.parquet"}


def test_virtual_chips_have_the_index_of_copied_ones(world):
    copied, virtual = world.chip(out="copied"), world.chip(out="virtual", virtual=True)
    paths = ["image", "mask"]
    pd.testing.assert_frame_equal(copied.table.drop(columns=paths), virtual.table.drop(columns=paths))


# The index --------------------------------------------------------------------------------------------------------


def test_class_counts_of_the_index_are_those_of_the_masks(world):
    array = noise(3, H, W)
    array[:, 0:20, 0:30] = 0
    chips = world.chip(world.scene(array, nodata=0), edge="pad")
    reader = ChipReader(chips)
    for index, row in enumerate(chips.table.to_dict("records")):
        counts = np.bincount(reader.read(index)[2].ravel(), minlength=256)
        assert [row["count_0"], row["count_1"], row["count_2"], row["count_ignore"]] == [*counts[:3], counts[255]]
        assert row["positive"] == (counts[1] + counts[2] > 0)
        assert row["valid_pixels"] == reader.read(index)[1].sum()


def test_counts_by_class_index_add_up_to_the_labelled_pixels(world):
    chips = world.chip(stride=8)
    assert (chips.counts.sum(axis=1) + chips.table["count_ignore"] == SIZE * SIZE).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_merged_band_statistics_are_those_of_all_valid_pixels(world, dtype):
    array = noise(4, H, W, dtype)
    array[1] = array[1] * 3 + 1000 if dtype != "uint8" else array[1]
    array[:, 5:30, 7:20] = 0
    chips = world.chip(world.scene(array, nodata=0), edge="pad")
    reader = ChipReader(chips)
    parts = [pixels[:, valid] for pixels, valid, _ in map(reader.read, range(len(reader)))]
    pixels = np.concatenate(parts, axis=1).astype(np.float64)
    mean, deviation = band_statistics(chips)
    np.testing.assert_allclose(mean, pixels.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(deviation, pixels.std(axis=1), rtol=1e-12)


def test_band_statistics_of_a_constant_far_from_zero_have_no_deviation(world):
    mean, deviation = band_statistics(world.chip(world.scene(np.full((1, H, W), 60_000, np.uint16))))
    assert (mean.tolist(), deviation.tolist()) == ([60_000], [0])


def test_opened_chips_equal_those_written(world):
    made = world.chip()
    opened = Chips.open(made.folder)
    pd.testing.assert_frame_equal(opened.table, made.table)
    assert (opened.metadata, opened.classes, opened.sha256) == (made.metadata, made.classes, made.sha256)


def test_the_hash_of_chips_changes_with_the_labels(world):
    before = world.chip(out="one").sha256
    (world.folder / "labels.geojson").unlink()
    write_polygons(world.folder / "labels.geojson", BOXES[::-1], kind=["house", "road"])
    assert world.chip(out="two").sha256 != before


def test_each_chip_has_one_split(world):
    chips = world.chip(world.scene(noise(1, 12 * 16, 12 * 16)), split=SplitSpec(), virtual=True)
    parts = [chips.of_split(name) for name in ("train", "val", "test", "gap")]
    assert sorted(name for part in parts for name in part.table["chip"]) == sorted(chips.table["chip"])
    assert all(len(part) > 0 for part in parts)


def test_a_scene_with_a_split_keeps_it(world):
    specs = [
        world.scene(name="one.tif").model_copy(update={"split": "test"}),
        world.scene(name="two.tif").model_copy(update={"split": "train"}),
    ]
    table = world.chip(*specs).table
    assert table.groupby("scene")["split"].unique().map(list).to_dict() == {"one": ["test"], "two": ["train"]}


# Modes and edges ------------------------------------------------------------------------------------------------

# 40 x 60 pixels in chips of 16: rows 0, 16, 24; columns 0, 16, 32, 44. The house (rows 2-6, cols 3-8) lies in chip
# (0, 0); the road (rows 20-28, cols 40-51) in rows 16 and 24, columns 32 and 44.
POSITIVE = {(0, 0), (16, 32), (16, 44), (24, 32), (24, 44)}


def corners(table: pd.DataFrame) -> set[tuple[int, int]]:
    return set(zip(table["row"].tolist(), table["col"].tolist(), strict=True))


def test_mode_all_cuts_every_window(world):
    table = world.chip().table
    assert corners(table) == {(row, col) for row in (0, 16, 24) for col in (0, 16, 32, 44)}
    assert corners(table[table["positive"]]) == POSITIVE


def test_mode_positive_cuts_only_chips_with_a_feature(world):
    assert corners(world.chip(mode="positive").table) == POSITIVE


def test_mode_separate_writes_background_chips_into_another_folder(world):
    chips = world.chip(mode="separate")
    for row in chips.table.to_dict("records"):
        group = "positive" if (row["row"], row["col"]) in POSITIVE else "background"
        assert row["image"].startswith(f"images/{group}/")
        assert row["mask"].startswith(f"masks/{group}/")
    assert len(chips) == 12


# Share of background chips --------------------------------------------------------------------------------------


def names_of(chips: Chips) -> set[str]:
    return set(chips.ids)


def background_of(chips: Chips) -> set[str]:
    return set(chips.table.loc[~chips.table["positive"], "chip"])


@pytest.fixture
def wide(world) -> SceneSpec:
    """A scene of 20 x 20 chips of 8 pixels, of which few have a polygon."""
    return world.scene(noise(1, 160, 160))


def test_a_background_share_of_0_cuts_the_chips_of_mode_positive(world):
    chips = world.chip(background_share=0)
    assert corners(chips.table) == POSITIVE
    positive = world.chip(out="positive", mode="positive")
    pd.testing.assert_frame_equal(chips.table, positive.table)


def test_a_background_share_of_1_keeps_all_chips(world):
    assert digests(world.chip(background_share=1).folder) == digests(world.chip(out="all").folder)


def test_chips_with_a_class_do_not_depend_on_the_background_share(world, wide):
    every = world.chip(wide, size=8, virtual=True)
    for share in (0, 0.3, 0.7):
        chips = world.chip(wide, size=8, virtual=True, background_share=share, out=f"{share}")
        assert names_of(chips) - background_of(chips) == names_of(every) - background_of(every)


def test_the_background_chips_of_a_smaller_share_are_among_those_of_a_larger(world, wide):
    drawn = [
        background_of(world.chip(wide, size=8, virtual=True, background_share=share, out=f"{share}"))
        for share in (0, 0.1, 0.2, 0.5, 1)
    ]
    assert all(smaller < larger for smaller, larger in pairwise(drawn))


def test_the_number_of_background_chips_is_binomial(world, wide):
    all_background = len(background_of(world.chip(wide, size=8, virtual=True)))
    for seed, share in product(range(3), [0.05, 0.2, 0.5, 0.9]):
        chips = world.chip(wide, size=8, virtual=True, background_share=share, seed=seed, out=f"{share} {seed}")
        expected, deviation = all_background * share, (all_background * share * (1 - share)) ** 0.5
        assert abs(len(background_of(chips)) - expected) < 4 * deviation, (seed, share)


def test_another_seed_draws_other_background_chips(world, wide):
    first, second, again = (
        background_of(world.chip(wide, size=8, virtual=True, background_share=0.5, seed=seed, out=out))
        for seed, out in ((0, "one"), (1, "two"), (0, "three"))
    )
    assert first != second
    assert first == again


@pytest.mark.parametrize("settings", [{"virtual": True}, {"mode": "separate"}, {"format": "png"}])
def test_the_drawn_chips_are_the_same_for_any_kind_of_copy(world, wide, settings):
    plain = world.chip(wide, size=32, background_share=0.4)
    assert names_of(world.chip(wide, size=32, background_share=0.4, out="other", **settings)) == names_of(plain)


def test_the_drawn_chips_do_not_depend_on_the_other_scenes(world, wide):
    other = world.scene(noise(1, 64, 64, seed=1), "other.tif")
    alone = world.chip(wide, size=16, virtual=True, background_share=0.4)
    both = world.chip(other, wide, size=16, virtual=True, background_share=0.4, out="both")
    assert names_of(alone) == set(both.table.loc[both.table["scene"] == "scene", "chip"])


def test_unlabelled_pixels_beside_background_do_not_keep_a_chip(world):
    area = write_polygons(world.folder / "area.geojson", [pixel_box(0, 0, 20, W)])
    spec = world.scene().model_copy(update={"labelled_area": str(area)})
    chips = world.chip(spec, background_share=0)
    assert len(chips)
    assert background_of(chips) == set()


def test_positive_chips_with_a_background_share_are_refused_with_both_names():
    with pytest.raises(RecipeError, match=r"mode is positive.*background_share is 0\.2; set mode = all"):
        ChipSpec.of({"mode": "positive", "background_share": 0.2})
    assert ChipSpec.of({"mode": "positive", "background_share": 1}).mode == "positive"
    assert ChipSpec.of({"background_share": "20 %"}).background_share == 0.2


def test_a_share_that_leaves_no_training_chip_is_refused(world):
    write_polygons(world.folder / "labels.geojson", [pixel_box(0, 0, 0.2, 0.2)], kind=["house"])
    with pytest.raises(ChipError, match=r"background_share = 0 leaves no chip in train.*raise background_share"):
        world.chip(background_share=0)


def by_list(world) -> dict[str, object]:
    """Three scenes, of which lists name the splits."""
    for split in SPLIT_NAMES:
        (world.folder / f"{split}.txt").write_text(f"{split}_scene\n")
    lists = {f"{split}_list": str(world.folder / f"{split}.txt") for split in SPLIT_NAMES}
    return {"split": SplitSpec(by="list", **lists)}


SPLITS = {
    "blocks": lambda _: {"split": SplitSpec()},
    "whole scenes": lambda _: {"split": SplitSpec(by="scene", val=0.34, test=0.34)},
    "groups": lambda _: {"split": SplitSpec(by="group", val=0.34, test=0.34)},
    "lists": by_list,
}


def three_scenes(world) -> list[SceneSpec]:
    """Far from each other, each of 8 x 8 chips of 8 pixels, of which few have a polygon, and a group of its own."""
    places = {name: METRE @ Affine.translation(10_000 * index, 0) for index, name in enumerate(SPLIT_NAMES)}
    boxes = [pixel_box(2 + 30 * half, 3, 9, 12, transform=place) for place in places.values() for half in (0, 1)]
    labels = write_polygons(world.folder / "three.geojson", boxes, kind=["house"] * len(boxes))
    return [
        world.scene(noise(1, 64, 64), f"{name}_scene.tif", transform=place).model_copy(
            update={"labels": str(labels), "group": name}
        )
        for name, place in places.items()
    ]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(kind, {"virtual": True}) for kind in SPLITS] + [("blocks", {}), ("blocks", {"mode": "separate"})],
)
def test_a_background_share_drops_background_chips_of_train_only(world, kind, settings):
    specs, split = three_scenes(world), SPLITS[kind](world)
    every = world.chip(*specs, size=8, virtual=True, out="every", **split).table
    kept = world.chip(*specs, size=8, background_share=0.4, **settings, **split)
    # The split is that of all chips; other chips are as without a share, and no file of a dropped one is left.
    is_dropped = ~every["chip"].isin(kept.table["chip"])
    assert set(SPLIT_NAMES) <= set(every["split"])
    assert set(every.loc[is_dropped, "split"]) == {"train"}
    assert not every.loc[is_dropped, "positive"].any()
    assert 0.4 < is_dropped.sum() / ((every["split"] == "train") & ~every["positive"]).sum() < 0.8
    files = ["image", "mask"]
    pd.testing.assert_frame_equal(
        kept.table.drop(columns=files), every[~is_dropped].drop(columns=files).reset_index(drop=True)
    )
    written = [] if "virtual" in settings else kept.table[files].to_numpy().ravel().tolist()
    assert set(digests(kept.folder)) == {*written, "chips.json", "chips.parquet"}


def test_classes_without_training_chip_for_a_background_share_are_warned_of(world, caplog):
    whole = write_polygons(world.folder / "whole.geojson", [pixel_box(0, 0, H, 30)], kind=["house"])
    specs = [world.scene(name=f"{split}.tif").model_copy(update={"split": split}) for split in ("train", "val")]
    specs = [spec.model_copy(update={"labels": str(whole)}) for spec in specs]
    world.chip(*specs, size=10, virtual=True, background_share=0)
    assert "class background occurs only in val, not in train" in caplog.text


def test_folds_of_chips_without_much_background_are_warned_of(world, caplog):
    boxes = [pixel_box(row, col, 5, 5) for row in range(0, 256, 32) for col in range(0, 256, 32)]
    write_polygons(world.folder / "labels.geojson", boxes, kind=["house"] * len(boxes))
    wide = world.scene(noise(1, 256, 256))
    fold_splits(world.chip(wide, size=16, virtual=True), 3, gap=None, seed=0)
    assert not caplog.text
    fold_splits(world.chip(wide, size=16, virtual=True, background_share=0.25, overwrite=True), 3, gap=None, seed=0)
    assert "has 0.25 of the background chips of train, so the accuracy of folds is higher" in caplog.text


@pytest.mark.parametrize(
    ("edge", "rows", "cols"),
    [("shift", {0, 16, 24}, {0, 16, 32, 44}), ("pad", {0, 16, 32}, {0, 16, 32, 48}), ("drop", {0, 16}, {0, 16, 32})],
)
def test_the_edge_policy_sets_the_windows(world, edge, rows, cols):
    table = world.chip(edge=edge).table
    assert corners(table) == {(row, col) for row in rows for col in cols}


def test_padding_is_neither_valid_nor_labelled(world):
    reader = ChipReader(world.chip(edge="pad"))
    for index, window in enumerate(reader.chips.windows):
        pixels, valid, mask = reader.read(index)
        outside = np.ones((SIZE, SIZE), bool)
        outside[: H - window.row, : W - window.col] = False
        assert not valid[outside].any()
        assert (mask[outside] == 255).all()
        assert (pixels[:, outside] == 0).all()


def test_a_scene_smaller_than_a_chip_is_one_padded_chip(world):
    chips = world.chip(size=64)
    assert chips.windows == [Window(0, 0, 64, 64)]
    assert chips.table["valid_pixels"].tolist() == [H * W]


def test_chips_without_a_valid_labelled_pixel_are_not_cut(world):
    array = noise(3, H, W)
    array[:, 0:16, 0:32] = 0
    assert corners(world.chip(world.scene(array, nodata=0)).table) & {(0, 0), (0, 16)} == set()


# Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file_format", "bands", "dtype"),
    [("png", 8, "uint8"), ("png", 3, "int16"), ("png", 1, "float32"), ("jpg", 4, "uint8"), ("jpg", 3, "uint16")],
)
def test_formats_that_cannot_hold_the_bands_are_refused(world, file_format, bands, dtype):
    spec = world.scene(noise(bands, H, W, dtype))
    with pytest.raises(ChipError, match=f"{file_format} chips cannot hold {bands} bands? of {dtype}.*Use tif"):
        world.chip(spec, format=file_format)


def test_a_folder_with_content_is_refused_and_kept(world):
    before = digests(world.chip().folder)
    with pytest.raises(OutputError, match="exists already"):
        world.chip(mode="positive")
    assert digests(world.folder / "chips") == before


def test_a_refused_command_removes_what_a_killed_one_left(world):
    folder = world.chip().folder
    before = {path.name for path in folder.parent.iterdir()}
    (folder.parent / ".chips.lock").touch()
    (folder.parent / ".0a1b2c3d.replaced.chips").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        ls.chip(images=[world.folder / "scene.tif"], labels=world.folder / "scene.tif", out=folder)
    assert {path.name for path in folder.parent.iterdir()} == before


def test_overwriting_leaves_nothing_of_the_old_chips(world):
    world.chip(stride=8)
    replaced = world.chip(overwrite=True)
    shutil.copytree(replaced.folder, world.folder / "copy")
    fresh = world.chip(out="fresh")
    assert digests(replaced.folder) == digests(fresh.folder)


@pytest.mark.parametrize(
    ("settings", "array", "message"),
    [
        ({"size": 64, "edge": "drop"}, noise(3, H, W), "smaller than one chip of 64 pixels"),
        ({}, np.zeros((3, H, W), np.uint8), "no chip has a labelled, valid pixel"),
    ],
    ids=["too small", "all nodata"],
)
def test_a_scene_without_chips_leaves_no_folder(world, settings, array, message):
    spec = world.scene(array, nodata=0)
    before = set(world.folder.rglob("*"))
    with pytest.raises(ChipError, match=message):
        world.chip(spec, out="new/chips", **settings)
    assert set(world.folder.rglob("*")) == before


def test_positive_chips_of_background_only_are_refused(world):
    write_polygons(world.folder / "labels.geojson", [pixel_box(0, 0, 0.2, 0.2)], kind=["house"])
    with pytest.raises(ChipError, match="mode = positive, but no chip has a class"):
        world.chip(mode="positive")


def test_an_unreadable_scene_leaves_no_folder(world):
    spec = world.scene(noise(3, 400, 400), interleave="band")
    scenes, classes = open_scenes([spec])
    path = world.folder / "scene.tif"
    path.write_bytes(path.read_bytes()[:300_000])
    before = set(world.folder.rglob("*"))
    with pytest.raises(RasterError, match="cannot be read at rows"):
        chip(scenes, classes, [spec], world.folder / "new" / "chips", spec=ChipSpec(size=64), split=SplitSpec())
    assert set(world.folder.rglob("*")) == before


@pytest.mark.parametrize("broken", ["chips.json", "chips.parquet"])
@pytest.mark.parametrize("how", ["missing", "altered"])
def test_a_folder_without_chips_is_refused(world, broken, how):
    folder = world.chip().folder
    (folder / broken).unlink()
    if how == "altered":
        (folder / broken).write_text("{}", encoding="utf-8")
    reason = f"there is no {broken} in it" if how == "missing" else "(chips.json: |Could not open Parquet)"
    with pytest.raises(ChipError, match=rf"is not a chips folder \(.*{reason}"):
        Chips.open(folder)


def test_a_missing_chip_is_refused_by_name(world):
    chips = world.chip()
    name = chips.table["image"].iloc[0]
    (chips.folder / name).unlink()
    with pytest.raises(RasterError, match=f"{name} cannot be read"):
        ChipReader(chips).read(0)


@pytest.mark.parametrize("file_format", ["png", "jpg"])
def test_pictures_of_partly_valid_chips_keep_which_pixels_are_valid(tmp_path, file_format):
    valid = np.ones((64, 64), bool)
    valid[50:], valid[:, :9] = False, False
    pixels = noise(3, 64, 64)
    pixels[:, 10:20, 10:20] = 0
    mask = np.full((64, 64), 255, np.uint8)
    mask[30:] = 1
    image = write_raster(tmp_path / "scene.tif", pixels, valid=valid)
    labels = write_raster(tmp_path / "labels.tif", mask, nodata=255)
    chips = ls.chip(
        images=[image],
        labels=labels,
        out=tmp_path / "chips",
        size=64,
        format=file_format,
        mode="separate",
        val=0,
        test=0,
    )
    np.testing.assert_array_equal(ChipReader(chips).read(0).valid, valid)
    assert chips.table["valid_pixels"].tolist() == [valid.sum()]
    # Other programs see it, too.
    with open_dataset(chips.folder / chips.table["image"][0]) as picture:
        np.testing.assert_array_equal(picture.dataset_mask() > 0, valid)


def test_pictures_of_chips_that_are_all_valid_have_no_mask_file_and_dropped_chips_leave_none(tmp_path):
    pixels = noise(3, 64, 64)
    pixels[:, :32, 32:40] = 0
    labels = np.zeros((64, 64), np.uint8)
    labels[40:60, 40:60] = 1
    chips = ls.chip(
        images=[write_raster(tmp_path / "scene.tif", pixels, nodata=0)],
        labels=write_raster(tmp_path / "labels.tif", labels),
        out=tmp_path / "chips", size=32, format="png", background_share=0, val=0, test=0,
    )  # fmt: skip
    assert chips.ids == ["scene_r32_c32"]
    assert [path.name for path in (chips.folder / "images").iterdir()] == ["scene_r32_c32.png"]
