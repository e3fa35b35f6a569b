"""Located: a label raster, also one without a CRS, on the ground of its image."""

from collections.abc import Sequence
from dataclasses import replace

from landscribe.errors import GridError, LabelError, counted, listed
from landscribe.geo.grid import Grid, crs_label, size_label
from landscribe.geo.rasters.raster import Raster

_COLOUR_BANDS = 3
_SAME_PIXEL = 1
"""Largest offset in pixels of labels whose pixels are those of the image: world files may give corners or centres."""
_MOST_NAMED = 20
"""Images that one message names."""


class SizeError(GridError):
    """Labels without a CRS that differ in size from their image."""

    def __init__(self, image: str, problem: str) -> None:
        self.image = image
        """Name of the image."""
        self.problem = problem
        super().__init__(f"{problem} Check the pair.")


def refuse_other_sizes(errors: Sequence[SizeError], remedy: str) -> None:
    """Raise a GridError about all pairs whose sizes differ, if there are any.

    Args:
        errors: one for each such pair.
        remedy: what to do, with "{}" for the names of the images, separated by commas.
    """
    if not errors:
        return
    names = [error.image for error in errors]
    more = f" {len(names)} pairs differ in size: {listed(names, most=_MOST_NAMED)}." if len(names) > 1 else ""
    # A list that a command takes.
    named = ",".join(names[:_MOST_NAMED]) + (",..." if len(names) > _MOST_NAMED else "")
    raise GridError(f"{errors[0].problem}{more} Check the {'pairs' if more else 'pair'}{remedy.format(named)}.")


def open_located(path: str, image: Raster, files: Grid) -> Raster:
    """Open a label raster.

    Without a CRS, its georeference is in the CRS of the image; without any, its pixels are those of the image files.

    Args:
        path: of the label raster.
        image: its image, in pixels of any size.
        files: the grid of the image files.

    Raises:
        LabelError: the raster has neither one band nor three bands of colours.
        SizeError: the labels have no georeference and another size than the image.
        GridError: their georeference lies off the image, or only the image has no CRS.
    """
    labels = Raster.open([path])
    _require_labels(labels, path)
    if labels.grid.crs is not None:
        if image.grid.crs is not None:
            return labels
        raise GridError(
            f"{image.paths[0]} has no CRS, but {path} is in {crs_label(labels.grid.crs)}. Assign the image its CRS."
        )
    own = replace(labels.grid, crs=files.crs)
    if own.transform.is_identity or (own.shape == files.shape and files.max_corner_offset(own) <= _SAME_PIXEL):
        _require_same_shape(path, own, image, files)
        return replace(labels, grid=files)
    _require_overlap(path, own, image, files)
    return replace(labels, grid=own)


def _require_same_shape(path: str, labels: Grid, image: Raster, files: Grid) -> None:
    if labels.shape != files.shape:
        raise SizeError(
            image.name,
            f"{path} has no CRS and {size_label(labels.shape)} pixels, but {image.paths[0]} has "
            f"{size_label(files.shape)}. Without a CRS, sizes must be equal.",
        )


def _require_overlap(path: str, labels: Grid, image: Raster, files: Grid) -> None:
    (left, bottom, right, top), (first, low, last, high) = labels.bounds, files.bounds
    if left >= last or right <= first or bottom >= high or top <= low:
        raise GridError(
            f"{path} has no CRS, and its pixels from ({left:.10g}, {top:.10g}) lie off {image.paths[0]}, whose pixels "
            f"are from ({first:.10g}, {high:.10g}) in {crs_label(files.crs)}. Assign the labels their CRS "
            "(rio edit-info --crs); if their pixels are those of the image, remove their world file (TIFF: "
            "gdal_edit.py -unsetgt)."
        )


def _require_labels(labels: Raster, path: str) -> None:
    coloured = len(labels.bands) == _COLOUR_BANDS and labels.dtype == "uint8"
    if len(labels.bands) != 1 and not coloured:
        raise LabelError(
            f"{path} has {counted(len(labels.bands), 'band')} of {labels.dtype}. Expected one band of class values, "
            "or three of uint8 colours. Check the path."
        )
