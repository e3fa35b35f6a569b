"""Areas: how much of each class a map holds, in pixels and on the ground."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe.errors import counted, per_cent
from landscribe.geo.classes import IGNORE, Classes, count_codes
from landscribe.geo.grid import Grid
from landscribe.geo.pixel_area import pixel_areas

Areas = dict[str, dict[str, Any]]
"""By class name: `pixels`, their `share` of all mapped pixels, and `km2` on the ground (None without a CRS)."""


@dataclass(frozen=True)
class ClassAreas:
    """Area of each class in a part of a map, by class value; classes that do not occur are left out."""

    pixels: dict[int, int]
    square_metres: dict[int, float]
    """NaN where the area of some of its pixels cannot be measured."""

    @classmethod
    def of(cls, values: NDArray[np.uint8], grid: Grid, counts: NDArray[np.int64] | None = None) -> "ClassAreas":
        """Count class values (rows, cols) on a grid; ignore is not counted.

        Args:
            values: of the pixels.
            grid: where they are.
            counts: (256,) how often each value occurs, if it is known already.
        """
        flat, areas = values.ravel(), pixel_areas(grid)
        counts = (count_codes(values) if counts is None else counts)[:IGNORE]
        if isinstance(areas, float):
            square_metres: NDArray[Any] = counts * areas
        else:
            square_metres = np.bincount(flat, areas.ravel(), minlength=IGNORE + 1)[:IGNORE]
        occurring = np.flatnonzero(counts).tolist()
        return cls(
            {value: int(counts[value]) for value in occurring},
            {value: float(square_metres[value]) for value in occurring},
        )

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


AREA_UNITS = {"m²": 1.0, "ha": 1e4, "km²": 1e6}
"""Units of areas, in m²."""
_FROM = {"km²": 1e8, "ha": 1e4}
"""Areas in m² from which a unit is used; m² below."""


def area_unit(square_metres: float) -> str:
    """The unit in which an area is easy to read: km² from 100 km² on, ha from 1 ha on, m² below."""
    return next((unit for unit, least in _FROM.items() if square_metres >= least), "m²")


def area_decimals(area: float) -> int:
    """Decimals of an area and of its interval: four digits, and no exponents for the areas of countries.

    >>> [f"{area:,.{area_decimals(area)}f}" for area in (0.027234, 10.3, 12345.6, 0)]
    ['0.02723', '10.30', '12,346', '0']
    """
    return max(0, 3 - math.floor(math.log10(area))) if area > 0 else 0


def four_digits(value: float) -> str:
    """A number with four digits, thousands separated, and no exponent.

    >>> [four_digits(value) for value in (48.1, 12345.6, -0.027234, 0)]
    ['48.10', '12,346', '-0.02723', '0']
    """
    return f"{value:,.{area_decimals(abs(value))}f}"


def area_text(square_metres: float, unit: str = "") -> str:
    """An area with four digits and no exponent, in a unit, or else in that in which it is easy to read.

    >>> [area_text(area) for area in (0, 30, 25_600, 123_456_789)], area_text(30, "ha")
    (['0 m²', '30.00 m²', '2.560 ha', '123.5 km²'], '0.003000 ha')
    """
    unit = unit or area_unit(square_metres)
    return f"{four_digits(square_metres / AREA_UNITS[unit])} {unit}"


def format_areas(areas: Areas) -> str:
    """Areas as one line: in one unit where the pixel size is known, pixels elsewhere, and shares."""
    unit = area_unit(sum(area["km2"] or 0 for area in areas.values()) * 1e6)
    return ", ".join(
        f"{name} "
        + (counted(area["pixels"], "pixel") if area["km2"] is None else area_text(area["km2"] * 1e6, unit))
        + f" ({per_cent(area['share'])})"
        for name, area in areas.items()
    )
