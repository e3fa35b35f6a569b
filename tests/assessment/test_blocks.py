"""Blocks of pixels, and the intervals that follow from their resamples."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from landscribe import verbs
from landscribe.assessment.accuracy import Assessment
from landscribe.assessment.blocks import BlockCounter, BlockCounts, bootstrap
from landscribe.commands.tables import print_measures
from landscribe.confusion import Confusion
from landscribe.errors import RecipeError
from landscribe.geo.classes import Classes
from landscribe.geo.grid import Grid, Window
from worlds import write_raster

K = 3
CLASSES = Classes.from_labels([0, 1, 2], background=False)


def pixels(height, width, seed=0):
    """Indices of a reference and of a map, some of them without a class."""
    rng = np.random.default_rng(seed)
    return tuple(rng.choice(np.array([0, 1, 2, 255], np.uint8), (height, width), p=[0.5, 0.3, 0.1, 0.1]) for _ in "rp")


def counter(height, width, side):
    return BlockCounter.of(CLASSES, Grid(None, Affine.identity(), height, width), side)


def counted(reference, predicted, side) -> BlockCounts:
    return counter(*reference.shape, side).count(Window(0, 0, *reference.shape), reference, predicted)[1]


# Counts -------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 40), st.integers(1, 9), st.randoms())
def test_blocks_of_windows_in_any_order_sum_to_those_of_the_whole(height, width, side, step, random):
    reference, predicted = pixels(height, width)
    expected, blocks = Confusion.of(CLASSES, reference, predicted), counter(height, width, side)
    windows = [Window(row, col, step, step) & Window(0, 0, height, width)
               for row in range(0, height, step) for col in range(0, width, step)]  # fmt: skip
    random.shuffle(windows)
    confusion, summed = Confusion.zeros(CLASSES), BlockCounts.zeros(CLASSES, side)
    for window in windows:
        own, of_blocks = blocks.count(window, reference[window.slices], predicted[window.slices])
        confusion, summed = confusion + own, summed + of_blocks
    np.testing.assert_array_equal(confusion.counts, expected.counts)
    assert confusion.unmapped == expected.unmapped
    whole = counted(reference, predicted, side)
    np.testing.assert_array_equal(summed.index, whole.index)
    np.testing.assert_array_equal(summed.counts, whole.counts)
    np.testing.assert_array_equal(
        summed.counts.sum(axis=0), [np.diag(expected.counts), expected.counts.sum(axis=1), expected.counts.sum(axis=0)]
    )


def test_blocks_of_two_grids_stay_apart():
    blocks = counted(*pixels(8, 8), 4)
    joined = blocks + blocks.numbered_from(4)
    np.testing.assert_array_equal(joined.counts, np.concatenate([blocks.counts, blocks.counts]))
    np.testing.assert_array_equal((blocks + blocks).counts, 2 * blocks.counts)


def test_each_block_holds_its_own_pixels():
    reference, predicted = pixels(10, 7)
    blocks = counted(reference, predicted, 4).counts
    parts = [(slice(row, row + 4), slice(col, col + 4)) for row in (0, 4, 8) for col in (0, 4)]
    for block, part in zip(blocks, parts, strict=True):
        counts = Confusion.of(CLASSES, reference[part], predicted[part]).counts
        np.testing.assert_array_equal(block, [np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)])


def test_blocks_without_a_compared_pixel_are_no_blocks():
    reference, predicted = pixels(8, 8)
    reference[:4] = 255
    predicted[:, :4] = 255
    assert len(counted(reference, predicted, 4)) == 1


def test_pixels_of_a_window_beyond_the_grid_count_in_the_outermost_blocks():
    reference, predicted = pixels(6, 6)
    predicted[4:] = 255
    blocks = counter(4, 6, 2).count(Window(0, 0, 6, 6), reference, predicted)[1]
    np.testing.assert_array_equal(blocks.counts, counted(reference[:4], predicted[:4], 2).counts)


def test_blocks_that_are_too_many_are_refused_with_a_side_that_is_not():
    with pytest.raises(RecipeError, match=r"block_size is 2, which makes 25,000,000 .* at most 100,000.* about 32"):
        counter(10_000, 10_000, 2)
    counter(10_000, 10_000, 32)


# Intervals ----------------------------------------------------------------------------------------------------------


def test_blocks_of_one_pixel_give_the_bootstrap_of_independent_pixels():
    rng = np.random.default_rng(0)
    reference = rng.integers(0, K, (60, 60), np.uint8)
    predicted = np.where(rng.random((60, 60)) < 0.8, reference, rng.integers(0, K, (60, 60), np.uint8)).astype(np.uint8)
    accuracy = np.mean(reference == predicted)
    lower, upper = bootstrap(counted(reference, predicted, 1)).intervals["overall_accuracy"]
    half = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 3600)
    assert (lower, upper) == pytest.approx((accuracy - half, accuracy + half), abs=half / 8)


def test_errors_of_whole_blocks_give_wider_intervals_than_independent_pixels():
    wrong = np.kron(np.random.default_rng(0).random((8, 8)) < 0.3, np.ones((8, 8))).astype(np.uint8)
    reference = np.zeros_like(wrong)
    widths = [np.ptp(bootstrap(counted(reference, wrong, side)).intervals["overall_accuracy"]) for side in (1, 8)]
    assert widths[1] > 6 * widths[0]


def test_the_seed_and_the_confidence_decide_the_intervals():
    blocks = counted(*pixels(40, 40), 8)
    same, again, other = (bootstrap(blocks, seed=seed).intervals["f1"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(same, again)
    assert not np.array_equal(same, other)
    narrow, wide = (np.ptp(bootstrap(blocks, share).intervals["mean_iou"]) for share in (0.5, 0.99))
    assert narrow < wide / 2


@given(st.integers(0, 1000))
def test_intervals_hold_the_estimates_and_are_never_empty(seed):
    reference, predicted = pixels(40, 40, seed)
    confusion = Confusion.of(CLASSES, reference, predicted)
    for name, (lower, upper) in bootstrap(counted(reference, predicted, 8)).intervals.items():
        value = getattr(confusion, name)
        assert np.all(lower < upper)
        assert np.all((np.asarray(lower) <= value) & (value <= np.asarray(upper)))


def test_a_class_without_errors_has_an_interval_and_an_absent_one_has_none():
    reference = np.zeros((40, 40), np.uint8)
    reference[:, :16] = 1
    result = bootstrap(counted(reference, reference, 8))
    lower, upper = result.intervals["users_accuracy"]
    # Wilson at 10 blocks with class 1 and 15 with class 0: 1 / (1 + 1.96² / n).
    assert lower[:2] == pytest.approx([1 / (1 + 1.96**2 / 15), 1 / (1 + 1.96**2 / 10)], abs=1e-4)
    assert upper[:2].tolist() == [1, 1]
    assert result.as_dict(CLASSES)["classes"][2]["users_accuracy"] == [None, None]


def with_class_1_in(blocks, omitted=0.5, of=100):
    """Counts of blocks of 1000 pixels, some of which are half of class 1, of which a share is mapped as class 0."""
    counts = np.zeros((of, 3, K), np.int64)
    counts[:, :, 0] = 1000
    found = np.rint(500 * (1 - omitted + np.linspace(-0.02, 0.02, blocks))).astype(int)
    counts[:blocks, 0, :2] = np.stack([np.full(blocks, 500), found], axis=1)
    counts[:blocks, 1, :2] = 500
    counts[:blocks, 2, :2] = np.stack([1000 - found, found], axis=1)
    return BlockCounts(np.arange(of), counts, 64)


@pytest.mark.parametrize("blocks", [2, 9])
def test_a_class_in_few_blocks_has_no_intervals_and_means_with_it_have_none(blocks, capsys):
    result = bootstrap(with_class_1_in(blocks))
    for name in ("users_accuracy", "producers_accuracy", "f1", "iou"):
        assert np.isnan(result.intervals[name])[:, 1:].all()
        assert np.isfinite(result.intervals[name])[:, 0].all()
    assert np.isnan([result.intervals["mean_f1"], result.intervals["mean_iou"]]).all()
    assert np.isfinite(result.intervals["overall_accuracy"]).all()
    summary = result.as_dict(CLASSES)
    assert summary["note"] == "no intervals of means, nor of a class that lies in fewer than 10 blocks: 1"
    assert summary["mean_f1"] == summary["classes"][1]["f1"] == [None, None]


def test_ten_blocks_of_a_class_are_enough_for_its_intervals():
    result = bootstrap(with_class_1_in(10))
    assert np.isfinite([result.intervals[name] for name in ("mean_f1", "mean_iou")]).all()
    assert np.isfinite(result.intervals["producers_accuracy"])[:, 1].all()
    assert "note" not in result.as_dict(CLASSES)


def test_a_mean_is_that_of_the_same_classes_in_all_resamples():
    """Resamples without class 1, whose F1 is 2/3, have no mean: that of class 0 alone is almost 1."""
    lower, upper = bootstrap(with_class_1_in(12)).intervals["mean_f1"]
    assert 0.7 < lower < upper < 0.86


@pytest.mark.parametrize("blocks", [10, 40])
def test_intervals_of_few_blocks_hold_the_truth_about_as_often_as_those_of_t(blocks):
    """Percentiles that are not expanded hold it in 85 of 100 maps of 10 blocks."""
    rng, held, held_by_t = np.random.default_rng(0), 0, 0
    for _ in range(200):
        accuracies = rng.binomial(1000, rng.beta(8, 1, blocks)) / 1000
        agreed = np.rint(1000 * accuracies).astype(int)
        counts = np.stack([agreed, np.full(blocks, 1000), np.full(blocks, 1000)], axis=1)[:, :, None]
        lower, upper = bootstrap(BlockCounts(np.arange(blocks), counts, 64)).intervals["overall_accuracy"]
        held += lower <= 8 / 9 <= upper
        half = stats.t.ppf(0.975, blocks - 1) * accuracies.std(ddof=1) / blocks**0.5
        held_by_t += abs(accuracies.mean() - 8 / 9) <= half
    assert held >= 0.9 * 200
    assert held >= held_by_t - 5


def test_too_few_blocks_give_no_intervals_and_a_reason(capsys):
    reference, predicted = pixels(24, 24)
    result = bootstrap(counted(reference, predicted, 8))
    assert result.intervals == {}
    assert "lie in 9 blocks of 8 x 8 pixels; expected at least 10" in result.reason
    confusion = Confusion.of(CLASSES, reference, predicted)
    print_measures(Assessment(confusion, ("map.tif",), "truth.tif", bootstrap=result).as_dict())
    assert result.reason in capsys.readouterr().out


# Maps ---------------------------------------------------------------------------------------------------------------


def test_an_assessment_of_a_raster_has_intervals_in_its_summary_and_its_table(tmp_path, capsys):
    truth, mapped = (np.minimum(each, 2) for each in pixels(200, 150))
    paths = [write_raster(tmp_path / f"{name}.tif", array) for name, array in (("map", mapped), ("truth", truth))]
    assessment = verbs.assess(paths[0], reference=paths[1], block_size=20, confidence=0.9, seed=3)
    summary = assessment.as_dict()["intervals"]
    settings = {name: summary[name] for name in ("confidence", "blocks", "block_side", "seed")}
    assert settings == {"confidence": 0.9, "blocks": 80, "block_side": 20, "seed": 3}
    assert summary["overall_accuracy"] == list(assessment.intervals["overall_accuracy"])
    lower, upper = summary["classes"][0]["f1"]
    assert lower < assessment.f1[0] < upper
    print_measures(assessment.as_dict())
    assert f"{assessment.f1[0]:.3f} ({lower:.3f} to {upper:.3f})" in capsys.readouterr().out


def test_blocks_of_chips_are_those_of_their_scene(tmp_path):
    truth, mapped = (np.minimum(each, 2) for each in pixels(128, 128))
    image = write_raster(tmp_path / "scene.tif", np.random.default_rng(0).integers(1, 99, (3, 128, 128), np.uint8))
    paths = [write_raster(tmp_path / f"{name}.tif", array) for name, array in (("map", mapped), ("truth", truth))]
    chips = verbs.chip(
        images=[image], labels=paths[1], out=tmp_path / "chips", size=32, stride=24, val=0, test=0, virtual=True
    )
    of_chips = verbs.assess(paths[0], reference=chips, split="train", block_size=16)
    of_raster = verbs.assess(paths[0], reference=paths[1], block_size=16)
    assert of_chips.bootstrap.blocks == of_raster.bootstrap.blocks == 64
    np.testing.assert_array_equal(of_chips.intervals["iou"], of_raster.intervals["iou"])
