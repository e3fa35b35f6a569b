"""Plan of a sample: its frame and strata, how many units of each are drawn, and what precision to expect."""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from landscribe.errors import ClassError, GridError, RasterError, SampleError, counted, listed
from landscribe.estimation.designs.design import MapClass
from landscribe.estimation.intervals import interval_quantile
from landscribe.geo.classes import Classes
from landscribe.geo.features import Features
from landscribe.geo.grid import ASSIGN_CRS, grid_label
from landscribe.geo.rasters.raster import Raster
from landscribe.maps.class_map import ClassMap
from landscribe.sampling.frame import BUFFER, Buffer, Frame, FrameCounts
from landscribe.sampling.sizes import (
    Expected,
    allocate,
    expected_by_stratum,
    expected_overall,
    require_enough,
    simple_random_size,
    stratified_size,
)
from landscribe.sampling.spec import MOST_UNITS, SampleSpec
from landscribe.spec import nearest

log = logging.getLogger(__name__)

_MOST_NEAR = 2**24
"""Pixels above a row that may lie in a buffer."""
_FEW = 0.01
"""Share of the mapped pixels without a sampling unit up to which estimates are not reported as those of a part."""
_EXPECTED: float = SampleSpec.model_fields["expected_accuracy"].default
"""Expected accuracy of a class that `expected_accuracy` does not name."""

_Row = tuple[str, int, int, float]
"""A stratum before its size is known: name, code, units and area, as of `PlannedStratum`."""


@dataclass(frozen=True)
class PlannedStratum:
    """A stratum, or, of a design without strata, a class of the map."""

    name: str
    code: int
    """Its value in the raster of strata, or `frame.BUFFER`."""
    units: int
    """In the frame."""
    area_m2: float
    """NaN without a CRS."""
    share: float
    """Of the units."""
    size: float
    """Units to draw; of a design without strata, the expected number."""
    expected: Expected | None
    """None if no unit is drawn."""


@dataclass(frozen=True)
class SamplePlan:
    """All that is decided before units are drawn."""

    mapped: ClassMap
    spec: SampleSpec
    frame: Frame
    counts: FrameCounts
    classes: tuple[MapClass, ...]
    """The classes of the map, and their units in the frame."""
    strata: tuple[PlannedStratum, ...]
    size: int
    """Units to draw; of a systematic design, the expected number."""
    expected: Expected | None
    """Overall accuracy; None if a stratum has no unit in the sample."""

    def as_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "map": self.mapped.raster.paths[0],
            "design": self.spec.kind,
            "size": self.size,
            "units": sum(stratum.units for stratum in self.strata),
            "unit": self.spec.unit,
            "allocation": self.spec.allocation if self.spec.design == "stratified" else None,
            "expected_accuracy": self.spec.expected_accuracy,
            "confidence": self.spec.confidence,
            "overall": None if self.expected is None else asdict(self.expected),
            "strata": [
                {
                    "name": stratum.name,
                    "units": stratum.units,
                    "area_m2": None if math.isnan(stratum.area_m2) else stratum.area_m2,
                    "share": stratum.share,
                    "size": stratum.size,
                    "expected": None if stratum.expected is None else asdict(stratum.expected),
                }
                for stratum in self.strata
            ],
        }


