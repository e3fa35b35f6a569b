"""From a raster to a vector file: formats, fields, classes, areas, bad input."""

import logging
import sqlite3
import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import gaussian_filter
from tests import worlds

import landscribe as ls
from landscribe.errors import ClassError, LandscribeError, OutputError, RasterError
from landscribe.geo.pixel_area import pixel_areas
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.feature_files import FEATURE_FORMATS
from landscribe.polygons import vectorize
from landscribe.polygons.boundaries import rings
from landscribe.polygons.class_codes import ClassCodes
from landscribe.polygons.plan import plan_polygons
from landscribe.polygons.spec import VectorizeSpec
from landscribe.polygons.vectorize import write_polygons

# Two houses that touch at a corner, one with a yard, on a road and grass.
VALUES = np.array(
    [
        [2, 2, 2, 1, 1, 1, 0, 0],
        [2, 0, 2, 1, 1, 1, 0, 0],
        [2, 2, 2, 1, 1, 1, 0, 0],
        [1, 1, 1, 2, 2, 1, 0, 0],
        [1, 1, 1, 2, 2, 1, 255, 255],
        [1, 1, 1, 1, 1, 1, 255, 255],
    ],
    np.uint8,
)


@pytest.fixture
def mapped(tmp_path):
    return worlds.write_raster(tmp_path / "map.tif", VALUES, nodata=255)


def read(path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="More than one layer")
        table = gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path)
    return table.sort_values("id", ignore_index=True)  # FlatGeobuf has an order of its own


def vectorized(path, name="polygons.fgb", **settings):
    return read(ls.vectorize(path, out=path.parent / name, overwrite=True, **settings))


def test_smoothing_says_by_how_much_the_area_changes(tmp_path, caplog):
    values = np.zeros((20, 20), np.uint8)
    values[2:8, 2:8] = values[10:18, 9:17] = 1
    path = worlds.write_raster(tmp_path / "map.tif", values)
    with caplog.at_level(logging.INFO):
        table = vectorized(path, smooth=True)
    # Of a square with side a, the middles of its sides cut off a triangle of a * a / 8 at each corner. The parabola in
    # it covers 2/3 of the triangle, and a line of three parts along the parabola 8/9 of that: 16/27.
    kept = 1 - 4 / 8 * (1 - 16 / 27)
    assert table["area_m2"].tolist() == pytest.approx([36 * kept, 64 * kept], rel=2e-3)
    assert f"smoothing: the polygons cover {100 * (1 - kept):.1f} % less than their pixels" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        vectorized(path)
    assert "polygons cover" not in caplog.text


def test_the_number_of_polygons_by_class_and_their_area_are_said(mapped, tmp_path, caplog):
    (tmp_path / "names.csv").write_text("value,name\n1,road\n2,house\n", encoding="utf-8")
    with caplog.at_level(logging.INFO):
        vectorized(mapped, class_table=tmp_path / "names.csv")
        vectorized(mapped, class_table=tmp_path / "names.csv", dissolve=True, minimum_area=9)
    # A road of 23 pixels, houses of 8 and 4. A metre of UTM in its middle is 1 / 0.9996 m long on the ground.
    assert [line for line in caplog.messages if line.startswith("polygons.fgb")] == [
        f"polygons.fgb: 3 polygons (road: 1, house: 2), {35 / 0.9996**2:.2f} m²",
        f"polygons.fgb: 1 MultiPolygon (road: 1, house: 0), {23 / 0.9996**2:.2f} m²",
    ]


def test_without_a_crs_the_number_of_polygons_is_said_without_an_area(tmp_path, caplog):
    path = worlds.write_raster(tmp_path / "map.tif", VALUES, nodata=255, crs=None)
    with caplog.at_level(logging.INFO):
        vectorized(path, classes="2")
    assert "polygons.fgb: 2 polygons (2: 2)" in caplog.messages


@pytest.mark.parametrize("suffix", FEATURE_FORMATS)
def test_every_format_holds_the_same_polygons_and_opens_in_their_crs(mapped, suffix):
    table = vectorized(mapped, f"polygons{suffix}", classes="all")
    assert table["value"].tolist() == [0, 2, 2, 0, 1] or sorted(table["value"]) == [0, 0, 1, 2, 2]
    assert table.is_valid.all()
    in_utm = table.to_crs(32632)
    assert in_utm.area.sum() == pytest.approx(44, rel=1e-3 if suffix == ".geojson" else 1e-9)
    if suffix == ".geojson":
        assert table.crs.to_epsg() == 4326
        assert table.total_bounds[:2].tolist() == pytest.approx([9.0, 45.15], abs=0.01)


