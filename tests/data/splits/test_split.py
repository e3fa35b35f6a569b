"""Splits by place."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from landscribe.data.splits.spec import SplitSpec
from landscribe.data.splits.split import ScenePart, split_chips, split_scenes
from landscribe.errors import ChipError, RecipeError
from landscribe.geo.features import Features
from landscribe.geo.grid import Window
from landscribe.geo.tiling import chip_windows
from worlds import METRE, UTM, grid, pixel_box


def part_of(windows: list[Window], counts: np.ndarray | None = None) -> ScenePart:
    """Chips that all hold one class, or with the counts given."""
    return ScenePart(windows, np.full((len(windows), 1), 9, np.int64) if counts is None else counts)


def split(windows: list[Window], spec: SplitSpec, *, size: int = 16, seed: int = 0, counts=None) -> list[str]:
    return split_chips(part_of(windows, counts), spec, size=size, rng=np.random.default_rng(seed))


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
    for place, (window, name) in enumerate(used):
        for other, its_name in used[:place]:
            assert name == its_name or window.distance_to(other) >= gap


@settings(max_examples=20)
@given(scenes, specs, st.integers(0, 3))
def test_some_chips_are_always_left_to_train_on(scene, spec, seed):
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
def test_shares_come_close_to_what_is_wanted(val, test):
    names = np.array(split(lattice(30, 40), SplitSpec(val=val, test=test, gap=1, block=80)))
    assert (names == "val").mean() == pytest.approx(val, abs=0.06)
    assert (names == "test").mean() == pytest.approx(test, abs=0.06)


@pytest.mark.parametrize("seed", range(5))
def test_a_scene_too_small_for_two_held_out_splits_gives_up_test_before_val(seed):
    # Of 4 x 4 chips, two held-out ones take nearly all others with them.
    assert set(split(lattice(4, 4), SplitSpec(), seed=seed)) in (
        {"train", "val", "gap"},
        {"train", "val", "test", "gap"},
    )


def test_other_seeds_give_other_splits():
    assert len({tuple(split(lattice(12, 12), SplitSpec(), seed=seed)) for seed in range(5)}) > 1


def test_chips_of_a_block_stay_together_apart_from_the_gap():
    # Blocks of 32 pixels are 2 x 2 chips of 16.
    windows = lattice(12, 12)
    names = split(windows, SplitSpec(block=32))
    by_block: dict[tuple[int, int], set[str]] = {}
    for window, name in zip(windows, names, strict=True):
        by_block.setdefault((window.row // 32, window.col // 32), set()).add(name)
    assert all(len(found - {"gap"}) <= 1 for found in by_block.values())


def test_a_scene_of_one_block_is_all_for_training():
    assert split(lattice(3, 3), SplitSpec(block=1000)) == ["train"] * 9


def test_a_single_chip_is_for_training():
    assert split(lattice(1, 1), SplitSpec()) == ["train"]


def test_without_shares_all_is_for_training():
    assert split(lattice(8, 8), SplitSpec(val=0, test=0)) == ["train"] * 64


def test_four_chips_that_all_touch_are_all_for_training():
    # Whatever is held out, every other chip touches it.
    assert split(lattice(2, 2), SplitSpec()) == ["train"] * 4


def test_a_rare_class_is_left_in_every_split():
    # Class 1 stands only in the four blocks of 3 x 3 chips at the corners.
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
    for place in (0, 70, 143):
        counts = np.full((144, 2), 9, np.int64)
        counts[:, 1] = np.arange(144) == place
        assert split(windows, SplitSpec(), counts=counts)[place] == "train"


# Whole scenes -------------------------------------------------------------------------------------------------

BY_SCENE = SplitSpec(by="scene", val=0.2, test=0.2)


def whole(counts: np.ndarray, *, split: str | None = None, left: float | None = None) -> ScenePart:
    """A scene of as many chips as there are rows of counts, side by side."""
    windows = lattice(1, len(counts))
    place = None if left is None else grid(16, 16 * len(counts), transform=METRE @ Affine.translation(left, 0))
    return ScenePart(windows, counts, split=split, grid=place)


@st.composite
def worlds_of_scenes(draw):
    """Three to twelve scenes of one to five chips of up to six classes, some of which stand in few scenes."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    commonness = rng.choice([0.1, 0.3, 1.0], draw(st.integers(1, 6)))
    lengths = rng.integers(1, 6, draw(st.integers(3, 12)))
    return [whole((rng.random((n, len(commonness))) < commonness).astype(np.int64)) for n in lengths]


@settings(max_examples=30)
@given(worlds_of_scenes(), st.integers(0, 3))
def test_scenes_are_held_out_whole_and_no_class_is_lost_from_train(parts, seed):
    names = split_scenes(parts, BY_SCENE, size=16, seed=seed)
    assert all(len(set(some)) == 1 for some in names)
    assert names == split_scenes(parts, BY_SCENE, size=16, seed=seed)
    trained = sum(part.counts.sum(axis=0) for part, some in zip(parts, names, strict=True) if some[0] == "train")
    assert ((trained > 0) == (sum(part.counts.sum(axis=0) for part in parts) > 0)).all()


def test_scenes_of_all_classes_fill_every_split_by_its_share():
    parts = [whole(np.ones((4, 2), np.int64)) for _ in range(10)]
    names = [some[0] for some in split_scenes(parts, BY_SCENE, size=16, seed=0)]
    assert {name: names.count(name) for name in names} == {"train": 6, "val": 2, "test": 2}


