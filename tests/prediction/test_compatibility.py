"""Rasters of other pixel sizes and CRSs than the model's: refused with both values, or resampled."""

import re

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from test_mapping import model_of, read, write

from landscribe import machine, verbs
from landscribe.errors import GridError, ModelError, OutputError, RecipeError, ResourceError
from landscribe.geo.rasters.derived.resampling import grid_of_pixel_size, resample_to
from landscribe.geo.rasters.encoding import Encoding
from landscribe.geo.rasters.raster import Raster
from landscribe.model import Model
from landscribe.prediction import plan
from landscribe.prediction.compatibility import conform
from landscribe.prediction.spec import PredictSpec
from networks import Identity, predict
from worlds import noise, write_raster

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


@pytest.mark.parametrize(
    ("names", "bands", "said"),
    [
        (
            ("nir", "green", "red"),
            (1, 2, 3),
            r"band 1 of \S*image\.tif is nir by its name.* model's red\..*--bands 3,2,1$",
        ),
        (("blue", "green", "red"), (3, 1, 2), r"band 2 of \S*image\.tif is green .* model's nir\..*other --bands$"),
        (("nir", "green", "red"), (3, 2, 1), None),
        (("Band 1", "Band 2", "Band 3"), (3, 2, 1), None),
        (("B1", "B2", "red"), (3, 2, 1), None),
    ],
)
def test_chosen_bands_whose_names_contradict_the_model_are_warned_about_once(tmp_path, caplog, names, bands, said):
    raster = Raster.open([write_raster(tmp_path / "image.tif", noise(3, 8, 9), descriptions=names)])
    model = Model.wrap(Identity(3), bands=["red", "green", "nir"], classes=["a", "b", "c"])
    conform(model, raster, PredictSpec(bands=bands))
    assert len(caplog.messages) == (said is not None)
    assert said is None or re.search(said, caplog.text.strip())


def test_bands_without_names_are_chosen_without_a_word(tmp_path, caplog):
    raster = write(tmp_path / "image.tif", noise(3, 8, 9).astype(np.uint16))
    model = Model.wrap(Identity(3), bands=raster.bands, classes=["a", "b", "c"], dtype="uint16")
    assert raster.bands == ("band1", "band2", "band3")
    conform(model, raster, PredictSpec(bands=(3, 2, 1)))
    assert caplog.text == ""


def test_a_raster_of_too_few_bands_is_to_be_stacked_and_of_one_of_too_many_bands_are_chosen(tmp_path, blocks):
    model = model_of(Identity(), 4)
    model = Model(model.network, model.config.model_copy(update={"bands": ("v", "w")}))
    one, three = (write(tmp_path / f"{count}.tif", np.stack([blocks] * count)) for count in (1, 3))
    with pytest.raises(
        ModelError, match=r"1\.tif has 1 band \(1\), but the model takes 2 \(v, w\)\. Stack it .*--stack"
    ):
        conform(model, one, PredictSpec())
    with pytest.raises(ModelError, match=r"3\.tif has 3 bands .*, but the model takes 2 \(v, w\)\. Choose .*--bands"):
        conform(model, three, PredictSpec())


def test_a_raster_of_another_dtype_is_to_be_converted_with_the_scaling_of_the_training(tmp_path, blocks):
    """Without -scale, GDAL makes 255 of all reflectances above 255."""
    raster = write(tmp_path / "image.tif", blocks.astype(np.uint16) * 1000)
    with pytest.raises(
        ModelError, match=r"is uint16, but .* trained on uint8\..*gdal_translate -ot Byte -scale MIN MAX 0 255"
    ):
        conform(model_of(Identity(), 4), raster, PredictSpec())


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


def test_resample_says_so_where_it_keeps_pixels_of_another_size(tmp_path, blocks, caplog):
    raster, resample = write(tmp_path / "image.tif", blocks, **metres(10)), PredictSpec(resample=True)
    with caplog.at_level("INFO"):
        conform(model_of(Identity(), 4, pixel_size=10.05), raster, resample)
        conform(model_of(Identity(), 4, pixel_size=9.0), raster, PredictSpec())
        assert not caplog.messages
        conform(model_of(Identity(), 4, pixel_size=9.0), raster, resample)
    (note,) = caplog.messages
    assert "image.tif keeps its pixels of 10 m: the model's are of 9 m" in note


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