@pytest.mark.parametrize("suffix", FEATURE_FORMATS)
def test_strips_of_any_height_give_the_same_bytes(mapped, suffix, tmp_path):
    codes = ClassCodes.open(Raster.open(mapped), ("all",), None)
    content = set()
    for rows in (1, 2, 6):
        out = tmp_path / f"polygons{suffix}"
        write_polygons(plan_polygons(codes, VectorizeSpec(simplify="auto"), out, strip_rows=rows))
        content.add(out.read_bytes())
    assert len(content) == 1


def test_parts_of_strips_and_batches_of_any_size_give_the_same_bytes(mapped, tmp_path, monkeypatch):
    content = set()
    for size in (1, 5, 10**6):
        for module, name in ((vectorize, "_PART_RUNS"), (vectorize, "_WAITING_RUNS"), (vectorize, "BATCH_POINTS")):
            monkeypatch.setattr(module, name, size)
        monkeypatch.setattr(rings, "BATCH_POINTS", size)
        out = ls.vectorize(mapped, out=tmp_path / "polygons.fgb", classes="all", square=True, overwrite=True)
        content.add(out.read_bytes())
    assert len(content) == 1


def test_the_parts_of_a_strip_are_written_and_loaded_for_another_process(mapped, tmp_path, monkeypatch):
    monkeypatch.setattr(vectorize, "_PART_RUNS", 3)
    codes = ClassCodes.open(Raster.open(mapped), ("all",), None)
    plan = plan_polygons(codes, VectorizeSpec(), tmp_path / "polygons.fgb")
    (strip,) = plan.strips
    here, there = (vectorize.TraceTask(plan, folder) for folder in (None, tmp_path))
    traces = here.write(strip, here.read(strip))
    parts = there.write(strip, there.read(strip))
    assert len(parts) > 1
    for (own, trace), part in zip(traces, parts, strict=True):
        assert own == part
        np.testing.assert_array_equal(trace.lines.points, there.load(part).lines.points)


def test_fields_are_area_and_perimeter_on_the_ground_class_and_number(mapped):
    table = vectorized(mapped, classes="2")
    assert list(table.columns) == ["id", "value", "class", "area_m2", "perimeter_m", "geometry"]
    assert table["id"].tolist() == [1, 2]
    assert table["area_m2"].tolist() == pytest.approx([8, 4], rel=1e-3)
    assert table["perimeter_m"].tolist() == pytest.approx([16, 8], rel=1e-3)  # with the hole's 4
    assert table["class"].tolist() == ["2", "2"]


def test_the_background_is_left_out_unless_it_is_asked_for(mapped):
    assert set(vectorized(mapped)["value"]) == {1, 2}
    assert set(vectorized(mapped, classes="all")["value"]) == {0, 1, 2}
    assert set(vectorized(mapped, classes=["0"])["value"]) == {0}


def test_a_mask_of_0_and_255_has_one_class(tmp_path):
    path = worlds.write_raster(tmp_path / "mask.tif", np.where(VALUES == 2, 255, 0).astype(np.uint8))
    assert vectorized(path)["value"].tolist() == [255, 255]
    assert set(vectorized(path, classes="all")["value"]) == {0, 255}


def test_255_is_unlabelled_beside_other_classes_unless_it_is_asked_for(tmp_path):
    path = worlds.write_raster(tmp_path / "labels.tif", VALUES)
    assert set(vectorized(path)["value"]) == {1, 2}
    assert set(vectorized(path, classes="all")["value"]) == {0, 1, 2, 255}
    assert set(vectorized(path, classes=["255"])["value"]) == {255}


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_a_raster_of_background_alone_has_no_polygon(tmp_path, dtype):
    path = worlds.write_raster(tmp_path / "empty.tif", np.zeros((4, 5), dtype))
    assert len(vectorized(path)) == 0
    assert len(vectorized(path, dissolve=True)) == 0
    assert vectorized(path, classes="all")["value"].tolist() == [0]


