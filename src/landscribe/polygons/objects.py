"""Objects: from a map, and the object probabilities beside it, to a raster in which each object has a number.

The map is computed in blocks with a halo, three times: seeds, objects grown from them, final numbers. A seed has one
number in all blocks, so that an object on a seam is one object. Memory is that of a block, and of a few numbers for
each object.
"""

import logging
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from skimage.measure import label

from landscribe import progress
from landscribe.errors import RasterError
from landscribe.geo.access import bounded_block_cache, open_dataset
from landscribe.geo.grid import ASSIGN_CRS, Window
from landscribe.geo.rasters.derived.converted import as_class_values
from landscribe.geo.rasters.raster import Raster
from landscribe.maps.class_map import require_probabilities_of
from landscribe.maps.layers import OBJECT_BANDS, STEPS
from landscribe.polygons.class_codes import ClassCodes
from landscribe.polygons.object_numbers import blocks_of, open_numbers, read_numbers, write_numbers
from landscribe.polygons.object_spec import ObjectSpec
from landscribe.polygons.watershed import (
    Labels,
    Mask,
    Values,
    distance_heights,
    distance_seeds,
    distances,
    grow_by_class,
    label_by_class,
)

log = logging.getLogger(__name__)

_BORDER, _INNER = (OBJECT_BANDS.index(name) for name in ("border", "inner"))
_SCORE_STEPS = 2**20
"""Probabilities are added as whole numbers of this fraction, so that their order does not change the sum."""
_NO_PIXEL = np.iinfo(np.int64).max


@dataclass(frozen=True)
class ObjectTable:
    """One row for each object, in the order of their numbers: row i is that of object i + 1."""

    values: NDArray[np.uint8]
    """Class value."""
    pixels: NDArray[np.int64]
    """Number of pixels."""
    scores: NDArray[np.float64]
    """Mean probability of an inner part over the pixels, 0 to 1; 0 without object probabilities."""

    def __len__(self) -> int:
        return len(self.values)


@bounded_block_cache()
def objects_of(
    mapped: Raster, values: Collection[int], layers: Raster | None, spec: ObjectSpec, out: Path
) -> ObjectTable:
    """Write the objects of a map as a raster of numbers: uint32, 0 where there is none.

    Each pixel of the classes belongs to one object, an object has one class, and its pixels are 4-connected. Objects
    are numbered in the row order of their first pixels.

    Laws: parts without a seed do not depend on the blocks. Nor do objects from seeds, if they and the parts without a
    seed beside them are at most `spec.halo` pixels long. An object on a seam is one object, however long it is.

    Args:
        mapped: the class map.
        values: class values that are objects.
        layers: object probabilities by `predict`, on the grid of the map; None separates objects by distance.
        spec: thresholds, distances, blocks.
        out: the GeoTIFF to write, tiled and compressed. The write is not atomic: see `outputs`.

    Raises:
        RasterError: the layers do not fit the map, or a distance in metres is asked of a map without CRS.
    """
    inputs = _Inputs.of(mapped, values, layers, spec)
    blocks = list(blocks_of(mapped.grid, spec.block))
    with (
        tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}.") as folder,
        progress.task(f"objects of {mapped.name}, each block three times", 3 * len(blocks)) as advance,
    ):
        seeds, grown = Path(folder) / "seeds.tif", Path(folder) / "grown.tif"
        roots = _write_seeds(inputs, blocks, seeds, advance)
        numbers, table = _write_grown(inputs, blocks, roots, seeds, grown, advance)
        with open_numbers(out, mapped.grid) as target, open_dataset(grown) as source:
            for block in blocks:
                write_numbers(target, block, numbers[read_numbers(source, block)])
                advance()
    return table


