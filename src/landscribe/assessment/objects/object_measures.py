"""Measures of the objects of one class against reference objects."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from landscribe.agreement import f1, iou, plain, ratio
from landscribe.assessment.edges import SCALE
from landscribe.assessment.objects.boundaries import Edges, length_within
from landscribe.assessment.objects.matching import Pairs, dissolved, match, match_by_score
from landscribe.assessment.objects.object_files import Objects

Floats = NDArray[np.float64]

THRESHOLDS = np.arange(50, 100, 5) / 100
"""The IoUs from which a pair may match: 0.50, 0.55 ... 0.95, as in COCO."""
_RECALLS = np.arange(101) / 100
_PANOPTIC = 0.5
"""The IoU above which a pair matches in panoptic quality."""
_DIGITS = 9
"""Of the IoUs that are compared: rounding errors of coordinates are smaller, and half of an object shall be 0.5."""
SCALARS = (
    "average_precision", "average_recall", "panoptic_quality", "segmentation_quality", "recognition_quality",
    "count_ratio", "vertex_ratio", "area_iou", "c_iou", "oversegmentation", "undersegmentation",
    "boundary_precision", "boundary_recall", "boundary_f1",
)  # fmt: skip
"""Names of the measures that are one number."""
BY_THRESHOLD = ("precision", "recall", "f1")
"""Names of the measures that are one number for each threshold."""


@dataclass(frozen=True, eq=False)
class ObjectMeasures:
    """How the predicted objects of a class agree with the reference objects of that class.

    A measure is NaN where it is not defined, such as the precision of no objects.
    """

    name: str
    """Of the class."""
    predicted: int
    """Number of predicted objects."""
    reference: int
    """Number of reference objects."""
    matches: NDArray[np.int64]
    """(T,) one-to-one matches with at least the IoU of each threshold, as `matching.match` chooses them."""
    panoptic_ious: Floats
    """(n,) IoU of each one-to-one match above 0.5."""
    average_precisions: Floats
    """(T,) COCO's average precision at each threshold, over 101 recalls; NaN without scores.
    (Lin et al. 2014, ECCV, arXiv:1405.0312.)"""
    oversegmentation: float
    """Mean over reference objects of the share that is outside the predicted object that covers most of it, 0 to 1:
    1 - |R ∩ P| / |R|. Reference objects that no object overlaps are left out, for recall counts them.
    (Persello & Bruzzone 2010, IEEE TGRS 48(3), doi:10.1109/TGRS.2009.2029570.)"""
    undersegmentation: float
    """As `oversegmentation`, the share of that predicted object outside of the reference object: 1 - |R ∩ P| / |P|."""
    square_metres: tuple[float, float, float]
    """Area on the ground of predicted objects, of reference objects, and of both; where objects of a file overlap, it
    counts once."""
    vertices: tuple[int, int]
    """Vertices of predicted and reference objects as the files have them, without the closing ones."""
    boundary_precision: float = np.nan
    """Share of the length of predicted boundaries within the tolerance of reference boundaries of the class; NaN
    without a tolerance."""
    boundary_recall: float = np.nan
    """Share of the length of reference boundaries within the tolerance of predicted boundaries."""

    @property
    def precision(self) -> Floats:
        """(T,) share of the predicted objects that match."""
        return ratio(self.matches, self.predicted)

    @property
    def recall(self) -> Floats:
        """(T,) share of the reference objects that match."""
        return ratio(self.matches, self.reference)

    @property
    def f1(self) -> Floats:
        """(T,) harmonic mean of precision and recall."""
        return f1(self.matches, self.reference, self.predicted)

    @property
    def average_precision(self) -> float:
        """Mean average precision over the thresholds, COCO's AP."""
        return float(self.average_precisions.mean())

    @property
    def average_recall(self) -> float:
        """Mean recall over the thresholds, COCO's AR without a limit of detections."""
        return float(self.recall.mean())

    @property
    def segmentation_quality(self) -> float:
        """SQ: mean IoU of the matches above 0.5 (Kirillov et al. 2019, "Panoptic Segmentation", arXiv:1801.00868)."""
        return float(self.panoptic_ious.mean()) if self.panoptic_ious.size else np.nan

    @property
    def recognition_quality(self) -> float:
        """RQ: F1 of the matches above 0.5."""
        return float(f1(self.panoptic_ious.size, self.reference, self.predicted))

    @property
    def panoptic_quality(self) -> float:
        """PQ: total IoU of the matches / (TP + FP / 2 + FN / 2). Law: PQ = SQ RQ; 0 without matches."""
        return float(ratio(2 * self.panoptic_ious.sum(), self.predicted + self.reference))

    @property
    def count_ratio(self) -> float:
        """Predicted objects per reference object."""
        return float(ratio(self.predicted, self.reference))

    @property
    def vertex_ratio(self) -> float:
        """Predicted vertices per reference vertex (the N ratio of Zorzi et al. 2022, arXiv:2111.15491)."""
        return float(ratio(self.vertices[0], self.vertices[1]))

    @property
    def area_iou(self) -> float:
        """Area of both sides / area of either side, whatever object it belongs to."""
        predicted, reference, both = self.square_metres
        return float(iou(both, reference, predicted))

    @property
    def c_iou(self) -> float:
        """Complexity-aware IoU: `area_iou` times 1 - |N - M| / (N + M) for N predicted and M reference vertices.

        (Zorzi et al. 2022, "PolyWorld", CVPR, arXiv:2111.15491; holes count too.)
        """
        predicted, reference = self.vertices
        return self.area_iou * (1 - abs(predicted - reference) / (predicted + reference))

    @property
    def boundary_f1(self) -> float:
        """Harmonic mean of boundary precision and recall (Csurka et al. 2013, BMVC, doi:10.5244/C.27.32).

        0 where one of them is 0, also if the other has no boundary to measure.
        """
        precision, recall = self.boundary_precision, self.boundary_recall
        return 0.0 if 0 in (precision, recall) else 2 * precision * recall / (precision + recall)

    def as_dict(self) -> dict[str, Any]:
        """All measures in JSON's types; NaN becomes None."""
        predicted, reference, _ = self.square_metres
        return {
            "name": self.name,
            "predicted_objects": self.predicted,
            "reference_objects": self.reference,
            "predicted_m2": plain(predicted),
            "reference_m2": plain(reference),
            "matches": self.matches.tolist(),
            **{name: [plain(value) for value in getattr(self, name).tolist()] for name in BY_THRESHOLD},
            "average_precisions": [plain(value) for value in self.average_precisions.tolist()],
            **{name: plain(getattr(self, name)) for name in SCALARS},
        }


