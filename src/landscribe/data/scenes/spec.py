"""The settings of scenes and classes. Loads pydantic only, so that a command's help needs no GDAL."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from landscribe.geo.spec import BandList, BandNumbers, NodataRuleName, NodataValues, Palette
from landscribe.spec import CommaList, InputPath, NoFlag, SharedName, Spec, StoredName
from landscribe.texts import is_colour

SplitName = Literal["train", "val", "test"]


class SceneSpec(Spec):
    """The files of a scene and how to read them."""

    image: Annotated[tuple[InputPath, ...], NoFlag("the command pairs its --image with its --labels")]
    """One image file, or several files to stack as bands, in this order. A folder or a pattern such as images/*.tif
    stands for many scenes."""
    labels: Annotated[InputPath | None, NoFlag("the command pairs its --image with its --labels")] = None
    """Polygons or a label raster. For many scenes also a folder or pattern of files named like the images."""
    stack: bool = False
    """The files of a folder or pattern are the bands of one scene."""
    resample: Annotated[bool, SharedName()] = False
    """Resample stacked files to the grid of the first: coarser pixels are means, finer ones are interpolated. In a run,
    the flag sets that of the maps, too: scenes of other pixel sizes are mapped at the model's. Default: files on
    several grids are refused."""
    without: Annotated[tuple[str, ...], CommaList] = ()
    """Names of images of a folder or pattern to leave out."""
    band_numbers: Annotated[BandNumbers | None, BandList] = None
    """Numbers of the bands that are used, in this order, such as 4,3,2; from 1, and counted on over stacked files.
    nodata by band is that of all bands of the files. Default: all bands."""
    bands: Annotated[tuple[StoredName, ...] | None, CommaList] = None
    """Names of the bands that are used, such as red,green,nir. Default: the names in the files."""
    label_field: str | None = None
    """Class column of the polygons; without it, all polygons are one class, named like the file. Points, as those of a
    CSV file, need it."""
    label_layer: str | None = None
    """Layer of the label file. Default: the only layer with polygons and the class column."""
    label_crs: str | None = None
    """CRS of label files that have none, such as EPSG:32632 for a CSV file of x and y."""
    label_priority: str | None = None
    """Column of numbers or dates that decides where polygons overlap: the largest, or newest, lies on top. file-order:
    later polygons of the file lie on top. Default: the later class of the class table does."""
    label_zero: Literal["background", "class"] | None = None
    """What polygons of class 0 are: the same as the area between polygons, or a class of their own, which gets a value
    above 0. Default: such polygons are refused."""
    all_touched: Annotated[tuple[str, ...], CommaList] = ()
    """Classes whose polygons label every pixel that they touch, not only those whose centre they contain (with commas:
    road,ditch; all for every class)."""
    split: Annotated[SplitName | None, NoFlag("each scene of a recipe has its own")] = None
    """Put the whole scene into one split. Default: the [split] section decides."""
    group: Annotated[
        Annotated[StoredName, Field(min_length=1)] | None, NoFlag("each scene of a recipe has its own")
    ] = None
    """Region of the scene, such as a city, a state or a map series. Accuracy is also given for each group, and
    --split-by group holds out whole groups."""
    pixel_size: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Read imagery and labels in pixels of this size, in metres on the ground. A coarser pixel is the mean of the image
    and the majority of the label raster; a finer one is interpolated and has the nearest label. Polygons are burned in
    these pixels. Default: the pixels of the image files."""
    nodata: NodataValues = None
    nodata_rule: NodataRuleName = "auto"
    palette: Palette = "colours"
    image_area: InputPath | None = None
    """Polygons of the usable part of the image, such as a scanned map without its collar; pixels outside of them are
    nodata, in chips and in maps. For many scenes also a folder or pattern of files with the names of the images."""
    labelled_area: InputPath | None = None
    """Polygons of the labelled area; labels outside of them are ignored. For many scenes also a folder or pattern of
    files with the names of the images."""
    label_threshold: Annotated[float, Field(ge=-1e12, le=1e12)] | None = None
    """Pixels of a label raster from this value up are the class foreground, those below are background (for masks that
    were compressed or blurred, and probabilities)."""
    label_objects: bool = False
    """A label raster holds object numbers: each number is an object of the class foreground, 0 is background. On
    another grid, a pixel has the number at its centre."""
    label_nodata_as: str | None = None
    """Class of pixels that are nodata or transparent in a label raster, such as background, or ignore for unlabelled.
    Default: unlabelled, unless the class table has the nodata value as a label."""
    label_ignore: Annotated[tuple[str, ...] | None, CommaList] = None
    """Labels that mark unlabelled pixels or polygons; none if there are none. Default: 255 in a label raster, if the
    class table says so."""
    sparse: bool = False
    """The area between polygons, or an image without a polygon, is unlabelled (ignored), not background."""
    fix_geometries: bool = False
    """Fix invalid geometries and drop null and empty ones, instead of refusing them."""

    @model_validator(mode="after")
    def _require_numbers_or_threshold(self) -> Self:
        if self.label_objects and self.label_threshold is not None:
            raise ValueError(
                f"label_objects says that the label raster holds object numbers, but label_threshold is "
                f"{self.label_threshold:g}; choose one of them"
            )
        return self

    @field_validator("band_numbers")
    @classmethod
    def _require_different(cls, numbers: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if numbers is not None and (not numbers or len(set(numbers)) < len(numbers)):
            raise ValueError("expected different band numbers such as 4,3,2")
        return numbers

    @field_validator("image", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, (str, Path)) else value


class ClassSpec(Spec):
    """A row of the class table."""

    name: StoredName
    """Name of the class in legends and reports."""
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
