"""Does a raster fit a model? It is refused, with both values, rather than mapped wrongly; or resampled, on request."""

from landscribe.errors import ModelError
from landscribe.geo.raster import Raster
from landscribe.geo.resampling import crs_of, grid_of_pixel_size, resampled
from landscribe.model import Model
from landscribe.prediction.spec import PredictSpec

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
    crs = None if spec.crs is None else crs_of(spec.crs)
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
    fits = 1 / _TOLERANCE < size / wanted < _TOLERANCE
    if fits and crs in (None, raster.grid.crs):
        return raster
    if not (spec.resample or crs is not None):
        raise ModelError(
            f"{name} has pixels of {size:.3g} m, but the model was trained on {wanted:.3g} m. "
            "Pass --resample to read it in pixels of that size, or --any-pixel-size to map it as it is."
        )
    return resampled(raster, grid_of_pixel_size(raster.grid, wanted, crs))
