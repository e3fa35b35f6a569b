"""Compatibility: a raster that does not fit the model is refused with both values, or resampled on request."""

import logging
from collections.abc import Sequence

import pyproj
from rasterio.crs import CRS
from rasterio.warp import transform

from landscribe.errors import ModelError
from landscribe.geo.grid import Grid, crs_label
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.rasters.resampling import grid_of_pixel_size, parse_crs, resample_to
from landscribe.model import Model
from landscribe.prediction.spec import PredictSpec

log = logging.getLogger(__name__)

_TOLERANCE = 1.25
_MOST_REFINED = 64
"""Most pixels of a model along the side of a pixel of the raster: more show nothing that the raster has not."""


def require_compatible(model: Model, raster: Raster, spec: PredictSpec) -> None:
    """Raise ModelError or GridError if `conform` would refuse the raster."""
    _target_grid(model, _with_bands(model, raster, spec), spec)


def conform(model: Model, raster: Raster, spec: PredictSpec) -> Raster:
    """The raster with the bands, nodata value, pixel size and CRS that the model expects.

    Warns if it lies outside the area of use of the requested CRS.

    Raises:
        ModelError: its bands, dtype or pixel size differ from those of the training.
        GridError: the CRS is unknown, or the raster cannot be brought into it.
    """
    raster = _with_bands(model, raster, spec)
    grid = _target_grid(model, raster, spec)
    if grid is None:
        return raster
    if spec.crs is not None:
        _warn_outside_area_of_use(raster, parse_crs(spec.crs))
    return resample_to(raster, grid)


def _with_bands(model: Model, raster: Raster, spec: PredictSpec) -> Raster:
    """The raster with the chosen bands, and the model's nodata value if it has none of its own."""
    name = raster.paths[0]
    if spec.bands is not None:
        raster = raster.select(spec.bands)
    _require_bands(model, raster, name, chosen=spec.bands is not None)
    if raster.dtype != model.dtype:
        raise ModelError(
            f"{name} is {raster.dtype}, but the model was trained on {model.dtype}. Convert the raster (gdal_translate "
            "-ot) to the dtype and units of the training imagery."
        )
    return raster.with_nodata(model.nodata) if raster.nodata is None else raster


def _require_bands(model: Model, raster: Raster, name: str, *, chosen: bool) -> None:
    theirs, ours = ", ".join(raster.bands), ", ".join(model.bands)
    if len(raster.bands) != len(model.bands):
        has = f"of {name} {len(raster.bands)} bands were chosen" if chosen else f"{name} has {len(raster.bands)} bands"
        raise ModelError(
            f"{has} ({theirs}), but the model takes {len(model.bands)} ({ours}). "
            "Choose bands by number in the model's order, for example --bands 1,2,3."
        )
    if not chosen and set(raster.bands) == set(model.bands) and raster.bands != model.bands:
        order = ",".join(str(raster.bands.index(band) + 1) for band in model.bands)
        raise ModelError(
            f"{name} has its bands in the order {theirs}, but the model takes {ours}. Pass --bands {order}."
        )


def _target_grid(model: Model, raster: Raster, spec: PredictSpec) -> Grid | None:
    """The grid of the model's pixel size in the requested CRS; None if the raster keeps its own."""
    name, expected = raster.paths[0], None if spec.any_pixel_size else model.pixel_size
    crs = None if spec.crs is None else parse_crs(spec.crs)
    if expected is None and crs is None:
        return None
    size = raster.grid.pixel_size
    if size is None:
        if crs is not None:
            raise ModelError(
                f"{name} has no CRS, so it cannot be reprojected to {spec.crs}. Assign its CRS (gdal_edit.py -a_srs)."
            )
        raise ModelError(
            f"{name} has no CRS, so its pixel size is unknown; the model was trained on {expected:.3g} m. "
            "Assign its CRS (gdal_edit.py -a_srs), or pass --any-pixel-size."
        )
    expected = expected or size
    if _is_same_size(size, expected) and crs in (None, raster.grid.crs):
        return None
    if not (spec.resample or crs is not None):
        raise ModelError(
            f"{name} has pixels of {size:.3g} m, but the model was trained on {expected:.3g} m. "
            "Pass --resample to read it at that size, or --any-pixel-size to map it as it is."
        )
    _require_sensible_resampling(raster, size, expected)
    return grid_of_pixel_size(raster.grid, expected, crs)


def _require_sensible_resampling(raster: Raster, size: float, expected: float) -> None:
    """Raise ModelError if a pixel of the raster would become thousands, or the whole raster less than one."""
    shape = raster.grid.shape
    if size / expected > _MOST_REFINED or expected / size > max(shape):
        raise ModelError(
            f"{raster.paths[0]} ({shape[0]} x {shape[1]} pixels of {size:.3g} m) cannot be resampled to pixels of "
            f"{expected:.3g} m. Expected at most {_MOST_REFINED} pixels along the side of one of the raster, and at "
            "least one for the whole raster. Map it with a model of its pixel size."
        )


def _is_same_size(size: float, other: float) -> bool:
    """True if a network trained on pixels of one size (m) can map pixels of the other."""
    return 1 / _TOLERANCE < size / other < _TOLERANCE


def _warn_outside_area_of_use(raster: Raster, crs: CRS) -> None:
    """Warn if the raster lies outside the CRS's area of use, such as another UTM zone, where it is distorted."""
    authority = crs.to_authority()
    use = pyproj.CRS.from_authority(*authority).area_of_use if authority else None
    if use is None:
        return
    grid = raster.grid
    x, y = grid.xy(grid.height / 2, grid.width / 2)
    (lon,), (lat,) = transform(grid.crs, "EPSG:4326", [x], [y])
    # An area across the antimeridian ends west of its start.
    lies_in = use.west <= lon <= use.east if use.west <= use.east else not use.east < lon < use.west
    if not (lies_in and use.south <= lat <= use.north):
        log.warning(
            "%s lies at %.2f° E, %.2f° N, outside the area of use of %s (%.4g° to %.4g° E, %.4g° to %.4g° N): "
            "distortion there is large",
            raster.paths[0], lon, lat, crs_label(crs), use.west, use.east, use.south, use.north,
        )  # fmt: skip


def require_same_pixel_size(ensemble: Sequence[Model], raster: Raster, spec: PredictSpec) -> None:
    """Raise ModelError if a further model of an ensemble was trained on another pixel size than the raster has."""
    size = raster.grid.pixel_size
    if spec.any_pixel_size or size is None:
        return
    for theirs in (model.pixel_size for model in ensemble):
        if theirs is not None and not _is_same_size(size, theirs):
            raise ModelError(
                f"{raster.paths[0]} is read in pixels of {size:.3g} m, but a further model of the ensemble was trained "
                f"on {theirs:.3g} m. All must share a pixel size. Leave that model out, or pass --any-pixel-size."
            )
