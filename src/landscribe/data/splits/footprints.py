"""Footprints: where chips and scenes lie, and which of them overlap or are near each other.

A spatial index (shapely's STRtree) finds overlaps and neighbours: the work grows with the number of neighbours, not
with the square of the number of chips.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from landscribe.data.splits.ground import GroundOutlines, crs_text, outlines, pairs_between_crss
from landscribe.errors import GridError, LandscribeError
from landscribe.geo.grid import Grid, Window, crs_label

if TYPE_CHECKING:
    from landscribe.data.chips.chips import Chips

# Distances in pixels that differ by less are equal: coordinates in the CRS are converted to pixels with rounding.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Footprints:
    """Boxes in pixels. Only boxes of the same group have a distance."""

    boxes: NDArray[np.float64]
    """(n, 4): top, left, bottom, right."""
    groups: NDArray[np.intp]
    """(n,): the CRS group of each box: one for each CRS, and one for each scene without a CRS."""

    @classmethod
    def of_windows(cls, windows: Sequence[Window], groups: NDArray[np.intp] | None = None) -> "Footprints":
        """Footprints of windows, their padding included.

        Args:
            windows: the windows of one or several scenes.
            groups: the index of each window's scene; one scene if left out.
        """
        boxes = np.array([(w.row, w.col, w.row_stop, w.col_stop) for w in windows], np.float64).reshape(-1, 4)
        return cls(boxes, np.zeros(len(boxes), np.intp) if groups is None else groups)

    def distances(self, a: NDArray[np.intp], b: NDArray[np.intp]) -> NDArray[np.float64]:
        """(n,) pixels between boxes `a` and `b` along the farther axis; negative by how far they overlap."""
        a_top, a_left, a_bottom, a_right = self.boxes[a].T
        b_top, b_left, b_bottom, b_right = self.boxes[b].T
        rows = np.maximum(b_top - a_bottom, a_top - b_bottom)
        cols = np.maximum(b_left - a_right, a_left - b_right)
        return np.maximum(rows, cols)

    def shapes(self, indices: NDArray[np.intp], buffer_px: float = 0) -> NDArray[np.object_]:
        """Boxes as shapely polygons, larger by `buffer_px` on each side."""
        top, left, bottom, right = self.boxes[indices].T
        return shapely.box(left - buffer_px, top - buffer_px, right + buffer_px, bottom + buffer_px)


def pairs_within(footprints: Footprints, distance: float) -> NDArray[np.intp]:
    """(n, 2) indices of boxes less than `distance` pixels apart, each pair in both orders; 0 finds overlaps."""
    every = np.arange(len(footprints.boxes))
    a, b = shapely.STRtree(footprints.shapes(every)).query(footprints.shapes(every, distance))
    near = footprints.distances(a, b) < distance - _ROUNDING
    near &= (a != b) & (footprints.groups[a] == footprints.groups[b])
    return np.column_stack([a[near], b[near]])


def earlier_overlaps(footprints: Footprints) -> list[NDArray[np.intp]]:
    """For each box, the indices of the boxes before it that overlap it, ascending.

    >>> row = Footprints.of_windows([Window(0, col, 4, 4) for col in (0, 2, 4)])
    >>> [earlier.tolist() for earlier in earlier_overlaps(row)]
    [[], [0], [1]]
    """
    pairs = pairs_within(footprints, 0)
    pairs = pairs[pairs[:, 1] < pairs[:, 0]]
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return np.split(pairs[:, 1], np.searchsorted(pairs[:, 0], np.arange(1, len(footprints.boxes))))


def nearest_pairs(
    footprints: Footprints, a: NDArray[np.intp], b: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The nearest pairs of a box of `a` and a box of `b`; all pairs that overlap, if any do.

    Returns:
        (n, 2) indices and (n,) distances in pixels, nearest first; empty if no two boxes share a group.
    """
    pairs, distances = [np.zeros((0, 2), np.intp)], [np.zeros(0)]
    for group in np.intersect1d(footprints.groups[a], footprints.groups[b]).tolist():
        of_a, of_b = (indices[footprints.groups[indices] == group] for indices in (a, b))
        tree, shapes = shapely.STRtree(footprints.shapes(of_b)), footprints.shapes(of_a)
        # The Euclidean distance, which is 0 where boxes overlap, is never below that along the farther axis.
        _, euclidean = tree.query_nearest(shapes, all_matches=False, return_distance=True)
        near_a, near_b = tree.query(footprints.shapes(of_a, float(euclidean.min()) + _ROUNDING))
        pairs.append(np.column_stack([of_a[near_a], of_b[near_b]]))
        distances.append(footprints.distances(*pairs[-1].T))
    indices, apart = np.concatenate(pairs), np.concatenate(distances)
    order = np.lexsort((indices[:, 1], indices[:, 0], footprints.groups[indices[:, 0]], apart))
    return indices[order], apart[order]