@dataclass(frozen=True)
class _Inputs:
    """What blocks are read from."""

    raster: Raster
    layers: Raster | None
    spec: ObjectSpec
    values: NDArray[np.int64]
    radius: int
    """Minimum distance in pixels; 0 with layers."""

    @classmethod
    def of(cls, raster: Raster, values: Collection[int], layers: Raster | None, spec: ObjectSpec) -> "_Inputs":
        if layers is not None:
            require_probabilities_of(raster, layers)
        if layers is not None and layers.bands != OBJECT_BANDS:
            raise RasterError(
                f"{layers.paths[0]} has the bands {', '.join(layers.bands)}. Expected {', '.join(OBJECT_BANDS)}. "
                "Predict them with --object-probabilities and a model of unet_id."
            )
        radius = _radius(raster, spec) if layers is None else 0
        return cls(raster, layers, spec, np.array(sorted(values), np.int64), radius)

    @property
    def reach(self) -> int:
        """The longest distance to an edge that counts, in pixels."""
        return self.spec.halo // 2 if self.layers is None else 0

    def is_object(self, values: Values) -> Mask:
        """True where a pixel belongs to an object."""
        return np.isin(values, self.values)

    def classes(self, window: Window) -> Values:
        """Class values (rows, cols) of a window; -1 where the map is not valid."""
        pixels, valid = self.raster.read(window)
        return np.where(valid, pixels[0].astype(np.int16), np.int16(-1))

    def seeds(self, block: Window) -> tuple[Values, Mask, Mask, Mask]:
        """Class values, pixels of objects, possible seeds, and the pixels that make one a seed: (rows, cols) each."""
        window = block.grown(self.reach + self.radius) & self.raster.grid.window
        values, part = self.classes(window), block.relative_to(window).slices
        mask = self.is_object(values)
        if self.layers is not None:
            seeds = peaks = _inner_seeds(self.layers, window, self.spec)
            return values[part], mask[part], seeds[part], peaks[part]
        seeds = peaks = np.zeros(mask.shape, bool)
        for value in np.unique(values[mask]).tolist():
            own = mask & (values == value)
            near, highest = distance_seeds(distances(own, self.reach), self.radius)
            seeds, peaks = seeds | (own & near), peaks | (own & highest)
        return values[part], mask[part], seeds[part], peaks[part]

    def heights(self, own: Mask, window: Window) -> NDArray[np.int64]:
        """Heights (rows, cols) for the watershed of one class."""
        if self.layers is not None:
            return STEPS - _inner(self.layers, window).astype(np.int64)
        return distance_heights(distances(own, self.reach), self.reach)

    def scores(self, block: Window) -> NDArray[np.int64]:
        """Probability (rows, cols) of an inner part, in steps of a score; 0 without layers."""
        if self.layers is None:
            return np.zeros(block.shape, np.int64)
        return np.round(_inner(self.layers, block) * (_SCORE_STEPS / STEPS)).astype(np.int64)


def _inner_seeds(layers: Raster, window: Window, spec: ObjectSpec) -> Mask:
    """True where an inner part is likely and a border is not."""
    pixels, valid = layers.read(window)
    return valid & (pixels[_INNER] >= spec.inner_threshold * STEPS) & (pixels[_BORDER] < STEPS / 2)


def _inner(layers: Raster, window: Window) -> NDArray[np.uint8]:
    """The stored probability (rows, cols) of an inner part; 0 where it is not valid."""
    pixels, valid = layers.read(window)
    return np.where(valid, pixels[_INNER], np.uint8(0))


