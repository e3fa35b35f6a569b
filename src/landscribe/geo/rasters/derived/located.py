"""Located: a label raster without a CRS, on the ground of its image."""

from dataclasses import replace

from landscribe.errors import GridError
from landscribe.geo.grid import Grid, crs_label
from landscribe.geo.rasters.raster import Raster


def locate(labels: Raster, image: Raster, files: Grid) -> Raster:
    """A label raster as it is, if it has a CRS, else on the grid of the image files.

    Args:
        labels: a raster of labels.
        image: its image, in pixels of any size.
        files: the grid of the image files.

    Raises:
        GridError: the labels have no CRS and another size than the image, or only the image has no CRS.
    """
    if labels.grid.crs is not None:
        if image.grid.crs is not None:
            return labels
        raise GridError(
            f"{image.paths[0]} has no CRS, but {labels.paths[0]} is in {crs_label(labels.grid.crs)}. Assign the image "
            "its CRS."
        )
    if labels.grid.shape != files.shape:
        raise GridError(
            f"{labels.paths[0]} has no CRS and {labels.grid.height} x {labels.grid.width} pixels, but "
            f"{image.paths[0]} has {files.height} x {files.width}. Without a CRS, sizes must be equal. Check the pair."
        )
    return replace(labels, grid=files)
