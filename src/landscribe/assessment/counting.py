"""Counts of compared pixels: the confusion matrix, and the parts of it that are kept apart."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from landscribe.assessment.blocks import BlockCounter, BlockCounts
from landscribe.assessment.calibration import Calibration, Probabilities, ProbabilitiesOnMap
from landscribe.assessment.edges import EdgeCounts
from landscribe.assessment.regions import Regions, RegionsOnMap
from landscribe.confusion import Confusion
from landscribe.geo.classes import Classes
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Raster


@dataclass(frozen=True, eq=False)
class PixelCounts:
    """Compared pixels of one or more maps. Adding merges maps."""

    confusion: Confusion
    blocks: BlockCounts | None = None
    """The same pixels by block; None for points."""
    groups: dict[str, Confusion] = field(default_factory=dict)
    """The pixels of regions, else of groups of scenes, by name."""
    edges: EdgeCounts | None = None
    """The pixels by distance to an edge, if that is counted."""
    calibration: Calibration | None = None
    """The pixels by the probabilities of their classes, if there are any."""

    def __add__(self, other: "PixelCounts") -> "PixelCounts":
        assert (self.blocks is None) == (other.blocks is None)
        blocks = None if self.blocks is None or other.blocks is None else self.blocks + other.blocks
        edges = None if self.edges is None or other.edges is None else self.edges + other.edges
        calibration = self.calibration or other.calibration
        if self.calibration is not None and other.calibration is not None:
            calibration = self.calibration + other.calibration
        groups = _added(self.groups, other.groups)
        return PixelCounts(self.confusion + other.confusion, blocks, groups, edges, calibration)


def pooled(counts: Iterable[PixelCounts]) -> PixelCounts:
    """The sum of at least one."""
    first, *others = counts
    return sum(others, start=first)


@dataclass(frozen=True)
class Counting:
    """Which parts of the compared pixels are kept apart."""

    block_size: int | None = None
    """Side of blocks in pixels; None as `blocks.default_side`."""

    regions: Regions | None = None
    edge_tolerance: float | None = None
    """In pixels, up to which edges agree; None if edges are not compared."""
    probabilities: Probabilities | None = None

    def on(self, mapped: Raster, classes: Classes) -> "PixelCounter":
        """A counter for the pixels of a map."""
        regions = None if self.regions is None else self.regions.on(mapped)
        probabilities = None if self.probabilities is None else self.probabilities.on(mapped, classes)
        return PixelCounter(classes, BlockCounter(classes, mapped.grid, self.block_size), regions, probabilities)


class PixelCounter:
    """Counts the pixels of one map, window by window."""

    def __init__(
        self,
        classes: Classes,
        blocks: BlockCounter,
        regions: RegionsOnMap | None,
        probabilities: ProbabilitiesOnMap | None,
    ) -> None:
        """Count by blocks and, if there are any, by regions and probabilities."""
        self._confusion, self._blocks = Confusion.zeros(classes), blocks
        self._regions, self._by_region = regions, dict[str, Confusion]()
        self._probabilities = probabilities
        self._calibration: Calibration | None = None

    def add(self, window: Window, reference: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> Confusion:
        """Count the pixels of a window, and return their confusion; arguments as of `BlockCounter.add`."""
        confusion = self._blocks.add(window, reference, predicted)
        self._confusion += confusion
        if self._regions is not None:
            found = self._regions.confusions(window, confusion.classes, reference, predicted)
            self._by_region = _added(self._by_region, found)
        if self._probabilities is not None:
            for part in self._probabilities.calibrations(window, reference, predicted):
                self._calibration = part if self._calibration is None else self._calibration + part
        return confusion

    @property
    def counts(self) -> PixelCounts:
        """The counts of all windows so far."""
        return PixelCounts(self._confusion, self._blocks.blocks, self._by_region, calibration=self._calibration)


def _added(groups: dict[str, Confusion], others: dict[str, Confusion]) -> dict[str, Confusion]:
    """The groups of both, in order of their first appearance."""
    sums = dict(groups)
    for name, confusion in others.items():
        sums[name] = sums[name] + confusion if name in sums else confusion
    return sums
