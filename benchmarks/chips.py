"""Chips: chips per second of ours and of a bare loop that only reads and writes, and by the number of polygons.

    python benchmarks/chips.py scene scene.tif buildings.geojson [--size 256] [--stride 128] [--rounds 5]
    python benchmarks/chips.py polygons [--counts 1000 10000 100000 1000000] [--chips 500] [--rounds 5]

All on one core. To time another method, add a function to `METHODS`: it gets the files and the folder to write, and
returns the timed call, which returns the number of chips. The bare loop reads each window, and writes it and a mask of
zeros, with rasterio and the codec of our chips. `polygons` draws a scene and polygons in two layouts: all on the scene,
where they always cover a fifth of the area, so that more polygons are smaller; and as dense as the smallest count, so
that most are outside the scene. The time of `open_scenes` is reported separately.
"""

import argparse
import json
import math
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from affine import Affine
from rasterio.windows import Window as RasterioWindow

from landscribe.data.chips.cutting import chip
from landscribe.data.chips.spec import ChipSpec
from landscribe.data.scenes.scene import open_scenes
from landscribe.data.scenes.spec import SceneSpec
from landscribe.data.splits.spec import SplitSpec
from landscribe.geo.tiling import chip_windows

CODEC = {"driver": "GTiff", "compress": "deflate", "zlevel": 1}
METRE = Affine(1, 0, 500_000, 0, -1, 5_000_000)


@dataclass(frozen=True)
class Job:
    """The scene to cut, and size and stride of its chips."""

    image: str
    labels: str
    size: int
    stride: int


def ours(job: Job, folder: Path) -> Callable[[], int]:
    """Our chipping, with opened files."""
    sources = [SceneSpec(image=(job.image,), labels=job.labels)]
    scenes, classes = open_scenes(sources)
    spec = ChipSpec(size=job.size, stride=job.stride)
    return lambda: len(chip(scenes, classes, sources, folder, spec=spec, split=SplitSpec()))


def bare(job: Job, folder: Path, **options: str) -> Callable[[], int]:
    """A loop that reads and writes, and does nothing else."""

    def loop() -> int:
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True)
        zeros = np.zeros((job.size, job.size), np.uint8)
        with rasterio.Env(**options), rasterio.open(job.image) as source:
            windows = chip_windows(*source.shape, size=job.size, stride=job.stride, edge="shift")
            for window in windows:
                rasterio_window = RasterioWindow(window.col, window.row, job.size, job.size)
                pixels = source.read(window=rasterio_window)
                shape = {"height": job.size, "width": job.size, "crs": source.crs}
                transform = source.window_transform(rasterio_window)
                layout = CODEC | shape | {"transform": transform, "dtype": pixels.dtype}
                name = f"r{window.row:05d}_c{window.col:05d}.tif"
                with rasterio.open(folder / "images" / name, "w", count=source.count, **layout) as image:
                    image.write(pixels)
                with rasterio.open(folder / "masks" / name, "w", count=1, nodata=255, **layout) as mask:
                    mask.write(zeros, 1)
        return len(windows)

    return loop


