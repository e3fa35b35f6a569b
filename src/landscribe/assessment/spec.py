"""The settings of the assessment of a run. Loads pydantic only, so that a command's help needs no GDAL."""

from typing import Self

from pydantic import model_validator

from landscribe.spec import InputPath, Spec


class AssessSpec(Spec):
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
