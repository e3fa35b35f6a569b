"""Assess a map with a reference sample: accuracy and areas with intervals, by the design that drew the sample."""

import logging
import math
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from landscribe.assessment.spec import AccuracySpec
from landscribe.errors import SampleError, counted, listed
from landscribe.estimation.designs.design import Design
from landscribe.estimation.estimate import Estimate, estimate
from landscribe.estimation.intervals import Estimated
from landscribe.estimation.label_tables import read_labels
from landscribe.estimation.reference_sample import REFERENCE, ReferenceSample
from landscribe.geo.rasters.raster import Raster
from landscribe.outputs import write_json
from landscribe.texts import AREA_UNITS, area_unit

log = logging.getLogger(__name__)

_FEWEST = 6
"""Expected units of a map class that is a post-stratum of its own; then fewer than two are drawn in 2 % of samples."""


@dataclass(frozen=True, eq=False)
class SampleAssessment:
    """Accuracy of a map and areas of its classes, as estimated from a reference sample."""

    estimate: Estimate
    design: Design
    estimator: str
    """The estimator, in words."""
    map: str
    """Name of the map."""
    reference: str
    """Name of the file of the sample."""
    unlabelled: int
    """Units without a reference class, which are left out."""

    @property
    def overall(self) -> Estimated:
        """Overall accuracy."""
        return self.estimate.overall

    @property
    def users(self) -> dict[Hashable, Estimated]:
        """User's accuracy by class."""
        return self.estimate.users

    @property
    def producers(self) -> dict[Hashable, Estimated]:
        """Producer's accuracy by class."""
        return self.estimate.producers

    @property
    def f1(self) -> dict[Hashable, Estimated]:
        """F1 by class."""
        return self.estimate.f1

    @property
    def areas(self) -> dict[Hashable, Estimated]:
        """Area by class of the reference, in `area_unit`."""
        return self.estimate.areas

    @property
    def matrix(self) -> pd.DataFrame:
        """Shares of the area, by class of the map (rows) and of the reference (columns)."""
        return self.estimate.matrix

    @property
    def area_unit(self) -> str:
        """Unit of `estimate.areas`: that of `maps.areas.area_unit`, or pixels (blocks) where the map has no CRS."""
        return _area_unit(self.design)

    def as_dict(self) -> dict[str, Any]:
        """All estimates as plain values, for JSON, with the counts of the map beside them."""
        mapped = {
            entry.name: {"units": entry.units, "area": _in_unit(entry.units, entry.area_m2, self.design)}
            for entry in self.design.classes
        }
        return {
            "map": self.map,
            "map_run": self.design.map.run,
            "reference": self.reference,
            "design": self.design.kind,
            "estimator": self.estimator,
            "unit": self.design.unit,
            "area_file": self.design.area_file,
            "unlabelled_units": self.unlabelled,
            "area_unit": self.area_unit,
            "map_counts": mapped,
            **self.estimate.as_dict(),
        }

    def save(self, path: Path) -> None:
        """Write the summary as JSON, atomically."""
        write_json(path, self.as_dict())

    def __repr__(self) -> str:
        overall = self.estimate.overall
        return (
            f"SampleAssessment(overall_accuracy={overall.value:.3f} ({overall.lower:.3f} to {overall.upper:.3f}), "
            f"units={self.estimate.units}, design={self.design.kind!r}, map={self.map!r})"
        )


def assess_sample(mapped: Raster, path: Path, spec: AccuracySpec) -> SampleAssessment:
    """Estimate accuracy and areas of a map from the sample that was drawn from it and labelled.

    Args:
        mapped: the class map.
        path: the file of the sample.
        spec: settings of the measures.

    Raises:
        ClassError: the class table cannot be read.
        SampleError: the sample cannot be read, was changed, or was drawn from another map; units have no reference
            class, or nothing can be estimated from those that have.
    """
    sample = ReferenceSample.open(path, spec.class_table)
    if spec.sample_labels is not None:
        names = [entry.name for entry in sample.design.classes]
        sample = sample.with_labels(read_labels(spec.sample_labels, names), Path(spec.sample_labels).name)
    labelled = _labelled(sample, path.name, skip_unlabelled=spec.skip_unlabelled)
    sample.require_map(mapped)
    tables, estimator = _tables(labelled, sample.design)
    classes = [entry.name for entry in sample.design.classes]
    corrects = True if tables[1]["units"].sum() <= 100 else None  # 100 units of a map are no per cent
    result = estimate(*tables, confidence=spec.confidence, classes=classes, finite_population=corrects)
    unlabelled = len(sample.units) - len(labelled)
    return SampleAssessment(result, sample.design, estimator, Path(mapped.paths[0]).name, path.name, unlabelled)


