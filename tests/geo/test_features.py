"""Features: read, reprojected, queried through their index, burned and polygonized."""

import json
import pickle

import geopandas as gpd
import numpy as np
import pytest
import rasterio.warp
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from landscribe.errors import LabelError, OutsideError
from landscribe.geo.features import Features, bounding_window, geometry_type, intersects
from landscribe.geo.grid import Grid, Window
from landscribe.geo.vectors.burning import burn
from worlds import METRE, UTM, grid, pixel_box, write_polygons

SIDE = 24
"""Rows and columns of the grid here."""

BOWTIE = shapely.Polygon([(500_000, 5e6), (500_004, 5e6 - 4), (500_004, 5e6), (500_000, 5e6 - 4)])
"""Crosses itself at (500 002, 4 999 998): two triangles of 4 m2 each."""


def features(geometries, labels=None) -> Features:
    labels = labels or ["house"] * len(geometries)
    return Features("a.gpkg", np.array(geometries, dtype=object), tuple(labels), UTM)


@st.composite
def polygons(draw) -> shapely.Polygon:
    """A triangle or box anywhere in and around the grid, on quarters of pixels."""
    quarter = st.integers(-20, 4 * SIDE + 20).map(lambda number: number / 4)
    corners = draw(st.lists(st.tuples(quarter, quarter), min_size=3, max_size=3, unique=True))
    triangle = shapely.Polygon([METRE @ (col, row) for row, col in corners])
    return triangle if triangle.is_valid and triangle.area > 0 else triangle.envelope.buffer(0.3, join_style="mitre")


many = st.lists(st.tuples(polygons(), st.integers(0, 4)), min_size=1, max_size=8)
windows = st.builds(Window, st.integers(-8, 23), st.integers(-8, 23), st.integers(9, 16), st.integers(9, 16))


def test_pickled_features_give_the_same_mask():
    world = features([pixel_box(1, 2, 3, 4), pixel_box(5, 5, 2, 2) | pixel_box(9, 9, 2, 2)])
    copy = pickle.loads(pickle.dumps(world))
    assert (copy.name, copy.labels, copy.crs) == (world.name, world.labels, world.crs)
    values, place = np.array([1, 2], np.uint8), grid(SIDE, SIDE)
    np.testing.assert_array_equal(burn(copy, values, [1, 2], place, 0), burn(world, values, [1, 2], place, 0))


@settings(max_examples=50)
@given(many, windows)
def test_features_that_intersect_the_grid_are_in_file_order(pairs, window):
    geometries = [p for p, _ in pairs]
    place = grid(SIDE, SIDE)[window]
    near = features(geometries).intersecting(place).tolist()
    touching = [n for n, p in enumerate(geometries) if p.intersects(shapely.box(*place.bounds))]
    assert set(touching) <= set(near)
    assert near == sorted(near)


def test_features_far_away_do_not_intersect_the_grid():
    assert not intersects(features([pixel_box(100, 100, 2, 2)]), grid(10, 10))


def test_the_bounding_window_contains_the_features():
    # Rows 1.5 to 4.5 and columns -2 to 3: pixels 1 to 4 and -2 to 2.
    assert bounding_window(features([pixel_box(1.5, -2, 3, 5)]), grid(10, 10)) == Window(1, -2, 4, 5)


def test_points_lie_in_the_pixel_that_holds_them():
    points = [shapely.Point(500_000.5, 4_999_999.5), shapely.Point(500_003, 4_999_998), shapely.Point(499_999.9, 5e6)]
    # (0.5, 0.5) is in pixel (0, 0); a point on a corner belongs to the pixel right below it; -0.1 is outside.
    assert features(points).pixel_rows_cols(grid(5, 5)).tolist() == [[0, 0], [2, 3], [0, -1]]


