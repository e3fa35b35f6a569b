"""Squared polygons have right angles, share walls, and overlap nowhere."""

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio.features
import shapely
from shapely.affinity import rotate
from tests.polygons.boundaries.test_simplify import overlap
from tests.polygons.strips import PIXEL, polygons_in_strips, shapes_of

from landscribe.polygons.boundaries.square import Squarer

OUTLINES = Path(__file__).parents[4] / "shared" / "data" / "regulariser_buildings" / "buildings.gpkg"


def burned(shapes, side=80):
    return rasterio.features.rasterize(
        [(each, number) for number, each in enumerate(shapes, 1)], out_shape=(side, side), dtype="uint16"
    )


def squared(codes, *, rows=1000):
    """Squared polygons in the order of their codes."""
    simple = polygons_in_strips(codes, rows, grouping="touching", tolerance=1.5)
    polygons = Squarer(PIXEL).add(simple, math.inf)
    return shapes_of(polygons)[np.argsort(polygons.codes)]


def right_angles(shapes):
    """Number of corners, and of right angles among them."""
    corners = right = 0
    for ring in shapely.get_rings(shapes):
        points = shapely.get_coordinates(shapely.simplify(ring, 1e-6))[:-1]
        into, out = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
        cosine = (into * out).sum(axis=1) / np.linalg.norm(into, axis=1) / np.linalg.norm(out, axis=1)
        corners, right = corners + len(points), right + np.count_nonzero(np.abs(cosine) < 0.02)
    return corners, right


@pytest.mark.parametrize("angle", [0, 12, 30, 45, 77])
def test_a_house_at_any_angle_gets_four_right_angles(angle):
    house = rotate(shapely.box(25, 30, 55, 48), angle)
    pixels = burned([house])
    (shape,) = squared(pixels)
    assert right_angles([shape]) == (4, 4)
    assert shape.area == pytest.approx(np.count_nonzero(pixels), rel=1e-3)
    assert shape.intersection(house).area / shape.union(house).area > 0.9


def test_row_houses_share_their_walls():
    row = [rotate(shapely.box(15 + 14 * i, 30, 29 + 14 * i, 48 + 3 * i), 20, origin=(40, 40)) for i in range(3)]
    shapes = squared(burned(row))
    assert shapely.coverage_is_valid(shapes)
    assert len(shapely.get_parts(shapely.union_all(shapes))) == 1
    assert overlap(shapes) < 1e-9
    corners, right = right_angles(shapes)
    assert right / corners > 0.8


def test_no_corner_moves_by_more_than_two_pixels():
    codes = burned([shapely.Polygon([(40, 10), (62, 40), (40, 70), (18, 40)])])  # far from right angles
    (before,) = shapes_of(polygons_in_strips(codes, 1000, grouping="touching", tolerance=1.5))
    (after,) = squared(codes)
    assert shapely.distance(before.boundary, shapely.points(shapely.get_coordinates(after))).max() <= 2


def test_small_houses_keep_their_area():
    rng, errors = np.random.default_rng(1), []
    for _ in range(30):
        (west, south), (width, height) = rng.uniform(30, 35, 2), rng.uniform(8, 16, 2)
        house = rotate(shapely.box(west, south, west + width, south + height), 30)
        (shape,) = squared(burned([house]))
        errors.append(abs(shape.area / house.area - 1))
    assert np.median(errors) < 0.01


def test_row_houses_keep_the_area_of_all():
    row = [rotate(shapely.box(15 + 14 * i, 30, 29 + 14 * i, 48 + 3 * i), 20, origin=(40, 40)) for i in range(3)]
    pixels = burned(row)
    assert shapely.area(squared(pixels)).sum() == pytest.approx(np.count_nonzero(pixels), rel=1e-3)


def test_houses_that_nearly_touch_do_not_overlap():
    pair = [shapely.box(20, 30, 39, 48), shapely.box(40.5, 28, 60, 50)]
    shapes = squared(burned([rotate(each, 20, origin=(40, 40)) for each in pair]))
    assert overlap(shapes) == 0


def test_strips_of_any_height_give_the_same_squared_polygons():
    rng = np.random.default_rng(0)
    houses = [rotate(shapely.box(0, 0, *rng.uniform(5, 12, 2)), rng.uniform(0, 90)) for _ in range(30)]
    codes = burned([shapely.affinity.translate(each, *rng.uniform(0, 68, 2)) for each in houses])
    whole = squared(codes)
    for rows in (1, 7):
        squarer, parts = Squarer(PIXEL), []
        simple = polygons_in_strips(codes, rows, grouping="touching", tolerance=1.5)
        half = np.arange(len(simple)) < len(simple) / 2
        for own in (half, ~half):
            index = np.flatnonzero(own)
            later = simple.points[:, 0].min() if own is half else math.inf
            parts.append(squarer.add(simple.take(index), later))
        order = np.argsort(np.concatenate([part.codes for part in parts]))
        shapes = np.concatenate([shapes_of(part) for part in parts])[order]
        assert shapely.to_wkb(shapes).tolist() == shapely.to_wkb(whole).tolist()


@pytest.mark.skipif(not OUTLINES.exists(), reason="needs the building outlines")
def test_outlines_of_1296_buildings_keep_their_number_area_and_form():
    import geopandas as gpd

    outlines = gpd.read_file(OUTLINES).geometry.to_numpy()
    left, bottom, right, top = shapely.total_bounds(outlines)
    size = int(top - bottom), int(right - left)
    moved = shapely.transform(outlines, lambda points: (points - (left, top)) * (1, -1))
    codes = rasterio.features.rasterize(zip(moved, range(1, 1297), strict=True), out_shape=size, dtype="uint16")
    shapes = squared(codes)
    assert len(shapes) == 1296
    assert shapely.is_valid(shapes).all()
    assert overlap(shapes) == 0
    assert shapely.area(shapes).sum() == pytest.approx(318_968.004, rel=0.001)
    iou = shapely.area(shapely.intersection(shapes, moved)) / shapely.area(shapely.union(shapes, moved))
    assert iou.mean() > 0.94
    corners, square = right_angles(shapes)
    assert square / corners > 0.95