@pytest.mark.parametrize("name", ["-map", "(1) map", "GPKG map", "layer_styles", "sqlite_map"])
def test_any_name_of_a_raster_gives_a_layer_with_its_style(mapped, tmp_path, name):
    path = mapped.rename(tmp_path / f"{name}.tif")
    assert len(vectorized(path, "polygons.gpkg")) == 3
    layer = pyogrio.list_layers(tmp_path / "polygons.gpkg")[0, 0]
    assert layer.endswith("map" if "map" in name else name)
    with sqlite3.connect(tmp_path / "polygons.gpkg") as database:
        assert database.execute("SELECT f_table_name FROM layer_styles").fetchall() == [(layer,)]


@pytest.mark.parametrize("name", ["a;b/o.fgb", "a!b/o.parquet"])
def test_special_characters_in_a_path_are_no_address(mapped, tmp_path, name):
    assert len(read(ls.vectorize(mapped, out=tmp_path / name))) == 3


def test_nodata_is_no_polygon(mapped):
    assert vectorized(mapped, classes="all").to_crs(32632).area.sum() == VALUES.size - 4


def test_connectivity_8_joins_pixels_that_touch_at_a_corner(mapped):
    table = vectorized(mapped, classes="2", connectivity=8)
    assert [shape.geom_type for shape in table.geometry] == ["MultiPolygon"]
    assert table["area_m2"].item() == pytest.approx(12, rel=1e-3)
    assert table.is_valid.all()


def test_dissolve_gives_one_feature_for_each_class(mapped):
    table = vectorized(mapped, classes="all", dissolve=True)
    assert table["value"].tolist() == [0, 1, 2]
    assert table["area_m2"].tolist() == pytest.approx([9, 23, 12], rel=1e-3)
    assert table.is_valid.all()
    both = vectorized(mapped, classes="all", dissolve=True, connectivity=8)
    assert both.geometry.geom_equals(table.geometry).all()


@pytest.mark.parametrize("seed", [34, 93, 147])
def test_squared_polygons_are_valid_in_the_digits_of_a_crs(tmp_path, seed):
    noise = np.random.default_rng(seed).normal(size=(3, 40, 40))
    values = np.argmax([gaussian_filter(band, 1) for band in noise], axis=0).astype(np.uint8)
    path = worlds.write_raster(
        tmp_path / "noise.tif", values, crs="EPSG:32617", transform=Affine(0.5, 0, 459770.5, 0, -0.5, 4826900.5)
    )
    assert vectorized(path, square=True).is_valid.all()


def test_small_polygons_are_left_out_and_small_holes_filled(mapped):
    assert vectorized(mapped, classes="2", minimum_area=5)["area_m2"].tolist() == pytest.approx([8], rel=1e-3)
    filled = vectorized(mapped, classes="2", fill_holes=2)
    assert filled["area_m2"].tolist() == pytest.approx([9, 4], rel=1e-3)
    assert shapely.get_num_interior_rings(filled.geometry.to_numpy()).tolist() == [0, 0]
    assert vectorized(mapped, classes="2", fill_holes=0.5)["area_m2"].tolist() == pytest.approx([8, 4], rel=1e-3)


@pytest.mark.parametrize("strip_rows", [1, 4, 20])
def test_a_polygon_in_a_filled_hole_of_its_class_is_part_of_the_dissolved_one(tmp_path, strip_rows):
    values = np.ones((20, 20), np.uint8)
    values[3:17, 3:17], values[5:15, 5:15], values[7:13, 7:13], values[9:11, 9:11] = 2, 1, 2, 1
    values[0], values[19] = 0, 2
    path = worlds.write_raster(tmp_path / "yards.tif", values)
    codes = ClassCodes.open(Raster.open(path), None, None)
    for connectivity in (4, 8):
        spec = VectorizeSpec(fill_holes=200, dissolve=True, connectivity=connectivity)
        table = read(write_polygons(plan_polygons(codes, spec, tmp_path / "yards.fgb", strip_rows=strip_rows)))
        assert table.is_valid.all()
        assert table["value"].tolist() == [1, 2]
        # The polygon of class 2 in the yard is whole, and stays: it is of another class.
        assert table["area_m2"].tolist() == pytest.approx([18 * 20, 14 * 14 + 20], rel=1e-3)
        assert table["perimeter_m"].tolist() == pytest.approx([2 * 38, 4 * 14 + 42], rel=1e-3)


