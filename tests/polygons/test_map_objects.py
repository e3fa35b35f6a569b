"""Objects of a map: each has one number, whatever the blocks."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from landscribe.errors import RasterError
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Raster
from landscribe.polygons.object_spec import ObjectSpec
from landscribe.polygons.objects import ObjectTable, _owners, _Seams, _Tally, objects_of
from worlds import write_raster

SIDE = 60


def numbers_of(folder: Path, classes, layers=None, names=("segment", "border", "inner"), **spec):
    mapped = write_raster(
        folder / "map.tif",
        classes.astype(np.uint8),
        nodata=255,
    )
    if layers is not None:
        layers = Raster.open([write_raster(folder / "layers.tif", layers, nodata=255, descriptions=names)])
    table = objects_of(Raster.open([mapped]), [1, 2], layers, ObjectSpec(**spec), folder / "objects.tif")
    with rasterio.open(folder / "objects.tif") as source:
        assert (source.dtypes, source.profile["tiled"], source.profile["compress"]) == (("uint32",), True, "deflate")
        numbers = source.read(1)
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []
    return numbers, table


def town(seed: int, side: int = SIDE, house: int = 9, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Houses that often touch: class values, and object probabilities with ragged inner parts."""
    rng = np.random.default_rng(seed)
    values, layers = np.zeros((side, side), np.uint8), np.zeros((3, side, side), np.uint8)
    for _ in range(side * side // 60):
        row, col = rng.integers(0, side, 2)
        height, width = rng.integers(3, house, 2)
        values[row : row + height, col : col + width] = rng.integers(1, classes + 1)
        layers[1:, row : row + height, col : col + width] = [[[200]], [[rng.integers(0, 60)]]]
        inner = slice(row + 1, row + height - 1), slice(col + 1, col + width - 1)
        layers[1][inner] = 30
        layers[2][inner] = rng.integers(100, 255, layers[2][inner].shape)
    layers[0] = np.where(values > 0, 250, 3)
    values[: side // 8, : side // 8] = 255
    return values, layers


def check(numbers: np.ndarray, table: ObjectTable, classes: np.ndarray) -> None:
    """What holds of all objects."""
    np.testing.assert_array_equal(numbers > 0, (classes > 0) & (classes != 255))
    assert numbers.max() == len(table)
    present, first = np.unique(numbers, return_index=True)
    first = first[present > 0]
    assert (np.diff(first) > 0).all()
    np.testing.assert_array_equal(table.values, classes.ravel()[first])
    np.testing.assert_array_equal(table.pixels, np.bincount(numbers.ravel(), minlength=len(table) + 1)[1:])
    for number in range(1, len(table) + 1):
        own = numbers == number
        assert len(np.unique(classes[own])) == 1
        assert ndimage.label(own)[1] == 1


@pytest.mark.parametrize("has_layers", [True, False])
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_objects_do_not_depend_on_the_blocks(tmp_path_factory, has_layers, seed):
    folder = tmp_path_factory.mktemp("town")
    classes, layers = town(seed)
    layers, options = layers if has_layers else None, {"halo": SIDE, "minimum_distance": 4}
    whole, table = numbers_of(folder, classes, layers, block=64, **options)
    check(whole, table, classes)
    for block in (16, 23, 37):
        numbers, other = numbers_of(folder, classes, layers, block=block, **options)
        np.testing.assert_array_equal(numbers, whole)
        np.testing.assert_array_equal(other.scores, table.scores)


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_small_objects_do_not_depend_on_blocks_with_a_small_halo(tmp_path_factory, seed):
    folder = tmp_path_factory.mktemp("town")
    classes, layers = town(seed, side=80, house=6, classes=1)
    # Every house has a seed.
    layers[1] = 0
    layers[2][ndimage.binary_erosion(classes == 1)] = 254
    whole, _ = numbers_of(folder, classes, layers, halo=80, block=128, minimum_seed=1)
    for block in (16, 27):
        numbers, _ = numbers_of(folder, classes, layers, halo=24, block=block, minimum_seed=1)
        np.testing.assert_array_equal(numbers, whole)


@given(seed=st.integers(0, 2**31), block=st.integers(16, 70))
@settings(max_examples=5, deadline=None)
def test_without_inner_parts_objects_are_the_4_connected_parts_of_each_class(tmp_path_factory, seed, block):
    classes, layers = town(seed)
    numbers, table = numbers_of(tmp_path_factory.mktemp("town"), classes, np.zeros_like(layers), block=block)
    expected = sum(ndimage.label(classes == value)[1] for value in (1, 2))
    assert len(table) == expected
    check(numbers, table, classes)
    assert not table.scores.any()


def two_halves() -> tuple[np.ndarray, np.ndarray]:
    """A house of two halves of 20 x 20, whose common border is at column 30."""
    classes, layers = np.zeros((40, SIDE), np.uint8), np.zeros((3, 40, SIDE), np.uint8)
    classes[10:30, 10:50] = 1
    layers[0][classes == 1] = 254
    layers[2, 12:28, 12:28] = layers[2, 12:28, 32:48] = 254
    return classes, layers


@pytest.mark.parametrize("block", [16, 30, 31, 64])
def test_touching_halves_with_two_inner_parts_are_two_objects(tmp_path, block):
    classes, layers = two_halves()
    numbers, table = numbers_of(tmp_path, classes, layers, block=block, halo=60)
    assert (numbers[10:30, 10:30] == 1).all()
    assert (numbers[10:30, 30:50] == 2).all()
    assert table.pixels.tolist() == [400, 400]
    np.testing.assert_allclose(table.scores, 256 / 400, atol=1e-6)


@pytest.mark.parametrize("block", [16, 29, 64])
def test_a_border_separates_inner_parts_and_a_speck_is_no_seed(tmp_path, block):
    classes, layers = two_halves()
    layers[2, 12:28, 12:48] = 254
    joined, _ = numbers_of(tmp_path, classes, layers, block=block, halo=60)
    assert joined.max() == 1
    layers[1, 10:30, 28:32] = 200
    layers[1, 14:20, 14:20], layers[1, 15:18, 15:18] = 200, 0
    numbers, _ = numbers_of(tmp_path, classes, layers, block=block, halo=60)
    assert [len(np.unique(numbers[10:30, cols])) for cols in (slice(10, 30), slice(30, 50))] == [1, 1]
    specks, _ = numbers_of(tmp_path, classes, layers, block=block, halo=60, minimum_seed=9)
    assert specks.max() == 3


def blobs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Parts of a class that wind through the map, each with many objects."""
    rng = np.random.default_rng(seed)
    classes = (ndimage.gaussian_filter(rng.random((160, 160)), 6) > 0.47).astype(np.uint8)
    rough = ndimage.gaussian_filter(rng.random((160, 160)), 2)
    layers = np.zeros((3, 160, 160), np.uint8)
    layers[2] = np.where(rough > np.quantile(rough, 0.9), 254, (rough - rough.min()) / np.ptp(rough) * 126)
    return classes, layers


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_pixels_of_an_object_are_connected_also_in_parts_that_are_longer_than_the_halo(tmp_path_factory, seed):
    classes, layers = blobs(seed)
    folder = tmp_path_factory.mktemp("blobs")
    numbers, table = numbers_of(folder, classes, layers, halo=12, block=32, minimum_seed=1)
    check(numbers, table, classes)


@pytest.mark.parametrize(("halo", "is_cut"), [(12, True), (160, False)])
def test_pieces_that_the_halo_cuts_off_are_counted_in_a_warning(tmp_path, caplog, halo, is_cut):
    classes, layers = blobs(0)
    numbers_of(tmp_path, classes, layers, halo=halo, block=32, minimum_seed=1)
    assert ("pieces of objects that lie farther" in caplog.text) == is_cut


@pytest.mark.parametrize(("labels", "owner"), [([1, 2, 3], 1), ([2, 1, 3], 2)])
def test_a_part_without_a_seed_joins_the_neighbour_whose_first_pixel_comes_first(labels, owner):
    # Labels 1 and 2 are seeds; the part, 3, touches both over a seam.
    row = np.array([labels])
    seams, tally = _Seams(width=3, stop=4, pairs=[np.array([[1, 3], [2, 3]])]), _Tally(width=3)
    tally.add(Window(0, 0, 1, 3), row, np.ones_like(row), np.zeros_like(row))
    assert _owners(seams, 2, tally).tolist() == [0, 1, 2, owner]


def test_an_object_longer_than_the_halo_is_one_object(tmp_path):
    classes, layers = np.zeros((40, 200), np.uint8), np.zeros((3, 40, 200), np.uint8)
    classes[4:20, 3:190] = 1
    layers[2, 8:16, 5:9] = 254
    classes[30:33] = 1
    numbers, table = numbers_of(tmp_path, classes, layers, block=16, halo=4)
    assert len(table) == 2
    np.testing.assert_array_equal(numbers[4:20, 3:190], 1)
    np.testing.assert_array_equal(numbers[30:33], 2)


def test_a_neck_splits_objects_by_distance_and_a_ragged_edge_does_not(tmp_path):
    classes = np.zeros((60, 90), np.uint8)
    classes[10:40, 5:40], classes[22:28, 40:46], classes[10:40, 46:80] = 1, 1, 1
    classes[9, 5:40:3] = 1
    numbers, table = numbers_of(tmp_path, classes, minimum_distance=6, block=32, halo=64)
    assert len(table) == 2
    assert (numbers[10:40, 5:40] == 1).all()
    assert (numbers[10:40, 46:80] == 2).all()


def test_only_chosen_values_are_objects(tmp_path):
    classes = np.zeros((20, 20), np.uint8)
    classes[2:6, 2:6], classes[2:6, 6:9] = 1, 2
    mapped = write_raster(tmp_path / "map.tif", classes)
    table = objects_of(Raster.open([mapped]), [2], None, ObjectSpec(), tmp_path / "o.tif")
    assert table.values.tolist() == [2]
    assert table.pixels.tolist() == [12]


def test_a_map_without_objects_gives_an_empty_table(tmp_path):
    numbers, table = numbers_of(tmp_path, np.zeros((20, 20), np.uint8), block=16)
    assert len(table) == 0
    assert not numbers.any()


def test_inputs_that_do_not_fit_are_refused(tmp_path):
    classes, layers = two_halves()
    with pytest.raises(RasterError, match=r"layers.tif has the bands a, b. Expected segment, border, inner. Predict"):
        numbers_of(tmp_path, classes, layers[:2], names=("a", "b"))
    with pytest.raises(RasterError, match="lie on different grids"):
        numbers_of(tmp_path, classes, layers[:, :20])
    bare = Raster.open([write_raster(tmp_path / "bare.tif", classes, crs=None, transform=None)])
    with pytest.raises(RasterError, match="has no CRS, so a minimum distance of 4 m"):
        objects_of(bare, [1], None, ObjectSpec(), tmp_path / "objects.tif")
