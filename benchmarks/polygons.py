"""Polygons: time and memory of `landscribe vectorize`, beside rasterio.features.shapes with geopandas.

    python benchmarks/polygons.py speed --map map.tif [--side 8192] [--rounds 3]
    python benchmarks/polygons.py memory --map map.tif [--sides 8000 40000]
    python benchmarks/polygons.py checkerboard [--side 4096]

`--map` is a class map of a trained network, such as that of `landscribe demo`; it is repeated to the side that is asked
for, every other time mirrored, so that its classes continue across the seams. Every run is its own process, and the
methods take turns within each round. Prints tables in Markdown.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio

from landscribe.machine import processor_name

_METHODS = {
    "landscribe": {"classes": "all"},
    "landscribe, simplify auto": {"classes": "all", "simplify": "auto"},
    "landscribe, houses": {"classes": "house"},
    "landscribe, houses, squared": {"classes": "house", "square": True},
}
_PEER = "rasterio.features.shapes + geopandas"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "memory", "checkerboard", "one"])
    parser.add_argument("--map", type=Path, help="class map of a trained network")
    parser.add_argument("--side", type=int, help="of the raster, in pixels")
    parser.add_argument("--sides", type=int, nargs=2, default=(8_000, 40_000), help="of the two rasters of `memory`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--suffix", default=".gpkg", help="format of the polygons")
    parser.add_argument("--method", help="of `one`")
    parser.add_argument("--out", type=Path, help="of `one`")
    given = parser.parse_args()
    if given.what == "one":
        _run_one(given.map, given.method, given.out)
        return
    print(f"{processor_name()}, {os.cpu_count()} cores\n")
    with tempfile.TemporaryDirectory() as folder:
        {"speed": _speed, "memory": _memory, "checkerboard": _checkerboard}[given.what](given, Path(folder))


def _speed(given: argparse.Namespace, folder: Path) -> None:
    """Seconds and peak memory of each method on one raster."""
    raster = _repeated(given.map, given.side or 8192, folder / "map.tif")
    runs: dict[str, list[tuple[float, float, int]]] = {}
    for _ in range(given.rounds):
        for method in (_PEER, *_METHODS):
            runs.setdefault(method, []).append(_measured(raster, method, folder / f"polygons{given.suffix}"))
    own = statistics.median(seconds for seconds, _, _ in runs[_PEER])
    print(f"{given.side or 8192}² pixels, {given.suffix}\n")
    print("| | polygons | seconds | ratio | peak GB |\n|---|---|---|---|---|")
    for method, results in runs.items():
        seconds, peak = (statistics.median(column) for column in list(zip(*results, strict=True))[:2])
        print(f"| {method} | {results[0][2]:,} | {seconds:.1f} | {seconds / own:.2f} | {peak:.2f} |")


def _memory(given: argparse.Namespace, folder: Path) -> None:
    """Peak memory and seconds on a small and a large raster."""
    print("| | side | polygons | seconds | ns per pixel | peak GB |\n|---|---|---|---|---|---|")
    for side in given.sides:
        raster = _repeated(given.map, side, folder / f"{side}.tif")
        for method in ("landscribe, houses", "landscribe"):
            seconds, peak, count = _measured(raster, method, folder / f"polygons{given.suffix}")
            print(
                f"| {method} | {side} | {count:,} | {seconds:.0f} | {1e9 * seconds / side**2:.1f} | {peak:.2f} |",
                flush=True,
            )


def _checkerboard(given: argparse.Namespace, folder: Path) -> None:
    """Half of the pixels are polygons."""
    side = given.side or 4096
    values = (np.indices((side, side)).sum(axis=0) % 2).astype(np.uint8)
    profile = {"width": side, "height": side, "count": 1, "dtype": "uint8", "tiled": True, "compress": "deflate"}
    profile |= {"crs": "EPSG:32617", "transform": rasterio.Affine(1, 0, 5e5, 0, -1, 4e6)}
    with rasterio.open(folder / "board.tif", "w", **profile) as board:
        board.write(values, 1)
    seconds, peak, count = _measured(folder / "board.tif", "landscribe", folder / "polygons.fgb")
    print(f"checkerboard of {side}²: {count:,} polygons in {seconds:.0f} s, peak {peak:.2f} GB")


def _repeated(path: Path, side: int, out: Path) -> Path:
    """A map of this side: the given one repeated, mirrored at each seam."""
    with rasterio.open(path) as source:
        values, profile, tags = source.read(1), source.profile, source.tags()
    whole = np.block([[values, values[:, ::-1]], [values[::-1], values[::-1, ::-1]]])
    rows, cols = whole.shape
    profile |= {"width": side, "height": side, "driver": "GTiff", "tiled": True, "compress": "deflate", "zlevel": 1}
    with rasterio.open(out, "w", **profile) as target:
        target.update_tags(**tags)
        for row in range(0, side, 512):
            height = min(512, side - row)
            strip = np.take(np.take(whole, np.arange(row, row + height) % rows, 0), np.arange(side) % cols, 1)
            target.write(strip, 1, window=rasterio.windows.Window(0, row, side, height))
    return out


def _measured(raster: Path, method: str, out: Path) -> tuple[float, float, int]:
    """Seconds, peak memory in GB and number of polygons of a method in a process of its own."""
    command = [sys.executable, __file__, "one", "--map", str(raster), "--method", method, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak, count = done.stdout.split()[-3:]
    return float(seconds), float(peak), int(count)


def _run_one(raster: Path, method: str, out: Path) -> None:
    for stale in out.parent.glob(f"{out.stem}.*"):
        stale.unlink()
    if method == _PEER:
        import geopandas as gpd
        import rasterio.features
        import shapely

        start = time.perf_counter()
        with rasterio.open(raster) as source:
            values = source.read(1)
            shapes = rasterio.features.shapes(values, mask=values != 255, transform=source.transform)
            rows = [(shapely.geometry.shape(polygon), value) for polygon, value in shapes]
            table = gpd.GeoDataFrame(
                {"value": [value for _, value in rows]}, geometry=[p for p, _ in rows], crs=source.crs
            )
        table.to_file(out)
    else:
        import landscribe as ls

        start = time.perf_counter()
        ls.vectorize(raster, out=out, **_METHODS[method])
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    import pyogrio

    print(seconds, peak, pyogrio.read_info(out, layer=pyogrio.list_layers(out)[0][0])["features"])


if __name__ == "__main__":
    main()
