"""Class maps: the map of each scene."""

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from landscribe.geo.grid import Grid
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.rasters.whole_files import write_raster
from landscribe.maps.class_map import match_maps

WITHOUT_CRS = Grid(None, Affine.identity(), 4, 4)


def write(path: Path, grid: Grid) -> Raster:
    write_raster(path, np.ones((1, 4, 4), np.uint8), grid)
    return Raster.open([path])


def matched(maps: list[Raster], images: dict[str, Raster]) -> dict[str, str]:
    return {scene: mapped.name for scene, mapped in match_maps(maps, images).items()}


def test_a_map_belongs_to_the_scene_on_its_grid(tmp_path):
    here, there = (Grid(CRS.from_epsg(32617), Affine(1, 0, x, 0, -1, 0), 4, 4) for x in (0, 100))
    images = {"a": write(tmp_path / "a.tif", here), "b": write(tmp_path / "b.tif", there)}
    assert matched([write(tmp_path / "map_a.tif", there)], images) == {"b": "map_a"}
    assert matched([write(tmp_path / "1.tif", there), write(tmp_path / "2.tif", here)], images) == {"a": "2", "b": "1"}


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        (["000_a", "001_a_b"], {"a": "000_a", "a_b": "001_a_b"}),
        (["map_a_b", "map_a"], {"a": "map_a", "a_b": "map_a_b"}),
        (["first", "second"], {"a": "first", "a_b": "second"}),
        (["a_b", "other"], {"a": "other", "a_b": "a_b"}),
        (["only"], {"a": "only", "a_b": "only"}),
    ],
)
def test_among_maps_on_one_grid_the_name_decides_then_the_order(tmp_path, maps, expected):
    (tmp_path / "maps").mkdir()
    images = {scene: write(tmp_path / f"{scene}.tif", WITHOUT_CRS) for scene in ("a", "a_b")}
    rasters = [write(tmp_path / "maps" / f"{name}.tif", WITHOUT_CRS) for name in maps]
    assert matched(rasters, images) == expected
