"""Does a raster fit a model? It is refused, with both values, rather than mapped wrongly."""

from landscribe.errors import ModelError
from landscribe.geo.raster import Raster
from landscribe.model import Model
from landscribe.prediction.spec import PredictSpec

_TOLERANCE = 1.25


def fitted(model: Model, raster: Raster, spec: PredictSpec) -> Raster:
    """The raster with the bands and the nodata value that the model is to see.

    Raises:
        ModelError: other bands, dtype or pixel size than the model was trained on.
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
    if not spec.any_pixel_size:
        _require_pixel_size(model, raster, name)
    return raster if raster.nodata is not None else raster.with_nodata(model.nodata)


def _require_bands(model: Model, raster: Raster, name: str, *, chosen: bool) -> None:
    theirs, ours = ", ".join(raster.bands), ", ".join(model.bands)
    if len(raster.bands) != len(model.bands):
        raise ModelError(
            f"{name} has {len(raster.bands)} bands ({theirs}), but the model takes {len(model.bands)} ({ours}). "
            "Choose bands by number in the model's order, for example --bands 1,2,3."
        )
    if not chosen and set(raster.bands) == set(model.bands) and raster.bands != model.bands:
        order = ",".join(str(raster.bands.index(band) + 1) for band in model.bands)
        raise ModelError(
            f"{name} has its bands in the order {theirs}, but the model takes {ours}. Pass --bands {order}."
        )


def _require_pixel_size(model: Model, raster: Raster, name: str) -> None:
    if model.pixel_size is None:
        return
    size = raster.grid.pixel_size
    if size is None:
        raise ModelError(
            f"{name} has no CRS, so that its pixel size is not known; the model was trained on "
            f"{model.pixel_size:.3g} m. "
            "Assign its CRS (gdal_edit.py -a_srs), or pass --any-pixel-size."
        )
    if not 1 / _TOLERANCE < size / model.pixel_size < _TOLERANCE:
        raise ModelError(
            f"{name} has pixels of {size:.3g} m, but the model was trained on {model.pixel_size:.3g} m. "
            f"Resample the raster (gdalwarp -tr), or pass --any-pixel-size to map it as it is."
        )
