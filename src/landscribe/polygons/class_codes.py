"""Class codes: what tracing sees of a raster: 0 where no polygon is, else the number of a class or of an object."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe.errors import ClassError, RasterError, listed
from landscribe.geo.classes import IGNORE, default_colour, read_class_table
from landscribe.geo.grid import Window
from landscribe.geo.rasters.derived.converted import as_class_values
from landscribe.geo.rasters.raster import Raster
from landscribe.maps.class_map import class_table_of, require_values
from landscribe.maps.legends.attribute_tables import AttributeTable
from landscribe.spec import nearest

log = logging.getLogger(__name__)

_MOST_VALUES = 2**20
"""Distinct values of a raster whose values are its classes."""
_ALL = "all"


@dataclass(frozen=True)
class PolygonClass:
    """A class of polygons."""

    value: int
    name: str
    colour: str
    """"#rrggbb"."""


@dataclass(frozen=True)
class ClassCodes:
    """A raster as codes."""

    raster: Raster
    classes: tuple[PolygonClass, ...]
    class_of_code: NDArray[np.int64]
    """Index in `classes` of each code; that of code 0 does not count."""
    values: NDArray[np.int64] | None
    """Ascending values of the raster with code 1, 2, …; None if the values are the codes."""
    scores: NDArray[np.float64] | None = None
    """Of each code, 0 to 1; None if there are none."""

    @classmethod
    def open(
        cls, raster: Raster, requested: Sequence[str] | None, class_table: str | None, *, of_objects: bool = False
    ) -> "ClassCodes":
        """The classes of a raster that become polygons.

        Args:
            raster: one band of whole numbers; of floats, from 0 to 254.
            requested: names or values of classes, or "all"; all but class 0, and but value 255 where it means
                unlabelled, if None.
            class_table: a CSV file; None for the raster's own table, or its values, which other programs may name.
            of_objects: the classes are those of objects, of which the background has none.

        Raises:
            RasterError: it holds fractions, several bands or too many values.
            ClassError: there is no such class, or the class table cannot be read or lacks a value that would become
                polygons.
        """
        raster = _of_whole_numbers(raster)
        classes = _classes_of(raster, class_table)
        if class_table is not None and (requested is None or tuple(requested) == (_ALL,)):
            _require_all_values(classes, raster, class_table, without_background=requested is None)
        if requested is None:
            foreground = _foreground(classes, raster, has_table=class_table is not None)
            if not of_objects:
                _say_left_out({entry.value for entry in classes} - {entry.value for entry in foreground}, raster)
            classes = foreground
        else:
            classes = select_classes(classes, requested, raster.paths[0])
        classes = tuple(sorted(classes, key=lambda entry: entry.value))
        values = np.array([entry.value for entry in classes], np.int64)
        return cls(raster, classes, np.concatenate([[0], np.arange(len(classes))]), values)

    def read(self, window: Window) -> NDArray[Any]:
        """Codes (rows, cols) of a window, in the smallest type of unsigned integers that holds them all."""
        pixels, valid = self.raster.read(window)
        if self.values is None:
            return np.where(valid, pixels[0], 0)
        if not len(self.values):
            return np.zeros(valid.shape, np.uint8)
        kind = np.min_scalar_type(len(self.values))
        if pixels.dtype.itemsize <= 2:
            info = np.iinfo(pixels.dtype)
            table = np.zeros(info.max - info.min + 1, kind)
            is_held = (self.values >= info.min) & (self.values <= info.max)
            table[self.values[is_held] - info.min] = np.flatnonzero(is_held) + 1
            codes = table[pixels[0] if info.min == 0 else pixels[0].astype(np.int64) - info.min]
        else:
            at = np.minimum(np.searchsorted(self.values, pixels[0]), len(self.values) - 1)
            codes = np.where(self.values[at] == pixels[0], at + 1, 0).astype(kind)
        codes[~valid] = 0
        return codes


def _of_whole_numbers(raster: Raster) -> Raster:
    """The raster, if it has one band; of a type that int64 does not hold, such as floats, as class values."""
    if len(raster.bands) != 1:
        raise RasterError(f"{raster.paths[0]} has {len(raster.bands)} bands. Expected one band of class values.")
    return raster if np.can_cast(np.dtype(raster.dtype), np.int64) else as_class_values(raster)


def _classes_of(raster: Raster, class_table: str | None) -> tuple[PolygonClass, ...]:
    """The classes that a raster may hold."""
    if class_table is not None:
        return _table_of(class_table)
    table = class_table_of(raster.paths[0])
    if table is not None:
        return tuple(PolygonClass(entry.value, entry.name, entry.colour) for entry in table)
    values, attributes = sorted(_values_of(raster)), AttributeTable.of(raster.paths[0])
    require_values(values, raster)
    return tuple(
        PolygonClass(
            value,
            attributes.names.get(value, str(value)),
            attributes.colours.get(value, default_colour(index, background=value == 0)),
        )
        for index, value in enumerate(values)
    )


def _require_all_values(
    classes: tuple[PolygonClass, ...], raster: Raster, class_table: str, *, without_background: bool
) -> None:
    """Refuse a raster with values that its class table lacks, for their pixels would be in no polygon."""
    held, listed_values = _values_of(raster), {entry.value for entry in classes}
    missing = held - listed_values - (_not_foreground(held, raster) if without_background else set())
    if missing:
        raise ClassError(
            f"{raster.paths[0]} holds {listed(map(str, sorted(missing)))}, which {class_table} lacks: it has "
            f"{listed(map(str, sorted(listed_values)))}. Add a row for each, or name the classes to "
            "vectorize (--classes)."
        )


def _values_of(raster: Raster) -> set[int]:
    values: set[int] = set()
    for strip in raster.grid.strips():
        pixels, valid = raster.read(strip)
        values |= set(np.unique(pixels[0][valid]).tolist())
        if len(values) > _MOST_VALUES:
            raise RasterError(
                f"{raster.paths[0]} holds more than {_MOST_VALUES:,} different values. Expected those of classes. "
                "Vectorize a class map, or reduce the values."
            )
    return values


def _table_of(path: str) -> tuple[PolygonClass, ...]:
    """The classes of a CSV file."""
    rows = read_class_table(path)
    twice = {row.value for row in rows if sum(row.value == other.value for other in rows) > 1}
    if twice:
        raise ClassError(f"{path} has value {min(twice)} twice. Expected each value once.")
    return tuple(
        PolygonClass(row.value, row.name, row.colour or default_colour(index, background=row.value == 0))
        for index, row in enumerate(rows)
    )


def _foreground(classes: tuple[PolygonClass, ...], raster: Raster, *, has_table: bool) -> tuple[PolygonClass, ...]:
    """All classes but the background, and but unlabelled pixels, unless a class table says that they are a class."""
    left_out = {0} if has_table else _not_foreground({entry.value for entry in classes}, raster)
    return tuple(entry for entry in classes if entry.value not in left_out)


def _say_left_out(values: set[int], raster: Raster) -> None:
    for value, meaning in ((0, "the background"), (IGNORE, "unlabelled")):
        if value in values:
            log.info(
                "class %d of %s is left out as %s; landscribe vectorize --classes all includes it",
                value,
                raster.paths[0],
                meaning,
            )


def _not_foreground(values: set[int], raster: Raster) -> set[int]:
    """The values of a raster that mean background or unlabelled where nothing says what they mean.

    Without a nodata value, 255 is unlabelled, unless it is the only class, as in masks of 0 and 255.
    """
    may_be_unlabelled = raster.dtype == "uint8" and raster.nodata is None and values - {0, IGNORE}
    return {0, IGNORE} if may_be_unlabelled else {0}


def select_classes(classes: tuple[PolygonClass, ...], requested: Sequence[str], name: str) -> tuple[PolygonClass, ...]:
    """The classes of the raster `name` with these names or values, or all.

    Raises:
        ClassError: there is no such class (the nearest is offered), or none is requested.
    """
    if not requested:
        raise ClassError(f"no class of {name} is to become polygons. Give names or values of classes, or all.")
    if tuple(requested) == (_ALL,):
        return classes
    by_text = {str(entry.value): entry for entry in classes} | {entry.name: entry for entry in classes}
    absent = [text for text in requested if text not in by_text]
    if absent:
        raise ClassError(
            f"{name} has no class '{absent[0]}'{nearest(absent[0], [*dict.fromkeys(entry.name for entry in classes)])}"
        )
    return tuple({by_text[text].value: by_text[text] for text in requested}.values())
