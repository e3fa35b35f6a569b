"""Pairs of overlapping polygons, and one-to-one matches among them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

from landscribe import progress

Indices = NDArray[np.intp]
Floats = NDArray[np.float64]

_BLOCK = 4096
"""Polygons whose candidates are intersected at once."""
_PAIRS = 2**16
"""Pairs that are intersected at once."""
_GROUP = 500
"""Pairs that are assigned at once, or those of one group of polygons that overlap."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of polygons of two arrays that share area, ascending by first, then second."""

    first: Indices
    second: Indices
    areas: Floats
    """Shared area of each pair, in square units of the CRS."""

    @classmethod
    def overlapping(cls, first: NDArray[np.object_], second: NDArray[np.object_]) -> "Pairs":
        """The pairs of a polygon of each array that share area. Memory is bounded by the number of pairs.

        Of one array with itself, each pair is there once, and no polygon with itself.
        """
        tree, blocks = shapely.STRtree(second), range(0, len(first), _BLOCK)
        parts = [(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0))]
        with progress.task("overlapping polygons", len(blocks), least=8) as advance:
            for start in blocks:
                row, near = tree.query(first[start : start + _BLOCK], predicate="intersects")
                row = row + start
                if second is first:
                    row, near = row[row < near], near[row < near]
                for begin in range(0, len(row), _PAIRS):
                    a, b = row[begin : begin + _PAIRS], near[begin : begin + _PAIRS]
                    areas = shapely.area(shapely.intersection(first[a], second[b]))
                    shared = areas > 0
                    parts.append((a[shared], b[shared], areas[shared]))
                advance()
        a, b, areas = (np.concatenate(each) for each in zip(*parts, strict=True))
        order = np.lexsort((b, a))
        return cls(a[order], b[order], areas[order])

    def take(self, chosen: NDArray[Any]) -> "Pairs":
        """The pairs with these indices, or where a mask is True."""
        return Pairs(self.first[chosen], self.second[chosen], self.areas[chosen])

    def iou(self, first: Floats, second: Floats) -> Floats:
        """Intersection over union of each pair, 0 to 1.

        Args:
            first: areas of the polygons of the first array.
            second: areas of the second.
        """
        union = first[self.first] + second[self.second] - self.areas
        return np.minimum(self.areas / union, 1)


def match(pairs: Pairs, iou: Floats) -> Indices:
    """Choose pairs so that each polygon is in at most one: as many as possible, of these the largest total IoU.

    Where the polygons of each side do not overlap, at most one pair of a polygon has an IoU above 0.5, and this is it
    (Kirillov et al. 2019, "Panoptic Segmentation", CVPR, arXiv:1801.00868). Law: the number of pairs and their total
    IoU depend neither on the order of polygons nor on which side is first.

    Args:
        pairs: candidates.
        iou: of each candidate, above 0.

    Returns:
        Indices of the chosen pairs, ascending.
    """
    alone = _is_only_pair(pairs)
    groups = _independent(pairs, np.flatnonzero(~alone))
    assigned = [group[_assigned(pairs.take(group), iou[group])] for group in groups]
    return np.sort(np.concatenate([np.flatnonzero(alone), *assigned]))


def _independent(pairs: Pairs, indices: Indices) -> list[Indices]:
    """Pairs in small groups whose polygons are in no other group: the time of an assignment grows with its square."""
    if not indices.size:
        return []
    first, row = np.unique(pairs.first[indices], return_inverse=True)
    second, col = np.unique(pairs.second[indices], return_inverse=True)
    count = len(first) + len(second)
    links = coo_matrix((np.ones(len(indices), bool), (row, len(first) + col)), shape=(count, count))
    component = connected_components(links, directed=False)[1][row]
    order = np.argsort(component, kind="stable")
    start = np.searchsorted(component[order], component[order])
    return np.split(indices[order], np.flatnonzero(np.diff(start // _GROUP)) + 1)


def _assigned(pairs: Pairs, iou: Floats) -> NDArray[np.bool_]:
    """True for the pairs of the best assignment."""
    first, row = np.unique(pairs.first, return_inverse=True)
    second, col = np.unique(pairs.second, return_inverse=True)
    # One more column for each row, so that every row has a partner: a row there is not matched. A pair weighs at
    # least 1 more than none, and IoUs decide among equally many pairs.
    rows = np.concatenate([row, np.arange(len(first))])
    cols = np.concatenate([col, len(second) + np.arange(len(first))])
    weights = np.concatenate([2 + iou / (len(first) + 1), np.ones(len(first))])
    graph = coo_matrix((weights, (rows, cols))).tocsr()
    partner = np.full(len(first), -1)
    matched_rows, matched_cols = min_weight_full_bipartite_matching(graph, maximize=True)
    partner[matched_rows] = matched_cols
    is_chosen: NDArray[np.bool_] = partner[row] == col
    return is_chosen


def match_by_score(pairs: Pairs, iou: Floats, scores: Floats) -> Indices:
    """Choose pairs as COCO does: from the highest score down, each polygon takes the free one of the highest IoU.

    Equal scores are taken in the order of the file; of equal IoUs the later partner, as pycocotools does
    (Lin et al. 2014, "Microsoft COCO", ECCV, arXiv:1405.0312).

    Args:
        pairs: candidates; the first polygon of each is the predicted one.
        iou: of each candidate.
        scores: of the predicted polygons.

    Returns:
        Indices of the chosen pairs, ascending.
    """
    alone = _is_only_pair(pairs)
    shared = np.flatnonzero(~alone)
    order = shared[np.lexsort((-pairs.second[shared], -iou[shared], pairs.first[shared], -scores[pairs.first[shared]]))]
    chosen, first_taken, second_taken = [], set[int](), set[int]()
    for index, first, second in zip(*(each.tolist() for each in (order, pairs.first[order], pairs.second[order])),
                                    strict=True):  # fmt: skip
        if first not in first_taken and second not in second_taken:
            chosen.append(index)
            first_taken.add(first)
            second_taken.add(second)
    return np.sort(np.concatenate([np.flatnonzero(alone), np.array(chosen, np.intp)]))


def _is_only_pair(pairs: Pairs) -> NDArray[np.bool_]:
    """True for pairs whose polygons are in no other."""
    if not pairs.first.size:
        return np.zeros(0, bool)
    return (np.bincount(pairs.first)[pairs.first] == 1) & (np.bincount(pairs.second)[pairs.second] == 1)


def dissolved(geometries: NDArray[np.object_]) -> tuple[NDArray[np.object_], Indices, NDArray[np.bool_]]:
    """Unite polygons that overlap one another, directly or through others.

    Returns:
        Polygons that do not overlap; for each the index of the first polygon that is part of it, and True if there are
        more.
    """
    pairs = Pairs.overlapping(geometries, geometries)
    links = coo_matrix((np.ones(len(pairs.first), bool), (pairs.first, pairs.second)), shape=(len(geometries),) * 2)
    component = connected_components(links, directed=False)[1]
    _, first, counts = np.unique(component, return_index=True, return_counts=True)
    united = geometries[first]
    members = np.split(np.argsort(component, kind="stable"), np.cumsum(counts)[:-1])
    for index in np.flatnonzero(counts > 1).tolist():
        united[index] = shapely.union_all(geometries[members[index]])
    return united, first, counts > 1
