"""The verb of polygons: vectorize."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from landscribe.errors import RasterError
from landscribe.outputs import claim, output_path, require_absent, require_apart, scratch_folder

if TYPE_CHECKING:
    from landscribe.geo.rasters.raster import Raster
    from landscribe.polygons.class_codes import ClassCodes
    from landscribe.polygons.spec import VectorizeSpec
    from landscribe.verbs.keywords import VectorizeKeywords
    from landscribe.verbs.sources import PathLike


def vectorize(
    mapped: PathLike, *, out: PathLike, overwrite: bool = False, **settings: Unpack[VectorizeKeywords]
) -> Path:
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
    from landscribe.polygons.plan import plan_polygons
    from landscribe.polygons.vectorize import write_polygons

    require_feature_suffix(path)
    raster = Raster.open([mapped])
    objects = spec.object_probabilities
    if objects == "beside":
        objects = str(_objects_beside(Path(raster.paths[0])))
    probabilities, layers = (None if name is None else Raster.open([name]) for name in (spec.probabilities, objects))
    inputs = [name for each in (raster, probabilities, layers) if each is not None for name in each.paths]
    require_apart([path], {Path(name).resolve() for name in inputs})
    with claim(path), scratch_folder(path) as folder:
        require_absent(path, overwrite=overwrite)
        codes = ClassCodes.open(raster, spec.classes, spec.class_table, of_objects=spec.separates_objects)
        if spec.separates_objects:
            codes = _object_codes(codes, layers, spec, folder / "objects.tif")
        return write_polygons(plan_polygons(codes, spec, path, probabilities))


def _objects_beside(mapped: Path) -> Path:
    """The object probabilities that a run writes beside a map, map.tif or maps/NAME.tif."""
    candidates = (mapped.with_name("objects.tif"), mapped.absolute().parent.parent / "objects" / mapped.name)
    for path in candidates:
        if path.is_file():
            return path
    raise RasterError(
        f"{mapped} has no object probabilities beside it: neither {candidates[0]} nor {candidates[1]} is there. Name "
        "their file; predict writes it with --object-probabilities and a model of unet_id."
    )


def _object_codes(codes: ClassCodes, layers: Raster | None, spec: VectorizeSpec, out: Path) -> ClassCodes:
    """Codes of objects, whose raster is `out`, for codes of classes."""
    # These imports load torch, which polygons of classes do without.
    from landscribe.polygons.object_spec import ObjectSpec
    from landscribe.polygons.objects import object_codes

    return object_codes(codes, layers, ObjectSpec(minimum_distance=spec.minimum_distance), out)
