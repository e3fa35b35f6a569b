"""Predefined splits, and the warnings about splits and classes that are missing."""

import logging
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.data.chips.cutting import chip
from landscribe.data.chips.spec import ChipSpec
from landscribe.data.scenes.pairing import expand_scenes
from landscribe.data.scenes.scene import open_scenes
from landscribe.data.scenes.spec import ClassSpec, SceneSpec
from landscribe.data.splits.spec import SplitSpec
from landscribe.errors import ChipError, LabelError
from landscribe.recipe import Recipe
from landscribe.verbs import check
from worlds import noise, pixel_box, write_polygons, write_raster

SIDE = 32
NAMES = ("a.v2", "b", "c", "d")
TABLE = (ClassSpec(name="ground", value=0), ClassSpec(name="house", value=1), ClassSpec(name="road", value=2))


def scenes_in(folder: Path, names=NAMES, kinds=("house", "road"), **columns) -> list[SceneSpec]:
    """Small scenes with a polygon of each kind on them."""
    folder.mkdir(parents=True, exist_ok=True)
    boxes = [pixel_box(2, 2 + 18 * index, 6, 6) for index in range(len(kinds))]
    labels = write_polygons(folder / "labels.geojson", boxes, kind=list(kinds), **columns)
    images = [write_raster(folder / f"{name}.tif", noise(3, SIDE, SIDE, seed=n)) for n, name in enumerate(names)]
    return [SceneSpec(image=(str(image),), labels=str(labels), label_field="kind") for image in images]


def cut(specs: list[SceneSpec], out: Path, split: SplitSpec, size: int = 16, **settings) -> Chips:
    scenes, classes = open_scenes(specs, TABLE)
    return chip(scenes, classes, specs, out, spec=ChipSpec(size=size, virtual=True, **settings), split=split)


def by_lists(folder: Path, **texts: str) -> SplitSpec:
    """A spec with lists that hold these texts."""
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return SplitSpec(by="list", **{f"{name}_list": str(folder / f"{name}.txt") for name in texts})


def splits_of(chips: Chips) -> dict[str, list[str]]:
    return {str(name): sorted(set(rows["split"])) for name, rows in chips.table.groupby("scene")}


# Lists --------------------------------------------------------------------------------------------------------


def test_scenes_are_named_by_stem_by_file_with_any_suffix_and_by_path(tmp_path):
    lists = by_lists(tmp_path, train="# mine\na.v2\n\n", val="images/b.png  # of May\n", test="c.tif\r\n")
    chips = cut(scenes_in(tmp_path), tmp_path / "chips", lists)
    assert splits_of(chips) == {"a.v2": ["train"], "b": ["val"], "c": ["test"], "d": ["gap"]}


@pytest.mark.parametrize("name", ["b", "B"])
def test_scenes_of_the_same_name_whatever_its_case_differ_by_folder(tmp_path, name):
    specs = [*scenes_in(tmp_path / "east", ["b"]), *scenes_in(tmp_path / "west", [name])]
    chips = cut(specs, tmp_path / "chips", by_lists(tmp_path, train=f"west/{name}.tif", test="east/b"))
    assert splits_of(chips) == {"b_0": ["test"], f"{name}_1": ["train"]}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"train": "a.v2\nx"}, r"train.txt: 'x' names no scene of 4 \(a.v2, b, c, …\)"),
        ({"train": "a.v2", "test": "b\na.v2.tif"}, "test.txt: 'a.v2.tif' is in the lists of train and test"),
    ],
)
def test_a_list_with_errors_is_refused_before_chips_are_cut(tmp_path, texts, message):
    with pytest.raises(ChipError, match=message):
        cut(scenes_in(tmp_path), tmp_path / "chips", by_lists(tmp_path, **texts))
    assert not (tmp_path / "chips").exists()


def test_a_name_of_several_scenes_is_refused(tmp_path):
    specs = [*scenes_in(tmp_path / "east", ["b"]), *scenes_in(tmp_path / "west", ["b"])]
    with pytest.raises(ChipError, match="'b' names 2 scenes"):
        cut(specs, tmp_path / "chips", by_lists(tmp_path, train="b"))


def test_a_missing_list_is_refused(tmp_path):
    with pytest.raises(
        ChipError,
        match=r"none.txt cannot be read: No such file or directory. Expected a list with one scene name per line",
    ):
        cut(scenes_in(tmp_path), tmp_path / "chips", SplitSpec(by="list", train_list=str(tmp_path / "none.txt")))


