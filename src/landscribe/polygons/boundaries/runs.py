"""Runs: lists of many lengths, one after the other in one array.

Run i of `items` is `items[offsets[i]:offsets[i + 1]]`, as in CSR matrices and lists of Arrow.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def offsets_of(counts: NDArray[np.integer] | NDArray[np.bool_] | list[int]) -> Ints:
    """Where each run begins, and at the end where the last one ends, from the length of each.

    >>> offsets_of([3, 0, 2])
    array([0, 3, 3, 5])
    """
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def take_runs(items: NDArray[Any], start: Ints, runs: Ints) -> tuple[NDArray[Any], Ints]:
    """The runs `items[start[i]:start[i + 1]]` for i in `runs`, one after the other, and their starts."""
    indices, own = spans(start[runs], start[runs + 1])
    return items[indices], own


def spans(first: Ints, stop: Ints) -> tuple[Ints, Ints]:
    """The whole numbers from first[i] to stop[i] - 1 for each i, one after the other, and their starts.

    >>> spans(np.array([5, 2]), np.array([8, 4]))
    (array([5, 6, 7, 2, 3]), array([0, 3, 5]))
    """
    counts = stop - first
    start = offsets_of(counts)
    return np.arange(start[-1]) + np.repeat(first - start[:-1], counts), start
