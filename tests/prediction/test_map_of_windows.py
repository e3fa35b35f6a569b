"""Maps of some windows of a raster alone, and one map merged from the windows of several."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from landscribe.geo.classes import IGNORE, Classes
from landscribe.geo.features import Features
from landscribe.geo.grid import Grid, Window
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.burning import rasterize_mask
from landscribe.maps.assembly.cog import BandMetadata, merge
from landscribe.maps.layers import CLASS
from landscribe.maps.legends.style import colormap
from landscribe.maps.output_paths import OutputPaths
from landscribe.model import Model
from landscribe.prediction.mapping import write_map
from landscribe.prediction.spec import PredictSpec
from networks import Identity, plan_map
from worlds import METRE, UTM, write_raster

HEIGHT, WIDTH = 70, 90
WINDOWS = st.lists(
    st.builds(Window, st.integers(-5, HEIGHT), st.integers(-5, WIDTH), st.integers(1, 30), st.integers(1, 30)),
    min_size=1, max_size=4,
)  # fmt: skip


def inside(windows: list[Window]) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for window in windows:
        mask[(window & Window(0, 0, HEIGHT, WIDTH)).slices] = True
    return mask


def values(path: Path) -> np.ndarray:
    raster = Raster.open([path])
    pixels, valid = raster.read(raster.grid.window)
    return np.where(valid, pixels[0], IGNORE)


@pytest.mark.parametrize("georeference", [(None, Affine.identity()), (UTM, METRE)])
@given(windows=WINDOWS)
def test_windows_as_polygons_hold_the_centres_of_their_pixels(georeference, windows):
    grid = Grid(*georeference, HEIGHT, WIDTH)
    # As a worker of Dask gets them.
    polygons = pickle.loads(pickle.dumps(Features.of_windows("w", windows, grid)))
    assert (rasterize_mask(polygons, grid) == inside(windows)).all()


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """A raster of small patches, its model, and its whole maps with and without a minimum area, by that area."""
    folder = tmp_path_factory.mktemp("whole")
    patches = np.kron(np.random.default_rng(0).integers(0, 4, (HEIGHT // 5, WIDTH // 5)), np.ones((5, 5))).astype("u1")
    raster = Raster.open([write_raster(folder / "scene.tif", patches)])
    model = Model.wrap(Identity(), bands=["v"], classes=list("abcd"))
    whole = {}
    for area in (None, 60.0):
        spec = PredictSpec(tile=32, margin=4, unit=64, minimum_area=area)
        plan = plan_map(model, raster, spec, OutputPaths(folder / f"{area}.tif"))
        whole[area] = values(write_map(plan))
    assert (whole[None] != whole[60.0]).any()
    return raster, model, whole


@pytest.mark.parametrize("area", [None, 60.0])
@given(windows=WINDOWS)
@settings(max_examples=5)
def test_pixels_of_windows_are_as_if_all_was_mapped(mapped, tmp_path_factory, area, windows):
    raster, model, whole = mapped
    windows = [Window(0, 0, 3, 3), *windows]
    spec = PredictSpec(tile=32, margin=4, unit=64, minimum_area=area)
    out = OutputPaths(tmp_path_factory.mktemp("part") / "map.tif")
    plan = plan_map(model, raster, spec, out, windows=windows)
    part, mask = values(write_map(plan)), inside(windows)
    assert (part[mask] == whole[area][mask]).all()
    if area is None:
        assert (part[~mask] == IGNORE).all()


def test_other_windows_are_another_map(mapped, tmp_path):
    raster, model, _ = mapped
    plans = [
        plan_map(model, raster, PredictSpec(tile=32, margin=4), OutputPaths(tmp_path / "m.tif"), windows=own)
        for own in ([Window(0, 0, 5, 5)], [Window(0, 0, 5, 6)], None)
    ]
    assert len({plan.fingerprint.sha256 for plan in plans}) == 3


def test_a_merged_map_holds_the_windows_of_each_and_the_later_wins(tmp_path):
    grid = Grid(UTM, METRE, HEIGHT, WIDTH)
    files = [write_raster(tmp_path / f"{value}.tif", np.full((HEIGHT, WIDTH), value, "u1")) for value in (1, 2)]
    windows = [[Window(0, 0, 40, 40), Window(60, 80, 32, 32)], [Window(30, 30, 20, 20)]]
    classes = Classes.from_labels(["a", "b"], background=True)
    metadata = BandMetadata(("class",), {"NAME": "<me>"}, colormap(classes))
    merge(list(zip(files, windows, strict=True)), grid, CLASS, metadata, tmp_path / "merged.tif", {})
    expected = np.full((HEIGHT, WIDTH), IGNORE)
    for value, own in zip((1, 2), windows, strict=True):
        expected[inside(own)] = value
    assert (values(tmp_path / "merged.tif") == expected).all()
    assert Raster.open([tmp_path / "merged.tif"]).grid.is_aligned(grid)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.tif", "2.tif", "merged.tif"]
