"""Assess a class map against a reference: the confusion matrix over pixels, points or chips."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe import progress
from landscribe.agreement import Measure
from landscribe.assessment.blocks import Bootstrap
from landscribe.assessment.calibration import Calibration
from landscribe.assessment.counting import Counting, PixelCounts, count_strips, mapped_indices, pooled
from landscribe.assessment.edges import EdgeCounts
from landscribe.confusion import Confusion
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.data.scenes.label_formats import LabelSource
from landscribe.data.splits.footprints import Footprints, earlier_overlaps
from landscribe.errors import GridError, LabelError, counted, listed
from landscribe.geo.classes import IGNORE, Classes
from landscribe.geo.features import Features
from landscribe.geo.grid import Window
from landscribe.geo.rasters.metadata import stem
from landscribe.geo.rasters.raster import Raster
from landscribe.maps.class_map import CAVEAT_OF_LABELS, caveat_of_split, match_maps, warn_of_overlaps
from landscribe.outputs import write_json

log = logging.getLogger(__name__)

MOST_APART = 40
"""Scenes or maps up to which each has measures of its own."""


@dataclass(frozen=True, eq=False)
class Assessment:
    """A confusion matrix, and the maps and reference that it was counted on."""

    confusion: Confusion
    maps: tuple[str, ...]
    reference: str
    """Name of the reference: a file or a chips folder."""
    split: str | None = None
    """Split of the chips that were compared, if the reference is chips."""
    groups: dict[str, Confusion] = field(default_factory=dict)
    """Confusion matrix of each region, else of each group of scenes, else of each of several scenes or maps, by name.
    Law: those of scenes and maps sum to `confusion`; those of groups too, if every scene has one."""
    bootstrap: Bootstrap | None = None
    """Intervals from resamples of spatial blocks; None for points."""
    edges: EdgeCounts | None = None
    """Accuracy by distance to an edge between classes, and agreement of edges, if they were compared."""
    calibration: Calibration | None = None
    """Agreement of the probabilities with the reference, if they were compared."""
    group_bootstraps: dict[str, Bootstrap] = field(default_factory=dict)
    """Intervals of each group, by name."""
    trained_splits: tuple[str, ...] = ()
    """Splits of the compared chips' folder that models of the maps were trained on, as the maps say it."""
    scenes: int | None = None
    """Scenes of the compared chips; None for another reference."""
    is_of_training: bool = False
    """True if models of the maps were trained on labels of the reference, a file, as the chips of their run say it."""

    @property
    def intervals(self) -> dict[str, tuple[Any, Any]]:
        """(lower, upper) by measure, arrays (K,) of measures by class; empty for points and with too few blocks."""
        return {} if self.bootstrap is None else self.bootstrap.intervals

    @property
    def caveat(self) -> str:
        """Why the measures are too high for new areas: the network was trained on the reference, or it chose the epoch.

        Empty if they are not known to be.
        """
        if self.split is not None:
            return caveat_of_split(self.split, self.trained_splits)
        return CAVEAT_OF_LABELS if self.is_of_training else ""

    @property
    def classes(self) -> Classes:
        """The class table of map and reference."""
        return self.confusion.classes

    @property
    def f1(self) -> Measure:
        """F1 by class."""
        return self.confusion.f1

    @property
    def iou(self) -> Measure:
        """Intersection over union by class."""
        return self.confusion.iou

    @property
    def users_accuracy(self) -> Measure:
        """User's accuracy (precision) by class."""
        return self.confusion.users_accuracy

    @property
    def producers_accuracy(self) -> Measure:
        """Producer's accuracy (recall) by class."""
        return self.confusion.producers_accuracy

    @property
    def pixels(self) -> int:
        """Assessed pixels or points."""
        return self.confusion.total

    @property
    def overall_accuracy(self) -> float:
        """Share of assessed pixels whose class is correct, 0 to 1."""
        return self.confusion.overall_accuracy

    @property
    def mean_f1(self) -> float:
        """Mean F1 of the classes."""
        return self.confusion.mean_f1

    def __repr__(self) -> str:
        return (
            f"Assessment(overall_accuracy={self.overall_accuracy:.3f}, mean_f1={self.mean_f1:.3f}, "
            f"pixels={self.pixels}, classes={len(self.confusion.classes)}, reference={self.reference!r}"
            + (f", caveat={self.caveat!r})" if self.caveat else ")")
        )

    def as_dict(self) -> dict[str, Any]:
        """All measures as plain values, for JSON."""
        counted_on: dict[str, Any] = {"maps": list(self.maps), "reference": self.reference, "split": self.split}
        if self.split is not None:
            trained = list(self.trained_splits)
            counted_on |= {"trained_splits": trained, "caveat": self.caveat, "scenes": self.scenes}
        elif self.caveat:
            counted_on["caveat"] = self.caveat
        groups = {name: self._group_summary(name) for name in self.groups}
        intervals = None if self.bootstrap is None else self.bootstrap.as_dict(self.classes)
        return (
            counted_on
            | self.confusion.as_dict()
            | ({"intervals": intervals} if intervals else {})
            | ({} if self.edges is None else self.edges.as_dict())
            | ({} if self.calibration is None else {"calibration": self.calibration.as_dict(self.classes)})
            | ({"groups": groups} if groups else {})
        )

    def _group_summary(self, name: str) -> dict[str, Any]:
        intervals = self.group_bootstraps.get(name)
        return self.groups[name].as_dict() | (
            {} if intervals is None else {"intervals": intervals.as_dict(self.classes)}
        )

    def save(self, path: Path) -> None:
        """Write the summary as JSON, atomically."""
        write_json(path, self.as_dict())


