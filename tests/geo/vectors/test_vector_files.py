"""Vector files: formats, containers, layers, tables of points, and damaged files."""

import json
import os
import warnings
import zipfile

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely

from landscribe.errors import LabelError, UnreachableError
from landscribe.geo.features import Features, geometry_type
from landscribe.geo.vectors.geometries import POINTS
from landscribe.geo.vectors.vector_files import is_vector
from worlds import UTM, pixel_box, write_polygons

BOXES = [pixel_box(0, 0, 2, 2), pixel_box(0, 4, 2, 2), pixel_box(4, 0, 2, 2)]
KINDS = ["house", "road", "house"]


def table(**columns) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(columns or {"kind": KINDS}, geometry=BOXES, crs=UTM)


def labels(path, **options) -> tuple:
    """The labels of a file that is read without a warning of a library."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Features.read(path, **{"field": "kind"} | options).labels


# Formats and containers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["a.GEOJSON", "a.gpkg", "a.shp", "a.fgb", "a.gml", "a.gdb", "a.tab", "a.sqlite", "a.geojsonl", "a.geojsons"]
)
def test_vector_formats_hold_the_same_features(tmp_path, name):
    drivers = {".gdb": "OpenFileGDB", ".sqlite": "SQLite", ".geojsonl": "GeoJSONSeq", ".geojsons": "GeoJSONSeq"}
    path = tmp_path / name
    frame = table().to_crs(4326) if name.startswith("a.geojson") else table()
    pyogrio.write_dataframe(frame, path, driver=drivers.get(path.suffix))
    assert is_vector(str(path))
    read = Features.read(path, field="kind")
    assert sorted(read.labels) == sorted(KINDS)


@pytest.mark.parametrize("name", ["a.parquet", "a.geoparquet", "a.feather"])
def test_tables_of_arrow_are_read(tmp_path, name):
    write = table().to_feather if name.endswith("feather") else table().to_parquet
    write(tmp_path / name)
    assert is_vector(name)
    assert labels(tmp_path / name) == tuple(KINDS)


@pytest.mark.parametrize(("inside", "name"), [("a.shp", "a.zip"), ("a.gpkg", "a.gpkg.zip"), ("a.shp", "a.shz")])
def test_archives_with_one_vector_file_are_read(tmp_path, inside, name):
    write_polygons(tmp_path / inside, BOXES, kind=KINDS)
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for part in tmp_path.glob("a.*"):
            if part.name != name:
                archive.write(part, part.name if name != "a.zip" else f"folder/{part.name}")
    assert is_vector(str(tmp_path / name))
    assert labels(tmp_path / name) == tuple(KINDS)


def test_archives_with_several_vector_files_are_refused_unless_one_is_named(tmp_path):
    for name in ("a.geojson", "b.gpkg"):
        pyogrio.write_dataframe(table(kind=[name] * 3), tmp_path / name, layer="kinds")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.write(tmp_path / "a.geojson", "a.geojson")
        archive.write(tmp_path / "b.gpkg", "b.gpkg")
    with pytest.raises(LabelError, match=r"two\.zip holds a\.geojson, b\.gpkg.*--label-layer a"):
        labels(tmp_path / "two.zip")
    assert labels(tmp_path / "two.zip", layer="a") == ("a.geojson",) * 3
    assert labels(tmp_path / "two.zip", layer="b") == ("b.gpkg",) * 3


@pytest.mark.parametrize("extra", ["__MACOSX/._a.gpkg", "__MACOSX/folder/a.gpkg", "folder/._a.gpkg"])
def test_what_a_mac_adds_to_an_archive_is_no_vector_file(tmp_path, extra):
    path = write_polygons(tmp_path / "a.gpkg", BOXES, kind=KINDS)
    with zipfile.ZipFile(tmp_path / "mac.zip", "w") as archive:
        archive.writestr(extra, b"icon")
        archive.write(path, "folder/a.gpkg")
    assert labels(tmp_path / "mac.zip") == tuple(KINDS)


def test_a_shapefile_without_its_shx_is_refused_with_the_remedy(tmp_path):
    write_polygons(tmp_path / "a.shp", BOXES, kind=KINDS)
    (tmp_path / "a.shx").unlink()
    with pytest.raises(LabelError, match=r"a\.shp cannot be read without its \.shx file\. Copy the \.shx beside"):
        labels(tmp_path / "a.shp")


def test_archives_of_rasters_are_no_vector_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("mask.tif", b"")
    assert not is_vector(str(tmp_path / "a.zip"))


def test_vrts_of_features_are_vector_files_and_vrts_of_rasters_are_not(tmp_path):
    write_polygons(tmp_path / "a.gpkg", BOXES, kind=KINDS)
    layer = '<OGRVRTLayer name="a"><SrcDataSource relativeToVRT="1">{}</SrcDataSource></OGRVRTLayer>'
    (tmp_path / "a.vrt").write_text(f"<OGRVRTDataSource>{layer.format('a.gpkg')}</OGRVRTDataSource>")
    (tmp_path / "b.vrt").write_text('<VRTDataset rasterXSize="1" rasterYSize="1"></VRTDataset>')
    assert is_vector(str(tmp_path / "a.vrt"))
    assert not is_vector(str(tmp_path / "b.vrt"))
    assert labels(tmp_path / "a.vrt") == tuple(KINDS)
    (tmp_path / "c.vrt").write_text(f"<OGRVRTDataSource>{layer.format('c.vrt')}</OGRVRTDataSource>")
    with pytest.raises(LabelError, match=r"c\.vrt cannot be read as vector features"):
        labels(tmp_path / "c.vrt")


# Layers ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path):
    """A GeoPackage whose first layer is an area, and whose second has the class column."""
    path = tmp_path / "project.gpkg"
    gpd.GeoDataFrame({"name": ["area"]}, geometry=[pixel_box(0, 0, 9, 9)], crs=UTM).to_file(path, layer="study_area")
    table().to_file(path, layer="buildings", mode="a")
    return path


def test_the_only_layer_with_the_class_column_is_read(project):
    assert labels(project) == tuple(KINDS)
    read = Features.read(project, field="kind")
    assert (read.layer, read.other_layers) == ("buildings", ("study_area",))


def test_several_layers_with_polygons_are_refused_with_their_names(project):
    with pytest.raises(
        LabelError, match=r"2 layers with Polygon or MultiPolygon: study_area, buildings.*--label-layer"
    ):
        labels(project, field=None)
    assert labels(project, field=None, layer="study_area") == ("project",)


def test_a_layer_that_does_not_exist_is_refused_with_those_that_do(project):
    with pytest.raises(LabelError, match=r"has no layer 'houses'. Its layers are study_area, buildings"):
        labels(project, layer="houses")
    with pytest.raises(LabelError, match=r"has no layer with Polygon or MultiPolygon and column 'class'"):
        labels(project, field="class")


@pytest.mark.parametrize("name", ["a.gpkg", "a.gdb", "a.sqlite", "a.zip", "a.gpkg.zip"])
def test_a_layer_that_a_container_of_one_layer_lacks_is_refused(tmp_path, name):
    written = tmp_path / ("a.gpkg" if name.endswith("zip") else name)
    drivers = {".gdb": "OpenFileGDB", ".sqlite": "SQLite"}
    pyogrio.write_dataframe(table(), written, layer="buildings", driver=drivers.get(written.suffix))
    if name.endswith("zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.write(written, written.name)
    with pytest.raises(LabelError, match=r"has no layer 'houses'. Its only layer is buildings"):
        labels(tmp_path / name, layer="houses")
    assert labels(tmp_path / name, layer="buildings") == tuple(KINDS)


@pytest.mark.parametrize("name", ["a.geojson", "a.shp", "a.fgb", "a.parquet"])
def test_the_only_layer_of_a_file_without_layers_has_the_name_of_the_file(tmp_path, name):
    (table().to_parquet if name.endswith("parquet") else table().to_file)(tmp_path / name)
    for layer in ("a", name):
        assert sorted(labels(tmp_path / name, layer=layer)) == sorted(KINDS)
    with pytest.raises(LabelError, match=r"has no layer 'buildings'. Its only layer is a. Choose one"):
        labels(tmp_path / name, layer="buildings")


def test_a_renamed_file_may_be_called_by_the_name_of_its_layer(tmp_path):
    pyogrio.write_dataframe(table(), tmp_path / "a.geojson", layer="buildings")
    (tmp_path / "a.geojson").rename(tmp_path / "b.geojson")
    for layer in ("buildings", "b"):
        assert labels(tmp_path / "b.geojson", layer=layer) == tuple(KINDS)


def test_layers_of_points_and_lines_are_not_read_as_polygons(project):
    points = gpd.GeoDataFrame({"kind": ["well"]}, geometry=[shapely.Point(0, 0)], crs=UTM)
    points.to_file(project, layer="wells", mode="a")
    assert labels(project) == tuple(KINDS)
    assert labels(project, geometry_types=POINTS) == ("well",)


def test_the_styles_that_qgis_keeps_are_no_layer(tmp_path):
    path = tmp_path / "styled.gpkg"
    pyogrio.write_dataframe(pd.DataFrame({"styleName": ["a"]}), path, layer="layer_styles")
    table().to_file(path, layer="buildings", mode="a")
    assert labels(path) == tuple(KINDS)
    assert Features.read(path).other_layers == ()


def test_folders_of_kml_are_layers(tmp_path):
    ring = " ".join(f"{x},{y},0" for x, y in [(9, 45), (9.1, 45), (9.1, 45.1), (9, 45)])
    polygon = (
        "<Polygon><outerBoundaryIs><LinearRing><coordinates>{}</coordinates></LinearRing></outerBoundaryIs></Polygon>"
    )
    point = "<Point><coordinates>9,45</coordinates></Point>"
    folders = "".join(
        f"<Folder><name>{name}</name><Placemark><name>{name}</name>{shape}</Placemark></Folder>"
        for name, shape in (("pins", point), ("houses", polygon.format(ring)))
    )
    path = tmp_path / "earth.kml"
    path.write_text(f'<kml xmlns="http://www.opengis.net/kml/2.2"><Document>{folders}</Document></kml>')
    assert labels(path, field="Name") == ("houses",)


# Tables of points --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_polygons_of_drawings_are_read_by_their_layers(tmp_path):
    boxes = [shapely.box(500_000 + x, 5e6, 500_010 + x, 5e6 + 10) for x in (0, 20)]
    drawing = gpd.GeoDataFrame({"Layer": ["house", "road"]}, geometry=boxes)
    pyogrio.write_dataframe(drawing, tmp_path / "plan.dxf", driver="DXF")
    assert is_vector(str(tmp_path / "plan.dxf"))
    read = Features.read(tmp_path / "plan.dxf", field="Layer", crs="EPSG:32632")
    assert read.labels == ("house", "road")
    assert shapely.equals(read.geometries, boxes).all()
    pyogrio.write_dataframe(drawing.set_geometry(drawing.boundary), tmp_path / "lines.dxf", driver="DXF")
    with pytest.raises(LabelError, match=r"lines.dxf holds 2 LineString.*Lines to polygons if they are closed"):
        Features.read(tmp_path / "lines.dxf", field="Layer", crs="EPSG:32632")


@pytest.mark.parametrize(
    ("header", "row"),
    [("x,y,kind", "500001,4999999,house"), ("Easting;Northing;kind", "500001;4999999;house"),
     ("kind,WKT", 'house,"POINT (500001 4999999)"')],
    ids=["x and y", "easting and northing", "WKT"],
)  # fmt: skip
def test_points_of_csv_files_are_read_with_the_crs_that_is_given(tmp_path, header, row):
    path = tmp_path / "points.csv"
    path.write_text(f"{header}\n{row}\n", encoding="utf-8")
    with pytest.raises(
        LabelError, match=r"points\.csv has no CRS. Pass .*often that of the image \(--label-crs EPSG:CODE\)\.$"
    ):
        labels(path, geometry_types=POINTS)
    points = Features.read(path, field="kind", crs="EPSG:32632", geometry_types=POINTS)
    assert (points.labels, points.crs) == (("house",), UTM)
    assert shapely.get_coordinates(points.geometries).tolist() == [[500_001, 4_999_999]]


@pytest.mark.parametrize(
    ("move", "words"),
    [
        ((-500_000, -5_000_000), r"--label-crs EPSG:4326; or .*-a_srs EPSG:4326 "),
        ((-500_000, -4_999_900), r"often that of the image \(--label-crs EPSG:CODE\); or .*-a_srs EPSG:CODE "),
    ],
    ids=["degrees", "a latitude of 99"],
)
def test_degrees_are_offered_for_features_without_a_crs_that_may_be_in_degrees(tmp_path, move, words):
    table().set_geometry(table().translate(*move)).to_file(tmp_path / "boxes.shp")
    (tmp_path / "boxes.prj").unlink()
    with pytest.raises(LabelError, match=rf"boxes\.shp has no CRS\. Pass the one of its coordinates, .*{words}"):
        labels(tmp_path / "boxes.shp")


def test_longitudes_and_latitudes_of_csv_files_are_degrees(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("id,Longitude,Latitude,code\n1,9.5,45.5,1\n2,9.6,45.6,10\n", encoding="utf-8")
    points = Features.read(path, field="code", geometry_types=POINTS)
    assert (points.crs.to_epsg(), points.labels) == (4326, (1, 10))
    assert geometry_type(path) == "Point"


def test_a_crs_that_does_not_exist_is_refused(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("x,y,kind\n1,2,house\n", encoding="utf-8")
    with pytest.raises(LabelError, match="--label-crs is 'UTM 32', which is no CRS"):
        labels(path, geometry_types=POINTS, crs="UTM 32")


def test_a_table_without_coordinates_is_refused_with_its_columns(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("kind,size\nhouse,3\n", encoding="utf-8")
    with pytest.raises(LabelError, match=r"Its columns are kind, size. Expected x and y, lon and lat, or WKT"):
        labels(path)


def test_multipoints_are_points_with_the_label_of_their_feature(tmp_path):
    path = tmp_path / "points.gpkg"
    groups = [shapely.MultiPoint([(500_001, 5e6), (500_002, 5e6)]), shapely.MultiPoint([(500_003, 5e6)])]
    write_polygons(path, groups, kind=["wood", "road"])
    points = Features.read(path, field="kind", geometry_types=POINTS)
    assert points.labels == ("wood", "wood", "road")
    assert shapely.get_coordinates(points.geometries)[:, 0].tolist() == [500_001, 500_002, 500_003]


# Damaged and strange files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.95])
def test_a_flatgeobuf_that_is_cut_off_is_refused(tmp_path, share):
    path = write_polygons(tmp_path / "a.fgb", BOXES * 20, kind=KINDS * 20)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(LabelError, match=r"a\.fgb (cannot be read|is damaged)"):
        labels(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    for name in ("a.geojson", "a.vrt", "a.zip"):
        os.mkfifo(tmp_path / name)
    assert not is_vector(str(tmp_path / "a.vrt"))
    assert not is_vector(str(tmp_path / "a.zip"))
    with pytest.raises(UnreachableError, match=r"a\.geojson is a pipe or a device"):
        labels(tmp_path / "a.geojson")


@pytest.mark.parametrize(
    "ring", [[[0, 0], [1, 1]], [[0, 0], [1, 1], [0, 0]], [], [[0, 0], [1, float("nan")], [1, 1], [0, 0]],
             [[0, 0], [float("inf"), 1], [1, 1], [0, 0]], [[[0, 0]], [1, 1], [2, 2], [0, 0]]],
    ids=["two points", "to and fro", "no point", "nan", "infinite", "nested"],
)  # fmt: skip
def test_rings_that_are_no_rings_are_refused_or_dropped(tmp_path, ring, caplog):
    square = [[0, 0], [0, 1], [1, 1], [1, 0], [0, 0]]
    features = [
        {"type": "Feature", "properties": {"kind": kind}, "geometry": {"type": "Polygon", "coordinates": [coordinates]}}
        for kind, coordinates in (("house", square), ("road", ring))
    ]
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    with pytest.raises(LabelError, match=r"bad geometries in its 2 features: 1 (null|empty|invalid) \(feature 1\)"):
        labels(path)
    assert labels(path, fix_geometries=True) == ("house",)
    assert "drops 1 of 2 features, which have no area (road 1)" in caplog.text


@pytest.mark.parametrize("several", [True, False])
def test_dropped_points_are_counted_also_where_features_have_several_points(tmp_path, several, caplog):
    geometries = [
        shapely.MultiPoint([(1, 1), (2, 2), (3, 3)] if several else [(1, 1)]),
        None,
        shapely.Point(),
        shapely.Point(4, 4),
    ]
    path = tmp_path / "a.gpkg"
    gpd.GeoDataFrame({"kind": ["house", "road", "pond", "house"]}, geometry=geometries, crs=UTM).to_file(path)
    read = Features.read(path, field="kind", geometry_types=POINTS, fix_geometries=True)
    assert read.labels == ("house",) * (4 if several else 2)
    assert "a.gpkg: --fix-geometries drops 2 of 4 features, which have no position (road 1, pond 1)" in caplog.text


def test_polygons_with_coordinates_that_are_not_finite_are_dropped_by_fixing(tmp_path):
    path = tmp_path / "a.gpkg"
    with np.errstate(invalid="ignore"):
        broken = shapely.Polygon([(0, 0), (1, np.nan), (1, 1), (0, 0)])
        write_polygons(path, [BOXES[0], broken], kind=["house", "road"])
    assert labels(path, fix_geometries=True) == ("house",)


def test_fixing_takes_the_polygons_out_of_collections(tmp_path):
    collection = shapely.GeometryCollection([BOXES[0], shapely.Point(0, 0), shapely.GeometryCollection([BOXES[1]])])
    path = write_polygons(tmp_path / "a.geojson", [collection, BOXES[2]], kind=["house", "road"])
    with pytest.raises(LabelError, match=r"holds 1 GeometryCollection.*--fix-geometries"):
        labels(path)
    fixed = Features.read(path, field="kind", fix_geometries=True)
    assert fixed.labels == ("house", "road")
    assert fixed.geometries[0].equals(BOXES[0] | BOXES[1])


@pytest.mark.parametrize("types", [("Polygon", "MultiPolygon"), POINTS], ids=["polygons", "points"])
def test_remedies_for_other_types_can_be_followed(tmp_path, types):
    shape = shapely.Point(0, 0) if types != POINTS else BOXES[0]
    path = write_polygons(tmp_path / "a.gpkg", [shape], kind=["house"])
    with pytest.raises(LabelError, match=r"draw polygons around them|files of their own"):
        labels(path, geometry_types=types)


@pytest.mark.parametrize(
    ("written", "declared"),
    [("UTF-8", None), ("CP1252", None), ("CP1252", "UTF-8"), ("UTF-8", "ISO-8859-1"), ("CP1252", "CP1252")],
)
def test_words_of_shapefiles_are_read_whatever_encoding_is_declared(tmp_path, written, declared):
    path = tmp_path / "a.shp"
    words = ["Straße", "Wälder", "road"]
    pyogrio.write_dataframe(table(kind=words), path, encoding=written)
    path.with_suffix(".cpg").unlink(missing_ok=True)
    if declared:
        path.with_suffix(".cpg").write_text(declared)
    assert labels(path) == tuple(words)


@pytest.mark.parametrize("name", ["a.shp", "a.zip", "a.shz"])
@pytest.mark.parametrize(
    ("written", "declared", "words"),
    [
        ("CP1251", "CP1251", ["Лес", "Река", "Сад"]), ("CP1251", "1251", ["Лес", "Река", "Сад"]),
        ("CP866", "CP866", ["лес", "река", "сад"]), ("CP866", "866", ["сад", "сад", "сад"]),
        ("GBK", "GBK", ["森林", "水", "草地"]), ("GBK", "936", ["水", "水", "水"]),
        ("CP1251", 0xC9, ["Лес", "Река", "Сад"]), ("CP866", 0x65, ["сад", "лес", "река"]),
        ("GBK", 0x4D, ["水", "水", "水"]), ("CP850", 2, ["Straße", "Wälder", "road"]),
        ("CP1252", 87, ["Straße", "Cœur", "road"]), ("UTF-8", 87, ["Straße", "Wälder", "road"]),
        ("UTF-8", 2, ["Straße", "Wälder", "road"]),
    ],
)  # fmt: skip
def test_words_of_shapefiles_are_read_in_the_encoding_that_they_declare(
    tmp_path, caplog, written, declared, words, name
):
    path = tmp_path / "a.shp"
    pyogrio.write_dataframe(table(kind=words), path, encoding=written)
    path.with_suffix(".cpg").unlink(missing_ok=True)
    if isinstance(declared, str):
        path.with_suffix(".cpg").write_text(declared)
    else:
        content = bytearray(path.with_suffix(".dbf").read_bytes())
        content[29] = declared
        path.with_suffix(".dbf").write_bytes(content)
    if name != "a.shp":
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for part in tmp_path.glob("a.???"):
                if part.name != name:
                    archive.write(part, part.name)
    assert labels(tmp_path / name) == tuple(words)
    assert caplog.text == ""


@pytest.mark.parametrize("declared", [None, "UTF-8", "nonsense"])
def test_words_in_an_encoding_that_nothing_declares_are_read_as_cp1252_with_a_warning(tmp_path, caplog, declared):
    path = tmp_path / "a.shp"
    pyogrio.write_dataframe(table(kind=["Straße", "Cœur", "road"]), path, encoding="CP1252")
    path.with_suffix(".cpg").unlink()
    if declared:
        path.with_suffix(".cpg").write_text(declared)
    assert labels(path) == ("Straße", "Cœur", "road")
    assert "are not UTF-8, and it declares no other encoding. They are read as CP1252" in caplog.text
