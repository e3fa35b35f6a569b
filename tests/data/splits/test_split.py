"""Splits by block, by scene and by polygon."""

from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from landscribe.data.splits.spec import SplitSpec
from landscribe.data.splits.split import SplitInput, split_chips, split_scenes
from landscribe.errors import ChipError, RecipeError
from landscribe.geo.features import Features
from landscribe.geo.grid import Grid, Window
from worlds import METRE, UTM, chip_windows, grid, pixel_box


def one_scene(windows: list[Window], counts: np.ndarray | None = None) -> SplitInput:
    """A scene whose chips all hold one class, or with these counts."""
    return SplitInput(windows, np.full((len(windows), 1), 9, np.int64) if counts is None else counts)


def split(windows: list[Window], spec: SplitSpec, *, size: int = 16, seed: int = 0, counts=None) -> list[str]:
    return split_chips(one_scene(windows, counts), spec, size=size, rng=np.random.default_rng(seed))


def lattice(rows: int, cols: int, size: int = 16) -> list[Window]:
    """Chips side by side."""
    return chip_windows(rows * size, cols * size, size=size, stride=size, edge="drop")


scenes = st.builds(
    lambda height, width, size, stride, edge: (size, chip_windows(height, width, size=size, stride=stride, edge=edge)),
    st.integers(16, 150),
    st.integers(16, 150),
    st.integers(10, 16),
    st.integers(6, 24),
    st.sampled_from(["shift", "pad", "drop"]),
)
specs = st.builds(
    SplitSpec,
    val=st.sampled_from([0, 0.1, 0.15, 0.4]),
    test=st.sampled_from([0, 0.15, 0.3]),
    gap=st.one_of(st.none(), st.integers(1, 40)),
    block=st.one_of(st.none(), st.integers(8, 80)),
)


@settings(max_examples=40)
@given(scenes, specs, st.integers(0, 3))
def test_windows_of_two_splits_are_at_least_the_gap_apart(scene, spec, seed):
    size, windows = scene
    names = split(windows, spec, size=size, seed=seed)
    gap = spec.gap or size // 4
    used = [(window, name) for window, name in zip(windows, names, strict=True) if name != "gap"]
    for index, (window, name) in enumerate(used):
        for other, other_name in used[:index]:
            assert name == other_name or window.distance_to(other) >= gap


@settings(max_examples=20)
@given(scenes, specs, st.integers(0, 3))
def test_train_always_has_chips(scene, spec, seed):
    size, windows = scene
    assert "train" in split(windows, spec, size=size, seed=seed)


@settings(max_examples=20)
@given(scenes, specs, st.integers(0, 3))
def test_the_same_seed_gives_the_same_split(scene, spec, seed):
    size, windows = scene
    assert split(windows, spec, size=size, seed=seed) == split(windows, spec, size=size, seed=seed)


@settings(max_examples=20)
@given(st.integers(6, 12), st.integers(6, 12), st.integers(0, 9))
def test_no_split_is_empty_in_a_scene_of_six_by_six_chips_or_more(rows, cols, seed):
    assert {"train", "val", "test"} <= set(split(lattice(rows, cols), SplitSpec(), seed=seed))


@pytest.mark.parametrize(("val", "test"), [(0.15, 0.15), (0.1, 0.3), (0.25, 0.0)])
def test_shares_are_close_to_the_requested_fractions(val, test):
    names = np.array(split(lattice(30, 40), SplitSpec(val=val, test=test, gap=1, block=80)))
    assert (names == "val").mean() == pytest.approx(val, abs=0.06)
    assert (names == "test").mean() == pytest.approx(test, abs=0.06)


@pytest.mark.parametrize("seed", range(5))
def test_a_scene_too_small_for_val_and_test_holds_out_val_only(seed):
    # Of 4 x 4 chips, two held-out ones take nearly all others with them.
    assert set(split(lattice(4, 4), SplitSpec(), seed=seed)) in (
        {"train", "val", "gap"},
        {"train", "val", "test", "gap"},
    )


