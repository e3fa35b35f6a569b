"""Vectorize: trace the strips of a plan, and write the polygons as they are complete."""

import logging
import math
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from landscribe import progress
from landscribe.errors import counted, listed
from landscribe.executor import run_on_dask, run_units
from landscribe.geo.access import bounded_block_cache
from landscribe.geo.grid import Window
from landscribe.geo.rasters.encoding import Encoding
from landscribe.geo.vectors.feature_files import GEOMETRY_FIELD, FeatureStream, record_batch, write_features
from landscribe.machine import cores
from landscribe.maps.class_map import require_values
from landscribe.maps.legends.style import polygon_qml
from landscribe.outputs import scratch_folder
from landscribe.polygons.boundaries.regions import Points, RegionJoiner
from landscribe.polygons.boundaries.rings import (
    BATCH_POINTS,
    Polygons,
    batches,
    by_batch,
    geometries,
    polygons_of,
    signed_areas,
)
from landscribe.polygons.boundaries.runs import take_runs
from landscribe.polygons.boundaries.simplify import Simplifier
from landscribe.polygons.boundaries.square import Squarer
from landscribe.polygons.boundaries.tracing import Lines, Trace
from landscribe.polygons.plan import PolygonPlan
from landscribe.texts import area_text

log = logging.getLogger(__name__)

_BATCH = 2**15
"""Features that are written at once."""
_BLOCK_CACHE = 2**26
"""Bytes of decoded blocks: those of a row of blocks, each of which is read by several strips."""
_PART_RUNS, _WAITING_RUNS = 2**17, 2**20
"""Runs of equal pixels in the rows of a strip: from the first number it is traced in parts, above the second one these
are traced when they are joined."""
_MANY = 10**6
"""Polygons from which a warning names the minimum area."""
_NAMED = 10
"""Classes whose polygons are counted in the result line."""


_Read = tuple[NDArray[Any], NDArray[np.float32] | None]


@dataclass(frozen=True)
class TraceTask:
    """The work on one strip: read it with the row above, trace it. See `executor.Stages`.

    One thread reads, so that blocks which two strips share are decoded once. Tracing takes longer, and runs in several.
    """

    plan: PolygonPlan
    folder: Path | None
    """Where traces are written for another process; None to return them."""

    def read(self, strip: Window) -> _Read:
        """Codes of the strip and the row above, and the probabilities of its classes."""
        plan = self.plan
        above = Window(max(strip.row - 1, 0), 0, strip.row_stop - max(strip.row - 1, 0), strip.width)
        with bounded_block_cache(_BLOCK_CACHE):
            codes = plan.codes.read(above)
            if strip.row == 0:
                codes = np.pad(codes, ((1, 0), (0, 0)))
            return codes, None if plan.probabilities is None else self._probabilities(strip, codes[1:])

    def _probabilities(self, strip: Window, codes: NDArray[Any]) -> NDArray[np.float32]:
        """Probability of the class of each pixel."""
        assert self.plan.probabilities is not None
        pixels, valid = self.plan.probabilities.read(strip)
        encodings = [encoding.to(Encoding()) for encoding in self.plan.probabilities.encoding_by_band]
        scales, offsets = np.array(encodings, np.float32).T
        bands = np.append(self.plan.bands, 0)[self.plan.codes.class_of_code][codes]
        shares = np.take_along_axis(pixels, bands[None], axis=0)[0] * scales[bands] + offsets[bands]
        return np.where(valid, shares, np.float32(np.nan)).astype(np.float32)

    def compute(self, strip: Window, read: _Read) -> _Read:  # noqa: ARG002
        """Nothing is computed in the calling thread, which joins the strips."""
        return read

    def write(self, strip: Window, computed: _Read) -> Iterable[tuple[Window, Trace]] | list[Window]:
        """Trace the strip in parts; return them and their traces, or write the traces and return the parts."""
        codes, _ = computed
        runs = np.count_nonzero(codes[1:, 1:] != codes[1:, :-1], axis=1).cumsum()
        parts = [
            Window(strip.row + first, 0, last - first, strip.width) for first, last in batches(runs + 1, _PART_RUNS)
        ]
        traces = ((part, self._trace(part, strip, computed)) for part in parts)
        if self.folder is None:
            # The traces of very many boundaries would fill memory while they wait: they are made when they are taken.
            return traces if runs[-1] > _WAITING_RUNS else list(traces)
        for part, trace in traces:
            arrays = {each.name: getattr(trace.lines, each.name) for each in fields(Lines)}
            np.savez(self._path(part), count=trace.count, north=trace.north, south=trace.south, **arrays)
        return parts

    def _trace(self, part: Window, strip: Window, read: _Read) -> Trace:
        codes, weights = read
        first, stop = part.row - strip.row, part.row_stop - strip.row
        return self.plan.tracing.trace(
            codes[first : stop + 1], part.row, is_last=part.row_stop == self.plan.codes.raster.grid.height,
            weights=None if weights is None else weights[first:stop],
        )  # fmt: skip

    def load(self, part: Window) -> Trace:
        """The trace that a process has written."""
        with np.load(self._path(part)) as arrays:
            lines = Lines(**{each.name: arrays[each.name] for each in fields(Lines)})
            return Trace(lines, int(arrays["count"]), arrays["north"], arrays["south"])

    def _path(self, part: Window) -> Path:
        assert self.folder is not None
        return self.folder / f"{part.row}.npz"