def _radius(raster: Raster, spec: ObjectSpec) -> int:
    pixel = raster.grid.pixel_size
    if pixel is None:
        raise RasterError(
            f"{raster.paths[0]} has no CRS, so a minimum distance of {spec.minimum_distance:g} m between objects "
            f"cannot be counted in pixels. {ASSIGN_CRS}, or separate objects by object probabilities."
        )
    return min(spec.halo // 2, max(1, round(spec.minimum_distance / pixel)))


def object_codes(codes: ClassCodes, layers: Raster | None, spec: ObjectSpec, out: Path) -> ClassCodes:
    """The objects of a map's classes, as codes of their own.

    Args:
        codes: the classes of a map.
        layers: as in `objects_of`.
        spec: as in `objects_of`.
        out: the raster of numbers to write; it must exist as long as the codes are read.

    Raises:
        RasterError: as `objects_of`, or the map holds no class values.
    """
    values = np.array([entry.value for entry in codes.classes])
    table = objects_of(as_class_values(codes.raster), values.tolist(), layers, spec, out)
    numbers = replace(Raster.open([out]), title=codes.raster.name)
    scores = None if layers is None else np.concatenate([[np.nan], table.scores])
    of_object = np.searchsorted(values, table.values)
    return ClassCodes(numbers, codes.classes, np.concatenate([[0], of_object]), None, scores)


def _write_seeds(inputs: _Inputs, blocks: Sequence[Window], out: Path, advance: progress.Advance) -> Labels:
    """Write a label for each seed of each block; returns the number of the seed by label, from 1."""
    seams, sizes = _Seams(inputs.raster.grid.width), [np.zeros(1, np.int64)]
    with open_numbers(out, inputs.raster.grid) as target:
        for block in blocks:
            first = seams.stop
            classes, mask, is_seed, is_peak = inputs.seeds(block)
            labels, seams.stop = label_by_class(is_seed & mask, classes, first)
            seams.add(block, labels, classes)
            counted = labels[(labels > 0) & is_peak]
            sizes.append(np.bincount(counted - first, minlength=seams.stop - first))
            write_numbers(target, block, labels)
            advance()
    roots = seams.joined()
    is_kept = np.bincount(roots, np.concatenate(sizes)) >= (1 if inputs.layers is None else inputs.spec.minimum_seed)
    return np.where(is_kept, np.cumsum(is_kept), 0)[roots]


def _write_grown(
    inputs: _Inputs, blocks: Sequence[Window], roots: Labels, seeds: Path, out: Path, advance: progress.Advance
) -> tuple[NDArray[np.uint32], ObjectTable]:
    """Write the number of the seed, or a label of a part without one, in each pixel; returns the final numbers."""
    grid, count = inputs.raster.grid, int(roots.max())
    tally, seams = _Tally(grid.width), _Seams(grid.width, stop=count + 1)
    with open_numbers(out, grid) as target, open_dataset(seeds) as source:
        for block in blocks:
            classes = inputs.classes(block)
            labels = _grown(inputs, block, roots, source)
            labels = seams.with_strays(labels, roots[read_numbers(source, block)])
            seedless, seams.stop = label_by_class((labels == 0) & inputs.is_object(classes), classes, seams.stop)
            labels += seedless
            seams.add(block, labels, classes)
            tally.add(block, labels, classes, inputs.scores(block))
            write_numbers(target, block, labels)
            advance()
    return tally.numbered(_owners(seams, count, tally))


def _grown(inputs: _Inputs, block: Window, roots: Labels, source: Any) -> Labels:
    """The number of the seed (rows, cols) that grew to each pixel of a block; 0 where no seed is connected."""
    if len(roots) == 1:
        return np.zeros(block.shape, np.int64)
    grid = inputs.raster.grid.window
    near = block.grown(inputs.spec.halo) & grid
    # Distances are exact where the window reaches further.
    wide = near.grown(inputs.reach) & grid
    values, part = inputs.classes(wide), near.relative_to(wide).slices
    seeds = np.zeros(wide.shape, np.int64)
    seeds[part] = roots[read_numbers(source, near)]
    mask = inputs.is_object(values)
    is_near = np.zeros(wide.shape, bool)
    is_near[part] = True

    def heights(own: Mask) -> NDArray[np.int64]:
        # Of the whole class: its pixels beyond `near` are no edge.
        whole = mask & (values == values[own][0])
        return inputs.heights(whole, wide)

    labels = grow_by_class(seeds, mask & is_near, values, heights, wide)
    return labels[block.relative_to(wide).slices]


@dataclass
class _Seams:
    """Labels of blocks, and which of them 4-adjacent pixels of one class join across the blocks' seams."""

    width: int
    stop: int = 1
    """The number after the last label."""
    pairs: list[NDArray[np.int64]] = field(default_factory=list)
    strays: list[tuple[int, NDArray[np.int64]]] = field(default_factory=list)
    """First label of the strays of each block, and the seeds that they grew from."""

    def __post_init__(self) -> None:
        self._above = np.zeros((2, self.width), np.int64)
        """Labels and class values of the last row above the blocks of this row, and of the blocks done."""
        self._left = np.zeros((2, 0), np.int64)

    def add(self, block: Window, labels: Labels, values: Values) -> None:
        """Add the next block, in row order."""
        both = np.stack([labels, values])
        cols = slice(block.col, block.col_stop)
        if block.row:
            self._join(self._above[:, cols], both[:, 0])
        if block.col:
            self._join(self._left, both[:, :, 0])
        self._above[:, cols], self._left = both[:, -1], both[:, :, -1]

    def _join(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
        joins = (first[0] > 0) & (second[0] > 0) & (first[1] == second[1]) & (first[0] != second[0])
        self.pairs.append(np.unique(np.stack([first[0], second[0]], axis=1)[joins], axis=0))

    def all_pairs(self) -> NDArray[np.int64]:
        """(n, 2) labels that are adjacent across a seam."""
        return np.concatenate([np.zeros((0, 2), np.int64), *self.pairs])

    def with_strays(self, labels: Labels, seeds: Labels) -> Labels:
        """Labels of a block, with a new one for each 4-connected part of a seed's pixels that holds no pixel of it.

        Args:
            labels: number of the seed that grew to each pixel.
            seeds: number of the seed at each pixel; 0 for none.
        """
        parts, count = label(labels, background=0, connectivity=1, return_num=True)
        is_stray = np.bincount(parts.ravel(), ((seeds == labels) & (labels > 0)).ravel(), count + 1) == 0
        is_stray[0] = False
        grown_from = np.zeros(count + 1, np.int64)
        grown_from[parts] = labels
        numbers = self.stop - 1 + is_stray.cumsum()
        self.strays.append((self.stop, grown_from[is_stray]))
        self.stop += int(is_stray.sum())
        return np.where(is_stray[parts], numbers[parts], labels)

    def seeds_of(self, seeds: int) -> Labels:
        """The seed that each label grew from; 0 for parts without one."""
        grown_from = np.arange(self.stop)
        grown_from[seeds + 1 :] = 0
        for first, own in self.strays:
            grown_from[first : first + len(own)] = own
        return grown_from

    def joined(self) -> Labels:
        """The number of the joined label for each label, from 1; 0 for 0."""
        return _components(self.all_pairs(), self.stop)


def _components(pairs: NDArray[np.int64], stop: int) -> Labels:
    """The component, from 1, of each label below `stop`; 0 for label 0, which is in no pair."""
    graph = sparse.coo_array((np.ones(len(pairs), np.int8), tuple(pairs.T)), shape=(stop, stop))
    _, component = sparse.csgraph.connected_components(graph, directed=False)
    # Label 0 is the first component.
    return component.astype(np.int64)


def _owners(seams: _Seams, seeds: int, tally: "_Tally") -> Labels:
    """The label that each label counts as: parts without a seed join each other, or the first seed next to them.

    Labels up to `seeds` are those of seeds. Two seeds never join. A stray, which grew from a seed around another block,
    is part of the seed if its pixels reach it over seams. If that block gave them to others, for it saw less of a long
    part, a stray counts as a part without a seed: the pixels of an object are 4-connected.
    """
    pairs, grown_from = seams.all_pairs(), seams.seeds_of(seeds)
    from_one = grown_from[pairs]
    linked = _components(pairs[(from_one[:, 0] == from_one[:, 1]) & (from_one[:, 0] > 0)], seams.stop)
    home = np.where(linked == linked[grown_from], grown_from, np.arange(seams.stop))
    cut = np.count_nonzero((grown_from > 0) & (home != grown_from))
    if cut:
        log.warning("pieces of objects that lie farther than the halo from their objects count as others: %d", cut)
    pairs = home[pairs]
    without = pairs > seeds
    both = pairs[without.all(axis=1)]
    part = _components(both, seams.stop)
    owners = np.arange(seams.stop)
    # The first label of each part, in its own order.
    firsts = np.full(seams.stop, seams.stop)
    parts = np.arange(seeds + 1, seams.stop)
    np.minimum.at(firsts, part[parts], parts)
    owners[parts] = firsts[part[parts]]
    mixed = np.sort(pairs[without.sum(axis=1) == 1], axis=1)
    # Last written wins: the seed whose first pixel comes first is written last.
    ordered = mixed[np.argsort(-tally.first(seams.stop)[mixed[:, 0]], kind="stable")]
    adopted = np.arange(seams.stop)
    adopted[owners[ordered[:, 1]]] = ordered[:, 0]
    return adopted[owners][home]


@dataclass
class _Tally:
    """Pixels, class, score and first pixel of each label."""

    width: int

    def __post_init__(self) -> None:
        self._columns = {name: np.zeros(1, np.int64) for name in ("pixels", "values", "scores")}
        self._first = np.full(1, _NO_PIXEL)

    def add(self, block: Window, labels: Labels, values: Values, scores: NDArray[np.int64]) -> None:
        """Count the pixels of a block."""
        present, index, inverse, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
        self._grow(int(present[-1]) + 1)
        rows, cols = np.divmod(index, block.width)
        first = (block.row + rows) * self.width + block.col + cols
        self._first[present] = np.minimum(self._first[present], first)
        self._columns["pixels"][present] += counts
        self._columns["values"][present] = values.ravel()[index]
        self._columns["scores"][present] += np.bincount(inverse.ravel(), scores.ravel()).astype(np.int64)

    def _grow(self, size: int) -> None:
        if size > len(self._first):
            more = max(size, 2 * len(self._first)) - len(self._first)
            self._columns = {name: np.pad(column, (0, more)) for name, column in self._columns.items()}
            self._first = np.pad(self._first, (0, more), constant_values=_NO_PIXEL)

    def first(self, stop: int) -> NDArray[np.int64]:
        """Index of the first pixel, in row order, of each label below `stop`."""
        self._grow(stop)
        return self._first[:stop]

    def numbered(self, owners: Labels) -> tuple[NDArray[np.uint32], ObjectTable]:
        """The final number of each label, and the table of objects."""
        first = np.full(len(owners), _NO_PIXEL)
        np.minimum.at(first, owners, self.first(len(owners)))
        first[0] = _NO_PIXEL
        order = np.argsort(first, kind="stable")
        order = order[first[order] < _NO_PIXEL]
        ranks = np.zeros(len(owners), np.uint32)
        ranks[order] = np.arange(1, len(order) + 1)
        totals = {}
        for name in ("pixels", "scores"):
            total = np.zeros(len(owners), np.int64)
            np.add.at(total, owners, self._columns[name][: len(owners)])
            totals[name] = total[order]
        mean = totals["scores"] / _SCORE_STEPS / totals["pixels"]
        values = self._columns["values"][order].astype(np.uint8)
        return ranks[owners], ObjectTable(values, totals["pixels"], mean)