@pytest.mark.parametrize("crs", ["EPSG:1", "EPSG:x", "x"])
def test_an_invalid_crs_is_refused(tmp_path, blocks, crs):
    with pytest.raises(GridError, match=f"'{crs}' is not a CRS"):
        conform(model_of(Identity(), 4), write(tmp_path / "image.tif", blocks), PredictSpec(crs=crs))


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
    # The middle of the image is on the central meridian of zone 18.
    position = "image.tif lies at 75.00° W, 36.14° N, outside the area of use of EPSG:32632 (6° E to 12° E, 0° N to"
    assert (position in caplog.text) == is_warned


@pytest.mark.parametrize(
    ("west", "crs", "is_warned"),
    [
        (179.8, "EPSG:32760", False),
        (179.8, "EPSG:32701", False),
        (183, "EPSG:32701", False),
        (-183.3, "EPSG:32760", False),
        (183, "EPSG:32760", True),
    ],
)
def test_an_area_of_use_counts_longitudes_in_turns_of_360_degrees(tmp_path, caplog, west, crs, is_warned):
    degrees = {"crs": "EPSG:4326", "transform": Affine(1e-3, 0, west, 0, -1e-3, -17), "descriptions": ["v"]}
    raster = Raster.open([write_raster(tmp_path / "image.tif", np.ones((100, 400), np.uint8), **degrees)])
    conform(model_of(Identity(), 4), raster, PredictSpec(crs=crs, any_pixel_size=True))
    assert ("outside the area of use" in caplog.text) == is_warned


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


def three_bands(path, names, array, scale=1.0, offset=0.0):
    """A raster with band names and tags."""
    write_raster(path, array, descriptions=names, **metres(10))
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (scale,) * 3, (offset,) * 3
    return Raster.open([path])


def model_of_three(**settings):
    return Model.wrap(Identity(2), bands=["red", "green", "nir"], classes=["a", "b"], dtype="uint16", **settings)


def test_bands_in_another_order_are_reordered_by_name(tmp_path):
    array = np.random.default_rng(0).integers(1, 9000, (3, 20, 30)).astype(np.uint16)
    raster = three_bands(tmp_path / "a.tif", ("nir", "red", "green"), array[[2, 0, 1]])
    np.testing.assert_array_equal(conform(model_of_three(), raster, PredictSpec()).read(raster.grid.window)[0], array)


def test_the_bands_of_the_model_are_chosen_by_name_from_a_raster_that_has_more(tmp_path):
    array = np.random.default_rng(0).integers(1, 9000, (4, 20, 30)).astype(np.uint16)
    raster = Raster.open([write_raster(tmp_path / "a.tif", array, descriptions=("nir", "blue", "red", "green"))])
    chosen = conform(model_of_three(), raster, PredictSpec())
    assert chosen.bands == ("red", "green", "nir")
    np.testing.assert_array_equal(chosen.read(raster.grid.window)[0], array[[2, 3, 0]])


def test_names_of_bands_are_compared_without_capitals_zeros_and_separators(tmp_path):
    array = np.random.default_rng(0).integers(1, 9000, (3, 20, 30)).astype(np.uint16)
    raster = three_bands(tmp_path / "a.tif", ("b_8", "B4", "b03"), array[[2, 0, 1]])
    model = Model.wrap(Identity(2), bands=["B04", "B03", "B08"], classes=["a", "b"], dtype="uint16")
    np.testing.assert_array_equal(conform(model, raster, PredictSpec()).read(raster.grid.window)[0], array)


def test_a_band_that_is_another_one_of_the_model_by_its_name_is_refused_unless_it_is_chosen(tmp_path, caplog):
    raster = three_bands(tmp_path / "a.tif", ("GREEN", "red", "height"), noise(3, 20, 30).astype(np.uint16))
    words = r"has the bands GREEN, red, height, but the model takes red, green, nir: by its name, band 1 \(GREEN\) is"
    with pytest.raises(ModelError, match=words):
        conform(model_of_three(), raster, PredictSpec())
    assert conform(model_of_three(), raster, PredictSpec(bands=(2, 1, 3))).bands == ("red", "GREEN", "height")
    assert caplog.text == ""


