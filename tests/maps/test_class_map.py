"""Class maps: of any type of numbers, and the map of each scene."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from landscribe.errors import RasterError
from landscribe.estimation.designs.hashes import pixel_hash
from landscribe.geo.classes import Classes
from landscribe.geo.grid import Grid
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.rasters.whole_files import write_raster
from landscribe.maps.class_map import CLASSES_TAG, ClassMap, bands_of_classes, classes_as_tag, match_maps

WITHOUT_CRS = Grid(None, Affine.identity(), 4, 4)


def write(path: Path, grid: Grid) -> Raster:
    write_raster(path, np.ones((1, 4, 4), np.uint8), grid)
    return Raster.open([path])


def matched(maps: list[Raster], images: dict[str, Raster]) -> dict[str, str]:
    return {scene: mapped.name for scene, mapped in match_maps(maps, images).items()}


def test_a_map_belongs_to_the_scene_on_its_grid(tmp_path):
    here, there = (Grid(CRS.from_epsg(32617), Affine(1, 0, x, 0, -1, 0), 4, 4) for x in (0, 100))
    images = {"a": write(tmp_path / "a.tif", here), "b": write(tmp_path / "b.tif", there)}
    assert matched([write(tmp_path / "map_a.tif", there)], images) == {"b": "map_a"}
    assert matched([write(tmp_path / "1.tif", there), write(tmp_path / "2.tif", here)], images) == {"a": "2", "b": "1"}


def test_the_band_of_a_class_has_its_name_and_the_grid_of_the_map(tmp_path):
    here, there = (Grid(CRS.from_epsg(32617), Affine(1, 0, x, 0, -1, 0), 4, 4) for x in (0, 100))
    write_raster(tmp_path / "p.tif", np.ones((3, 4, 4), np.uint8), here)
    with rasterio.open(tmp_path / "p.tif", "r+") as target:
        target.descriptions = ("road", "field", "house")
    mapped, probabilities = write(tmp_path / "map.tif", here), Raster.open([tmp_path / "p.tif"])
    assert bands_of_classes(probabilities, mapped, ["field", "road"]).tolist() == [1, 0]
    with pytest.raises(RasterError, match=r"bands road, field, house, but no band water\. .* class of .*map\.tif"):
        bands_of_classes(probabilities, mapped, ["field", "water"])
    with pytest.raises(RasterError, match=r"from \(0, 0\) .* from \(100, 0\) in EPSG:32617\) lie on different grids"):
        bands_of_classes(probabilities, write(tmp_path / "there.tif", there), ["field"])


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        (["000_a", "001_a_b"], {"a": "000_a", "a_b": "001_a_b"}),
        (["map_a_b", "map_a"], {"a": "map_a", "a_b": "map_a_b"}),
        (["first", "second"], {"a": "first", "a_b": "second"}),
        (["a_b", "other"], {"a": "other", "a_b": "a_b"}),
        (["only"], {"a": "only", "a_b": "only"}),
    ],
)
def test_among_maps_on_one_grid_the_name_decides_then_the_order(tmp_path, maps, expected):
    (tmp_path / "maps").mkdir()
    images = {scene: write(tmp_path / f"{scene}.tif", WITHOUT_CRS) for scene in ("a", "a_b")}
    rasters = [write(tmp_path / "maps" / f"{name}.tif", WITHOUT_CRS) for name in maps]
    assert matched(rasters, images) == expected


VALUES = np.array([[0, 1, 127], [3, 1, 3]])
HOLES = np.array([[0, 0, 0], [1, 0, 0]], bool)


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("int8", -128), ("int16", -9999), ("uint16", 65535), ("int32", -(2**31)), ("uint32", 2**32 - 1),
        ("int64", 999), ("uint64", 300), ("float32", np.nan), ("float32", -3.4028234663852886e38), ("float64", -9999),
    ],
)  # fmt: skip
def test_a_map_of_any_type_is_that_of_bytes_and_its_nodata_stays_nodata(tmp_path, dtype, nodata):
    path = tmp_path / "map.tif"
    pixels = np.where(HOLES, nodata, VALUES).astype(dtype)
    write_raster(path, pixels[None], Grid(None, Affine.identity(), 2, 3), nodata=nodata)
    mapped = ClassMap.open(path)
    read, valid = mapped.raster.read(mapped.raster.grid.window)
    assert read.dtype == np.uint8
    copy = pickle.loads(pickle.dumps(mapped.raster))  # as Dask sends it
    assert copy.read(copy.grid.window)[0].tolist() == read.tolist()
    assert read[0].tolist() == np.where(HOLES, 0, VALUES).tolist()
    assert valid.tolist() == (~HOLES).tolist()
    assert mapped.classes == Classes.from_labels([0, 1, 3, 127], background=False)
    write_raster(path, np.where(HOLES, 255, VALUES).astype(np.uint8)[None], mapped.raster.grid, nodata=255)
    assert pixel_hash(mapped.raster) == pixel_hash(ClassMap.open(path).raster)


def test_nan_has_no_class_where_no_nodata_is_declared(tmp_path):
    pixels = np.where(HOLES, np.nan, VALUES).astype(np.float32)
    write_raster(tmp_path / "map.tif", pixels[None], Grid(None, Affine.identity(), 2, 3))
    assert ClassMap.open(tmp_path / "map.tif").values == [0, 1, 3, 127]


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (311, "int16", "311"), (-1, "int8", "-1"), (255, "int16", "255"), (2**32, "uint64", "4294967296"),
        (0.5, "float32", "0.5"), (1101, "float64", "1101"), (256, "uint16", "256"),
    ],
)  # fmt: skip
def test_other_numbers_are_refused_with_what_to_do(tmp_path, value, dtype, text):
    write_raster(tmp_path / "map.tif", np.full((1, 2, 3), value, dtype), Grid(None, Affine.identity(), 2, 3))
    mapped = ClassMap.open(tmp_path / "map.tif")  # nothing is read
    with pytest.raises(RasterError, match=rf"map\.tif holds {text}\. Expected .* from 0 to 254.*Reclassify") as caught:
        mapped.values  # noqa: B018
    assert ("-a_nodata" in str(caught.value)) == (value != 0.5)


def test_the_tag_of_a_map_wins_over_the_file_beside_it(tmp_path):
    path = tmp_path / "map.tif"
    tags = {CLASSES_TAG: classes_as_tag(Classes.from_labels(["wood"], background=True))}
    write_raster(path, np.ones((1, 4, 4), np.uint8), WITHOUT_CRS, tags=tags)
    names = "<CategoryNames><Category>a</Category><Category>b</Category></CategoryNames>"
    Path(f"{path}.aux.xml").write_text(f"<PAMDataset><PAMRasterBand>{names}</PAMRasterBand></PAMDataset>")
    assert ClassMap.open(path).classes.names == ("background", "wood")


def test_the_nodata_value_is_no_class_though_it_has_a_name(tmp_path):
    path = tmp_path / "map.tif"
    write_raster(path, np.ones((1, 4, 4), np.uint8), WITHOUT_CRS, nodata=0)
    names = "<CategoryNames><Category>no data</Category><Category>wood</Category></CategoryNames>"
    Path(f"{path}.aux.xml").write_text(f"<PAMDataset><PAMRasterBand>{names}</PAMRasterBand></PAMDataset>")
    assert ClassMap.open(path).classes.names == ("wood",)
