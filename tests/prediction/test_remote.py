"""Remote rasters, from a local server of byte ranges: fetched blocks, and failures."""

import contextvars
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.env import getenv
from test_mapping import model_of, read, write

from landscribe.commands import app as cli
from landscribe.errors import OutputError, RasterError, ReadError, UnfinishedError
from landscribe.geo import access
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Raster
from landscribe.prediction.spec import PredictSpec
from networks import Identity, predict
from served import Server, serving

SPEC = PredictSpec(tile=64, margin=4, unit=64)
TRUST = ("--trust-code", "networks:Identity")
QUARTERS = PredictSpec(tile=256, margin=0, unit=256)
"""Units of the blocks of `numbers`."""


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(tmp_path / "served") as served:
        yield served


@pytest.fixture
def impatient(monkeypatch) -> None:
    """As an environment of a user who waits for nothing."""
    monkeypatch.setattr("landscribe.geo.rasters.open_file._PAUSE", 0.0)
    hasty = {"MAX_RETRY": "0", "TIMEOUT": "1", "CONNECTTIMEOUT": "1", "LOW_SPEED_TIME": "1"}
    for name, value in hasty.items():
        monkeypatch.setenv(f"GDAL_HTTP_{name}", value)


@pytest.fixture
def numbers(server) -> np.ndarray:
    """Served as `image.tif`, in four blocks of 64 kB."""
    array = np.random.default_rng(0).integers(0, 4, (512, 512)).astype(np.uint8)
    write(server.folder / "image.tif", array, tiled=True, blockxsize=256, blockysize=256)
    return array


