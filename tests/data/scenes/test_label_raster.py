"""Label rasters as tools export them: 0 and 255, compressed, transparent, grey in three bands, nodata 0, floats."""

from contextlib import contextmanager

import numpy as np
import pytest
from affine import Affine
from PIL import Image

from landscribe import progress
from landscribe.data.scenes import label_raster
from landscribe.data.scenes.label_raster import LabelRaster
from landscribe.data.scenes.scene import open_scenes
from landscribe.data.scenes.spec import ClassSpec, SceneSpec
from landscribe.errors import ClassError, GridError, LabelError, ResourceError
from landscribe.geo.classes import ClassEntry, Classes
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Raster
from worlds import METRE, UTM, noise, write_raster

H, W = 40, 48
SQUARE = np.zeros((H, W), np.uint8)
SQUARE[8:24, 10:30] = 1


@pytest.fixture
def labels_of(tmp_path):
    """Opens one scene with a mask, and returns its class values (rows, cols) and class table."""

    def opened(mask, table=(), name="mask.tif", *, file=None, **settings):
        image = write_raster(tmp_path / "scene.tif", noise(3, H, W))
        path = write_raster(tmp_path / name, mask, **(file or {}))
        (scene,), classes = open_scenes([SceneSpec(image=(str(image),), labels=str(path), **settings)], table)
        return scene.labels.read(scene.image.grid.window), classes

    return opened


def test_a_mask_of_0_and_255_is_background_and_one_class(labels_of):
    values, classes = labels_of(SQUARE * 255, name="mask.png", file={"crs": None, "transform": None})
    np.testing.assert_array_equal(values, SQUARE)
    assert classes.names == ("background", "foreground")
    assert [entry.label for entry in classes] == [0, 255]


@pytest.mark.parametrize(("other", "dtype"), [(65535, np.uint16), (-1, np.int16), (1000, np.int32)])
def test_a_mask_of_0_and_a_number_that_no_value_can_be_is_background_and_one_class(labels_of, other, dtype):
    values, classes = labels_of(SQUARE.astype(dtype) * other)
    np.testing.assert_array_equal(values, SQUARE)
    assert (classes.names, [entry.label for entry in classes]) == (("background", "foreground"), [0, other])


def test_255_beside_other_values_is_a_class_where_the_class_table_says_so(labels_of):
    mask = SQUARE * 255
    mask[30:35] = 127
    table = [ClassSpec(name=name, value=value, label=label) for value, name, label in
             ((0, "background", 0), (1, "road", 127), (2, "building", 255))]  # fmt: skip
    values, _ = labels_of(mask, table)
    np.testing.assert_array_equal(values, np.select([mask == 127, mask == 255], [1, 2]))


def test_255_beside_other_values_is_asked_about_without_a_class_table(labels_of):
    mask = SQUARE * 255
    mask[30:35] = 127
    with pytest.raises(ClassError, match=r"hold 255 beside 0, 127: a class, or unlabelled .* --label-ignore 255"):
        labels_of(mask)
    values, classes = labels_of(mask, label_ignore=("255",))
    assert classes.values == (0, 127)
    assert (values[SQUARE == 1] == 255).all()
    values, classes = labels_of(mask, label_ignore=("none",))
    assert [entry.label for entry in classes] == [0, 127, 255]
    assert set(values[SQUARE == 1].tolist()) == {classes.values[2]}


def test_a_compressed_mask_is_refused_and_its_remedy_works(labels_of):
    mask, file = SQUARE.repeat(1, 0) * 255, {"crs": None, "transform": None}
    with pytest.raises(LabelError, match=r"values, .* along edges only .* compressed .*--label-threshold 12[0-9]"):
        labels_of(mask, name="mask.jpg", file=file)
    values, classes = labels_of(mask, name="mask.jpg", file=file, label_threshold=128)
    np.testing.assert_array_equal(values, SQUARE)
    assert classes.names == ("background", "foreground")


def test_a_compressed_mask_of_grey_in_three_bands_is_read_by_a_threshold(labels_of):
    file = {"crs": None, "transform": None}
    values, classes = labels_of(np.stack([SQUARE * 255] * 3), name="mask.jpg", file=file, label_threshold=128)
    np.testing.assert_array_equal(values, SQUARE)
    assert classes.names == ("background", "foreground")


