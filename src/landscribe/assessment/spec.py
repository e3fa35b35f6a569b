"""The settings of the assessments of runs and objects. Loads pydantic only, so that a command's help needs no GDAL."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from landscribe.spec import InputPath, Pixels, Spec


class AccuracySpec(Spec):
    """How the measures of a comparison of pixels get their intervals."""

    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Share of samples whose interval holds the true measure, such as 0.9."""
    block_size: Pixels | None = None
    """Side of the square blocks of ground from whose resamples intervals follow, in pixels. Choose it longer than the
    distance over which errors are alike (Roberts et al. 2017, doi:10.1111/ecog.02881). Default: a tenth of the map's
    shorter side, at least 64."""


class AssessSpec(AccuracySpec):
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
    """Class column of the objects. Default: the column that is the reference's label_field."""
    score_field: str | None = None
    """Column of the objects with a number that is larger for more certain ones, such as the mean probability. Average
    precision needs it. Default: the column score or probability, if there is one."""
    tolerance: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Distance in metres up to which boundaries agree. Default: boundaries are not compared."""