@pytest.fixture
def landscribe(capfd, monkeypatch) -> Iterator[Callable[..., tuple[int, str]]]:
    """The command line, run in this process: its code and its last line on stderr."""
    loggers = [logging.getLogger(name) for name in ("landscribe", "rasterio")]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["landscribe", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            contextvars.copy_context().run(cli.main)
        _, err = capfd.readouterr()
        assert "Traceback" not in err
        return ended.value.code, err.splitlines()[-1]

    yield run
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate


def sixteen_units(folder: Path, server: Server, **layout: object) -> tuple[np.ndarray, tuple[object, ...]]:
    """What a served raster holds, and the command that maps it."""
    array = np.random.default_rng(0).integers(0, 4, (512, 2048)).astype(np.uint8)
    write(server.folder / "image.tif", array, tiled=True, blockxsize=64, blockysize=64, **layout)
    model_of(Identity(), 4).save(folder / "model")
    command = ("predict", folder / "model", server.url("image.tif"), "-o", folder / "map.tif")
    return array, (*command, "--tile", 256, "--margin", 0, "--unit", 256, "--engine", "torch", *TRUST)


def done(folder: Path) -> int:
    """How many units of a map are kept."""
    return len(list((folder / "map.tif.parts").glob("*.class.tif")))


def test_a_raster_behind_a_url_is_mapped_like_a_file(tmp_path, server):
    numbers = np.random.default_rng(0).integers(0, 4, (150, 217)).astype(np.uint8)
    near = write(server.folder / "image.tif", numbers, tiled=True, blockxsize=64, blockysize=64)
    far = Raster.open([server.url("image.tif")])
    predict(model_of(Identity(), 4), near, tmp_path / "near.tif", spec=SPEC)
    predict(model_of(Identity(), 4), far, tmp_path / "far.tif", spec=SPEC)
    np.testing.assert_array_equal(read(tmp_path / "far.tif"), read(tmp_path / "near.tif"))


def test_only_the_blocks_of_a_window_are_fetched(server):
    noise = np.random.default_rng(0).integers(0, 255, (4096, 4096)).astype(np.uint8)
    write(server.folder / "large.tif", noise, tiled=True, blockxsize=256, blockysize=256)
    far = Raster.open([server.url("large.tif")])
    pixels, _ = far.read(Window(2048, 2048, 256, 256))
    np.testing.assert_array_equal(pixels[0], noise[2048:2304, 2048:2304])
    spans = [re.findall(r"\d+", span) for _, span in server.asked if span]
    assert sum(int(stop) - int(start) + 1 for start, stop in spans) < noise.size / 8
    # No side file, no listing of the folder.
    assert {path for path, _ in server.asked} == {"/large.tif"}


def test_a_bucket_of_s3_is_read_as_gdal_reads_it(server, numbers, monkeypatch):
    settings = {"AWS_S3_ENDPOINT": server.place, "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"}
    for name, value in (settings | {"AWS_NO_SIGN_REQUEST": "YES"}).items():
        monkeypatch.setenv(name, value)
    (server.folder / "bucket").mkdir()
    (server.folder / "image.tif").rename(server.folder / "bucket" / "image.tif")
    for name in ("s3://bucket/image.tif", "/vsis3/bucket/image.tif"):
        pixels, _ = Raster.open([name]).read(Window(0, 0, 512, 512))
        np.testing.assert_array_equal(pixels[0], numbers)
    assert {path for path, _ in server.asked} == {"/bucket/image.tif"}


def test_the_query_of_a_url_is_not_in_the_name_of_the_map(server, numbers):
    assert Raster.open([server.url("image.tif?signature=a.b/c")]).name == "image"


@pytest.mark.usefixtures("numbers")
def test_a_signature_is_never_written_and_a_new_one_resumes_the_map(tmp_path, server):
    halves = QUARTERS.model_copy(update={"shard": "1/2"})
    first, second = (Raster.open([server.url(f"image.tif?sig={word}&se=2026")]) for word in ("SECRET", "OTHER"))
    predict(model_of(Identity(), 4), first, tmp_path / "map.tif", spec=halves)
    assert "SECRET" not in (tmp_path / "map.tif.parts" / "plan.json").read_text()
    predict(model_of(Identity(), 4), second, tmp_path / "map.tif", spec=QUARTERS)
    with rasterio.open(tmp_path / "map.tif") as made:
        assert "OTHER" not in str(made.tags())
        assert made.tags()["LANDSCRIBE_SOURCE"] == "image.tif"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s3://bucket/a.tif", "s3://bucket/a.tif"),
        ("image?.tif", "image?.tif"),
        ("https://me:word@h/a.tif", "https://h/a.tif"),
        ("https://h/get?file=a.tif&X-Amz-Date=1&X-Amz-Signature=2", "https://h/get?file=a.tif"),
        ("/vsicurl/https://h/a.tif?sv=1&sr=b&sig=2", "/vsicurl/https://h/a.tif"),
    ],
)
def test_an_address_is_reported_without_its_credentials(name, expected):
    assert access.without_secrets(name) == expected


def test_a_missing_remote_file_is_named(server):
    with pytest.raises(RasterError, match=r"http://127\.0\.0\.1:\d+/none\.tif cannot be read: .*404.*connection"):
        Raster.open([server.url("none.tif")])


@pytest.mark.parametrize("status", [403, 500, 503])
@pytest.mark.usefixtures("impatient")
def test_a_refused_request_is_named_and_repeated_later(tmp_path, server, numbers, status):
    server.fault = lambda path, stop: status if stop > 200_000 else None
    far = Raster.open([server.url("image.tif")])
    with pytest.raises(UnfinishedError, match=r"map\.tif is not finished: \d of 4 units failed"):
        predict(model_of(Identity(), 4), far, tmp_path / "map.tif", spec=QUARTERS)
    assert 0 < done(tmp_path) < 4
    assert not (tmp_path / "map.tif").exists()
    server.fault = lambda path, stop: None
    far = Raster.open([server.url("image.tif")])
    predict(model_of(Identity(), 4), far, tmp_path / "map.tif", spec=QUARTERS)
    np.testing.assert_array_equal(read(tmp_path / "map.tif"), numbers)


