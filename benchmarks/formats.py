"""Formats: how fast the units of a map are read, by one thread and by as many as there are cores.

    python benchmarks/formats.py [--side 8192] [--rounds 3] [--latency 0.02] [--threads 1 2 16] [--only HTTP]

The same noise in each format; units of 2048 pixels with a margin of 48, as `landscribe predict` reads them, each thread
with handles of its own. A map is never faster than this, whatever the GPU. Remote files come from a server on this
machine that answers each request for a range after `--latency` seconds; their rows have the number of requests, and of
those at once.
"""

import argparse
import http.server
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import rasterio
from mapping import GEOREFERENCE, noise
from rasterio.shutil import copy

from landscribe.geo.access import bounded_block_cache, clear_vsi_cache, decoding_threads, is_remote
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.tiling import Unit, units
from landscribe.machine import cores, processor_name

TILED = {"driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512}
UNIT, MARGIN = 2048, 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=8192, help="of the raster, in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds until the server answers a request")
    parser.add_argument("--threads", type=int, nargs="+", default=list(dict.fromkeys((1, cores()))))
    parser.add_argument("--only", default="", help="the formats with this in their name")
    parser.add_argument("--work", type=Path, help="folder for temporary files")
    given = parser.parse_args()
    counts = given.threads
    with tempfile.TemporaryDirectory(dir=given.work) as folder, served(Path(folder), given.latency) as address:
        files = written(Path(folder), given.side)
        files["GeoTIFF over HTTP, deflate"] = [f"{address}/deflate.tif"]
        files["COG over HTTP, JPEG"] = [f"{address}/cog.tif"]
        files = {name: paths for name, paths in files.items() if given.only in name}
        speeds: dict[tuple[str, int], list[float]] = {}
        requests: dict[tuple[str, int], str] = {}
        for _ in range(given.rounds):
            for name, paths in files.items():
                for count in counts:
                    LOAD.reset()
                    speeds.setdefault((name, count), []).append(speed(paths, count))
                    requests[name, count] = f" ({LOAD.requests}, {LOAD.most})" if LOAD.requests else ""
        print(f"{processor_name()}, {cores()} cores, GDAL {rasterio.__gdal_version__}, {given.side}²\n")
        print("| format | bytes/px | " + " | ".join(f"Mpx/s, {count} threads" for count in counts) + " |")
        print("|---|---|" + "---|" * len(counts))
        for name, paths in files.items():
            local = {Path(folder) / Path(path).name.partition(":")[0] for path in paths}
            local |= set(Path(folder).glob("part*")) if name.startswith("VRT") else set()
            size = sum(path.stat().st_size for path in local) / given.side**2
            cells = [f"{statistics.median(speeds[name, count]):.3g}{requests[name, count]}" for count in counts]
            print(f"| {name} | {size:.3g} | {' | '.join(cells)} |")


def written(folder: Path, side: int) -> dict[str, list[str]]:
    """Files of each format, by the row of the table."""
    with rasterio.open(noise(folder / "deflate.tif", side)) as source:
        pixels = source.read()

    def write(name: str, pixels: np.ndarray, **layout: object) -> str:
        shape = {"count": len(pixels), "height": side, "width": side, "dtype": pixels.dtype.name}
        with rasterio.open(folder / name, "w", **shape, **(TILED | GEOREFERENCE | layout)) as target:
            target.write(pixels)
        return str(folder / name)

    reflectance = np.repeat(pixels, 4, axis=0).astype(np.uint16) * 37
    return {
        "GeoTIFF, not compressed": [write("plain.tif", pixels)],
        "GeoTIFF, deflate": [str(folder / "deflate.tif")],
        "GeoTIFF, zstd": [write("zstd.tif", pixels, compress="zstd")],
        "GeoTIFF, LZW, strips": [write("strips.tif", pixels, compress="lzw", tiled=False, blockysize=1)],
        "GeoTIFF, 12 bands uint16, deflate": [write("bands.tif", reflectance, compress="deflate")],
        "12 GeoTIFFs of one band uint16, deflate": [
            write(f"band{index}.tif", band[None], compress="deflate") for index, band in enumerate(reflectance)
        ],
        "COG, JPEG": [write("cog.tif", pixels, driver="COG", compress="jpeg")],
        "VRT of 4 GeoTIFFs, deflate": [virtual(folder, pixels)],
        "JPEG 2000, lossless": [write("image.jp2", pixels, driver="JP2OpenJPEG", quality=100, reversible="yes")],
        "NetCDF, deflate": netcdf(folder),
    }


