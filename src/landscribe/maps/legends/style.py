"""How classes look: colours, and the side files by which QGIS and ArcGIS show names and colours."""

from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from landscribe.geo.classes import Classes, rgb
from landscribe.geo.vectors.feature_files import may_write_style, style_mark


def colormap(classes: Classes) -> dict[int, tuple[int, int, int, int]]:
    """The palette that a class map carries: (red, green, blue, alpha) by value; ignore is transparent."""
    table = {entry.value: (*rgb(entry.colour), 255) for entry in classes}
    return table | {classes.ignore: (0, 0, 0, 0)}


def qml(classes: Classes) -> str:
    """A QGIS style that shows a class map with its names and colours (loaded when it lies beside the map)."""
    entries = "\n".join(
        f'        <paletteEntry value="{c.value}" label={quoteattr(c.name)} color="{c.colour}" alpha="255"/>'
        for c in classes
    )
    return f"""<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
{style_mark("map")}
<qgis hasScaleBasedVisibilityFlag="0">
  <pipe>
    <provider>
      <resampling enabled="false" zoomedInResamplingMethod="nearestNeighbour"
                  zoomedOutResamplingMethod="nearestNeighbour"/>
    </provider>
    <rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">
      <colorPalette>
{entries}
      </colorPalette>
    </rasterrenderer>
  </pipe>
</qgis>
"""


def aux_xml(classes: Classes) -> str:
    """A GDAL side file with category names and a raster attribute table (read by QGIS and ArcGIS)."""
    names = {entry.value: entry.name for entry in classes}
    # CategoryNames is a dense list from 0.
    categories = "\n".join(
        f"      <Category>{escape(names.get(value, ''))}</Category>" for value in range(max(names) + 1)
    )
    # Usage: 5 value (min and max), 2 name, 6 to 8 red, green, blue. Type: 0 integer, 2 text.
    fields = [("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8)]
    definitions = "\n".join(
        f'      <FieldDefn index="{i}"><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>'
        for i, (name, kind, usage) in enumerate(fields)
    )
    rows = "\n".join(
        f'      <Row index="{i}">' + "".join(f"<F>{escape(str(cell))}</F>" for cell in cells) + "</Row>"
        for i, cells in enumerate((c.value, c.name, *rgb(c.colour)) for c in classes)
    )
    return f"""<PAMDataset>
  <PAMRasterBand band="1">
    <CategoryNames>
{categories}
    </CategoryNames>
    <GDALRasterAttributeTable tableType="thematic">
{definitions}
{rows}
    </GDALRasterAttributeTable>
  </PAMRasterBand>
</PAMDataset>
"""


def polygon_qml(colours: Iterable[tuple[str, str]], field: str) -> str:
    """A QGIS style that shows polygons with the colours of their classes.

    Args:
        colours: (class name, "#rrggbb") of each class.
        field: the column that holds the class name.
    """
    entries = list(colours)
    names = [quoteattr(name) for name, _ in entries]
    categories = "\n".join(
        f'      <category symbol="{index}" value={name} label={name} type="string" render="true"/>'
        for index, name in enumerate(names)
    )
    symbols = "\n".join(_fill_symbol(str(index), rgb(colour)) for index, (_, colour) in enumerate(entries))
    return f"""<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
{style_mark("polygons")}
<qgis styleCategories="Symbology">
  <renderer-v2 type="categorizedSymbol" attr={quoteattr(field)} symbollevels="0" enableorderby="0" forceraster="0">
    <categories>
{categories}
    </categories>
    <symbols>
{symbols}
    </symbols>
  </renderer-v2>
  <layerGeometryType>2</layerGeometryType>
</qgis>
"""


def _fill_symbol(name: str, colour: tuple[int, int, int]) -> str:
    """A fill that lets imagery show through, in an outline of the same colour."""
    red, green, blue = colour
    options = {
        "color": f"{red},{green},{blue},140",
        "style": "solid",
        "outline_color": f"{red * 2 // 3},{green * 2 // 3},{blue * 2 // 3},255",
        "outline_style": "solid",
        "outline_width": "0.3",
        "outline_width_unit": "MM",
    }
    rows = "".join(f'<Option type="QString" name="{key}" value="{value}"/>' for key, value in options.items())
    return (
        f'      <symbol name="{name}" type="fill" alpha="1" clip_to_extent="1" force_rhr="0">'
        f'<layer class="SimpleFill" enabled="1" locked="0" pass="0"><Option type="Map">{rows}</Option></layer></symbol>'
    )


def new_side_files(path: Path, classes: Classes) -> dict[Path, str]:
    """The side files of a map that is written; a style of the user stays, with a warning, and none is written."""
    texts = side_files(path, classes)
    return {side: text for side, text in texts.items() if side.suffix != ".qml" or may_write_style(side, text)}


def side_files(path: Path, classes: Classes) -> dict[Path, str]:
    """The files beside a map that show its names and colours in QGIS (`.qml`) and ArcGIS (`.aux.xml`)."""
    return {path.with_suffix(".qml"): qml(classes), path.with_name(f"{path.name}.aux.xml"): aux_xml(classes)}