@pytest.mark.parametrize(("names", "is_said"), [(("a", "b", "c"), True), (("red", "green", "B8"), True), (None, False)])
def test_names_that_the_model_does_not_know_are_said_to_be_taken_in_their_order(tmp_path, caplog, names, is_said):
    array = noise(3, 20, 30).astype(np.uint16)
    raster = Raster.open([write_raster(tmp_path / "a.tif", array, descriptions=names)])
    with caplog.at_level("INFO"):
        assert conform(model_of_three(), raster, PredictSpec()).bands == raster.bands
    assert ("they are taken to be the same, in this order" in caplog.text) == is_said


def test_a_model_of_chosen_bands_without_names_keeps_the_order_of_a_copy_of_them(tmp_path):
    array = noise(3, 20, 30).astype(np.uint16)
    raster = write(tmp_path / "a.tif", array)
    model = Model.wrap(Identity(3), bands=["band3", "band2", "band1"], classes=["a", "b", "c"], dtype="uint16")
    np.testing.assert_array_equal(conform(model, raster, PredictSpec()).read(raster.grid.window)[0], array)


def test_bands_that_are_taken_by_name_from_more_are_said(tmp_path, caplog):
    array = noise(4, 8, 9).astype(np.uint16)
    raster = Raster.open([write_raster(tmp_path / "a.tif", array, descriptions=("nir", "blue", "red", "green"))])
    with caplog.at_level("INFO"):
        conform(model_of_three(), raster, PredictSpec())
    assert re.search(r"bands 3,4,1 of the 4 of \S*a\.tif are taken, by their names \(red, green, nir\)", caplog.text)


@pytest.mark.parametrize("names", [None, ("Band 1", "Band 2", "Band 3", "Band 4"), ("Band_1", "Band_2", "Band_3", "x")])
def test_positions_are_no_names_from_which_bands_are_chosen(tmp_path, names):
    array = noise(4, 8, 9).astype(np.uint16)
    raster = Raster.open([write_raster(tmp_path / "a.tif", array, descriptions=names)])
    bands = raster.bands[2::-1]
    model = Model.wrap(Identity(3), bands=bands, classes=["a", "b", "c"], dtype="uint16")
    with pytest.raises(ModelError, match=r"has 4 bands .*model takes 3 .*in the model's order.*--bands 3,2,1\.$"):
        conform(model, raster, PredictSpec())


def test_a_raster_with_other_tags_is_brought_to_the_numbers_of_the_training(tmp_path, caplog):
    """Sentinel-2 before and since baseline 04.00."""
    array = np.random.default_rng(0).integers(1, 9000, (3, 20, 30)).astype(np.uint16)
    names = ("red", "green", "nir")
    model = model_of_three(encoding=(Encoding(1e-4),) * 3, nodata=0)
    old = three_bands(tmp_path / "old.tif", names, array, 1e-4)
    array[:, 0, 0] = 0
    stored = array + np.uint16(1000) * (array > 0)
    new = three_bands(tmp_path / "new.tif", names, stored.astype(np.uint16), 1e-4, -0.1)
    assert conform(model, old, PredictSpec()).source is old.source
    with caplog.at_level("INFO"):
        pixels, valid = conform(model, new, PredictSpec()).read(new.grid.window)
    np.testing.assert_array_equal(pixels, array)
    assert np.argwhere(~valid).tolist() == [[0, 0]]
    assert "new.tif has scale 0.0001, offset -0.1: its numbers become scale 0.0001, offset 0" in caplog.text


def test_another_nodata_value_of_converted_numbers_is_another_map(tmp_path):
    array = np.random.default_rng(0).integers(0, 2000, (3, 20, 30)).astype(np.uint16)
    names = ("red", "green", "nir")
    path = three_bands(tmp_path / "new.tif", names, array, 1e-4, -0.1).paths[0]
    model, out = model_of_three(encoding=(Encoding(1e-4),) * 3), tmp_path / "map.tif"
    predict(model, Raster.open(path), out, spec=PredictSpec())
    with pytest.raises(OutputError, match=r"map with another rasters\.1\.nodata"):
        predict(model, Raster.open(path, nodata=0), out, spec=PredictSpec())


