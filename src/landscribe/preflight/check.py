"""Check of a run before it starts: all findings and the forecast. Nothing is written."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from landscribe import progress
from landscribe.assessment.references import require_reference
from landscribe.cost import Forecast, forecast
from landscribe.data.chips.chips import Chips
from landscribe.data.chips.cutting import split_inputs
from landscribe.data.chips.units import lattice_of, require_feasible
from landscribe.data.scenes.label_formats import label_format, label_warnings
from landscribe.data.scenes.polygon_files import PolygonFiles
from landscribe.data.scenes.scene import Scene, open_image, open_scenes
from landscribe.data.splits.audit import Audit, audit
from landscribe.errors import LandscribeError, RecipeError, listed
from landscribe.geo.classes import Classes
from landscribe.geo.grid import size_label
from landscribe.geo.rasters.raster import Raster
from landscribe.preflight.findings import Finding, by_severity, deduplicated
from landscribe.preflight.mapping import check_mapping
from landscribe.preflight.scenes import check_classes, check_consistency, check_scene
from landscribe.preflight.settings import check_folds, check_held_out, check_settings
from landscribe.recipe import Recipe


@dataclass(frozen=True)
class Check:
    """Findings and forecast."""

    findings: tuple[Finding, ...]
    forecast: Forecast | None
    """None if there are errors, and for existing chips."""
    audit: Audit | None = None
    """Audit of existing chips; None for a recipe."""
    scenes: tuple[Scene, ...] = ()
    """As opened for the check, so that a run reads no label twice; empty if there are errors, and for chips."""
    classes: Classes | None = None
    """Of the scenes."""

    def __repr__(self) -> str:
        counts = Counter(finding.severity for finding in self.findings)
        found = ", ".join(f"{severity}s={counts[severity]}" for severity in ("error", "warning", "note"))
        chips = "" if self.forecast is None else f", chips={self.forecast.chips}"
        return f"Check({found}{chips})"

    @property
    def errors(self) -> tuple[str, ...]:
        """The findings that stop a run."""
        return tuple(finding.text for finding in self.findings if finding.severity == "error")

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "findings": [asdict(finding) for finding in self.findings],
            "forecast": self.forecast and asdict(self.forecast),
        } | ({} if self.audit is None else {"audit": self.audit.as_dict()})


def check(recipe: Recipe, *, trial: bool = True, out: Path | None = None) -> Check:
    """Look for problems in a recipe and its files, and forecast its cost.

    Args:
        recipe: the recipe, with absolute paths.
        trial: time one training step and one tile with the real network, for a forecast of time and memory.
        out: the folder to write, whose disk must hold the chips; the working folder if None.

    Returns:
        Findings in the order errors, warnings, notes.
    """
    polygons, classes = PolygonFiles(), None
    findings: list[Finding] = []
    images: list[Raster] = []
    with progress.task("checking scenes", len(recipe.scenes), least=2) as advance:
        for source in recipe.scenes:
            try:
                images.append(open_image(source, polygons))
            except LandscribeError as error:
                findings.append(Finding("error", str(error)))
            else:
                findings += check_scene(source, images[-1], polygons)
            advance()
    findings += check_consistency(images)
    scenes: list[Scene] = []
    if not any(finding.severity == "error" for finding in findings):
        try:
            scenes, classes = open_scenes(recipe.scenes, recipe.classes, polygons)
        except LandscribeError as error:
            findings.append(Finding("error", str(error)))
        else:
            where = listed(sorted({str(source.labels) for source in recipe.scenes}))
            findings += [*check_classes(scenes, classes, where), *_check_chips(recipe, scenes, out or Path())]
            findings += [Finding("warning", text) for text in label_warnings(scene.labels for scene in scenes)]
            findings += check_settings(recipe, scenes[0].image, classes)
            findings += check_mapping(recipe, scenes, classes)
            findings += [*check_held_out(recipe), *check_folds(recipe, scenes)]
            findings += _check_reference(recipe, classes)
    findings = by_severity(deduplicated(findings))
    if classes is None or any(finding.severity == "error" for finding in findings):
        return Check(tuple(findings), None)
    predicted = forecast(recipe, scenes, len(classes), trial=trial)
    return Check(tuple(findings), predicted, scenes=tuple(scenes), classes=classes)


def _check_reference(recipe: Recipe, classes: Classes) -> Iterator[Finding]:
    reference, column = recipe.assess.reference, recipe.assess.reference_field
    try:
        require_reference(recipe.assess, classes)
        if reference is not None and column is not None and label_format(reference).is_raster:
            raise RecipeError(
                f"reference_field is '{column}', but {reference} is a label raster. Leave it out (--reference-field)."
            )
    except LandscribeError as error:
        yield Finding("error", f"the independent reference: {error}")
    trained = {Path(source.labels).resolve() for source in recipe.scenes if source.labels and source.split != "test"}
    if reference is not None and Path(reference).resolve() in trained:
        yield Finding(
            "warning", f"the independent reference, {reference}, has the labels of the training: its measures will be "
            "too high for new areas. Leave it out (the test chips assess the map), or give one that no training sees.",
        )  # fmt: skip


def check_chips(chips: Chips) -> Check:
    """Audit existing chips for leaks between their splits."""
    audited = audit(chips)
    findings = [Finding(severity, text) for severity, text in audited.findings()]
    return Check(tuple(by_severity(findings)), None, audited)


def _check_chips(recipe: Recipe, scenes: Sequence[Scene], out: Path) -> Iterator[Finding]:
    spec = recipe.chips
    try:
        require_feasible(scenes, recipe.scenes, spec, out)
        if recipe.split.by != "attribute":  # its polygons are read when chips are cut
            split_inputs(scenes, recipe.scenes, spec, recipe.split)
    except LandscribeError as error:
        yield Finding("error", str(error))
        return
    for scene in scenes:
        lattice = lattice_of(scene.image, spec)
        if not lattice.rows * lattice.cols:
            yield Finding(
                "error" if len(scenes) == 1 else "warning",
                f"{scene.image.paths[0]} ({size_label(scene.image.grid.shape)} pixels) is smaller than one chip of "
                f"{spec.size} pixels, and edge = {spec.edge}. Use a smaller size or edge = pad.",
            )