def plan_sample(mapped: Raster, spec: SampleSpec) -> SamplePlan:
    """Count the frame, and share the sample among its strata. The map is read once.

    Raises:
        RasterError: the map is no class map, or has no pixel in the frame.
        GridError: the raster of strata lies on another grid.
        ClassError: a class or stratum that does not exist.
        SampleError: a stratum has fewer units than are to be drawn, or a setting in metres finds no CRS.
    """
    class_map = ClassMap.of(mapped, spec.class_table)
    strata_map = class_map if spec.strata is None else _open_strata(spec.strata, mapped)
    area = None if spec.area is None else Features.read(spec.area).on(mapped.grid, mapped.paths[0])
    if area is not None:
        area.require_overlap(mapped.grid, mapped.paths[0])
    buffer = _buffer(spec, strata_map)
    frame = Frame(class_map.raster, None if spec.strata is None else strata_map.raster, area, spec.unit, buffer)
    counts = frame.count()
    if not counts.units_by_row.any():
        what = "sampling unit" if spec.unit == 1 else f"block of {spec.unit} x {spec.unit} pixels"
        inside = f" in {spec.area}" if spec.area else ""
        stratum = f", and a stratum in {spec.strata}" if spec.strata else ""
        raise RasterError(
            f"{mapped.paths[0]} has no {what}{inside}: expected pixels that have a class (and are not "
            f"nodata){stratum}. Check the nodata values{'' if spec.unit == 1 else ', or unit'}."
        )
    _warn_of_pixels_without_stratum(spec, counts)
    _warn_of_pixels_without_unit(spec, counts)
    if buffer is not None and not counts.units_of_stratum[BUFFER]:
        raise SampleError(
            f"{mapped.paths[0]} has no sampling unit within {spec.buffer:g} m of {spec.buffer_around}; its "
            f"pixels have {buffer.sides[0][0]:.4g} m. Widen the buffer, or leave it out."
        )
    classes = _classes(class_map, counts)
    _log_absent_classes(classes)
    rows = _strata(strata_map, counts, spec) if spec.design == "stratified" else _as_strata(classes)
    strata, expected = _planned(rows, spec)
    # Numbers of strata may have other sums than the size, and expected numbers are no whole ones.
    size = round(sum(stratum.size for stratum in strata))
    return SamplePlan(class_map, spec, frame, counts, classes, strata, size, expected)


def _warn_of_pixels_without_stratum(spec: SampleSpec, counts: FrameCounts) -> None:
    if counts.without_stratum:
        log.warning(
            "%.2g %% of the mapped pixels have no stratum in %s: none is drawn, and estimates hold for the others only",
            100 * counts.without_stratum, spec.strata,
        )  # fmt: skip


def _warn_of_pixels_without_unit(spec: SampleSpec, counts: FrameCounts) -> None:
    if counts.without_unit > _FEW:
        log.warning(
            "%.2g %% of the mapped pixels%s are in no block of %d x %d pixels (at the edge of the map, or with more "
            "than half of it unmapped): none is drawn, and estimates hold for the others only. Lower unit",
            100 * counts.without_unit, " that have a stratum" if spec.strata else "", spec.unit, spec.unit,
        )  # fmt: skip


def _log_absent_classes(classes: tuple[MapClass, ...]) -> None:
    absent = [entry.name for entry in classes if not entry.units]
    if absent:
        log.info(
            "the map has no sampling unit of class %s. Its area is estimated from the units that you label so",
            listed(absent),
        )  # fmt: skip


def _open_strata(path: str, mapped: Raster) -> ClassMap:
    strata = ClassMap.open(path)
    if not mapped.grid.is_aligned(strata.raster.grid):
        raise GridError(
            f"the strata of {path} are {grid_label(strata.raster.grid)}, but {mapped.paths[0]} is "
            f"{grid_label(mapped.grid)}. Expected one grid. Warp the strata to the map (gdalwarp -r near)."
        )
    return strata


