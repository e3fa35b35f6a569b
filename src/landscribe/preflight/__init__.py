"""Preflight: problems and cost of a run, before it starts. Nothing is written."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from landscribe import progress
from landscribe.assessment.references import require_reference
from landscribe.cost import Forecast, forecast
from landscribe.data.chips.chips import Chips
from landscribe.data.chips.cutting import split_inputs
from landscribe.data.chips.units import lattice_of, require_feasible
from landscribe.data.scenes.label_formats import label_format, label_warnings
from landscribe.data.scenes.polygon_files import PolygonFiles, label_options
from landscribe.data.scenes.scene import Scene, open_image, open_scenes
from landscribe.data.scenes.spec import SceneSpec
from landscribe.data.splits.audit import Audit, audit
from landscribe.errors import EmptyError, GridError, LandscribeError, RecipeError, counted, first_line, listed
from landscribe.geo.classes import IGNORE, Classes
from landscribe.geo.grid import ASSIGN_CRS, Window, crs_label, size_label
from landscribe.geo.rasters.derived.clipped import spread_windows
from landscribe.geo.rasters.derived.converted import with_encoding
from landscribe.geo.rasters.derived.resampling import is_coarser
from landscribe.geo.rasters.encoding import command_to_dtype
from landscribe.geo.rasters.nodata import Nodata, nodata_label
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.rasters.whole_files import require_geotiff_holds
from landscribe.geo.spec import NodataRule
from landscribe.geo.vectors.vector_files import is_vector
from landscribe.preflight.findings import Finding as Finding
from landscribe.preflight.findings import by_severity, deduplicated
from landscribe.preflight.mapping import check_mapping
from landscribe.preflight.settings import check_folds, check_held_out, check_settings
from landscribe.recipe import Recipe

# Windows of a sample: enough to contain nodata and all common classes, few enough to read in seconds.
_SAMPLES = 64
_SAMPLE_SIDE = 256
_NETCDF_FILL = 9.969209968386869e36
"""What NetCDF's libraries write where a float was never written."""


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

    @property
    def errors(self) -> tuple[str, ...]:
        """The findings that stop a run."""
        return tuple(finding.text for finding in self.findings if finding.severity == "error")

    def summary(self) -> dict[str, Any]:
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
                findings += _check_scene(source, images[-1], polygons)
            advance()
    findings += _check_consistency(images)
    scenes: list[Scene] = []
    if not any(finding.severity == "error" for finding in findings):
        try:
            scenes, classes = open_scenes(recipe.scenes, recipe.classes, polygons)
        except LandscribeError as error:
            findings.append(Finding("error", str(error)))
        else:
            where = listed(sorted({str(source.labels) for source in recipe.scenes}))
            findings += [*_check_classes(scenes, classes, where), *_check_chips(recipe, scenes, out or Path())]
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


def check_chips(chips: Chips) -> Check:
    """Audit existing chips for leaks between their splits."""
    audited = audit(chips)
    findings = [Finding(severity, text) for severity, text in audited.findings()]
    return Check(tuple(by_severity(findings)), None, audited)


def _check_scene(source: SceneSpec, image: Raster, polygons: PolygonFiles) -> list[Finding]:
    """Problems of one scene's files."""
    return [*_check_georeference(image), *_check_pixels(image), *_check_labels(source, image, polygons)]


def _check_georeference(image: Raster) -> Iterator[Finding]:
    name = image.paths[0]
    if image.grid.crs is None:
        yield Finding(
            "warning", f"{name} has no CRS, so its pixel size is unknown and polygons cannot be reprojected to it. "
            f"{ASSIGN_CRS}.",
        )  # fmt: skip
        return
    try:
        size = image.grid.pixel_size or 0.0
        require_geotiff_holds(image.grid, name)
    except GridError as error:
        yield Finding("error", str(error))
        return
    yield Finding(
        "note", f"{name}: {size_label(image.grid.shape)} pixels of {size:.3g} m in "
        f"{crs_label(image.grid.crs)}, "
        f"{counted(len(image.bands), 'band')} ({', '.join(image.bands)}) of {image.dtype}.",
    )  # fmt: skip


