"""Polygon files, each read once, and reprojected once for each CRS."""

from dataclasses import replace
from typing import Any

import pyproj
import shapely

from landscribe.data.scenes.spec import SceneSpec
from landscribe.errors import LabelError, OutsideError
from landscribe.geo.features import Features, intersects
from landscribe.geo.grid import Grid, crs_label
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.reprojection import longitude_turn
from landscribe.geo.vectors.vector_files import stated_crs


class PolygonFiles:
    """Features by file and settings. All scenes, and the check before a run, share one of these."""

    def __init__(self) -> None:
        self._read: dict[tuple[Any, ...], Features] = {}
        self._reprojected: dict[tuple[Any, ...], Features] = {}

    def read(self, path: str, **options: Any) -> Features:
        """The features of a file, in its own CRS; `options` are those of `Features.read`.

        Raises:
            LabelError: the file cannot be read, or its geometries cannot be used.
        """
        key = (path, *sorted(options.items()))
        if key not in self._read:
            self._read[key] = Features.read(path, **options)
        return self._read[key]

    def reprojected(self, image: Raster, path: str, **options: Any) -> Features:
        """The features of a file in the CRS of an image.

        Raises:
            LabelError: as `read`, or the file has no CRS to reproject from.
        """
        key = (path, *sorted(options.items()), *_reprojection_key(image.grid))
        features = self._reprojected.get(key)
        if features is None:
            features = self.read(path, **options).to_crs_of(image.grid, image.paths[0])
            # A feature that is off this image may lie on another, on which it is refused.
            if not shapely.is_empty(features.geometries).any():
                self._reprojected[key] = features
        return features.at_longitudes_of(image.grid)

    def on(self, image: Raster, path: str, **options: Any) -> Features:
        """The features of a file in the CRS of an image.

        Raises:
            LabelError: as `reprojected`, or no feature intersects the image.
        """
        features = self.reprojected(image, path, **options)
        try:
            return features.require_overlap(image.grid, image.paths[0])
        except OutsideError as error:
            raise OutsideError(f"{error}{self._other_crs(image, path, options)}") from None

    def _other_crs(self, image: Raster, path: str, options: dict[str, Any]) -> str:
        """What the CRS of features that lie on no image may be, in words; empty if nothing hints at it."""
        features, stated = self.read(path, **options), options.get("crs")
        in_image = replace(features, crs=image.grid.crs)
        own = stated and f" --label-crs is {stated}."
        if features.crs == image.grid.crs or not intersects(in_image, image.grid):
            return own or ""
        code = crs_label(image.grid.crs)
        if stated:
            return f"{own} The coordinates would lie on the image in its own CRS: try --label-crs {code}."
        return (
            f" The coordinates would lie on the image in its own CRS ({code}). If that of the file is wrong, assign "
            f'another: "ogr2ogr -a_srs {code} out.gpkg {path}".'
        )


def label_options(spec: SceneSpec) -> dict[str, Any]:
    """How the label polygons of a scene are read: the options of `Features.read`."""
    return {
        "field": spec.label_field,
        "layer": spec.label_layer,
        "crs": spec.label_crs,
        "priority": spec.label_priority,
        "fix_geometries": spec.fix_geometries,
    }


def require_stated_crs(features: Features, spec: SceneSpec) -> None:
    """Refuse a `label_crs` that is not the CRS of the label file: it is for files that have none.

    Raises:
        LabelError: the file has another CRS.
    """
    if spec.label_crs is None:
        return
    stated, own = stated_crs(spec.label_crs), pyproj.CRS.from_user_input(features.crs)
    # Programs write one CRS in different ways; codes find those whose datum has another name.
    is_same = own.equals(stated, ignore_axis_order=True) or (own.to_epsg() or 0) == stated.to_epsg()
    if not is_same:
        raise LabelError(
            f"{features.name} is in {crs_label(own)}, but --label-crs is {spec.label_crs}, which is for files without "
            "a CRS. Leave it out; or, if the CRS of the file is wrong, assign another: "
            f'"ogr2ogr -a_srs {spec.label_crs} out.gpkg {features.name}".'
        )


def _reprojection_key(grid: Grid) -> tuple[Any, ...]:
    """What a reprojection depends on: the CRS, the size of a pixel, and the turn of its longitudes."""
    a, b, _, d, e, *_ = grid.transform
    return grid.crs, a, b, d, e, longitude_turn(grid)
