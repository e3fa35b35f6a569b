"""Chips for the tests of training."""

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from landscribe import verbs
from landscribe.data.chips.chips import Chips


@pytest.fixture(scope="session")
def chips(tmp_path_factory) -> Chips:
    """Bright squares on dark ground, 64-pixel chips of a 320 x 320 scene with two bands of uint16."""
    folder = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    image = rng.integers(900, 1100, (2, 320, 320)).astype(np.uint16)
    corners = [(row, col) for row in range(10, 300, 64) for col in range(10, 300, 64)]
    for row, col in corners:
        image[:, row : row + 24, col : col + 24] += 3000
    transform = Affine(1, 0, 500_000, 0, -1, 4_000_000)
    layout = {"driver": "GTiff", "count": 2, "height": 320, "width": 320, "dtype": "uint16", "crs": "EPSG:32617"}
    with rasterio.open(folder / "scene.tif", "w", transform=transform, **layout) as target:
        target.write(image)
    boxes = [shapely.box(500_000 + c, 4_000_000 - r - 24, 500_000 + c + 24, 4_000_000 - r) for r, c in corners]
    gpd.GeoDataFrame(geometry=boxes, crs="EPSG:32617").to_file(folder / "squares.gpkg")
    return verbs.chip(
        images=[folder / "scene.tif"], labels=folder / "squares.gpkg", out=folder / "chips", size=64, gap=1
    )
