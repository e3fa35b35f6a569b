"""Predefined splits, and the warnings about splits and classes that are missing."""

import logging
from pathlib import Path

import numpy as np
import pytest

from landscribe.data.chips.chips import Chips
from landscribe.data.chips.cutting import chip
from landscribe.data.chips.spec import ChipSpec
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
    labels = write_polygons(folder / "labels.gpkg", boxes, kind=list(kinds), **columns)
    images = [write_raster(folder / f"{name}.tif", noise(3, SIDE, SIDE, seed=n)) for n, name in enumerate(names)]
    return [SceneSpec(image=(str(image),), labels=str(labels), label_field="kind") for image in images]


def cut(specs: list[SceneSpec], out: Path, split: SplitSpec, size: int = 16) -> Chips:
    scenes, classes = open_scenes(specs, TABLE)
    return chip(scenes, classes, specs, out, spec=ChipSpec(size=size, virtual=True), split=split)


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


def test_scenes_of_the_same_name_differ_by_folder(tmp_path):
    specs = [*scenes_in(tmp_path / "east", ["b"]), *scenes_in(tmp_path / "west", ["b"])]
    chips = cut(specs, tmp_path / "chips", by_lists(tmp_path, train="west/b.tif", test="east/b"))
    assert splits_of(chips) == {"b_0": ["test"], "b_1": ["train"]}


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
    with pytest.raises(ChipError, match=r"none.txt cannot be read as a list of scenes \(FileNotFoundError\)"):
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