@pytest.mark.parametrize("dissolve", [False, True])
def test_a_polygon_in_a_filled_hole_of_its_group_is_part_of_it(tmp_path, dissolve):
    values = np.ones((12, 12), np.uint8)
    values[3:9, 3:9] = 2
    values[3, 3] = values[4, 4] = values[5, 5] = 1
    path = worlds.write_raster(tmp_path / "corners.tif", values)
    shares = np.stack([np.zeros(values.shape), np.full(values.shape, 0.5), np.zeros(values.shape)]).astype(np.float32)
    shares[1, 4:6, 4:6] = 1
    probabilities = worlds.write_raster(tmp_path / "p.tif", shares, descriptions=["0", "1", "2"])
    table = vectorized(path, classes="1", fill_holes=50, connectivity=8, dissolve=dissolve, probabilities=probabilities)
    assert table.is_valid.all()
    assert table["area_m2"].tolist() == pytest.approx([144], rel=1e-3)
    # Over the pixels of the class, as without filled holes.
    assert table["probability"].tolist() == pytest.approx([(0.5 * 109 + 2) / 111])


def test_probability_is_the_mean_of_the_class_over_the_pixels(mapped, tmp_path):
    shares = np.stack([np.full(VALUES.shape, 0.1), np.full(VALUES.shape, 0.2), np.arange(48).reshape(6, 8) / 100])
    path = worlds.write_raster(tmp_path / "p.tif", shares.astype(np.float32), descriptions=["0", "1", "2"])
    table = vectorized(mapped, probabilities=path, classes="all")
    expected = {value: table[table["value"] == value]["probability"].tolist() for value in (0, 1, 2)}
    assert expected[1] == pytest.approx([0.2])
    first, second = (VALUES == 2), np.indices(VALUES.shape)[0] > 2
    means = [shares[2][first & ~second].mean(), shares[2][first & second].mean()]
    assert expected[2] == pytest.approx(means)


@pytest.mark.parametrize(
    ("stored", "scale", "offset", "unit"),
    [(74.88, 1.0, 0.0, "%"), (0.2488, 1.0, 0.5, ""), (4976.0, 0.01, 25.12, "percent"), (0.7488, 1.0, 0.0, "")],
)
def test_probabilities_follow_the_scale_offset_and_unit_of_their_band(mapped, tmp_path, stored, scale, offset, unit):
    layers = np.stack([np.full(VALUES.shape, number, np.float32) for number in (0.1, stored, 0.9)])
    path = worlds.write_raster(tmp_path / "p.tif", layers, descriptions=["0", "1", "2"])
    with rasterio.open(path, "r+") as target:
        target.scales, target.offsets, target.units = (1, scale, 1), (0, offset, 0), ("", unit, "")
    table = vectorized(mapped, probabilities=path, classes="all")
    assert table[table["value"] == 1]["probability"].tolist() == pytest.approx([0.7488])
    assert table[table["value"] == 2]["probability"].tolist() == pytest.approx([0.9, 0.9])


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 7, 255])))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rasterised_polygons_give_any_map_back(tmp_path, values):
    values[0, 0] = 1
    path = worlds.write_raster(tmp_path / "any.tif", values, nodata=255)
    table = vectorized(path, classes="all").to_crs(32632)
    pairs = zip(table.geometry, table["value"], strict=True)
    burned = rasterio.features.rasterize(pairs, values.shape, fill=255, transform=worlds.METRE, dtype="uint8")
    np.testing.assert_array_equal(burned, values)


def test_areas_in_degrees_are_those_of_the_pixels_row_by_row(tmp_path):
    values = np.ones((200, 30), np.uint8)
    values[:100] = 2
    transform = Affine(0.05, 0, 10, 0, -0.05, 70)
    path = worlds.write_raster(tmp_path / "degrees.tif", values, crs=4326, transform=transform)
    table = vectorized(path).set_index("value")
    areas = pixel_areas(Raster.open(path).grid)
    assert table["area_m2"].to_dict() == pytest.approx({2: areas[:100].sum(), 1: areas[100:].sum()}, rel=1e-6)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_any_whole_numbers_become_classes(tmp_path, separator):
    values = np.array([[-3, 70_000], [-3, 5]], np.int32)
    path = worlds.write_raster(tmp_path / "codes.tif", values)
    assert sorted(vectorized(path)["value"]) == [-3, 5, 70_000]
    table = tmp_path / "names.csv"
    table.write_text("value,name,colour\n-3,sea,#0000ff\n5,land,\n70000,ice,\n".replace(",", separator))
    named = vectorized(path, class_table=table)
    assert dict(zip(named["value"], named["class"], strict=True)) == {-3: "sea", 5: "land", 70_000: "ice"}


