"""The settings of chips. Loads pydantic only, so that a command's help needs no GDAL."""

from typing import Annotated, Literal

from pydantic import Field

from landscribe.geo.spec import EdgePolicy
from landscribe.spec import Pixels, Spec, TextMark, words

Mode = Literal["all", "positive", "separate"]
Format = Literal["tif", "png", "jpg"]


class ChipSpec(Spec):
    """How chips are cut."""

    size: int = Field(256, ge=8, le=8192)
    """Side of a chip in pixels."""
    stride: Pixels | None = None
    """Step between chips in pixels. Default: the size (no overlap)."""
    edge: EdgePolicy = "shift"
    """A chip that reaches outside the scene is moved inward (shift), padded (pad), or left out (drop)."""
    mode: Mode = "all"
    """Which chips to cut: all; positive, only those with a class other than background; separate, both in separate
    folders."""
    unlabelled: bool = False
    """Also cut chips without any labelled pixel."""
    format: Annotated[Format, words(jpeg="jpg", tiff="tif", geotiff="tif"), TextMark()] = "tif"
    """File format of the images. tif keeps CRS and transform; png takes 1, 3 or 4 bands, jpg 1 or 3 bands of uint8.
    Masks are always lossless."""
    virtual: bool = False
    """Write only the index, and read windows from the scenes."""
    dask: str | None = None
    """Cut chips with Dask: auto for the cores of this machine, or the address or file of a scheduler."""