def measure_objects(name: str, predicted: Objects, reference: Objects, tolerance: float | None) -> ObjectMeasures:
    """Compare the objects of a class.

    Args:
        name: of the class.
        predicted: its predicted objects.
        reference: its reference objects, in the same CRS.
        tolerance: metres up to which boundaries agree; None to leave boundaries out.
    """
    pairs = Pairs.overlapping(predicted.geometries, reference.geometries)
    predicted_areas, reference_areas = (shapely.area(each.geometries) for each in (predicted, reference))
    exact = pairs.iou(predicted_areas, reference_areas)
    iou = np.round(exact, _DIGITS)
    close = iou > _PANOPTIC
    panoptic = match(pairs.take(close), iou[close])
    matches = [match(pairs.take(iou >= least), iou[iou >= least]).size for least in THRESHOLDS]
    over, under = _segmentation_errors(pairs, predicted_areas, reference_areas)
    boundary = (np.nan, np.nan) if tolerance is None else _boundary_shares(predicted, reference, tolerance)
    return ObjectMeasures(
        name, len(predicted), len(reference), np.array(matches), exact[close][panoptic],
        _average_precisions(pairs, iou, predicted.scores, len(reference)), over, under,
        _ground_areas(pairs, predicted, reference),
        (int(predicted.vertices.sum()), int(reference.vertices.sum())), *boundary,
    )  # fmt: skip