def scene_grids(chips: "Chips") -> tuple[dict[str, Grid], list[str]]:
    """The grid of each scene by name, and warnings: there are no grids if the scenes cannot be opened."""
    try:
        return {name: image.grid for name, image in chips.images().items()}, []
    except LandscribeError as error:
        return {}, [f"footprints of chips of different scenes were not compared: {error}"]


def chip_footprints(chips: "Chips", grids: dict[str, Grid]) -> Footprints:
    """Footprints of chips, across all scenes of the same CRS. Padding outside a scene is cut away.

    Returns:
        The footprints, in pixels of the first scene of each CRS. Without grids, only chips of the same scene have a
        distance.
    """
    boxes = np.zeros((len(chips), 4))
    groups = np.zeros(len(chips), np.intp)
    group_of: dict[str, int] = {}
    pixel_sizes: dict[str, tuple[float, float]] = {}
    for index, (scene, window) in enumerate(zip(chips.scene_names.tolist(), chips.windows, strict=True)):
        grid = grids.get(scene)
        inside = window if grid is None else window & grid.window
        if grid is None or grid.crs is None:
            key = f"scene {scene}"
            boxes[index] = inside.row, inside.col, inside.row_stop, inside.col_stop
        else:
            key = crs_text(grid)
            boxes[index] = _crs_box(grid, inside, pixel_sizes.setdefault(key, (grid.transform.a, grid.transform.e)))
        groups[index] = group_of.setdefault(key, len(group_of))
    return Footprints(boxes, groups)


def chips_between_crss(chips: "Chips", grids: dict[str, Grid], *, distance: float) -> NDArray[np.intp]:
    """(n, 2) indices of chips of different CRSs that are less than `distance` pixels apart; each pair in both orders.

    Args:
        chips: of all scenes.
        grids: of the scenes.
        distance: a pixel is that of each chip's scene; negative for chips that overlap by more.
    """
    names, order, windows = _by_scene(chips)
    return order[pairs_between_crss([grids.get(name) for name in names], windows, buffer_px=distance / 2)]


def chip_outlines(chips: "Chips", grids: dict[str, Grid]) -> GroundOutlines | None:
    """Outlines of chips on the ground, for distances between CRSs; None if the scenes do not have several."""
    if len({text for grid in grids.values() if (text := crs_text(grid))}) < 2:
        return None
    names, order, windows = _by_scene(chips)
    by_scene = GroundOutlines.of([grids.get(name) for name in names], windows)
    return by_scene.take(np.argsort(order))


def _by_scene(chips: "Chips") -> tuple[list[str], NDArray[np.intp], list[list[Window]]]:
    """The names of the scenes, the indices of their chips scene by scene, and the windows of each scene."""
    names, rows = np.unique(chips.scene_names, return_inverse=True)
    order, windows = np.argsort(rows.reshape(-1), kind="stable"), chips.windows
    own = [[windows[row] for row in order[rows[order] == index].tolist()] for index in range(len(names))]
    return names.tolist(), order, own