def write_polygons(plan: PolygonPlan) -> Path:
    """Write the polygons of a plan.

    Memory depends on the raster's width and on the regions that are open, not on its height or the number of polygons.
    Law: the bytes do not depend on the height of the strips, nor on the workers.

    Raises:
        RasterError: the raster cannot be read, or all of its pixels are nodata.
        OutputError: the file cannot be written, or cannot hold the polygons.
    """
    counter = _Counter()
    raster = plan.codes.raster
    stream = FeatureStream(
        schema=_schema(plan),
        batches=lambda: _features(plan, counter),
        geometry_type="MultiPolygon" if plan.is_multiple else "Polygon",
        crs=raster.grid.crs.to_wkt() if raster.grid.crs else None,
        layer=raster.name,
        style=polygon_qml([(entry.name, entry.colour) for entry in plan.codes.classes], "class"),
    )
    write_features(stream, plan.out)
    if counter.traced:
        change = counter.drawn / counter.traced - 1
        log.info(
            "smoothing: the polygons cover %.1f %% %s than their pixels; small ones shrink most", 100 * abs(change),
            "less" if change < 0 else "more",
        )  # fmt: skip
    if counter.written:
        log.info("%s: %s", plan.out.name, counter.summary(plan))
    else:
        small = "" if plan.spec.minimum_area is None else ", or all are below the minimum area"
        log.warning("%s holds no polygon: %s has no pixel of its classes%s", plan.out, raster.paths[0], small)
    return plan.out


def _features(plan: PolygonPlan, counter: "_Counter") -> Iterator[pa.RecordBatch]:
    """The batches of a file. A raster of classes that is all nodata is refused before it replaces an earlier file."""
    yield from _rebatched(_batches(plan, counter), _schema(plan))
    raster, has_classes = plan.codes.raster, plan.codes.values is not None
    if has_classes and not counter.written and not any(raster.read(strip)[1].any() for strip in raster.grid.strips()):
        require_values((), raster)


@dataclass
class _Counter:
    """Features so far, and the areas of polygons before small ones and small holes are left out, in pixels."""

    written: int = 0
    of_class: Counter[int] = field(default_factory=Counter)
    """Features by class value."""
    square_metres: float = 0
    """NaN if unknown."""
    traced: float = 0
    drawn: float = 0

    def measure(self, polygons: Polygons) -> None:
        """Add the areas of polygons: that of their pixels, and that of their boundaries."""
        self.traced += polygons.pixels.sum()
        self.drawn += signed_areas(polygons.points, polygons.rings).sum()

    def summary(self, plan: PolygonPlan) -> str:
        """Features, those of each class, and their area, for people."""
        noun = "MultiPolygon" if plan.is_multiple else "polygon"
        by_class = listed((f"{entry.name}: {self.of_class[entry.value]:,}" for entry in plan.codes.classes), _NAMED)
        area = "" if math.isnan(self.square_metres) else f", {area_text(self.square_metres)}"
        return f"{counted(self.written, noun)} ({by_class}){area}"


def _schema(plan: PolygonPlan) -> pa.Schema:
    columns = [("id", pa.int64()), ("value", pa.int64()), ("class", pa.string())]
    columns += [("area_m2", pa.float64()), ("perimeter_m", pa.float64())]
    if plan.probabilities is not None:
        columns.append(("probability", pa.float64()))
    if plan.codes.scores is not None:
        columns.append(("score", pa.float64()))
    return pa.schema([*(pa.field(name, kind) for name, kind in columns), GEOMETRY_FIELD])


def _batches(plan: PolygonPlan, counter: _Counter) -> Iterator[pa.RecordBatch]:
    """Batches of the polygons of each strip; with dissolve, one at the end."""
    parts: list[_Features] = []
    for polygons in complete_polygons(plan):
        if plan.spec.smooth and len(polygons):
            counter.measure(polygons)
        for part in polygons.split(BATCH_POINTS):
            if plan.spec.dissolve:
                parts.append(_Features.of(part, plan))
            else:
                # No geometry is kept while the batch is written: one may span the raster.
                yield _as_batch(_Features.of(part, plan), plan, counter)
    if parts:
        yield _as_batch(_dissolved(parts), plan, counter)


