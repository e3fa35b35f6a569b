"""Audit: are the chips of different splits separate, in space and in their pixels?

Leakage from train to test makes accuracy too high (Kapoor & Narayanan 2023, "Leakage and the reproducibility crisis in
machine-learning-based science", Patterns 4, doi:10.1016/j.patter.2023.100804).
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from landscribe.data.chips.chips import Chips
from landscribe.data.splits.duplicates import Duplicate, duplicates
from landscribe.data.splits.footprints import (
    Footprints,
    chip_footprints,
    chip_outlines,
    chips_between_crss,
    nearest_pairs,
    scene_grids,
)
from landscribe.data.splits.ground import GroundOutlines
from landscribe.data.splits.spec import default_gap
from landscribe.errors import counted
from landscribe.geo.grid import Grid
from landscribe.texts import length_text

# Scenes that lie side by side may overlap by rounding: half a pixel is no overlap.
_MIN_OVERLAP_PX = 0.5
# The split keeps its gap in pixels of one scene. A pixel of another UTM zone is up to 1 % smaller or larger.
_PIXELS_DIFFER = 0.01
_EXAMPLES = 3


@dataclass(frozen=True)
class Distance:
    """The smallest distance between chips of two splits."""

    splits: tuple[str, str]
    pixels: float | None
    """In one CRS along the farther axis, and negative if chips overlap; between CRSs the shortest on the ground, in
    pixels of the two chips, and 0 if they overlap. None if it is unknown: no two chips share a scene, or have
    positions on Earth."""
    metres: float | None
    """The smallest distance in metres; None if the pixel size is unknown."""
    chips: tuple[str, str] | None
    """Names of the two nearest chips."""
    overlaps: int
    """Pairs of chips that overlap, in scenes of one CRS."""
    between_crss: bool = False
    """The two nearest chips lie in scenes of different CRSs."""


@dataclass(frozen=True)
class GroundOverlap:
    """Chips of two splits that overlap on the ground, in scenes of different CRSs."""

    splits: tuple[str, str]
    chips: tuple[str, str]
    """Names of the first two."""
    pairs: int
    """Pairs of chips that overlap."""


@dataclass(frozen=True)
class Audit:
    """Distances and duplicates between the splits of a chips folder."""

    chips: dict[str, int]
    """Number of chips by split."""
    size: int
    """Side of a chip in pixels."""
    distances: tuple[Distance, ...]
    between_crss: tuple[GroundOverlap, ...]
    """Overlaps between scenes of different CRSs."""
    duplicates: tuple[Duplicate, ...]
    warnings: tuple[str, ...]
    """Checks that were not possible, and why."""

    def as_dict(self) -> dict[str, Any]:
        """All fields, as JSON types."""
        return asdict(self)

    def findings(self) -> Iterator[tuple[Literal["error", "warning", "note"], str]]:
        """Severity and text of each finding: leakage is an error, chips too near to each other a warning."""
        yield "note", "chips by split: " + ", ".join(f"{name} {count}" for name, count in self.chips.items()) + "."
        if sum(name in ("train", "val", "test") for name in self.chips) < 2:
            yield "warning", "all chips are in one split, nothing is held out. Chip again with val and test above 0."
        overlapping = {overlap.splits for overlap in self.between_crss}
        for distance in self.distances:
            if distance.overlaps or distance.splits not in overlapping:
                yield _distance_finding(distance, self.size)
        for overlap in self.between_crss:
            yield "error", _overlap_text(overlap)
        yield from _duplicate_findings(self.duplicates)
        if not self.duplicates:
            yield "note", "no chip duplicates a chip of another split."
        yield from (("warning", warning) for warning in self.warnings)


def audit(chips: Chips) -> Audit:
    """Measure distances between splits, and search for chips that duplicate a chip of another split.

    Distances are between chips of the same scene, of scenes with the same CRS, and on the ground between scenes of
    different CRSs. Duplicates are found by their pixels, wherever they are.
    """
    grids, warnings = scene_grids(chips)
    of_one_crs, between = _between_splits(chips, grids)
    outlines = chip_outlines(chips, grids)
    distances = of_one_crs
    if outlines is not None:
        distances = tuple(_with_other_crss(distance, chips, grids, outlines) for distance in of_one_crs)
    splits = chips.splits
    counts = {name: int((splits == name).sum()) for name in ("train", "val", "test", "gap")}
    present = {name: count for name, count in counts.items() if count}
    return Audit(present, chips.metadata.size, distances, between, tuple(duplicates(chips)), tuple(warnings))


def overlapping_pairs(chips: Chips, grids: dict[str, Grid]) -> int:
    """How many pairs of chips of different splits overlap; much faster than the whole audit.

    Args:
        chips: of all splits.
        grids: of the scenes by name.
    """
    distances, between = _between_splits(chips, grids)
    return sum(distance.overlaps for distance in distances) + sum(overlap.pairs for overlap in between)


def _between_splits(chips: Chips, grids: dict[str, Grid]) -> tuple[tuple[Distance, ...], tuple[GroundOverlap, ...]]:
    """The distance of each two splits in scenes of one CRS, and their overlaps between scenes of different CRSs."""
    present = set(chips.splits.tolist())
    compared = list(combinations([name for name in ("train", "val", "test") if name in present], 2))
    footprints = chip_footprints(chips, grids)
    distances = tuple(_distance(chips, grids, both, footprints) for both in compared)
    overlaps = chips_between_crss(chips, grids, distance=-_MIN_OVERLAP_PX)
    return distances, tuple(found for both in compared if (found := _ground_overlap(chips, both, overlaps)))


def _distance(chips: Chips, grids: dict[str, Grid], splits: tuple[str, str], footprints: Footprints) -> Distance:
    """The nearest chips of two splits in scenes of one CRS."""
    of_chip, names = chips.splits, chips.ids
    first, second = (np.flatnonzero(of_chip == split) for split in splits)
    pairs, distances = nearest_pairs(footprints, first, second)
    if not len(pairs):
        return Distance(splits, None, None, None, 0)
    # Footprints are in pixels of the first scene of each CRS.
    scene = chips.scene_names[(footprints.groups == footprints.groups[pairs[0, 0]]).argmax()]
    pixel_size = grids[scene].pixel_size if scene in grids else chips.metadata.pixel_size
    # Adding 0 turns -0.0 into 0.0.
    pixels = round(float(distances[0]), 2) + 0.0
    metres = None if pixel_size is None else round(pixels * pixel_size, 3)
    nearest = names[pairs[0, 0]], names[pairs[0, 1]]
    return Distance(splits, pixels, metres, nearest, int((distances < -_MIN_OVERLAP_PX).sum()))


def _with_other_crss(distance: Distance, chips: Chips, grids: dict[str, Grid], outlines: GroundOutlines) -> Distance:
    """The distance of two splits in scenes of any CRSs, from that in scenes of one."""
    first, second = (np.flatnonzero(chips.splits == split) for split in distance.splits)
    nearest = outlines.nearest(first, second)
    if nearest is None:
        return distance
    a, b, apart = nearest
    pixels = round(2 * apart / sum(_pixel_size(chips, grids, index) for index in (a, b)), 2)
    metres = round(apart if distance.metres is None else min(apart, distance.metres), 3)
    if distance.pixels is not None and distance.pixels <= pixels:
        return replace(distance, metres=metres)
    return Distance(distance.splits, pixels, metres, (chips.ids[a], chips.ids[b]), distance.overlaps, between_crss=True)


def _pixel_size(chips: Chips, grids: dict[str, Grid], index: int) -> float:
    """Metres of a pixel of a chip with a position on Earth."""
    grid = grids[chips.scene_names[index]]
    pixel_size = grid[chips.windows[index] & grid.window].pixel_size
    assert pixel_size is not None
    return pixel_size


def _ground_overlap(chips: Chips, splits: tuple[str, str], pairs: NDArray[np.intp]) -> GroundOverlap | None:
    """The pairs of chips that are in the first and in the second split; None if there are none."""
    first, second = pairs.T
    between = pairs[(chips.splits[first] == splits[0]) & (chips.splits[second] == splits[1])]
    if not len(between):
        return None
    a, b = between[np.lexsort(between.T[::-1])[0]].tolist()
    return GroundOverlap(splits, (chips.ids[a], chips.ids[b]), len(between))


def _overlap_text(overlap: GroundOverlap) -> str:
    (first, second), (a, b) = overlap.splits, overlap.chips
    return (
        f"chips of {first} and {second} overlap on the ground in {counted(overlap.pairs, 'pair')} of scenes with "
        f"different CRSs, such as {a} and {b}. Expected no overlap between splits: accuracy would be too high. Chip "
        "again, and give scenes that overlap the same predefined split, or none."
    )


def _distance_finding(distance: Distance, size: int) -> tuple[Literal["error", "warning", "note"], str]:
    first, second = distance.splits
    if distance.pixels is None or distance.chips is None:
        return "note", (
            f"the distance between chips of {first} and {second} is unknown: no two share a scene, or have positions "
            "on Earth."
        )
    a, b = distance.chips
    if distance.overlaps:
        return "error", (
            f"chips of {first} and {second} overlap in {counted(distance.overlaps, 'pair')}, {a} and {b} by "
            f"{-distance.pixels:.0f} pixels. Expected no overlap between splits: accuracy would be too high. Chip "
            "again, with --split-by scene if scenes overlap."
        )
    metres = "" if distance.metres is None else f" ({length_text(distance.metres)})"
    gap = default_gap(size)
    if distance.pixels < gap * (1 - _PIXELS_DIFFER * distance.between_crss):
        how = "touch" if distance.pixels < 1 else f"are only {int(distance.pixels)} pixels{metres} apart"
        return "warning", (
            f"chips of {first} and {second} {how}: {a} and {b}. Expected at least a quarter of a chip ({gap} pixels), "
            f"since nearby pixels are similar. Chip again with --gap {gap}; predefined splits have no gap."
        )
    return "note", f"chips of {first} and {second} are at least {int(distance.pixels)} pixels{metres} apart."


def _duplicate_findings(all_pairs: tuple[Duplicate, ...]) -> Iterator[tuple[Literal["error"], str]]:
    """One error for each two splits with duplicates."""
    for splits in dict.fromkeys(duplicate.splits for duplicate in all_pairs):
        pairs = [duplicate for duplicate in all_pairs if duplicate.splits == splits]
        exact = sum(duplicate.exact for duplicate in pairs)
        examples = ", ".join(
            f"{' and '.join(duplicate.chips)} (correlation {duplicate.similarity:.2f})"
            for duplicate in pairs[:_EXAMPLES]
        )
        yield (
            "error",
            (
                f"chips of {splits[0]} and {splits[1]} are duplicates in {counted(len(pairs), 'pair')}, {exact} of "
                f"them pixel by pixel: {examples}{', …' if len(pairs) > _EXAMPLES else ''}. Expected no "
                "duplicates between splits: accuracy would be too high. Leave the duplicates "
                "out, or put them into one split."
            ),
        )
