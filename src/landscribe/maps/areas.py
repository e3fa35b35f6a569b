"""Content: how much of each class a part of a map holds, in pixels and on the ground."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe.geo.classes import IGNORE, Classes
from landscribe.geo.grid import Grid, Window

AREAS_TAG = "LANDSCRIBE_AREAS"
Areas = dict[str, dict[str, Any]]
"""By the classes' names: `pixels`, their `share` of what was mapped, and `km2` on the ground, None where the size of a
pixel is not known."""

_ALIKE = 1e-3
"""Share by which the sides of pixels may differ that are taken for equally large."""


@dataclass(frozen=True)
class Content:
    """What lies in a part of a map, by class values; only of those that occur."""

    pixels: dict[int, int]
    square_metres: dict[int, float]
    """NaN where the size of a pixel on the ground is not known."""

    @classmethod
    def of(cls, values: NDArray[np.uint8], grid: Grid) -> "Content":
        """Of class values (rows, cols) on a grid; ignore does not count."""
        pixels, square_metres = Counter[int](), dict[int, float]()
        for strip in _strips(grid, 0, grid.height):
            side = grid[strip].pixel_size or np.nan
            counts = np.bincount(values[strip.slices].ravel(), minlength=IGNORE + 1)[:IGNORE]
            for value in np.flatnonzero(counts).tolist():
                pixels[value] += int(counts[value])
                square_metres[value] = square_metres.get(value, 0.0) + float(counts[value] * side**2)
        return cls(dict(pixels), square_metres)

    @classmethod
    def from_dict(cls, held: dict[str, dict[str, Any]]) -> "Content":
        """As `as_dict` gave it and JSON holds it, where keys are text."""
        pixels, square_metres = (
            {int(value): number for value, number in held[name].items()} for name in ("pixels", "square_metres")
        )
        return cls(pixels, square_metres)

    def as_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        return asdict(self)


NOTHING = Content({}, {})


def areas(classes: Classes, contents: Sequence[Content]) -> Areas:
    """What all parts of a map hold together."""
    pixels, ground = Counter[int](), dict.fromkeys(classes.values, 0.0)
    for content in contents:
        pixels.update(content.pixels)
        for value, square_metres in content.square_metres.items():
            ground[value] += square_metres
    is_known = math.isfinite(sum(ground.values()))
    return {
        entry.name: {
            "pixels": pixels[entry.value],
            "share": pixels[entry.value] / pixels.total(),
            "km2": ground[entry.value] / 1e6 if is_known else None,
        }
        for entry in classes
    }


def told(found: Areas) -> str:
    """Areas as a line: on the ground where the size of a pixel is known, and their shares."""
    return ", ".join(
        f"{name} "
        + (f"{area['pixels']} pixels" if area["km2"] is None else f"{area['km2']:.4g} km²")
        + f" ({area['share']:.1%})"
        for name, area in found.items()
    )


def _strips(grid: Grid, row: int, row_stop: int) -> Iterator[Window]:
    """Rows of a grid, cut into such whose pixels are equally large on the ground.

    Where degrees are the units, or Mercator's metres, they are not as large in the north as they are in the south.
    """
    strip, middle = Window(row, 0, row_stop - row, grid.width), (row + row_stop) // 2
    ends = (Window(end, 0, 1, grid.width) for end in (row, row_stop - 1))
    side, *sides = (grid[window].pixel_size or np.nan for window in (strip, *ends))
    if strip.height > 1 and max(abs(other / side - 1) for other in sides) > _ALIKE:
        yield from _strips(grid, row, middle)
        yield from _strips(grid, middle, row_stop)
    else:
        yield strip
