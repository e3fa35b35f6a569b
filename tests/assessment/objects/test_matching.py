"""Matches: as many pairs as possible, of these the largest total IoU; and the polygons that overlap."""

import itertools

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from landscribe.assessment.objects.matching import Pairs, dissolved, match, match_by_score
from worlds import pixel_box

boxes = st.lists(
    st.tuples(*(st.integers(low, high) for low, high in ((0, 9), (0, 9), (1, 6), (1, 6)))).map(
        lambda box: pixel_box(*box)
    ),
    min_size=1,
    max_size=6,
).map(lambda polygons: np.array(polygons, dtype=object))


@st.composite
def candidates(draw):
    """Pairs of up to five by five polygons, and an IoU of each."""
    grid = draw(st.lists(st.lists(st.integers(0, 10), min_size=5, max_size=5), min_size=5, max_size=5))
    iou = np.array(grid) / 10
    first, second = np.nonzero(iou)
    return Pairs(first, second, iou[first, second]), iou[first, second]


@given(candidates())
def test_matches_are_the_best_of_all_choices(drawn):
    pairs, iou = drawn
    table = np.zeros((5, 5))
    table[pairs.first, pairs.second] = iou
    choices = (table[range(5), list(order)] for order in itertools.permutations(range(5)))
    best = max((int((chosen > 0).sum()), round(float(chosen.sum()), 9)) for chosen in choices)
    chosen = match(pairs, iou)
    assert (chosen.size, round(float(iou[chosen].sum()), 9)) == best
    for side in (pairs.first[chosen], pairs.second[chosen]):
        assert np.unique(side).size == side.size


@given(candidates())
def test_matches_of_many_groups_are_those_of_each(drawn):
    pairs, iou = drawn
    copies, shift = 60, np.repeat(5 * np.arange(60), len(iou))
    many = Pairs(np.tile(pairs.first, copies) + shift, np.tile(pairs.second, copies) + shift, np.tile(iou, copies))
    one, all_copies = match(pairs, iou), match(many, np.tile(iou, copies))
    assert all_copies.size == copies * one.size
    assert np.tile(iou, copies)[all_copies].sum() == pytest.approx(copies * iou[one].sum())


@given(candidates(), st.permutations(range(5)))
def test_matches_by_score_are_those_of_a_loop_over_falling_scores(drawn, scores):
    pairs, iou = drawn
    table = np.zeros((5, 5))
    table[pairs.first, pairs.second] = iou
    expected, free = {}, set(range(5))
    for first in np.argsort(-np.array(scores)).tolist():
        partner = max(sorted(free, reverse=True), key=lambda second, row=first: table[row, second], default=None)
        if partner is not None and table[first, partner] > 0:
            expected[first] = partner
            free.remove(partner)
    chosen = match_by_score(pairs, iou, np.array(scores, float))
    assert dict(zip(pairs.first[chosen].tolist(), pairs.second[chosen].tolist(), strict=True)) == expected


@given(boxes, boxes)
def test_pairs_are_all_that_share_area(first, second):
    pairs = Pairs.overlapping(first, second)
    areas = shapely.area(shapely.intersection(first[:, None], second[None, :]))
    rows, cols = np.nonzero(areas)
    assert (pairs.first.tolist(), pairs.second.tolist()) == (rows.tolist(), cols.tolist())
    assert pairs.areas.tolist() == areas[rows, cols].tolist()
    iou = pairs.iou(shapely.area(first), shapely.area(second))
    unions = shapely.area(shapely.union(first[rows], second[cols]))
    assert iou == pytest.approx(areas[rows, cols] / unions)


@given(boxes)
def test_dissolved_polygons_cover_the_same_and_do_not_overlap(polygons):
    united, first, is_union = dissolved(polygons)
    assert shapely.area(united).sum() == pytest.approx(shapely.union_all(polygons).area)
    assert not Pairs.overlapping(united, united).first.size
    assert shapely.covers(united, polygons[first]).all()
    assert shapely.equals(united, polygons[first])[~is_union].all()


def test_neighbours_that_share_an_edge_stay_apart():
    row = np.array([pixel_box(0, col, 4, 4) for col in (0, 4, 8)], dtype=object)
    united, _, is_union = dissolved(row)
    assert (len(united), is_union.tolist()) == (3, [False] * 3)
