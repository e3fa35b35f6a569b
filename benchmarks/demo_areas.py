"""Samples of the demo's map, labelled with its truth: of how many samples the intervals hold the true areas.

    landscribe demo --out demo
    python benchmarks/demo_areas.py demo [--seeds 100] [--designs NAME ...] [--degrees]

A user's steps for each seed: `sample` to a GeoPackage, its column reference filled in from the truth of the drawn
world, `assess`. True areas are the truth's pixels times their areas, where the map has a class. With --degrees, map and
truth lie in longitude and latitude between 50 and 70 degrees north, where a pixel in the south is 1.9 times as large as
one in the north. Prints a table in Markdown.
"""

import argparse
import logging
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

import landscribe as ls
from landscribe.geo.classes import IGNORE
from landscribe.geo.pixel_area import pixel_areas
from landscribe.geo.rasters.raster import Raster
from landscribe.maps.class_map import ClassMap

DESIGNS: dict[str, dict[str, Any]] = {
    "stratified, 641": {"size": 641},
    "stratified, 300": {"size": 300},
    "simple random, 641": {"design": "simple", "size": 641},
    "systematic, 641": {"design": "systematic", "size": 641},
    "clusters, 64 x 10 of 32²": {"design": "cluster", "clusters": 64, "cluster_size": 32, "per_cluster": 10},
}
NORTH, SOUTH = 70.0, 50.0


def in_degrees(source: Path, path: Path) -> Path:
    """A copy of a raster whose rows lie between 50 and 70 degrees north."""
    with rasterio.open(source) as raster:
        step = (NORTH - SOUTH) / raster.height
        grid = {"crs": "EPSG:4326", "transform": Affine(step, 0, 10, 0, -step, NORTH)}
        options = {"driver": "GTiff", "width": raster.width, "height": raster.height, "count": 1, "dtype": "uint8"}
        with rasterio.open(path, "w", nodata=raster.nodata, compress="deflate", **options, **grid) as copy:
            copy.write(raster.read(1), 1)
            copy.update_tags(**raster.tags())
    return path


@lru_cache
def true_classes(mapped: Path, truth: Path) -> tuple[NDArray[Any], dict[str, float]]:
    """Names of the true classes (rows, cols), and the area of each class in m² where the map has a class."""
    raster = Raster.open([truth])
    values, is_mapped = raster.read(raster.grid.window)[0][0], Raster.open([mapped]).read(raster.grid.window)[1]
    ground = np.where(is_mapped, pixel_areas(raster.grid), 0.0)
    entries = ClassMap.open(mapped).classes.entries
    names = np.empty(IGNORE + 1, object)
    for entry in entries:
        names[entry.value] = entry.name
    return names[values], {entry.name: float(ground[values == entry.value].sum()) for entry in entries}


def sample_and_assess(mapped: Path, truth: Path, settings: dict[str, Any], seed: int) -> list[tuple[bool, float]]:
    """For each class whether its interval holds its true area, and the interval's half-width over the true area."""
    logging.disable(logging.WARNING)
    names, areas = true_classes(mapped, truth)
    with tempfile.TemporaryDirectory() as folder:
        points = Path(folder) / "points.gpkg"
        sample = ls.sample(mapped, out=points, seed=seed, **settings)
        units = sample.units
        labels = names[units["row"], units["col"]].tolist()
        sample.with_labels(dict(zip(units["id"].tolist(), labels, strict=True))).save(points)
        result = ls.assess(mapped, reference=points)
    unit = {"ha": 1e4, "km²": 1e6}[result.area_unit]
    return [
        (each.lower <= area / unit <= each.upper, (each.upper - each.lower) / 2 / (area / unit))
        for each, area in ((result.areas[name], area) for name, area in areas.items())
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("demo", type=Path, help="folder of landscribe demo")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--designs", nargs="+", default=list(DESIGNS), choices=list(DESIGNS))
    parser.add_argument("--degrees", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    mapped, truth = arguments.demo / "run" / "map.tif", next(arguments.demo.glob("world-*/truth.tif"))
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(arguments.workers) as pool:
        if arguments.degrees:
            mapped, truth = in_degrees(mapped, Path(folder) / "map.tif"), in_degrees(truth, Path(folder) / "truth.tif")
        _, areas = true_classes(mapped, truth)
        whole = sum(areas.values())
        print("| design | " + " | ".join(f"{name}, {area / whole:.1%}" for name, area in areas.items()) + " | mean |")
        print("|---" * (len(areas) + 2) + "|")
        seeds = range(arguments.first, arguments.first + arguments.seeds)
        for name in arguments.designs:
            run = partial(sample_and_assess, mapped, truth, DESIGNS[name])
            results = np.array(list(pool.map(run, seeds)))
            held, widths = results[..., 0].sum(axis=0), results[..., 1].mean(axis=0)
            cells = [f"{count:.0f} (± {width:.0%})" for count, width in zip(held, widths, strict=True)]
            print(f"| {name} | " + " | ".join(cells) + f" | {held.mean():.1f} |", flush=True)


if __name__ == "__main__":
    main()
