"""The settings of chips. Loads pydantic only, so that a command's help needs no GDAL."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from landscribe.geo.spec import EdgePolicy
from landscribe.spec import FractionText, Pixels, SharedName, Spec, TextMark, words

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
    """Which chips to cut: all; positive, only those with a class other than background, in val and test too; separate,
    both in separate folders."""
    background_share: Annotated[float, FractionText, TextMark()] = Field(1.0, ge=0, le=1)
    """Share of the training chips without a class other than background that are kept, drawn at random; 0 keeps none of
    them, 1 all. Val and test keep all chips, so that accuracy is that of whole scenes. The fractions of the split are
    of all chips, before any is dropped."""
    unlabelled: bool = False
    """Also cut chips without any labelled pixel."""
    format: Annotated[Format, words(jpeg="jpg", tiff="tif", geotiff="tif"), TextMark()] = "tif"
    """File format of the images. tif keeps CRS and transform; png takes 1, 3 or 4 bands, jpg 1 or 3 bands of uint8.
    Masks are always lossless. Beside a png or jpg that is partly nodata lies a file (.msk) of its valid pixels."""
    objects: bool = False
    """Also cut object numbers: each polygon is an object of its own, also where it touches another one. Default: where
    the network learns from them (unet_id)."""
    virtual: bool = False
    """Write only the index, and read windows from the scenes."""
    dask: Annotated[str | None, SharedName()] = None
    """Cut chips with Dask: auto for the cores of this machine, or the address or file of a scheduler."""

    @model_validator(mode="after")
    def _require_files_for_a_format(self) -> Self:
        if self.virtual and self.format != "tif":
            raise ValueError(
                f"format is {self.format}, but virtual chips have no files of images; leave out format or virtual"
            )
        return self

    @model_validator(mode="after")
    def _require_one_choice_of_background(self) -> Self:
        if self.mode == "positive" and self.background_share < 1:
            raise ValueError(
                "mode is positive, which cuts no chip of background only, but background_share is "
                f"{self.background_share:g}; set mode = all, or leave out background_share"
            )
        return self