def _average_precisions(pairs: Pairs, iou: Floats, scores: Floats | None, reference: int) -> Floats:
    """(T,) average precision at each threshold; NaN without scores or reference objects."""
    if scores is None or not reference:
        return np.full(len(THRESHOLDS), np.nan)
    order = np.argsort(-scores, kind="stable")
    precisions = []
    for least in THRESHOLDS:
        close = iou >= least
        candidates = pairs.take(close)
        is_match = np.zeros(len(scores), bool)
        is_match[candidates.first[match_by_score(candidates, iou[close], scores)]] = True
        precisions.append(_average_precision(is_match[order], reference))
    return np.array(precisions)


def _average_precision(is_match: NDArray[np.bool_], reference: int) -> float:
    """Mean over 101 recalls of the best precision at that recall or a higher one.

    Args:
        is_match: (n,) whether each object matches, by falling score.
        reference: number of reference objects.
    """
    matches = np.cumsum(is_match)
    precision = np.maximum.accumulate((matches / np.arange(1, len(matches) + 1))[::-1])[::-1]
    at = np.searchsorted(matches / reference, _RECALLS)
    return float(np.append(precision, 0.0)[at].mean())


def _segmentation_errors(pairs: Pairs, predicted: Floats, reference: Floats) -> tuple[float, float]:
    """Over- and undersegmentation from the areas of all objects; NaN if nothing overlaps."""
    # Of the objects that cover equally much of a reference object, the smallest.
    order = np.lexsort((predicted[pairs.first], -pairs.areas, pairs.second))
    second, start = np.unique(pairs.second[order], return_index=True)
    if not second.size:
        return np.nan, np.nan
    first, shared = pairs.first[order[start]], pairs.areas[order[start]]
    # Of equal shapes, the shared area may be the larger by rounding.
    over, under = 1 - shared / reference[second], 1 - shared / predicted[first]
    return float(np.maximum(over, 0).mean()), float(np.maximum(under, 0).mean())


def _ground_areas(pairs: Pairs, predicted: Objects, reference: Objects) -> tuple[float, float, float]:
    """Area in m² of predicted objects, of reference objects, and of both; overlaps within a side count once."""
    (shapes, first, united), (others, other_first, other_united) = (
        dissolved(each.geometries) for each in (predicted, reference)
    )
    scales, other_scales = predicted.square_metres[first], reference.square_metres[other_first]
    own, other = float(shapely.area(shapes) @ scales), float(shapely.area(others) @ other_scales)
    # The pairs of objects that are united with none are those of the files.
    alone, other_alone = np.isin(pairs.first, first[~united]), np.isin(pairs.second, other_first[~other_united])
    both = _shared_area(pairs.take(alone & other_alone), predicted.square_metres)
    both += _shared_area(Pairs.overlapping(shapes[united], others), scales[united])
    both += _shared_area(Pairs.overlapping(shapes[~united], others[other_united]), scales[~united])
    # The scales at two objects that overlap are not quite the same.
    return own, other, min(both, own, other)


def _shared_area(pairs: Pairs, scales: Floats) -> float:
    """m² that pairs share, from the m² per square unit of the first polygons."""
    return float(pairs.areas @ scales[pairs.first])


def _boundary_shares(predicted: Objects, reference: Objects, tolerance: float) -> tuple[float, float]:
    """Boundary precision and recall."""
    edges, others = (Edges.of(each.geometries, each.metres) for each in (predicted, reference))
    return _share_within(edges, others, SCALE * tolerance), _share_within(others, edges, SCALE * tolerance)


def _share_within(edges: Edges, others: Edges, tolerance: float) -> float:
    """Share of the length of edges within a tolerance of others, at most 1."""
    length = edges.lengths().sum()
    return float(ratio(min(length_within(edges, others, tolerance), length), length))
