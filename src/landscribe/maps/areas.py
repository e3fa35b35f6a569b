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
from landscribe.texts import area_text, area_unit

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


def format_areas(areas: Areas) -> str:
    """Areas as one line: in one unit where the pixel size is known, pixels elsewhere, and shares."""
    unit = area_unit(sum(area["km2"] or 0 for area in areas.values()) * 1e6)
    return ", ".join(
        f"{name} "
        + (counted(area["pixels"], "pixel") if area["km2"] is None else area_text(area["km2"] * 1e6, unit))
        + f" ({per_cent(area['share'])})"
        for name, area in areas.items()
    )
