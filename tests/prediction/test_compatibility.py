"""Rasters of other pixel sizes and CRSs than the model's: refused with both values, or resampled."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from test_mapping import model_of, read, write

from landscribe import machine, verbs
from landscribe.errors import GridError, ModelError, OutputError, RecipeError, ResourceError
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.rasters.resampling import grid_of_pixel_size, resample_to
from landscribe.prediction.compatibility import conform
from landscribe.prediction.spec import PredictSpec
from networks import Identity, predict
from worlds import write_raster

SMALL = {"tile": 32, "margin": 0, "unit": 64}


def metres(side: float) -> dict:
    """Where a raster of such pixels lies."""
    return {"transform": Affine(side, 0, 500_000, 0, -side, 4_000_000)}


@pytest.fixture
def blocks() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, (70, 90)).astype(np.uint8)


def test_another_pixel_size_is_refused_with_both_and_the_remedies(tmp_path, blocks):
    raster = write(tmp_path / "image.tif", blocks, **metres(20))
    with pytest.raises(
        ModelError,
        match=r"image\.tif has pixels of 20 m, but the model was trained on 10 m\. Pass --resample .* --any-pixel-size",
    ):
        conform(model_of(Identity(), 4, pixel_size=10.0), raster, PredictSpec())


def test_selected_bands_are_not_reported_as_the_bands_of_the_raster(tmp_path, blocks):
    raster = write(tmp_path / "image.tif", blocks)
    with pytest.raises(
        ModelError, match=r"of \S*image\.tif 2 bands were chosen \(image, image\), but the model takes 1 \(v\)"
    ):
        conform(model_of(Identity(), 4), raster, PredictSpec(bands=(1, 1)))


def test_a_finer_raster_is_mapped_at_the_pixel_size_of_the_model(tmp_path, blocks):
    fine = write(tmp_path / "image.tif", blocks.repeat(3, 0).repeat(3, 1), **metres(1))
    model = model_of(Identity(), 4, pixel_size=3.001)
    predict(model, fine, tmp_path / "map.tif", spec=PredictSpec(**SMALL, resample=True))
    np.testing.assert_array_equal(read(tmp_path / "map.tif"), blocks)
    with rasterio.open(tmp_path / "map.tif") as made:
        assert made.transform.almost_equals(metres(3)["transform"])


@pytest.mark.parametrize(("side", "crs"), [(0.5, None), (3.3, None), (1.0, "EPSG:32618"), (2.0, "EPSG:4326")])
def test_an_identity_map_equals_the_resampled_raster(tmp_path, blocks, side, crs):
    blocks[10:20, 30:50] = 9
    raster = write(tmp_path / "image.tif", blocks, nodata=9)
    model = model_of(Identity(), 4, pixel_size=side)
    spec = PredictSpec(**SMALL, resample=True, crs=crs)
    predict(model, raster, tmp_path / "map.tif", spec=spec)
    target = grid_of_pixel_size(raster.grid, side, None if crs is None else CRS.from_string(crs))
    pixels, valid = resample_to(raster, target).read(target.window)
    np.testing.assert_array_equal(read(tmp_path / "map.tif"), np.where(valid, pixels[0], 255))
    with rasterio.open(tmp_path / "map.tif") as made:
        assert made.crs == CRS.from_string(crs or "EPSG:32617")
        assert made.transform.almost_equals(target.transform)


def test_a_compatible_raster_is_not_resampled(tmp_path, blocks):
    raster = write(tmp_path / "image.tif", blocks, **metres(10))
    model = model_of(Identity(), 4, pixel_size=9.0)
    for spec in (PredictSpec(resample=True), PredictSpec(crs="EPSG:32617"), PredictSpec(any_pixel_size=True)):
        assert conform(model, raster, spec).source is raster.source


def test_the_pixel_size_is_kept_if_the_model_has_none(tmp_path, blocks):
    raster = write(tmp_path / "image.tif", blocks, **metres(10))
    assert conform(model_of(Identity(), 4), raster, PredictSpec(resample=True)).source is raster.source
    there = conform(model_of(Identity(), 4), raster, PredictSpec(crs="EPSG:3857")).grid
    assert there.pixel_size == pytest.approx(10, rel=0.02)
    model = model_of(Identity(), 4, pixel_size=3.0)
    assert conform(model, raster, PredictSpec(crs="EPSG:3857")).grid.pixel_size == pytest.approx(3, rel=0.02)
    kept = conform(model, raster, PredictSpec(crs="EPSG:3857", any_pixel_size=True)).grid
    assert kept.pixel_size == pytest.approx(10, rel=0.02)


def test_a_raster_without_crs_cannot_be_resampled(tmp_path, blocks):
    raster = Raster.open([write_raster(tmp_path / "image.tif", blocks, crs=None)])
    model = model_of(Identity(), 4, pixel_size=3.0)
    with pytest.raises(ModelError, match=r"image\.tif has no CRS, so its pixel size is unknown"):
        conform(model, raster, PredictSpec(resample=True))
    with pytest.raises(ModelError, match=r"image\.tif has no CRS, so it cannot be reprojected to EPSG:32632"):
        conform(model, raster, PredictSpec(crs="EPSG:32632", any_pixel_size=True))


def test_an_invalid_crs_is_refused(tmp_path, blocks):
    with pytest.raises(GridError, match="'EPSG:1' is not a CRS"):
        conform(model_of(Identity(), 4), write(tmp_path / "image.tif", blocks), PredictSpec(crs="EPSG:1"))


def test_two_remedies_at_once_are_refused():
    with pytest.raises(RecipeError, match="resample and any_pixel_size exclude each other; choose one"):
        PredictSpec.of({"resample": True, "any_pixel_size": True})


def test_a_map_at_another_pixel_size_is_another_map(tmp_path, blocks):
    raster = write(tmp_path / "image.tif", blocks, **metres(2))
    model = model_of(Identity(), 4, pixel_size=1.0)
    predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL, any_pixel_size=True))
    with pytest.raises(OutputError, match=r"map\.tif .*overwrite"):
        predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL, resample=True))
    other, spec = Raster.open(raster.paths, nodata_rule="any"), PredictSpec(**SMALL, any_pixel_size=True)
    with pytest.raises(OutputError, match=r"map\.tif .*overwrite"):
        predict(model, other, tmp_path / "map.tif", spec=spec)


def test_files_of_a_scene_are_mapped_as_one_mosaic_without_seams(tmp_path, blocks):
    whole = blocks.repeat(2, 0).repeat(2, 1)
    (tmp_path / "tiles").mkdir()
    for row in (0, 60):
        for col in (0, 110):
            place = metres(1)["transform"] @ Affine.translation(col, row)
            part = whole[row : row + 80, col : col + 110] if (row, col) != (60, 110) else whole[100:120, 150:160]
            place = place if (row, col) != (60, 110) else metres(1)["transform"] @ Affine.translation(150, 100)
            write(tmp_path / "tiles" / f"{row}_{col}.tif", part, transform=place)
    model = model_of(Identity(), 4, pixel_size=2.0)
    (made,) = verbs.predict(
        model, [tmp_path / "tiles"], out=tmp_path / "map.tif", mosaic=True, resample=True, nodata_rule="any", **SMALL
    )
    known = np.zeros(whole.shape, bool)
    known[:80, :180] = known[60:140, :110] = known[100:120, 150:160] = True
    np.testing.assert_array_equal(read(made), np.where(known[::2, ::2], blocks, 255))


@pytest.mark.parametrize(("crs", "is_warned"), [("EPSG:32632", True), ("EPSG:32618", False), ("EPSG:3857", False)])
def test_a_crs_outside_its_area_of_use_is_warned_about(tmp_path, blocks, caplog, crs, is_warned):
    raster = write_raster(tmp_path / "image.tif", blocks, crs="EPSG:26918", descriptions=["v"], **metres(1))
    conform(model_of(Identity(), 4), Raster.open([raster]), PredictSpec(crs=crs))
    assert ("(6° to 12° E" in caplog.text) == is_warned


def test_a_further_model_of_another_pixel_size_is_refused_with_both(tmp_path, blocks):
    raster = write(tmp_path / "image.tif", blocks, **metres(1))
    model, other = (model_of(Identity(), 4, pixel_size=size) for size in (1.0, 10.0))
    with pytest.raises(
        ModelError, match=r"read in pixels of 1 m, but a further model of the ensemble was trained on 10 m"
    ):
        predict(model, raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL), ensemble=[other])
    spec = PredictSpec(**SMALL, any_pixel_size=True)
    assert predict(model, raster, tmp_path / "map.tif", spec=spec, ensemble=[other]).exists()


def test_a_crs_is_warned_about_once_by_a_whole_prediction(tmp_path, blocks, caplog):
    image = write_raster(tmp_path / "image.tif", blocks, crs="EPSG:26918", descriptions=["v"], **metres(1))
    verbs.predict(model_of(Identity(), 4), [image], out=tmp_path / "map.tif", crs="EPSG:32632", any_pixel_size=True)
    assert caplog.text.count("distortion there is large") == 1


@pytest.mark.parametrize("side", [1e-6, 0.1, 1e7])
def test_a_pixel_size_that_no_resampling_reaches_is_refused_with_both(tmp_path, blocks, side):
    raster = write(tmp_path / "image.tif", blocks, **metres(20))  # 70 x 90 pixels
    with pytest.raises(ModelError, match=r"image\.tif \(70 x 90 pixels of 20 m\) cannot be resampled to pixels of"):
        conform(model_of(Identity(), 4, pixel_size=side), raster, PredictSpec(resample=True))


def test_a_batch_that_needs_more_memory_than_there_is_is_refused_with_both(tmp_path, blocks, monkeypatch):
    write(tmp_path / "image.tif", blocks, **metres(10))
    monkeypatch.setattr(machine, "total_memory", lambda: 10**8)
    with pytest.raises(ResourceError, match=r"16 tiles of 32 x 32 .* at least \d\S* GB .* has 0\.1 GB.*--batch"):
        verbs.predict(
            model_of(Identity(), 4, pixel_size=10.0),
            [tmp_path / "image.tif"],
            out=tmp_path / "map.tif",
            **SMALL,
            batch=16,
        )