# CRS ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "place"),
    [
        ("EPSG:4326", "EPSG:32632", (9.0, 45.15)),
        ("EPSG:32633", "EPSG:32632", (100_000.0, 5_000_000.0)),
        ("EPSG:32632", "EPSG:4326", (500_000.0, 5_000_000.0)),
        ("EPSG:3857", "EPSG:32645", (9_500_000.0, 3_200_000.0)),
        ("EPSG:4326", "EPSG:3857", (-60.0, -33.0)),
    ],
)
def test_reprojected_labels_equal_those_reprojected_by_gdal(source, target, place):
    step = 1e-4 if source == "EPSG:4326" else 10.0
    pixel = 1e-5 if target == "EPSG:4326" else 1.0
    polygon = shapely.Polygon([place, (place[0] + step, place[1]), (place[0], place[1] + step)])
    moved = Features("a", np.array([polygon], object), ("house",), CRS.from_string(source)).to_crs_of(
        Grid(CRS.from_string(target), Affine.scale(pixel, -pixel), 10, 10), "scene.tif"
    )
    by_gdal = shapely.geometry.shape(rasterio.warp.transform_geom(source, target, shapely.geometry.mapping(polygon)))
    offsets = shapely.get_coordinates(moved.geometries[0]) - shapely.get_coordinates(by_gdal)
    assert np.abs(offsets).max() < 1e-6 * pixel


def test_features_already_in_the_crs_stay_as_they_are():
    world = features([pixel_box(0, 0, 2, 2)])
    assert world.to_crs_of(grid(8, 8), "scene.tif").geometries[0] is world.geometries[0]


LONLAT = CRS.from_epsg(4326)
NEAR, FAR = shapely.box(8.9, 45.1, 9.1, 45.2), shapely.box(95, -1, 106, 1)
"""Boxes around a raster in EPSG:32632, and where UTM cannot be: 90 degrees away from its meridian."""


def test_features_of_another_part_of_the_earth_are_off_the_raster():
    place = Grid(UTM, METRE @ Affine.scale(1000), 20, 20)
    mixed = Features("world.gpkg", np.array([FAR, NEAR], object), ("sea", "house"), LONLAT)
    alone = Features("house.gpkg", np.array([NEAR], object), ("house",), LONLAT)
    moved, expected = mixed.on(place, "scene.tif"), alone.on(place, "scene.tif")
    assert moved.intersecting(place).tolist() == [1]
    assert moved.geometries[1] == expected.geometries[0]
    burned = burn(moved, np.array([1, 2], np.uint8), [1, 2], place, 0)
    np.testing.assert_array_equal(burned, burn(expected, np.array([2], np.uint8), [1, 2], place, 0))
    assert (burned == 2).any()


def test_points_of_another_part_of_the_earth_are_off_the_raster():
    place = Grid(UTM, METRE @ Affine.scale(1000), 20, 20)
    points = np.array([shapely.Point(100, 0), shapely.Point(9.0001, 45.15)], object)
    rows_cols = Features("a.gpkg", points, ("a", "b"), LONLAT).on(place, "scene.tif").pixel_rows_cols(place)
    assert rows_cols[0].tolist() == [-1, -1]
    assert rows_cols[1].tolist() == [0, 0]


def test_a_feature_on_the_raster_that_reaches_beyond_the_crs_is_refused():
    # From 8 to 106 degrees E and 1 degree S to 50 degrees N.
    belt = np.array([shapely.box(9e5, -1.1e5, 1.18e7, 6.4e6)], object)
    whole = Features("belt.geojson", belt, ("sea",), CRS.from_epsg(3857))
    with pytest.raises(LabelError, match=r"belt\.geojson is in EPSG:3857.*scene\.tif.*EPSG:32632.*-clipsrc"):
        whole.to_crs_of(Grid(UTM, METRE @ Affine.scale(1000), 20, 20), "scene.tif")


def test_features_that_are_all_of_another_part_of_the_earth_overlap_no_raster():
    far = Features("far.geojson", np.array([FAR], object), ("sea",), LONLAT).on(grid(8, 8), "scene.tif")
    with pytest.raises(OutsideError, match=r"no polygon of far\.geojson lies on scene\.tif.*EPSG:32632"):
        far.require_overlap(grid(8, 8), "scene.tif")


def test_a_crs_that_cannot_be_transformed_is_refused():
    local = CRS.from_wkt(
        'ENGCRS["site",EDATUM["site"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
    )
    world = Features("site.gpkg", np.array([shapely.box(0, 0, 1, 1)], object), ("house",), local)
    with pytest.raises(LabelError, match=r"site\.gpkg is in site, which cannot be transformed to EPSG:32632"):
        world.to_crs_of(grid(8, 8), "scene.tif")


