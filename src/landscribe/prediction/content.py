"""Content: how much of each class a part of a map holds, in pixels and on the ground."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe.geo.classes import IGNORE
from landscribe.geo.grid import Grid, Window

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
    def from_dict(cls, told: dict[str, Any]) -> "Content":
        """As `as_dict` gave it, perhaps through JSON, where keys are text."""
        return cls(*({int(value): number for value, number in told[name].items()} for name in cls.__annotations__))

    def as_dict(self) -> dict[str, Any]:
        """In JSON's types."""
        return asdict(self)


NOTHING = Content({}, {})


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
