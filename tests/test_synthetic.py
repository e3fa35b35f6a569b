"""The synthetic world: repeatable, with exact truth, every class, and files that QGIS reads."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.enums import ColorInterp
from rasterio.features import rasterize

from landscribe.synthetic import CLASSES, NODATA, World, draw, write

VALUES = {name: value for name, value, _ in CLASSES}


@pytest.fixture(scope="module")
def world() -> World:
    return draw(320, 288, seed=3, bands=4)


def test_same_arguments_draw_the_same_world(world: World) -> None:
    again = draw(320, 288, seed=3, bands=4)
    assert np.array_equal(again.image, world.image)
    assert np.array_equal(again.truth, world.truth)
    assert list(again.features["class"]) == list(world.features["class"])
    assert again.features.geometry.to_wkb().equals(world.features.geometry.to_wkb())


def test_another_seed_draws_another_world(world: World) -> None:
    other = draw(320, 288, seed=4, bands=4)
    assert (other.truth != world.truth).mean() > 0.1
    assert (other.image != world.image).mean() > 0.5


def test_drawing_does_not_touch_the_global_random_state() -> None:
    np.random.seed(0)  # noqa: NPY002 the legacy state is what is watched here
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    draw(64, 64)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_the_default_scene_is_rgb_of_half_metre_pixels_north_up_in_utm() -> None:
    plain = draw(256, 256)
    assert plain.image.shape == (3, 256, 256)
    assert plain.crs.to_epsg() == 32617
    assert plain.features.crs.to_epsg() == 4326
    assert (plain.transform.a, plain.transform.e) == (0.5, -0.5)
    assert (plain.transform.b, plain.transform.d) == (0, 0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_truth_is_the_reprojected_features_burnt_in_order(seed: int) -> None:
    drawn = draw(300, 260, seed=seed)
    back = drawn.features.to_crs(drawn.crs)
    burnt = np.zeros(drawn.truth.shape, dtype=np.uint8)
    for name in ("field", "water", "road", "house"):
        shapes = back.geometry[back["class"] == name]
        mask = rasterize(shapes, burnt.shape, transform=drawn.transform, dtype="uint8")
        burnt[mask == 1] = VALUES[name]
    seen = drawn.truth != NODATA
    assert (burnt[seen] != drawn.truth[seen]).mean() <= 0.001


@pytest.mark.parametrize("seed", range(5))
def test_every_class_is_present_from_256_pixels_on(seed: int) -> None:
    assert set(np.unique(draw(256, 256, seed=seed).truth)) == {0, 1, 2, 3, 4, NODATA}


@pytest.mark.parametrize("pixel_size", [0.1, 0.3, 2.0, 10.0])
def test_every_class_is_present_at_any_pixel_size(pixel_size: float) -> None:
    drawn = draw(256, 256, seed=1, pixel_size=pixel_size)
    assert set(np.unique(drawn.truth)) == {0, 1, 2, 3, 4, NODATA}
    assert drawn.transform.a == pixel_size


@pytest.mark.parametrize("bands", [3, 4])
def test_nodata_is_zero_in_every_band_and_nowhere_else(bands: int) -> None:
    drawn = draw(200, 260, seed=5, bands=bands)
    hidden = drawn.truth == NODATA
    assert 0.005 < hidden.mean() < 0.15
    assert (drawn.image[:, hidden] == 0).all()
    assert (drawn.image[:, ~hidden] >= 1).all()


def test_nodata_fills_one_corner_only(world: World) -> None:
    corners = world.truth[[0, 0, -1, -1], [0, -1, 0, -1]] == NODATA
    assert corners.sum() == 1


def test_nir_is_bright_on_vegetation_and_dark_on_water() -> None:
    drawn = draw(256, 256, seed=2, bands=4)
    nir = drawn.image[3].astype(float)
    assert nir[drawn.truth == VALUES["ground"]].mean() > 2 * nir[drawn.truth == VALUES["water"]].mean()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 300), (301, 67), (256, 97)])
def test_small_and_oblong_scenes_can_be_drawn(height: int, width: int) -> None:
    for seed in range(2):
        drawn = draw(height, width, seed=seed)
        assert drawn.image.shape == (3, height, width)
        assert drawn.truth.shape == (height, width)


@pytest.mark.parametrize(("height", "width", "seed"), [(320, 288, 3), (64, 64, 0), (200, 500, 7)])
def test_features_are_valid_polygons_inside_the_scene(height: int, width: int, seed: int) -> None:
    drawn = draw(height, width, seed=seed)
    assert list(drawn.features.columns) == ["class", "geometry"]
    assert set(drawn.features["class"]) == {"field", "water", "road", "house"}
    assert (drawn.features.geom_type == "Polygon").all()
    assert drawn.features.is_valid.all()
    assert not drawn.features.is_empty.any()
    left, bottom, right, top = rasterio.transform.array_bounds(height, width, drawn.transform)
    scene = shapely.box(left, bottom, right, top).buffer(1e-3)  # a millimetre for the way there and back
    assert drawn.features.to_crs(drawn.crs).within(scene).all()


@pytest.mark.parametrize("bands", [3, 4])
def test_written_scene_reads_back_as_drawn(tmp_path: Path, bands: int) -> None:
    drawn = draw(100, 140, bands=bands)
    path, _, _ = write(drawn, f"{tmp_path}/new/folder")
    with rasterio.open(path) as file:
        assert np.array_equal(file.read(), drawn.image)
        assert file.crs == drawn.crs
        assert file.transform == drawn.transform
        assert file.nodata == 0
        assert file.descriptions == ("red", "green", "blue", "nir")[:bands]
        assert file.colorinterp[:3] == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        assert ColorInterp.alpha not in file.colorinterp
        assert file.profile["tiled"]
        assert file.profile["compress"] == "deflate"


def test_written_truth_reads_back_with_the_colours_of_the_classes(tmp_path: Path) -> None:
    drawn = draw(100, 140)
    _, _, path = write(drawn, tmp_path)
    with rasterio.open(path) as file:
        assert np.array_equal(file.read(1), drawn.truth)
        assert (file.crs, file.transform, file.nodata) == (drawn.crs, drawn.transform, NODATA)
        for _, value, colour in CLASSES:
            assert file.colormap(1)[value][:3] == tuple(bytes.fromhex(colour[1:]))


def test_written_labels_read_back_as_valid_features(tmp_path: Path, world: World) -> None:
    scene, path, truth = write(world, tmp_path)
    assert [file.name for file in (scene, path, truth)] == ["scene.tif", "labels.geojson", "truth.tif"]
    labels = gpd.read_file(path)
    assert labels.crs.to_epsg() == 4326
    assert labels.is_valid.all()
    assert list(labels["class"]) == list(world.features["class"])
    shifted = labels.to_crs(world.crs).hausdorff_distance(world.features.to_crs(world.crs), align=False)
    assert shifted.max() < 0.001


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 63}, {"width": 0}, {"height": 64.5}, {"bands": 2}, {"pixel_size": 0}, {"pixel_size": float("nan")},
        {"pixel_size": 1e-9}, {"pixel_size": 400.0}, {"seed": -1}, {"seed": 1.5},
    ],
)  # fmt: skip
def test_impossible_arguments_of_a_world_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="impossible world"):
        draw(**wrong)  # type: ignore[arg-type]