def assess_labels(
    mapped: Raster, labels: LabelSource, classes: Classes, counting: Counting | None = None
) -> PixelCounts:
    """Compare a map with polygons or a label raster, over all pixels that are valid in the map and labelled.

    Args:
        mapped: a class map.
        labels: labels on its grid.
        classes: class table of both.
        counting: which parts are counted apart, and where strips are counted.

    Raises:
        LabelError: there is no such pixel.
    """
    counts = count_strips(mapped, labels, classes, counting or Counting())
    _require_counted(counts.confusion, mapped.paths[0])
    return counts


def assess_points(maps: Sequence[Raster], points: Features, values: NDArray[np.uint8], classes: Classes) -> PixelCounts:
    """Compare maps with points, each with the pixel that it lies in. Points outside all maps are left out.

    Args:
        maps: class maps; where they overlap, a point is compared with the first that has a class there.
        points: points in any CRS.
        values: (points,) class value of each point.
        classes: class table of both maps and points.

    Raises:
        LabelError: no point lies on a valid pixel of a map.
    """
    inside, predicted = np.zeros(len(points), np.bool_), np.full(len(points), IGNORE, np.uint8)
    for mapped in maps:
        rows_cols = points.on(mapped.grid, mapped.paths[0]).pixel_rows_cols(mapped.grid)
        here = np.all((rows_cols >= 0) & (rows_cols < np.array(mapped.grid.shape)), axis=1)
        for index in np.flatnonzero(here & (predicted == IGNORE)).tolist():
            row, col = rows_cols[index].tolist()
            predicted[index] = mapped_indices(mapped, Window(row, col, 1, 1), classes)[0, 0]
        inside |= here
    names = _names(maps)
    if not inside.any():
        raise LabelError(
            f"{points.name}: none of {counted(len(points), 'point')} lies on {names}. Check files and CRS."
        )
    reference = classes.to_indices(values)
    _report_points_left_out(points, reference, predicted, inside, names, classes)
    confusion = Confusion.of(classes, reference[inside], predicted[inside])
    _require_counted(confusion, names)
    return PixelCounts(confusion)


def _report_points_left_out(
    points: Features,
    reference: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    inside: NDArray[np.bool_],
    maps: str,
    classes: Classes,
) -> None:
    """Log how many points of which classes are not compared, and why."""
    unmapped = np.flatnonzero(predicted == IGNORE)
    if not unmapped.size:
        return
    counts = np.bincount(reference[unmapped], minlength=256)
    named = ", ".join(f"{entry.name} {counts[index]}" for index, entry in enumerate(classes) if counts[index])
    log.warning(
        "%d of %d points of %s are left out: %d lie outside %s, %d on its nodata%s",
        unmapped.size, len(points), points.name, (~inside).sum(), maps, inside[unmapped].sum(),
        f" ({named})" if named else "",
    )  # fmt: skip


