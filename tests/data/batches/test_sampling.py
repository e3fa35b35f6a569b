"""Repeat factors, the order of an epoch, and class weights."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscribe.data.batches.sampling import ChipSampler, RankShare, repeat_factors
from landscribe.data.chips.stats import class_weights


def chips(counts: list[list[int]]):
    """Counts of labelled pixels by chip and class; the first class is background."""
    table = np.array(counts)

    class Table(SimpleNamespace):
        def __len__(self) -> int:
            return len(table)

    return Table(counts=table, table=pd.DataFrame({"positive": table[:, 1:].any(axis=1)}))


TABLES = st.lists(st.lists(st.integers(0, 50), min_size=3, max_size=3), min_size=1, max_size=30)


def test_by_default_an_epoch_has_every_chip_once():
    sampler = ChipSampler(repeat_factors(chips([[5, 0, 1]] * 7), balanced=False, background=None), seed=1)
    assert sorted(sampler) == list(range(7))


def test_each_epoch_has_another_order_and_the_same_seed_the_same():
    def epochs(seed):
        sampler = ChipSampler(np.ones(20), seed=seed)
        return [list(sampler), list(sampler)]

    first = epochs(3)
    assert first[0] != first[1]
    assert epochs(3) == first
    assert epochs(4) != first


@given(TABLES)
def test_balanced_epochs_keep_their_length_and_repeat_chips_with_rare_classes(counts):
    factors = repeat_factors(chips(counts), balanced=True, background=None)
    assert factors.sum() == pytest.approx(len(counts))
    has_class = np.array(counts) > 0
    if has_class.any():
        rarest = np.where(has_class, has_class.mean(axis=0), 2).min(axis=1)
        order = np.argsort(rarest)
        assert (np.diff(factors[order]) <= 1e-9).all()


def test_a_class_in_an_eighth_of_the_chips_has_twice_the_factor_of_a_common_one():
    """By hand: √(0.5 / (1 / 8)) = 2 and max(1, √(0.5 / 1)) = 1, scaled from a sum of 9 to one of 8."""
    factors = repeat_factors(chips([[5, 0]] * 7 + [[5, 5]]), balanced=True, background=None)
    assert factors == pytest.approx(np.array([1] * 7 + [2]) * 8 / 9)


@pytest.mark.parametrize(("drawn", "of_each"), [(7, 2), (8, 4), (3, 2)])
def test_a_last_batch_with_fewer_than_two_chips_for_each_process_is_dropped_unless_it_is_the_only_one(drawn, of_each):
    share = RankShare(batch=4, rank=0, processes=2)
    sampler = ChipSampler(np.ones(20), seed=0, share=share)
    sampler.drawn = drawn
    assert len(sampler) == len(list(sampler)) == of_each


@given(st.lists(st.floats(0, 3), min_size=1, max_size=40), st.integers(0, 5))
def test_a_chip_is_drawn_as_often_as_its_factor_rounded_up_or_down(factors, seed):
    drawn = np.array(list(ChipSampler(np.array(factors), seed=seed)), int)
    counts = np.bincount(drawn, minlength=len(factors))
    assert (np.abs(counts - np.array(factors)) < 1 + 1e-9).all()


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_background_only_chips_are_limited_to_their_fraction(share):
    table = chips([[9, 0, 0]] * 30 + [[5, 4, 0]] * 6)
    factors = repeat_factors(table, balanced=False, background=share)
    assert factors[:30].sum() / factors.sum() == pytest.approx(share)
    assert (factors[30:] == 1).all()


def test_class_weights_equal_their_formulas_worked_by_hand():
    # Two chips of 100 pixels: 90 and 10 of classes 0 and 1, then 100 of class 0; class 2 has none.
    table = chips([[90, 10, 0], [100, 0, 0]])
    assert class_weights(table, "none").tolist() == [1, 1, 1]
    # 1/190 and 1/10, mean 1.
    assert class_weights(table, "inverse") == pytest.approx([0.1, 1.9, 1])
    # Shares 190/200 and 10/100, median 0.525.
    raw = np.array([0.525 / 0.95, 0.525 / 0.1])
    assert class_weights(table, "median")[:2] == pytest.approx(raw / raw.mean())
    beta = 1 - 1 / 190
    raw = np.array([1 / (1 - beta**190), 1 / (1 - beta**10)])
    assert class_weights(table, "effective")[:2] == pytest.approx(raw / raw.mean())


@given(TABLES, st.sampled_from(["inverse", "median", "effective"]))
def test_rarer_classes_never_weigh_less(counts, weighting):
    table = chips(counts)
    pixels = table.counts.sum(axis=0)
    weights = class_weights(table, weighting)
    assert np.isfinite(weights).all()
    assert (weights > 0).all()
    if weighting != "median" and (pixels > 0).all():
        assert (np.diff(weights[np.argsort(pixels)]) <= 1e-9).all()