def test_lists_of_a_recipe_are_relative_to_it(tmp_path):
    toml = '[[scenes]]\nimage = "a.tif"\n[split]\nby = "list"\ntrain_list = "train.txt"\ntest_list = "/far/test.txt"\n'
    (tmp_path / "recipe.toml").write_text(toml, encoding="utf-8")
    split = Recipe.load(tmp_path / "recipe.toml").split
    assert (split.train_list, split.val_list, split.test_list) == (str(tmp_path / "train.txt"), None, "/far/test.txt")


def test_lists_are_forecast_like_any_split(tmp_path):
    specs = scenes_in(tmp_path)
    lists = by_lists(tmp_path, train="a.v2", test="b")
    recipe = Recipe(scenes=specs, classes=TABLE, split=lists).model_copy(update={"chips": ChipSpec(size=32)})
    assert check(recipe, trial=False).forecast.chips == 4


# Lists of chips ---------------------------------------------------------------------------------------------------

# Numbers, sizes and names as in LandCover.ai, but for chips of 16 pixels: of the first orthophoto, the last column and
# row of chips are partial; the second one holds whole chips only.
TILE = 16
ORTHOPHOTOS = {"M-33-20-D-c-4-2": (50, 39), "N-33-60-D-c-4-2": (32, 48)}
COVER = tuple(ClassSpec(name=name, value=value) for value, name in enumerate(("none", "building", "woodland", "water")))


def tiles_of(array: np.ndarray) -> dict[int, np.ndarray]:
    """The whole tiles of (…, rows, cols) by the number that the publisher's script gives them: it counts partial tiles,
    too, and writes the whole ones."""
    tiles, number = {}, 0
    for top in range(0, array.shape[-2], TILE):
        for left in range(0, array.shape[-1], TILE):
            tile = array[..., top : top + TILE, left : left + TILE]
            if tile.shape[-2:] == (TILE, TILE):
                tiles[number] = tile
            number += 1
    return tiles


@pytest.fixture
def publisher(tmp_path) -> tuple[Path, dict[str, tuple[np.ndarray, np.ndarray]], SplitSpec]:
    """A folder in the layout of LandCover.ai, its chips (image and mask) by name, and its lists."""
    chips = {}
    for folder in ("images", "masks", "output"):
        (tmp_path / folder).mkdir()
    for seed, (stem, shape) in enumerate(ORTHOPHOTOS.items()):
        image, mask = noise(3, *shape, seed=seed), noise(1, *shape, seed=seed + 9)[0] % 4
        on_ground = {"crs": "EPSG:2180", "transform": Affine(0.25, 0, 500_000 + 1000 * seed, 0, -0.25, 600_000)}
        write_raster(tmp_path / "images" / f"{stem}.tif", image, **on_ground)
        write_raster(tmp_path / "masks" / f"{stem}.tif", mask, **on_ground)
        masks = tiles_of(mask)
        chips |= {f"{stem}_{number}": (tile, masks[number]) for number, tile in tiles_of(image).items()}
    names = sorted(chips)
    lists = {"train": names[:6], "val": names[6:8], "test": names[8:-1]}
    return tmp_path, chips, by_lists(tmp_path, **{name: "\n".join(lines) + "\n" for name, lines in lists.items()})


def write_output(folder: Path, chips: dict[str, tuple[np.ndarray, np.ndarray]], suffix: str) -> None:
    """The folder output/ of the publisher's script, whose masks have three equal bands."""
    plain = {"crs": None, "transform": None}
    for name, (image, mask) in chips.items():
        write_raster(folder / "output" / f"{name}{suffix}", image, **plain)
        write_raster(folder / "output" / f"{name}_m.png", np.stack([mask] * 3), **plain)


def cut_cover(folder: Path, image: str, split: SplitSpec, out: str, **settings) -> Chips:
    specs, _ = expand_scenes([SceneSpec(image=(str(folder / image),))])
    scenes, classes = open_scenes(specs, COVER)
    spec = ChipSpec(size=TILE, **settings)
    return chip(scenes, classes, specs, folder / out, spec=spec, split=split)