def test_a_file_that_was_replaced_on_its_server_is_another_raster(tmp_path, server, numbers):
    model, half = model_of(Identity(), 4), QUARTERS.model_copy(update={"shard": "1/2"})
    predict(model, Raster.open([server.url("image.tif")]), tmp_path / "map.tif", spec=half)
    write(server.folder / "image.tif", numbers[::-1] // 2, tiled=True, blockxsize=256, blockysize=256, compress="lzw")
    access.clear_vsi_cache(server.url("image.tif"))  # as a new process would
    with pytest.raises(OutputError, match=r"unfinished map with another raster"):
        predict(model, Raster.open([server.url("image.tif")]), tmp_path / "map.tif", spec=QUARTERS)


def test_a_file_replaced_on_its_server_during_the_run_is_refused(tmp_path, server, numbers, monkeypatch):
    far, real, asked = Raster.open([server.url("image.tif")]), Raster.read, []

    def read_then_replaced(self: Raster, window: Window):
        asked.append(window)
        if len(asked) == 4:
            other = numbers[::-1] // 2
            write(server.folder / "image.tif", other, tiled=True, blockxsize=256, blockysize=256, compress="lzw")
        return real(self, window)

    monkeypatch.setattr(Raster, "read", read_then_replaced)
    with pytest.raises(RasterError, match=r"image\.tif changed while it was mapped"):
        predict(model_of(Identity(), 4), far, tmp_path / "map.tif", spec=QUARTERS)
    # What was made of the first one is of no more use.
    assert not list(tmp_path.glob("map.tif*"))


@pytest.mark.parametrize("fault", ["reset", "short", "stall", "hang", 503])
@pytest.mark.usefixtures("impatient")
def test_a_failed_request_is_repeated(tmp_path, server, numbers, fault):
    left = [fault]
    server.fault = lambda path, stop: left.pop() if left and stop > 150_000 else None
    predict(model_of(Identity(), 4), Raster.open([server.url("image.tif")]), tmp_path / "map.tif", spec=QUARTERS)
    assert not left
    np.testing.assert_array_equal(read(tmp_path / "map.tif"), numbers)


@pytest.mark.parametrize("fault", ["reset", "short", 500])
@pytest.mark.usefixtures("impatient")
def test_a_failed_command_prints_one_line_and_the_same_command_finishes(tmp_path, server, numbers, landscribe, fault):
    model_of(Identity(), 4).save(tmp_path / "model")
    command = ("predict", tmp_path / "model", server.url("image.tif"), "-o", tmp_path / "map.tif")
    command += ("--tile", 256, "--margin", 0, "--unit", 256, "--engine", "torch", *TRUST)
    server.fault = lambda path, stop: fault if stop > 200_000 else None
    code, line = landscribe(*command)
    assert code == 1
    assert re.match(r"landscribe: map\.tif is not finished: [12] of 4 units failed \(rows 256 to 512", line)
    assert "repeat the same command" in line
    assert not (tmp_path / "map.tif").exists()
    assert done(tmp_path) in (2, 3)
    server.fault = lambda path, stop: None
    server.asked.clear()
    assert landscribe(*command)[0] == 0
    np.testing.assert_array_equal(read(tmp_path / "map.tif"), numbers)
    spans = [re.findall(r"\d+", span) for _, span in server.asked if span]
    # What was done is not fetched again; the head is, to see whether it is still the same file.
    assert sum(int(stop) - int(start) + 1 for start, stop in spans) < 0.8 * numbers.size


@pytest.mark.usefixtures("impatient", "numbers")
def test_a_server_that_no_longer_responds_is_given_up(server):
    far = Raster.open([server.url("image.tif")])
    server.fault = lambda path, stop: "hang"
    with pytest.raises(RasterError, match=r"image\.tif cannot be read: CURL error: Operation t.*Check the address"):
        far.read(Window(300, 300, 10, 10))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("reset", " does not answer"), ("short", "'s answer broke off"), (429, " answered 429, Too Many Requests")],
)
@pytest.mark.usefixtures("impatient")
def test_the_response_of_the_server_is_reported_before_the_error_of_gdal(tmp_path, server, fault, reason):
    sixteen_units(tmp_path, server)
    far = Raster.open([server.url("image.tif")])
    server.fault = lambda path, stop: fault if stop > 550_000 else None
    with pytest.raises(
        ReadError, match=rf"cols 0 to 512: the server{reason} \(TIFFReadEncodedTile.*\)\. Expected a readable"
    ):
        far.read(Window(256, 0, 256, 512))


