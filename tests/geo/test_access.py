"""Opening datasets: errors in one line, names without secrets, filters of warnings restored."""

import logging
import os
import warnings

import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from landscribe.errors import ChipError, ClassError, ReadError, SampleError, ServerError, UnreachableError
from landscribe.geo.access import allow_ungeoreferenced, gdal_errors, open_dataset, read_utf8, without_secrets
from landscribe.geo.grid import Window
from landscribe.geo.inputs import open_rasters
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.spec import ImagerySpec
from worlds import noise, write_raster


def test_a_dataset_is_closed_after_the_block(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise(1, 5, 7))
    with open_dataset(path) as dataset:
        assert dataset.shape == (5, 7)
    assert dataset.closed


def test_an_image_without_georeference_opens_without_a_warning(tmp_path):
    path = write_raster(tmp_path / "a.png", noise(3, 5, 7), crs=None, transform=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_dataset(path) as dataset:
            assert dataset.crs is None


def test_a_missing_file_is_named_with_gdals_reason_once(tmp_path):
    with (
        pytest.raises(UnreachableError, match=r"a\.tif cannot be read: No such file or directory\. Expected") as caught,
        open_dataset(tmp_path / "a.tif"),
    ):
        pass
    assert str(caught.value).count(str(tmp_path)) == 1
    assert "\n" not in str(caught.value)


def test_a_file_that_breaks_inside_the_block_is_named_too(tmp_path):
    path = write_raster(tmp_path / "a.tif", noise(1, 400, 400))
    path.write_bytes(path.read_bytes()[:80_000])
    with pytest.raises(UnreachableError, match=r"a\.tif cannot be read: "), open_dataset(path) as dataset:
        dataset.read()


def test_the_error_of_a_window_names_its_rows_and_columns():
    with (
        pytest.raises(ReadError, match=r"a\.tif cannot be read at rows 3 to 5, cols 4 to 11: broken\. "),
        gdal_errors("a.tif", Window(3, 4, 2, 7)),
    ):
        raise OSError("broken")


@pytest.mark.parametrize(
    ("warning", "words"),
    [
        ("HTTP error code: 503 - https://e.org/a.tif", "the server answered 503, Service Unavailable"),
        ("HTTP error code: 0", "the server does not answer"),
        ("response_code=206", "the server's answer broke off"),
    ],
)
def test_the_status_of_a_server_that_failed_comes_before_gdals_reason(warning, words):
    def fail() -> None:
        with gdal_errors("https://e.org/a.tif", Window(0, 0, 1, 1)):
            logging.getLogger("rasterio._err").warning(warning)
            raise OSError("broken")

    with pytest.raises(ServerError, match=rf"{words} \(broken\)\..*Check the address and the connection"):
        fail()


def test_the_filter_of_warnings_is_restored_after_the_last_of_nested_blocks():
    before = list(warnings.filters)
    with allow_ungeoreferenced():
        with allow_ungeoreferenced():
            pass
        warnings.warn("no georeference", NotGeoreferencedWarning, stacklevel=1)
    assert list(warnings.filters) == before


@pytest.mark.parametrize(
    ("name", "shared"),
    [
        ("a.tif", "a.tif"),
        ("/data/a@b.tif", "/data/a@b.tif"),
        ("https://me:word@e.org/a.tif", "https://e.org/a.tif"),
        ("https://e.org/a.tif?X-Amz-Signature=1&band=2", "https://e.org/a.tif?band=2"),
        ("https://e.org/a.tif?sig=1&se=2", "https://e.org/a.tif"),
    ],
)
def test_shared_names_hold_no_secret(name, shared):
    assert without_secrets(name) == shared


def test_settings_of_the_environment_win(monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "1")
    with gdal_errors("a.tif"):
        options = rasterio.env.getenv()
    assert "GDAL_HTTP_MAX_RETRY" not in options
    assert options["GDAL_HTTP_CONNECTTIMEOUT"] == "20"


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.tif")
    for opened in (Raster.open, lambda paths: open_rasters([f"@{paths[0]}"], ImagerySpec())):
        with pytest.raises(UnreachableError, match=r"pipe.tif is a pipe or a device. Expected a file"):
            opened([tmp_path / "pipe.tif"])


@pytest.mark.parametrize("name", ["nul\0.tif", "x" * 300 + ".tif", "bytes\udcff\0.tif"])
def test_a_name_that_no_file_can_have_is_refused_in_one_line(name):
    with pytest.raises(UnreachableError, match="cannot be opened") as refusal:
        Raster.open([name])
    assert "\0" not in str(refusal.value)


def test_rasters_that_read_each_other_end_in_a_line(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.vrt").write_text(
            '<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
            f'<SourceFilename relativeToVRT="1">{other}.vrt</SourceFilename></SimpleSource>'
            "</VRTRasterBand></VRTDataset>"
        )
    raster = Raster.open([tmp_path / "a.vrt"])
    with pytest.raises(ReadError, match=r"a.vrt cannot be read at rows 0 to 4, cols 0 to 4"):
        raster.read(raster.grid.window)


@pytest.mark.parametrize("error", [ClassError, SampleError, ChipError])
def test_text_that_a_spreadsheet_saved_in_its_own_code_page_says_which_byte_and_how_to_save_it(tmp_path, error):
    table = tmp_path / "classes.csv"
    table.write_bytes("value,name\n1,Gehölz\n".encode("cp1252"))
    with pytest.raises(error, match=r"classes\.csv is not UTF-8 text \(byte 16\)\. Expected a table\. .* CSV UTF-8"):
        read_utf8(table, "a table", error)
    table.write_text("value,name\n1,Gehölz\n", encoding="utf-8-sig")
    assert read_utf8(table, "a table", error).startswith("value")
