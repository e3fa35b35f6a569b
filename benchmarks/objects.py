"""Objects: seconds of an assessment beside geopandas on the same two files, and peak memory, by the number of objects.

    python benchmarks/objects.py [--counts 1000 10000 100000]

Polygons of 12 vertices on a jittered lattice, predicted and reference; neighbours of a file overlap here and there.
`overlay` is geopandas' intersection of the two files, all that a script needs for the IoU of each pair; `sjoin` is its
join of what intersects. All read the same files. Each process runs one method on one core.
"""

import argparse
import json
import math
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely

import landscribe as ls
import landscribe.assessment.objects.objects  # loads before the clock starts

VERTICES = 12
SPACING = 20.0
TOLERANCE = 1.0


def draw(count: int, generator: np.random.Generator, jitter: float) -> gpd.GeoDataFrame:
    """Star-shaped polygons around the points of a lattice, with a score each."""
    side, index = math.ceil(math.sqrt(count)), np.arange(count)
    centres = np.column_stack([index % side, index // side]) * SPACING + (500_000, 5_000_000)
    angles = np.sort(generator.uniform(0, 2 * np.pi, (count, VERTICES)), axis=1)
    radii = generator.uniform(6, 11, (count, VERTICES, 1))
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=-1) * radii
    moved = centres + generator.normal(0, jitter, (count, 2))
    polygons = shapely.buffer(shapely.polygons(moved[:, None] + corners), 0)
    return gpd.GeoDataFrame({"score": generator.random(count)}, geometry=polygons, crs="EPSG:32632")


def overlay(objects: Path, reference: Path) -> None:
    gpd.overlay(gpd.read_file(objects), gpd.read_file(reference), keep_geom_type=True)


def sjoin(objects: Path, reference: Path) -> None:
    gpd.sjoin(gpd.read_file(objects), gpd.read_file(reference))


def assessment(objects: Path, reference: Path) -> None:
    ls.assess_objects(objects, reference=reference)


def outlines(objects: Path, reference: Path) -> None:
    ls.assess_objects(objects, reference=reference, tolerance=TOLERANCE)


METHODS: dict[str, Callable[[Path, Path], None]] = {
    "sjoin": sjoin, "overlay": overlay, "ours": assessment, "ours with boundaries": outlines
}  # fmt: skip


def timed(name: str, objects: Path, reference: Path) -> dict[str, float]:
    started = time.perf_counter()
    METHODS[name](objects, reference)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    counts = parser.parse_args().counts
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            generator = np.random.default_rng(0)
            objects, reference = Path(folder) / "objects.gpkg", Path(folder) / "reference.gpkg"
            draw(count, generator, 2).to_file(objects)
            draw(count, generator, 0).to_file(reference)
            found = {}
            for name in METHODS:
                # A process of its own, so that peaks do not add up.
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    found[name] = pool.apply(timed, (name, objects, reference))
        ratios = {name: round(each["seconds"] / found["overlay"]["seconds"], 2) for name, each in found.items()}
        print(json.dumps({"objects": count, "measured": found, "ratio to overlay": ratios}))


if __name__ == "__main__":
    main()
