"""Random windows of the training ground, and how they are read."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscribe import verbs
from landscribe.data.batches.dataset import ChipDataset
from landscribe.data.batches.sampling import ChipSampler
from landscribe.data.batches.windows import RandomWindowSampler
from landscribe.data.chips.chips import Chips
from landscribe.data.chips.files import dense_numbers
from landscribe.data.chips.window_reader import WindowReader
from landscribe.data.scenes.scene import Scene
from landscribe.geo.classes import IGNORE
from landscribe.geo.grid import Window
from worlds import noise, pixel_box, write_polygons, write_raster

SIDE = 16
SCENE = 128


def cut(folder, *, virtual: bool = False, **settings) -> Chips:
    """Chips of a scene with nodata in a corner and houses; a fifth is held out."""
    array = noise(2, SCENE, SCENE, "uint16")
    array[:, :20, :12] = 0
    folder.mkdir(exist_ok=True)
    image = write_raster(folder / "scene.tif", array, nodata=0)
    houses = write_polygons(folder / "labels.gpkg", [pixel_box(r, c, 9, 13) for r in (5, 40, 77) for c in (3, 50, 101)])
    defaults = {"size": SIDE, "val": 0.2, "test": 0, "seed": 3}
    return verbs.chip(images=[image], labels=houses, out=folder / "chips", virtual=virtual, **defaults | settings)


@pytest.fixture(scope="module")
def every(tmp_path_factory) -> Chips:
    return cut(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def chips(every) -> Chips:
    return every.of_split("train")


def sampler(chips: Chips, seed: int = 0) -> RandomWindowSampler:
    return RandomWindowSampler(chips, np.ones(len(chips)), seed=seed)


def times_shown(windows, chips: Chips) -> np.ndarray:
    shown = np.zeros((SCENE, SCENE))
    for chip, row, col in windows:
        shown[Window(row, col, *chips.windows[chip].shape).slices] += 1
    return shown


def ground(chips: Chips) -> np.ndarray:
    area = np.zeros((SCENE, SCENE), bool)
    for window in chips.windows:
        area[window.slices] = True
    return area


@given(st.integers(0, 1000))
def test_windows_lie_in_the_training_ground(chips, seed):
    area = ground(chips)
    for chip, row, col in sampler(chips, seed):
        assert area[Window(row, col, *chips.windows[chip].shape).slices].all()


def test_each_labelled_pixel_is_shown_half_to_three_times_as_often_as_the_mean(chips):
    order = sampler(chips)
    passes = 40
    shown = times_shown([window for _ in range(passes) for window in order], chips)
    labelled = ground(chips)
    labelled[:20, :12] = False
    # Uniform windows would show a corner of the ground once in 256 draws. Where the ground is two chips wide, each
    # window shows its middle.
    assert shown[labelled].min() > 0.5 * passes
    assert shown[labelled].max() < 3 * passes
    assert np.percentile(shown[labelled], [5, 95]) == pytest.approx([0.7 * passes, 1.5 * passes], rel=0.1)
    assert shown[labelled].mean() == pytest.approx(passes, rel=0.1)


def test_most_windows_are_no_chips(chips):
    own = {(window.row, window.col) for window in chips.windows}
    drawn = [(row, col) for _, row, col in sampler(chips)]
    assert np.mean([position in own for position in drawn]) < 0.3


def test_lone_chips_are_each_drawn_once_a_pass(chips):
    alone = replace(chips, table=chips.table.assign(scene=[f"scene {n}" for n in range(len(chips))]))
    order = sampler(alone)
    for _ in range(3):
        drawn = list(order)
        assert sorted(index for index, _, _ in drawn) == list(range(len(alone)))
        assert all((row, col) == (alone.windows[index].row, alone.windows[index].col) for index, row, col in drawn)


@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize("drawn", [None, 10])
def test_a_later_epoch_does_not_depend_on_a_restart(chips, epoch, drawn):
    def orders():
        for order in (sampler(chips, seed=4), ChipSampler(np.full(len(chips), 0.7), seed=4)):
            order.drawn = drawn or order.pass_length
            yield order

    for through, resumed in zip(orders(), orders(), strict=True):
        epochs = [list(through) for _ in range(epoch + 1)]
        resumed.epoch = epoch
        assert list(resumed) == epochs[-1]
        assert epochs[-1] != epochs[-2]


def test_windows_of_sparse_labels_show_labelled_pixels(tmp_path):
    image = write_raster(tmp_path / "scene.tif", noise(1, 96, 96))
    labels = write_polygons(
        tmp_path / "labels.gpkg", [pixel_box(10, 10, 4, 4), pixel_box(70, 60, 3, 5)], kind=["a", "b"]
    )
    chips = verbs.chip(
        images=[image], labels=labels, label_field="kind", sparse=True, out=tmp_path / "chips", size=SIDE, val=0, test=0
    )
    dataset, order = ChipDataset(chips), sampler(chips)
    for index in [window for _ in range(5) for window in order]:
        assert (dataset[index]["label"] != IGNORE).any()


def test_ground_of_factor_0_is_drawn_with_its_neighbours_only(chips):
    background = ~chips.table["positive"].to_numpy(bool)
    order = RandomWindowSampler(chips, np.where(background, 0.0, 1.0), seed=0)
    drawn = [window for _ in range(4) for window in order]
    assert {index for index, _, _ in drawn} == set(np.flatnonzero(~background))


@pytest.mark.parametrize("kind", [RandomWindowSampler, ChipSampler])
def test_nothing_is_drawn_where_all_factors_are_0(chips, kind):
    given = (chips,) if kind is RandomWindowSampler else ()
    assert list(kind(*given, np.zeros(len(chips)), seed=0)) == []


POSITIONS = st.tuples(st.integers(0, SCENE - SIDE), st.integers(0, SCENE - SIDE))


@pytest.fixture(scope="module", params=["files", "virtual", "kept files", "kept virtual"])
def reader(request, tmp_path_factory) -> WindowReader:
    """All of the scene is cut, so that any window is of its ground."""
    whole = cut(tmp_path_factory.mktemp("world"), virtual="virtual" in request.param, val=0, objects=True)
    return WindowReader(whole, kept_bytes=2**30 if "kept" in request.param else 0)


@given(POSITIONS)
def test_a_window_has_the_pixels_and_labels_of_its_scene(reader, position):
    (scene,) = reader.chips.scenes().values()
    expected = scene.read(Window(*position, SIDE, SIDE))
    for found, wanted in zip(reader.read(0, *position), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@given(POSITIONS)
def test_the_object_numbers_of_a_window_are_those_of_its_scene(reader, position):
    (scene,) = reader.chips.scenes().values()
    numbers = dense_numbers(scene.read_objects(Window(*position, SIDE, SIDE)))
    np.testing.assert_array_equal(reader.read_objects(0, *position), numbers)


def test_windows_of_kept_virtual_chips_read_each_chip_once(tmp_path, monkeypatch):
    chips = cut(tmp_path / "world", virtual=True, objects=True).of_split("train")
    windows = [window for window in sampler(chips) if window[1] % SIDE or window[2] % SIDE]
    reads = []

    def noted(read):
        return lambda scene, window: reads.append((read, window)) or read(scene, window)

    for name in ("read", "read_objects"):
        monkeypatch.setattr(Scene, name, noted(getattr(Scene, name)))
    samples = ChipDataset(chips, kept_bytes=2**30)
    for _ in range(2):
        _ = [samples[window] for window in windows]
    assert {window for _, window in reads} <= set(chips.windows)
    assert len(reads) == len(set(reads))


def test_windows_of_chips_need_no_scene(tmp_path):
    chips = cut(tmp_path / "world")
    before = WindowReader(chips).read(0, 7, 9)
    (tmp_path / "world" / "scene.tif").unlink()
    after = WindowReader(Chips.open(chips.folder)).read(0, 7, 9)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_what_is_done_to_a_window_is_not_done_to_the_kept_chips(every):
    reader = WindowReader(every, kept_bytes=2**30)
    window = every.windows[0]
    for position in ((window.row, window.col), (window.row + 1, window.col)):
        before = reader.read(0, *position)
        expected = before.pixels.copy()
        before.pixels[:] = 0
        np.testing.assert_array_equal(reader.read(0, *position).pixels, expected)