def _check_pixels(image: Raster) -> Iterator[Finding]:
    """Nodata, and pixels that look like undeclared nodata, in a sample of windows."""
    name = image.paths[0]
    counts = {"all": 0, "invalid": 0}
    suspects = _suspects(np.dtype(image.dtype))
    held = dict.fromkeys(suspects, 0)
    for window in _sample(image):
        try:
            pixels, valid = image.read(window)
        except LandscribeError as error:
            yield Finding("error", str(error))
            return
        counts["all"] += valid.size
        counts["invalid"] += int((~valid).sum())
        for value, rule in suspects.items():
            held[value] += int((valid & Nodata(value, rule).marks(pixels)).sum())
    if counts["invalid"] == counts["all"]:
        where = f"{_SAMPLES} windows" if image.area is None else f"the area of {image.area.name}"
        yield Finding(
            "error",
            f"{name} has no valid pixel in {where}: all are nodata ({nodata_label(image.nodata)}). Check the file or "
            "the nodata value.",
        )
        return
    for masked in image.mask_files:
        yield Finding(
            "note",
            f"{masked}: its alpha or mask band marks valid pixels and is not used as imagery. If it is imagery, "
            "unflag it (gdal_edit.py -colorinterp_4 undefined).",
        )
    if image.nodata is not None:
        yield Finding(
            "note",
            f"{name}: nodata is {nodata_label(image.nodata)}; about {counts['invalid'] / counts['all']:.1%} of its "
            "pixels are nodata.",
        )
    for value, count in held.items():
        if count > 0.005 * counts["all"] and (suspects[value] == "any" or image.nodata is None):
            bands = "all bands" if suspects[value] == "all" else "a band"
            yield Finding(
                "warning", f"{name} declares {'no' if image.nodata is None else 'another'} nodata, but about "
                f"{count / counts['all']:.1%} of its pixels are {value:.10g} in {bands}. If these hold no imagery, "
                f"pass --nodata {value:.10g} (in a recipe: nodata).",
            )  # fmt: skip


def _suspects(dtype: np.dtype[Any]) -> dict[float, NodataRule]:
    """Values that programs write where there is no imagery, and in how many bands of a pixel they are conspicuous."""
    if dtype.kind == "u":
        return {0: "all", int(np.iinfo(dtype).max): "all"}
    if dtype.kind == "f":
        return {0: "all", -9999: "any", -32768: "any", float(np.finfo(np.float32).min): "any", _NETCDF_FILL: "any"}
    values: dict[float, NodataRule] = {0: "all", -9999: "any", -32768: "any", int(np.iinfo(dtype).min): "any"}
    return {value: rule for value, rule in values.items() if value >= np.iinfo(dtype).min}


def _check_labels(source: SceneSpec, image: Raster, polygons: PolygonFiles) -> Iterator[Finding]:
    if source.labels is None:
        yield Finding("error", f"{image.paths[0]} has no labels. Give polygons or a label raster (labels = …).")
        return
    if not is_vector(source.labels):
        # Of other formats, opening the scene reports what is wrong.
        if label_format(source.labels).is_raster:
            yield from _check_label_raster(source, image)
        return
    try:
        options = label_options(source)
        features = polygons.read(source.labels, **options)
        polygons.reprojected(image, source.labels, **options)
    except EmptyError:
        return  # whether an image may have no polygon depends on the other scenes, which are opened later
    except LandscribeError as error:
        yield Finding("error", str(error))
        return
    if features.crs != image.grid.crs:
        yield Finding(
            "note",
            f"{source.labels} is in {crs_label(features.crs)} and is reprojected to {crs_label(image.grid.crs)}, "
            f"the CRS of {image.paths[0]}.",
        )
    if features.other_layers:
        yield Finding(
            "note",
            f"{source.labels}: layer {features.layer} is used, and not {', '.join(features.other_layers)} (choose with "
            "--label-layer).",
        )


def _check_label_raster(source: SceneSpec, image: Raster) -> Iterator[Finding]:
    path = str(source.labels)
    try:
        labels = Raster.open([path])
    except LandscribeError as error:
        yield Finding("error", str(error))
        return
    if labels.grid.crs is not None and not labels.grid.is_aligned(image.grid):
        is_majority = source.pixel_size is not None and is_coarser(image.grid, labels.grid)
        yield Finding(
            "note", f"{path} ({size_label(labels.grid.shape)}, {crs_label(labels.grid.crs)}) lies on "
            f"another grid than {image.paths[0]} ({size_label(image.grid.shape)}, "
            f"{crs_label(image.grid.crs)}); each pixel gets the {'majority' if is_majority else 'nearest'} label.",
        )  # fmt: skip
    yield from _check_label_nodata(path, labels)


def _check_label_nodata(path: str, labels: Raster) -> Iterator[Finding]:
    """Labels that are nodata, transparent or masked: they may be a class."""
    if labels.nodata is None and not labels.mask_files:
        return
    valid = np.concatenate([labels.read(window)[1].ravel() for window in _sample(labels)])
    if not valid.all():
        yield Finding(
            "note", f"{path}: about {1 - valid.mean():.1%} of its pixels are nodata ({nodata_label(labels.nodata)}) or "
            "transparent, and unlabelled unless the class table has that value. If they are a class, pass "
            "--label-nodata-as with its name, such as background.",
        )  # fmt: skip


