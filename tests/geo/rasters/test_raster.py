"""Reading rasters by window, against rasterio's own boundless reads."""

import math
import pickle
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.windows import Window as RasterioWindow

from landscribe.errors import GridError, RasterError, ReadError
from landscribe.geo.grid import Window
from landscribe.geo.inputs import open_rasters
from landscribe.geo.rasters import open_file
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.rasters.whole_files import read_band
from landscribe.geo.spec import ImagerySpec
from worlds import METRE, counting, noise, write_raster

ALL = Window(0, 0, 9, 13)
"""The whole of the rasters here: 9 rows, 13 columns."""


def boundless(path: Path, part: Window) -> np.ndarray:
    """What GDAL gives for a window that may reach outside."""
    with rasterio.open(path) as source, warnings.catch_warnings():
        # rasterio 1.4 multiplies affines in the way that affine 3 is giving up.
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        place = RasterioWindow(part.col, part.row, part.width, part.height)
        return source.read(window=place, boundless=True, fill_value=0)


@pytest.fixture(scope="module")
def striped(tmp_path_factory) -> Path:
    """9 x 13 pixels of 3 bands in GDAL blocks of one row."""
    return write_raster(tmp_path_factory.mktemp("striped") / "scene.tif", counting(3, 9, 13), blockysize=1)


@pytest.mark.parametrize("kind", [str, Path, lambda path: [path]])
def test_a_single_path_needs_no_list(kind, striped):
    assert Raster.open(kind(striped)).paths == (str(striped),)


@settings(max_examples=50)
@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(1, 30), st.integers(1, 30))
def test_any_window_equals_the_pixels_that_gdal_reads(striped, row, col, height, width):
    part = Window(row, col, height, width)
    pixels, _ = Raster.open([striped]).read(part)
    np.testing.assert_array_equal(pixels, boundless(striped, part))


@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(1, 30), st.integers(1, 30))
def test_pixels_outside_the_grid_are_not_valid(striped, row, col, height, width):
    part = Window(row, col, height, width)
    _, valid = Raster.open([striped]).read(part)
    rows, cols = np.mgrid[row : row + height, col : col + width]
    np.testing.assert_array_equal(valid, (rows >= 0) & (rows < 9) & (cols >= 0) & (cols < 13))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 3, 4, 8])
def test_every_band_and_type_is_read_as_stored(tmp_path, bands, dtype):
    array = noise(bands, 9, 13, dtype)
    pixels, valid = Raster.open([write_raster(tmp_path / "a.tif", array)]).read(ALL)
    assert pixels.dtype == dtype
    assert valid.all()
    np.testing.assert_array_equal(pixels, array)


def test_files_are_stacked_in_the_order_given(tmp_path):
    array = noise(3, 9, 13)
    paths = [write_raster(tmp_path / f"B{n}.tif", array[n]) for n in (2, 0, 1)]
    raster = Raster.open(paths)
    np.testing.assert_array_equal(raster.read(ALL)[0], array[[2, 0, 1]])
    assert raster.bands == ("B2", "B0", "B1")


def test_a_stack_has_the_type_that_holds_every_band(tmp_path):
    paths = [write_raster(tmp_path / f"{dtype}.tif", noise(1, 9, 13, dtype)) for dtype in ("uint8", "int16")]
    raster = Raster.open(paths)
    assert (raster.dtype, raster.read(ALL)[0].dtype) == ("int16", np.dtype("int16"))


def test_a_stack_is_valid_where_all_its_files_are(tmp_path):
    first, second = np.ones((9, 13), bool), np.ones((9, 13), bool)
    first[2, 3], second[4, 5] = False, False
    paths = [
        write_raster(tmp_path / f"{n}.tif", noise(1, 9, 13), valid=valid) for n, valid in enumerate((first, second))
    ]
    np.testing.assert_array_equal(Raster.open(paths).read(ALL)[1], first & second)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"transform": METRE @ Affine.translation(3, 0)}, "corners differ by 3.00 pixels"),
        ({"crs": "EPSG:32633"}, "in EPSG:32633, but"),
        ({"array": noise(1, 9, 14)}, "14 x 9 pixels"),
    ],
    ids=["place", "crs", "shape"],
)
def test_files_on_different_grids_are_refused_with_both_grids(tmp_path, other, message):
    first = write_raster(tmp_path / "a.tif", noise(1, 9, 13))
    second = write_raster(tmp_path / "b.tif", **({"array": noise(1, 9, 13)} | other))
    with pytest.raises(GridError, match=message):
        Raster.open([first, second])