METHODS: dict[str, Callable[[Job, Path], Callable[[], int]]] = {
    "ours": ours,
    "bare": bare,
    # GDAL lists the folder for each new file in it, which takes longer with the number of chips.
    "bare, folder not listed": partial(bare, GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    scene = commands.add_parser("scene")
    scene.add_argument("image")
    scene.add_argument("labels")
    scene.add_argument("--methods", nargs="+", default=list(METHODS))
    polygons = commands.add_parser("polygons")
    polygons.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    polygons.add_argument("--chips", type=int, default=500)
    for command, stride in ((scene, 128), (polygons, 256)):
        command.add_argument("--size", type=int, default=256)
        command.add_argument("--stride", type=int, default=stride)
        command.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    on_one_core()
    if given.command == "scene":
        job = Job(given.image, given.labels, given.size, given.stride)
        print(json.dumps(compared(job, given.methods, given.rounds), indent=1))
        return
    with tempfile.TemporaryDirectory() as folder:
        for row in against_polygons(Path(folder), given):
            print(json.dumps(row), flush=True)


def on_one_core() -> None:
    """Run this process, its threads and its child processes on one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def compared(job: Job, methods: list[str], rounds: int) -> dict[str, Any]:
    """Chips per second of each method, by wall-clock and processor time, in turns; the first round warms up."""
    seconds: dict[str, list[tuple[float, float]]] = {method: [] for method in methods}
    with tempfile.TemporaryDirectory() as folder:
        works = {method: METHODS[method](job, Path(folder) / "chips") for method in methods}
        for _ in range(rounds + 1):
            for method, work in works.items():
                shutil.rmtree(Path(folder) / "chips", ignore_errors=True)
                before = time.perf_counter(), time.process_time()
                chips = work()
                seconds[method].append((time.perf_counter() - before[0], time.process_time() - before[1]))
    results: dict[str, Any] = {"chips": chips, "rounds": rounds}
    for method in methods:
        by_clock, by_core = zip(*seconds[method][1:], strict=True)
        results[method] = {
            "chips_a_second": round(chips / statistics.median(by_clock), 1),
            "chips_a_second_of_the_core": round(chips / statistics.median(by_core), 1),
            "speed_of_the_first_against_it": against(seconds[methods[0]][1:], seconds[method][1:]),
        }
    return results


def against(first: list[tuple[float, float]], other: list[tuple[float, float]]) -> dict[str, float]:
    """Medians over rounds of other / first."""
    pairs = [(b[0] / a[0], b[1] / a[1]) for a, b in zip(first, other, strict=True)]
    by_clock, by_core = (statistics.median(ratios) for ratios in zip(*pairs, strict=True))
    return {"by_clock": round(by_clock, 3), "by_core": round(by_core, 3)}


def against_polygons(folder: Path, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each number and layout of polygons; each is measured in a new process, because of its memory."""
    rows = math.isqrt(given.chips)
    height, width = rows * given.size, -(-given.chips // rows) * given.size
    image = write_scene(folder / "scene.tif", height, width)
    for spread in (False, True):
        for count in given.counts:
            labels = folder / "labels.gpkg"
            labels.unlink(missing_ok=True)
            write_polygons(labels, count, height, width, dense_as=min(given.counts) if spread else None)
            job = Job(str(image), str(labels), given.size, given.stride)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                measured = pool.apply(timed, (job, given.rounds))
            yield {"polygons": count, "spread": "beyond the scene" if spread else "on the scene", **measured}


def timed(job: Job, rounds: int) -> dict[str, Any]:
    """Milliseconds per chip; the time to open the scene is separate."""
    started = time.perf_counter()
    open_scenes([SceneSpec(image=(job.image,), labels=job.labels)])
    opening = time.perf_counter() - started
    results = compared(job, ["ours"], rounds)
    # Peak memory of this process alone; that of `resource` may be that of the parent process.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    speed = results["ours"]
    return {
        "chips": results["chips"],
        "ms_a_chip": round(1000 / speed["chips_a_second"], 3),
        "ms_a_chip_of_the_core": round(1000 / speed["chips_a_second_of_the_core"], 3),
        "open_seconds": round(opening, 2),
        "peak_mib": round(peak),
    }


def write_scene(path: Path, height: int, width: int) -> Path:
    """Write noise on slopes, which compresses about like photographs."""
    rng = np.random.default_rng(0)
    layout = {"height": height, "width": width, "count": 3, "dtype": "uint8", "crs": "EPSG:32632", "transform": METRE}
    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512}
    with rasterio.open(path, "w", **CODEC, **layout, **tiles) as target:
        for band in (1, 2, 3):
            slope = np.add.outer(np.arange(height) / height, np.arange(width) / width) * 60 + 20 * band
            target.write((slope + rng.normal(0, 4, (height, width))).clip(0, 255).astype(np.uint8), band)
    return path


def write_polygons(path: Path, count: int, height: int, width: int, dense_as: int | None) -> None:
    """Write rotated boxes that cover a fifth of their area.

    Args:
        path: the file.
        count: number of boxes.
        height: of the scene in pixels.
        width: of the scene in pixels.
        dense_as: number of boxes on the scene; all if None.
    """
    rng = np.random.default_rng(count)
    grows = 1 if dense_as is None else math.sqrt(count / dense_as)
    side = math.sqrt(0.2 * height * width * grows**2 / count)
    middle = np.array([METRE.c + width / 2, METRE.f - height / 2])
    centres = middle + rng.uniform(-0.5, 0.5, (count, 2)) * grows * np.array([width, height])
    angles = rng.uniform(0, np.pi / 2, count)[:, None] + np.arange(4) * np.pi / 2
    corners = centres[:, None] + side / math.sqrt(2) * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    boxes = shapely.polygons(corners)
    gpd.GeoDataFrame(geometry=boxes, crs="EPSG:32632").to_file(path)


if __name__ == "__main__":
    main()