def assess_chips(maps: Sequence[Raster], chips: Chips, counting: Counting | None = None) -> PixelCounts:
    """Compare maps with the masks of chips. Where chips overlap, each pixel counts once.

    Args:
        maps: class maps, each aligned to the grid of a scene of the chips.
        chips: the chips of one split, at least one.
        counting: which parts are counted apart; blocks are those of each scene's map.

    Returns:
        Counts with those of each region, else for each group of scenes, else for each of several scenes;
        scenes without a group count in the whole only.

    Raises:
        GridError: a scene has no map.
    """
    reader = ChipReader(chips)
    map_of = _maps_by_scene(maps, chips)
    counting = counting or Counting()
    counters = {scene: counting.on(map_of[scene], chips.classes) for scene in dict.fromkeys(chips.scene_names.tolist())}
    by_scene = {scene: counter.zeros for scene, counter in counters.items()}
    windows, scenes = chips.windows, chips.scene_names
    scene_index = np.unique(scenes, return_inverse=True)[1].reshape(-1)
    overlaps = earlier_overlaps(Footprints.of_windows(windows, scene_index))
    with progress.task("assessing", len(chips)) as advance:
        for index, scene in enumerate(scenes.tolist()):
            window = windows[index]
            reference = chips.classes.to_indices(reader.read(index)[2])
            for earlier in overlaps[index].tolist():
                reference[(windows[earlier] & window).relative_to(window).slices] = IGNORE
            predicted = mapped_indices(map_of[scene], window, chips.classes)
            by_scene[scene] += counters[scene].count(window, reference, predicted)
            advance()
    counts = pooled(by_scene.values())
    _require_counted(counts.confusion, _names(maps))
    return replace(counts, groups=counts.groups or _by_group(chips, by_scene))


def _by_group(chips: Chips, by_scene: dict[str, PixelCounts]) -> dict[str, PixelCounts]:
    """The counts of each group of scenes; of each scene where none names a group, unless they are many."""
    scenes_of: dict[str, list[str]] = {}
    for scene, group in dict(zip(chips.scene_names.tolist(), chips.group_names.tolist(), strict=True)).items():
        if group:
            scenes_of.setdefault(group, []).append(scene)
    if scenes_of:
        return {group: pooled(by_scene[scene] for scene in scenes) for group, scenes in scenes_of.items()}
    return by_scene if 1 < len(by_scene) <= MOST_APART else {}


def _maps_by_scene(maps: Sequence[Raster], chips: Chips) -> dict[str, Raster]:
    map_of = match_maps(maps, chips.images())
    for scene in dict.fromkeys(chips.scene_names.tolist()):
        if scene not in map_of:
            raise GridError(
                f"no map ({_names(maps)}) is aligned to the grid of scene '{scene}'. Map that scene and give its map "
                "too."
            )
    return map_of


def _names(maps: Sequence[Raster]) -> str:
    return listed([mapped.paths[0] for mapped in maps])


def _require_counted(confusion: Confusion, name: str) -> None:
    if not confusion.total:
        raise LabelError(
            f"{name}: no valid pixel of the map is labelled in the reference. Check extents, CRS and nodata."
        )


def sum_of_covered(maps: Sequence[Raster], assessments: Sequence[Callable[[], PixelCounts]]) -> PixelCounts:
    """The sum over the maps that the reference covers, each of them a group; the others are named in a warning.

    Raises:
        LabelError: it covers none.
    """
    by_map, errors = {}, []
    for mapped, assess in zip(maps, assessments, strict=True):
        try:
            by_map[mapped.paths[0]] = assess()
        except LabelError as error:
            errors.append(error)
    if not by_map:
        raise errors[0]
    if errors:
        log.warning("left out: %d of %d maps: %s", len(errors), len(maps), errors[0])
    warn_of_overlaps([mapped for mapped in maps if mapped.paths[0] in by_map])
    return pooled_by_map(by_map)


def pooled_by_map(by_map: dict[str, PixelCounts]) -> PixelCounts:
    """The sum over maps, by their paths; each is a group with its name, or with its path where two have one name."""
    counts = pooled(by_map.values())
    if counts.groups or not 1 < len(by_map) <= MOST_APART:
        return counts
    names = [stem(path) for path in by_map]
    names = names if len(set(names)) == len(names) else list(by_map)
    return replace(counts, groups=dict(zip(names, by_map.values(), strict=True)))