def complete_polygons(plan: PolygonPlan) -> Iterator[Polygons]:
    """The polygons that are complete after each strip, in their order."""
    squarer = Squarer(plan.pixel) if plan.spec.square else None
    simplifier = Simplifier(plan.tolerance, plan.pixel, plan.spec.smooth)
    is_shaped = plan.tracing.cut is not None
    joiner = RegionJoiner(plan.codes.raster.grid.width, simplifier if is_shaped else _all_points)
    height = plan.codes.raster.grid.height
    for strip, trace in _traces(plan):
        if is_shaped:
            simplifier.add(trace.lines, strip.row)
        is_last = strip.row_stop == height
        polygons = polygons_of(joiner.add(trace, strip.row, is_last=is_last))
        if squarer is not None:
            to_come = math.inf if is_last else min(joiner.first_open_row, strip.row_stop)
            polygons = squarer.add(polygons, to_come)
        yield polygons


def _all_points(arcs: Lines) -> Points:
    return arcs.points, arcs.start


def _traces(plan: PolygonPlan) -> Iterator[tuple[Window, Trace]]:
    """The trace of each strip, or of its parts, from north to south."""
    strips = list(plan.strips)
    title = f"tracing strips of {plan.codes.raster.name}"
    with _task(plan) as task, progress.task(title, len(strips)) as advance:
        if plan.spec.dask is None:
            outcomes = run_units(task, strips, writers=cores())
            for outcome in _succeeded(outcomes):
                yield from outcome.result
                advance()
            return
        parts: list[Window] = []
        for outcome in _succeeded(run_on_dask(task, strips, plan.spec.dask)):
            parts += outcome.result
            advance()
        for part in sorted(parts, key=lambda part: part.row):
            yield part, task.load(part)


@contextmanager
def _task(plan: PolygonPlan) -> Iterator[TraceTask]:
    if plan.spec.dask is None:
        yield TraceTask(plan, None)
        return
    # Beside the output, where workers on other machines can write too.
    with scratch_folder(plan.out.absolute()) as folder:
        yield TraceTask(plan, folder)


def _succeeded(outcomes: Generator[Any, None, None]) -> Iterator[Any]:
    """The outcomes; raises the first error, for a strip that is missing would leave polygons open."""
    try:
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
            yield outcome
    finally:
        outcomes.close()


@dataclass(frozen=True)
class _Features:
    """Geometries in the CRS of the raster, and what their columns are computed from."""

    geometries: NDArray[np.object_]
    codes: NDArray[np.int64]
    areas: NDArray[np.float64]
    """m², NaN if unknown."""
    perimeters: NDArray[np.float64]
    sums: NDArray[np.float64]
    holes: NDArray[np.object_]
    """The holes of each feature that were filled, as a MultiPolygon if features will be merged; None without any."""

    @classmethod
    def of(cls, polygons: Polygons, plan: PolygonPlan) -> "_Features":
        """Polygons that are large enough, without small holes; in one feature for each group if they may touch."""
        if not len(polygons):
            none = np.zeros(0)
            return cls(np.zeros(0, object), polygons.codes, none, none, polygons.sums, np.zeros(0, object))
        areas, perimeters = _measured(polygons, plan)
        holes = np.full(len(polygons), None)
        if plan.spec.fill_holes is not None:
            # The first ring of a polygon is its exterior.
            is_kept = np.abs(areas) >= plan.spec.fill_holes
            is_kept[polygons.start[:-1]] = True
            if plan.spec.dissolve or plan.spec.connectivity == 8:
                holes = _rings_alone(polygons, ~is_kept, plan)
            polygons, areas, perimeters = polygons.take_rings(is_kept), areas[is_kept], perimeters[is_kept]
        begins = polygons.start[:-1]
        features = cls(
            geometries(polygons, plan.codes.raster.grid.transform), polygons.codes,
            np.abs(np.add.reduceat(areas, begins)), np.add.reduceat(perimeters, begins), polygons.sums, holes,
        )  # fmt: skip
        if plan.spec.connectivity == 8:
            features = features.merged(polygons.groups)
        if plan.spec.minimum_area is not None:
            features = features.take(np.flatnonzero(features.areas >= plan.spec.minimum_area))
        return features

    def take(self, index: NDArray[np.int64]) -> "_Features":
        """These features, in this order."""
        return _Features(*(getattr(self, each.name)[index] for each in fields(self)))

    def merged(self, keys: NDArray[np.int64]) -> "_Features":
        """One MultiPolygon for each key, in their order; keys ascend.

        A feature in a filled hole of another one of its key is part of that one: only its pixels count.
        """
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        number = np.searchsorted(keys[first], keys)
        is_own = ~self._fills_a_hole(keys)
        parts, owners = shapely.get_parts(self.geometries[is_own], return_index=True)
        holes, around = shapely.get_parts(self.holes[is_own], return_index=True)
        measures = (np.where(is_own, self.areas, 0), np.where(is_own, self.perimeters, 0), self.sums)
        areas, perimeters, sums = (np.add.reduceat(each, first) for each in measures)
        return _Features(
            _multipolygons(parts, number[is_own][owners], len(first)),
            self.codes[first], areas, perimeters, sums,
            _multipolygons(holes, number[is_own][around], len(first)),
        )  # fmt: skip

    def _fills_a_hole(self, keys: NDArray[np.int64]) -> NDArray[np.bool_]:
        """True for features in a filled hole of another one of their key: features never cross a hole."""
        fills = np.zeros(len(keys), bool)
        holes, owners = shapely.get_parts(self.holes, return_index=True)
        if len(holes):
            points = shapely.point_on_surface(self.geometries)
            point, hole = shapely.STRtree(holes).query(points, predicate="within")
            # The point may also be in a hole that the feature is around: one of its own, or of a feature in it.
            is_in = shapely.area(self.geometries)[point] < shapely.area(holes)[hole]
            fills[point[is_in & (keys[point] == keys[owners[hole]])]] = True
        return fills


