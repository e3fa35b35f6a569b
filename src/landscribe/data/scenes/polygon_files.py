"""Polygon files, each read once, and reprojected once for each CRS."""

from typing import Any

from landscribe.geo.features import Features
from landscribe.geo.rasters.raster import Raster


class PolygonFiles:
    """Features by file and settings. All scenes, and the check before a run, share one of these."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, str | None, bool], Features] = {}
        self._reprojected: dict[tuple[str, str | None, bool, Any], Features] = {}

    def read(self, path: str, *, field: str | None = None, fix_geometries: bool) -> Features:
        """The features of a file, in its own CRS.

        Raises:
            LabelError: the file cannot be read, or its geometries cannot be used.
        """
        key = (path, field, fix_geometries)
        if key not in self._read:
            self._read[key] = Features.read(path, field=field, fix_geometries=fix_geometries)
        return self._read[key]

    def reprojected(self, image: Raster, path: str, *, field: str | None = None, fix_geometries: bool) -> Features:
        """The features of a file in the CRS of an image.

        Raises:
            LabelError: as `read`, or the file has no CRS to reproject from.
        """
        key = (path, field, fix_geometries, image.grid.crs)
        if key not in self._reprojected:
            features = self.read(path, field=field, fix_geometries=fix_geometries)
            self._reprojected[key] = features.to_crs(image.grid.crs, image.paths[0])
        return self._reprojected[key]

    def on(self, image: Raster, path: str, *, field: str | None = None, fix_geometries: bool) -> Features:
        """The features of a file in the CRS of an image.

        Raises:
            LabelError: as `reprojected`, or no feature intersects the image.
        """
        features = self.reprojected(image, path, field=field, fix_geometries=fix_geometries)
        return features.require_overlap(image.grid, image.paths[0])
