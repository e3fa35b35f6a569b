"""Ground: where chips lie, so that chips of different scenes can be told to be near."""

import numpy as np
import shapely
from numpy.typing import NDArray

from landscribe.data.chips.chips import Chips
from landscribe.errors import LandscribeError
from landscribe.geo.grid import Grid, Window

# Places are the world's, divided by the size of a pixel: whole pixels up to rounding.
_ROUNDING = 1e-3


def places(chips: Chips) -> tuple[NDArray[np.intp], NDArray[np.float64], list[str]]:
    """Where each chip lies, across scenes that have the same CRS.

    Returns:
        The number of each chip's frame: chips of one frame lie on one ground. Its box there in pixels (top, left,
        bottom, right). What could not be found out.
    """
    try:
        grids: dict[str, Grid] = {name: image.grid for name, image in chips.images().items()}
        remarks = []
    except LandscribeError as error:
        grids, remarks = {}, [f"chips of different scenes were not compared by place, since {error}"]
    frames = np.zeros(len(chips), np.intp)
    boxes = np.zeros((len(chips), 4))
    known: dict[str, int] = {}
    steps: dict[str, tuple[float, float]] = {}
    for number, (scene, window) in enumerate(zip(chips.table["scene"].tolist(), chips.windows, strict=True)):
        grid = grids.get(scene)
        # What a padded chip has beyond its scene is no ground.
        inside = window if grid is None else window & grid.window
        if grid is None or grid.crs is None:
            frame = f"scene {scene}"
            boxes[number] = inside.row, inside.col, inside.row_stop, inside.col_stop
        else:
            frame = grid.crs.to_wkt()
            boxes[number] = _box_on_the_ground(
                grid, inside, steps.setdefault(frame, (grid.transform.a, grid.transform.e))
            )
        frames[number] = known.setdefault(frame, len(known))
    return frames, boxes, remarks


def _box_on_the_ground(grid: Grid, window: Window, steps: tuple[float, float]) -> tuple[float, float, float, float]:
    """World coordinates, counted in pixels of the frame's first scene; rows run south."""
    left, top = grid.xy(window.row, window.col)
    right, bottom = grid.xy(window.row_stop, window.col_stop)
    return top / steps[1], left / steps[0], bottom / steps[1], right / steps[0]


def near_on_the_ground(frames: NDArray[np.intp], boxes: NDArray[np.float64], gap: int) -> NDArray[np.intp]:
    """(n, 2) numbers of chips of one frame that are less than `gap` pixels apart; each pair in both orders."""
    top, left, bottom, right = boxes.T
    tree = shapely.STRtree(shapely.box(left, top, right, bottom))
    one, other = tree.query(shapely.box(left - gap, top - gap, right + gap, bottom + gap))
    rows = np.maximum(top[other] - bottom[one], top[one] - bottom[other])
    cols = np.maximum(left[other] - right[one], left[one] - right[other])
    near = (one != other) & (frames[one] == frames[other]) & (np.maximum(rows, cols) < gap - _ROUNDING)
    return np.column_stack([one[near], other[near]])
