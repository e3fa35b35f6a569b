"""Chips a second: ours beside a bare loop that only reads and writes, and against the number of polygons.

    python benchmarks/chips.py scene scene.tif buildings.geojson [--size 256] [--stride 128] [--rounds 5]
    python benchmarks/chips.py polygons [--counts 1000 10000 100000 1000000] [--chips 500] [--rounds 5]

All on one core. To time another way, add a function to `WAYS`: it gets the files and a folder to make, and gives what
is to be timed, which returns the number of chips. The bare loop reads each window and writes it, and a mask of zeros,
with rasterio and the codec of our chips; nothing else. `polygons` draws a scene and as many polygons as told, in two
ways: all on the scene, so that chips become fuller (a fifth of the ground is covered throughout), and as dense as the
smallest number throughout, so that most lie outside of the scene. What `open_scenes` takes, once, is told apart.
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
    """What is cut."""

    image: str
    labels: str
    size: int
    stride: int


def ours(job: Job, folder: Path) -> Callable[[], int]:
    """The verb, with files that are open already."""
    sources = [SceneSpec(image=(job.image,), labels=job.labels)]
    scenes, classes = open_scenes(sources)
    spec = ChipSpec(size=job.size, stride=job.stride)
    return lambda: len(chip(scenes, classes, sources, folder, spec=spec, split=SplitSpec()))


def bare(job: Job, folder: Path, **options: str) -> Callable[[], int]:
    """Nothing but reading and writing."""

    def loop() -> int:
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True)
        zeros = np.zeros((job.size, job.size), np.uint8)
        with rasterio.Env(**options), rasterio.open(job.image) as source:
            windows = chip_windows(*source.shape, size=job.size, stride=job.stride, edge="shift")
            for window in windows:
                place = RasterioWindow(window.col, window.row, job.size, job.size)
                pixels = source.read(window=place)
                shape = {"height": job.size, "width": job.size, "crs": source.crs}
                layout = CODEC | shape | {"transform": source.window_transform(place), "dtype": pixels.dtype}
                name = f"r{window.row:05d}_c{window.col:05d}.tif"
                with rasterio.open(folder / "images" / name, "w", count=source.count, **layout) as image:
                    image.write(pixels)
                with rasterio.open(folder / "masks" / name, "w", count=1, nodata=255, **layout) as mask:
                    mask.write(zeros, 1)
        return len(windows)

    return loop


WAYS: dict[str, Callable[[Job, Path], Callable[[], int]]] = {
    "ours": ours,
    "bare": bare,
    # GDAL lists the folder for each file that it makes there, which grows with the number of chips.
    "bare, folder not listed": partial(bare, GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    scene = commands.add_parser("scene")
    scene.add_argument("image")
    scene.add_argument("labels")
    scene.add_argument("--ways", nargs="+", default=list(WAYS))
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
        print(json.dumps(compared(job, given.ways, given.rounds), indent=1))
        return
    with tempfile.TemporaryDirectory() as folder:
        for row in against_polygons(Path(folder), given):
            print(json.dumps(row), flush=True)


def on_one_core() -> None:
    """This process, its threads and what it starts."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def compared(job: Job, ways: list[str], rounds: int) -> dict[str, Any]:
    """Chips a second of each way, by the clock and by the core's work; ways take turns, the first round warms up."""
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        works = {way: WAYS[way](job, Path(folder) / "chips") for way in ways}
        for _ in range(rounds + 1):
            for way, work in works.items():
                shutil.rmtree(Path(folder) / "chips", ignore_errors=True)
                before = time.perf_counter(), time.process_time()
                chips = work()
                seconds[way].append((time.perf_counter() - before[0], time.process_time() - before[1]))
    found: dict[str, Any] = {"chips": chips, "rounds": rounds}
    for way in ways:
        by_clock, by_core = zip(*seconds[way][1:], strict=True)
        found[way] = {
            "chips_a_second": round(chips / statistics.median(by_clock), 1),
            "chips_a_second_of_the_core": round(chips / statistics.median(by_core), 1),
            "speed_of_the_first_against_it": against(seconds[ways[0]][1:], seconds[way][1:]),
        }
    return found


def against(first: list[tuple[float, float]], other: list[tuple[float, float]]) -> dict[str, float]:
    """Medians over rounds of other / first."""
    pairs = [(b[0] / a[0], b[1] / a[1]) for a, b in zip(first, other, strict=True)]
    by_clock, by_core = (statistics.median(some) for some in zip(*pairs, strict=True))
    return {"by_clock": round(by_clock, 3), "by_core": round(by_core, 3)}


def against_polygons(folder: Path, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each number of polygons and way of spreading them; each in a process of its own, for its memory."""
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
                found = pool.apply(timed, (job, given.rounds))
            yield {"polygons": count, "spread": "beyond the scene" if spread else "on the scene", **found}


def timed(job: Job, rounds: int) -> dict[str, Any]:
    """Milliseconds a chip, after what is done once."""
    started = time.perf_counter()
    open_scenes([SceneSpec(image=(job.image,), labels=job.labels)])
    opening = time.perf_counter() - started
    found = compared(job, ["ours"], rounds)
    # Of this process alone: what `resource` tells begins with that of the process which started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    speed = found["ours"]
    return {
        "chips": found["chips"],
        "ms_a_chip": round(1000 / speed["chips_a_second"], 3),
        "ms_a_chip_of_the_core": round(1000 / speed["chips_a_second_of_the_core"], 3),
        "open_seconds": round(opening, 2),
        "peak_mib": round(peak),
    }


def write_scene(path: Path, height: int, width: int) -> Path:
    """Noise on slopes: about as hard to compress as photographs."""
    rng = np.random.default_rng(0)
    layout = {"height": height, "width": width, "count": 3, "dtype": "uint8", "crs": "EPSG:32632", "transform": METRE}
    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512}
    with rasterio.open(path, "w", **CODEC, **layout, **tiles) as target:
        for band in (1, 2, 3):
            slope = np.add.outer(np.arange(height) / height, np.arange(width) / width) * 60 + 20 * band
            target.write((slope + rng.normal(0, 4, (height, width))).clip(0, 255).astype(np.uint8), band)
    return path


def write_polygons(path: Path, count: int, height: int, width: int, dense_as: int | None) -> None:
    """Turned boxes that cover a fifth of the ground they lie on.

    Args:
        path: the file.
        count: how many.
        height: of the scene.
        width: likewise.
        dense_as: how many of them lie on the scene; all if None.
    """
    rng = np.random.default_rng(count)
    grows = 1 if dense_as is None else math.sqrt(count / dense_as)
    side = math.sqrt(0.2 * height * width * grows**2 / count)
    middle = np.array([METRE.c + width / 2, METRE.f - height / 2])
    places = middle + rng.uniform(-0.5, 0.5, (count, 2)) * grows * np.array([width, height])
    angles = rng.uniform(0, np.pi / 2, count)[:, None] + np.arange(4) * np.pi / 2
    corners = places[:, None] + side / math.sqrt(2) * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    boxes = shapely.polygons(corners)
    gpd.GeoDataFrame(geometry=boxes, crs="EPSG:32632").to_file(path)


if __name__ == "__main__":
    main()
