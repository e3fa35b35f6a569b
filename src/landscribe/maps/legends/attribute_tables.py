"""Attribute tables: names and colours that other programs keep beside a raster for its values.

GDAL's file FILE.aux.xml holds category names (R, QGIS) and raster attribute tables (ArcGIS, ERDAS, R), ArcGIS keeps a
table FILE.vat.dbf, and a GeoTIFF holds a colour table.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pyogrio

from landscribe.errors import first_line, is_printable
from landscribe.geo.classes import IGNORE, Classes, has_numbers, hex_colour, label_key
from landscribe.geo.rasters.metadata import log_once
from landscribe.geo.rasters.whole_files import read_palette
from landscribe.geo.spec import NodataValue

# The usages of columns that GDAL numbers (GDALRATFieldUsage).
_GENERIC, _NAME, _MINIMUM, _MAXIMUM, _VALUE = 0, 2, 3, 4, 5
_COLOURS = {"red": 6, "green": 7, "blue": 8}
_OF_NAMES = re.compile("class|name|label|categor", re.IGNORECASE)
"""Columns of words that hold class names in tables whose columns have no usage."""


@dataclass(frozen=True)
class AttributeTable:
    """Names and colours of the values of a raster."""

    names: dict[int, str]
    """By value, which may be any whole number. No name is a number, or that of two values."""
    colours: dict[int, str]
    """"#rrggbb" by value."""

    @classmethod
    def of(cls, path: str) -> "AttributeTable":
        """The tables of a raster file; empty without one. A damaged one is left out with a warning."""
        of_gdal, of_arcgis = _read(f"{path}.aux.xml", _aux_xml), _read(f"{path}.vat.dbf", _vat)
        palette = {value: hex_colour(colour[:3]) for value, colour in (read_palette(path) or {}).items() if colour[3]}
        return cls(_without_ambiguous(of_arcgis.names | of_gdal.names), palette | of_arcgis.colours | of_gdal.colours)

    def without(self, value: NodataValue) -> "AttributeTable":
        """The table without the name of a value, such as nodata."""
        return replace(self, names={own: name for own, name in self.names.items() if own != value})

    def classes(self, values: Iterable[int]) -> Classes:
        """The class table of class values, 0 to 254, and of those that have a name; of others, the number is the name.

        Labels are the values. A name of 0 alone gives no class: category names count from 0, and with a background, the
        area between the polygons of a reference would count.
        """
        known = {*values, *(value for value in self.names if 0 < value < IGNORE)}
        entries = (
            replace(
                entry,
                name=self.names.get(entry.value, entry.name),
                colour=self.colours.get(entry.value, entry.colour),
            )
            for entry in Classes.from_labels(sorted(known), background=False)
        )
        return Classes(tuple(entries))


class _Column(NamedTuple):
    """A column of a table."""

    name: str
    usage: int
    cells: Sequence[str]

    @property
    def numbers(self) -> list[float] | None:
        """Its cells as numbers; None if one is none."""
        try:
            return [float(cell) for cell in self.cells]
        except ValueError:
            return None


_EMPTY = AttributeTable({}, {})


def _read(path: str, read: Callable[[str], AttributeTable]) -> AttributeTable:
    """The table in a file; empty if there is no file, or it is damaged."""
    if not Path(path).is_file():
        return _EMPTY
    try:
        return read(path)
    except (ET.ParseError, ValueError, OSError, RuntimeError) as error:
        log_once(f"{path} is left out: the class names in it cannot be read ({first_line(error)})")
        return _EMPTY


def _aux_xml(path: str) -> AttributeTable:
    """The table and the category names of the first band in a file of GDAL."""
    # The parser limits the entities of a file.
    bands = ET.parse(path).getroot().findall("PAMRasterBand")  # noqa: S314
    band = next((band for band in bands if band.get("band", "1") == "1"), None)
    if band is None:
        return _EMPTY
    categories = enumerate(category.text or "" for category in band.findall("CategoryNames/Category"))
    named = {value: name for value, name in categories if name.strip()}
    element = band.find("GDALRasterAttributeTable")
    if element is None:
        return AttributeTable(named, {})
    columns = _columns(element)
    table = _table_of(columns)
    # Category names are more certain than a column whose usage is not stated.
    is_stated = any(column.usage == _NAME for column in columns)
    return AttributeTable(named | table.names if is_stated else table.names | named, table.colours)


def _columns(table: ET.Element) -> list[_Column]:
    """The columns of GDAL's table; of one by row numbers, with a column of values."""
    fields = table.findall("FieldDefn")
    rows = [[cell.text or "" for cell in row.findall("F")] for row in table.findall("Row")]
    cells = [[row[index] if index < len(row) else "" for row in rows] for index in range(len(fields))]
    columns = [
        _Column(field.findtext("Name", ""), int(field.findtext("Usage", "0")), own)
        for field, own in zip(fields, cells, strict=True)
    ]
    if "Row0Min" in table.attrib and not any(column.usage in (_MINIMUM, _VALUE) for column in columns):
        first, step = float(table.attrib["Row0Min"]), float(table.get("BinSize", "1"))
        columns.append(_Column("value", _VALUE, [str(first + step * index) for index in range(len(rows))]))
    return columns


