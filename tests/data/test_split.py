"""Splits by place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landscribe.data.split import ScenePart, SplitSpec, split_chips
from landscribe.errors import RecipeError
from landscribe.geo.grid import Window
from landscribe.geo.tiling import chip_windows


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