def _crs_box(grid: Grid, window: Window, pixel_size: tuple[float, float]) -> tuple[float, float, float, float]:
    """CRS coordinates of a window divided by a signed pixel size (x, y): top, left, bottom, right; rows run south."""
    left, top = grid.xy(window.row, window.col)
    right, bottom = grid.xy(window.row_stop, window.col_stop)
    return top / pixel_size[1], left / pixel_size[0], bottom / pixel_size[1], right / pixel_size[0]


def overlap_groups(grids: Sequence[Grid | None], *, buffer_px: float) -> NDArray[np.intp]:
    """(n,) group of each grid, from 0: grids that overlap on the ground, directly or through others, share a group.

    Args:
        grids: None, and grids without a CRS, overlap no other.
        buffer_px: pixels by which each grid grows beforehand; smaller if negative.
    """
    by_crs: dict[str, list[int]] = {}
    for index, grid in enumerate(grids):
        if grid is not None and grid.crs is not None:
            by_crs.setdefault(crs_text(grid), []).append(index)
    pairs = [pairs_between_crss(grids, [[grid.window] if grid else [] for grid in grids], buffer_px=buffer_px)]
    for indices in by_crs.values():
        boxes = shapely.box(*np.array([_buffered_bounds(grids[index], buffer_px) for index in indices]).T)
        pairs.append(np.array(indices)[shapely.STRtree(boxes).query(boxes, predicate="intersects").T])
    links = np.concatenate(pairs)
    is_linked = coo_matrix((np.ones(len(links), bool), links.T), shape=(len(grids), len(grids)))
    component = connected_components(is_linked, directed=False)[1]
    first = np.unique(component, return_index=True)[1]
    return np.unique(first[component], return_inverse=True)[1].reshape(-1)


def _buffered_bounds(grid: Grid | None, pixels: float) -> tuple[float, float, float, float]:
    assert grid is not None
    left, bottom, right, top = grid.bounds
    across, down = pixels * abs(grid.transform.a), pixels * abs(grid.transform.e)
    return left - across, bottom - down, right + across, top + down


def in_common_grid(grids: Sequence[Grid], windows: Sequence[Sequence[Window]]) -> list[Window]:
    """The windows of scenes in pixels of the first scene, scene by scene.

    Rows and columns count from the upper left corner of all windows. Where the pixels of another scene are not aligned
    to those of the first, windows are rounded up to whole pixels; windows of another CRS become the boxes around them.
    Padding outside a scene is cut away.
    """
    bounds = np.concatenate(
        [_bounds_in(grids[0], grid, own) for grid, own in zip(grids, windows, strict=True) if len(own)]
    )
    starts = np.floor(bounds[:, :2] + _ROUNDING)
    stops = np.ceil(bounds[:, 2:] - _ROUNDING)
    origin = starts.min(axis=0)
    (cols, rows), (col_stops, row_stops) = ((corner - origin).astype(int).T.tolist() for corner in (starts, stops))
    return [
        Window(row, col, row_stop - row, col_stop - col)
        for row, col, row_stop, col_stop in zip(rows, cols, row_stops, col_stops, strict=True)
    ]


def _bounds_in(first: Grid, grid: Grid, windows: Sequence[Window]) -> NDArray[np.float64]:
    """(windows, 4) first and last columns and rows of windows in pixels of another grid: left, top, right, bottom."""
    if first.crs is not None and crs_text(grid) != crs_text(first):
        outline = outlines(grid, windows, first.crs)
        if not np.isfinite(outline).all():
            raise GridError(
                f"a scene in {crs_label(grid.crs)} overlaps others, but is too far from the first of them, in "
                f"{crs_label(first.crs)}. Expected CRSs of one part of the Earth. Warp all scenes to one CRS."
            )
        pixels = np.stack(~first.transform @ (outline[..., 0], outline[..., 1]), axis=-1)
        return np.hstack([pixels.min(axis=1), pixels.max(axis=1)])
    inside = (window & grid.window for window in windows)
    return np.array(
        [
            (*(~first.transform @ grid.xy(w.row, w.col)), *(~first.transform @ grid.xy(w.row_stop, w.col_stop)))
            for w in inside
        ]
    )
