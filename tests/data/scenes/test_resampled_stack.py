"""`resample`: scenes whose files have other pixel sizes or another CRS than the first."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.warp import transform

from landscribe import pipeline, verbs
from landscribe.data.chips.chips import ChipReader
from landscribe.data.scenes.scene import open_image
from landscribe.data.scenes.spec import SceneSpec
from landscribe.errors import GridError
from landscribe.geo.inputs import open_rasters
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.spec import ImagerySpec
from landscribe.recipe import Recipe
from landscribe.runs import Run
from worlds import CORNER, noise, write_raster

SIDE = 128
HOLE = slice(20, 24)
"""Rows of the elevation model that are nodata."""
TEN, TWENTY = (Affine(side, 0, CORNER[0], 0, -side, CORNER[1]) for side in (10, 20))
NETWORK = {"encoder": "plain", "weights": "none", "options": {"encoder_widths": [8, 16]}, "steps": 2}


@pytest.fixture
def files(tmp_path) -> list[str]:
    """Imagery of 10 m outside its swath in the first columns, of 20 m, and a smooth elevation model in degrees."""
    ten, twenty = noise(4, SIDE, SIDE, "uint16"), noise(2, SIDE // 2, SIDE // 2, "uint16", seed=1)
    ten[:, :, :10], twenty[:, :, :5] = 0, 0
    # The corner lies at 9° E, 45.153° N.
    step = 1 / 3600
    rows, cols = np.mgrid[:80, :110]
    elevation = (100 + rows + 2 * cols).astype("int16")
    elevation[HOLE] = -32768
    return [
        str(write_raster(tmp_path / "s2_10m.tif", ten, transform=TEN, nodata=0)),
        str(write_raster(tmp_path / "s2_20m.tif", twenty, transform=TWENTY, nodata=0)),
        str(write_raster(
            tmp_path / "dem.tif", elevation, crs="EPSG:4326", transform=Affine(step, 0, 8.99, 0, -step, 45.155),
            nodata=-32768,
        )),
    ]  # fmt: skip


@pytest.fixture
def labels(tmp_path) -> str:
    values = 1 + np.indices((SIDE, SIDE)).sum(axis=0) // 16 % 2
    return str(write_raster(tmp_path / "labels.tif", values.astype("uint8"), transform=TEN))


@pytest.mark.parametrize("virtual", [False, True])
def test_chips_hold_the_resampling_that_predict_gives(files, labels, tmp_path, virtual):
    chips = verbs.chip(
        images=[files], labels=labels, out=tmp_path / "chips", size=32, val=0, test=0, resample=True, virtual=virtual
    )
    (mapped,) = open_rasters([files], ImagerySpec(), resample=True)
    reader = ChipReader(chips)
    assert len(chips) > 4
    assert chips.metadata.bands == mapped.bands
    for index, window in enumerate(chips.windows):
        pixels, valid = mapped.read(window)
        sample = reader.read(index)
        np.testing.assert_array_equal(sample.valid, valid)
        np.testing.assert_array_equal(sample.pixels, pixels)


def test_a_band_has_the_pixels_of_its_own_file_under_the_grid_of_the_first(files):
    image = open_image(SceneSpec(image=tuple(files), resample=True))
    pixels, valid = image.read(image.grid.window)
    with rasterio.open(files[0]) as ten, rasterio.open(files[2]) as dem:
        own = ten.read()
        x, y = ten.transform @ (np.arange(SIDE)[None, :] + 0.5, np.arange(SIDE)[:, None] + 0.5)
        lon, lat = (np.reshape(axis, x.shape) for axis in transform(ten.crs, dem.crs, x.ravel(), y.ravel()))
        col, row = ~dem.transform @ (lon, lat)
    in_hole = (row >= HOLE.start) & (row < HOLE.stop)
    assert in_hole.any()
    np.testing.assert_array_equal(valid, ~in_hole & (np.arange(SIDE) >= 10))
    np.testing.assert_array_equal(pixels[:4, valid], own[:, valid])
    # The elevation is a plane, which interpolation keeps, up to the rounding of whole numbers; but beside the hole.
    is_whole = valid & ((row < HOLE.start - 1) | (row > HOLE.stop + 1))
    plane = 100 + (row - 0.5) + 2 * (col - 0.5)
    assert np.abs(pixels[6] - plane)[is_whole].max() <= 0.5 + 0.05


@pytest.mark.parametrize("virtual", [False, True])
def test_a_run_on_files_of_other_grids_ends_with_a_map_on_the_grid_of_the_first(files, labels, tmp_path, virtual):
    settings = {"size": 32, "virtual": virtual, "tile": 64, "margin": 8, **NETWORK}
    run = pipeline.run(images=[files], labels=labels, out=tmp_path / "run", resample=True, **settings)
    recipe = Recipe.load(run / "recipe.toml")
    assert recipe.scenes[0].resample
    assert recipe.predict.resample
    mapped, image = Raster.open(Run(run).map_files), open_image(recipe.scenes[0])
    assert mapped.grid.is_aligned(image.grid)
    np.testing.assert_array_equal(mapped.read(mapped.grid.window)[1], image.read(image.grid.window)[1])
    assert Run(run).read_assessment()


def test_each_fold_maps_the_resampled_scene(files, labels, tmp_path):
    settings = {"size": 16, "folds": 3, "tile": 64, "margin": 8, **NETWORK}
    run = pipeline.run(images=[files], labels=labels, out=tmp_path / "run", scenes={"resample": True}, **settings)
    assert not Recipe.load(run / "recipe.toml").predict.resample
    assert Run(run).read_assessment()


def test_without_the_setting_files_of_other_grids_are_refused_with_it(files):
    with pytest.raises(GridError, match=r"s2_20m.tif is .* Expected one grid .*--resample \(in a recipe: resample\)"):
        open_image(SceneSpec(image=tuple(files)))
