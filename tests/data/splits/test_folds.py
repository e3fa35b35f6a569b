"""Folds: laws of the held-out chips of each."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform

from landscribe.data.chips.chips import Chips, ChipsMetadata
from landscribe.data.splits import folds as folds_module
from landscribe.data.splits.folds import fold_names
from landscribe.errors import ChipError
from landscribe.geo.classes import Classes
from landscribe.geo.grid import Window
from worlds import CORNER, METRE, UTM, chip_windows, noise, write_raster

SIZE = 16


def fold_splits(chips, folds, *, gap=None, seed=0):
    return folds_module.fold_splits(chips, folds, gap=gap, seed=seed)


@pytest.fixture(autouse=True, scope="module")
def _fewer_draws():
    """What holds for the best of 40 draws holds for more. Of 20, none may have every class in every fold."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folds_module, "_DRAWS", 40)
        yield


def chips_of(scenes: dict[str, list[Window]], counts: np.ndarray, sources=()) -> Chips:
    """An index of chips, without their pixels."""
    rows = [
        {"chip": f"{name}_{w.row}_{w.col}", "scene": name, "row": w.row, "col": w.col, "height": w.height,
         "width": w.width, "split": "train"}
        for name, windows in scenes.items()
        for w in windows
    ]  # fmt: skip
    classes = Classes.from_labels([f"class {index}" for index in range(counts.shape[1])], background=False)
    table = pd.DataFrame(rows).assign(**{f"count_{v}": counts[:, n] for n, v in enumerate(classes.values)})
    head = ChipsMetadata(
        classes=classes.entries, bands=("a",), dtype="uint8", nodata=None, pixel_size=None, size=SIZE, virtual=True,
        sources=sources,
    )  # fmt: skip
    return Chips(Path("nowhere"), head, table)


def lattice(rows: int, cols: int, stride: int = SIZE) -> list[Window]:
    height, width = (stride * (count - 1) + SIZE for count in (rows, cols))
    return chip_windows(height, width, size=SIZE, stride=stride, edge="drop")


@st.composite
def worlds(draw):
    """One to three scenes of common classes, large enough for the gaps of five folds."""
    sides = st.integers(12, 13)
    scenes = {
        f"scene{index}": lattice(draw(sides), draw(sides), draw(st.sampled_from([12, 16])))
        for index in range(draw(st.integers(1, 3)))
    }
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    chips = sum(map(len, scenes.values()))
    return chips_of(scenes, rng.integers(0, 3, (chips, draw(st.integers(1, 3)))) * (rng.random((chips, 1)) < 0.9))


@settings(max_examples=12)
@given(worlds(), st.integers(3, 5), st.sampled_from([None, 1, 17]), st.integers(0, 3))
def test_each_chip_is_test_once_and_no_chip_of_another_split_is_near(chips, folds, gap, seed):
    splits = np.array(fold_splits(chips, folds, gap=gap, seed=seed))
    assert splits.shape == (folds, len(chips))
    assert ((splits == "test").sum(axis=0) == 1).all()
    assert ((splits == "val").sum(axis=0) <= 1).all()
    scenes = chips.table["scene"].to_numpy(str)
    row, col = chips.table[["row", "col"]].to_numpy().T
    apart = np.maximum(np.abs(row[:, None] - row), np.abs(col[:, None] - col)) - SIZE
    near = (apart < (gap or SIZE // 4)) & (scenes[:, None] == scenes)
    for names in splits:
        used = names != "gap"
        assert not (near & used & used[:, None] & (names[:, None] != names)).any()


@settings(max_examples=8)
@given(worlds(), st.integers(3, 5), st.integers(0, 3))
def test_train_and_test_of_every_fold_have_every_class(chips, folds, seed):
    present = chips.counts.sum(axis=0) > 0
    for names in np.array(fold_splits(chips, folds, seed=seed)):
        for name in ("train", "test"):
            assert ((chips.counts[names == name].sum(axis=0) > 0) == present).all()


@settings(max_examples=5)
@given(worlds(), st.integers(0, 3))
def test_the_same_seed_gives_the_same_folds(chips, seed):
    assert fold_splits(chips, 4, seed=seed) == fold_splits(chips, 4, seed=seed)


def test_other_seeds_give_other_folds():
    chips = chips_of({"scene": lattice(12, 12)}, np.ones((144, 1), np.int64))
    assert len({str(fold_splits(chips, 4, seed=seed)) for seed in range(4)}) > 1


def test_folds_are_similar_in_size():
    chips = chips_of({"scene": lattice(24, 24)}, np.ones((576, 1), np.int64))
    sizes = [names.count("test") for names in fold_splits(chips, 4)]
    assert max(sizes) < 1.5 * min(sizes)


def test_a_class_in_as_many_blocks_as_folds_is_in_every_fold():
    # A random assignment succeeds once in 26 times: 5! / 5^5.
    chips = chips_of({f"s{n}": lattice(1, 1) for n in range(40)}, np.ones((40, 3), np.int64))
    table = chips.table.assign(count_0=(np.arange(40) % 8 == 0) * 1, count_1=(np.arange(40) % 8 == 3) * 1)
    rare = Chips(chips.folder, chips.metadata, table)
    for names in np.array(fold_splits(rare, 5)):
        assert (rare.counts[names == "test"].sum(axis=0) > 0).all()


def test_folds_of_scenes_leave_one_scene_out_at_a_time():
    chips = chips_of({name: lattice(2, 2) for name in "abcd"}, np.ones((16, 1), np.int64))
    splits = fold_splits(chips, "scenes")
    assert [{s for s, name in zip(chips.table["scene"], names, strict=True) if name == "test"} for names in splits] == [
        {"a"}, {"b"}, {"c"}, {"d"},
    ]  # fmt: skip
    assert [names.count("train") for names in splits] == [8] * 4


def of_groups(names: str) -> Chips:
    """Scenes of four chips; each is of the group that its letter names, "-" for none."""
    chips = chips_of({f"s{index}": lattice(2, 2) for index in range(len(names))}, np.ones((4 * len(names), 1), int))
    groups = np.repeat([name.replace("-", "") for name in names], 4)
    return Chips(chips.folder, chips.metadata, chips.table.assign(group=groups))


def test_folds_of_groups_leave_one_group_of_scenes_out_at_a_time():
    chips = of_groups("babcb")
    splits = np.array(fold_splits(chips, "groups"))
    assert fold_names(chips, "groups") == ["a", "b", "c"]
    for name, names in zip("abc", splits, strict=True):
        assert set(chips.group_names[names == "test"]) == {name}
        assert {name} & set(chips.group_names[names != "test"]) == set()
    assert ((splits == "test").sum(axis=0) == 1).all()


def test_folds_of_blocks_have_no_names():
    assert fold_names(of_groups("abc"), 3) == []
    assert fold_names(of_groups("aab"), "scenes") == ["s0", "s1", "s2"]


def test_folds_of_groups_need_the_group_of_each_scene():
    with pytest.raises(ChipError, match=r"folds = groups, but no group is named for s2 \(1 of 4 scenes\)"):
        fold_splits(of_groups("ab-c"), "groups")
    with pytest.raises(ChipError, match=r"folds = groups, but the chips have 2 groups\. Expected at least 3"):
        fold_splits(of_groups("aabb"), "groups")


def test_overlapping_scenes_are_separated_by_the_gap(tmp_path):
    sources = []
    for index, left in enumerate((0, 48, 500, 600)):
        transform = METRE @ Affine.translation(left, 0)
        image = write_raster(tmp_path / f"s{index}.tif", noise(1, SIZE, 4 * SIZE), transform=transform)
        sources.append({"image": (str(image),)})
    chips = chips_of({f"s{index}": lattice(1, 4) for index in range(4)}, np.ones((16, 1), np.int64), tuple(sources))
    # Scene 0 covers columns 0 to 63, scene 1 columns 48 to 111: while scene 0 is assessed, its last chip is the first
    # of scene 1, which is left out, as is the one that touches it.
    (names, *_) = fold_splits(chips, "scenes")
    assert names[4:8] == ["gap", "gap", "val", "val"]


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        (2, "folds is 2. Expected at least 3"),
        (50, r"folds is 50, but the chips \(36\) form only 36 spatial blocks. Expected at most as many folds"),
        ("scenes", "folds = scenes, but the chips have 1 scene. Expected at least 3"),
    ],
)
def test_too_few_folds_blocks_or_scenes_are_refused(folds, message):
    chips = chips_of({"scene": lattice(6, 6)}, np.ones((36, 1), np.int64))
    with pytest.raises(ChipError, match=message):
        fold_splits(chips, folds)