def test_a_raster_without_crs_is_refused_with_the_remedy():
    with pytest.raises(LabelError, match=r"scene\.tif has no CRS.*rio edit-info --crs"):
        features([pixel_box(0, 0, 1, 1)]).to_crs_of(Grid(None, METRE, 8, 8), "scene.tif")


def test_a_file_without_crs_is_refused_with_the_remedy(tmp_path):
    path = write_polygons(tmp_path / "a.gpkg", [pixel_box(0, 0, 1, 1)], crs=None)
    with pytest.raises(LabelError, match=r"a\.gpkg has no CRS.*ogr2ogr -a_srs EPSG:CODE out.gpkg \S*a\.gpkg\""):
        Features.read(path)


# Reading -------------------------------------------------------------------------------------------------------

BOXES = [pixel_box(0, 0, 2, 2), pixel_box(0, 4, 2, 2), pixel_box(4, 0, 2, 2)]


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".shp", ".fgb"])
def test_common_formats_give_the_same_features(tmp_path, suffix):
    path = write_polygons(tmp_path / f"a{suffix}", BOXES, kind=["house", "road", "house"])
    read = Features.read(path, field="kind")
    by_area = sorted(zip(shapely.get_coordinates(shapely.centroid(read.geometries)).tolist(), read.labels, strict=True))
    assert by_area == [([500_001, 4_999_995], "house"), ([500_001, 4_999_999], "house"), ([500_005, 4_999_999], "road")]
    assert read.crs == UTM


def test_without_a_field_all_features_are_named_like_the_file(tmp_path):
    path = write_polygons(tmp_path / "buildings.gpkg", BOXES, kind=["a", "b", "c"])
    assert Features.read(path).labels == ("buildings",) * 3


def test_a_missing_column_is_refused_with_the_existing_columns(tmp_path):
    path = write_polygons(tmp_path / "a.gpkg", BOXES, kind=["a", "b", "c"], height=[1, 2, 3])
    with pytest.raises(LabelError, match=r"a\.gpkg has no column 'class'. Its columns are kind, height"):
        Features.read(path, field="class")


@pytest.mark.parametrize(
    "column", [["a", None, "c"], [1.0, None, 3.0], ["a", " ", "c"]], ids=["word", "number", "blank"]
)
def test_a_column_with_empty_rows_is_refused_with_the_first_feature(tmp_path, column):
    path = write_polygons(tmp_path / "a.gpkg", BOXES, kind=column)
    with pytest.raises(LabelError, match=r"column 'kind' is empty in 1 of 3 features \(first: feature 1\)"):
        Features.read(path, field="kind")


def test_words_and_numbers_in_one_column_are_refused_with_their_counts(tmp_path):
    collection = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": "EPSG:32632"}},
        "features": [
            {"type": "Feature", "properties": {"kind": kind}, "geometry": shapely.geometry.mapping(box)}
            for kind, box in zip(("a", 1.5, "c"), BOXES, strict=True)
        ],
    }
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(collection), encoding="utf-8")
    with pytest.raises(LabelError, match=r"column 'kind' is mixed \(2 words, 1 float\)"):
        Features.read(path, field="kind")


def test_numbers_that_are_not_whole_are_refused(tmp_path):
    path = write_polygons(tmp_path / "a.gpkg", BOXES, kind=[1.0, 2.5, 3.0])
    with pytest.raises(LabelError, match="column 'kind' is mixed"):
        Features.read(path, field="kind")


def test_whole_numbers_stored_as_floats_are_integers(tmp_path):
    path = write_polygons(tmp_path / "a.shp", BOXES, kind=[1.0, 2.0, 1.0])
    labels = Features.read(path, field="kind").labels
    assert labels == (1, 2, 1)
    assert {type(label) for label in labels} == {int}


def test_words_are_stripped(tmp_path):
    path = write_polygons(tmp_path / "a.gpkg", BOXES, kind=["house ", " house", "house"])
    assert set(Features.read(path, field="kind").labels) == {"house"}


