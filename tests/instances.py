"""Instance rasters drawn by chance, as labels of pixels and as polygons."""

from pathlib import Path

import numpy as np
import shapely
from rasterio.features import shapes

from worlds import METRE, write_polygons

SIDE = 64


def draw_instances(seed: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Two (side, side) rasters with numbers of instances, 0 for none: predicted and reference, which resemble."""
    generator = np.random.default_rng(seed)
    predicted, reference = np.zeros((2, side, side), np.int32)
    for number in range(1, 26):
        row, col = generator.integers(0, side - 8, 2).tolist()
        height, width = generator.integers(3, 14, 2).tolist()
        reference[row : row + height, col : col + width] = number
        if generator.random() < 0.85:
            (down, right), (taller, wider) = generator.integers(0, 3, 2).tolist(), generator.integers(-1, 3, 2).tolist()
            row, col, height, width = row + down, col + right, height + taller, width + wider
            predicted[row : row + height, col : col + width] = number
    return predicted, reference


def polygons_of(labels: np.ndarray) -> dict[int, shapely.Geometry]:
    """The polygon of the pixels of each instance, by its number."""
    parts: dict[int, list] = {}
    for geometry, number in shapes(labels, mask=labels > 0, connectivity=4, transform=METRE):
        parts.setdefault(int(number), []).append(shapely.geometry.shape(geometry))
    return {number: shapely.union_all(polygons) for number, polygons in sorted(parts.items())}


def write_instances(path: Path, labels: np.ndarray, scores: np.ndarray | None = None) -> Path:
    """Write the instances of a raster as polygons, with the score of each by its number."""
    polygons = polygons_of(labels)
    columns = {} if scores is None else {"score": scores[list(polygons)]}
    return write_polygons(path, list(polygons.values()), number=list(polygons), **columns)