def test_each_band_of_a_stack_keeps_the_nodata_value_of_its_file(tmp_path):
    arrays = [np.full((9, 13), value, np.int16) for value in (5, 7)]
    arrays[0][0, 0], arrays[0][0, 1] = -1, -32768
    arrays[1][0, 2], arrays[1][0, 3] = -32768, -1
    paths = [
        write_raster(tmp_path / f"{nodata}.tif", array, nodata=nodata)
        for nodata, array in zip((-1, -32768), arrays, strict=True)
    ]
    raster = Raster.open(paths)
    assert raster.nodata == (-1, -32768)
    assert invalid_places(raster) == [[0, 0], [0, 2]]


def test_each_band_of_a_vrt_keeps_its_own_nodata_value(tmp_path):
    """As `gdalbuildvrt -separate` writes it for optical and radar imagery."""
    vrt = tmp_path / "stack.vrt"
    array = np.full((2, 4, 5), 3, np.int16)
    array[0, 1, 1], array[1, 2, 3], array[1, 3, 4] = -1, -32768, -1
    write_raster(tmp_path / "both.tif", array, transform=None, crs=None)
    bands = "".join(
        f'<VRTRasterBand dataType="Int16" band="{band}"><NoDataValue>{nodata}</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">both.tif</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for band, nodata in ((1, -1), (2, -32768))
    )
    vrt.write_text(f'<VRTDataset rasterXSize="5" rasterYSize="4">{bands}</VRTDataset>')
    raster = Raster.open([vrt])
    assert invalid(raster) == [[1, 1], [2, 3]]
    assert invalid(raster.select([2])) == [[2, 3]]
    assert invalid(raster.select([2, 1])) == [[1, 1], [2, 3]]


def test_a_vrt_of_several_types_reads_each_band_in_the_type_that_holds_all(tmp_path):
    """As `gdalbuildvrt -separate` makes it of heights beside 16-bit imagery, each with its own nodata."""
    write_raster(tmp_path / "grey.tif", np.array([[7, 65535, 9, 7]], "uint16"), nodata=65535)
    # No float64 is -9999.9 in float32, so the value is recognised only in the type of the band.
    write_raster(tmp_path / "height.tif", np.array([[0.5, 1.5, -9999.9, -1]], "float32"), nodata=-9999.9)
    write_raster(tmp_path / "far.tif", np.array([[1e300, 2, 3, 0.1]], "float64"))
    bands = "".join(
        f'<VRTRasterBand dataType="{dtype}" band="{band}">{nodata}<SimpleSource><SourceFilename relativeToVRT="1">'
        f"{name}.tif</SourceFilename></SimpleSource></VRTRasterBand>"
        for band, (name, dtype, nodata) in enumerate(
            [
                ("grey", "UInt16", "<NoDataValue>65535</NoDataValue>"),
                ("height", "Float32", "<NoDataValue>-9999.9</NoDataValue>"),
                ("far", "Float64", ""),
            ],
            1,
        )
    )
    vrt = tmp_path / "stack.vrt"
    vrt.write_text(f'<VRTDataset rasterXSize="4" rasterYSize="1">{bands}</VRTDataset>')
    raster = Raster.open(vrt)
    pixels, valid = raster.read(Window(0, 0, 1, 4))
    assert raster.dtype == "float64"
    assert valid.tolist() == [[True, False, False, True]]
    assert pixels[:, 0, [0, 3]].tolist() == [[7, 7], [0.5, -1], [1e300, 0.1]]
    stacked = Raster.open([tmp_path / "far.tif", tmp_path / "height.tif"])
    assert stacked.read(Window(0, 0, 1, 4))[1].tolist() == [[True, True, False, True]]


def test_an_override_may_have_a_value_for_each_band(tmp_path):
    array = np.zeros((2, 9, 13), np.int16)
    array[0, 0, 0], array[1, 0, 1], array[1, 0, 2] = -1, -2, -1
    path = write_raster(tmp_path / "a.tif", array)
    assert invalid_places(Raster.open([path], nodata=(-1, -2))) == [[0, 0], [0, 1]]
    with pytest.raises(RasterError, match=r"3 nodata values were given .* has 2 bands"):
        Raster.open([path], nodata=(-1, -2, -3))


def test_the_smallest_64_bit_integer_is_nodata_where_a_file_says_so(tmp_path):
    array = np.zeros((1, 4, 5), np.int64)
    array[0, 1, 2] = np.iinfo(np.int64).min
    write_raster(tmp_path / "a.tif", array, transform=None, crs=None)
    (tmp_path / "a.vrt").write_text(
        '<VRTDataset rasterXSize="5" rasterYSize="4"><VRTRasterBand dataType="Int64" band="1">'
        "<NoDataValue>-9223372036854775808</NoDataValue><SimpleSource><SourceFilename "
        'relativeToVRT="1">a.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>'
    )
    assert invalid(Raster.open([tmp_path / "a.vrt"])) == [[1, 2]]


