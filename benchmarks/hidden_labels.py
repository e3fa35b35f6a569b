"""Hidden labels: a run with `labelled_area` against a run in which the hidden area counts as background.

    python benchmarks/hidden_labels.py scene.tif buildings.geojson --out FOLDER [--share 0.2] [--steps 200] [--seed 0]

The scene is divided into squares, of which a random share keeps its labels. Two runs with the same settings and seed
follow: one gets all polygons and the labelled area; the other gets only the polygons in that area, so that the rest
counts as background. Both maps are compared with all polygons in the hidden squares, which neither run has seen.
"""

import argparse
import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely

from landscribe import pipeline, verbs
from landscribe.geo.grid import Window
from landscribe.geo.rasters.raster import Raster


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--side", type=int, default=256, help="of a square, in pixels")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    kept, hidden = areas(given.image, given.share, given.side, np.random.default_rng(given.seed))
    crs = Raster.open([given.image]).grid.crs
    paths = {"kept": given.out / "kept.gpkg", "hidden": given.out / "hidden.gpkg"}
    for name, boxes in (("kept", kept), ("hidden", hidden)):
        gpd.GeoDataFrame(geometry=boxes, crs=crs).to_file(paths[name])
    polygons = gpd.read_file(given.labels).to_crs(crs)
    clipped = gpd.clip(polygons, gpd.GeoSeries([shapely.union_all(kept)], crs=crs), keep_geom_type=True)
    clipped.to_file(given.out / "clipped.gpkg")
    common = {"steps": given.steps, "seed": given.seed, "weights": "none"}
    runs = {
        "labelled area": {"labels": given.labels, "labelled_area": str(paths["kept"])},
        "background": {"labels": given.out / "clipped.gpkg"},
    }
    for name, labelled in runs.items():
        out = pipeline.run(images=[given.image], out=given.out / name.replace(" ", "_"), **labelled, **common)
        measured = verbs.assess(out / "map.tif", reference=given.labels, labelled_area=str(paths["hidden"]))
        print(
            json.dumps({"run": name, "seed": given.seed, "f1": [round(float(f1), 4) for f1 in measured.f1]}), flush=True
        )


def areas(image: Path, share: float, side: int, rng: np.random.Generator) -> tuple[list, list]:
    """Squares that keep their labels, and those that lose them."""
    grid = Raster.open([image]).grid
    boxes = [
        shapely.box(*grid[Window(row, col, min(side, grid.height - row), min(side, grid.width - col))].bounds)
        for row in range(0, grid.height, side)
        for col in range(0, grid.width, side)
    ]
    order = rng.permutation(len(boxes))
    count = round(share * len(boxes))
    return [boxes[index] for index in order[:count]], [boxes[index] for index in order[count:]]


if __name__ == "__main__":
    main()
