"""Attribute tables: names and colours of values, as GDAL, R, ArcGIS and ERDAS keep them beside a raster."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from landscribe.errors import is_printable
from landscribe.geo.classes import ClassEntry, Classes, has_numbers, label_key
from landscribe.maps.legends.attribute_tables import AttributeTable
from landscribe.maps.legends.style import aux_xml
from worlds import write_raster

GENERIC, COUNT, NAME, MINIMUM, MAXIMUM, VALUE, RED, GREEN, BLUE = 0, 1, 2, 3, 4, 5, 6, 7, 8


def raster(folder: Path) -> Path:
    return write_raster(folder / "map.tif", np.ones((4, 4), np.int16))


def read(folder: Path, band: str = "") -> AttributeTable:
    path = raster(folder)
    if band:
        text = f'<PAMDataset><PAMRasterBand band="1">{band}</PAMRasterBand></PAMDataset>'
        path.with_name("map.tif.aux.xml").write_text(text, encoding="utf-8")
    return AttributeTable.of(str(path))


def rat(columns: list[tuple[str, int]], rows: list[tuple], attributes: str = "") -> str:
    fields = "".join(f"<FieldDefn><Name>{name}</Name><Usage>{usage}</Usage></FieldDefn>" for name, usage in columns)
    cells = ("".join(f"<F>{cell}</F>" for cell in row) for row in rows)
    lines = "".join(f"<Row>{own}</Row>" for own in cells)
    return f"<GDALRasterAttributeTable{attributes}>{fields}{lines}</GDALRasterAttributeTable>"


def categories(*names: str) -> str:
    return f"<CategoryNames>{''.join(f'<Category>{name}</Category>' for name in names)}</CategoryNames>"


def test_a_raster_alone_has_no_names(tmp_path):
    assert read(tmp_path) == AttributeTable({}, {})


def test_the_usages_of_columns_say_what_they_hold(tmp_path):
    columns = [("OID", GENERIC), ("n", COUNT), ("x", VALUE), ("text", GENERIC), ("y", NAME)]
    columns += [("r", RED), ("g", GREEN), ("b", BLUE)]
    rows = [(0, 9, 311, "T", "wood", 0, 128, 255), (1, 8, -1, "S", "sea", 1, 2, 3)]
    table = read(tmp_path, rat(columns, rows))
    assert table == AttributeTable({311: "wood", -1: "sea"}, {311: "#0080ff", -1: "#010203"})


def test_a_table_of_r_without_usages_has_its_first_numbers_and_its_column_of_names(tmp_path):
    rows = [(3, "dense", "wood", 0.5), (7, "open", "sea", 0.25)]
    columns = [("ID", GENERIC), ("cover", GENERIC), ("class", GENERIC), ("share", GENERIC)]
    assert read(tmp_path, rat(columns, rows)).names == {3: "wood", 7: "sea"}
    # The category names are those of the column that is shown.
    assert read(tmp_path, categories("", "", "", "dense") + rat(columns, rows)).names == {3: "dense", 7: "sea"}


def test_a_table_by_row_numbers_and_colours_as_shares_are_those_of_erdas(tmp_path):
    columns = [("Histogram", COUNT), ("Class_Names", NAME), ("Red", RED), ("Green", GREEN), ("Blue", BLUE)]
    rows = [(7, "", 0, 0, 0), (5, "wood", 0, 0.5, 1), (3, "sea", 0.2, 0, 0)]
    table = read(tmp_path, rat(columns, rows, ' Row0Min="0" BinSize="1"'))
    assert table.names == {1: "wood", 2: "sea"}
    assert table.colours == {0: "#000000", 1: "#0080ff", 2: "#330000"}


def test_a_row_of_a_range_of_values_names_none(tmp_path):
    columns = [("from", MINIMUM), ("to", MAXIMUM), ("y", NAME)]
    assert read(tmp_path, rat(columns, [(1, 1, "wood"), (2, 5, "sea")])).names == {1: "wood"}


def test_category_names_count_from_0(tmp_path):
    assert read(tmp_path, categories("", "wood", " ", "sea")).names == {1: "wood", 3: "sea"}


def test_a_table_of_arcgis_has_names_and_colours(tmp_path):
    columns = {"Value": [3, 7], "Count": [10, 6], "Class_name": ["wood", "sea"]}
    colours = {"Red": [0.0, 1.0], "Green": [0.5, 0.0], "Blue": [1.0, 0.0]}
    pyogrio.write_dataframe(pd.DataFrame(columns | colours), tmp_path / "map.dbf", driver="ESRI Shapefile")
    (tmp_path / "map.dbf").rename(tmp_path / "map.tif.vat.dbf")
    assert read(tmp_path) == AttributeTable({3: "wood", 7: "sea"}, {3: "#0080ff", 7: "#ff0000"})


def test_names_of_two_values_and_numbers_are_no_names(tmp_path):
    table = read(tmp_path, categories("other", "wood", "other", "3", " wood2 "))
    assert table.names == {1: "wood", 4: "wood2"}
    assert table.classes([0, 1, 2, 3, 4]).names == ("0", "wood", "2", "3", "wood2")


def test_the_colour_table_of_a_geotiff_has_colours_but_the_transparent_ones(tmp_path):
    path = write_raster(tmp_path / "map.tif", np.ones((4, 4), np.uint8))
    with rasterio.open(path, "r+") as target:
        target.write_colormap(1, {1: (1, 2, 3, 255), 2: (9, 9, 9, 0)})
    colours = AttributeTable.of(str(path)).colours
    assert colours[1] == "#010203"
    assert AttributeTable.of(str(path)).classes([1]).entries == (ClassEntry(1, "1", "#010203", 1),)


@pytest.mark.parametrize(
    "text",
    [
        "<PAMDataset><PAMRas",
        "\x00\x01",
        f"<PAMDataset><PAMRasterBand>{rat([('x', 'value')], [])}</PAMRasterBand></PAMDataset>",
    ],
)
def test_a_damaged_file_is_left_out_with_one_warning(tmp_path, caplog, text):
    path = raster(tmp_path)
    path.with_name("map.tif.aux.xml").write_text(text)
    with caplog.at_level(logging.WARNING):
        assert [AttributeTable.of(str(path)).names for _ in range(2)] == [{}, {}]
    assert [record.getMessage().count("map.tif.aux.xml is left out") for record in caplog.records] == [1]


def test_a_damaged_table_of_arcgis_is_left_out(tmp_path, caplog):
    (tmp_path / "map.tif.vat.dbf").write_bytes(b"no dbf")
    assert read(tmp_path).names == {}
    assert "map.tif.vat.dbf is left out" in caplog.text


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=9).filter(
    lambda name: is_printable(name) and name == name.strip() and not has_numbers([name])
)


@given(
    st.lists(st.tuples(st.integers(0, 254), names), min_size=1, unique_by=(lambda r: r[0], lambda r: label_key(r[1])))
)
def test_the_file_beside_a_map_of_ours_is_read_back(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("map")
    classes = Classes(tuple(ClassEntry(value, name, "#123456", name) for value, name in rows))
    raster(folder).with_name("map.tif.aux.xml").write_text(aux_xml(classes), encoding="utf-8")
    table = AttributeTable.of(str(folder / "map.tif"))
    assert table == AttributeTable(dict(rows), dict.fromkeys(classes.values, "#123456"))