def test_rotation_terms_that_are_rounding_are_no_rotation(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise(1, 9, 13), transform=Affine(10, 1e-17, 5e5, -1e-16, -10, 5e6))
    assert Raster.open([path]).grid.transform == Affine(10, 0, 5e5, 0, -10, 5e6)


def test_heights_in_a_crs_do_not_make_grids_differ(tmp_path):
    flat = write_raster(tmp_path / "flat.tif", noise(1, 9, 13), crs="EPSG:32632")
    high = write_raster(tmp_path / "high.tif", noise(1, 9, 13), crs="EPSG:32632+5773")
    assert Raster.open([flat]).grid == Raster.open([high]).grid


def test_an_alpha_band_of_many_values_is_imagery_and_said_so(tmp_path, caplog):
    """Near infrared that a program flagged as alpha because it is the fourth band of uint8."""
    array = noise(4, 80, 80)
    array[3, ::3] = 0
    path = write_raster(tmp_path / "rgbn.tif", array, alpha=True)
    raster = Raster.open([path], is_imagery=True)
    pixels, valid = raster.read(raster.grid.window)
    np.testing.assert_array_equal(pixels, array)
    assert valid.all()
    assert "band 4 is flagged as alpha, but" in caplog.text
    assert not Raster.open([path]).read(raster.grid.window)[1].all()  # a mask, for labels and maps


@pytest.mark.parametrize("opaque", [1, 255, 65535])
@pytest.mark.parametrize("transparent", [0, np.nan])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_alpha_band_of_floats_is_a_mask(tmp_path, dtype, transparent, opaque):
    array = noise(4, 40, 60).astype(dtype)
    array[3] = opaque
    array[3, :, :20] = transparent
    array[3, :, 20] = opaque / 2
    raster = Raster.open(
        [write_raster(tmp_path / "rgba.tif", array, alpha=True, photometric="rgb", ALPHA="yes")], is_imagery=True
    )
    pixels, valid = raster.read(raster.grid.window)
    assert raster.dtype == dtype
    np.testing.assert_array_equal(valid, np.repeat(np.arange(60) >= 20, 40).reshape(60, 40).T)
    np.testing.assert_array_equal(pixels[:, valid], array[:3, valid])


def test_an_alpha_band_of_many_floats_is_imagery(tmp_path):
    array = noise(4, 40, 60).astype("float32") / 255
    raster = Raster.open(
        [write_raster(tmp_path / "rgbn.tif", array, alpha=True, photometric="rgb", ALPHA="yes")], is_imagery=True
    )
    np.testing.assert_array_equal(raster.read(raster.grid.window)[0], array)


def test_an_alpha_band_with_soft_edges_is_a_mask(tmp_path):
    array = noise(4, 80, 80)
    array[3] = 255
    array[3, :40], array[3, 40] = 0, np.arange(80)
    raster = Raster.open([write_raster(tmp_path / "rgba.tif", array, alpha=True)], is_imagery=True)
    assert len(raster.bands) == 3
    assert int(raster.read(raster.grid.window)[1].sum()) == 39 * 80 + 79


def test_bands_are_named_by_their_descriptions(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise(2, 9, 13), descriptions=("red", "nir"))
    assert Raster.open([path]).bands == ("red", "nir")


def test_bands_without_description_are_named_by_colour(tmp_path):
    assert Raster.open([write_raster(tmp_path / "a.tif", noise(3, 9, 13))]).bands == ("red", "green", "blue")