def _check_consistency(images: Sequence[Raster]) -> list[Finding]:
    """Scenes of one recipe must share bands and dtype, and should share a pixel size."""
    findings: list[Finding] = []
    for other in images[1:]:
        first = images[0]
        findings += _compare(other, first)
        sizes = _pixel_size(first), _pixel_size(other)
        if all(sizes) and not 0.8 < sizes[1] / sizes[0] < 1.25:
            findings.append(Finding(
                "warning", f"{other.paths[0]} has pixels of {sizes[1]:.3g} m, {first.paths[0]} of {sizes[0]:.3g} m. "
                "Objects then differ in size in pixels. Resample one (gdalwarp -tr).",
            ))  # fmt: skip
    return findings


def _compare(other: Raster, first: Raster) -> Iterator[Finding]:
    """Differences of bands, dtype and encoding between a scene and the first one."""
    (a, b), (ours, theirs) = (first.paths[0], other.paths[0]), (", ".join(first.bands), ", ".join(other.bands))
    if len(other.bands) != len(first.bands):
        yield Finding(
            "error", f"{b} has bands {theirs}, {a} has {ours}. Expected the same in all scenes. Convert one "
            "(gdal_translate -b).",
        )  # fmt: skip
        return
    if other.bands != first.bands and set(other.bands) == set(first.bands):
        yield Finding("note", f"{b} has bands {theirs}; they are read in the order of {a} ({ours}).")
    elif other.bands != first.bands:
        yield Finding(
            "warning", f"{b} has bands {theirs}, {a} has {ours}. They are taken to be the same, in this order. Name "
            "them with --bands to be sure.",
        )  # fmt: skip
    try:
        converted = with_encoding(other, first.encoding, first.dtype, a)
    except LandscribeError as error:
        yield Finding("error", f"{first_line(error)}.")
        return
    if converted is not other:
        yield Finding("note", f"{b} has {other.encoding[0]}; its numbers become those of {a} ({first.encoding[0]}).")
    elif other.dtype != first.dtype:
        yield Finding(
            "error", f"{b} is {other.dtype}, {a} is {first.dtype}. Convert {b} with the scaling of {a} "
            f"({command_to_dtype(first.dtype)}).",
        )  # fmt: skip


def _pixel_size(image: Raster) -> float:
    try:
        return image.grid.pixel_size or 0.0
    except GridError:
        return 0.0


def _check_classes(scenes: Sequence[Scene], classes: Classes, where: str) -> Iterator[Finding]:
    """Class shares in sampled windows, and classes without a sampled pixel."""
    counts = np.zeros(256, np.int64)
    for scene in scenes:
        windows = scene.image.grid.strips(_SAMPLES * _SAMPLE_SIDE**2) if is_small(scene) else _sample(scene.image)
        for window in windows:
            try:
                counts += np.bincount(scene.read(window).mask.ravel(), minlength=256)
            except LandscribeError as error:
                yield Finding("error", str(error))
                return
    labelled = counts[list(classes.values)].sum()
    if not labelled:
        yield Finding(
            "error",
            "no sampled pixel is both valid and labelled. Expected labels that overlap the imagery. "
            "Check nodata and the position of the labels.",
        )
        return
    folded = Counter(entry.name.casefold() for entry in classes)
    twins = [entry.name for entry in classes if folded[entry.name.casefold()] > 1]
    if twins:
        yield Finding(
            "warning",
            f"classes {', '.join(twins)} of {where} differ only in capital letters. If they are one class, correct the "
            "labels.",
        )
    present = [entry for entry in classes if counts[entry.value]]
    if len(classes) < 2 or (len(present) < 2 and all(map(is_small, scenes))):
        yield Finding(
            "error",
            f"{where} has one class only: '{present[0].name}' (value {present[0].value}). Expected at least two. "
            "Check the labels and the class table.",
        )
        return
    for entry in classes:
        if not counts[entry.value]:
            yield Finding(
                "warning",
                f"class '{entry.name}' (value {entry.value}) has no pixel in the sampled windows. "
                f"Check its label ({entry.label!r}), or leave the class out.",
            )
    shares = ", ".join(f"{entry.name} {counts[entry.value] / labelled:.1%}" for entry in classes)
    ignored = counts[IGNORE] / counts.sum()
    if all(entry.name.isdecimal() for entry in classes.foreground):
        yield Finding(
            "note", f"classes have numbers as names ({', '.join(classes.names)}): name them by --class-table."
        )
    yield Finding("note", f"class shares: {shares}; {ignored:.1%} of the pixels are unlabelled or nodata.")


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


def is_small(scene: Scene) -> bool:
    """True if reading the whole scene takes about as long as a sample."""
    return scene.image.grid.height * scene.image.grid.width <= _SAMPLES * _SAMPLE_SIDE**2 * 4


def _sample(image: Raster) -> list[Window]:
    """Windows spread evenly over a raster, or over its area."""
    return spread_windows(image, _SAMPLE_SIDE, int(_SAMPLES**0.5))
