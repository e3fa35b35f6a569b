"""Tiling: laws over random sizes, and lists derived by hand."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from landscribe.errors import TilingError
from landscribe.geo.grid import Window
from landscribe.geo.tiling import ChipLattice, kept_squares, units
from worlds import chip_windows


@st.composite
def covers(draw) -> dict[str, int]:
    """Arguments of `units` that leave a core to keep."""
    align = draw(st.sampled_from([1, 2, 3, 4, 8, 32]))
    size = align * draw(st.integers(1, 6))
    return {
        "height": draw(st.integers(1, 80)),
        "width": draw(st.integers(1, 80)),
        "size": size,
        "margin": draw(st.integers(0, (size - align) // 2)),
        "align": align,
        "side": draw(st.integers(1, 60)),
    }


def count_pixels(height: int, width: int, windows: list[Window]) -> np.ndarray:
    """How many windows hold each pixel."""
    counts = np.zeros((height, width), int)
    for window in windows:
        assert window & Window(0, 0, height, width) == window
        counts[window.slices] += 1
    return counts


@given(covers())
def test_keep_parts_of_units_partition_the_grid(cover):
    keeps = [unit.keep for unit in units(**cover)]
    assert (count_pixels(cover["height"], cover["width"], keeps) == 1).all()


@given(covers())
def test_keep_parts_of_tiles_partition_their_unit(cover):
    for unit in units(**cover):
        keeps = [tile.keep.relative_to(unit.keep) for tile in unit.tiles]
        assert (count_pixels(*unit.keep.shape, keeps) == 1).all()


@given(covers())
def test_reads_have_the_margin_around_kept_parts_except_at_the_grids_edge(cover):
    margin = cover["margin"]
    for unit in units(**cover):
        for read, keep in ((tile.read, tile.keep) for tile in unit.tiles):
            assert keep.row - read.row >= margin or read.row == keep.row == 0
            assert keep.col - read.col >= margin or read.col == keep.col == 0
            assert read.row_stop - keep.row_stop >= margin or keep.row_stop == cover["height"] <= read.row_stop
            assert read.col_stop - keep.col_stop >= margin or keep.col_stop == cover["width"] <= read.col_stop


@given(covers())
def test_reads_start_and_measure_multiples_of_the_alignment(cover):
    for unit in units(**cover):
        for tile in unit.tiles:
            read = tile.read
            assert all(number % cover["align"] == 0 for number in (read.row, read.col, read.height, read.width))


@given(covers())
def test_no_read_is_larger_than_a_tile_or_starts_outside_the_grid(cover):
    for unit in units(**cover):
        for tile in unit.tiles:
            assert max(tile.read.shape) <= cover["size"]
            assert 0 <= tile.read.row < cover["height"]
            assert 0 <= tile.read.col < cover["width"]


@given(covers())
def test_reads_reach_outside_the_grid_by_less_than_the_alignment(cover):
    for unit in units(**cover):
        for tile in unit.tiles:
            assert tile.read.row_stop - cover["height"] < cover["align"]
            assert tile.read.col_stop - cover["width"] < cover["align"]


@given(covers())
def test_a_unit_reads_the_bounding_window_of_its_tiles(cover):
    for unit in units(**cover):
        reads = [tile.read for tile in unit.tiles]
        assert unit.read.row == min(read.row for read in reads)
        assert unit.read.col == min(read.col for read in reads)
        assert unit.read.row_stop == max(read.row_stop for read in reads)
        assert unit.read.col_stop == max(read.col_stop for read in reads)


@given(covers())
def test_units_of_several_tiles_do_not_exceed_the_requested_side(cover):
    for unit in units(**cover):
        rows, cols = {tile.keep.row for tile in unit.tiles}, {tile.keep.col for tile in unit.tiles}
        assert len(rows) == 1 or unit.keep.height <= cover["side"]
        assert len(cols) == 1 or unit.keep.width <= cover["side"]


@given(covers())
def test_a_unit_of_overlapping_tiles_has_all_tiles_that_read_a_pixel_it_keeps(cover):
    reads = [tile.read for unit in units(**cover) for tile in unit.tiles]
    for unit in units(**cover, overlapping=True):
        own = [tile.read for tile in unit.tiles]
        assert sorted(own) == sorted(read for read in reads if not (read & unit.keep).is_empty)


@given(covers())
def test_units_come_in_the_order_of_their_names(cover):
    names = [unit.name for unit in units(**cover)]
    assert all(a < b for a, b in pairwise(names))


def test_a_grid_of_one_pixel_is_one_tile_of_the_alignment():
    (unit,) = units(1, 1, size=64, margin=16, align=32)
    assert [(tile.read, tile.keep) for tile in unit.tiles] == [(Window(0, 0, 32, 32), Window(0, 0, 1, 1))]


def test_a_raster_one_pixel_wide_is_cut_along_its_length_only():
    # size 8, margin 2, align 4: the core is 4 pixels, so reads start at 0, 4 and 8 (the last that fits 16 rows);
    # neighbours overlap by 4 and meet in the middle, at 6 and 10.
    tiles = [tile for unit in units(16, 1, size=8, margin=2, align=4) for tile in unit.tiles]
    assert [(t.read.row, t.read.shape, t.keep.row, t.keep.shape) for t in tiles] == [
        (0, (8, 4), 0, (6, 1)),
        (4, (8, 4), 6, (4, 1)),
        (8, (8, 4), 10, (6, 1)),
    ]


def test_a_grid_as_large_as_a_tile_is_one_tile():
    (unit,) = units(64, 64, size=64, margin=31)
    assert [tile.read for tile in unit.tiles] == [Window(0, 0, 64, 64)]


@pytest.mark.parametrize(
    ("size", "margin", "align", "message"),
    [
        (64, 32, 1, "tile size 64 with margin 32 leaves no core to keep. Expected a margin from 0 to 31"),
        (64, 17, 32, "Expected a margin from 0 to 16"),
        (64, -1, 1, "tile size 64 with margin -1"),
        (60, 0, 32, "tile size 60 is not a multiple of the network's stride 32"),
    ],
)
def test_impossible_margins_are_refused_with_the_possible_ones(size, margin, align, message):
    with pytest.raises(TilingError, match=message):
        list(units(100, 100, size=size, margin=margin, align=align))


@given(covers())
def test_the_largest_margin_of_the_message_is_accepted(cover):
    largest = (cover["size"] - cover["align"]) // 2
    assert list(units(**(cover | {"margin": largest})))
    with pytest.raises(TilingError, match=rf"from 0 to {largest}\.$"):
        list(units(**(cover | {"margin": largest + 1})))


cuts = st.fixed_dictionaries(
    {
        "height": st.integers(1, 60),
        "width": st.integers(1, 60),
        "size": st.integers(1, 30),
        "stride": st.integers(1, 40),
        "edge": st.sampled_from(["shift", "pad", "drop"]),
    }
)


def inside(window: Window, cut) -> bool:
    return window & Window(0, 0, cut["height"], cut["width"]) == window


@given(cuts)
def test_no_chip_is_cut_twice(cut):
    windows = chip_windows(**cut)
    assert len(set(windows)) == len(windows)


@given(cuts)
def test_chips_are_counted_without_listing_them(cut):
    lattice = ChipLattice(**cut)
    assert lattice.rows * lattice.cols == len(set(chip_windows(**cut)))


@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 5), st.sets(st.tuples(*[st.integers(0, 11)] * 2)))
def test_halved_squares_hold_each_kept_cell_once(rows, cols, side, kept):
    def is_kept(some_rows, some_cols):
        return any((row, col) in kept for row in some_rows for col in some_cols)

    squares = list(kept_squares(range(rows), range(cols), is_kept, side=side))
    cells = [(row, col) for own_rows, own_cols in squares for row in own_rows for col in own_cols]
    assert len(cells) == len(set(cells))
    assert set(cells) >= {(row, col) for row, col in kept if row < rows and col < cols}
    assert all(len(own_rows) <= side and len(own_cols) <= side and is_kept(own_rows, own_cols)
               for own_rows, own_cols in squares)  # fmt: skip
    assert all(own_rows[0] % side == own_cols[0] % side == 0 for own_rows, own_cols in squares)


def test_a_lattice_without_a_kept_cell_is_asked_about_once():
    asked = []
    assert not list(kept_squares(range(10**9), range(10**9), lambda *part: asked.append(part), side=1))
    assert len(asked) == 1


@given(cuts)
def test_chips_come_in_row_order(cut):
    windows = chip_windows(**cut)
    assert windows == sorted(windows)


@given(cuts)
def test_every_chip_has_the_size_and_holds_a_pixel_of_the_grid(cut):
    for window in chip_windows(**cut):
        assert window.shape == (cut["size"], cut["size"])
        assert not (window & Window(0, 0, cut["height"], cut["width"])).is_empty


@given(cuts)
def test_shifted_and_padded_chips_cover_the_grid_unless_the_stride_leaves_gaps(cut):
    assume(cut["edge"] != "drop" and cut["stride"] <= cut["size"])
    grid = Window(0, 0, cut["height"], cut["width"])
    parts = [window & grid for window in chip_windows(**cut)]
    assert (count_pixels(cut["height"], cut["width"], parts) >= 1).all()


@given(cuts)
def test_shifted_and_dropped_chips_lie_inside_a_grid_that_is_large_enough(cut):
    assume(cut["edge"] != "pad" and min(cut["height"], cut["width"]) >= cut["size"])
    windows = chip_windows(**cut)
    assert windows
    assert all(inside(window, cut) for window in windows)


@given(cuts)
def test_dropping_never_cuts_outside_the_grid(cut):
    assume(cut["edge"] == "drop")
    assert all(inside(window, cut) for window in chip_windows(**cut))


@given(cuts)
def test_padded_and_dropped_chips_begin_at_multiples_of_the_stride(cut):
    assume(cut["edge"] != "shift")
    assert all(w.row % cut["stride"] == 0 and w.col % cut["stride"] == 0 for w in chip_windows(**cut))


def test_chips_of_1000_pixels_by_256_and_128_are_7_by_7():
    # 0, 128, 256, 384, 512, 640 fit (640 + 256 = 896); the seventh is moved in to 1000 - 256 = 744.
    windows = chip_windows(1000, 1000, size=256, stride=128, edge="shift")
    starts = [0, 128, 256, 384, 512, 640, 744]
    assert [(w.row, w.col) for w in windows] == [(row, col) for row in starts for col in starts]


def test_chips_of_banepa_are_15_by_31():
    # 2048 rows: (2048 - 256) / 128 + 1 = 15; 4096 columns: (4096 - 256) / 128 + 1 = 31; both come out even.
    assert len(chip_windows(2048, 4096, size=256, stride=128, edge="shift")) == 15 * 31 == 465


@pytest.mark.parametrize(
    ("edge", "starts"),
    [
        # 0123456789
        # ====          size 4, stride 3: 0, 3, 6 end at 10 exactly.
        ("shift", [0, 3, 6]),
        ("pad", [0, 3, 6]),
        ("drop", [0, 3, 6]),
    ],
)
def test_chips_that_come_out_even_need_no_edge_policy(edge, starts):
    assert [w.col for w in chip_windows(4, 10, size=4, stride=3, edge=edge)] == starts


@pytest.mark.parametrize(
    ("edge", "starts"),
    [
        # 0123456789a   eleven columns, size 4, stride 4
        # ====
        #     ====
        #        ====   shift: 11 - 4 = 7
        #         ====  pad: at 8, one column outside
        ("shift", [0, 4, 7]),
        ("pad", [0, 4, 8]),
        ("drop", [0, 4]),
    ],
)
def test_the_edge_policy_decides_on_the_last_chip(edge, starts):
    assert [w.col for w in chip_windows(4, 11, size=4, stride=4, edge=edge)] == starts


@pytest.mark.parametrize(("edge", "count"), [("shift", 1), ("pad", 1), ("drop", 0)])
def test_a_grid_smaller_than_a_chip_is_padded_or_dropped(edge, count):
    assert chip_windows(3, 3, size=4, stride=4, edge=edge) == [Window(0, 0, 4, 4)] * count


@pytest.mark.parametrize(("size", "stride"), [(0, 1), (4, 0), (4, -1)])
def test_sizes_and_strides_below_one_pixel_are_refused(size, stride):
    with pytest.raises(TilingError, match=f"chip size is {size} and stride is {stride}"):
        chip_windows(10, 10, size=size, stride=stride, edge="shift")
