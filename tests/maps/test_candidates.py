"""Candidates: the most uncertain squares of a map, to label next."""

import time

import geopandas as gpd
import numpy as np
import pytest
import torch
from affine import Affine
from rasterio.crs import CRS
from test_mapping import model_of, read, write

from landscribe.errors import OutputError
from landscribe.geo.grid import Grid, Window
from landscribe.maps.candidates import MOST_CANDIDATES, Candidate, most_uncertain, write_candidates
from landscribe.prediction.spec import PredictSpec
from networks import predict
from worlds import METRE


class Sureness(torch.nn.Module):
    """As sure of class 0 as the pixel's value says."""

    reduction = 1

    def forward(self, x):
        return torch.cat([x, torch.zeros_like(x)], dim=1)


def test_candidates_are_the_most_uncertain_squares_without_neighbours(tmp_path):
    image = np.full((160, 160), 9, np.uint8)
    image[32:64, 32:64] = 0  # no idea at all
    image[32:64, 64:96] = 1  # beside it: would teach the same
    image[128:160, 96:128] = 2
    raster = write(tmp_path / "image.tif", image)
    model = model_of(Sureness(), 2, chip_size=32)
    predict(
        model, raster, tmp_path / "map.tif", spec=PredictSpec(tile=64, margin=0, unit=64),
        uncertainty=tmp_path / "u.tif", suggested_labels=tmp_path / "next.gpkg",
    )  # fmt: skip
    places = gpd.read_file(tmp_path / "next.gpkg")
    assert places.crs.to_epsg() == 32617
    assert places["rank"].tolist() == list(range(1, len(places) + 1))
    assert places["uncertainty"].is_monotonic_decreasing
    assert places.geometry[0].bounds == (500_032, 4_000_000 - 64, 500_064, 4_000_000 - 32)
    assert places["uncertainty"][0] == 1
    assert places.geometry[1].bounds == (500_096, 4_000_000 - 160, 500_128, 4_000_000 - 128)
    for one, other in zip(*np.triu_indices(len(places), 1), strict=True):
        assert places.geometry[one].distance(places.geometry[other]) > 0
    chosen = most_uncertain(tmp_path / "u.tif", 32)
    assert len(chosen) <= MOST_CANDIDATES
    assert [place.uncertainty for place in chosen] == pytest.approx(places["uncertainty"], abs=1e-4)


def test_uncertainty_is_the_entropy_as_a_share_of_the_highest(tmp_path):
    image = np.arange(6, dtype=np.uint8).reshape(2, 3).repeat(16, 0).repeat(16, 1)
    raster = write(tmp_path / "image.tif", image)
    predict(model_of(Sureness(), 2), raster, tmp_path / "map.tif", spec=PredictSpec(), uncertainty=tmp_path / "u.tif")
    share = 1 / (1 + np.exp(-image.astype(float)))
    expected = -(share * np.log(share) + (1 - share) * np.log(1 - share)) / np.log(2)
    assert np.abs(read(tmp_path / "u.tif") / 254 - expected).max() <= 0.5 / 254 + 1e-6


def test_geojson_has_degrees(tmp_path):
    raster = write(tmp_path / "image.tif", np.zeros((64, 64), np.uint8))
    model = model_of(Sureness(), 2, chip_size=64)
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(), suggested_labels=tmp_path / "next.geojson")
    places = gpd.read_file(tmp_path / "next.geojson")
    assert len(places) == 1
    assert -81.1 < places.geometry[0].centroid.x < -80.9  # the central meridian of UTM zone 17
    assert not (tmp_path / "map.tif.parts").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "image.tif", "map.qml", "map.tif", "map.tif.aux.xml", "next.geojson",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("epsg", "transform"),
    [(32760, Affine(10, 0, 819_200, 0, -10, 8_118_000)), (4326, Affine(1e-4, 0, 179.9976, 0, -1e-4, -17))],
)
def test_geojson_of_a_square_across_180_degrees_has_two_parts(tmp_path, epsg, transform):
    write_candidates([Candidate(Window(0, 0, 48, 48), 0.5)], Grid(CRS.from_epsg(epsg), transform, 48, 48),
                     tmp_path / "next.geojson", "run")  # fmt: skip
    (square,) = gpd.read_file(tmp_path / "next.geojson").geometry
    west, east = sorted(square.geoms, key=lambda part: -part.centroid.x)
    assert west.bounds[2] == 180
    assert east.bounds[0] == -180
    assert west.bounds[2] - west.bounds[0] + east.bounds[2] - east.bounds[0] == pytest.approx(0.0048, rel=0.1)


@pytest.mark.parametrize(("height", "width"), [(40, 50), (20, 200)])
def test_a_raster_smaller_than_a_chip_is_a_candidate(tmp_path, height, width):
    raster = write(tmp_path / "image.tif", np.zeros((height, width), np.uint8))
    model = model_of(Sureness(), 2, chip_size=64)
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(), suggested_labels=tmp_path / "next.gpkg")
    first = gpd.read_file(tmp_path / "next.gpkg").geometry[0]
    assert first.area == height * min(width, 64)


def test_a_map_without_candidates_says_so(tmp_path, caplog):
    image = np.full((64, 64), 255, np.uint8)
    image[:10, :10] = 0
    raster = write(tmp_path / "image.tif", image, nodata=255)
    model = model_of(Sureness(), 2, chip_size=64)
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(), suggested_labels=tmp_path / "next.gpkg")
    assert "no area is suggested for labelling: less than half of each square of 64 x 64 pixels" in caplog.text


def test_other_file_formats_are_refused_before_the_map_is_predicted(tmp_path):
    raster = write(tmp_path / "image.tif", np.zeros((64, 64), np.uint8))
    with pytest.raises(OutputError, match=r"next\.shp has no suffix for polygons"):
        predict(
            model_of(Sureness(), 2),
            raster,
            tmp_path / "map.tif",
            spec=PredictSpec(),
            suggested_labels=tmp_path / "next.shp",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["image.tif"]


def test_a_file_of_other_candidates_is_not_reused_for_a_finished_map(tmp_path):
    raster = write(tmp_path / "image.tif", np.zeros((64, 64), np.uint8))
    model, place = model_of(Sureness(), 2, chip_size=64), tmp_path / "next.gpkg"
    asked = {"spec": PredictSpec(), "uncertainty": tmp_path / "u.tif", "suggested_labels": place}
    predict(model, raster, tmp_path / "map.tif", **asked)
    own = place.stat().st_mtime_ns
    predict(model, raster, tmp_path / "map.tif", **asked)
    assert place.stat().st_mtime_ns == own
    gpd.read_file(place).to_file(place, layer="suggested_labels", driver="GPKG")
    with pytest.raises(OutputError, match=r"next\.gpkg exists already"):
        predict(model, raster, tmp_path / "map.tif", **asked)


def test_the_same_candidates_are_the_same_bytes_at_any_time(tmp_path):
    grid = Grid(CRS.from_epsg(32617), METRE, 64, 64)
    written = []
    for _ in range(2):
        write_candidates([Candidate(Window(0, 0, 32, 32), 0.5)], grid, tmp_path / "next.gpkg", "run")
        written.append((tmp_path / "next.gpkg").read_bytes())
        time.sleep(1.1)
    assert written[0] == written[1]