def test_bands_of_the_same_name_are_numbered(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_raster(tmp_path / folder / "B1.tif", noise(1, 9, 13))
    assert Raster.open([tmp_path / "one" / "B1.tif", tmp_path / "two" / "B1.tif"]).bands == ("B1_1", "B1_2")


# nodata ------------------------------------------------------------------------------------------------------


def three_bands(dtype: str, value: float) -> np.ndarray:
    """A nodata value in all bands at (1, 1), in one band at (2, 2), in none elsewhere."""
    array = noise(3, 9, 13, dtype)
    array[:, 1, 1] = value
    array[0, 2, 2] = value
    return array


def invalid_places(raster: Raster) -> list[list[int]]:
    _, valid = raster.read(ALL)
    return np.argwhere(~valid).tolist()


def invalid(raster: Raster) -> list[list[int]]:
    return np.argwhere(~raster.read(raster.grid.window)[1]).tolist()


@pytest.mark.parametrize(("dtype", "value"), [("uint8", 0), ("uint8", 255), ("uint16", 0), ("uint16", 65535)])
def test_the_ends_of_unsigned_types_are_nodata_only_where_all_bands_hold_them(tmp_path, dtype, value):
    path = write_raster(tmp_path / "a.tif", three_bands(dtype, value), nodata=value)
    assert invalid_places(Raster.open([path])) == [[1, 1]]


@pytest.mark.parametrize(
    ("dtype", "value"), [("int16", -9999), ("float32", -9999), ("uint8", 7), ("int16", 0), ("float32", -3.4e38)]
)
def test_any_other_nodata_value_is_nodata_where_any_band_holds_it(tmp_path, dtype, value):
    array = np.where(three_bands(dtype, 7) == 7, np.array(value, dtype), np.array(100, dtype))
    array[:, 1, 1] = value
    path = write_raster(tmp_path / "a.tif", array, nodata=float(np.array(value, dtype)))
    assert [1, 1] in invalid_places(Raster.open([path]))
    assert [2, 2] in invalid_places(Raster.open([path]))


@pytest.mark.parametrize(
    ("dtype", "value"), [("uint8", 0), ("uint8", 255), ("uint8", 7), ("int16", -9999), ("float32", -9999)]
)
def test_the_rule_says_how_many_bands_must_hold_nodata(tmp_path, dtype, value):
    array = np.full((3, 9, 13), 100, dtype)
    array[:, 1, 1] = array[0, 2, 2] = value
    path = write_raster(tmp_path / "a.tif", array, nodata=value)
    assert invalid_places(Raster.open([path], nodata_rule="any")) == [[1, 1], [2, 2]]
    assert invalid_places(Raster.open([path], nodata_rule="all")) == [[1, 1]]


def test_the_rule_counts_the_bands_that_are_chosen(tmp_path):
    path = write_raster(tmp_path / "a.tif", three_bands("uint8", 0), nodata=0)
    assert invalid_places(Raster.open([path], nodata_rule="all").select([1])) == [[1, 1], [2, 2]]
    assert invalid_places(Raster.open([path], nodata_rule="any").select([2, 3])) == [[1, 1]]


def test_a_valid_pixel_with_nan_in_a_band_is_refused_with_the_remedy(tmp_path):
    path = write_raster(tmp_path / "a.tif", three_bands("float32", np.nan), nodata=math.nan)
    with pytest.raises(RasterError, match=r"1 NaN or infinite pixels.*row 2, col 2.*\(--nodata-rule any\)"):
        Raster.open([path], nodata_rule="all").read(ALL)


def test_nan_as_nodata_marks_all_pixels_that_are_not_finite(tmp_path):
    array = three_bands("float32", np.nan)
    array[1, 3, 3] = np.inf
    path = write_raster(tmp_path / "a.tif", array, nodata=math.nan)
    assert invalid_places(Raster.open([path])) == [[1, 1], [2, 2], [3, 3]]


def test_pixels_that_are_not_valid_read_0(tmp_path):
    path = write_raster(tmp_path / "a.tif", three_bands("int16", -9999), nodata=-9999)
    pixels, valid = Raster.open([path]).read(ALL)
    assert (pixels[:, ~valid] == 0).all()


def test_an_override_replaces_the_declared_nodata_value(tmp_path):
    path = write_raster(tmp_path / "a.tif", three_bands("int16", -9999), nodata=-1)
    assert invalid_places(Raster.open([path], nodata=-9999)) == [[1, 1], [2, 2]]


@pytest.mark.parametrize("value", [-9999, 256, 0.5, math.inf])
def test_an_override_that_the_type_cannot_hold_is_refused(tmp_path, value):
    path = write_raster(tmp_path / "a.tif", three_bands("uint8", 0))
    with pytest.raises(RasterError, match=f"nodata is {value:g}, but .* holds uint8. Expected a whole number from 0"):
        Raster.open([path], nodata=value)


@pytest.mark.parametrize("value", [-9999, -3.4028234663852886e38])
def test_nan_as_an_override_adds_to_the_declared_nodata_value(tmp_path, value):
    array = three_bands("float32", value)
    array[1, 3, 3] = np.nan
    path = write_raster(tmp_path / "a.tif", array, nodata=value)
    raster = Raster.open([path], nodata=math.nan)
    assert invalid_places(raster) == [[1, 1], [2, 2], [3, 3]]
    # By band: the declared value marks where the override is NaN, so not in the first band, at (2, 2).
    assert invalid_places(Raster.open([path], nodata=(-1, math.nan, -1))) == [[1, 1], [3, 3]]
    other = write_raster(tmp_path / "b.tif", noise(1, 9, 13, "float32"), nodata=-1)
    assert invalid_places(Raster.open([path, other], nodata=math.nan)) == [[1, 1], [2, 2], [3, 3]]


@pytest.mark.parametrize("resample", [False, True], ids=["files", "resampled"])
def test_nan_as_an_override_leaves_whole_numbers_their_declared_value(tmp_path, resample):
    radar = write_raster(tmp_path / "radar.tif", np.array([[1, -32768, 3, 4]], "int16"), nodata=-32768)
    array = np.array([[1, 2, math.nan, -9999]], "float32")
    where = {"transform": METRE @ Affine.scale(0.5)} if resample else {}
    array = array.repeat(2, axis=0).repeat(2, axis=1) if resample else array
    heights = write_raster(tmp_path / "heights.tif", array, nodata=-9999, **where)
    (raster,) = open_rasters([[radar, heights]], ImagerySpec(nodata=math.nan), resample=resample)
    assert raster.read(Window(0, 0, 1, 4))[1].tolist() == [[True, False, False, False]]
    (alone,) = open_rasters([radar], ImagerySpec(nodata=math.nan))
    assert alone.nodata == -32768


def test_undeclared_zeros_are_pixels(tmp_path):
    path = write_raster(tmp_path / "a.tif", three_bands("uint8", 0))
    assert invalid_places(Raster.open([path])) == []


def test_an_alpha_band_marks_valid_pixels_and_is_not_imagery(tmp_path):
    array = noise(4, 9, 13)
    array[3] = 255
    array[3, 4, 5] = 0
    raster = Raster.open([write_raster(tmp_path / "a.tif", array, alpha=True)])
    assert raster.bands == ("red", "green", "blue")
    assert invalid_places(raster) == [[4, 5]]


def test_an_alpha_band_and_a_nodata_value_both_apply(tmp_path):
    # Photogrammetry software writes both.
    array = noise(4, 9, 13)
    array[3] = 255
    array[3, 4, 5] = 0
    array[:3, 1, 1] = 0
    raster = Raster.open([write_raster(tmp_path / "a.tif", array, alpha=True, nodata=0)])
    assert invalid_places(raster) == [[1, 1], [4, 5]]


@pytest.mark.parametrize("is_imagery", [True, False])
def test_an_alpha_band_alone_is_a_band(tmp_path, is_imagery):
    array = np.array([[0, 1, 2, 255]], "uint8")
    path = write_raster(tmp_path / "labels.tif", array, alpha=True)
    with rasterio.open(path) as source:
        assert source.colorinterp == (ColorInterp.alpha,)
    pixels, valid = Raster.open(path, is_imagery=is_imagery).read(Window(0, 0, 1, 4))
    assert pixels[0].tolist() == array.tolist()
    assert valid.all()


def masked_by_band(folder: Path, kind: str) -> Path:
    """Two bands of 9 x 13 pixels with a mask each, which differ; a third band without one if a VRT declares them."""
    masks = np.full((3, 9, 13), 255, "uint8")
    masks[0, 1, 1] = masks[0, 2, 2] = masks[1, 2, 2] = masks[1, 3, 3] = 0
    array = noise(3, 9, 13)
    if kind == "msk":
        path = write_raster(folder / "a.tif", array[:2])
        with rasterio.open(f"{path}.msk", "w", driver="GTiff", count=2, height=9, width=13, dtype="uint8") as beside:
            beside.write(masks[:2])
            beside.update_tags(INTERNAL_MASK_FLAGS_1="0", INTERNAL_MASK_FLAGS_2="0")
        return path
    write_raster(folder / "masks.tif", masks, crs=None, transform=None)
    write_raster(folder / "pixels.tif", array, crs=None, transform=None)

    def band(number: int, file: str, inside: str = "") -> str:
        attributes = f' band="{number}"' if file == "pixels" else ""
        return (
            f'<VRTRasterBand dataType="Byte"{attributes}><SimpleSource><SourceFilename relativeToVRT="1">{file}.tif'
            f"</SourceFilename><SourceBand>{number}</SourceBand></SimpleSource>{inside}</VRTRasterBand>"
        )

    bands = [band(number, "pixels", f"<MaskBand>{band(number, 'masks')}</MaskBand>") for number in (1, 2)]
    path = folder / "a.vrt"
    path.write_text(f'<VRTDataset rasterXSize="13" rasterYSize="9">{"".join(bands)}{band(3, "pixels")}</VRTDataset>')
    return path


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("kind", ["msk", "vrt"])
def test_masks_of_single_bands_apply_to_the_bands_that_are_chosen(tmp_path, kind):
    path = masked_by_band(tmp_path, kind)
    raster = Raster.open(path)
    assert raster.mask_files == (str(path),)
    with rasterio.open(path) as source:
        theirs = source.read_masks() > 0
    for numbers in ([1], [2], [2, 1]):
        expected = theirs[[number - 1 for number in numbers]].all(axis=0)
        assert not expected.all()
        np.testing.assert_array_equal(raster.select(numbers).read(ALL)[1], expected)
    assert invalid_places(raster) == [[1, 1], [2, 2], [3, 3]]
    if kind == "vrt":
        assert raster.select([3]).read(ALL)[1].all()


def test_a_mask_band_marks_valid_pixels(tmp_path):
    valid = np.ones((9, 13), bool)
    valid[4, 5] = False
    raster = Raster.open([write_raster(tmp_path / "a.tif", noise(3, 9, 13), valid=valid)])
    assert invalid_places(raster) == [[4, 5]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_refused_with_row_and_col_of_the_raster(tmp_path, value):
    array = noise(2, 9, 13, "float32")
    array[1, 5, 7] = value
    raster = Raster.open([write_raster(tmp_path / "a.tif", array)])
    with pytest.raises(RasterError, match=r"1 NaN or infinite pixels.*first at row 5, col 7; its nodata is none"):
        raster.read(Window(3, 4, 20, 20))


def test_not_finite_pixels_under_other_nodata_are_allowed(tmp_path):
    array = noise(2, 9, 13, "float32")
    array[0, 5, 7], array[1, 5, 7] = -9999, np.nan
    raster = Raster.open([write_raster(tmp_path / "a.tif", array, nodata=-9999)])
    assert invalid_places(raster) == [[5, 7]]


# bands, handles, files -----------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=5))
def test_selected_bands_are_in_the_requested_order(striped, numbers):
    raster = Raster.open([striped])
    chosen, _ = raster.select(numbers).read(ALL)
    np.testing.assert_array_equal(chosen, raster.read(ALL)[0][[number - 1 for number in numbers]])


def test_bands_that_are_not_selected_are_not_read(tmp_path):
    """The second file and the third band of the first are damaged, which a read of them would find."""
    path = write_raster(tmp_path / "a.tif", noise(3, 64, 64), interleave="band", compress="deflate")
    other = write_raster(tmp_path / "b.tif", noise(1, 64, 64), compress="deflate")
    raster = Raster.open([path, other])
    expected = boundless(path, Window(0, 0, 64, 64))
    for file, kept in ((path, 0.8), (other, 0.5)):
        with file.open("r+b") as stored:
            stored.truncate(int(file.stat().st_size * kept))
    np.testing.assert_array_equal(raster.select([2, 1, 2]).read(Window(0, 0, 64, 64))[0], expected[[1, 0, 1]])
    for band in (3, 4):
        with pytest.raises(ReadError):
            raster.select([band]).read(Window(0, 0, 64, 64))


@pytest.mark.parametrize("numbers", [[4, 1], [2, 4, 3], [5, 5, 1, 2]])
def test_bands_of_several_files_are_selected_in_the_requested_order(tmp_path, numbers):
    array = noise(5, 9, 13)
    paths = [write_raster(tmp_path / "a.tif", array[:3]), write_raster(tmp_path / "b.tif", array[3:])]
    pixels, _ = Raster.open(paths).select(numbers).read(ALL)
    np.testing.assert_array_equal(pixels, array[[number - 1 for number in numbers]])


def test_selecting_from_a_selection_counts_its_own_bands(striped):
    raster = Raster.open([striped])
    twice = raster.select([3, 1]).select([2])
    np.testing.assert_array_equal(twice.read(ALL)[0], raster.read(ALL)[0][[0]])


@pytest.mark.parametrize(("numbers", "odd"), [([0], "0"), ([1, 4, 7], "4, 7"), ([1, -1], "-1"), ([], "none")])
def test_missing_bands_are_refused(striped, numbers, odd):
    with pytest.raises(RasterError, match=rf"has bands 1 to 3 \(red, green, blue\), but {odd} was asked for"):
        Raster.open([striped]).select(numbers)


def test_a_pickled_raster_reads_the_same(striped):
    raster = Raster.open([striped], nodata_rule="any").select([3, 1]).with_nodata(9)
    expected = raster.read(ALL)
    copy = pickle.loads(pickle.dumps(raster))
    np.testing.assert_array_equal(copy.read(ALL)[0], expected[0])
    np.testing.assert_array_equal(copy.read(ALL)[1], expected[1])


def test_a_thread_has_few_files_open_however_many_rasters_it_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(open_file, "_RECENT", open_file._Recent())
    monkeypatch.setattr(open_file, "_OPEN", weakref.WeakSet())
    monkeypatch.setattr(open_file, "_most_open", lambda: 3)
    rasters = [Raster.open([write_raster(tmp_path / f"{k}.tif", np.full((1, 8, 8), k, "uint8"))]) for k in range(8)]
    for index in (0, 1, 2, 3, 4, 5, 6, 7, 0, 7, 0):
        assert (rasters[index].read(Window(0, 0, 8, 8))[0] == index).all()
    opened = [raster.paths[0] for raster in rasters if raster.source._handles.files]
    assert [Path(name).stem for name in opened] == ["0", "6", "7"]
    rasters[0].source.close()
    assert (rasters[0].read(Window(0, 0, 8, 8))[0] == 0).all()


def test_threads_read_the_same_as_one(striped):
    raster = Raster.open([striped])
    parts = [Window(row, col, 3, 5) for row in range(7) for col in range(9)] * 5
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(raster.read, parts))
    for part, (pixels, _) in zip(parts, together, strict=True):
        np.testing.assert_array_equal(pixels, counting(3, 9, 13)[:, *part.slices])


def test_a_plain_picture_is_a_raster_without_crs(tmp_path):
    array = noise(3, 9, 13)
    raster = Raster.open([write_raster(tmp_path / "a.png", array, crs=None, transform=None)])
    assert raster.grid.crs is None
    np.testing.assert_array_equal(raster.read(ALL)[0], array)


def test_the_first_band_is_read_as_stored(tmp_path):
    array = noise(2, 9, 13)
    np.testing.assert_array_equal(read_band(write_raster(tmp_path / "a.tif", array)), array[0])


def test_a_rotated_raster_is_refused_by_name(tmp_path):
    path = write_raster(tmp_path / "turned.tif", noise(1, 9, 13), transform=METRE @ Affine.rotation(5))
    with pytest.raises(GridError, match=r"turned\.tif has a rotated geotransform"):
        Raster.open([path])


def test_a_crs_without_a_geotransform_is_refused_by_name(tmp_path):
    path = write_raster(tmp_path / "bare.tif", noise(1, 9, 13), transform=None)
    with pytest.raises(GridError, match=r"bare\.tif has a CRS, but neither an origin nor a pixel size.*-a_ullr"):
        Raster.open([path])


def test_a_south_up_raster_is_refused_by_name(tmp_path):
    path = write_raster(tmp_path / "south.tif", noise(1, 9, 13), transform=Affine(1, 0, 0, 0, 1, 0.5))
    with pytest.raises(GridError, match=r"south\.tif has pixel steps of 1 \(x\) and 1 \(y\)"):
        Raster.open([path])


@pytest.mark.parametrize(
    "content", [b"", b"no raster at all", None], ids=["zero bytes", "a text file named .tif", "missing"]
)
def test_files_that_are_not_rasters_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "a.tif"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RasterError, match=r"a\.tif cannot be read: .+\. Expected a readable raster") as caught:
        Raster.open([path])
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_refused_with_rows_and_columns(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise(3, 400, 400), interleave="band")
    path.write_bytes(path.read_bytes()[:200_000])
    raster = Raster.open([path])
    with pytest.raises(RasterError, match=r"a\.tif cannot be read at rows 300 to 350, cols 0 to 400"):
        raster.read(Window(300, 0, 50, 400))


