"""Reference samples: seconds and peak memory of each design on a large map.

    python benchmarks/samples.py [--side 16000] [--designs stratified cluster]

The map has five classes in patches of about 20 pixels, one of them on 2 % of it, in tiles of 512 pixels, and repeats
itself every 2000 pixels. Each process draws one sample of 641 units on one core.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window
from scipy.ndimage import gaussian_filter

import landscribe as ls
import landscribe.sampling.draw  # loads before the clock starts
import landscribe.sampling.forms

PERIOD = 2000
STRIP = 512
DESIGNS: dict[str, dict[str, Any]] = {
    "stratified": {"size": 641},
    "simple": {"design": "simple", "size": 641},
    "systematic": {"design": "systematic", "size": 641},
    "cluster": {"design": "cluster", "clusters": 64, "cluster_size": 100, "per_cluster": 10},
    "blocks": {"size": 641, "unit": 3},
    "buffer": {"size": 641, "buffer_around": "0", "buffer": 10},
}


def write_map(path: Path, side: int) -> None:
    field = gaussian_filter(np.random.default_rng(0).standard_normal((PERIOD, PERIOD)), 8, mode="wrap")
    values = np.digitize(field, np.quantile(field, [0.02, 0.3, 0.6, 0.97])).astype(np.uint8)
    values[:100, :100] = 255
    wide = np.tile(values, (1, -(-side // PERIOD)))[:, :side]
    options = {"tiled": True, "blockxsize": STRIP, "blockysize": STRIP, "compress": "deflate", "zlevel": 1}
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=1, dtype="uint8", nodata=255, crs="EPSG:32632",
        transform=Affine(1, 0, 500_000, 0, -1, 5_000_000), **options,
    ) as target:  # fmt: skip
        for row in range(0, side, STRIP):
            rows = np.arange(row, min(side, row + STRIP)) % PERIOD
            target.write(wide[rows], 1, window=Window(0, row, side, len(rows)))


def measure(path: Path, design: str) -> None:
    start, processor = time.perf_counter(), time.process_time()
    sample = ls.sample(path, out=path.with_name("points.gpkg"), overwrite=True, **DESIGNS[design])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{design:<11} {len(sample.units):>6} units {time.perf_counter() - start:>7.1f} s "
        f"{time.process_time() - processor:>7.1f} s of processor {peak:>6.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=16_000)
    parser.add_argument("--designs", nargs="+", default=list(DESIGNS), choices=list(DESIGNS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.tif"
        write_map(path, arguments.side)
        for design in arguments.designs:
            process = multiprocessing.get_context("spawn").Process(target=measure, args=(path, design))
            process.start()
            process.join()


if __name__ == "__main__":
    main()