def test_a_fold_without_a_class_is_refused_by_name():
    counts = np.ones((144, 2), np.int64)
    counts[5:, 1] = 0
    chips = chips_of({"scene": lattice(12, 12)}, counts)
    with pytest.raises(ChipError, match=r"fold \d of 4 has no (train|test) chip with class 'class 1'.*Use fewer folds"):
        fold_splits(chips, 4)


def of_scenes(*pixels: tuple[int, int]) -> Chips:
    """Scenes a, b, ... of four chips; in each chip, so many pixels of class 0 and class 1."""
    return chips_of(
        {name: lattice(2, 2) for name, _ in zip("abcd", pixels, strict=False)}, np.repeat(pixels, 4, axis=0)
    )


def test_a_scene_without_a_class_is_held_out_with_a_warning(caplog):
    chips = of_scenes((1, 1), (1, 0), (1, 1), (1, 0))
    splits = np.array(fold_splits(chips, "scenes"))
    assert ((splits == "test").sum(axis=0) == 1).all()
    (warning,) = caplog.messages
    assert warning == "folds = scenes: class 'class 1' has no labelled pixel in b, d, where its F1 is not defined"


@pytest.mark.parametrize("of", ["test", "val"])
def test_a_class_that_only_a_held_out_scene_has_is_refused_with_a_possible_remedy(of):
    first, second = ((1, 1), (1, 0)) if of == "test" else ((1, 0), (1, 1))
    with pytest.raises(ChipError, match=r"fold 1 of 4 has no train chip with class 'class 1'.*give a number of folds"):
        fold_splits(of_scenes(first, second, (1, 0), (1, 0)), "scenes")


def test_chips_of_two_crss_that_overlap_are_in_no_two_splits(tmp_path):
    # The same ground of 96 x 96 pixels in UTM zones 32 and 33; zone 33 is turned by 4 degrees there.
    zone_33, windows = CRS.from_epsg(32633), lattice(6, 6)
    (left,), (top,) = transform(UTM, zone_33, [CORNER[0]], [CORNER[1]])
    grids = [(UTM, METRE), (zone_33, Affine(1, 0, left, 0, -1, top))]
    for name, (crs, origin) in zip("ab", grids, strict=True):
        write_raster(tmp_path / f"{name}.tif", noise(1, 96, 96), crs=crs, transform=origin)
    sources = tuple({"image": [str(tmp_path / f"{name}.tif")]} for name in "ab")
    chips = chips_of({"a": windows, "b": windows}, np.ones((72, 1), np.int64), sources)
    # Chip n of one scene overlaps chip n of the other, but for a turn by less than a chip.
    for own in np.array(fold_splits(chips, 3)):
        pairs = list(zip(own[:36], own[36:], strict=True))
        assert all(a == b or "gap" in (a, b) for a, b in pairs)
