"""The verb of polygons: vectorize."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Unpack

from landscribe.errors import OutputError
from landscribe.outputs import claim, output_path, require_absent

if TYPE_CHECKING:
    from landscribe.verbs.keywords import VectorizeKeywords
    from landscribe.verbs.sources import Source


def vectorize(mapped: Source, *, out: Source, overwrite: bool = False, **settings: Unpack[VectorizeKeywords]) -> Path:
    """Turn a class map into polygons that fit together.

    Law: without simplification, rasterising the polygons gives the map back, pixel for pixel.

    Args:
        mapped: a class map of `predict`, or any raster of whole numbers.
        out: the file; its suffix chooses GeoPackage (.gpkg), FlatGeobuf (.fgb), GeoParquet (.parquet), GeoJSON
            (.geojson, in longitude and latitude) or Shapefile (.shp).
        overwrite: replace an existing file.
        settings: fields of VectorizeSpec.

    Returns:
        The file. Its columns: id, value and class (name), area_m2 and perimeter_m on the ground (null without a CRS),
        and probability if the settings name class probabilities.

    Raises:
        RasterError: the raster holds fractions or several bands, or a setting in metres finds no CRS.
        ClassError: a class that the raster does not have.
        OutputError: the file exists, cannot be written, or has an unknown suffix.

    >>> import landscribe as ls
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import geopandas as gpd
    >>> from landscribe.synthetic import draw, write
    >>> with TemporaryDirectory() as folder:
    ...     _, _, truth = write(draw(256, 192, seed=0), Path(folder))
    ...     file = ls.vectorize(truth, out=f"{folder}/truth.fgb", simplify="auto")
    ...     polygons = gpd.read_file(file)
    >>> list(polygons.columns)
    ['id', 'value', 'class', 'area_m2', 'perimeter_m', 'geometry']
    >>> bool(polygons.is_valid.all())
    True
    """
    from landscribe.polygons.spec import VectorizeSpec

    spec = VectorizeSpec.of(dict(settings))
    path = output_path(out)

    from landscribe.geo.rasters.raster import Raster
    from landscribe.geo.vectors.feature_files import require_feature_suffix
    from landscribe.polygons.class_codes import ClassCodes
    from landscribe.polygons.object_spec import ObjectSpec
    from landscribe.polygons.objects import object_codes
    from landscribe.polygons.plan import plan_polygons
    from landscribe.polygons.vectorize import write_polygons

    require_feature_suffix(path)
    raster = Raster.open([mapped])
    probabilities = None if spec.probabilities is None else Raster.open([spec.probabilities])
    inputs = {*raster.paths, *(probabilities.paths if probabilities else ())}
    if any(path.resolve() == output_path(name).resolve() for name in inputs):
        raise OutputError(f"{path} is an input. Nothing was changed. Choose another path.")
    with claim(path):
        require_absent(path, overwrite=overwrite)
        codes = ClassCodes.open(raster, spec.classes, spec.class_table)
        if not spec.separates_objects:
            return write_polygons(plan_polygons(codes, spec, path, probabilities))
        source = ObjectSpec(
            source="distance" if spec.split_touching else "heads", minimum_distance=spec.minimum_distance
        )
        layers = None if spec.object_probabilities is None else Raster.open([spec.object_probabilities])
        with TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name}.") as folder:
            codes = object_codes(codes, layers, source, Path(folder) / "objects.tif")
            return write_polygons(plan_polygons(codes, spec, path, probabilities))