def _vat(path: str) -> AttributeTable:
    """The table that ArcGIS keeps."""
    table = pyogrio.read_dataframe(path, read_geometry=False)
    texts = table.astype(object).where(table.notna(), "")
    return _table_of([_Column(str(name), _GENERIC, [str(cell) for cell in texts[name]]) for name in texts])


def _table_of(columns: Collection[_Column]) -> AttributeTable:
    """The names and colours in a table; rows of a range of values have none."""
    values = _values(columns)
    if values is None:
        return _EMPTY
    upper = next((column.numbers for column in columns if column.usage == _MAXIMUM), None) or values
    rows = {
        int(value): index
        for index, (value, most) in enumerate(zip(values, upper, strict=True))
        if value.is_integer() and value == most
    }
    names, colours = _names(columns), _colours(columns)
    return AttributeTable(
        {} if names is None else {value: names[index] for value, index in rows.items() if names[index].strip()},
        {} if colours is None else {value: colours[index] for value, index in rows.items()},
    )


def _values(columns: Collection[_Column]) -> list[float] | None:
    """The values that rows are about: by usage, else by name, else the first column of different whole numbers."""
    for usage in (_VALUE, _MINIMUM):
        for column in columns:
            if column.usage == usage:
                return column.numbers
    generic = [column for column in columns if column.usage == _GENERIC]
    for column in sorted(generic, key=lambda column: column.name.lower() != "value"):
        numbers = column.numbers
        if numbers and len(set(numbers)) == len(numbers) and all(number.is_integer() for number in numbers):
            return numbers
    return None


def _names(columns: Collection[_Column]) -> Sequence[str] | None:
    """The class names of rows: by usage, else the column of words that is called so, else the first of words."""
    stated = [column for column in columns if column.usage == _NAME]
    words = [column for column in columns if column.usage == _GENERIC and column.numbers is None]
    found = [*stated, *sorted(words, key=lambda column: _OF_NAMES.search(column.name) is None)]
    return found[0].cells if found else None


def _colours(columns: Collection[_Column]) -> list[str] | None:
    """The colours of rows, by usage or name, in numbers to 255 or shares of 1."""
    found = [
        next((own.numbers for own in columns if own.usage == usage or own.name.lower() == name), None)
        for name, usage in _COLOURS.items()
    ]
    channels = [each for each in found if each]
    if len(channels) < len(_COLOURS):
        return None
    whole = 1 if max(map(max, channels)) <= 1 else 255
    return [hex_colour([round(255 * channel / whole) for channel in row]) for row in zip(*channels, strict=True)]


def _without_ambiguous(names: dict[int, str]) -> dict[int, str]:
    """Names that are words of one value, which files can hold."""
    counts = Counter(map(label_key, names.values()))
    return {
        value: name.strip()
        for value, name in names.items()
        if counts[label_key(name)] == 1 and is_printable(name.strip()) and not has_numbers([name])
    }
