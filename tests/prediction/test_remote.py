"""Rasters over a network: a server of ranges on this machine, that may fail."""

import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_mapping import model_of, read, write

from landscribe.errors import RasterError, UnfinishedError
from landscribe.geo import raster as raster_module
from landscribe.geo.grid import Window
from landscribe.geo.raster import Raster
from landscribe.prediction.mapping import predict
from landscribe.prediction.spec import PredictSpec
from networks import Identity

SPEC = PredictSpec(tile=64, margin=4, unit=64)


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder by ranges, and remembers what it was asked."""

    folder: Path
    asked: list[tuple[str, str | None]]
    refuses = staticmethod(lambda start: False)
    """Which ranges are answered with 503, by their first byte."""


class Ranges(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def _answer(self, *, has_body: bool) -> None:
        path = self.server.folder / self.path.lstrip("/")
        self.server.asked.append((self.path, self.headers.get("Range")))
        if not path.is_file():
            self._send(404, b"", {}, has_body=has_body)
            return
        data = path.read_bytes()
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not found:
            self._send(200, data, {"Accept-Ranges": "bytes"}, has_body=has_body)
            return
        start, stop = int(found[1]), min(len(data), int(found[2] or len(data)) + 1)
        if self.server.refuses(start):
            self._send(503, b"", {}, has_body=has_body)
            return
        span = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}", "Accept-Ranges": "bytes"}
        self._send(206, data[start:stop], span, has_body=has_body)

    def _send(self, code: int, body: bytes, headers: dict[str, str], *, has_body: bool) -> None:
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if has_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    served = Server(("127.0.0.1", 0), Ranges)
    served.folder, served.asked = tmp_path / "served", []
    served.folder.mkdir()
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


def url(server: Server, name: str) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/{name}"


def test_a_raster_behind_a_url_is_mapped_like_a_file(tmp_path, server):
    numbers = np.random.default_rng(0).integers(0, 4, (150, 217)).astype(np.uint8)
    near = write(server.folder / "image.tif", numbers, tiled=True, blockxsize=64, blockysize=64)
    far = Raster.open([url(server, "image.tif")])
    predict(model_of(Identity(), 4), near, tmp_path / "near.tif", spec=SPEC)
    predict(model_of(Identity(), 4), far, tmp_path / "far.tif", spec=SPEC)
    np.testing.assert_array_equal(read(tmp_path / "far.tif"), read(tmp_path / "near.tif"))


def test_of_a_large_raster_only_the_blocks_of_a_window_are_fetched(server):
    noise = np.random.default_rng(0).integers(0, 255, (4096, 4096)).astype(np.uint8)
    write(server.folder / "large.tif", noise, tiled=True, blockxsize=256, blockysize=256)
    far = Raster.open([url(server, "large.tif")])
    pixels, _ = far.read(Window(2048, 2048, 256, 256))
    np.testing.assert_array_equal(pixels[0], noise[2048:2304, 2048:2304])
    spans = [re.findall(r"\d+", span) for _, span in server.asked if span]
    assert sum(int(stop) - int(start) + 1 for start, stop in spans) < noise.size / 8
    # No side file, no listing of the folder.
    assert {path for path, _ in server.asked} == {"/large.tif"}


def test_a_file_that_is_not_there_is_named(server):
    with pytest.raises(RasterError, match=r"http://127\.0\.0\.1:\d+/none\.tif cannot be read: .*404"):
        Raster.open([url(server, "none.tif")])


def test_what_the_server_refuses_is_named_and_fetched_later(tmp_path, server, monkeypatch):
    monkeypatch.setitem(raster_module._REMOTE, "GDAL_HTTP_MAX_RETRY", "0")
    numbers = np.random.default_rng(0).integers(0, 4, (512, 512)).astype(np.uint8)
    write(server.folder / "image.tif", numbers, tiled=True, blockxsize=256, blockysize=256)
    server.refuses = lambda start: start >= 150_000
    spec = PredictSpec(tile=256, margin=0, unit=256)
    far = Raster.open([url(server, "image.tif")])
    with pytest.raises(UnfinishedError, match=r"map\.tif is not finished: \d of 4 units could not be mapped"):
        predict(model_of(Identity(), 4), far, tmp_path / "map.tif", spec=spec)
    done = len(list((tmp_path / "map.tif.parts").glob("*.class.tif")))
    assert 0 < done < 4
    server.refuses = lambda start: False
    far = Raster.open([url(server, "image.tif")])
    predict(model_of(Identity(), 4), far, tmp_path / "map.tif", spec=spec)
    np.testing.assert_array_equal(read(tmp_path / "map.tif"), numbers)


def test_the_users_environment_wins(monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "7")
    with raster_module._way_to("https://example.org/a.tif"):
        from rasterio.env import getenv

        assert getenv()["GDAL_HTTP_MAX_RETRY"] == "5"
        assert "GDAL_HTTP_TIMEOUT" not in getenv()
