"""Scenes that meet are held out by blocks of the ground that they have in common."""

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from landscribe.data.splits.overlap import meeting, on_shared_ground
from landscribe.data.splits.spec import SplitSpec
from landscribe.data.splits.split import ScenePart, split_scenes
from landscribe.geo.grid import Grid, Window
from worlds import grid

SIZE = 64


def tiles(rows: int, cols: int, *, stride: int, whole: Grid | None = None) -> list[Grid]:
    """Of 64 pixels, at each `stride` pixels of a raster."""
    raster = whole or grid(stride * rows + SIZE, stride * cols + SIZE)
    return [raster[Window(stride * row, stride * col, SIZE, SIZE)] for row in range(rows) for col in range(cols)]


def split(grids: list[Grid], **settings) -> list[str]:
    """Of one chip a tile."""
    parts = [
        ScenePart([Window(0, 0, SIZE, SIZE)], np.array([[10, 10]]), name=str(number), grid=one)
        for number, one in enumerate(grids)
    ]
    return [name for (name,) in split_scenes(parts, SplitSpec(**settings), size=SIZE, seed=0)]


@given(row=st.integers(-500, 500), col=st.integers(-500, 500), other=st.integers(-500, 500))
def test_windows_keep_their_distances_on_the_shared_ground(row, col, other):
    raster = grid(1000, 1000)
    grids = [raster[Window(row, col, SIZE, SIZE)], raster[Window(other, -other, SIZE, SIZE)]]
    first, second = on_shared_ground(grids, [[Window(1, 2, 8, 8)], [Window(3, 4, 8, 8)]])
    assert (second.row - first.row, second.col - first.col) == (other + 3 - row - 1, -other + 4 - col - 2)
    assert first.shape == (8, 8)


def test_scenes_are_together_where_they_touch_or_overlap_in_one_crs():
    near, far = tiles(2, 2, stride=SIZE), tiles(1, 2, stride=32, whole=grid(3000, 3000)[Window(2000, 2000, 500, 500)])
    assert meeting([*near, None, *far], reach=0.5).tolist() == [0, 0, 0, 0, 1, 2, 2]
    assert meeting([Grid(None, near[0].transform, SIZE, SIZE)] * 2, reach=0.5).tolist() == [0, 1]


def box(own: Grid, window: Window) -> shapely.Geometry:
    """On the Earth."""
    left, top = own.xy(window.row, window.col)
    right, bottom = own.xy(window.row_stop, window.col_stop)
    return shapely.box(left, bottom, right, top)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shift", [0, 0.4])
@pytest.mark.parametrize("pixels", [1.0, 0.8])
def test_chips_of_large_scenes_that_overlap_are_a_gap_apart(seed, shift, pixels):
    raster = grid(1024, 2048)
    a, b = raster[Window(0, 0, 1024, 1024)], raster[Window(0, 896, 1024, 1024)]
    b = Grid(b.crs, b.transform @ Affine.translation(shift, shift) @ Affine.scale(pixels), 1024, 1024)
    windows = [Window(row, col, SIZE, SIZE) for row in range(0, 1024, SIZE) for col in range(0, 1024, SIZE)]
    counts = np.full((len(windows), 2), 10)
    parts = [ScenePart(windows, counts, name=name, grid=own) for name, own in (("a", a), ("b", b))]
    names = split_scenes(parts, SplitSpec(), size=SIZE, seed=seed)
    assert {"train", "val", "test"} <= {name for some in names for name in some}
    placed = [
        (name, box(own, window))
        for own, some in zip((a, b), names, strict=True)
        for window, name in zip(windows, some, strict=True)
    ]
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        first, second = (
            shapely.union_all([shape for name, shape in placed if name == which]) for which in (one, other)
        )
        assert first.distance(second) >= SIZE // 4 * abs(a.transform.a) - 1e-6


@pytest.mark.parametrize("stride", [32, 64])
def test_chips_of_tiles_in_different_splits_are_a_gap_apart(stride):
    grids = tiles(16, 16, stride=stride)
    names = split(grids)
    assert {"train", "val", "test"} <= set(names)
    windows = on_shared_ground(grids, [[Window(0, 0, SIZE, SIZE)]] * len(grids))
    of_split = {name: [w for w, own in zip(windows, names, strict=True) if own == name] for name in set(names)}
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert min(a.distance_to(b) for a in of_split[one] for b in of_split[other]) >= SIZE // 4


def test_whole_scenes_are_held_out_where_that_is_asked_for():
    assert "gap" not in split(tiles(8, 8, stride=SIZE), by="scene")