def test_complex_numbers_are_refused(tmp_path):
    with pytest.raises(RasterError, match="holds complex numbers"):
        Raster.open([write_raster(tmp_path / "a.tif", noise(1, 9, 13, "complex64"))])


def test_an_empty_list_of_files_is_refused():
    with pytest.raises(RasterError, match="no image file was given"):
        Raster.open([])


# decimated reads -----------------------------------------------------------------------------------------------


def blocks(array: np.ndarray, side: int) -> np.ndarray:
    """Every pixel as a block of `side` x `side` equal ones, of which a decimated read may take any."""
    return array.repeat(side, axis=-2).repeat(side, axis=-1)


def test_an_overview_of_a_small_raster_is_the_raster(striped):
    raster = Raster.open([striped])
    pixels, valid = raster.overview(13)
    np.testing.assert_array_equal(pixels, counting(3, 9, 13))
    assert valid.all()


@pytest.mark.parametrize(("shape", "side", "expected"), [((40, 100), 50, (20, 50)), ((100, 3), 10, (10, 1))])
def test_the_longer_side_of_an_overview_is_the_requested_one(tmp_path, shape, side, expected):
    raster = Raster.open([write_raster(tmp_path / "a.tif", noise(2, *shape))])
    pixels, valid = raster.overview(side)
    assert (pixels.shape, valid.shape) == ((2, *expected), expected)


