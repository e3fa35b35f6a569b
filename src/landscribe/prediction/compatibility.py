"""Compatibility: a raster that does not fit the model is refused with both values, or resampled on request."""

import logging
from collections.abc import Sequence

import numpy as np
import pyproj
from rasterio.crs import CRS

from landscribe.data.chips.chips import Chips
from landscribe.errors import ChipError, GridError, ModelError, RasterError, counted
from landscribe.geo.classes import Classes
from landscribe.geo.grid import ASSIGN_CRS, LONLAT, Grid, are_pixels_alike, crs_label, pixel_label
from landscribe.geo.rasters.derived.band_names import is_position, matched_bands, moved_band
from landscribe.geo.rasters.derived.converted import with_encoding
from landscribe.geo.rasters.derived.resampling import grid_of_pixel_size, parse_crs, require_resamplable, resample_to
from landscribe.geo.rasters.encoding import command_to_dtype
from landscribe.geo.rasters.raster import Raster
from landscribe.maps.layers import OBJECT_PROBABILITY
from landscribe.model import Model
from landscribe.prediction.spec import PredictSpec

log = logging.getLogger(__name__)

_ROUNDING = 0.01
"""Difference of pixel sizes up to which they count as one number, as in resampling."""


def require_compatible(model: Model, raster: Raster, spec: PredictSpec) -> None:
    """Raise ModelError or GridError if `conform` would refuse the raster."""
    _target_grid(model, _with_bands(model, raster, spec), spec)


def conform(model: Model, raster: Raster, spec: PredictSpec) -> Raster:
    """The raster with the bands, nodata value, pixel size and CRS that the model expects.

    Warns if chosen bands are others than the model's by their names, or if the raster lies outside the area of use of
    the requested CRS.

    Raises:
        ModelError: its bands, dtype or pixel size differ from those of the training.
        GridError: the CRS is unknown, or the raster cannot be brought into it.
    """
    own, raster = raster, _with_bands(model, raster, spec)
    _say_bands(model, own, spec)
    if own.encoding and own.encoding[0] != raster.encoding_by_band[0]:
        log.info("%s has %s: its numbers become %s", own.paths[0], own.encoding[0], raster.encoding_by_band[0])
    grid = _target_grid(model, raster, spec)
    if grid is None:
        if spec.resample:
            _note_kept_size(model, raster)
        return raster
    if spec.crs is not None:
        _warn_outside_area_of_use(raster, parse_crs(spec.crs))
    return resample_to(raster, grid)


def _note_kept_size(model: Model, raster: Raster) -> None:
    """Log that a raster is not resampled although its pixel size differs from the model's by more than rounding."""
    own, expected = raster.grid.pixel_size, model.pixel_size
    if own is not None and expected is not None and abs(own / expected - 1) > _ROUNDING:
        log.info(
            "%s keeps its pixels of %.3g m: the model's are of %.3g m, and a difference of up to a quarter is not "
            "resampled", raster.paths[0], own, expected,
        )  # fmt: skip


def _with_bands(model: Model, raster: Raster, spec: PredictSpec) -> Raster:
    """The raster with the chosen bands, the model's encoding, and the model's nodata value if it has none."""
    name = raster.files_text
    raster = _named_bands(model, raster) if spec.bands is None else raster.select(spec.bands)
    _require_bands(model, raster, name, chosen=spec.bands is not None)
    if raster.nodata is None:
        raster = raster.with_nodata(model.nodata)
    if not spec.ignore_scale:
        raster = _with_encoding(model, raster)
    if raster.dtype != model.dtype:
        raise ModelError(
            f"{name} is {raster.dtype}, but the model was trained on {model.dtype}. Convert the raster with the "
            f"scaling of the training imagery ({command_to_dtype(model.dtype)})."
        )
    return raster


def _named_bands(model: Model, raster: Raster) -> Raster:
    """The bands with the names of the model's, in its order, if the raster names them all; otherwise the raster.

    Raises:
        ModelError: by its name, a band is another one of the model's than by its position.
    """
    indices = matched_bands(raster.bands, model.bands)
    if indices is not None:
        return raster if indices == [*range(len(raster.bands))] else raster.take_bands(indices)
    moved = moved_band(raster.bands, model.bands) if len(raster.bands) == len(model.bands) else None
    if moved is not None:
        raise ModelError(
            f"{raster.files_text} has the bands {', '.join(raster.bands)}, but the model takes "
            f"{', '.join(model.bands)}: by its name, band {moved + 1} ({raster.bands[moved]}) is another one of the "
            "model's. Pass --bands with the numbers of the bands in the model's order."
        )
    return raster