def netcdf(folder: Path) -> list[str]:
    """The variables of a NetCDF file, one for each band."""
    copy(folder / "deflate.tif", folder / "image.nc", driver="netCDF", format="NC4", compress="deflate")
    return [f"NETCDF:{folder / 'image.nc'}:Band{band}" for band in (1, 2, 3)]


def virtual(folder: Path, pixels: np.ndarray) -> str:
    """A virtual raster of four GeoTIFFs, a quarter of the pixels each."""
    count, side, half = len(pixels), pixels.shape[-1], pixels.shape[-1] // 2
    sources: list[list[str]] = [[] for _ in range(count)]
    for row, col in product((0, half), repeat=2):
        name, shape = f"part{row}-{col}.tif", {"count": count, "height": half, "width": half, "dtype": "uint8"}
        with rasterio.open(folder / name, "w", **shape, **TILED, **GEOREFERENCE, compress="deflate") as target:
            target.write(pixels[:, row : row + half, col : col + half])
        for band in range(count):
            sources[band].append(
                f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>{band + 1}'
                f'</SourceBand><SrcRect xOff="0" yOff="0" xSize="{half}" ySize="{half}"/>'
                f'<DstRect xOff="{col}" yOff="{row}" xSize="{half}" ySize="{half}"/></SimpleSource>'
            )
    bands = "".join(f'<VRTRasterBand dataType="Byte">{"".join(each)}</VRTRasterBand>' for each in sources)
    (folder / "four.vrt").write_text(f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}">{bands}</VRTDataset>')
    return str(folder / "four.vrt")


def speed(paths: list[str], threads: int) -> float:
    """Megapixels of the map per second that so many threads read."""
    for path in filter(is_remote, paths):
        clear_vsi_cache(path)
    raster = Raster.open(paths)
    covering = list(units(*raster.grid.shape, size=UNIT, margin=MARGIN, align=32, side=UNIT))

    def read(unit: Unit) -> None:
        with bounded_block_cache(max(256, 64 * threads) * 2**20), decoding_threads(threads):
            raster.read(unit.read)

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, covering))
    return raster.grid.height * raster.grid.width / 1e6 / (time.perf_counter() - started)


class Load:
    """Requests of a server: how many, and how many at once at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        self.requests = self.most = self._now = 0

    @contextmanager
    def request(self) -> Iterator[None]:
        with self._lock:
            self.requests += 1
            self._now += 1
            self.most = max(self.most, self._now)
        yield
        with self._lock:
            self._now -= 1


LOAD = Load()


class Ranges(http.server.BaseHTTPRequestHandler):
    """Answers requests for ranges of the files of a folder, each after some seconds."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments: object, folder: Path, latency: float) -> None:
        self.folder, self.latency = folder, latency
        super().__init__(*arguments)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        with LOAD.request():
            time.sleep(self.latency)
            self._answer()

    def _answer(self) -> None:
        path = self.folder / Path(self.path).name
        size = path.stat().st_size if path.exists() else 0
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        start, stop = (int(asked[1]), min(size, int(asked[2] or size) + 1)) if asked else (0, size)
        self.send_response((206 if asked else 200) if size else 404)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.end_headers()
        if self.command == "GET" and size:
            with path.open("rb") as file:
                file.seek(start)
                self.wfile.write(file.read(stop - start))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(http.server.ThreadingHTTPServer):
    """Takes the connections of many readers at once."""

    request_queue_size = 128
    daemon_threads = True


@contextmanager
def served(folder: Path, latency: float) -> Iterator[str]:
    """The address of a server of a folder's files."""
    server = Server(("127.0.0.1", 0), partial(Ranges, folder=folder, latency=latency))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


if __name__ == "__main__":
    main()