def test_an_overview_reads_chosen_bands_as_stored(tmp_path):
    small = noise(3, 6, 8, "uint16")
    raster = Raster.open([write_raster(tmp_path / "a.tif", blocks(small, 4))])
    np.testing.assert_array_equal(raster.select([3, 1]).overview(8)[0], small[[2, 0]])


@pytest.mark.parametrize(
    ("rule", "invalid"), [("auto", [[1, 1], [2, 2]]), ("any", [[1, 1], [2, 2]]), ("all", [[1, 1]])]
)
def test_the_nodata_rule_holds_in_an_overview(tmp_path, rule, invalid):
    # 7 is nodata of an unsigned type, but neither 0 nor its largest value: `auto` is `any`.
    small = np.full((3, 4, 5), 100, "uint8")
    small[:, 1, 1] = small[0, 2, 2] = 7
    raster = Raster.open([write_raster(tmp_path / "a.tif", blocks(small, 4), nodata=7)], nodata_rule=rule)
    pixels, valid = raster.overview(5)
    assert np.argwhere(~valid).tolist() == invalid
    assert (pixels[:, ~valid] == 0).all()


@pytest.mark.parametrize("masked_by", ["mask", "alpha"])
def test_masks_and_alpha_hold_in_an_overview(tmp_path, masked_by):
    small = np.full((3, 4, 5), 100, "uint8")
    kept = np.ones((4, 5), bool)
    kept[0, 3] = kept[2, 1] = False
    if masked_by == "mask":
        path = write_raster(tmp_path / "a.tif", blocks(small, 4), valid=blocks(kept, 4))
    else:
        alpha = np.concatenate([small, 255 * kept[None].astype("uint8")])
        path = write_raster(tmp_path / "a.tif", blocks(alpha, 4), alpha=True)
    pixels, valid = Raster.open([path]).overview(5)
    np.testing.assert_array_equal(valid, kept)
    np.testing.assert_array_equal(pixels, small * kept)