@pytest.mark.parametrize(
    ("values", "rows", "classes", "missing"),
    [
        ([0, 1, 2, 3], [0, 2], None, "holds 1, 3, which .* lacks: it has 0, 2"),
        ([0, 1, 2, 3], [0, 2], "all", "holds 1, 3, which"),
        ([0, 1, 2, 3], [0, 2], "2", None),
        ([0, 2, 2, 2], [2], None, None),  # the background
        ([0, 2, 2, 2], [2], "all", "holds 0, which"),
        ([0, 2, 2, 255], [0, 2], None, None),  # unlabelled
        ([0, 255, 0, 255], [0, 1], None, "holds 255, which"),
    ],
)
def test_a_class_table_lists_all_values_that_become_polygons(tmp_path, values, rows, classes, missing):
    path = worlds.write_raster(tmp_path / "map.tif", np.array([values], np.uint8))
    table = tmp_path / "names.csv"
    table.write_text("value,name\n" + "".join(f"{row},class {row}\n" for row in rows))
    settings = {"class_table": table} | ({} if classes is None else {"classes": classes})
    if missing is None:
        assert vectorized(path, **settings)["value"].tolist() == [2]
    else:
        with pytest.raises(ClassError, match=missing):
            vectorized(path, **settings)


def test_a_geopackage_holds_the_colours_of_the_classes_as_qgis_stores_a_default_style(mapped, tmp_path):
    path = ls.vectorize(mapped, out=tmp_path / "polygons.gpkg")
    assert pyogrio.list_layers(path)[0].tolist() == ["map", "Polygon"]
    with sqlite3.connect(path) as database:
        row = database.execute("SELECT f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles")
        layer, column, is_default, style = row.fetchone()
    assert (layer, column, is_default) == ("map", "geom", 1)
    assert 'attr="class"' in style
    assert 'value="2"' in style


def test_the_style_of_a_raster_is_not_replaced(mapped, tmp_path):
    style = tmp_path / "map.qml"
    style.write_text("<qgis><rasterrenderer/></qgis>")
    ls.vectorize(mapped, out=tmp_path / "map.fgb")
    assert "rasterrenderer" in style.read_text()
    ls.vectorize(mapped, out=tmp_path / "other.fgb")
    assert "categorizedSymbol" in (tmp_path / "other.qml").read_text()


def test_a_raster_without_crs_has_polygons_without_metres(tmp_path):
    path = worlds.write_raster(tmp_path / "plain.tif", VALUES, crs=None, nodata=255)
    table = vectorized(path, "polygons.gpkg")
    assert table["area_m2"].isna().all()
    assert table.crs is None
    for setting in ({"simplify": 2.0}, {"minimum_area": 3.0}, {"fill_holes": 3.0}):
        with pytest.raises(RasterError, match="has no CRS"):
            ls.vectorize(path, out=tmp_path / "x.gpkg", **setting)
    with pytest.raises(OutputError, match="longitude and latitude"):
        ls.vectorize(path, out=tmp_path / "x.geojson")
    assert not list(tmp_path.glob("x.*"))


def test_a_raster_in_the_crs_of_a_site_has_no_geojson(tmp_path):
    crs = 'LOCAL_CS["site",UNIT["US survey foot",0.304800609601219]]'
    path = worlds.write_raster(tmp_path / "site.tif", VALUES, crs=crs, nodata=255)
    with pytest.raises(OutputError, match=r"longitude and latitude .*the raster has a CRS without a position on Earth"):
        ls.vectorize(path, out=tmp_path / "x.geojson")
    assert not list(tmp_path.glob("x.*"))
    assert len(read(ls.vectorize(path, out=tmp_path / "x.gpkg")))


