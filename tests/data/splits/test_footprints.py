"""Footprints agree with brute force; overlapping scenes are split by common blocks."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod, Transformer
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from landscribe.data.splits.footprints import (
    Footprints,
    earlier_overlaps,
    in_common_grid,
    nearest_pairs,
    overlap_groups,
    pairs_within,
)
from landscribe.data.splits.ground import GroundOutlines, pairs_between_crss
from landscribe.data.splits.split import SplitInput, SplitSpec, split_scenes
from landscribe.geo.grid import Grid, Window
from worlds import METRE, UTM, chip_windows, grid

SIZE = 64


def tiles(rows: int, cols: int, *, stride: int, whole: Grid | None = None) -> list[Grid]:
    """Grids of 64 pixels, every `stride` pixels of a raster."""
    raster = whole or grid(stride * rows + SIZE, stride * cols + SIZE)
    return [raster[Window(stride * row, stride * col, SIZE, SIZE)] for row in range(rows) for col in range(cols)]


def split(grids: list[Grid], **settings) -> list[str]:
    """The splits of scenes with one chip each."""
    scenes = [
        SplitInput([Window(0, 0, SIZE, SIZE)], np.array([[10, 10]]), name=str(index), grid=own)
        for index, own in enumerate(grids)
    ]
    return [name for (name,) in split_scenes(scenes, SplitSpec(**settings), size=SIZE, seed=0)]


def random_windows(seed: int, count: int, side: int = 120) -> list[Window]:
    rng = np.random.default_rng(seed)
    return [Window(*rng.integers(0, side, 2).tolist(), *rng.integers(1, 20, 2).tolist()) for _ in range(count)]


@given(seed=st.integers(0, 999), count=st.integers(0, 30), distance=st.integers(0, 30))
def test_pairs_within_a_distance_are_those_of_brute_force(seed, count, distance):
    windows, groups = random_windows(seed, count), np.random.default_rng(seed).integers(0, 2, count)
    pairs = pairs_within(Footprints.of_windows(windows, groups), distance)
    expected = {
        (a, b)
        for a, b in itertools.permutations(range(count), 2)
        if groups[a] == groups[b]
        and (windows[a].distance_to(windows[b]) < distance or not (windows[a] & windows[b]).is_empty)
    }
    assert sorted(map(tuple, pairs.tolist())) == sorted(expected)


@given(seed=st.integers(0, 999), count=st.integers(1, 30))
def test_earlier_overlaps_are_those_of_brute_force(seed, count):
    windows = random_windows(seed, count, side=60)
    expected = [[b for b in range(a) if not (windows[a] & windows[b]).is_empty] for a in range(count)]
    assert [earlier.tolist() for earlier in earlier_overlaps(Footprints.of_windows(windows))] == expected


def test_a_long_row_of_chips_has_one_earlier_overlap_each():
    windows = [Window(0, 12 * index, 16, 16) for index in range(2000)]
    assert [len(earlier) for earlier in earlier_overlaps(Footprints.of_windows(windows))] == [0] + [1] * 1999


@given(seed=st.integers(0, 999), count=st.integers(2, 40), side=st.sampled_from([60, 400]))
def test_the_nearest_pair_and_all_overlaps_are_those_of_brute_force(seed, count, side):
    windows, rng = random_windows(seed, count, side), np.random.default_rng(seed)
    groups, in_a = rng.integers(0, 2, count), rng.random(count) < 0.5
    footprints = Footprints.of_windows(windows, groups)
    pairs, distances = nearest_pairs(footprints, np.flatnonzero(in_a), np.flatnonzero(~in_a))
    every = [
        (a, b) for a in np.flatnonzero(in_a).tolist() for b in np.flatnonzero(~in_a).tolist() if groups[a] == groups[b]
    ]
    if not every:
        assert not len(pairs)
        return
    expected = footprints.distances(*np.array(every).T)
    assert distances[0] == expected.min()
    assert tuple(pairs[0]) == every[int(np.lexsort(([groups[a] for a, _ in every], expected))[0])]
    assert (distances < 0).sum() == (expected < 0).sum()


@given(row=st.integers(-500, 500), col=st.integers(-500, 500), other=st.integers(-500, 500))
def test_windows_keep_their_distances_in_the_common_grid(row, col, other):
    raster = grid(1000, 1000)
    grids = [raster[Window(row, col, SIZE, SIZE)], raster[Window(other, -other, SIZE, SIZE)]]
    first, second = in_common_grid(grids, [[Window(1, 2, 8, 8)], [Window(3, 4, 8, 8)]])
    assert (second.row - first.row, second.col - first.col) == (other + 3 - row - 1, -other + 4 - col - 2)
    assert first.shape == (8, 8)


def test_scenes_of_one_crs_that_touch_or_overlap_share_a_group():
    near, far = tiles(2, 2, stride=SIZE), tiles(1, 2, stride=32, whole=grid(3000, 3000)[Window(2000, 2000, 500, 500)])
    assert overlap_groups([*near, None, *far], buffer_px=0.5).tolist() == [0, 0, 0, 0, 1, 2, 2]
    assert overlap_groups([Grid(None, near[0].transform, SIZE, SIZE)] * 2, buffer_px=0.5).tolist() == [0, 1]


def box(own: Grid, window: Window) -> shapely.Geometry:
    """A window in the CRS."""
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
    scenes = [SplitInput(windows, counts, name=name, grid=own) for name, own in (("a", a), ("b", b))]
    names = split_scenes(scenes, SplitSpec(), size=SIZE, seed=seed)
    assert {"train", "val", "test"} <= {name for own in names for name in own}
    placed = [
        (name, box(own, window))
        for own, splits in zip((a, b), names, strict=True)
        for window, name in zip(windows, splits, strict=True)
    ]
    for one, another in (("train", "val"), ("train", "test"), ("val", "test")):
        first, second = (
            shapely.union_all([shape for name, shape in placed if name == which]) for which in (one, another)
        )
        assert first.distance(second) >= SIZE // 4 * abs(a.transform.a) - 1e-6


@pytest.mark.parametrize(("apart", "gap"), [(5, None), (5, 60), (59, 60)])
def test_chips_of_scenes_nearer_than_the_gap_are_the_gap_apart(apart, gap):
    # Two scenes of 10 x 10 chips side by side, a few pixels apart.
    raster = grid(640, 1280 + apart)
    grids = [raster[Window(0, 0, 640, 640)], raster[Window(0, 640 + apart, 640, 640)]]
    windows = chip_windows(640, 640, size=SIZE, stride=SIZE, edge="drop")
    scenes = [SplitInput(windows, np.full((100, 2), 10), grid=own) for own in grids]
    names = split_scenes(scenes, SplitSpec(gap=gap), size=SIZE, seed=0)
    common = list(zip(in_common_grid(grids, [windows, windows]), itertools.chain(*names), strict=True))
    used = [(window, name) for window, name in common if name != "gap"]
    assert {name for _, name in used} == {"train", "val", "test"}
    assert min(a.distance_to(b) for a, one in used for b, other in used if one != other) >= (gap or SIZE // 4)


@pytest.mark.parametrize("by", ["auto", "block"])
@pytest.mark.parametrize("left", [320, 640, 650])
def test_drawn_chips_are_the_gap_apart_from_predefined_ones_which_stay(by, left, caplog):
    # A test scene of 10 x 10 chips, and a drawn scene of as many that overlaps it by half, touches it or is near it.
    raster = grid(640, 1300)
    grids = [raster[Window(0, 0, 640, 640)], raster[Window(0, left, 640, 640)]]
    windows = chip_windows(640, 640, size=SIZE, stride=SIZE, edge="drop")
    counts = np.full((100, 2), 10)
    scenes = [SplitInput(windows, counts, grid=grids[0], split="test"), SplitInput(windows, counts, grid=grids[1])]
    with caplog.at_level("INFO"):
        predefined, drawn = split_scenes(scenes, SplitSpec(by=by, test=0), size=SIZE, seed=0)
    assert predefined == ["test"] * 100
    assert {"train", "gap"} <= set(drawn) <= {"train", "val", "gap"}
    of_drawn = zip(in_common_grid(grids, [windows, windows])[100:], drawn, strict=True)
    assert min(window.col for window, name in of_drawn if name != "gap") >= 640 + SIZE // 4
    assert "nearer than the gap to a scene with a predefined split: not used" in caplog.text


def in_zone_33(own: Grid) -> Grid:
    """A grid of as large pixels in the neighbouring UTM zone over the same ground."""
    zone_33 = CRS.from_epsg(32633)
    left, bottom, right, top = transform_bounds(own.crs, zone_33, *own.bounds)
    return Grid(zone_33, Affine(1, 0, left, 0, -1, top), round(top - bottom), round(right - left))


def ground(own: Grid, windows: list[Window]) -> list[shapely.Polygon]:
    """Windows in UTM zone 32, by the corners of each."""
    to_32 = Transformer.from_crs(own.crs.to_wkt(), UTM.to_wkt(), always_xy=True)
    corners = [
        [
            own.xy(row, col)
            for row, col in ((w.row, w.col), (w.row, w.col_stop), (w.row_stop, w.col_stop), (w.row_stop, w.col))
        ]
        for w in windows
    ]
    return [shapely.Polygon([to_32.transform(*xy) for xy in of_window]) for of_window in corners]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("by", ["auto", "scene"])
def test_scenes_of_two_crss_over_the_same_ground_are_split_together(by, seed):
    utm = grid(640, 640)
    far = [grid(640, 640, transform=METRE @ Affine.translation(5000 * n, 0)) for n in (1, 2, 3)]
    grids = [utm, in_zone_33(utm), *far]
    windows = [chip_windows(own.height, own.width, size=SIZE, stride=SIZE, edge="drop") for own in grids]
    scenes = [
        SplitInput(of_scene, np.full((len(of_scene), 2), 10), grid=own)
        for own, of_scene in zip(grids, windows, strict=True)
    ]
    names = split_scenes(scenes, SplitSpec(by=by), size=SIZE, seed=seed)
    assert by == "auto" or set(names[0]) == set(names[1])
    first, second = (ground(*pair) for pair in zip(grids[:2], windows[:2], strict=True))
    apart = [
        one.distance(other)
        for one, split_a in zip(first, names[0], strict=True)
        for other, split_b in zip(second, names[1], strict=True)
        if split_a != split_b and "gap" not in (split_a, split_b)
    ]
    assert by == "scene" or {"train", "val", "test"} <= {*names[0], *names[1]}
    assert min(apart, default=SIZE) >= SIZE // 4


@pytest.mark.parametrize("by", ["auto", "block", "scene"])
@pytest.mark.parametrize("left", [320, 660])
def test_drawn_chips_are_the_gap_apart_from_predefined_ones_of_another_crs(by, left):
    # A test scene of 10 x 10 chips in zone 32, and drawn scenes in zone 33: one overlaps it or is near, others are far.
    utm = grid(640, 640)
    drawn = [in_zone_33(grid(640, 640, transform=METRE @ Affine.translation(x, 0))) for x in (left, 5000, 9000)]
    grids = [utm, *drawn]
    windows = [chip_windows(own.height, own.width, size=SIZE, stride=SIZE, edge="drop") for own in grids]
    scenes = [
        SplitInput(of_scene, np.full((len(of_scene), 2), 10), grid=own, split="test" if own is utm else None)
        for own, of_scene in zip(grids, windows, strict=True)
    ]
    names = split_scenes(scenes, SplitSpec(by=by, test=0, gap=60), size=SIZE, seed=0)
    assert names[0] == ["test"] * 100
    assert by == "scene" or {"train", "gap"} <= set(names[1])
    used = [
        shape for shape, name in zip(ground(drawn[0], windows[1]), names[1], strict=True) if name not in ("gap", "test")
    ]
    predefined = shapely.union_all(ground(utm, windows[0]))
    assert min((predefined.distance(shape) for shape in used), default=60) >= 60


@given(row=st.integers(-80, 80), col=st.integers(-80, 80))
def test_windows_of_two_crss_that_intersect_are_those_whose_corners_say_so(row, col):
    utm = grid(SIZE, SIZE)
    other = in_zone_33(grid(SIZE, SIZE, transform=METRE @ Affine.translation(col, row)))
    (one,), (another,) = ground(utm, [utm.window]), ground(other, [other.window])
    pairs = pairs_between_crss([utm, other, None], [[utm.window], [other.window], []], buffer_px=0)
    assert pairs.tolist() == ([[0, 1], [1, 0]] if one.intersects(another) else [])


@given(seed=st.integers(0, 999), count=st.integers(1, 12), side=st.sampled_from([100, 1000]))
def test_the_nearest_windows_of_two_crss_are_those_of_brute_force(seed, count, side):
    utm, rng = grid(side, side), np.random.default_rng(seed)
    other = in_zone_33(utm)
    of_utm, of_other = random_windows(seed, count, side - 20), random_windows(seed + 1, count, side - 20)
    in_a = rng.random(2 * count) < 0.5
    # Scales of the ground are those of zone 32 on its central meridian.
    polygons = [*ground(utm, of_utm), *ground(other, of_other)]
    every = [
        (a, b)
        for a in np.flatnonzero(in_a).tolist()
        for b in np.flatnonzero(~in_a).tolist()
        if (a < count) != (b < count)
    ]
    outlines = GroundOutlines.of([utm, None, other], [of_utm, [], of_other])
    nearest = outlines.nearest(np.flatnonzero(in_a), np.flatnonzero(~in_a))
    if not every:
        assert nearest is None
        return
    expected = min(polygons[a].distance(polygons[b]) for a, b in every) / 0.9996
    assert nearest is not None
    *pair, metres = nearest
    assert tuple(pair) in every
    assert metres == pytest.approx(expected, abs=1e-3)
    assert polygons[pair[0]].distance(polygons[pair[1]]) / 0.9996 == pytest.approx(expected, abs=1e-3)


def test_windows_on_both_sides_of_the_antimeridian_are_near():
    # Zone 60 ends, and zone 1 begins, at 180 degrees: pixels of 10 m, 20 pixels from it at the equator.
    east = Transformer.from_crs(4326, 32660, always_xy=True).transform(180, 0)[0]
    west = Transformer.from_crs(4326, 32601, always_xy=True).transform(-180, 0)[0]
    zone_60 = Grid(CRS.from_epsg(32660), Affine(10, 0, east - 840, 0, -10, 320), SIZE, SIZE)
    zone_1 = Grid(CRS.from_epsg(32601), Affine(10, 0, west + 200, 0, -10, 320), SIZE, SIZE)
    outlines = GroundOutlines.of([zone_60, zone_1], [[zone_60.window], [zone_1.window]])
    a, b, metres = outlines.nearest(np.array([0]), np.array([1]))
    # Both are 200 m from the antimeridian, in metres of the zones, which are 0.1 % shorter there.
    lon_60, lon_1 = (
        Transformer.from_crs(zone.crs.to_wkt(), 4326, always_xy=True).transform(x, 0)[0]
        for zone, x in ((zone_60, east - 200), (zone_1, west + 200))
    )
    expected = Geod(ellps="WGS84").inv(lon_60, 0, lon_1, 0)[2]
    assert (a, b) == (0, 1)
    assert metres == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("west", [179.9, -180.1], ids=["from 179.9", "from -180.1"])
@pytest.mark.parametrize("near", [179.95, -179.99, 0.05], ids=["west of 180", "east of 180", "elsewhere"])
def test_windows_across_the_antimeridian_intersect_those_of_another_crs(west, near):
    # 179.9 to 180.1 degrees east at the equator, and the UTM zone of 0.04 degrees.
    degrees = Grid(CRS.from_epsg(4326), Affine(0.001, 0, west, 0, -0.001, 0.1), 200, 200)
    zone = CRS.from_epsg({179.95: 32660, -179.99: 32601, 0.05: 32631}[near])
    left, _, right, top = transform_bounds(CRS.from_epsg(4326), zone, near, -0.05, near + 0.04, 0.05)
    metres = Grid(zone, Affine(100, 0, left, 0, -100, top), 100, round((right - left) / 100))
    pairs = pairs_between_crss([degrees, metres], [[degrees.window], [metres.window]], buffer_px=0)
    assert pairs.tolist() == ([] if near == 0.05 else [[0, 1], [1, 0]])


def test_a_local_crs_intersects_no_other():
    local = Grid(CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]'), METRE, SIZE, SIZE)
    outlines = GroundOutlines.of([local, grid(SIZE, SIZE)], [[local.window], [local.window]])
    assert outlines.nearest(np.array([0]), np.array([1])) is None
    assert overlap_groups([local, grid(SIZE, SIZE)], buffer_px=0.5).tolist() == [0, 1]
    assert overlap_groups([], buffer_px=0.5).tolist() == []


@pytest.mark.parametrize("stride", [32, 64])
def test_chips_of_tiles_in_different_splits_are_a_gap_apart(stride):
    grids = tiles(16, 16, stride=stride)
    names = split(grids)
    assert {"train", "val", "test"} <= set(names)
    windows = in_common_grid(grids, [[Window(0, 0, SIZE, SIZE)]] * len(grids))
    of_split = {name: [w for w, own in zip(windows, names, strict=True) if own == name] for name in set(names)}
    for one, another in (("train", "val"), ("train", "test"), ("val", "test")):
        assert min(a.distance_to(b) for a in of_split[one] for b in of_split[another]) >= SIZE // 4


@pytest.mark.parametrize("seed", range(4))
def test_a_small_mosaic_keeps_the_gap_where_its_blocks_hold_out_val_alone(seed):
    grids = tiles(5, 5, stride=SIZE)
    scenes = [SplitInput([own.window], np.array([[9]]), grid=own) for own in grids]
    names = [name for (name,) in split_scenes(scenes, SplitSpec(), size=SIZE, seed=seed)]
    assert {"train", "val", "gap"} <= set(names)
    windows = in_common_grid(grids, [[own.window] for own in grids])
    used = [(window, name) for window, name in zip(windows, names, strict=True) if name != "gap"]
    assert min(a.distance_to(b) for a, one in used for b, other in used if one != other) >= SIZE // 4


def test_splits_by_scene_have_no_gap_unless_one_is_given():
    assert "gap" not in split(tiles(8, 8, stride=SIZE), by="scene")


@pytest.mark.parametrize("predefined", [None, "train"])
def test_a_given_gap_is_kept_between_whole_scenes(predefined):
    # Eight scenes of 4 x 4 chips side by side.
    grids, windows = tiles(1, 8, stride=4 * SIZE), chip_windows(256, 256, size=SIZE, stride=SIZE, edge="drop")
    grids = [Grid(own.crs, own.transform, 256, 256) for own in grids]
    scenes = [SplitInput(windows, np.full((16, 2), 10), grid=own) for own in grids]
    scenes[3] = replace(scenes[3], split=predefined)
    names = split_scenes(scenes, SplitSpec(by="scene", gap=60), size=SIZE, seed=0)
    common = list(zip(in_common_grid(grids, [windows] * 8), itertools.chain(*names), strict=True))
    used = [(window, name) for window, name in common if name != "gap"]
    assert {name for _, name in used} == {"train", "val", "test"}
    assert min(a.distance_to(b) for a, one in used for b, other in used if one != other) >= 60
    assert predefined is None or names[3] == ["train"] * 16
