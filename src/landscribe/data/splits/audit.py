"""Audit: do the splits of a chips folder keep apart what is trained on from what is held out?

What is known of the test chips from training makes their measures too good (Kapoor & Narayanan 2023, "Leakage and
the reproducibility crisis in machine-learning-based science", Patterns 4, doi:10.1016/j.patter.2023.100804).
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from landscribe.data.chips.chips import Chips
from landscribe.data.splits.duplicates import Duplicate, duplicates
from landscribe.data.splits.footprints import places

# A smaller overlap than this, in pixels, is a matter of rounding between scenes that lie side by side.
_NO_OVERLAP = 0.5
_ROWS_AT_ONCE = 256
_EXAMPLES = 3


@dataclass(frozen=True)
class Distance:
    """How near the chips of two splits come to each other on the ground."""

    splits: tuple[str, str]
    pixels: float | None
    """Along the farther axis; negative where chips overlap, None where none share a scene or a CRS."""
    metres: float | None
    """The same on the ground, if the size of a pixel is known."""
    chips: tuple[str, str] | None
    """The two that are nearest."""
    overlaps: int
    """Pairs of chips that share ground."""


@dataclass(frozen=True)
class Audit:
    """What an audit of a chips folder found."""

    chips: dict[str, int]
    """How many, by split."""
    size: int
    """Side of a chip in pixels."""
    distances: tuple[Distance, ...]
    duplicates: tuple[Duplicate, ...]
    remarks: tuple[str, ...]
    """What could not be looked at."""

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return asdict(self)

    def findings(self) -> Iterator[tuple[Literal["error", "warning", "note"], str]]:
        """In words: leaks are errors, chips that come too near warnings; the rest is only said."""
        yield "note", "chips by split: " + ", ".join(f"{name} {count}" for name, count in self.chips.items()) + "."
        if sum(name in ("train", "val", "test") for name in self.chips) < 2:
            yield "warning", "the chips are of one split only, so that nothing is held out. Cut them with val and test."
        for distance in self.distances:
            yield _distance_in_words(distance, self.size)
        yield from _duplicates_in_words(self.duplicates)
        if not self.duplicates:
            yield "note", "no chip shows the same picture as a chip of another split."
        yield from (("warning", remark) for remark in self.remarks)


def audit(chips: Chips) -> Audit:
    """Measure distances between splits, and look for chips of one that are copies of chips of another.

    Chips are compared by place within their scene, and across scenes that have the same CRS; and by their pixels,
    wherever they lie.
    """
    frames, boxes, remarks = places(chips)
    splits = chips.table["split"].to_numpy()
    counts = {name: int((splits == name).sum()) for name in ("train", "val", "test", "gap")}
    distances = tuple(
        _distance(chips, (first, second), frames, boxes)
        for first, second in combinations([name for name in ("train", "val", "test") if counts[name]], 2)
    )
    here = {name: count for name, count in counts.items() if count}
    return Audit(here, chips.head.size, distances, tuple(duplicates(chips)), tuple(remarks))


def _distance(chips: Chips, pair: tuple[str, str], frames: NDArray[np.intp], boxes: NDArray[np.float64]) -> Distance:
    """The nearest two chips of two splits, frame by frame."""
    splits, names = chips.table["split"].to_numpy(), chips.table["chip"].tolist()
    nearest, who, overlaps = math.inf, None, 0
    for frame in np.unique(frames).tolist():
        ones, others = (np.flatnonzero((frames == frame) & (splits == split)) for split in pair)
        for start in range(0, len(ones) if len(others) else 0, _ROWS_AT_ONCE):
            some = ones[start : start + _ROWS_AT_ONCE]
            top, left, bottom, right = boxes[some].T[:, :, None]
            its_top, its_left, its_bottom, its_right = boxes[others].T[:, None, :]
            rows, cols = np.maximum(its_top - bottom, top - its_bottom), np.maximum(its_left - right, left - its_right)
            apart = np.maximum(rows, cols)
            overlaps += int((apart < -_NO_OVERLAP).sum())
            row, col = np.unravel_index(int(apart.argmin()), apart.shape)
            if apart[row, col] < nearest:
                nearest, who = float(apart[row, col]), (names[some[row]], names[others[col]])
    if who is None:
        return Distance(pair, None, None, None, 0)
    pixels, size = round(nearest, 2) + 0.0, chips.head.pixel_size
    return Distance(pair, pixels, None if size is None else round(pixels * size, 3), who, overlaps)


def _distance_in_words(distance: Distance, size: int) -> tuple[Literal["error", "warning", "note"], str]:
    first, second = distance.splits
    if distance.pixels is None or distance.chips is None:
        return "note", f"no chip of {first} shares a scene or a CRS with one of {second}."
    one, other = distance.chips
    if distance.overlaps:
        return "error", (
            f"{distance.overlaps} pairs of chips of {first} and {second} overlap, {one} and {other} by "
            f"{-distance.pixels:.0f} pixels. Chips of different splits must share no ground: the measures would be "
            "too good. Cut the chips anew, with --split-by scene where scenes overlap."
        )
    metres = "" if distance.metres is None else f" ({_length(distance.metres)})"
    if distance.pixels < max(1, size // 4):
        how = "touch" if distance.pixels < 1 else f"are only {distance.pixels:.0f} pixels{metres} apart"
        return "warning", (
            f"chips of {first} and {second} {how}: {one} and {other}. A quarter of a chip ({max(1, size // 4)} pixels) "
            "or more was expected, since neighbouring pixels are alike. Cut the chips anew with a gap."
        )
    return "note", f"chips of {first} and {second} are at least {distance.pixels:.0f} pixels{metres} apart."


def _length(metres: float) -> str:
    return f"{metres:.3g} m" if metres < 1000 else f"{metres / 1000:.3g} km"


def _duplicates_in_words(found: tuple[Duplicate, ...]) -> Iterator[tuple[Literal["error"], str]]:
    """One line for each two splits."""
    for pair in dict.fromkeys(duplicate.splits for duplicate in found):
        some = [duplicate for duplicate in found if duplicate.splits == pair]
        exact = sum(duplicate.exact for duplicate in some)
        shown = ", ".join(
            f"{' and '.join(duplicate.chips)} ({duplicate.likeness:.2f})" for duplicate in some[:_EXAMPLES]
        )
        yield (
            "error",
            (
                f"{len(some)} pairs of chips of {pair[0]} and {pair[1]} show the same picture, {exact} of them pixel "
                f"by pixel: {shown}{', …' if len(some) > _EXAMPLES else ''}. Chips of different splits must differ: "
                "the measures would be too good. Leave the copies out, or put them into one split."
            ),
        )