def by_publishers_name(chips: Chips) -> dict[str, tuple[str, bytes, bytes]]:
    """Split, image and mask of each chip by its name in the lists."""
    reader, named = ChipReader(chips), {}
    for index, (scene, window) in enumerate(zip(chips.scene_names.tolist(), chips.windows, strict=True)):
        name = scene
        if scene in ORTHOPHOTOS:
            columns = -(-ORTHOPHOTOS[scene][1] // TILE)
            name = f"{scene}_{window.row // TILE * columns + window.col // TILE}"
        pixels, valid, mask = reader.read(index)
        assert valid.all()
        named[name] = (str(chips.splits[index]), pixels.tobytes(), mask.tobytes())
    return named


def test_lists_of_chips_give_the_publishers_chips_from_orthophotos_and_from_chips(publisher):
    folder, chips, lists = publisher
    write_output(folder, chips, ".png")
    split_of = {
        name: split for split in ("train", "val", "test") for name in (folder / f"{split}.txt").read_text().split()
    }
    expected = {
        name: (split_of.get(name, "gap"), image.tobytes(), mask.tobytes()) for name, (image, mask) in chips.items()
    }
    assert by_publishers_name(cut_cover(folder, ".", lists, "from-orthophotos", edge="drop")) == expected
    assert by_publishers_name(cut_cover(folder, "output", lists, "from-chips")) == expected
    # One chip is in no list. Number 2 of the first orthophoto is partial, number 3 starts the second row.
    assert [name for name, (split, *_) in expected.items() if split == "gap"] == ["N-33-60-D-c-4-2_5"]
    assert {"M-33-20-D-c-4-2_1", "M-33-20-D-c-4-2_3"} < set(expected)
    assert "M-33-20-D-c-4-2_2" not in expected


def test_the_publishers_jpeg_chips_have_the_splits_of_the_lists(publisher):
    folder, chips, lists = publisher
    write_output(folder, chips, ".jpg")
    from_jpeg = by_publishers_name(cut_cover(folder, "output", lists, "from-jpeg"))
    from_orthophotos = by_publishers_name(cut_cover(folder, ".", lists, "from-orthophotos", edge="drop"))
    without_pixels = [{name: (split, mask) for name, (split, _, mask) in own.items()} for own in
                      (from_jpeg, from_orthophotos)]  # fmt: skip
    assert without_pixels[0] == without_pixels[1]


def test_chips_of_two_lists_that_touch_are_both_used(publisher):
    folder, _, _ = publisher
    stem = "N-33-60-D-c-4-2"
    chips = cut_cover(folder, ".", by_lists(folder, train=f"{stem}_0", test=f"{stem}_1.jpg"), "chips", edge="drop")
    assert chips.table["split"].value_counts().to_dict() == {"train": 1, "test": 1, "gap": 10}


def test_a_scene_that_is_named_like_a_chip_is_that_scene(tmp_path):
    chips = cut(scenes_in(tmp_path, ["a", "a_0"]), tmp_path / "chips", by_lists(tmp_path, train="a_0"))
    assert splits_of(chips) == {"a": ["gap"], "a_0": ["train"]}


def test_chips_of_scenes_of_the_same_name_differ_by_folder(tmp_path):
    specs = [*scenes_in(tmp_path / "east", ["b"]), *scenes_in(tmp_path / "west", ["b"])]
    lists = by_lists(tmp_path, train="west/b_1", test="east/b_2.png")
    chips = cut(specs, tmp_path / "chips", lists, edge="drop").table
    used = chips[chips["split"] != "gap"]
    assert sorted(zip(used["scene"], used["row"], used["col"], used["split"], strict=True)) == [
        ("b_0", 16, 0, "test"), ("b_1", 0, 16, "train"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        ({"train": "b_1"}, {}, "'b_1' names chip 1 of b, but edge is shift and stride is 12. Expected chips side by"),
        ({"train": "b_1"}, {"edge": "drop", "stride": 6}, "but edge is drop and stride is 6.*Set edge = drop and"),
        ({"train": "b_9"}, {"edge": "drop"}, r"chip 9 of b \(32 x 32 pixels\), which does not exist: .* are 0 to 8\."),
        ({"train": "b_2"}, {"edge": "drop"}, "which is partial. Expected a whole chip of 12 pixels. Set size to that"),
        ({"train": "b_1", "val": "b_1.png"}, {"edge": "drop"}, "val.txt: 'b_1.png' is in the lists of train and val"),
        ({"train": "b", "test": "b_1"}, {"edge": "drop"}, "test.txt: 'b_1' is in the lists of train and test"),
        ({"train": "b_1", "test": "b"}, {"edge": "drop"}, "test.txt: 'b' is in the lists of train and test"),
        ({"train": "x_1"}, {"edge": "drop"}, "'x_1' names no scene of 4 .* or of a chip of it"),
        ({"train": "._1\n"}, {"edge": "drop"}, "'._1' names no scene of 4"),
    ],
)
def test_a_list_of_chips_with_errors_is_refused_before_chips_are_cut(tmp_path, texts, settings, message):
    lists = by_lists(tmp_path, **texts)
    with pytest.raises(ChipError, match=message):
        cut(scenes_in(tmp_path), tmp_path / "chips", lists, size=12, **settings)
    assert not (tmp_path / "chips").exists()


def test_errors_of_lists_and_missing_groups_are_found_by_check(tmp_path):
    scenes = scenes_in(tmp_path)
    for split, message in (
        (by_lists(tmp_path, train="b_1"), "names chip 1 of b, but edge is shift"),
        (SplitSpec(by="group"), "(4 of 4 scenes)"),
    ):
        recipe = Recipe(scenes=scenes, classes=TABLE, split=split, chips=ChipSpec(size=16))
        assert any(message in text for text in check(recipe, trial=False).errors)


# A column -----------------------------------------------------------------------------------------------------


def test_chips_are_split_by_a_column_of_their_polygons(tmp_path):
    specs = scenes_in(tmp_path, ["a"], ("house", "road"), fold=["train", "test"])
    chips = cut(specs, tmp_path / "chips", SplitSpec(by="attribute", attribute="fold", val=0, gap=1), size=8)
    # The house covers columns 2 to 7 of rows 2 to 7, the road columns 20 to 25: chips at 16 and 24 touch it.
    used = chips.table[chips.table["split"] != "gap"]
    assert sorted(zip(used["row"], used["col"], used["split"], strict=True)) == [
        (0, 0, "train"), (0, 16, "test"), (0, 24, "test"),
    ]  # fmt: skip


def test_a_missing_column_is_refused_before_chips_are_cut(tmp_path):
    with pytest.raises(LabelError, match=r"no column 'fold'. Its columns are kind"):
        cut(scenes_in(tmp_path), tmp_path / "chips", SplitSpec(by="attribute", attribute="fold"))
    assert not (tmp_path / "chips").exists()


def test_a_label_raster_has_no_column_to_split_by(tmp_path):
    (spec,) = scenes_in(tmp_path, ["a"])
    labels = write_raster(tmp_path / "labels.tif", np.ones((SIDE, SIDE), np.uint8))
    specs = [spec.model_copy(update={"labels": str(labels), "label_field": None})]
    with pytest.raises(ChipError, match=r"labels.tif\) have no column 'fold' to split by. Expected polygons"):
        cut(specs, tmp_path / "chips", SplitSpec(by="attribute", attribute="fold"))


# Warnings -------------------------------------------------------------------------------------------------


def warnings_of(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_split_without_chips_is_warned_of_once(tmp_path, caplog):
    cut(scenes_in(tmp_path), tmp_path / "chips", SplitSpec(by="block"), size=32)
    assert [text.partition(":")[0] for text in warnings_of(caplog)] == [
        "val has no chips",
        "test has no chips",
    ]


def test_scenes_too_small_for_blocks_are_held_out_whole(tmp_path, caplog):
    plain = {"crs": None, "transform": None}
    mask = np.repeat([[1], [2]], SIDE // 2, axis=0).repeat(SIDE, axis=1).astype(np.uint8)
    labels = str(write_raster(tmp_path / "labels.png", mask, **plain))
    images = [str(write_raster(tmp_path / f"{name}.png", noise(3, SIDE, SIDE), **plain)) for name in "abcd"]
    chips = cut([SceneSpec(image=(image,), labels=labels) for image in images], tmp_path / "chips", SplitSpec(), SIDE)
    assert chips.table.groupby("scene")["split"].nunique().eq(1).all()
    assert set(chips.table["split"]) == {"train", "val", "test"}
    assert warnings_of(caplog) == []


def test_a_class_missing_from_a_split_is_warned_of(tmp_path, caplog):
    both, house = scenes_in(tmp_path / "both", ["a"]), scenes_in(tmp_path / "house", ["b"], ("house",))
    cut([*both, *house], tmp_path / "chips", by_lists(tmp_path, train="a", test="b"))
    (text,) = warnings_of(caplog)
    assert text.startswith("test has no pixels of class road, so")


def test_a_class_missing_from_train_is_warned_of(tmp_path, caplog):
    both, house = scenes_in(tmp_path / "both", ["a"]), scenes_in(tmp_path / "house", ["b"], ("house",))
    cut([*both, *house], tmp_path / "chips", by_lists(tmp_path, train="b", test="a"))
    (text,) = warnings_of(caplog)
    assert text.startswith("class road occurs only in test, not in train")


def test_a_complete_split_gives_no_warning(tmp_path, caplog):
    cut(scenes_in(tmp_path), tmp_path / "chips", by_lists(tmp_path, train="a.v2", val="b", test="c"))
    assert warnings_of(caplog) == []