def test_other_seeds_give_other_splits():
    assert len({tuple(split(lattice(12, 12), SplitSpec(), seed=seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize("stride", [12, 16])
def test_all_chips_whose_centre_lies_in_a_block_share_a_split_or_are_in_the_gap(stride):
    windows = chip_windows(192, 192, size=16, stride=stride, edge="drop")
    names = split(windows, SplitSpec(block=32))
    by_block: dict[tuple[int, int], set[str]] = {}
    for window, name in zip(windows, names, strict=True):
        by_block.setdefault(((window.row + 8) // 32, (window.col + 8) // 32), set()).add(name)
    assert set(names) == {"train", "val", "test", "gap"}
    assert all(len(names - {"gap"}) <= 1 for names in by_block.values())


def test_a_scene_of_one_block_goes_to_train():
    assert split(lattice(3, 3), SplitSpec(block=1000)) == ["train"] * 9


def test_a_single_chip_goes_to_train():
    assert split(lattice(1, 1), SplitSpec()) == ["train"]


def test_with_fractions_of_zero_all_chips_go_to_train():
    assert split(lattice(8, 8), SplitSpec(val=0, test=0)) == ["train"] * 64


def test_four_chips_that_all_touch_go_to_train():
    # Whatever is held out, every other chip touches it.
    assert split(lattice(2, 2), SplitSpec()) == ["train"] * 4


def test_a_rare_class_is_in_every_split():
    # Class 1 is only in the four blocks of 3 x 3 chips at the corners.
    windows = lattice(12, 12)
    counts = np.full((144, 2), 9, np.int64)
    corners = [(w.row < 48 or w.row >= 144) and (w.col < 48 or w.col >= 144) for w in windows]
    counts[:, 1] = np.where(corners, 9, 0)
    names = np.array(split(windows, SplitSpec(block=48), counts=counts))
    assert all(counts[names == name, 1].sum() > 0 for name in ("train", "val", "test"))


def test_distance_between_splits_is_measured_on_overlapping_chips_too():
    # Chips of 16 every 8 pixels: a chip overlaps the next and touches the one after that.
    windows = chip_windows(160, 160, size=16, stride=8, edge="drop")
    names = split(windows, SplitSpec(gap=4))
    covered = np.zeros((3, 160, 160), bool)
    for window, name in zip(windows, names, strict=True):
        if name != "gap":
            covered[("train", "val", "test").index(name)][window.slices] = True
    assert covered.any(axis=(1, 2)).all()
    assert covered.sum(axis=0).max() == 1


@pytest.mark.parametrize("settings", [{"val": 1.0}, {"test": -0.1}, {"gap": 0}, {"block": 0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(RecipeError):
        SplitSpec.of(settings)


# Classes ------------------------------------------------------------------------------------------------------


@st.composite
def scenes_with_classes(draw):
    """Chips of a scene, some of whose classes are rare."""
    size, windows = draw(scenes)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    commonness = rng.choice([0.02, 0.2, 1.0], draw(st.integers(1, 5)))
    return size, windows, (rng.random((len(windows), len(commonness))) < commonness).astype(np.int64) * 7


@settings(max_examples=40)
@given(scenes_with_classes(), specs, st.integers(0, 3))
def test_no_class_is_lost_from_train(scene, spec, seed):
    size, windows, counts = scene
    names = np.array(split(windows, spec, size=size, seed=seed, counts=counts))
    assert ((counts[names == "train"].sum(axis=0) > 0) == (counts.sum(axis=0) > 0)).all()


def test_a_class_of_a_single_chip_stays_in_train():
    windows = lattice(12, 12)
    for index in (0, 70, 143):
        counts = np.full((144, 2), 9, np.int64)
        counts[:, 1] = np.arange(144) == index
        assert split(windows, SplitSpec(), counts=counts)[index] == "train"


# Whole scenes -------------------------------------------------------------------------------------------------

BY_SCENE = SplitSpec(by="scene", val=0.2, test=0.2)


def whole(counts: np.ndarray, *, split: str | None = None, left: float | None = None) -> SplitInput:
    """A scene of as many chips as there are rows of counts, side by side."""
    windows = lattice(1, len(counts))
    own = None if left is None else grid(16, 16 * len(counts), transform=METRE @ Affine.translation(left, 0))
    return SplitInput(windows, counts, split=split, grid=own)


@st.composite
def worlds_of_scenes(draw):
    """Three to twelve scenes of one to five chips of up to six classes, some of which are in few scenes."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    commonness = rng.choice([0.1, 0.3, 1.0], draw(st.integers(1, 6)))
    lengths = rng.integers(1, 6, draw(st.integers(3, 12)))
    return [whole((rng.random((n, len(commonness))) < commonness).astype(np.int64)) for n in lengths]


@settings(max_examples=30)
@given(worlds_of_scenes(), st.integers(0, 3))
def test_scenes_are_held_out_whole_and_no_class_is_lost_from_train(inputs, seed):
    names = split_scenes(inputs, BY_SCENE, size=16, seed=seed)
    assert all(len(set(own)) == 1 for own in names)
    assert names == split_scenes(inputs, BY_SCENE, size=16, seed=seed)
    trained = sum(scene.counts.sum(axis=0) for scene, own in zip(inputs, names, strict=True) if own[0] == "train")
    assert ((trained > 0) == (sum(scene.counts.sum(axis=0) for scene in inputs) > 0)).all()


def test_scenes_of_all_classes_fill_every_split_by_its_share():
    inputs = [whole(np.ones((4, 2), np.int64)) for _ in range(10)]
    names = [own[0] for own in split_scenes(inputs, BY_SCENE, size=16, seed=0)]
    assert {name: names.count(name) for name in names} == {"train": 6, "val": 2, "test": 2}


def test_rare_classes_stay_in_train_even_if_few_draws_allow_it():
    # 30 of 40 scenes each hold a class of their own: only draws from the other ten keep them, one in thousands.
    counts = np.concatenate([np.eye(30, dtype=np.int64), np.zeros((10, 30), np.int64)])
    inputs = [whole(np.hstack([row, [1]])[None]) for row in counts]
    names = [own[0] for own in split_scenes(inputs, BY_SCENE, size=16, seed=0)]
    assert set(names[:30]) == {"train"}
    assert set(names) == {"train", "val", "test"}


def test_no_scene_is_held_out_if_train_needs_all():
    inputs = [whole(row[None]) for row in np.eye(6, dtype=np.int64)]
    assert {own[0] for own in split_scenes(inputs, BY_SCENE, size=16, seed=0)} == {"train"}


@pytest.mark.parametrize("seed", range(4))
def test_a_scene_with_a_predefined_split_keeps_it(seed):
    inputs = [whole(np.ones((2, 1), np.int64), split="test" if n == 1 else None) for n in range(6)]
    names = [own[0] for own in split_scenes(inputs, BY_SCENE, size=16, seed=seed)]
    assert names[1] == "test"
    assert {"train", "val"} <= set(names)


@pytest.mark.parametrize("seed", range(4))
def test_scenes_that_overlap_share_a_split(seed):
    # Scenes 0, 1 and 2 overlap in a chain; the others stand apart.
    lefts = [0, 40, 80, 500, 600, 700, 800, 900]
    inputs = [whole(np.ones((3, 1), np.int64), left=left) for left in lefts]
    names = [own[0] for own in split_scenes(inputs, BY_SCENE, size=16, seed=seed)]
    assert len(set(names[:3])) == 1


def test_scenes_that_only_touch_are_drawn_separately():
    inputs = [whole(np.ones((3, 1), np.int64), left=48 * index) for index in range(6)]
    names = [own[0] for own in split_scenes(inputs, BY_SCENE, size=16, seed=0)]
    assert set(names) == {"train", "val", "test"}


def test_too_few_scenes_are_refused():
    inputs = [whole(np.ones((9, 1), np.int64)) for _ in range(2)]
    with pytest.raises(ChipError, match=r"2 scenes.* cannot be split into train, val, test. Expected at least 3"):
        split_scenes(inputs, BY_SCENE, size=16, seed=0)


# Scenes of several sizes --------------------------------------------------------------------------------------


def shares(*sides: int, seed: int = 0) -> dict[str, float]:
    """Shares of the splits of square scenes, by the chips on a side, far from each other."""
    inputs = [
        SplitInput(windows, np.ones((side * side, 1), np.int64), grid=grid_at(16 * side, 5000 * index))
        for index, side in enumerate(sides)
        for windows in [lattice(side, side)]
    ]
    names = np.concatenate(split_scenes(inputs, SplitSpec(), size=16, seed=seed))
    return {name: float((names == name).mean()) for name in ("train", "val", "test")}


def grid_at(side: int, left: int) -> Grid:
    """A square grid this many pixels to the east."""
    return grid(side, side, transform=METRE @ Affine.translation(left, 0))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sides", [[*[1] * 60, 5], [3] * 20, [5] * 20, [*[1] * 40, 12]])
def test_scenes_too_small_for_blocks_are_held_out_whole_beside_larger_ones(sides, seed):
    found = shares(*sides, seed=seed)
    assert found["val"] == pytest.approx(0.15, abs=0.07)
    assert found["test"] == pytest.approx(0.15, abs=0.07)
    assert found["train"] >= 0.55


def test_few_small_scenes_are_divided_if_whole_ones_take_more_from_train():
    # One of three scenes each would leave train a third.
    assert shares(4, 4, 4)["train"] > 0.5


@pytest.mark.parametrize("seed", range(3))
def test_scenes_of_one_size_are_all_drawn_whole_or_all_divided(seed, caplog):
    # By chance, the blocks of some scenes reach all splits.
    rng = np.random.default_rng(seed)
    inputs = [
        SplitInput(lattice(4, 4), (rng.random((16, 2)) < 0.5).astype(np.int64), grid=grid_at(64, 5000 * index))
        for index in range(29)
    ]
    by_block = [set(own) for own in split_scenes(inputs, SplitSpec(by="block"), size=16, seed=seed)]
    divided = sum({"train", "val", "test"} <= own for own in by_block)
    assert 0 < divided < 29 / 2
    with caplog.at_level("INFO"):
        names = split_scenes(inputs, SplitSpec(), size=16, seed=seed)
    assert all(len(set(own)) == 1 for own in names)
    whole_scenes = [own[0] for own in names]
    assert {name: whole_scenes.count(name) for name in set(whole_scenes)} == {"train": 21, "val": 4, "test": 4}
    (message,) = caplog.messages
    assert message.endswith(f"29 scenes of at most 16 chips drawn whole, because blocks would divide {divided} of them "
                            "into train, val, test")  # fmt: skip


# Groups of scenes ---------------------------------------------------------------------------------------------

BY_GROUP = SplitSpec(by="group", val=0.2, test=0.2)


def of_groups(names: str, chips: int = 3) -> list[SplitInput]:
    """A scene for each letter, which is the name of its group, far from the others."""
    return [
        replace(whole(np.ones((chips, 1), np.int64), left=1000 * index), group=name, name=f"{name}{index}")
        for index, name in enumerate(names)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_all_scenes_of_a_group_share_a_split(seed):
    inputs = of_groups("abcdabcdabcde")
    names = split_scenes(inputs, BY_GROUP, size=16, seed=seed)
    split_of = {
        group: {name for scene, own in zip(inputs, names, strict=True) if scene.group == group for name in own}
        for group in "abcde"
    }
    assert all(len(splits) == 1 for splits in split_of.values())
    assert set.union(*split_of.values()) == {"train", "val", "test"}
    assert names == split_scenes(inputs, BY_GROUP, size=16, seed=seed)


def test_groups_fill_every_split_by_its_share():
    inputs = of_groups("abcdefghij" * 3)
    first = [own[0] for own in split_scenes(inputs, BY_GROUP, size=16, seed=0)[:10]]
    assert {name: first.count(name) for name in first} == {"train": 6, "val": 2, "test": 2}


@pytest.mark.parametrize("seed", range(4))
def test_scenes_of_a_group_with_a_predefined_split_keep_it(seed):
    inputs = of_groups("aabbccdd")
    inputs[0] = replace(inputs[0], split="val")
    names = [own[0] for own in split_scenes(inputs, BY_GROUP, size=16, seed=seed)]
    assert names[0] == "val"
    assert all(names[index] == names[index + 1] for index in (2, 4, 6))


@pytest.mark.parametrize("gap", [None, 1, 40])
def test_chips_of_groups_that_meet_are_the_gap_apart(gap):
    # Six scenes of ten chips in a row, each of which overlaps the next by half a chip.
    lefts = [152 * index for index in range(6)]
    inputs = [
        replace(whole(np.ones((10, 1), np.int64), left=left), group=f"g{index}") for index, left in enumerate(lefts)
    ]
    names = split_scenes(inputs, BY_GROUP.model_copy(update={"gap": gap}), size=16, seed=0)
    spans = [
        (left + window.col, name)
        for scene, left, own in zip(inputs, lefts, names, strict=True)
        for window, name in zip(scene.windows, own, strict=True)
        if name != "gap"
    ]
    assert {name for _, name in spans} == {"train", "val", "test"}
    assert all(abs(a - b) - 16 >= (gap or 4) for a, first in spans for b, second in spans if first != second)


def test_scenes_without_a_group_are_refused_by_name():
    inputs = [*of_groups("abcd"), whole(np.ones((3, 1), np.int64)), whole(np.ones((3, 1), np.int64), split="test")]
    inputs[4] = replace(inputs[4], name="nowhere")
    with pytest.raises(ChipError, match=r"by group, but no group is named for nowhere \(1 of 6 scenes\)\. Expected"):
        split_scenes(inputs, BY_GROUP, size=16, seed=0)


def test_too_few_groups_are_refused():
    with pytest.raises(ChipError, match="2 groups of scenes cannot be split into train, val, test"):
        split_scenes(of_groups("abab"), BY_GROUP, size=16, seed=0)


# Zones --------------------------------------------------------------------------------------------------------


def zones(*boxes: tuple[float, float, float, float, object]) -> Features:
    """Polygons by row, column, height, width and label."""
    shapes = np.array([pixel_box(*box[:4]) for box in boxes])
    return Features("zones.gpkg", shapes, tuple(box[4] for box in boxes), UTM)


BY_ZONE = SplitSpec(by="attribute", attribute="fold", gap=4)


def test_chips_belong_to_the_split_of_the_zones_they_intersect():
    #  columns  0  16 | 32  48 | 64 | 80  96: train, val and test, and chips in no zone between them
    scene = SplitInput(
        lattice(1, 8),
        np.ones((8, 1), np.int64),
        grid=grid(16, 128),
        zones=zones((0, 0, 8, 20, "train"), (2, 50, 3, 3, "val"), (0, 96, 16, 16, "Test")),
    )
    assert split_scenes([scene], BY_ZONE, size=16, seed=0) == [
        ["train", "train", "gap", "val", "gap", "gap", "test", "gap"]
    ]


def test_a_chip_on_zones_of_two_splits_is_not_used():
    scene = SplitInput(
        lattice(1, 3),
        np.ones((3, 1), np.int64),
        grid=grid(16, 48),
        zones=zones((0, 0, 16, 20, "train"), (0, 22, 16, 26, "test")),
    )
    assert split_scenes([scene], SplitSpec(by="attribute", attribute="fold", val=0), size=16, seed=0) == [
        ["train", "gap", "test"]
    ]


@settings(max_examples=25)
@given(st.integers(0, 99), st.integers(1, 30), st.integers(3, 8))
def test_groups_are_drawn_whole_and_stay_the_gap_apart(seed, gap, groups):
    rng = np.random.default_rng(seed)
    boxes = [(*rng.integers(0, 180, 2), *rng.integers(4, 40, 2), int(rng.integers(0, groups))) for _ in range(30)]
    windows = lattice(13, 13)
    scene = SplitInput(windows, np.ones((169, 1), np.int64), grid=grid(208, 208), zones=zones(*boxes))
    spec = SplitSpec(by="attribute", attribute="fold", gap=gap)
    if len({box[4] for box in boxes}) < 3:
        return
    (names,) = split_scenes([scene], spec, size=16, seed=seed)
    split_of: dict[int, set[str]] = {}
    used = [(window, name) for window, name in zip(windows, names, strict=True) if name != "gap"]
    for window, name in used:
        for row, col, height, width, group in boxes:
            if not (window & Window(row, col, height, width)).is_empty:
                split_of.setdefault(group, set()).add(name)
        assert all(name == other_name or window.distance_to(other) >= gap for other, other_name in used)
    assert all(len(names) == 1 for names in split_of.values())


@pytest.mark.parametrize("left", [120, 128, 131])
def test_chips_of_zones_are_the_gap_apart_across_scenes(left):
    # A train zone over a scene of eight chips; a test zone over the next scene, which overlaps, touches or is near it.
    transforms = METRE, METRE @ Affine.translation(left, 0)
    inputs = [
        SplitInput(
            lattice(1, 8),
            np.ones((8, 1), np.int64),
            grid=grid(16, 128, transform=transform),
            zones=zones((0, 0, 16, 120, "train"), (0, left + 8, 16, 120, "test")),
        )
        for transform in transforms
    ]
    first, second = split_scenes(inputs, SplitSpec(by="attribute", attribute="fold", val=0, gap=12), size=16, seed=0)
    stop = max(16 * (n + 1) for n, name in enumerate(first) if name == "train")
    assert left + min(16 * n for n, name in enumerate(second) if name == "test") - stop >= 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by": "attribute"}, "name the polygons' column"),
        ({"attribute": "fold"}, r"set by = attribute \(--split-by attribute\)"),
        ({"by": "list"}, "name the scenes to train on"),
        ({"train_list": "train.txt"}, r"train_list is given, but by is auto; set by = list \(--split-by list\)"),
        ({"by": "region"}, "'by' is 'region'"),
    ],
)
def test_each_kind_of_split_requires_its_own_settings(settings, message):
    with pytest.raises(RecipeError, match=message):
        SplitSpec.of(settings)