def test_many_classes_that_fill_areas_are_no_compression(labels_of):
    mask = np.arange(H * W // 16, dtype=np.uint8).reshape(H // 4, W // 4) % 60
    _, classes = labels_of(mask.repeat(4, 0).repeat(4, 1))
    assert len(classes) == 60


def test_nodata_of_a_mask_is_a_class_where_the_class_table_has_its_value(labels_of):
    """As rasterizing programs write it: ground between the polygons is 0, and 0 is declared as nodata."""
    table = [ClassSpec(name="ground", value=0), ClassSpec(name="house", value=1)]
    values, _ = labels_of(SQUARE, table, file={"nodata": 0})
    np.testing.assert_array_equal(values, SQUARE)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_nodata_of_numbers_and_of_floats_is_a_class_where_the_class_table_has_it(labels_of, dtype):
    table = [ClassSpec(name="ground", value=0), ClassSpec(name="house", value=1)]
    values, _ = labels_of(SQUARE.astype(dtype), table, file={"nodata": 0})
    np.testing.assert_array_equal(values, SQUARE)
    values, classes = labels_of(SQUARE.astype(dtype), file={"nodata": 0})
    assert classes.values == (1,)
    np.testing.assert_array_equal(values, np.where(SQUARE, 1, 255))


@pytest.mark.filterwarnings("error")
def test_a_float_mask_may_have_nan_beside_nodata_beyond_every_integer(labels_of):
    mask = SQUARE.astype(np.float32)
    mask[0], mask[1] = np.nan, np.finfo(np.float32).min
    values, classes = labels_of(mask, file={"nodata": float(np.finfo(np.float32).min)})
    assert classes.values == (0, 1)
    expected = SQUARE.copy()
    expected[:2] = 255
    np.testing.assert_array_equal(values, expected)


def test_nodata_of_a_mask_is_unlabelled_without_a_class_table_or_the_class_that_is_named(labels_of):
    mask = SQUARE.copy()
    mask[30:35] = 2
    values, classes = labels_of(mask, file={"nodata": 0})
    assert classes.values == (1, 2)
    np.testing.assert_array_equal(values, np.where(mask == 0, 255, mask))
    values, classes = labels_of(mask, file={"nodata": 0}, label_nodata_as="background")
    assert classes.names == ("background", "1", "2")
    np.testing.assert_array_equal(values, mask)
    with pytest.raises(ClassError, match="label_nodata_as is 'water', but the classes are 1, 2"):
        labels_of(mask, file={"nodata": 0}, label_nodata_as="water")


def test_transparent_pixels_of_a_mask_are_unlabelled_or_the_class_that_is_named(labels_of):
    opaque = SQUARE * 255
    mask = np.stack([opaque // 2, opaque // 2, opaque // 2, opaque])
    mask[:3, 10:12, 12:20] = 9
    options = {"name": "mask.png", "file": {"crs": None, "transform": None, "alpha": True}}
    values, classes = labels_of(mask, **options)
    assert [entry.label for entry in classes] == [9, 127]
    assert (values[SQUARE == 0] == 255).all()
    values, classes = labels_of(mask, **options, label_nodata_as="background")
    assert classes.names == ("background", "9", "127")
    assert (values[SQUARE == 0] == 0).all()


@pytest.mark.parametrize("kind", ["nan", "mask band"])
@pytest.mark.parametrize("settings", [{}, {"label_threshold": 0.5}, {"label_objects": True}], ids=str)
def test_masked_pixels_on_another_grid_are_the_named_class_where_the_raster_reaches(labels_of, kind, settings):
    finer = SQUARE[:30].repeat(2, 0).repeat(2, 1)
    mask, file = {
        "nan": (np.where(finer, 1, np.nan).astype(np.float32), {}),
        "mask band": (finer, {"valid": finer == 1}),
    }[kind]
    file = {"transform": METRE @ Affine.scale(0.5), **file}
    values, _ = labels_of(mask, file=file, label_nodata_as="background", **settings)
    np.testing.assert_array_equal(values[:30], SQUARE[:30])
    assert (values[30:] == 255).all()


@pytest.fixture
def palette_of(tmp_path):
    """Writes a mask of indices as PNG with a palette, in which some indices are transparent; a LabelRaster of it."""

    def written(mask, transparent):
        picture = Image.fromarray(mask)
        picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
        picture.save(tmp_path / "palette.png", transparency=bytes(0 if i in transparent else 255 for i in range(3)))
        return LabelRaster(Raster.open(tmp_path / "palette.png"))

    return written


@pytest.mark.parametrize("transparent", [{0}, {0, 2}, {1, 2}])
def test_transparent_colours_of_a_palette_are_unlabelled_unless_the_class_table_has_their_number(
    palette_of, transparent
):
    mask = SQUARE.copy()
    mask[30:] = 2
    labels = palette_of(mask, transparent)
    opaque = {0, 1, 2} - transparent
    assert labels.labels(colours=False) == opaque
    values = labels.with_classes(Classes.from_labels(list(opaque), background=False)).read(Window(0, 0, H, W))
    np.testing.assert_array_equal(values, np.where(np.isin(mask, list(opaque)), mask, 255))
    values = labels.with_classes(Classes.from_labels([0, 1, 2], background=False)).read(Window(0, 0, H, W))
    np.testing.assert_array_equal(values, mask)


@pytest.mark.parametrize("transparent", [{0}, {0, 2}])
def test_transparent_colours_of_a_palette_are_no_colours(palette_of, transparent):
    mask = SQUARE.copy()
    mask[30:] = 2
    labels = palette_of(mask, transparent)
    colours = ["#ff0000", "#00ff00", "#0000ff"]
    assert labels.labels(colours=True) == {colours[index] for index in {0, 1, 2} - transparent}
    classes = Classes(tuple(ClassEntry(value, str(value), label, label) for value, label in enumerate(colours)))
    values = labels.with_classes(classes).read(Window(0, 0, H, W))
    np.testing.assert_array_equal(values, np.where(np.isin(mask, list(transparent)), 255, mask))


SHIFTED = np.full((H, W), 255)
SHIFTED[5:, 10:] = SQUARE[:-5, :-10]
"""The square in the pixels of an image that begins 5 rows above and 10 columns left of the mask."""


@pytest.mark.parametrize("crs", [UTM, None], ids=["image with CRS", "image without CRS"])
def test_a_mask_without_a_crs_lies_where_its_own_georeference_says(tmp_path, crs):
    image = write_raster(tmp_path / "scene.tif", noise(3, H, W), crs=crs)
    mask = write_raster(tmp_path / "m.tif", SQUARE, crs=None, transform=METRE @ Affine.translation(10, 5))
    (scene,), _ = open_scenes([SceneSpec(image=(str(image),), labels=str(mask))])
    np.testing.assert_array_equal(scene.labels.read(scene.image.grid.window), SHIFTED)


def test_a_mask_lies_where_its_world_file_says(labels_of, tmp_path):
    (tmp_path / "mask.pgw").write_text("1\n0\n0\n-1\n500010.5\n4999994.5\n")
    values, _ = labels_of(SQUARE, name="mask.png", file={"crs": None, "transform": None})
    np.testing.assert_array_equal(values, SHIFTED)


def test_a_mask_without_a_crs_whose_georeference_lies_off_the_image_is_refused(labels_of):
    far = {"crs": None, "transform": METRE @ Affine.translation(1000, 0)}
    with pytest.raises(
        GridError, match=r"mask.tif has no CRS, .*\(501000, 5000000\) .*\(500000, 5000000\).*rio edit-info --crs"
    ):
        labels_of(SQUARE, file=far)


def test_grey_in_three_bands_is_one_band_of_numbers(labels_of):
    values, classes = labels_of(np.stack([SQUARE * 255] * 3), name="m.png", file={"crs": None, "transform": None})
    np.testing.assert_array_equal(values, SQUARE)
    assert classes.names == ("background", "foreground")


def test_grey_is_a_colour_where_the_class_table_has_colours(labels_of):
    table = [ClassSpec(name="a", value=0, label="#000000"), ClassSpec(name="b", value=1, label="#ffffff")]
    values, _ = labels_of(np.stack([SQUARE * 255] * 3), table)
    np.testing.assert_array_equal(values, SQUARE)


def test_a_label_that_begins_with_a_hash_makes_no_colours_of_a_mask(labels_of):
    table = [ClassSpec(name="a", value=0, label=0), ClassSpec(name="b", value=1, label=1)]
    table.append(ClassSpec(name="forest", value=2, label="#forest"))
    values, _ = labels_of(SQUARE, table)
    np.testing.assert_array_equal(values, SQUARE)


def test_whole_numbers_as_floats_are_class_values(labels_of):
    mask = SQUARE.astype(np.float32) * 3
    mask[0] = np.nan
    values, classes = labels_of(mask)
    assert classes.values == (0, 3)
    np.testing.assert_array_equal(values, np.where(np.isnan(mask), 255, SQUARE * 3))


def test_probabilities_are_labels_from_a_threshold_up(labels_of):
    values, classes = labels_of(SQUARE * np.float32(0.75), label_threshold=0.5)
    assert classes.names == ("background", "foreground")
    np.testing.assert_array_equal(values, SQUARE)


def empty_vrt(path, side, nodata=""):
    """A virtual raster without a source: GDAL fills it with its nodata value, or with 0."""
    path.write_text(
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>EPSG:32632</SRS>'
        f'<GeoTransform>500000,0.001,0,5000000,0,-0.001</GeoTransform><VRTRasterBand dataType="Byte" band="1">'
        f"{nodata}</VRTRasterBand></VRTDataset>"
    )
    return LabelRaster(Raster.open([str(path)]))


def test_a_raster_that_takes_days_to_read_for_its_classes_is_refused_with_both_numbers(tmp_path):
    labels = empty_vrt(tmp_path / "labels.vrt", 2**31 - 1)
    with pytest.raises(ResourceError, match=r"labels.vrt has 2147483647 x 2147483647 pixels.* 1e\+13 at most.* table"):
        labels.labels(colours=False)


def test_nodata_of_a_label_raster_is_not_read_for_its_classes(tmp_path):
    labels = empty_vrt(tmp_path / "labels.vrt", 2**31 - 1, "<NoDataValue>0</NoDataValue>")
    assert labels.labels(colours=False) == set()


def test_a_long_reading_for_classes_reports_its_progress(labels_of, monkeypatch):
    monkeypatch.setattr(label_raster, "_STRIP_PIXELS", 10 * W)
    reported = []

    @contextmanager
    def reporter(name, total):
        reported.append((name, total))
        yield lambda steps=1, note="": reported.append(steps)

    token = progress.reporter.set(reporter)
    try:
        labels_of(SQUARE)
    finally:
        progress.reporter.reset(token)
    assert reported == [("reading mask.tif", 4), 1, 1, 1, 1]