def _buffer(spec: SampleSpec, strata: ClassMap) -> Buffer | None:
    if spec.buffer_around is None or spec.buffer is None:
        return None
    if strata.raster.grid.crs is None:
        raise SampleError(
            f"{strata.raster.paths[0]} has no CRS, so a buffer of {spec.buffer:g} m cannot be counted in pixels. "
            f"{ASSIGN_CRS}, or leave out the buffer."
        )
    classes = strata.classes
    _require_known([spec.buffer_around], classes.names, "buffer_around")
    if _buffer_name(spec) in classes.names:
        raise SampleError(
            f"the buffer around '{spec.buffer_around}' is a stratum named '{_buffer_name(spec)}', and so is a class of "
            f"{strata.raster.paths[0]}. Expected strata of different names. Rename the class in the class table of "
            "the raster, or pass --strata with a raster in which the buffer has a value of its own (gdal_proximity.py)."
        )
    buffer = Buffer.of(classes.values[classes.names.index(spec.buffer_around)], spec.buffer, strata.raster.grid)
    height, width = strata.raster.grid.shape
    if min(buffer.reach, height) * width > _MOST_NEAR:
        raise SampleError(
            f"a buffer of {spec.buffer:g} m is {buffer.reach} pixels, too many for a map of {width} columns. Expected "
            f"at most {_MOST_NEAR // width}. Lower it, or pass --strata with a raster of your own (gdal_proximity.py)."
        )
    return buffer


def _buffer_name(spec: SampleSpec) -> str:
    return f"{spec.buffer_around} buffer"


def _require_known(names: Iterable[str], known: Iterable[str], setting: str) -> None:
    names_known = list(known)
    unknown = [name for name in names if name not in names_known]
    if unknown:
        raise ClassError(f"{setting} names '{unknown[0]}'{nearest(unknown[0], names_known)}")


def _table(class_map: ClassMap, values: list[int]) -> Classes:
    """The class table of a map in which these values occur; of a map without a table, the values by their names."""
    table = class_map.table
    if table is None:
        return class_map.attributes.classes(values)
    unlisted = sorted(set(values) - set(table.values))
    if unlisted:
        raise ClassError(
            f"{class_map.raster.paths[0]} holds the value {unlisted[0]}, which "
            f"{class_map.class_table or 'its class table'} does not list ({', '.join(map(str, table.values))}). "
            "Correct the map, or the class table."
        )
    return table


def _classes(class_map: ClassMap, counts: FrameCounts) -> tuple[MapClass, ...]:
    units = counts.units_of_class
    table = _table(class_map, np.flatnonzero(units).tolist())
    return tuple(
        MapClass(
            entry.name, entry.value, entry.colour, int(units[entry.value]), float(counts.areas_of_class[entry.value])
        )
        for entry in table
    )


def _strata(class_map: ClassMap, counts: FrameCounts, spec: SampleSpec) -> list[_Row]:
    """The strata that occur, in the order of their values; the buffer comes last."""
    units = counts.units_of_stratum
    codes = np.flatnonzero(units).tolist()
    names: Mapping[int, str] = {
        entry.value: entry.name for entry in _table(class_map, [code for code in codes if code != BUFFER])
    } | {BUFFER: _buffer_name(spec)}
    return [(names[code], code, int(units[code]), float(counts.stratum_areas[code])) for code in codes]


def _as_strata(classes: tuple[MapClass, ...]) -> list[_Row]:
    return [(entry.name, entry.value, entry.units, entry.area_m2) for entry in classes if entry.units]


def _planned(rows: list[_Row], spec: SampleSpec) -> tuple[tuple[PlannedStratum, ...], Expected | None]:
    """The strata with the units that are drawn and the expected precision of each; the expected overall accuracy."""
    names, units = [name for name, *_ in rows], [count for _, _, count, _ in rows]
    accuracies = _accuracies(spec, names)
    sizes = _sizes(spec, _size(spec, names, units, accuracies), names, units, accuracies)
    _warn_of_strata_without_units([name for name, size in zip(names, sizes, strict=True) if not size])
    expected = expected_by_stratum(accuracies, sizes, units, spec.confidence)
    strata = tuple(
        PlannedStratum(name, code, count, area, count / sum(units), size, accuracy)
        for (name, code, count, area), size, accuracy in zip(rows, sizes, expected, strict=True)
    )
    return strata, expected_overall(accuracies, sizes, units, spec.confidence)


