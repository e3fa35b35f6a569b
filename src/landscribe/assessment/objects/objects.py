"""Assess objects against reference polygons: one-to-one matches, panoptic quality, outlines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe.agreement import plain
from landscribe.assessment.objects.object_files import read_comparison
from landscribe.assessment.objects.object_measures import (
    BY_THRESHOLD,
    SCALARS,
    THRESHOLDS,
    ObjectMeasures,
    measure_objects,
)
from landscribe.assessment.spec import ObjectAssessmentSpec
from landscribe.data.scenes.spec import SceneSpec
from landscribe.outputs import write_json

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ObjectAssessment:
    """The measures of objects by class, and the files that they come from.

    A measure of all classes is the mean of those of the classes where it is defined, as in COCO; of one class, it is
    that of the class.
    """

    objects: str
    """Name of the file of predicted objects."""
    reference: str
    """Name of the file of reference polygons."""
    classes: tuple[ObjectMeasures, ...]
    """The measures of each class."""
    left_out: tuple[int, int] = (0, 0)
    """Predicted and reference objects that are not compared: the edge of the labelled area cuts them, or they lie
    outside, or they could match an object that is cut."""
    score_field: str | None = None
    """Column of the scores of average precision."""
    tolerance: float | None = None
    """Metres up to which boundaries agree."""

    @property
    def thresholds(self) -> Floats:
        """(T,) the IoUs of `precision`, `recall` and `f1`: 0.50, 0.55 ... 0.95."""
        return THRESHOLDS

    @property
    def precision(self) -> Floats:
        """(T,) share of the predicted objects that match."""
        return self._mean("precision")

    @property
    def recall(self) -> Floats:
        """(T,) share of the reference objects that match."""
        return self._mean("recall")

    @property
    def f1(self) -> Floats:
        """(T,) F1 of the matches."""
        return self._mean("f1")

    @property
    def average_precision(self) -> float:
        """COCO's AP, the mean over classes and thresholds; NaN without scores."""
        return float(self._mean("average_precision"))

    @property
    def average_recall(self) -> float:
        """COCO's AR, the mean over classes and thresholds."""
        return float(self._mean("average_recall"))

    @property
    def panoptic_quality(self) -> float:
        """PQ, the mean over classes, as in COCO's panoptic task."""
        return float(self._mean("panoptic_quality"))

    @property
    def segmentation_quality(self) -> float:
        """SQ, the factor of PQ that says how well matched objects agree."""
        return float(self._mean("segmentation_quality"))

    @property
    def recognition_quality(self) -> float:
        """RQ, the factor of PQ that says how many objects are matched."""
        return float(self._mean("recognition_quality"))

    @property
    def boundary_f1(self) -> float:
        """F1 of the boundaries within the tolerance; NaN without one."""
        return float(self._mean("boundary_f1"))

    def _mean(self, name: str) -> Floats:
        """The mean of a measure over the classes where it is defined."""
        values = np.array([getattr(measures, name) for measures in self.classes])
        counts = np.isfinite(values).sum(axis=0)
        return np.divide(np.nansum(values, axis=0), counts, out=np.full(counts.shape, np.nan), where=counts > 0)

    def __repr__(self) -> str:
        return (
            f"ObjectAssessment(f1={self.f1[0]:.3f} at IoU 0.5, panoptic_quality={self.panoptic_quality:.3f}, "
            f"objects={self.objects!r}, reference={self.reference!r}, classes={len(self.classes)})"
        )

    def as_dict(self) -> dict[str, Any]:
        """All measures in JSON's types; NaN becomes None."""
        return {
            "objects": self.objects,
            "reference": self.reference,
            "predicted_objects": sum(measures.predicted for measures in self.classes),
            "reference_objects": sum(measures.reference for measures in self.classes),
            "left_out": {"predicted": self.left_out[0], "reference": self.left_out[1]},
            "score_field": self.score_field,
            "tolerance": self.tolerance,
            "thresholds": self.thresholds.tolist(),
            **{name: [plain(value) for value in self._mean(name).tolist()] for name in BY_THRESHOLD},
            **{name: plain(float(self._mean(name))) for name in SCALARS},
            "classes": [measures.as_dict() for measures in self.classes],
        }

    def save(self, path: Path) -> None:
        """Write the measures as JSON, atomically."""
        write_json(path, self.as_dict())


def assess_objects(objects: str, reference: str, labels: SceneSpec, spec: ObjectAssessmentSpec) -> ObjectAssessment:
    """Compare the polygons of two files, each an object, class by class.

    Args:
        objects: file of the predicted objects.
        reference: file of the true ones, in any CRS.
        labels: how the reference is read, and the labelled area.
        spec: columns of the objects, and the tolerance of boundaries.

    Raises:
        LabelError: a file cannot be used, or the two do not overlap.
        ClassError: no class is in both.
    """
    comparison = read_comparison(objects, reference, labels, spec)
    predicted, true = comparison.predicted, comparison.reference
    measures = tuple(
        measure_objects(
            name, predicted.take(predicted.classes == index), true.take(true.classes == index), spec.tolerance
        )
        for index, name in enumerate(comparison.class_names)
        if (predicted.classes == index).any() or (true.classes == index).any()
    )
    return ObjectAssessment(
        Path(objects).name, Path(reference).name, measures, comparison.left_out, comparison.score_field, spec.tolerance
    )