@pytest.mark.usefixtures("impatient")
def test_three_failed_units_in_a_row_stop_the_run(tmp_path, server, landscribe):
    array, command = sixteen_units(tmp_path, server)
    # The blocks of the upper eight units lie in the first half of the file, and come.
    server.fault = lambda path, stop: 503 if stop > 550_000 else None
    code, line = landscribe(*command)
    assert code == 1
    assert "map.tif is not finished: 3 of 16 units failed" in line
    assert "the server answered 503, Service Unavailable" in line
    assert "Repeat the same command when the raster can be read again" in line
    server.fault = lambda path, stop: None
    assert landscribe(*command)[0] == 0
    np.testing.assert_array_equal(read(tmp_path / "map.tif"), array)


@pytest.mark.usefixtures("impatient")
def test_damaged_remote_blocks_lose_only_their_units(tmp_path, server, landscribe):
    array, command = sixteen_units(tmp_path, server, compress="deflate")
    whole = (server.folder / "image.tif").read_bytes()
    damaged = bytearray(whole)
    with rasterio.open(server.folder / "image.tif") as source:
        for block in range(4, 20):  # along the upper edge; of 64 pixels, so that four make a unit's
            start = int(source.get_tag_item(f"BLOCK_OFFSET_{block}_0", "TIFF", bidx=1))
            damaged[start : start + 2] = b"\xff\xff"
    (server.folder / "image.tif").write_bytes(damaged)
    code, line = landscribe(*command)
    assert code == 1
    assert "map.tif is not finished: 4 of 16 units failed" in line
    assert "server" not in line
    assert done(tmp_path) == 12
    (server.folder / "image.tif").write_bytes(whole)
    access.clear_vsi_cache(server.url("image.tif"))  # as a new process would
    assert landscribe(*command)[0] == 0
    np.testing.assert_array_equal(read(tmp_path / "map.tif"), array)


@pytest.mark.usefixtures("impatient")
def test_a_server_that_sends_no_unit_leaves_no_file(tmp_path, server, landscribe):
    _, command = sixteen_units(tmp_path, server)
    server.fault = lambda path, stop: 503 if stop > 100_000 else None
    code, line = landscribe(*command)
    assert code == 2
    assert re.search(r"image\.tif cannot be read at rows 0 to 256, cols 0 to 256: the server answered 503", line)
    assert not list(tmp_path.glob("map.tif*"))


@pytest.mark.usefixtures("impatient")
def test_a_lost_server_stops_the_map_and_keeps_finished_units(tmp_path, server, numbers, landscribe):
    model_of(Identity(), 4).save(tmp_path / "model")
    command = ("predict", tmp_path / "model", server.url("image.tif"), "-o", tmp_path / "map.tif")
    command += ("--tile", 256, "--margin", 0, "--unit", 256, "--engine", "torch", *TRUST)
    gone: list[bool] = []

    def fault(path: str, stop: int) -> int | None:
        gone.extend([True] * (stop > 200_000))
        return 404 if gone else None

    server.fault = fault
    code, line = landscribe(*command)
    assert code == 1
    said = r"landscribe: \S+/map\.tif is not finished: http://\S+/image\.tif cannot be read: .*404"
    assert re.match(said, line)
    assert "kept in map.tif.parts" in line
    assert 0 < done(tmp_path) < 4
    server.fault = lambda path, stop: None
    # GDAL remembers for the rest of its process what was not there.
    access.clear_vsi_cache(server.url("image.tif"))
    assert landscribe(*command)[0] == 0
    np.testing.assert_array_equal(read(tmp_path / "map.tif"), numbers)