def _say_bands(model: Model, raster: Raster, spec: PredictSpec) -> None:
    """Log which bands are taken by name, and names that the model does not know; warn of chosen ones that moved."""
    if spec.bands is not None:
        _warn_of_moved(model, raster, spec.bands)
        return
    indices, count = matched_bands(raster.bands, model.bands), len(raster.bands)
    if indices is not None and count > len(indices):
        log.info(
            "bands %s of the %d of %s are taken, by their names (%s)", ",".join(str(index + 1) for index in indices),
            count, raster.files_text, ", ".join(model.bands),
        )  # fmt: skip
    elif indices is None and count > 1 and not any(map(is_position, (*model.bands, *raster.bands))):
        log.info(
            "%s has bands %s, the model %s: they are taken to be the same, in this order", raster.files_text,
            ", ".join(raster.bands), ", ".join(model.bands),
        )  # fmt: skip


def _warn_of_moved(model: Model, raster: Raster, numbers: Sequence[int]) -> None:
    """Warn if a chosen band is, by its name, another one of the model's."""
    names = [raster.bands[number - 1] for number in numbers]
    moved = moved_band(names, model.bands)
    if moved is not None:
        named = matched_bands(raster.bands, model.bands)
        others = "other --bands" if named is None else f"--bands {','.join(str(index + 1) for index in named)}"
        log.warning(
            "band %d of %s is %s by its name, but was chosen as the model's %s. If the names are right, pass "
            "%s", numbers[moved], raster.files_text, names[moved], model.bands[moved], others,
        )  # fmt: skip


def _with_encoding(model: Model, raster: Raster) -> Raster:
    """The raster's physical values as numbers that mean to the network what those of its training meant."""
    try:
        return with_encoding(raster, model.encoding, model.dtype, "the training imagery")
    except RasterError as error:
        raise ModelError(f"{error}, or map the stored numbers as they are (--ignore-scale).") from error


def _require_bands(model: Model, raster: Raster, name: str, *, chosen: bool) -> None:
    theirs, ours = ", ".join(raster.bands), ", ".join(model.bands)
    if len(raster.bands) != len(model.bands):
        has = (
            f"of {name} {counted(len(raster.bands), 'band')} were chosen"
            if chosen
            else f"{name} has {counted(len(raster.bands), 'band')}"
        )
        own = [raster.bands.index(band) + 1 for band in model.bands if band in raster.bands]
        numbers = own if len(own) == len(model.bands) else range(1, len(model.bands) + 1)
        remedy = (
            "Stack it with the files of the other bands: their folder with --stack, or their paths joined by commas "
            "(B1.tif,B2.tif)."
            if len(raster.bands) < len(model.bands) and not chosen
            else f"Choose bands by number in the model's order, for example --bands {','.join(map(str, numbers))}."
        )
        raise ModelError(f"{has} ({theirs}), but the model takes {len(model.bands)} ({ours}). {remedy}")


def _target_grid(model: Model, raster: Raster, spec: PredictSpec) -> Grid | None:
    """The grid of the model's pixel size in the requested CRS; None if the raster keeps its own."""
    name, expected = raster.paths[0], None if spec.any_pixel_size else model.pixel_size
    sides = None if spec.any_pixel_size else model.pixel_sides
    crs = None if spec.crs is None else parse_crs(spec.crs)
    if expected is None and crs is None:
        return None
    size, own = raster.grid.pixel_size, raster.grid.pixel_sides
    if size is None or own is None:
        if crs is not None:
            raise ModelError(f"{name} has no CRS, so it cannot be reprojected to {spec.crs}. {ASSIGN_CRS}.")
        raise ModelError(
            f"{name} has no CRS, so its pixel size is unknown; the model was trained on {expected:.3g} m. "
            f"{ASSIGN_CRS}, or pass --any-pixel-size."
        )
    expected = expected or size
    if are_pixels_alike(own, sides or own) and crs in (None, raster.grid.crs):
        return None
    if not (spec.resample or crs is not None):
        raise ModelError(
            f"{name} has pixels of {pixel_label(own)}, but the model was trained on {pixel_label(sides or own)}. "
            "Pass --resample to read it at that size, or --any-pixel-size to map it as it is."
        )
    if sides is not None and not are_pixels_alike((expected, expected), sides):
        raise ModelError(
            f"the model was trained on pixels of {pixel_label(sides)}, but resampled pixels are squares. Warp {name} "
            "to such pixels (gdalwarp -tr), or pass --any-pixel-size."
        )
    try:
        require_resamplable(raster, expected)
    except GridError as error:
        raise ModelError(f"{error} Map it with a model of its pixel size.") from error
    return grid_of_pixel_size(raster.grid, expected, crs)


