"""Pixels of images: nodata, and what looks like nodata that no file declares, in a sample of windows."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from landscribe.errors import LandscribeError, counted
from landscribe.geo.access import is_local
from landscribe.geo.grid import Window
from landscribe.geo.rasters.derived.clipped import spread_windows
from landscribe.geo.rasters.nodata import Nodata, nodata_label
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.spec import NodataRule
from landscribe.preflight.findings import Finding, deduplicated

log = logging.getLogger(__name__)

# Windows of a sample: enough to contain nodata and all common classes, few enough to read in seconds.
_PER_AXIS = 8
_SIDE = 256
SAMPLE_PIXELS = _PER_AXIS**2 * _SIDE**2
"""Pixels of a sample at most, but for the polygons of an area."""
_FEW_PER_AXIS = 3
"""Windows of a warning beside other work, corners among them, so that its time is not noticed."""
_MOST_IMAGES = 32
"""Images that such a warning looks at."""
_NETCDF_FILL = 9.969209968386869e36
"""What NetCDF's libraries write where a float was never written."""


def check_pixels(image: Raster) -> Iterator[Finding]:
    """Nodata, and pixels that look like undeclared nodata, in a sample of windows."""
    return _findings(image, _suspects(image), sample_windows(image))


def _findings(image: Raster, suspects: dict[float, NodataRule], windows: Sequence[Window]) -> Iterator[Finding]:
    """Errors and notes about nodata, and warnings of pixels that hold a suspect."""
    name = image.files_text
    counts = {"all": 0, "invalid": 0}
    held = dict.fromkeys(suspects, 0)
    for window in windows:
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
        where = f"{counted(len(windows), 'window')}" if image.area is None else f"the area of {image.area.name}"
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
        if count > 0.005 * counts["all"]:
            bands = "all bands" if suspects[value] == "all" else "a band"
            yield Finding(
                "warning", f"{name} declares {'no' if image.nodata is None else 'another'} nodata, but about "
                f"{count / counts['all']:.1%} of its pixels are {value:.10g} in {bands}. If these hold no imagery, "
                f"pass --nodata {value:.10g} (in a recipe: nodata).",
            )  # fmt: skip


def _suspects(image: Raster) -> dict[float, NodataRule]:
    """Values that programs write where there is no imagery, and in how many bands of a pixel they are conspicuous.

    In all bands, they are imagery of a file that declares another nodata.
    """
    dtype = np.dtype(image.dtype)
    values: dict[float, NodataRule]
    if dtype.kind == "u":
        values = {0: "all", int(np.iinfo(dtype).max): "all"}
    elif dtype.kind == "f":
        fills = (-9999, -10000, -32767, -32768, float(np.finfo(np.float32).min), _NETCDF_FILL)
        values = {0: "all", **dict.fromkeys(fills, "any")}
    else:
        least = int(np.iinfo(dtype).min)
        values = {0: "all", -9999: "any", -32767: "any", -32768: "any", least: "any"}
        values = {value: rule for value, rule in values.items() if value >= least}
    return {value: rule for value, rule in values.items() if rule == "any" or image.nodata is None}


def warn_undeclared_nodata(images: Sequence[Raster]) -> None:
    """Warn of images that declare no nodata, but hold what looks like it; of many images, some are looked at.

    Images of servers are left out: their windows would be read twice, over a network. In a single band, 0 may be the
    sea and 255 snow, so that only values like -9999 and 65535 count.
    """
    suspects = {
        image: {
            value: rule
            for value, rule in _suspects(image).items()
            if rule == "any" or len(image.bands) > 1 or value > np.iinfo(np.uint8).max
        }
        for image in images
        if all(map(is_local, image.paths))
    }
    suspected = [image for image, values in suspects.items() if values]
    every = max(1, -(-len(suspected) // _MOST_IMAGES))
    found: list[Finding] = []
    for image in suspected[::every]:
        found += _findings(image, suspects[image], spread_windows(image, _SIDE, _FEW_PER_AXIS))
    for warning in deduplicated([finding for finding in found if finding.severity == "warning"]):
        log.warning("%s", warning.text)


def sample_windows(image: Raster) -> list[Window]:
    """Windows spread evenly over a raster, or over its area."""
    return spread_windows(image, _SIDE, _PER_AXIS)
