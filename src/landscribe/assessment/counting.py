"""Counts of compared pixels, strip by strip: the confusion matrix, and the parts of it that are kept apart."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from landscribe import progress
from landscribe.assessment.blocks import BlockCounter, BlockCounts
from landscribe.assessment.calibration import Calibration, Probabilities, ProbabilitiesOnMap
from landscribe.assessment.edges import EdgeCounts, EdgeTolerance
from landscribe.assessment.regions import Regions, RegionsOnMap
from landscribe.confusion import Confusion
from landscribe.data.scenes.label_formats import LabelSource
from landscribe.errors import ClassError, RasterError, listed
from landscribe.executor import run_on_dask, run_units
from landscribe.geo.access import bounded_block_cache
from landscribe.geo.classes import Classes
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Raster
from landscribe.machine import cores
from landscribe.maps.class_map import class_values

_STRIP_PIXELS = 2**23
_MOST_PIXELS = 2**27
"""Of the strips that are in memory at once."""
_PART_PIXELS = 2**20
"""Of a strip that are counted at once: numbers of 64 bits then stay in the processor's cache."""
_PART_SIDE = 512
"""Parts are as wide as so many whole blocks of a file, so that none of the probabilities is decoded twice."""
_BLOCK_CACHE = 2**26
"""Bytes of decoded blocks. Each is read once, but at the edge of a strip."""


@dataclass(frozen=True, eq=False)
class PixelCounts:
    """Compared pixels. Adding merges parts of one map."""

    confusion: Confusion
    blocks: BlockCounts | None = None
    """The same pixels by block; None for points."""
    groups: dict[str, "PixelCounts"] = field(default_factory=dict)
    """The pixels of regions, else of groups of scenes, else of scenes or maps, by name."""
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
        groups = dict(self.groups)
        for name, own in other.groups.items():
            groups[name] = groups[name] + own if name in groups else own
        return PixelCounts(self.confusion + other.confusion, blocks, groups, edges, calibration)

    def numbered_from(self, first: int) -> "PixelCounts":
        """The same pixels with other numbers of their blocks, as `BlockCounts.numbered_from`."""
        blocks = None if self.blocks is None else self.blocks.numbered_from(first)
        groups = {name: own.numbered_from(first) for name, own in self.groups.items()}
        return replace(self, blocks=blocks, groups=groups)


def pooled(by_map: Iterable[PixelCounts]) -> PixelCounts:
    """The sum over at least one map. Blocks of different maps stay apart."""
    total, *others = by_map
    for own in others:
        total += own if total.blocks is None else own.numbered_from(int(total.blocks.index.max(initial=-1)) + 1)
    return total


@dataclass(frozen=True)
class Counting:
    """Which parts of the compared pixels are kept apart, and where strips are counted."""

    block_size: int | None = None
    """Side of blocks in pixels; None as `blocks.default_side`."""

    regions: Regions | None = None
    edge_tolerance: float | str | None = None
    """As of `AccuracySpec`; None if edges are not compared."""
    probabilities: Probabilities | None = None
    dask: str | None = None
    """As of `executor.run_on_dask`; None for threads of this process."""

    def on(self, mapped: Raster, classes: Classes) -> "PixelCounter":
        """A counter for the pixels of a map."""
        blocks = BlockCounter.of(classes, mapped.grid, self.block_size)
        regions = None if self.regions is None else self.regions.on(mapped)
        probabilities = None if self.probabilities is None else self.probabilities.on(mapped, classes)
        tolerance = None if self.edge_tolerance is None else EdgeTolerance.on(mapped, self.edge_tolerance)
        return PixelCounter(classes, blocks, regions, tolerance, probabilities)


