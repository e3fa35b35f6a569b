"""Polygon files, each read and reprojected once for all scenes of a CRS."""

from typing import Any

from landscribe.geo.features import Features
from landscribe.geo.rasters.raster import Raster


class PolygonFiles:
    """Polygon files; each is read and reprojected once for all scenes of a CRS."""

    def __init__(self) -> None:
        self._features: dict[tuple[str, str | None, bool, Any], Features] = {}

    def on(self, image: Raster, path: str, *, field: str | None = None, fix_geometries: bool) -> Features:
        """The features of a file in the CRS of an image.

        Raises:
            LabelError: no feature intersects the image.
        """
        key = (path, field, fix_geometries, image.grid.crs)
        if key not in self._features:
            features = Features.read(path, field=field, fix_geometries=fix_geometries)
            self._features[key] = features.to_crs(image.grid.crs, image.paths[0])
        return self._features[key].require_overlap(image.grid, image.paths[0])
