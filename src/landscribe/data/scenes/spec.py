"""The settings of scenes and classes. Loads pydantic only, so that a command's help needs no GDAL."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from landscribe.geo.spec import NodataRuleName, NodataValue
from landscribe.spec import CommaList, InputPath, NoFlag, Spec, StoredName

SplitName = Literal["train", "val", "test"]


class SceneSpec(Spec):
    """The files of a scene and how to read them."""

    image: Annotated[tuple[InputPath, ...], NoFlag("the command pairs its --image with its --labels")]
    """One image file, or several files on the same grid to stack as bands, in this order. A folder or a pattern such as
    images/*.tif stands for many scenes."""
    labels: Annotated[InputPath | None, NoFlag("the command pairs its --image with its --labels")] = None
    """Polygons or a label raster. For many scenes also a folder or pattern of files named like the images."""
    stack: bool = False
    """The files of a folder or pattern are the bands of one scene."""
    without: Annotated[tuple[str, ...], CommaList] = ()
    """Names of images of a folder or pattern to leave out."""
    bands: Annotated[tuple[StoredName, ...] | None, CommaList] = None
    """Band names, such as red,green,nir. Default: the names in the files."""
    label_field: str | None = None
    """Class column of the polygons; without it, all polygons are one class, named like the file."""
    split: Annotated[SplitName | None, NoFlag("each scene of a recipe has its own")] = None
    """Put the whole scene into one split. Default: the [split] section decides."""
    nodata: NodataValue = None
    nodata_rule: NodataRuleName = "auto"
    labelled_area: InputPath | None = None
    """Polygons of the labelled area; labels outside of them are ignored."""
    sparse: bool = False
    """The area between polygons is unlabelled (ignored), not background."""
    fix_geometries: bool = False
    """Fix invalid geometries and drop null and empty ones, instead of refusing them."""

    @field_validator("image", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, (str, Path)) else value


class ClassSpec(Spec):
    """A row of the class table."""

    name: StoredName
    value: int = Field(ge=-(2**31), lt=2**31)
    """Class value in masks and maps, 0 to 254. 0 fills the area between polygons; 255 marks unlabelled pixels."""
    colour: str | None = None
    """"#rrggbb"."""
    label: Annotated[int, Field(ge=-(2**63), lt=2**63)] | str | None = None
    """Label of this class in the label data; "#rrggbb" in coloured masks. Default: the value for label rasters, the
    name for polygons."""

    @field_validator("label")
    @classmethod
    def _lower_case_colour(cls, label: int | str | None) -> int | str | None:
        return label.lower() if isinstance(label, str) and is_colour(label) else label


def is_colour(label: int | str) -> bool:
    """True for "#rrggbb"."""
    return isinstance(label, str) and len(label) == len("#rrggbb") and label.startswith("#")