def _sizes(spec: SampleSpec, size: int, names: list[str], units: list[int], accuracies: list[float]) -> list[float]:
    """How many units are drawn of each stratum; of a design without strata, the expected numbers."""
    if spec.design != "stratified":
        if spec.design != "cluster":  # a square with fewer pixels gives all of them
            _require_size(size, sum(units))
        return [size * (count / sum(units)) for count in units]
    if isinstance(spec.allocation, dict):
        numbers = [spec.allocation.get(name, 0) for name in names]
    else:
        numbers = allocate(spec.allocation, size, units, accuracies)
    require_enough(names, numbers, units)
    _warn_if_larger(spec, sum(numbers))
    return list(map(float, numbers))


def _require_size(size: int, units: int) -> None:
    if size > units:
        raise SampleError(f"the size is {size}, but the map has {counted(units, 'unit')}. Lower the size.")


def _warn_if_larger(spec: SampleSpec, size: int) -> None:
    if spec.size is not None and size > spec.size:
        log.warning("size is %d, but %d units are to be drawn: a stratum needs two for a variance", spec.size, size)


def _warn_of_strata_without_units(empty: list[str]) -> None:
    """Warn while units can still be added: `estimate` refuses such a sample."""
    if empty:
        log.warning(
            "no unit of stratum %s is to be drawn, so nothing can be estimated for the map: assess will refuse the "
            "sample. Allocate at least 2 units", listed(empty),
        )  # fmt: skip


def _accuracies(spec: SampleSpec, names: list[str]) -> list[float]:
    """The expected accuracy of each stratum."""
    given = spec.expected_accuracy
    if not isinstance(given, dict):
        return [given] * len(names)
    _require_known(given, names, "expected_accuracy")
    return [given.get(name, _EXPECTED) for name in names]


def _standard_error(spec: SampleSpec) -> float:
    """The standard error that the settings ask for; 0 if they ask for a size."""
    return spec.standard_error or (spec.half_width or 0) / interval_quantile(spec.confidence)


def _precise_size(spec: SampleSpec, units: list[int], accuracies: list[float]) -> int:
    """The size from which the allocation reaches the precision that the settings ask for; Neyman's needs the fewest.

    Args:
        spec: of a simple random, systematic or stratified sample, with a precision.
        units: of each stratum.
        accuracies: expected, of each stratum.
    """
    assert not isinstance(spec.allocation, dict)
    shares, error, total = [count / sum(units) for count in units], _standard_error(spec), sum(units)
    if spec.design != "stratified":
        return math.ceil(simple_random_size(float(np.dot(shares, accuracies)), error, total))
    size = math.ceil(stratified_size(shares, accuracies, error, total))
    while size < min(total, MOST_UNITS):
        numbers = list(map(float, allocate(spec.allocation, size, units, accuracies)))
        expected = expected_overall(accuracies, numbers, units, spec.confidence)
        if expected is None or _is_precise(spec, expected):
            break
        size += max(1, size // 200)
    return size


def _is_precise(spec: SampleSpec, expected: Expected) -> bool:
    if spec.half_width is not None:
        return (expected.upper - expected.lower) / 2 <= spec.half_width
    return expected.standard_error <= _standard_error(spec)


def _size(spec: SampleSpec, names: list[str], units: list[int], accuracies: list[float]) -> int:
    """Units that the settings ask for.

    Raises:
        ClassError: a stratum that does not exist.
        SampleError: there is no unit to draw, or more than can be drawn.
    """
    if isinstance(spec.allocation, dict):
        where = "" if spec.area is None else f", inside {spec.area},"
        _require_known(spec.allocation, names, f"allocation{where}")
        size = sum(spec.allocation.values())
    elif spec.design == "cluster":
        assert spec.clusters is not None
        assert spec.per_cluster is not None
        size = spec.clusters * spec.per_cluster
    elif spec.size is not None:
        size = spec.size
    else:
        size = _precise_size(spec, units, accuracies)
    if not 0 < size <= MOST_UNITS:
        raise SampleError(
            f"{size:,} units are to be drawn. Expected 1 to {MOST_UNITS:,}. Choose another size, or a larger error."
        )
    return size
