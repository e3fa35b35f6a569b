"""Point form: a QGIS style by which a layer of points opens as a form with one column to fill in."""

from collections.abc import Collection, Iterable, Sequence
from xml.sax.saxutils import quoteattr

from landscribe.geo.classes import rgb

_NULL = "{2839923C-8B7D-419E-B84B-CA2FE9B80EC7}"
"""How QGIS writes NULL among the values of a list."""
_UNLABELLED = "#ff00ff"
"""A colour that imagery hardly has."""


def point_form(
    columns: Sequence[str], *, field: str, choices: Sequence[tuple[str, str]], hidden: Collection[str]
) -> str:
    """The style: a list of names to choose from in one column; points are circles in the colour of their choice.

    Args:
        columns: all columns, in the order of the form. Only `field` can be edited.
        field: the column that is filled in.
        choices: (name, "#rrggbb") of each value that it may have.
        hidden: columns that the form and the attribute table do not show.
    """
    categories = [*choices, ("", _UNLABELLED)]
    return f"""<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.28.0" styleCategories="Symbology|Fields|Forms|AttributeTable">
  <renderer-v2 type="categorizedSymbol" attr={quoteattr(field)} symbollevels="0" enableorderby="0" forceraster="0">
    <categories>
{_lines(_category(index, name) for index, (name, _) in enumerate(categories))}
    </categories>
    <symbols>
{_lines(_circle(index, colour, is_labelled=bool(name)) for index, (name, colour) in enumerate(categories))}
    </symbols>
  </renderer-v2>
  <fieldConfiguration>
{_lines(_widget(name, field, choices, hidden) for name in columns)}
  </fieldConfiguration>
  <attributetableconfig actionWidgetStyle="dropDown" sortExpression="" sortOrder="0">
    <columns>
{_lines(_column(name, hidden) for name in columns)}
    </columns>
  </attributetableconfig>
  <editorlayout>generatedlayout</editorlayout>
  <editable>
{_lines(f'    <field name={quoteattr(name)} editable="{int(name == field)}"/>' for name in columns)}
  </editable>
  <layerGeometryType>0</layerGeometryType>
</qgis>
"""


def _lines(elements: Iterable[str]) -> str:
    return "\n".join(elements)


def _category(index: int, name: str) -> str:
    """A value of the column and its symbol; the empty value stands for all others, null among them."""
    label = quoteattr(name or "unlabelled")
    return f'      <category symbol="{index}" value={quoteattr(name)} label={label} type="string" render="true"/>'


def _circle(index: int, colour: str, *, is_labelled: bool) -> str:
    """A hollow circle, so that the pixel in it stays visible; larger where the point has no class."""
    red, green, blue = rgb(colour)
    options = {
        "name": "circle",
        "color": "255,255,255,0",
        "outline_color": f"{red},{green},{blue},255",
        "outline_style": "solid",
        "outline_width": "0.5" if is_labelled else "0.8",
        "outline_width_unit": "MM",
        "size": "3" if is_labelled else "5",
        "size_unit": "MM",
    }
    rows = "".join(f'<Option type="QString" name="{key}" value="{value}"/>' for key, value in options.items())
    return (
        f'      <symbol name="{index}" type="marker" alpha="1" clip_to_extent="1" force_rhr="0">'
        f'<layer class="SimpleMarker" enabled="1" locked="0" pass="0"><Option type="Map">{rows}</Option></layer>'
        "</symbol>"
    )


def _column(name: str, hidden: Collection[str]) -> str:
    """How the attribute table shows a column."""
    return f'      <column type="field" name={quoteattr(name)} width="-1" hidden="{int(name in hidden)}"/>'


def _widget(name: str, field: str, choices: Sequence[tuple[str, str]], hidden: Collection[str]) -> str:
    """How the form shows a column: as a list of choices, not at all, or as text."""
    kind, config = ("Hidden" if name in hidden else "TextEdit"), "<Option/>"
    if name == field:
        values = [("<NULL>", _NULL), *((choice, choice) for choice, _ in choices)]
        options = "".join(
            f'<Option type="Map"><Option type="QString" name={quoteattr(label)} value={quoteattr(value)}/></Option>'
            for label, value in values
        )
        kind, config = "ValueMap", f'<Option type="Map"><Option type="List" name="map">{options}</Option></Option>'
    return f'    <field name={quoteattr(name)}><editWidget type="{kind}"><config>{config}</config></editWidget></field>'
