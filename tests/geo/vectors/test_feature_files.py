"""Feature files that replace earlier ones."""

from pathlib import Path

import geopandas as gpd
import pyarrow as pa
import pyogrio
import pytest
import shapely

from landscribe.errors import OutputError
from landscribe.geo.features import Features
from landscribe.geo.vectors.feature_files import GEOMETRY_FIELD, FeatureStream, record_batch, write_features
from worlds import UTM, pixel_box

SCHEMA = pa.schema([pa.field("kind", pa.string()), GEOMETRY_FIELD])


def write(path: Path, kinds: list[str], row: int = 0) -> None:
    """Features of these kinds, in a row of pixels."""
    boxes = shapely.to_wkb([pixel_box(row, 4 * index, 2, 2) for index in range(len(kinds))])
    batch = record_batch([kinds, boxes], SCHEMA)
    write_features(FeatureStream(SCHEMA, lambda: iter([batch]), "Polygon", UTM.to_wkt(), "fields"), path)


@pytest.mark.parametrize("suffix", [".shp", ".SHP", ".gpkg", ".GPKG", ".fgb", ".FGB", ".GEOJSON", ".PARQUET"])
def test_a_feature_file_has_the_name_that_was_asked_for(tmp_path, suffix):
    write(tmp_path / f"h{suffix}", ["house", "road"])
    assert (tmp_path / f"h{suffix}").is_file()
    assert sorted(Features.read(tmp_path / f"h{suffix}", field="kind").labels) == ["house", "road"]


def test_geometries_never_have_the_columns_of_other_features(tmp_path, monkeypatch):
    path = tmp_path / "h.shp"
    write(path, ["old", "old"])
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    real = Path.replace

    def replace(self, target):
        if target == path and "finished" in self.parent.name:
            raise PermissionError(13, "in use")
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(OutputError, match="Nothing half-written was left"):
            write(path, ["new", "new", "new"], row=9)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    write(path, ["new", "new", "new"], row=9)
    assert list(gpd.read_file(path).kind) == ["new"] * 3


def test_the_spatial_index_of_an_old_shapefile_hides_no_feature_of_the_new_one(tmp_path):
    path = tmp_path / "h.shp"
    write(path, ["old"], row=500)
    pyogrio.write_dataframe(gpd.read_file(path), path, SPATIAL_INDEX="YES")  # as "Create spatial index" of QGIS
    assert path.with_suffix(".qix").exists()
    write(path, ["new"] * 51)
    assert len(gpd.read_file(path, bbox=tuple(pixel_box(0, 0, 10, 4 * 51).bounds))) == 51
