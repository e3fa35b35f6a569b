"""Where a label would teach most: the places of a map that the network is least sure of."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import rasterio
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.windows import Window as RasterioWindow
from shapely.geometry import box

from landscribe.errors import OutputError
from landscribe.geo.grid import Grid, Window
from landscribe.maps.layers import UNCERTAINTY
from landscribe.outputs import atomic_file

PLACES = 20
"""How many are told."""

_SUFFIXES = (".gpkg", ".geojson")


@dataclass(frozen=True)
class Place:
    """A square that is worth labelling."""

    window: Window
    uncertainty: float
    """Mean over its valid pixels, 0 to 1."""


def least_sure(path: Path, side: int) -> list[Place]:
    """The squares of an uncertainty layer with the highest mean, none beside another: neighbours teach the same.

    Regions by their mean entropy as in Mackowiak et al. 2018, "CEREALS: Cost-effective region-based active learning
    for semantic segmentation", arXiv:1810.09726, without their estimate of costs.

    Args:
        path: the layer's file.
        side: of the squares, in pixels; at least half of one must be valid.
    """
    chosen: list[Place] = []
    for place in sorted(_squares(path, side), key=lambda place: -place.uncertainty):
        if len(chosen) == PLACES:
            break
        if all(place.window.distance_to(other.window) > 0 for other in chosen):
            chosen.append(place)
    return chosen


def _squares(path: Path, side: int) -> Iterator[Place]:
    with rasterio.open(path) as source:
        for row in range(0, source.height, side):
            strip = source.read(1, window=RasterioWindow(0, row, source.width, min(side, source.height - row)))
            for col in range(0, source.width, side):
                part = strip[:, col : col + side]
                valid = part != UNCERTAINTY.nodata
                if valid.sum() * 2 >= side * side:
                    yield Place(Window(row, col, *part.shape), float(part[valid].mean() * UNCERTAINTY.scale))


def require_readable_suffix(path: Path) -> None:
    """Raise OutputError for a file that is not to be a GeoPackage or GeoJSON."""
    if path.suffix.lower() not in _SUFFIXES:
        raise OutputError(
            f"{path} is no place for polygons. A name that ends with {' or '.join(_SUFFIXES)} was expected."
        )


def write_places(places: list[Place], grid: Grid, path: Path, run: str) -> None:
    """Write squares as polygons with `rank` (from 1) and `uncertainty`, in the raster's CRS, in GeoJSON in degrees.

    The file says of which run it is: see `run_of`.
    """
    frame = gpd.GeoDataFrame(
        {"rank": np.arange(1, len(places) + 1), "uncertainty": [round(place.uncertainty, 4) for place in places]},
        geometry=[box(*grid[place.window].bounds) for place in places],
        crs=grid.crs.to_wkt() if grid.crs else None,
    )
    is_json = path.suffix.lower() == ".geojson"
    if is_json and frame.crs:
        frame = frame.to_crs("EPSG:4326")  # the one that GeoJSON has (RFC 7946)
    with atomic_file(path) as temporary, warnings.catch_warnings():
        # Of a picture without a place on the Earth: so has been said where it was opened.
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        frame.to_file(temporary, layer="places", driver="GeoJSON" if is_json else "GPKG", DESCRIPTION=run)


def run_of(path: Path) -> str | None:
    """The run that wrote these places; None of what is no file of ours."""
    try:
        described: str | None = pyogrio.read_info(path)["layer_metadata"]["DESCRIPTION"]
    except (DataSourceError, DataLayerError, KeyError, TypeError):
        return None
    return described
