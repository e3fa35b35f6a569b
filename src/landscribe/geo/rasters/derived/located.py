"""Located: a label raster, also one without a CRS, on the ground of its image."""

from dataclasses import replace

from landscribe.errors import GridError, LabelError, counted
from landscribe.geo.grid import Grid, crs_label
from landscribe.geo.rasters.raster import Raster

_COLOUR_BANDS = 3


def open_located(path: str, image: Raster, files: Grid) -> Raster:
    """Open a label raster: as it is, if it has a CRS, else on the grid of the image files.

    Args:
        path: of the label raster.
        image: its image, in pixels of any size.
        files: the grid of the image files.

    Raises:
        LabelError: the raster has neither one band nor three bands of colours.
        GridError: the labels have no CRS and another size than the image, or only the image has no CRS.
    """
    labels = Raster.open([path])
    _require_labels(labels, path)
    if labels.grid.crs is not None:
        if image.grid.crs is not None:
            return labels
        raise GridError(
            f"{image.paths[0]} has no CRS, but {path} is in {crs_label(labels.grid.crs)}. Assign the image its CRS."
        )
    if labels.grid.shape != files.shape:
        raise GridError(
            f"{path} has no CRS and {labels.grid.height} x {labels.grid.width} pixels, but "
            f"{image.paths[0]} has {files.height} x {files.width}. Without a CRS, sizes must be equal. Check the pair."
        )
    return replace(labels, grid=files)


def _require_labels(labels: Raster, path: str) -> None:
    coloured = len(labels.bands) == _COLOUR_BANDS and labels.dtype == "uint8"
    if len(labels.bands) != 1 and not coloured:
        raise LabelError(
            f"{path} has {counted(len(labels.bands), 'band')} of {labels.dtype}. Expected one band of class values, "
            "or three of uint8 colours. Check the path."
        )
