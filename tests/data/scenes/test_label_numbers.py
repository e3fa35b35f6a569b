"""Object numbers of labels: each polygon, or each number of a raster, is an object."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscribe.data.scenes.scene import Scene, open_scenes
from landscribe.data.scenes.spec import ClassSpec, SceneSpec
from landscribe.errors import RecipeError
from landscribe.geo.grid import Window
from worlds import METRE, counting, pixel_box, write_polygons, write_raster

SIDE = 24
ALL = Window(0, 0, SIDE, SIDE)
TABLE = [ClassSpec(name="ground", value=0), ClassSpec(name="house", value=3), ClassSpec(name="shed", value=4)]


def opened(folder, labels, table=(), **settings) -> tuple[Scene, tuple[int, ...]]:
    image = write_raster(folder / "image.tif", counting(1, SIDE, SIDE))
    scenes, classes = open_scenes([SceneSpec(image=(str(image),), labels=str(labels), **settings)], table)
    return scenes[0], tuple(entry.value for entry in classes.foreground)


@pytest.fixture
def polygons(tmp_path):
    """Two houses that touch, a shed that overlaps one of them, and ground."""
    boxes = [pixel_box(2, 2, 6, 5), pixel_box(2, 7, 6, 5), pixel_box(6, 9, 9, 9), pixel_box(14, 2, 4, 4)]
    return write_polygons(tmp_path / "labels.gpkg", boxes, kind=["house", "house", "shed", "ground"])


def test_touching_polygons_of_one_class_have_numbers_of_their_own(tmp_path, polygons):
    scene, _ = opened(tmp_path, polygons, TABLE, label_field="kind")
    objects = scene.read_objects(ALL)
    assert set(np.unique(objects)) == {0, 1, 2, 3}
    assert (objects[2:8, 2:7] == 1).all()
    assert (objects[2:6, 7:12] == 2).all()
    assert (objects[14:18, 2:6] == 0).all()


@pytest.mark.parametrize("touched", [(), ("house",), ("all",)])
def test_a_pixel_has_a_number_exactly_where_its_class_is_no_background(tmp_path, polygons, touched):
    scene, foreground = opened(tmp_path, polygons, TABLE, label_field="kind", all_touched=touched)
    mask, objects = scene.read(ALL).mask, scene.read_objects(ALL)
    np.testing.assert_array_equal(objects > 0, np.isin(mask, foreground))
    # The shed has the later class: it lies on top, in both.
    assert (objects[mask == 4] == 3).all()


@given(row=st.integers(-9, SIDE), col=st.integers(-9, SIDE), height=st.integers(1, 30), width=st.integers(1, 30))
def test_numbers_of_a_window_are_those_of_the_whole(tmp_path_factory, row, col, height, width):
    folder = tmp_path_factory.getbasetemp() / "windows"
    if not folder.exists():
        folder.mkdir()
        write_polygons(folder / "labels.gpkg", [pixel_box(1.3, 2.2, 7.1, 4), pixel_box(1.3, 6.2, 9, 9)])
    scene, _ = opened(folder, folder / "labels.gpkg", all_touched=("all",))
    window = Window(row, col, height, width)
    whole = scene.read_objects(Window(-9, -9, 80, 80))
    np.testing.assert_array_equal(scene.read_objects(window), whole[window.relative_to(Window(-9, -9, 80, 80)).slices])


def test_object_numbers_of_a_raster_are_one_class(tmp_path):
    numbers = np.zeros((SIDE, SIDE), np.uint32)
    numbers[2:8, 2:7], numbers[2:8, 7:12] = 70_000, 9
    labels = write_raster(tmp_path / "labels.tif", numbers, nodata=0)
    scene, foreground = opened(tmp_path, labels, label_objects=True)
    assert foreground == (1,)
    np.testing.assert_array_equal(scene.read_objects(ALL), numbers)
    np.testing.assert_array_equal(scene.read(ALL).mask, numbers > 0)
    outside = scene.read_objects(Window(-2, -2, 6, 6))
    assert outside.sum() == 70_000 * 4


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_0_of_a_raster_of_numbers_is_background_also_where_it_is_nodata(tmp_path, dtype):
    numbers = np.zeros((SIDE, SIDE), dtype)
    numbers[2:8, 2:7] = 9
    if dtype is np.float32:
        numbers[0] = np.nan
    scene, _ = opened(tmp_path, write_raster(tmp_path / "labels.tif", numbers, nodata=0), label_objects=True)
    np.testing.assert_array_equal(scene.read_objects(ALL), np.nan_to_num(numbers))
    np.testing.assert_array_equal(scene.read(ALL).mask, np.where(np.isnan(numbers), 255, numbers > 0))


@pytest.mark.parametrize("pixel_size", [2.0, 0.5])
def test_numbers_on_another_grid_are_never_mixed_and_agree_with_the_mask(tmp_path, pixel_size):
    numbers = np.zeros((SIDE, SIDE), np.uint16)
    numbers[2:8, 2:7], numbers[2:8, 7:12] = 100, 200
    labels = write_raster(tmp_path / "labels.tif", numbers)
    scene, _ = opened(tmp_path, labels, label_objects=True, pixel_size=pixel_size)
    window = scene.image.grid.window
    objects = scene.read_objects(window)
    assert set(np.unique(objects)) == {0, 100, 200}
    np.testing.assert_array_equal(objects > 0, scene.read(window).mask == 1)


def test_a_raster_of_classes_does_not_separate_objects(tmp_path):
    values = np.zeros((SIDE, SIDE), np.uint8)
    values[2:8, 2:7], values[2:8, 7:12], values[20:] = 1, 2, 255
    labels = write_raster(tmp_path / "labels.tif", values, nodata=255)
    scene, _ = opened(tmp_path, labels)
    assert not scene.labels.separates_objects
    np.testing.assert_array_equal(scene.read_objects(ALL), np.isin(values, (1, 2)))


def test_objects_outside_the_labelled_area_are_none(tmp_path, polygons):
    area = write_polygons(tmp_path / "area.gpkg", [pixel_box(0, 0, SIDE, 7, transform=METRE)])
    scene, _ = opened(tmp_path, polygons, TABLE, label_field="kind", labelled_area=str(area))
    assert set(np.unique(scene.read_objects(ALL))) == {0, 1}


def test_object_numbers_and_a_threshold_are_refused_together():
    with pytest.raises(RecipeError, match=r"label_objects says .* label_threshold is 3; choose one"):
        SceneSpec.of({"image": "a.tif", "labels": "b.tif", "label_objects": True, "label_threshold": 3})