def test_tags_on_one_side_only_are_refused_and_the_remedy_maps_the_stored_numbers(tmp_path):
    array = np.ones((3, 20, 30), np.uint16)
    raster = three_bands(tmp_path / "new.tif", ("red", "green", "nir"), array, 1e-4, -0.1)
    with pytest.raises(ModelError, match=r"new.tif has scale 0.0001, offset -0.1, but the training.*--ignore-scale"):
        conform(model_of_three(), raster, PredictSpec())
    np.testing.assert_array_equal(
        conform(model_of_three(), raster, PredictSpec(ignore_scale=True)).read(raster.grid.window)[0], array
    )


def test_pixels_that_are_no_squares_do_not_pass_for_squares_of_their_area(tmp_path, blocks):
    raster = write(tmp_path / "image.tif", blocks, transform=Affine(4, 0, 500_000, 0, -16, 4_000_000))
    with pytest.raises(
        ModelError, match=r"has pixels of 4 x 16 m \(width x height\), but the model was trained on 8 m"
    ):
        conform(model_of(Identity(), 4, pixel_size=8.0), raster, PredictSpec())
    same = model_of(Identity(), 4, pixel_size=8.0, pixel_sides=(16.0, 4.0))
    assert conform(same, raster, PredictSpec()).source is raster.source
    square = write(tmp_path / "square.tif", blocks, **metres(20))
    with pytest.raises(ModelError, match=r"trained on pixels of 4 x 16 m .* but resampled pixels are squares"):
        conform(same, square, PredictSpec(resample=True))


def test_a_raster_in_a_local_crs_has_the_pixel_size_of_its_file(tmp_path, blocks):
    local = 'LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'
    raster = write(tmp_path / "image.tif", blocks, crs=local, **metres(2))
    assert conform(model_of(Identity(), 4, pixel_size=2.0), raster, PredictSpec()).source is raster.source


def test_a_crs_that_no_geotiff_can_hold_is_refused_before_the_map_would_lose_it(tmp_path, blocks):
    rotated = "+proj=ob_tran +o_proj=longlat +o_lat_p=39.25 +o_lon_p=0 +lon_0=18 +a=6367470 +b=6367470 +no_defs"
    raster = write(tmp_path / "image.tif", blocks, crs=rotated, transform=Affine(0.01, 0, 5, 0, -0.01, 50))
    with pytest.raises(GridError, match="a CRS that no GeoTIFF can hold"):
        predict(model_of(Identity(), 4), raster, tmp_path / "map.tif", spec=PredictSpec(**SMALL))
    assert not (tmp_path / "map.tif").exists()


@pytest.mark.parametrize("side", [1e-6, 0.1, 1e7])
def test_a_pixel_size_that_no_resampling_reaches_is_refused_with_both(tmp_path, blocks, side):
    raster = write(tmp_path / "image.tif", blocks, **metres(20))  # 70 x 90 pixels
    with pytest.raises(ModelError, match=r"image\.tif \(90 x 70 pixels of 20 m\) cannot be resampled to pixels of"):
        conform(model_of(Identity(), 4, pixel_size=side), raster, PredictSpec(resample=True))


def test_a_batch_that_needs_more_memory_than_there_is_is_refused_with_both(tmp_path, blocks, monkeypatch):
    write(tmp_path / "image.tif", blocks, **metres(10))
    monkeypatch.setattr(machine, "total_memory", lambda: 10**8)
    monkeypatch.setattr(plan, "_ALWAYS_FIT", 0)
    with pytest.raises(ResourceError, match=r"16 tiles of 32 x 32 .* at least \d\S* [MG]B .* has 100 MB.*--batch"):
        verbs.predict(
            model_of(Identity(), 4, pixel_size=10.0),
            [tmp_path / "image.tif"],
            out=tmp_path / "map.tif",
            **SMALL,
            batch=16,
        )