def test_fields_of_the_real_world_are_counted_and_measured(shared_data, tmp_path):
    mask = shared_data / "ftw_fields" / "mask.tif"
    four = read(ls.vectorize(mask, out=tmp_path / "4.fgb"))
    eight = read(ls.vectorize(mask, out=tmp_path / "8.fgb", connectivity=8))
    assert four["value"].value_counts().to_dict() == {1: 272, 2: 109}
    assert eight["value"].value_counts().to_dict() == {1: 232, 2: 46}
    fields = four[four["value"] == 1].area
    assert (fields >= 500).sum() == 212
    assert (round(fields.sum() / 1e4, 2), round(fields.max() / 1e4, 2)) == (298.34, 11.29)


def _mask(shared_data, name, folder):
    """A class raster of a real data set."""
    if name == "banepa":
        with rasterio.open(shared_data / "banepa_buildings" / "dev" / "scene.tif") as scene:
            shape, crs, transform = scene.shape, scene.crs, scene.transform
        houses = gpd.read_file(shared_data / "banepa_buildings" / "dev" / "buildings.geojson").to_crs(crs)
        burned = rasterio.features.rasterize(houses.geometry, shape, transform=transform, dtype="uint8")
        return worlds.write_raster(folder / "banepa.tif", burned, crs=crs, transform=transform)
    folders = {"dubai": ("dubai", "masks", "tile2*.png"), "amazon": ("amazon_forest", "masks", "*.png")}
    if name == "fields":
        return shared_data / "ftw_fields" / "mask.tif"
    data, part, pattern = folders[name]
    return min((shared_data / data / "dev" / part).glob(pattern))


@pytest.mark.parametrize("name", ["banepa", "dubai", "amazon", "fields"])
def test_rasterised_polygons_give_real_masks_back(shared_data, tmp_path, name):
    path = _mask(shared_data, name, tmp_path)
    raster = Raster.open(path)
    pixels, valid = raster.read(raster.grid.window)
    table = read(ls.vectorize(path, out=tmp_path / "polygons.fgb", classes="all"))
    pairs = zip(table.geometry, table["value"], strict=True)
    burned = rasterio.features.rasterize(pairs, raster.grid.shape, fill=255, transform=raster.grid.transform)
    np.testing.assert_array_equal(burned, np.where(valid, pixels[0], 255))
    assert table.is_valid.all()


def test_dask_writes_the_same_bytes(mapped, tmp_path):
    ls.vectorize(mapped, out=tmp_path / "here.fgb")
    ls.vectorize(mapped, out=tmp_path / "there.fgb", dask="auto")
    here, there = (Path(tmp_path / name).read_bytes() for name in ("here.fgb", "there.fgb"))
    assert here == there
    assert not list(tmp_path.glob(".there*"))


def _float_raster(folder):
    return worlds.write_raster(folder / "f.tif", np.full((3, 3), 0.5, np.float32)), {}


def _bands(folder):
    return worlds.write_raster(folder / "b.tif", np.stack([VALUES] * 2)), {}


def _rotated(folder):
    turned = Affine.translation(5e5, 5e6) @ Affine.rotation(20) @ Affine.scale(1, -1)
    return worlds.write_raster(folder / "r.tif", VALUES, transform=turned), {}


def _unsigned(folder):
    return worlds.write_raster(folder / "u.tif", np.full((3, 3), 2**63 + 1, np.uint64)), {}


def _plain(**settings):
    return lambda folder: (worlds.write_raster(folder / "m.tif", VALUES), settings)


def _other_grid(folder):
    path = worlds.write_raster(folder / "p.tif", np.zeros((3, 5, 5), np.float32), descriptions=["0", "1", "2"])
    return worlds.write_raster(folder / "m.tif", VALUES), {"probabilities": path}


def _table(text):
    def write(folder):
        (folder / "t.csv").write_text(text)
        return worlds.write_raster(folder / "m.tif", VALUES), {"class_table": folder / "t.csv"}

    return write