def test_an_overview_comes_from_the_overviews_of_the_file(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.full((1, 64, 64), 5, "uint8"), tiled=True, blockxsize=16, blockysize=16)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([4])
        # The overview keeps the old pixels: so it shows where a read comes from.
        dataset.write(np.full((1, 16, 16), 9, "uint8"), window=RasterioWindow(0, 0, 16, 16))
    raster = Raster.open([path])
    assert (raster.read(Window(0, 0, 16, 16))[0] == 9).all()
    assert (raster.overview(16)[0] == 5).all()


def test_not_finite_pixels_of_an_overview_are_refused_with_row_and_column(tmp_path):
    small = np.ones((1, 4, 5), "float32")
    small[0, 2, 3] = np.nan
    path = write_raster(tmp_path / "a.tif", blocks(small, 10))
    with pytest.raises(RasterError, match="first at row 20, col 30"):
        Raster.open([path]).overview(5)
    assert not Raster.open([path], nodata=math.nan).overview(5)[1][2, 3]


# samples -------------------------------------------------------------------------------------------------------


def test_windows_with_the_most_detail_come_first(tmp_path):
    # One constant quarter, one of 100 and 102, one of 100 and 110, one half of which is nodata.
    array = np.full((20, 20), 100, "uint8")
    array[:10:2, 10:], array[10::2, :10] = 102, 110
    array[10::2, 10:], array[10:, 15:] = 110, 0
    raster = Raster.open([write_raster(tmp_path / "a.tif", array, nodata=0)])
    quarters = [Window(row, col, 10, 10) for row in (0, 10) for col in (0, 10)]
    # Standard deviations: 0, 1, 5 and 5, times shares of valid pixels of 1, 1, 1 and 1/2.
    assert raster.rank_by_detail(quarters) == [quarters[2], quarters[3], quarters[1]]


def test_sampled_windows_are_the_first_of_windows_spread_over_the_raster(tmp_path):
    raster = Raster.open([write_raster(tmp_path / "a.tif", noise(1, 64, 48))])
    ranked = raster.rank_by_detail(raster.grid.spread_windows((8, 8), 4, align=4))
    assert raster.sample_windows(3, (8, 8), align=4) == ranked[:3]


def test_nothing_is_sampled_of_a_raster_without_detail(tmp_path):
    raster = Raster.open([write_raster(tmp_path / "a.tif", np.full((30, 30), 7, "uint8"))])
    assert raster.sample_windows(3, (8, 8)) == []