def _warn_outside_area_of_use(raster: Raster, crs: CRS) -> None:
    """Warn if the raster lies outside the CRS's area of use, such as another UTM zone, where it is distorted."""
    authority = crs.to_authority()
    use = pyproj.CRS.from_authority(*authority).area_of_use if authority else None
    if use is None:
        return
    grid = raster.grid
    lon, lat = map(float, grid.xy_in(LONLAT, grid.height / 2, grid.width / 2))
    # An area across the antimeridian ends west of its start.
    east = use.east if use.west <= use.east else use.east + 360
    lies_in = any(use.west <= lon + turn <= east for turn in (-360, 0, 360))
    if not (lies_in and use.south <= lat <= use.north):
        log.warning(
            "%s lies at %s, %s, outside the area of use of %s (%s to %s, %s to %s): distortion there is large",
            raster.paths[0], _degrees(lon, "EW", ".2f"), _degrees(lat, "NS", ".2f"), crs_label(crs),
            *(_degrees(value, "EW") for value in (use.west, use.east)),
            *(_degrees(value, "NS") for value in (use.south, use.north)),
        )  # fmt: skip


def _degrees(value: float, letters: str, digits: str = ".4g") -> str:
    """A longitude ("EW") or latitude ("NS") for people.

    >>> _degrees(-81.5, "EW", ".2f"), _degrees(6, "EW")
    ('81.50° W', '6° E')
    """
    return f"{abs(value):{digits}}° {letters[value < 0]}"


def require_threshold_classes(spec: PredictSpec, classes: Classes) -> None:
    """Raise ModelError if there is a threshold, and not two classes."""
    if spec.threshold is not None and len(classes) != 2:
        raise ModelError(
            f"--threshold {spec.threshold} is for two classes, but there are {len(classes)} "
            f"({', '.join(classes.names)}). Leave it out: each pixel gets the class with the highest probability."
        )


def require_object_heads(models: Sequence[Model]) -> None:
    """Raise ModelError unless all models have the heads of object probabilities."""
    for model in models:
        missing = [head for head in OBJECT_PROBABILITY.heads if head is not None and head not in model.heads]
        if missing:
            raise ModelError(
                f"the model ({model.architecture}) has no head {' and no head '.join(missing)}: its heads are "
                f"{', '.join(model.heads)}. Object probabilities need a model of unet_id. Train one, or leave out "
                "--object-probabilities."
            )


def resolve_threshold(spec: PredictSpec, models: Sequence[Model]) -> float | None:
    """The threshold as a number: the given one, or the mean of those that the models have from validation chips.

    A mean probability is at least the mean threshold where the models exceed their own thresholds on average.

    Raises:
        ModelError: there are not two classes, or a model has no threshold.
    """
    require_threshold_classes(spec, models[0].classes)
    if spec.threshold != "val":
        return spec.threshold
    measured = [model.val_threshold for model in models if model.val_threshold is not None]
    if len(measured) < len(models):
        name = "the model" if len(models) == 1 else f"{len(models) - len(measured)} of {len(models)} models"
        raise ModelError(
            f"--threshold is val, but {name} has no threshold from validation chips. Train again with validation chips "
            f"that hold '{models[0].classes.names[1]}', or give a number, such as --threshold 0.5."
        )
    return float(np.mean(measured))


def require_threshold_chips(spec: PredictSpec, chips: Chips, splits: Sequence[str], of: str = "") -> None:
    """Raise ChipError, before the training, if the threshold is that of validation chips and these cannot give one."""
    if spec.threshold == "val" and not chips.counts[np.array(splits) == "val", 1].any():
        raise ChipError(
            f"--threshold is val, but no validation chip{of} has a labelled pixel of '{chips.classes.names[1]}'. Hold "
            "out other validation chips, or give a number, such as --threshold 0.5."
        )


def require_same_pixel_size(ensemble: Sequence[Model], raster: Raster, spec: PredictSpec) -> None:
    """Raise ModelError if a further model of an ensemble was trained on another pixel size than the raster has."""
    own = raster.grid.pixel_sides
    if spec.any_pixel_size or own is None:
        return
    for theirs in (model.pixel_sides for model in ensemble):
        if theirs is not None and not are_pixels_alike(own, theirs):
            raise ModelError(
                f"{raster.paths[0]} is read in pixels of {pixel_label(own)}, but a further model of the ensemble was "
                f"trained on {pixel_label(theirs)}. All must share a pixel size. Leave that model out, or pass "
                "--any-pixel-size."
            )
