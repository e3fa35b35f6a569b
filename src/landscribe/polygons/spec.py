"""The settings of polygons."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from landscribe.spec import AlsoCalled, CommaList, InputPath, InTable, NotInRun, SharedName, Spec


class VectorizeSpec(Spec):
    """How a class map becomes polygons."""

    classes: Annotated[tuple[str, ...] | None, CommaList, InTable()] = None
    """Names or values of the classes that become polygons, or all. Default: all but the background (class 0)."""
    class_table: Annotated[InputPath | None, NotInRun("the map of a run has a class table of its own")] = None
    """Names and colours of the classes, in place of the raster's own class table: a CSV file with the columns value,
    name and, if there are any, colour (#rrggbb). It must list all values that become polygons."""
    connectivity: Literal[4, 8] = 4
    """Pixels of one polygon touch along an edge (4), or also at a corner (8), which gives MultiPolygons."""
    simplify: Annotated[float, Field(gt=0, le=1e6)] | Literal["auto", "none"] = "none"
    """Largest distance in metres between a boundary and its simplified form, by Douglas and Peucker; auto is a
    pixel, which turns steps into lines. Metres are those of the middle of the raster."""
    square: bool = False
    """Give polygons right angles, for buildings; common walls stay common. It simplifies as
    well, by one and a half pixels unless simplify is a number."""
    smooth: bool = False
    """Replace the corners of boundaries by curves, for what is not built: small polygons shrink, a square by a fifth of
    its area."""
    minimum_area: Annotated[float | None, InTable()] = Field(None, gt=0, le=1e15)
    """Area in m² below which a polygon is left out."""
    fill_holes: float | None = Field(None, gt=0, le=1e15)
    """Area in m² below which a hole of a polygon is filled, also where another polygon lies in it. With dissolve, a
    polygon of the same class in it becomes part of the filled one."""
    dissolve: bool = False
    """One MultiPolygon for each class."""
    probabilities: Annotated[
        InputPath | None,
        NotInRun("a run writes no class probabilities; landscribe predict and landscribe vectorize do, by its model"),
    ] = None
    """Class probabilities beside the map, as predict writes them: polygons get the mean probability of their class."""
    object_probabilities: Annotated[
        InputPath | Literal["beside"] | None,
        AlsoCalled("instances"),
        NotInRun("a run takes the object probabilities that it writes itself, with architecture unet_id"),
    ] = None
    """Object probabilities of the map, as predict writes them for a model of unet_id: each object becomes a polygon
    of its own, also where it touches another one, with the mean probability of an inner part as its score. beside, or
    --instances without a value, is the file that run writes beside the map: objects.tif, or objects/ with one for each
    map."""
    split_touching: bool = False
    """Split the pixels of a class into objects where they are narrow: each becomes a polygon of its own."""
    minimum_distance: float = Field(4.0, gt=0, le=1e4)
    """With split_touching, minimum distance between the middles of two objects that touch, in metres."""
    dask: Annotated[str | None, SharedName()] = None
    """Trace with Dask: auto for the cores of this machine, or the address or file of a scheduler."""

    @property
    def separates_objects(self) -> bool:
        """True if each object becomes a polygon of its own."""
        return self.split_touching or self.object_probabilities is not None

    @model_validator(mode="after")
    def _require_one_source(self) -> "VectorizeSpec":
        if self.split_touching and self.object_probabilities is not None:
            raise ValueError("split_touching and object_probabilities both separate objects; choose one")
        if self.separates_objects and self.dissolve:
            source = "split_touching" if self.split_touching else "object_probabilities"
            raise ValueError(f"dissolve joins the objects that {source} separates; choose one")
        return self

    @model_validator(mode="after")
    def _require_objects_to_split(self) -> "VectorizeSpec":
        if self.minimum_distance != type(self).model_fields["minimum_distance"].default and not self.split_touching:
            raise ValueError(
                f"minimum_distance is {self.minimum_distance:g}, but split_touching is not set; set it, or leave out "
                "minimum_distance"
            )
        return self

    @model_validator(mode="after")
    def _require_one_shape(self) -> "VectorizeSpec":
        if self.square and self.smooth:
            raise ValueError("square and smooth exclude each other; choose one")
        if self.square and self.connectivity == 8:
            raise ValueError("square and connectivity 8 exclude each other; choose one")
        return self
