"""Areas: how much of each class a map holds, in pixels and on the ground."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe.geo.classes import IGNORE, Classes
from landscribe.geo.grid import Grid, Window

Areas = dict[str, dict[str, Any]]
"""By class name: `pixels`, their `share` of all mapped pixels, and `km2` on the ground (None without a CRS)."""

_SAME_SIZE = 1e-3
"""Relative difference up to which pixels count as equally large."""


@dataclass(frozen=True)
class ClassAreas:
    """Area of each class in a part of a map, by class value; classes that do not occur are left out."""

    pixels: dict[int, int]
    square_metres: dict[int, float]
    """NaN where the pixel size on the ground is not known."""

    @classmethod
    def of(cls, values: NDArray[np.uint8], grid: Grid) -> "ClassAreas":
        """Count class values (rows, cols) on a grid; ignore is not counted."""
        pixels, square_metres = Counter[int](), dict[int, float]()
        for strip in _equal_area_strips(grid, 0, grid.height):
            side = grid[strip].pixel_size or np.nan
            counts = np.bincount(values[strip.slices].ravel(), minlength=IGNORE + 1)[:IGNORE]
            for value in np.flatnonzero(counts).tolist():
                pixels[value] += int(counts[value])
                square_metres[value] = square_metres.get(value, 0.0) + float(counts[value] * side**2)
        return cls(dict(pixels), square_metres)

    @classmethod
    def from_dict(cls, fields: dict[str, dict[str, Any]]) -> "ClassAreas":
        """The inverse of `as_dict`, also after JSON turned the values into text."""
        pixels, square_metres = (
            {int(value): amount for value, amount in fields[name].items()} for name in ("pixels", "square_metres")
        )
        return cls(pixels, square_metres)

    def as_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        return asdict(self)


NO_AREA = ClassAreas({}, {})


def total_areas(classes: Classes, parts: Iterable[ClassAreas]) -> Areas:
    """Areas of a whole map from those of its parts."""
    pixels, ground = Counter[int](), dict.fromkeys(classes.values, 0.0)
    for part in parts:
        pixels.update(part.pixels)
        for value, square_metres in part.square_metres.items():
            ground[value] += square_metres
    is_measured = math.isfinite(sum(ground.values()))
    return {
        entry.name: {
            "pixels": pixels[entry.value],
            "share": pixels[entry.value] / pixels.total(),
            "km2": ground[entry.value] / 1e6 if is_measured else None,
        }
        for entry in classes
    }


def format_areas(areas: Areas) -> str:
    """Areas as one line: km² where the pixel size is known, pixels elsewhere, and shares."""
    return ", ".join(
        f"{name} "
        + (f"{area['pixels']} pixels" if area["km2"] is None else f"{area['km2']:.4g} km²")
        + f" ({area['share']:.1%})"
        for name, area in areas.items()
    )


def _equal_area_strips(grid: Grid, row: int, row_stop: int) -> Iterator[Window]:
    """Strips of rows whose pixels are equally large on the ground: degrees and Mercator's metres shrink northwards."""
    strip, middle = Window(row, 0, row_stop - row, grid.width), (row + row_stop) // 2
    edges = (Window(edge, 0, 1, grid.width) for edge in (row, row_stop - 1))
    side, *sides = (grid[window].pixel_size or np.nan for window in (strip, *edges))
    if strip.height > 1 and max(abs(edge / side - 1) for edge in sides) > _SAME_SIZE:
        yield from _equal_area_strips(grid, row, middle)
        yield from _equal_area_strips(grid, middle, row_stop)
    else:
        yield strip
