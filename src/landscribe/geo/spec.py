"""The settings of imagery. Loads pydantic only, so that a command's help needs no GDAL."""

from typing import Annotated, Literal

from pydantic import Field

from landscribe.spec import AnyFloat, CommaList, Spec

EdgePolicy = Literal["shift", "pad", "drop"]
NodataRule = Literal["auto", "any", "all"]
"""A pixel is nodata if `any` of its bands holds the nodata value, or only if `all` do. Unsigned imagery often has 0 or
its largest value both as nodata and as a dark or bright pixel: `auto` means `all` for these, `any` for others."""

NodataValue = Annotated[
    AnyFloat | None,
    Field(
        description="Override the nodata value of the image files; nan marks all non-finite pixels, in addition to the "
        "declared value."
    ),
]
NodataRuleName = Annotated[
    NodataRule,
    Field(
        description="A pixel is nodata if any of its bands holds the nodata value, or only if all do. auto: all if the "
        "value is 0 or the largest of an unsigned type, otherwise any."
    ),
]


class ImagerySpec(Spec):
    """How the rasters of `predict` are opened."""

    nodata: NodataValue = None
    nodata_rule: NodataRuleName = "auto"
    assets: Annotated[tuple[str, ...], CommaList] = ()
    """Keys of the STAC assets to stack, in this order (with commas: red,green,blue,nir)."""
    mosaic: bool = False
    """Map all images as one raster. Where they overlap, the first valid pixel is used."""
