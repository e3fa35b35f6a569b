"""Does a raster fit a model? It is refused, with both values, rather than mapped wrongly; or resampled, on request."""

import logging
from collections.abc import Sequence

import pyproj
from rasterio.crs import CRS
from rasterio.warp import transform

from landscribe.errors import ModelError
from landscribe.geo.grid import crs_label
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.rasters.resampling import grid_of_pixel_size, parse_crs, resample_to
from landscribe.model import Model
from landscribe.prediction.spec import PredictSpec

log = logging.getLogger(__name__)

_TOLERANCE = 1.25


def fitted(model: Model, raster: Raster, spec: PredictSpec) -> Raster:
    """The raster with the bands, the nodata value, the pixel size and the CRS that the model is to see.

    Raises:
        ModelError: other bands, dtype or pixel size than the model was trained on.
        GridError: a CRS that is none, or that the raster cannot be brought into.
    """
    name = raster.paths[0]
    if spec.bands is not None:
        raster = raster.select(spec.bands)
    _require_bands(model, raster, name, chosen=spec.bands is not None)
    if raster.dtype != model.dtype:
        raise ModelError(
            f"{name} holds {raster.dtype}, but the model was trained on {model.dtype}. The same dtype and units were "
            "expected. Convert the raster (gdal_translate -ot), scaling it as the training imagery was."
        )
    if raster.nodata is None:
        raster = raster.with_nodata(model.nodata)
    return _at_its_size(model, raster, spec)


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


def _at_its_size(model: Model, raster: Raster, spec: PredictSpec) -> Raster:
    """The raster in pixels of the model's size, and in the CRS that is asked for."""
    name, wanted = raster.paths[0], None if spec.any_pixel_size else model.pixel_size
    crs = None if spec.crs is None else parse_crs(spec.crs)
    if wanted is None and crs is None:
        return raster
    size = raster.grid.pixel_size
    if size is None:
        if crs is not None:
            raise ModelError(
                f"{name} has no CRS, from which it could be brought into {spec.crs}. Assign its CRS "
                "(gdal_edit.py -a_srs)."
            )
        raise ModelError(
            f"{name} has no CRS, so that its pixel size is not known; the model was trained on {wanted:.3g} m. "
            "Assign its CRS (gdal_edit.py -a_srs), or pass --any-pixel-size."
        )
    wanted = wanted or size
    if _are_alike(size, wanted) and crs in (None, raster.grid.crs):
        return raster
    if not (spec.resample or crs is not None):
        raise ModelError(
            f"{name} has pixels of {size:.3g} m, but the model was trained on {wanted:.3g} m. "
            "Pass --resample to read it in pixels of that size, or --any-pixel-size to map it as it is."
        )
    if crs is not None:
        _warn_beyond_its_use(raster, crs)
    return resample_to(raster, grid_of_pixel_size(raster.grid, wanted, crs))


def _are_alike(size: float, other: float) -> bool:
    """True if a network that knows pixels of one size can be shown those of the other."""
    return 1 / _TOLERANCE < size / other < _TOLERANCE


def _warn_beyond_its_use(raster: Raster, crs: CRS) -> None:
    """Warn of a CRS for another part of the Earth, such as another zone: there it turns and stretches what it shows."""
    authority = crs.to_authority()
    use = pyproj.CRS.from_authority(*authority).area_of_use if authority else None
    if use is None:
        return
    grid = raster.grid
    x, y = grid.xy(grid.height / 2, grid.width / 2)
    (lon,), (lat,) = transform(grid.crs, "EPSG:4326", [x], [y])
    # An area across the 180th meridian ends west of where it begins.
    lies_in = use.west <= lon <= use.east if use.west <= use.east else not use.east < lon < use.west
    if not (lies_in and use.south <= lat <= use.north):
        log.warning(
            "%s lies at %.2f° E, %.2f° N, but %s is made for %.4g° to %.4g° E and %.4g° to %.4g° N. There it turns and "
            "stretches the ground, which the model has not seen so",
            raster.paths[0], lon, lat, crs_label(crs), use.west, use.east, use.south, use.north,
        )  # fmt: skip


def require_same_size(others: Sequence[Model], raster: Raster, spec: PredictSpec) -> None:
    """Raise ModelError if further models were trained on pixels of another size than those that the first is to see."""
    size = raster.grid.pixel_size
    if spec.any_pixel_size or size is None:
        return
    for theirs in (other.pixel_size for other in others):
        if theirs is not None and not _are_alike(size, theirs):
            raise ModelError(
                f"{raster.paths[0]} is read in pixels of {size:.3g} m, but a further model was trained on {theirs:.3g} "
                "m. Models whose answers are averaged must see pixels of one size. Leave that one out, or pass "
                "--any-pixel-size."
            )
