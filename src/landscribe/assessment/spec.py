"""The settings of the assessments of runs and objects. Loads pydantic only, so that a command's help needs no GDAL."""

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from landscribe.errors import RecipeError
from landscribe.spec import InputPath, Pixels, Spec

MOST_EDGE_PIXELS = 100
"""Pixels up to which edges may agree: as many are read around each part of a map."""


def _as_metres(text: str) -> str:
    number = re.fullmatch(r"(\d+\.?\d*|\.\d+) *m", text.strip())
    if number is None or not 0 < float(number[1]) <= 1e6:
        raise ValueError("expected pixels such as 2, or metres such as 5m")
    return f"{number[1]}m"


Metres = Annotated[str, AfterValidator(_as_metres)]
"""A length on the ground as text, such as "5m"."""


class IntervalSpec(Spec):
    """How the measures of compared pixels get their intervals, and in which regions they are counted apart."""

    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Share of samples whose interval holds the true measure, such as 0.9."""
    block_size: Pixels | None = None
    """Side of the square blocks of ground from whose resamples intervals follow, in pixels. Choose it longer than the
    distance over which errors are correlated (Roberts et al. 2017, doi:10.1111/ecog.02881). Default: a tenth of the
    map's shorter side, at least 64."""
    regions: InputPath | None = None
    """Polygons of regions, such as districts, each of which gets measures of its own. Later polygons lie on top."""
    region_field: str | None = None
    """Column of the regions with their name. Default: all polygons are one region."""

    @model_validator(mode="after")
    def _require_regions(self) -> Self:
        if self.region_field is not None and self.regions is None:
            raise ValueError(f"region_field is '{self.region_field}', but there are no regions; name the file")
        return self


class AccuracySpec(IntervalSpec):
    """How pixels are compared with a reference, besides how it is read."""

    edges: bool = False
    """Also assess pixels by their distance to the edges between classes of the reference, and how edges agree."""
    edge_tolerance: Annotated[
        Annotated[float, Field(ge=0, le=MOST_EDGE_PIXELS)] | Metres, Field(union_mode="left_to_right")
    ] = 2.0
    """Pixels (2) or metres (5m) up to which edges of map and reference agree (boundary F1). Metres are measured with
    the pixels in the middle of the map."""
    probabilities: InputPath | None = None
    """Class probabilities that predict wrote with the map: also assess their calibration and average precision."""
    class_table: InputPath | None = None
    """Names and colours of the classes, in place of the map's own class table: a CSV file with the columns value, name
    and, if there are any, colour (#rrggbb). It lists all values of the map, and may list classes that only the
    reference has. With a reference sample, it adds such classes to those of the sample."""
    sample_labels: InputPath | None = None
    """Of a reference sample: a table with the class of each unit by id, as the labelling page, Collect Earth Online and
    AcATaMa write it. Default: the sample's own column reference."""
    skip_unlabelled: bool = False
    """Of a reference sample: leave out units without a class, as if chance had picked them."""
    dask: str | None = None
    """Count with Dask: auto for the cores of this machine, or the address or file of a scheduler."""

    @model_validator(mode="after")
    def _require_edges(self) -> Self:
        if "edge_tolerance" in self.model_fields_set and not self.edges:
            raise ValueError(
                f"edge_tolerance is {self.edge_tolerance}, but edges are not assessed; add edges (--edges)"
            )
        return self


class AssessSpec(IntervalSpec):
    """What the maps of a run are compared with, besides the held-out chips."""

    reference: InputPath | None = None
    """Independent reference: polygons, points with a class column, or a label raster. Nothing is trained or chosen on
    it. Default: only the held-out chips."""
    reference_field: str | None = None
    """Column of the reference with the class. Not needed for label rasters and for polygons of a single class."""

    @model_validator(mode="after")
    def _require_reference(self) -> Self:
        if self.reference_field is not None and self.reference is None:
            raise ValueError(f"reference_field is '{self.reference_field}', but there is no reference; name the file")
        return self


class ObjectAssessmentSpec(Spec):
    """How objects are compared with a reference, besides how the labels of the reference are read."""

    object_field: str | None = None
    """Class column of the objects, beside the reference's label_field. Default: the column of that name."""
    score_field: str | None = None
    """Column of the objects with a number that is larger for more certain ones, such as the mean probability. Average
    precision needs it. Default: the column score, probability or prob, if there is one."""
    tolerance: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Distance in metres up to which boundaries agree. Default: boundaries are not compared."""


def refuse_for_chips(spec: AccuracySpec, name: str) -> None:
    """Raise RecipeError for settings that need a reference without borders in it."""
    if spec.edges:
        raise RecipeError(
            f"{name} holds chips, whose borders cut edges. Expected polygons or a label raster for --edges. Leave it "
            "out."
        )
    if spec.class_table is not None:
        raise RecipeError(
            f"{name} holds chips, which have a class table, so --class-table means nothing. Leave it out."
        )
    _refuse_dask(spec, name, "chips")


def refuse_for_points(spec: IntervalSpec, seed: int | None, name: str) -> None:
    """Raise RecipeError for settings that need a reference of more than points."""
    of_pixels: dict[str, Any] = {
        "--regions": spec.regions,
        "--block-size": spec.block_size,
        "--confidence": spec.confidence != IntervalSpec().confidence,
        "--seed": seed is not None,
    }
    if isinstance(spec, AccuracySpec):
        of_pixels |= {"--edges": spec.edges, "--probabilities": spec.probabilities}
        _refuse_dask(spec, name, "points")
    for flag, setting in of_pixels.items():
        if setting:
            raise RecipeError(
                f"{flag} needs polygons, a label raster or chips as the reference, but {name} holds points. Leave it "
                "out."
            )


def _refuse_dask(spec: AccuracySpec, name: str, content: str) -> None:
    if spec.dask is not None:
        raise RecipeError(
            f"--dask counts the strips of a map against polygons or a label raster, but {name} holds {content}. Leave "
            "it out."
        )