@pytest.mark.parametrize(
    ("geometry", "kind"),
    [(None, "null"), (shapely.Polygon(), "empty"), (BOWTIE, "invalid")],
    ids=["null", "empty", "invalid"],
)
def test_bad_geometries_are_refused_with_the_index_of_the_feature(tmp_path, geometry, kind):
    path = write_polygons(tmp_path / "a.gpkg", [BOXES[0], geometry, BOXES[1]], kind=["a", "b", "c"])
    with pytest.raises(LabelError, match=rf"in its 3 features: 1 {kind} \(feature 1\).*--fix-geometries"):
        Features.read(path)


@pytest.mark.parametrize("geometry", [None, shapely.Polygon()], ids=["null", "empty"])
def test_fixing_geometries_drops_features_without_area_and_their_labels(tmp_path, geometry):
    path = write_polygons(tmp_path / "a.gpkg", [BOXES[0], geometry, BOXES[1]], kind=["a", "b", "c"])
    assert Features.read(path, field="kind", fix_geometries=True).labels == ("a", "c")


@pytest.mark.parametrize("label", [["a", "b"], {"a": 1}], ids=["list", "object"])
def test_features_with_lists_as_labels_are_refused_after_some_were_dropped(tmp_path, label, caplog):
    path = tmp_path / "a.geojson"
    features = [
        {"type": "Feature", "properties": {"kind": label}, "geometry": geometry}
        for geometry in (None, shapely.geometry.mapping(shapely.box(9, 47, 9.1, 47.1)))
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    with pytest.raises(LabelError, match="Expected only words or only whole numbers"):
        Features.read(path, field="kind", fix_geometries=True)
    assert "drops 1 of 2 features, which have no area (" in caplog.text


def test_fixing_geometries_splits_a_bowtie_into_its_two_triangles(tmp_path):
    path = write_polygons(tmp_path / "a.gpkg", [BOXES[0], BOWTIE], kind=["a", "b"])
    fixed = Features.read(path, field="kind", fix_geometries=True)
    assert fixed.geometries[1].is_valid
    assert fixed.geometries[1].area == pytest.approx(8)


def test_fixing_geometries_drops_polygons_that_are_only_a_line(tmp_path):
    line = shapely.Polygon([(500_000, 5e6), (500_004, 5e6), (500_000, 5e6)])
    path = write_polygons(tmp_path / "a.gpkg", [BOXES[0], line], kind=["a", "b"])
    assert Features.read(path, field="kind", fix_geometries=True).labels == ("a",)


def test_fixing_is_refused_if_no_geometry_remains(tmp_path):
    path = write_polygons(tmp_path / "a.gpkg", [None, None], kind=["a", "b"])
    with pytest.raises(LabelError, match="in its 2 features: 2 null"):
        Features.read(path, fix_geometries=True)


def test_lines_are_refused_where_polygons_are_expected(tmp_path):
    path = write_polygons(tmp_path / "a.gpkg", [shapely.LineString([(0, 0), (1, 1)])])
    with pytest.raises(LabelError, match=r"a\.gpkg holds 1 LineString. Expected Polygon or MultiPolygon"):
        Features.read(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"no features at all", b'{"type": "FeatureCollection", "features": []}', None],
    ids=["zero bytes", "text", "no features", "missing"],
)
def test_files_without_features_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "a.geojson"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LabelError, match=r"a\.geojson (cannot be read|holds no features)") as caught:
        Features.read(path)
    assert "\n" not in str(caught.value)


def test_a_table_without_geometries_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("kind\nhouse\n", encoding="utf-8")
    with pytest.raises(LabelError, match="is a table without geometries"):
        Features.read(path)


def test_the_geometry_type_of_a_file_is_that_of_its_first_geometry(tmp_path):
    path = write_polygons(tmp_path / "a.gpkg", [shapely.Point(0, 0)])
    assert geometry_type(path) == "Point"


def test_parquet_files_are_read(tmp_path):
    path = tmp_path / "a.parquet"
    gpd.GeoDataFrame({"kind": ["a", "b", "c"]}, geometry=BOXES, crs=UTM).to_parquet(path)
    assert Features.read(path, field="kind").labels == ("a", "b", "c")


def test_z_coordinates_are_ignored(tmp_path):
    path = write_polygons(tmp_path / "a.gpkg", [shapely.force_3d(BOXES[0], 5.0)])
    world = Features.read(path)
    assert burn(world, np.array([1], np.uint8), [1], Grid(UTM, METRE, 2, 2), 0).tolist() == [[1, 1], [1, 1]]
