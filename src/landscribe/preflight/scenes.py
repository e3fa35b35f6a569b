"""Checks of the scenes: their files, what these have in common, and their classes."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from landscribe.data.scenes.label_formats import label_format
from landscribe.data.scenes.polygon_files import PolygonFiles, label_options
from landscribe.data.scenes.scene import Scene
from landscribe.data.scenes.spec import SceneSpec
from landscribe.errors import EmptyError, GridError, LandscribeError, counted, first_line
from landscribe.geo.classes import IGNORE, Classes
from landscribe.geo.grid import ASSIGN_CRS, are_pixels_alike, crs_label, pixel_label, size_label
from landscribe.geo.rasters.derived.band_names import matched_bands, moved_band
from landscribe.geo.rasters.derived.converted import as_bands, like
from landscribe.geo.rasters.derived.resampling import is_coarser
from landscribe.geo.rasters.encoding import command_to_dtype
from landscribe.geo.rasters.nodata import nodata_label
from landscribe.geo.rasters.raster import CHOOSE_BANDS, Raster
from landscribe.geo.rasters.whole_files import require_geotiff_holds
from landscribe.geo.vectors.vector_files import is_vector
from landscribe.preflight.findings import Finding
from landscribe.preflight.pixels import SAMPLE_PIXELS, check_pixels, sample_windows


def check_scene(source: SceneSpec, image: Raster, polygons: PolygonFiles) -> list[Finding]:
    """Problems of one scene's files."""
    return [*_check_georeference(image), *check_pixels(image), *_check_labels(source, image, polygons)]


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
        "note", f"{image.files_text}: {size_label(image.grid.shape)} pixels of {size:.3g} m in "
        f"{crs_label(image.grid.crs)}, "
        f"{counted(len(image.bands), 'band')} ({', '.join(image.bands)}) of {image.dtype}.",
    )  # fmt: skip


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
    valid = np.concatenate([labels.read(window)[1].ravel() for window in sample_windows(labels)])
    if not valid.all():
        yield Finding(
            "note", f"{path}: about {1 - valid.mean():.1%} of its pixels are nodata ({nodata_label(labels.nodata)}) or "
            "transparent, and unlabelled unless the class table has that value. If they are a class, pass "
            "--label-nodata-as with its name, such as background.",
        )  # fmt: skip


def check_consistency(images: Sequence[Raster]) -> list[Finding]:
    """Scenes of one recipe must share bands and dtype, and should share a pixel size."""
    if not images:
        return []
    first, findings = images[0], [*check_band_names(images)]
    for other in images[1:]:
        findings += _compare(other, first)
        ours, theirs = _pixel_sides(first), _pixel_sides(other)
        if ours is not None and theirs is not None and not are_pixels_alike(theirs, ours):
            findings.append(Finding(
                "warning", f"{other.paths[0]} has pixels of {pixel_label(theirs)}, {first.paths[0]} of "
                f"{pixel_label(ours)}. Objects then differ in size in pixels. Resample one (gdalwarp -tr).",
            ))  # fmt: skip
    return findings


def check_band_names(images: Sequence[Raster]) -> Iterator[Finding]:
    """Scenes whose bands have names that the first one's do not have: their order says what they are."""
    first = images[0]
    unlike = [
        image
        for image in images[1:]
        if 1 < len(image.bands) == len(first.bands)
        and image.bands != first.bands
        and matched_bands(image.bands, first.bands) is None
        and moved_band(image.bands, first.bands) is None
    ]
    if unlike:
        more = f" (The same for {counted(len(unlike) - 1, 'more scene')}.)" if unlike[1:] else ""
        yield Finding(
            "warning", f"{unlike[0].paths[0]} has bands {', '.join(unlike[0].bands)}, {first.paths[0]} has "
            f"{', '.join(first.bands)}. They are taken to be the same, in this order. Name them with --bands to be "
            f"sure.{more}",
        )  # fmt: skip


def _compare(other: Raster, first: Raster) -> Iterator[Finding]:
    """Differences of bands, dtype and encoding between a scene and the first one."""
    (a, b), (ours, theirs) = (first.paths[0], other.paths[0]), (", ".join(first.bands), ", ".join(other.bands))
    if len(other.bands) != len(first.bands):
        yield Finding(
            "error", f"{b} has bands {theirs}, {a} has {ours}. Expected the same in all scenes. "
            f"{CHOOSE_BANDS}.",
        )  # fmt: skip
        return
    if as_bands(other, first.bands).bands != other.bands:
        yield Finding("note", f"{b} has bands {theirs}; they are read in the order of {a} ({ours}).")
    try:
        converted = like(other, first)
    except LandscribeError as error:
        yield Finding("error", f"{first_line(error)}.")
        return
    if converted.encoding_by_band != as_bands(other, first.bands).encoding_by_band:
        yield Finding("note", f"{b} has {other.encoding[0]}; its numbers become those of {a} ({first.encoding[0]}).")
    elif other.dtype != first.dtype:
        yield Finding(
            "error", f"{b} is {other.dtype}, {a} is {first.dtype}. Convert {b} with the scaling of {a} "
            f"({command_to_dtype(first.dtype)}).",
        )  # fmt: skip


def _pixel_sides(image: Raster) -> tuple[float, float] | None:
    try:
        return image.grid.pixel_sides
    except GridError:
        return None


def check_classes(scenes: Sequence[Scene], classes: Classes, where: str) -> Iterator[Finding]:
    """Class shares in sampled windows, and classes without a sampled pixel."""
    counts = np.zeros(256, np.int64)
    for scene in scenes:
        windows = scene.image.grid.strips(SAMPLE_PIXELS) if _is_small(scene) else sample_windows(scene.image)
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
    if len(classes) < 2 or (len(present) < 2 and all(map(_is_small, scenes))):
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


def _is_small(scene: Scene) -> bool:
    """True if reading the whole scene takes about as long as a sample."""
    return scene.image.grid.height * scene.image.grid.width <= SAMPLE_PIXELS * 4