def test_a_draw_that_keeps_many_rare_classes_in_train_is_found():
    # 30 of 40 scenes each hold a class of their own: only draws from the other ten will do, one in thousands.
    counts = np.concatenate([np.eye(30, dtype=np.int64), np.zeros((10, 30), np.int64)])
    parts = [whole(np.hstack([row, [1]])[None]) for row in counts]
    names = [some[0] for some in split_scenes(parts, BY_SCENE, size=16, seed=0)]
    assert set(names[:30]) == {"train"}
    assert set(names) == {"train", "val", "test"}


def test_where_every_scene_is_needed_none_is_held_out():
    parts = [whole(row[None]) for row in np.eye(6, dtype=np.int64)]
    assert {some[0] for some in split_scenes(parts, BY_SCENE, size=16, seed=0)} == {"train"}


@pytest.mark.parametrize("seed", range(4))
def test_a_scene_whose_split_is_told_keeps_it(seed):
    parts = [whole(np.ones((2, 1), np.int64), split="test" if n == 1 else None) for n in range(6)]
    names = [some[0] for some in split_scenes(parts, BY_SCENE, size=16, seed=seed)]
    assert names[1] == "test"
    assert {"train", "val"} <= set(names)


@pytest.mark.parametrize("seed", range(4))
def test_scenes_that_share_ground_share_a_split(seed):
    # Scenes 0, 1 and 2 overlap in a chain; the others stand apart.
    lefts = [0, 40, 80, 500, 600, 700, 800, 900]
    parts = [whole(np.ones((3, 1), np.int64), left=left) for left in lefts]
    names = [some[0] for some in split_scenes(parts, BY_SCENE, size=16, seed=seed)]
    assert len(set(names[:3])) == 1


def test_scenes_that_only_touch_are_drawn_apart():
    parts = [whole(np.ones((3, 1), np.int64), left=48 * place) for place in range(6)]
    names = [some[0] for some in split_scenes(parts, BY_SCENE, size=16, seed=0)]
    assert set(names) == {"train", "val", "test"}


def test_too_few_scenes_are_refused():
    parts = [whole(np.ones((9, 1), np.int64)) for _ in range(2)]
    with pytest.raises(ChipError, match=r"there are 2 scenes.* to draw train, val, test from. At least 3"):
        split_scenes(parts, BY_SCENE, size=16, seed=0)


# Areas --------------------------------------------------------------------------------------------------------


def areas(*boxes: tuple[float, float, float, float, object]) -> Features:
    """Polygons by row, column, height, width and what their column says."""
    shapes = np.array([pixel_box(*box[:4]) for box in boxes])
    return Features("areas.gpkg", shapes, tuple(box[4] for box in boxes), UTM)


BY_AREA = SplitSpec(by="attribute", attribute="fold", gap=4)


def test_chips_belong_to_the_split_of_the_polygons_they_touch():
    #  columns  0  16 | 32  48 | 64 | 80  96: train, val and test with chips between them that touch none
    part = ScenePart(
        lattice(1, 8),
        np.ones((8, 1), np.int64),
        grid=grid(16, 128),
        areas=areas((0, 0, 8, 20, "train"), (2, 50, 3, 3, "val"), (0, 96, 16, 16, "Test")),
    )
    assert split_scenes([part], BY_AREA, size=16, seed=0) == [
        ["train", "train", "gap", "val", "gap", "gap", "test", "gap"]
    ]


def test_a_chip_on_polygons_of_two_splits_is_not_used():
    part = ScenePart(
        lattice(1, 3),
        np.ones((3, 1), np.int64),
        grid=grid(16, 48),
        areas=areas((0, 0, 16, 20, "train"), (0, 22, 16, 26, "test")),
    )
    assert split_scenes([part], SplitSpec(by="attribute", attribute="fold", val=0), size=16, seed=0) == [
        ["train", "gap", "test"]
    ]


@settings(max_examples=25)
@given(st.integers(0, 99), st.integers(1, 30), st.integers(3, 8))
def test_groups_are_drawn_whole_and_stay_the_gap_apart(seed, gap, groups):
    rng = np.random.default_rng(seed)
    boxes = [(*rng.integers(0, 180, 2), *rng.integers(4, 40, 2), int(rng.integers(0, groups))) for _ in range(30)]
    windows = lattice(13, 13)
    part = ScenePart(windows, np.ones((169, 1), np.int64), grid=grid(208, 208), areas=areas(*boxes))
    spec = SplitSpec(by="attribute", attribute="fold", gap=gap)
    if len({box[4] for box in boxes}) < 3:
        return
    (names,) = split_scenes([part], spec, size=16, seed=seed)
    split_of: dict[int, set[str]] = {}
    used = [(window, name) for window, name in zip(windows, names, strict=True) if name != "gap"]
    for window, name in used:
        for row, col, height, width, group in boxes:
            if not (window & Window(row, col, height, width)).is_empty:
                split_of.setdefault(group, set()).add(name)
        assert all(name == other or window.distance_to(its) >= gap for its, other in used)
    assert all(len(found) == 1 for found in split_of.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by": "attribute"}, "name the polygons' column"),
        ({"attribute": "fold"}, "set by = attribute"),
        ({"by": "list"}, "name the scenes to train on"),
        ({"train_list": "train.txt"}, "set by = list"),
        ({"by": "region"}, "'by' is 'region'"),
    ],
)
def test_what_a_split_goes_by_is_given_with_it(settings, message):
    with pytest.raises(RecipeError, match=message):
        SplitSpec.of(settings)