def _rings_alone(polygons: Polygons, is_taken: NDArray[np.bool_], plan: PolygonPlan) -> NDArray[np.object_]:
    """These rings of each polygon, each as a polygon of its own, in a MultiPolygon; None for a polygon without any."""
    own = np.flatnonzero(is_taken)
    points, rings = take_runs(polygons.points, polygons.rings, own)
    alone = replace(polygons, points=points, rings=rings, start=np.arange(len(own) + 1))
    shapes = geometries(alone, plan.codes.raster.grid.transform)
    return _multipolygons(shapes, polygons.of_ring[own], len(polygons))


def _multipolygons(parts: NDArray[np.object_], owners: NDArray[np.int64], count: int) -> NDArray[np.object_]:
    """The parts of each of so many owners as a MultiPolygon; None for an owner without any. Owners ascend."""
    result = np.full(count, None, object)
    present, index = np.unique(owners, return_inverse=True)
    if len(present):
        result[present] = shapely.multipolygons(parts, indices=index)
    return result


def _measured(polygons: Polygons, plan: PolygonPlan) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Area and length of each ring on the ground."""
    if plan.ground is None:
        unknown = np.full(len(polygons.rings) - 1, np.nan)
        return unknown, unknown
    ground = plan.ground
    areas, lengths = (by_batch(measure, polygons.points, polygons.rings) for measure in (ground.areas, ground.lengths))
    return areas, lengths


def _dissolved(parts: Sequence[_Features]) -> _Features:
    """One feature for each class."""
    joined = _Features(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(_Features)))
    ordered = joined.take(np.argsort(joined.codes, kind="stable"))
    return ordered.merged(ordered.codes)


def _as_batch(features: _Features, plan: PolygonPlan, counter: _Counter) -> pa.RecordBatch:
    """The columns of features."""
    count = len(features.codes)
    ids = np.arange(count) + counter.written + 1
    if counter.written <= _MANY < counter.written + count:
        log.warning("%s will hold more than %s polygons. --minimum-area leaves out small ones", plan.out, f"{_MANY:,}")
    counter.written += count
    counter.square_metres += features.areas.sum()
    codes = plan.codes
    own = codes.class_of_code[features.codes]
    values = np.array([entry.value for entry in codes.classes], np.int64)[own]
    for entry, polygons in zip(codes.classes, np.bincount(own, minlength=len(codes.classes)).tolist(), strict=True):
        counter.of_class[entry.value] += polygons
    names = pa.array([entry.name for entry in codes.classes], pa.string()).take(pa.array(own))
    columns = [ids, values, names, features.areas, features.perimeters]
    if plan.probabilities is not None:
        sums, numbers = features.sums.T if count else (np.zeros(0), np.zeros(0))
        columns.append(np.where(numbers > 0, sums / np.maximum(numbers, 1), np.nan))
    if codes.scores is not None:
        columns.append(codes.scores[features.codes])
    return record_batch([*columns, shapely.to_wkb(features.geometries)], _schema(plan))


def _rebatched(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The same features in batches of one size, so that the bytes of a file do not depend on the strips."""
    table = schema.empty_table()
    for batch in batches:
        table = pa.concat_tables([table, pa.Table.from_batches([batch])])
        del batch
        whole = len(table) // _BATCH * _BATCH
        if whole:
            yield from table.slice(0, whole).combine_chunks().to_batches(max_chunksize=_BATCH)
            table = table.slice(whole).combine_chunks()
    yield from table.combine_chunks().to_batches()
