"""The settings of imagery. Loads pydantic only, so that a command's help needs no GDAL."""

from typing import Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, Field

from landscribe.spec import AnyFloat, CommaList, NumberList, Spec


def _band_numbers(value: Any) -> Any:
    """Split text at commas; a single number is a tuple of one."""
    if isinstance(value, int):
        return (value,)
    if not isinstance(value, str):
        return value
    numbers = [part.strip() for part in value.split(",")]
    if not all(number.isdecimal() for number in numbers):
        raise ValueError("expected band numbers such as 3,2,1")
    return numbers


EdgePolicy = Literal["shift", "pad", "drop"]
BandNumbers = tuple[Annotated[int, Field(ge=1, le=2**16)], ...]
"""Numbers of bands, from 1."""
BandList = BeforeValidator(_band_numbers)
"""Lets a field of band numbers take one number, or one text with commas."""
NodataRule = Literal["auto", "any", "all"]
"""A pixel is nodata if `any` of its bands holds the nodata value, or only if `all` do. Unsigned imagery often has 0 or
its largest value both as nodata and as a dark or bright pixel: `auto` means `all` for these, `any` for others."""

NodataValue = AnyFloat | tuple[AnyFloat | None, ...] | None
"""One value for all bands, or a value for each band; None: nothing is nodata."""

NodataValues = Annotated[
    AnyFloat | tuple[AnyFloat, ...] | None,
    NumberList,
    Field(
        description="Override the nodata value of the image files, for all bands or (with commas) for each; nan marks "
        "all non-finite pixels, in addition to the declared value."
    ),
]
NodataRuleName = Annotated[
    NodataRule,
    Field(
        description="A pixel is nodata if any of its bands holds the nodata value, or only if all do. auto: all if the "
        "value is 0 or the largest of an unsigned type, otherwise any. Of stacked files, each one of several bands is "
        "judged by itself, and those of one band together if they have one data type and value."
    ),
]
Palette = Annotated[
    Literal["colours", "indices"],
    Field(description="Read an image with a colour table as its colours, or as the stored indices."),
]


class ReadingSpec(Protocol):
    """How image files are read: the fields that scenes and the rasters of `predict` share."""

    @property
    def nodata(self) -> float | tuple[float, ...] | None:
        """See `NodataValues`."""

    @property
    def nodata_rule(self) -> NodataRule:
        """See `NodataRuleName`."""

    @property
    def palette(self) -> Literal["colours", "indices"]:
        """See `Palette`."""


class ImagerySpec(Spec):
    """How the rasters of `predict` are opened."""

    nodata: NodataValues = None
    nodata_rule: NodataRuleName = "auto"
    palette: Palette = "colours"
    assets: Annotated[tuple[str, ...], CommaList] = ()
    """Keys of the STAC assets to stack, in this order (with commas: red,green,blue,nir)."""
    stack: bool = False
    """The files of each folder or pattern are the bands of one raster, in natural order (B2 before B10)."""
    mosaic: bool = False
    """Map all images as one raster. Where they overlap, the first valid pixel is used."""