def _labelled(sample: ReferenceSample, name: str, *, skip_unlabelled: bool) -> pd.DataFrame:
    """The units with a reference class."""
    is_labelled = sample.units[REFERENCE] != ""
    absent = int((~is_labelled).sum())
    if not is_labelled.any():
        raise SampleError(
            f"{name}: column {REFERENCE} is empty in all {counted(absent, 'unit')}. Fill in the class of each unit, in "
            "a GIS or with the sheet of landscribe sample."
        )
    if absent and not skip_unlabelled:
        raise SampleError(
            f"{name}: no {REFERENCE} class for {absent} of {counted(len(sample.units), 'unit')} (id "
            f"{listed(sample.units['id'][~is_labelled])}). Label them, or pass --skip-unlabelled to estimate as if "
            "chance had picked them."
        )
    if absent:
        log.warning(
            "left out of %s, without a reference class: %d of %d units. Estimates hold only if these units are "
            "like the others of their stratum", name, absent, len(sample.units),
        )  # fmt: skip
    return sample.units[is_labelled]


def _tables(units: pd.DataFrame, design: Design) -> tuple[tuple[pd.DataFrame, pd.DataFrame], str]:
    """The tables that `estimate` takes, and the estimator in words."""
    sample = units[["stratum", "map", REFERENCE]]
    strata = _population(design, "strata")
    if _has_areas(design):
        sample = sample.assign(area=units["area_m2"] / AREA_UNITS[_area_unit(design)])
    if design.kind == "cluster":
        clustered = sample.assign(cluster=units["cluster"], weight=1 / units["probability"])
        return (clustered, strata), "two-stage cluster sample, variance between clusters"
    if design.kind == "stratified":
        return (sample, strata), "stratified sample"
    approximate = ", as if simple random: approximate" if design.kind == "systematic" else ""
    post_strata = _post_strata(design, len(units))
    classes = _population(design, "classes")
    classes = classes.assign(stratum=classes["stratum"].map(post_strata)).groupby("stratum", as_index=False).sum()
    stratum = units["map"].map(post_strata)
    if len(classes) == 1 or (stratum.value_counts().reindex(classes["stratum"], fill_value=0) < 2).any():
        return (sample, strata), f"{design.kind} sample{approximate}"
    joined = [name for name, of_class in post_strata.items() if list(post_strata.values()).count(of_class) > 1]
    few = f" (one stratum of few expected units: {listed(joined)})" if joined else ""
    return (sample.assign(stratum=stratum), classes), (
        f"{design.kind} sample, post-stratified by map class{few}{approximate}"
    )


def _post_strata(design: Design, drawn: int) -> dict[str, str]:
    """The post-stratum of each map class: its own, or one for all classes of which few units are expected.

    The expected numbers decide: if those that chance has drawn did, the areas of rare classes would be estimated as too
    small, for post-strata would be left where too few of their units were drawn.

    Args:
        design: of a simple random or systematic sample.
        drawn: labelled units.
    """
    classes = sorted((entry for entry in design.classes if entry.units), key=lambda entry: entry.units)
    total, below = sum(entry.units for entry in classes), 0.0
    common: list[str] = []
    for entry in classes:
        expected = drawn * entry.units / total
        if expected >= _FEWEST and (not common or below >= _FEWEST):
            break
        common.append(entry.name)
        below += expected
    return {entry.name: common[-1] if entry.name in common else entry.name for entry in classes}


def _population(design: Design, rows: str) -> pd.DataFrame:
    """The table of strata, or of map classes; without those that have no unit."""
    entries = [entry for entry in getattr(design, rows) if entry.units]
    table = pd.DataFrame({"stratum": [entry.name for entry in entries], "units": [entry.units for entry in entries]})
    if not _has_areas(design):
        return table
    return table.assign(area=[entry.area_m2 / AREA_UNITS[_area_unit(design)] for entry in entries])


def _has_areas(design: Design) -> bool:
    return all(math.isfinite(stratum.area_m2) for stratum in design.strata)


def _area_unit(design: Design) -> str:
    if not _has_areas(design):
        return "pixels" if design.unit == 1 else "blocks"
    return area_unit(sum(stratum.area_m2 for stratum in design.strata))


def _in_unit(units: int, area_m2: float, design: Design) -> float:
    return area_m2 / AREA_UNITS[_area_unit(design)] if _has_areas(design) else float(units)