@pytest.mark.parametrize(
    ("inputs", "name", "message"),
    [
        (_float_raster, "o.gpkg", "holds 0.5. Expected class values"),
        (_bands, "o.gpkg", "has 2 bands. Expected one band of class values"),
        (_rotated, "o.gpkg", "rotated"),
        (_plain(), "o.xyz", "no suffix for polygons. Give it one of .gpkg"),
        (_plain(), "m.tif", "no suffix for polygons"),
        (_plain(classes=["house"]), "o.gpkg", "has no class 'house'"),
        (_plain(square=True, smooth=True), "o.gpkg", "exclude each other"),
        (_plain(square=True, connectivity=8), "o.gpkg", "exclude each other"),
        (_plain(split_touching=True, dissolve=True), "o.gpkg", "joins the objects that split_touching separates"),
        (_plain(classes=[]), "o.gpkg", "Give names or values of classes, or all"),
        (_plain(), "a;b.gpkg", "reads ! and ; as parts of an address"),
        (_plain(), "a!b.shp", "reads ! and ; as parts of an address"),
        (_unsigned, "o.gpkg", "holds 9223372036854775809. Expected class values"),
        (_plain(simplify=-1), "o.gpkg", "simplify"),
        (_other_grid, "o.gpkg", "lie on different grids"),
        (_table("a,b\n1,2\n"), "o.gpkg", "has the columns a, b. Expected the columns value and name"),
        (_table("value,name\nx,y\n"), "o.gpkg", "Expected a whole number"),
        (_table("value,name\n1,y\n1,z\n"), "o.gpkg", "has value 1 twice"),
        (_table("value,name\n9223372036854775808,y\n"), "o.gpkg", r"Expected a number from -2\^63"),
    ],
)
def test_bad_input_ends_in_one_line_and_writes_nothing(tmp_path, inputs, name, message):
    path, settings = inputs(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(LandscribeError, match=message):
        ls.vectorize(path, out=tmp_path / name, **settings)
    assert sorted(tmp_path.iterdir()) == before


def test_words_that_a_shapefile_cannot_hold_are_named_and_cut_between_letters(mapped, tmp_path, caplog):
    (tmp_path / "names.csv").write_text(f"value,name\n0,grass\n1,road\n2,{'é' * 130}\n", encoding="utf-8")
    table = vectorized(mapped, "polygons.shp", class_table=tmp_path / "names.csv", classes="2")
    assert set(table["class"]) == {"é" * 127}
    assert "words of at most 254 bytes" in caplog.text


def test_an_existing_file_is_kept_unless_it_is_to_be_replaced(mapped, tmp_path):
    out = tmp_path / "o.gpkg"
    out.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        ls.vectorize(mapped, out=out)
    assert out.read_text() == "mine"
    ls.vectorize(mapped, out=out, overwrite=True)
    assert len(read(out)) == 3


@pytest.mark.parametrize("of_table", [True, False])
def test_a_mask_of_nodata_only_is_refused_and_replaces_nothing(tmp_path, of_table):
    path = worlds.write_raster(tmp_path / "empty.tif", np.zeros((8, 8), np.uint8), nodata=0)
    table = tmp_path / "classes.csv"
    table.write_text("value,name\n1,field\n", encoding="utf-8")
    out = tmp_path / "fields.gpkg"
    out.write_bytes(b"good")
    with pytest.raises(RasterError, match=r"empty\.tif: no valid pixel, all are nodata"):
        ls.vectorize(path, out=out, overwrite=True, class_table=table if of_table else None)
    assert out.read_bytes() == b"good"


@pytest.mark.parametrize(("dtype", "value"), [(np.int16, 311), (np.float32, 211)])
def test_polygons_have_the_names_that_other_programs_keep(tmp_path, dtype, value):
    path = worlds.write_raster(tmp_path / "m.tif", np.array([[value, value], [7, 7]], dtype), nodata=-9999)
    fields = "".join(f"<FieldDefn><Name>{n}</Name><Usage>{u}</Usage></FieldDefn>" for n, u in (("v", 5), ("n", 2)))
    table = f"<GDALRasterAttributeTable>{fields}<Row><F>{value}</F><F>wood</F></Row></GDALRasterAttributeTable>"
    (tmp_path / "m.tif.aux.xml").write_text(f"<PAMDataset><PAMRasterBand>{table}</PAMRasterBand></PAMDataset>")
    polygons = gpd.read_file(ls.vectorize(path, out=tmp_path / "o.fgb"))
    assert dict(zip(polygons["value"], polygons["class"], strict=True)) == {value: "wood", 7: "7"}
