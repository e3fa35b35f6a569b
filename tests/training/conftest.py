"""Chips for the tests of training."""

from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from landscribe import verbs
from landscribe.data.chips.chips import Chips


def bright_squares(folder: Path, size: int, squares: int = 25) -> Chips:
    """Bright squares on dark ground, the first ones of 25 chips of `size` pixels with two bands of uint16."""
    side, square, first = 5 * size, 3 * size // 8, 5 * size // 32
    image = np.random.default_rng(0).integers(900, 1100, (2, side, side)).astype(np.uint16)
    corners = [(row, col) for row in range(first, side, size) for col in range(first, side, size)][:squares]
    for row, col in corners:
        image[:, row : row + square, col : col + square] += 3000
    transform = Affine(1, 0, 500_000, 0, -1, 4_000_000)
    layout = {"driver": "GTiff", "count": 2, "height": side, "width": side, "dtype": "uint16", "crs": "EPSG:32617"}
    with rasterio.open(folder / "scene.tif", "w", transform=transform, **layout) as target:
        target.write(image)
    boxes = [shapely.box(500_000 + c, 4_000_000 - r - square, 500_000 + c + square, 4_000_000 - r) for r, c in corners]
    gpd.GeoDataFrame(geometry=boxes, crs="EPSG:32617").to_file(folder / "squares.gpkg")
    return verbs.chip(
        images=[folder / "scene.tif"], labels=folder / "squares.gpkg", out=folder / "chips", size=size, gap=1
    )


@pytest.fixture(scope="session")
def chips(tmp_path_factory) -> Chips:
    """Chips on which a network can learn."""
    return bright_squares(tmp_path_factory.mktemp("squares"), 64)


@pytest.fixture(scope="session")
def tiny_chips(tmp_path_factory) -> Chips:
    """Chips for trainings that are only repeated."""
    return bright_squares(tmp_path_factory.mktemp("tiny"), 32)


@pytest.fixture(scope="session")
def chips_without_squares_in_val(tmp_path_factory) -> Chips:
    """Tiny chips, of which those without a square are val."""
    chips = bright_squares(tmp_path_factory.mktemp("few"), 32, squares=20)
    splits = np.where(chips.counts[:, 1] > 0, "train", "val")
    return replace(chips, table=chips.table.assign(split=splits))