def test_a_damaged_block_loses_only_its_units(tmp_path, landscribe):
    array = np.random.default_rng(0).integers(0, 4, (512, 512)).astype(np.uint8)
    write(tmp_path / "image.tif", array, tiled=True, blockxsize=256, blockysize=256, compress="deflate")
    model_of(Identity(), 4).save(tmp_path / "model")
    command = ("predict", tmp_path / "model", tmp_path / "image.tif", "-o", tmp_path / "map.tif")
    command += ("--tile", 256, "--margin", 0, "--unit", 256, "--engine", "torch", *TRUST)
    whole = (tmp_path / "image.tif").read_bytes()
    times = (tmp_path / "image.tif").stat()
    with rasterio.open(tmp_path / "image.tif") as source:
        start = int(source.get_tag_item("BLOCK_OFFSET_1_0", "TIFF", bidx=1))
    damaged = bytearray(whole)
    damaged[start + 6000 : start + 8000] = np.random.default_rng(1).bytes(2000)
    (tmp_path / "image.tif").write_bytes(damaged)
    # Disks that go bad change no times.
    os.utime(tmp_path / "image.tif", ns=(times.st_atime_ns, times.st_mtime_ns))
    code, line = landscribe(*command)
    assert code == 1
    assert re.search(r"1 of 4 units failed \(rows 0 to 256, cols 256 to 512: \S*image\.tif cannot be", line)
    assert line.endswith("(cp -p, touch -r). Otherwise begin again with --overwrite.")
    assert "Decod" in line  # GDAL's own reason, rather than that there is one
    assert not (tmp_path / "map.tif").exists()
    assert done(tmp_path) == 3
    (tmp_path / "image.tif").write_bytes(whole)
    # A file of another time is another file, unless it was copied with its time (cp -p, rsync -a).
    code, line = landscribe(*command)
    assert code == 2
    assert re.search(r"another raster .* The file was changed since: pass --overwrite to map it from the begin", line)
    assert "its own command" not in line
    os.utime(tmp_path / "image.tif", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert landscribe(*command)[0] == 0
    np.testing.assert_array_equal(read(tmp_path / "map.tif"), array)


def test_gdal_settings_have_defaults_that_the_environment_overrides(monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "7")
    with access.gdal_errors("https://example.org/a.tif"):
        assert getenv()["GDAL_HTTP_MAX_RETRY"] == "5"
        assert getenv()["GDAL_DISABLE_READDIR_ON_OPEN"] == "EMPTY_DIR"
        assert "GDAL_HTTP_TIMEOUT" not in getenv()
    # A file of this machine may have side files, and may name others that are far away.
    with access.gdal_errors("a.vrt"):
        assert getenv()["GDAL_HTTP_MAX_RETRY"] == "5"
        assert "GDAL_DISABLE_READDIR_ON_OPEN" not in getenv()


@pytest.mark.parametrize(
    ("name", "local", "remote"),
    [
        ("image.tif", True, False),
        ("/data/image.tif", True, False),
        ("/vsizip/images.zip/a.tif", False, False),
        ("https://example.org/a.tif", False, True),
        ("s3://bucket/a.tif", False, True),
        ("/vsis3/bucket/a.tif", False, True),
        ("/vsizip//vsicurl/https://example.org/a.zip/a.tif", False, True),
    ],
)
def test_local_and_remote_paths_are_distinguished(name, local, remote):
    assert (access.is_local(name), access.is_remote(name)) == (local, remote)