@dataclass(frozen=True, eq=False)
class PixelCounter:
    """Counts the pixels of one map, window by window.

    Law: the sum of the counts does not depend on how the map is cut into windows.
    """

    classes: Classes
    blocks: BlockCounter
    regions: RegionsOnMap | None = None
    edge_tolerance: EdgeTolerance | None = None
    probabilities: ProbabilitiesOnMap | None = None

    @property
    def halo(self) -> int:
        """Pixels around a window that are read too."""
        return 0 if self.edge_tolerance is None else self.edge_tolerance.halo

    @property
    def zeros(self) -> PixelCounts:
        """No pixels, to which others are added."""
        edges = None if self.edge_tolerance is None else EdgeCounts.zeros(self.edge_tolerance)
        return PixelCounts(
            Confusion.zeros(self.classes), BlockCounts.zeros(self.classes, self.blocks.side), edges=edges
        )

    def count(
        self,
        window: Window,
        reference: NDArray[np.uint8],
        predicted: NDArray[np.uint8],
        read: Window | None = None,
    ) -> PixelCounts:
        """The pixels of a window.

        Args:
            window: of the map's grid; pixels outside of the grid count in its outermost blocks.
            reference: (height, width) class indices 0 to K-1, or 255 for ignore.
            predicted: (height, width) class indices 0 to K-1, or 255 for nodata.
            read: the window of the arrays, with up to `halo` pixels around `window`; `window` itself if None.
        """
        inner = window.relative_to(read or window)
        edges = None if self.edge_tolerance is None else EdgeCounts.of(reference, predicted, self.edge_tolerance, inner)
        reference, predicted = reference[inner.slices], predicted[inner.slices]
        confusion, blocks = self.blocks.count(window, reference, predicted)
        regions, probabilities = self.regions, self.probabilities
        groups = {} if regions is None else {
            name: PixelCounts(*self.blocks.count(part, own, predicted[part.relative_to(window).slices]))
            for name, part, own in regions.parts(window, reference)
        }  # fmt: skip
        calibration = None if probabilities is None else probabilities.calibration(window, reference, predicted)
        return PixelCounts(confusion, blocks, groups, edges, calibration)


@dataclass(frozen=True, eq=False)
class StripCounting:
    """The work on one strip: read map and reference, and count their pixels. See `executor.Stages`.

    All of it runs in the reader threads: memory holds one strip for each, and none that waits.
    """

    mapped: Raster
    labels: LabelSource
    """On the grid of the map."""
    counter: PixelCounter

    def read(self, strip: Window) -> PixelCounts:
        """Read a strip, and count it in parts."""
        counter, whole = self.counter, self.mapped.grid.window
        read = strip.grown(counter.halo) & whole
        with bounded_block_cache(_BLOCK_CACHE):
            reference = counter.classes.to_indices(self.labels.read(read))
            predicted = mapped_indices(self.mapped, read, counter.classes)
            counts = counter.zeros
            for part in _parts(strip):
                own = part.grown(counter.halo) & whole
                rows, cols = own.relative_to(read).slices
                counts += counter.count(part, reference[rows, cols], predicted[rows, cols], own)
        return counts

    def compute(self, strip: Window, read: PixelCounts) -> PixelCounts:  # noqa: ARG002
        """Nothing is left to compute."""
        return read

    def write(self, strip: Window, computed: PixelCounts) -> PixelCounts:  # noqa: ARG002
        """Nothing is written: counts are small."""
        return computed


def count_strips(mapped: Raster, labels: LabelSource, classes: Classes, counting: Counting) -> PixelCounts:
    """Count all pixels of a map that are valid and labelled.

    Law: the counts depend neither on the strips nor on the workers.

    Raises:
        ReadError: a strip cannot be read.
        EngineError: dask is not installed, no scheduler answers, or its workers die.
    """
    counter = counting.on(mapped, classes)
    task, strips = StripCounting(mapped, labels, counter), list(mapped.grid.strips(_STRIP_PIXELS))
    if counting.dask is None:
        threads = min(cores(), _MOST_PIXELS // (strips[0].height * strips[0].width))
        outcomes = run_units(task, strips, readers=max(1, threads))
    else:
        outcomes = run_on_dask(task, strips, counting.dask)
    total = counter.zeros
    with closing(outcomes), progress.task("assessing", len(strips)) as advance:
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
            total += outcome.result
            advance()
    # Strips end in any order: regions come in that of their file.
    names = () if counter.regions is None else counter.regions.names
    return replace(total, groups={name: total.groups[name] for name in names if name in total.groups})


def mapped_indices(mapped: Raster, window: Window, classes: Classes) -> NDArray[np.uint8]:
    """Class indices (height, width) of a window of a map, or 255 for nodata.

    Raises:
        RasterError: the map holds a value that is not in the class table.
    """
    try:
        return classes.to_indices(class_values(*mapped.read(window)))
    except ClassError as error:
        unlisted = listed(error.labels)
        raise RasterError(
            f"{mapped.paths[0]} holds {unlisted}, which the class table does not list: it has "
            f"{', '.join(map(str, classes.values))}. Expected a map of these classes. Correct the map or its table."
        ) from error


def _parts(strip: Window) -> Iterator[Window]:
    """Parts of a strip side by side, each as high as the strip."""
    width = max(_PART_SIDE, _PART_PIXELS // strip.height // _PART_SIDE * _PART_SIDE)
    for col in range(strip.col, strip.col_stop, width):
        yield Window(strip.row, col, strip.height, min(width, strip.col_stop - col))
