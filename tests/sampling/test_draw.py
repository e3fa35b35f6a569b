"""The random choice of units: laws on small maps, and numbers derived by hand."""

from dataclasses import replace

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import chisquare
from tests import worlds

from landscribe.errors import LandscribeError, SampleError
from landscribe.estimation.designs.hashes import pixel_hash
from landscribe.geo.classes import Classes
from landscribe.geo.rasters.raster import Raster
from landscribe.maps.class_map import CLASSES_TAG, classes_as_tag
from landscribe.sampling.draw import draw_sample
from landscribe.sampling.frame import BUFFER, OUTSIDE
from landscribe.sampling.plan import plan_sample
from landscribe.sampling.spec import SampleSpec

HEIGHT, WIDTH = 60, 50
VALUES = np.random.default_rng(1).choice([1, 2, 3, 255], (HEIGHT, WIDTH), p=[0.1, 0.3, 0.5, 0.1]).astype(np.uint8)
DESIGNS = {
    "stratified": {"size": 60},
    "neyman": {"size": 60, "allocation": "neyman"},
    "blocks": {"size": 40, "unit": 3, "allocation": "proportional"},
    "buffer": {"size": 60, "buffer_around": "1", "buffer": 2.5},
    "simple": {"design": "simple", "size": 60},
    "systematic": {"design": "systematic", "size": 60},
    "cluster": {"design": "cluster", "clusters": 6, "cluster_size": 9, "per_cluster": 8},
}


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    path = worlds.write_raster(tmp_path_factory.mktemp("maps") / "map.tif", VALUES, nodata=255)
    return Raster.open([path])


def drawn(mapped, **settings):
    return draw_sample(plan_sample(mapped, SampleSpec.of(settings)))


def drawn_in_strips(mapped, spec, rows):
    plan = plan_sample(mapped, spec)
    frame = replace(plan.frame, strip_pixels=rows * WIDTH)
    return draw_sample(replace(plan, frame=frame, counts=frame.count()))


@pytest.mark.parametrize("design", DESIGNS)
def test_a_sample_does_not_depend_on_the_height_of_the_strips(mapped, design):
    spec = SampleSpec.of(DESIGNS[design])
    whole = drawn_in_strips(mapped, spec, HEIGHT)
    for rows in (1, 7):
        part = drawn_in_strips(mapped, spec, rows)
        assert part.units.equals(whole.units)
        assert part.design.map == whole.design.map
        assert [each.units for each in part.design.strata] == [each.units for each in whole.design.strata]
    assert whole.design.map.sha256 == pixel_hash(mapped)


@given(
    values=arrays(
        np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=4, max_side=16), elements=st.sampled_from([1, 2, 255])
    ),
    seed=st.integers(0, 2**32 - 1),
    unit=st.integers(1, 3),
    design=st.sampled_from(["stratified", "simple", "systematic"]),
)
@settings(max_examples=15, deadline=None)
def test_a_sample_of_any_map_does_not_depend_on_the_height_of_the_strips(tmp_path_factory, values, seed, unit, design):
    path = worlds.write_raster(tmp_path_factory.mktemp("any") / "map.tif", values, nodata=255, crs=None)
    spec = SampleSpec.of({"size": 2, "design": design, "seed": seed, "unit": unit})
    samples = []
    for rows in (1, 7, values.shape[0]):
        try:
            plan = plan_sample(Raster.open([path]), spec)
            frame = replace(plan.frame, strip_pixels=rows * values.shape[1])
            samples.append(draw_sample(replace(plan, frame=frame, counts=frame.count())).units)
        except LandscribeError as error:
            samples.append(pd.DataFrame({"error": [str(error)]}))
    assert samples[0].equals(samples[1])
    assert samples[0].equals(samples[2])


@pytest.mark.parametrize("design", DESIGNS)
def test_a_seed_gives_one_sample_and_another_seed_another(mapped, design):
    first, same, other = (drawn(mapped, **DESIGNS[design], seed=seed).units for seed in (3, 3, 4))
    assert first.equals(same)
    assert not first[["row", "col"]].equals(other[["row", "col"]])


@pytest.mark.parametrize("design", ["stratified", "neyman", "simple", "systematic", "cluster"])
def test_units_are_distinct_valid_pixels_with_the_class_of_the_map(mapped, design):
    units = drawn(mapped, **DESIGNS[design]).units
    assert not units.duplicated(["row", "col"]).any()
    assert units["map"].astype(int).tolist() == VALUES[units["row"], units["col"]].tolist()
    assert sorted(units["id"]) == list(range(1, len(units) + 1))


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(6, 500))
@settings(max_examples=6)
def test_a_stratum_has_its_number_of_units_and_their_probability(mapped, seed, size):
    sample = drawn(mapped, size=size, allocation="proportional", seed=seed)
    for stratum in sample.design.strata:
        own = sample.units[sample.units["stratum"] == stratum.name]
        assert len(own) == stratum.drawn
        assert stratum.units == (stratum.value == VALUES).sum()
        assert own["probability"].to_numpy() == pytest.approx(stratum.drawn / stratum.units)
    assert sum(stratum.drawn for stratum in sample.design.strata) == size


def test_each_pixel_is_drawn_with_its_inclusion_probability(tmp_path):
    """Over 150 seeds, the counts of 30 pixels are those of equal chances."""
    values = np.full((6, 6), 255, np.uint8)
    values[1:, 1:] = 1
    values[1:, 0] = 2
    raster = Raster.open([worlds.write_raster(tmp_path / "map.tif", values, nodata=255, crs=None)])
    for settings_ in ({"design": "simple"}, {"design": "systematic"}):
        plan = plan_sample(raster, SampleSpec.of({"size": 5} | settings_))
        counts = np.zeros(values.shape)
        for seed in range(150):
            units = draw_sample(replace(plan, spec=plan.spec.model_copy(update={"seed": seed}))).units
            counts[units["row"], units["col"]] += 1
            assert units["probability"].to_numpy() == pytest.approx(5 / 30)
        assert counts[values == 255].sum() == 0
        assert chisquare(counts[values != 255]).pvalue > 0.001


def test_a_pixel_of_a_cluster_has_the_probabilities_of_both_stages_by_hand(tmp_path):
    # Squares of 4 pixels: 16, 8 and 2 valid pixels, and one square without any.
    values = np.full((8, 8), 255, np.uint8)
    values[:4, :4], values[:2, 4:], values[4, :2] = 1, 1, 1
    raster = Raster.open([worlds.write_raster(tmp_path / "map.tif", values, nodata=255)])
    sample = drawn(raster, design="cluster", clusters=3, cluster_size=4, per_cluster=4)
    by_cluster = sample.units.groupby("cluster")[["cluster_units", "probability"]].first()
    assert by_cluster["cluster_units"].tolist() == [16, 8, 2]
    assert by_cluster["probability"].tolist() == [4 / 16, 4 / 8, 1.0]
    assert (sample.design.clusters.count, sample.design.clusters.drawn) == (3, 3)
    assert sample.design.strata[0].units == 26


def test_a_systematic_sample_has_one_spacing(mapped):
    units = drawn(mapped, design="systematic", size=60).units
    spacing = np.sqrt((VALUES != 255).sum() / 60)
    for axis in ("row", "col"):
        gaps = np.diff(np.unique(units[axis]))
        assert set(gaps) <= {int(np.floor(spacing)), int(np.ceil(spacing))}


def test_a_block_has_the_majority_class_of_its_valid_pixels(tmp_path):
    values = np.array([[1, 1, 2, 2, 3], [255, 2, 255, 255, 3], [3, 3, 255, 255, 3], [3, 1, 255, 1, 3]], np.uint8)
    raster = Raster.open([worlds.write_raster(tmp_path / "map.tif", values, nodata=255)])
    # The last column holds no whole block; the block of one valid pixel is left out; 2 and 2 pixels give the lower.
    sample = drawn(raster, unit=2, allocation="1=1,2=1,3=1")
    by_corner = {(row, col): name for row, col, name in sample.units[["row", "col", "map"]].itertuples(index=False)}
    assert by_corner == {(0, 0): "1", (0, 2): "2", (2, 0): "3"}
    assert sorted(sample.units["area_m2"].round(1)) == [2.0, 3.0, 4.0]
    assert sample.units["side"].tolist() == [2, 2, 2]


def test_a_buffer_holds_the_pixels_within_its_distance(tmp_path):
    values = np.full((9, 9), 2, np.uint8)
    values[4, 4] = 1
    raster = Raster.open([worlds.write_raster(tmp_path / "map.tif", values)])
    frame = plan_sample(raster, SampleSpec.of({"size": 6, "buffer_around": "1", "buffer": 2.1})).frame
    codes = frame.read(raster.grid.window).strata
    rows, cols = np.mgrid[:9, :9] - 4
    assert ((codes == BUFFER) == ((np.hypot(rows, cols) <= 2.1) & (values == 2))).all()


@pytest.mark.parametrize(
    ("crs", "transform"),
    [("EPSG:4326", Affine(0.02, 0, 10, 0, -0.02, 71)), ("EPSG:3857", Affine(3000, 0, 1e6, 0, -3000, 11.2e6))],
)
def test_a_buffer_has_its_width_on_the_ground_at_every_latitude(tmp_path, crs, transform):
    values = np.full((300, 61), 2, np.uint8)
    values[:, 30] = 1
    raster = Raster.open([worlds.write_raster(tmp_path / "map.tif", values, crs=crs, transform=transform)])
    frame = plan_sample(raster, SampleSpec.of({"size": 6, "buffer_around": "1", "buffer": 9000})).frame
    near = frame.read(raster.grid.window).strata == BUFFER
    cols, rows = np.meshgrid(np.arange(61) + 0.5, np.arange(300) + 0.5)
    x, y = transform.c + transform.a * cols, transform.f + transform.e * rows
    lon, lat = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    distance = pyproj.Geod(ellps="WGS84").inv(lon, lat, np.broadcast_to(lon[:, 30:31], lon.shape), lat)[2]
    is_sure = (abs(distance / 9000 - 1) > 0.01) & (values == 2)
    np.testing.assert_array_equal(near[is_sure], distance[is_sure] < 9000)
    assert near.sum(axis=1).min() < 0.95 * near.sum(axis=1).max()
    # Rows that are read alone have the codes that they have in the whole.
    alone = np.concatenate([frame.read_rows(row).strata for row in range(300)])
    np.testing.assert_array_equal(alone == BUFFER, near)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [("EPSG:4326", Affine(1, 0, -180, 0, -1, 90.5)), ("ESRI:54009", Affine(1e5, 0, -1.9e7, 0, -1e5, 1e7))],
)
def test_a_buffer_is_drawn_on_maps_that_reach_beyond_the_earth(tmp_path, crs, transform):
    values = np.full((200 if crs == "ESRI:54009" else 181, 360), 2, np.uint8)
    values[:, 100] = 1
    raster = Raster.open([worlds.write_raster(tmp_path / "map.tif", values, crs=crs, transform=transform)])
    frame = plan_sample(raster, SampleSpec.of({"size": 6, "buffer_around": "1", "buffer": 99_000})).frame
    near = (frame.read(raster.grid.window).strata == BUFFER).sum(axis=1)
    # In the middle, pixels have 100 km and more.
    assert near[len(near) // 2] == 0 < near[:30].max()


def test_units_lie_inside_the_area(tmp_path, mapped):
    area = worlds.write_polygons(tmp_path / "area.gpkg", [worlds.pixel_box(10, 5, 20, 30)])
    sample = drawn(mapped, size=40, area=area)
    assert sample.units["row"].between(10, 29).all()
    assert sample.units["col"].between(5, 34).all()
    inside = VALUES[10:30, 5:35]
    assert sum(stratum.units for stratum in sample.design.strata) == (inside != 255).sum()
    assert sum(entry.units for entry in sample.design.classes) == (inside != 255).sum()


def test_strata_of_another_raster_share_the_sample(tmp_path, mapped):
    change = np.zeros((HEIGHT, WIDTH), np.uint8)
    change[:, :5] = 1
    strata = worlds.write_raster(tmp_path / "change.tif", change)
    sample = drawn(mapped, size=40, strata=strata, allocation="equal")
    assert sample.units["stratum"].value_counts().to_dict() == {"0": 20, "1": 20}
    assert ((sample.units["col"] < 5) == (sample.units["stratum"] == "1")).all()
    assert sample.design.strata_file == "change.tif"


def test_pixels_in_degrees_have_the_areas_of_their_rows(tmp_path):
    values = np.ones((40, 20), np.uint8)
    transform = Affine(0.5, 0, 10, 0, -0.5, 60)
    path = worlds.write_raster(tmp_path / "map.tif", values, crs="EPSG:4326", transform=transform)
    sample = drawn(Raster.open([path]), size=30)
    boxes = [shapely.box(10, 60 - 0.5 * (row + 1), 10.5, 60 - 0.5 * row) for row in sample.units["row"]]
    areas = gpd.GeoSeries(boxes, crs="EPSG:4326").to_crs("ESRI:54034").area
    assert sample.units["area_m2"].to_numpy() == pytest.approx(areas.to_numpy(), rel=1e-3)


def test_a_map_without_a_crs_has_no_areas(tmp_path):
    path = worlds.write_raster(tmp_path / "map.tif", VALUES, crs=None, transform=None, nodata=255)
    sample = drawn(Raster.open([path]), size=30)
    assert sample.units["area_m2"].isna().all()
    assert np.isnan(sample.design.strata[0].area_m2)


def test_the_order_of_ids_says_nothing_about_strata_or_rows(mapped):
    units = drawn(mapped, size=600, allocation="equal").units
    assert abs(np.corrcoef(units["id"], units["row"])[0, 1]) < 0.15
    assert abs(np.corrcoef(units["id"], units["stratum"].astype(int))[0, 1]) < 0.15


def test_an_unsampled_pixel_is_outside_of_the_frame(mapped):
    frame = plan_sample(mapped, SampleSpec.of({"size": 6})).frame
    assert ((frame.read(mapped.grid.window).strata == OUTSIDE) == (VALUES == 255)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 5000, "allocation": "equal"}, "the size of stratum 1 is .*, but it has"),
        ({"half_width": 0.005, "allocation": "equal"}, "a smaller size or a larger error, another allocation"),
        ({"size": 5000, "design": "simple"}, "the size is 5000, but the map has"),
        ({"allocation": "1=4,9=4"}, "allocation names '9'.*Known: 1, 2, 3"),
        ({"size": 60, "expected_accuracy": "forest=0.9"}, "expected_accuracy names 'forest'"),
        ({"size": 60, "buffer_around": "road", "buffer": 2}, "buffer_around names 'road'"),
        ({"size": 60, "buffer_around": "1", "buffer": 0.5}, "no sampling unit within 0.5 m of 1"),
        ({"size": 60, "unit": 500}, "no block of 500 x 500 pixels"),
        ({"design": "cluster", "clusters": 99, "cluster_size": 9, "per_cluster": 1}, "clusters is 99, but the map has"),
    ],
)
def test_a_sample_that_cannot_be_drawn_is_refused(mapped, settings, message):
    with pytest.raises(LandscribeError, match=message):
        drawn(mapped, **settings)


@pytest.mark.parametrize("allocation", ["neyman", "auto", "proportional", "equal"])
def test_any_allocation_reaches_the_precision_that_is_asked_for(mapped, allocation):
    plan = plan_sample(mapped, SampleSpec.of({"standard_error": 0.02, "allocation": allocation}))
    assert plan.expected.standard_error == pytest.approx(0.02, rel=0.01)
    assert plan.expected.standard_error <= 0.02
    ends = plan_sample(mapped, SampleSpec.of({"half_width": 0.03, "allocation": allocation})).expected
    assert (ends.upper - ends.lower) / 2 == pytest.approx(0.03, rel=0.01)
    assert (ends.upper - ends.lower) / 2 <= 0.03


def test_a_class_of_which_the_map_has_no_pixel_is_named(tmp_path, caplog):
    path = worlds.write_raster(tmp_path / "map.tif", np.ones((20, 20), np.uint8))
    with rasterio.open(path, "r+") as target:
        target.update_tags(**{CLASSES_TAG: classes_as_tag(Classes.from_labels([1, 2], background=False))})
    with caplog.at_level("INFO"):
        plan_sample(Raster.open([path]), SampleSpec.of({"size": 20}))
    assert "the map has no sampling unit of class 2. Its area" in caplog.text


def test_a_stratum_without_a_unit_is_a_warning_before_units_are_labelled(mapped, caplog):
    sample = drawn(mapped, allocation={"1": 20, "2": 20})
    assert "no unit of stratum 3" in caplog.text
    assert sample.units["stratum"].value_counts().to_dict() == {"1": 20, "2": 20}


def test_more_units_than_were_asked_for_are_a_warning(mapped, caplog):
    drawn(mapped, size=60)
    assert not caplog.messages
    sample = drawn(mapped, size=3)
    assert sample.units["stratum"].value_counts().unique().tolist() == [2]
    assert f"size is 3, but {len(sample.units)} units are to be drawn" in caplog.text


@pytest.mark.parametrize("rows", [4, 13, 105])
def test_mapped_pixels_that_no_block_holds_are_a_warning(tmp_path, caplog, rows):
    values = np.ones((105, 105), np.uint8)
    path = worlds.write_raster(tmp_path / "map.tif", values)
    plan = plan_sample(Raster.open([path]), SampleSpec.of({"size": 20, "unit": 10}))
    # 100 x 100 of 105 x 105 pixels.
    assert "9.3 % of the mapped pixels are in no block of 10 x 10 pixels" in caplog.text
    counts = replace(plan.frame, strip_pixels=rows * 105).count()
    assert counts.without_unit == pytest.approx(1 - 100**2 / 105**2)


def test_mapped_pixels_of_blocks_that_are_mostly_nodata_are_a_warning(tmp_path, caplog):
    values = np.ones((40, 40), np.uint8)
    values[:20, :6], values[20:, :4] = 0, 0  # of blocks of 10 pixels: 4 and 6 of 10 columns are mapped
    path = worlds.write_raster(tmp_path / "map.tif", values, nodata=0)
    drawn(Raster.open([path]), size=10, unit=10)
    assert f"{100 * 80 / (values > 0).sum():.2g} % of the mapped pixels are in no block" in caplog.text


def test_few_mapped_pixels_that_no_block_holds_are_no_finding(tmp_path, caplog):
    path = worlds.write_raster(tmp_path / "map.tif", np.ones((200, 201), np.uint8))
    assert plan_sample(Raster.open([path]), SampleSpec.of({"size": 20, "unit": 10})).counts.without_unit > 0
    assert plan_sample(Raster.open([path]), SampleSpec.of({"size": 20})).counts.without_unit == 0
    assert not caplog.text


def test_a_map_without_a_class_is_refused(tmp_path):
    path = worlds.write_raster(tmp_path / "map.tif", np.full((9, 9), 255, np.uint8), nodata=255)
    with pytest.raises(LandscribeError, match="has no sampling unit: expected pixels that have a class"):
        drawn(Raster.open([path]), size=5)


def test_strata_on_another_grid_are_refused_with_both_grids(tmp_path, mapped):
    strata = worlds.write_raster(tmp_path / "strata.tif", np.ones((9, 9), np.uint8))
    with pytest.raises(LandscribeError, match=r"9 x 9 pixels of 1 from .* but .*map.tif is 50 x 60 pixels of 1 from"):
        drawn(mapped, size=20, strata=strata)


def test_a_buffer_that_takes_too_much_memory_is_refused(mapped, monkeypatch):
    monkeypatch.setattr("landscribe.sampling.plan._MOST_NEAR", 10 * WIDTH)
    with pytest.raises(LandscribeError, match=r"is 11 pixels, too many for a map of 50 columns. Expected at most 10"):
        drawn(mapped, size=20, buffer_around="1", buffer=11)


def test_a_buffer_without_a_crs_is_refused(tmp_path):
    path = worlds.write_raster(tmp_path / "map.tif", VALUES, crs=None, transform=None, nodata=255)
    with pytest.raises(LandscribeError, match="has no CRS, so a buffer of 3 m cannot be counted in pixels"):
        drawn(Raster.open([path]), size=20, buffer_around="1", buffer=3)


def test_a_class_with_the_name_of_the_buffer_is_refused(tmp_path):
    path = worlds.write_raster(tmp_path / "map.tif", VALUES, nodata=255)
    classes = Classes(tuple(replace(entry, name=name) for entry, name in zip(
        Classes.from_labels([1, 2, 3], background=False), ("water", "land", "water buffer"), strict=True
    )))  # fmt: skip
    with rasterio.open(path, "r+") as target:
        target.update_tags(**{CLASSES_TAG: classes_as_tag(classes)})
    message = r"the buffer around 'water' is a stratum named 'water buffer', .* class of .*map\.tif\..*Rename the class"
    with pytest.raises(SampleError, match=message):
        drawn(Raster.open([path]), size=60, buffer_around="water", buffer=3)
    strata = drawn(Raster.open([path]), size=60, buffer_around="land", buffer=3).design.strata
    assert strata[-1].name == "land buffer"


# Strata of another raster -------------------------------------------------------------------------------------------


def strata_raster(folder, values, **options):
    return str(worlds.write_raster(folder / "strata.tif", values, **{"nodata": 0} | options))


def test_mapped_pixels_without_a_stratum_are_not_drawn_and_counted_in_a_warning(mapped, tmp_path, caplog):
    strata = np.ones((HEIGHT, WIDTH), np.uint8)
    strata[:, :20] = 0
    sample = drawn(mapped, size=30, strata=strata_raster(tmp_path, strata))
    assert sample.units["col"].min() >= 20
    share = 100 * (VALUES[:, :20] != 255).sum() / (VALUES != 255).sum()
    assert f"{share:.2g} % of the mapped pixels have no stratum in {tmp_path}" in caplog.text


def test_strata_beside_the_mapped_pixels_are_no_finding(mapped, tmp_path, caplog):
    sample = drawn(mapped, size=30, strata=strata_raster(tmp_path, np.ones((HEIGHT, WIDTH), np.uint8)))
    assert sample.design.strata[0].units == (VALUES != 255).sum()
    assert not caplog.text


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.zeros((HEIGHT, WIDTH), np.uint8), {}, r"no sampling unit: expected .* and a stratum in .*strata\.tif"),
        (np.full((HEIGHT, WIDTH), 0.5, np.float32), {}, r"strata\.tif holds 0\.5\. Expected class values"),
        (np.ones((HEIGHT, 9), np.uint8), {}, r"strata\.tif are 9 x 60 pixels .* Expected one grid\. Warp the strata"),
        (np.ones((HEIGHT, WIDTH), np.uint8), {"crs": "EPSG:3857"}, r"EPSG:3857, but .* Expected one grid"),
    ],
)
def test_strata_that_no_unit_can_have_are_refused(mapped, tmp_path, values, options, message):
    with pytest.raises(LandscribeError, match=message):
        drawn(mapped, size=30, strata=strata_raster(tmp_path, values, **options))


def test_a_sample_does_not_depend_on_the_type_of_the_maps_numbers(mapped, tmp_path):
    values = np.where(VALUES == 255, -9999, VALUES.astype(np.int16))
    wide = Raster.open([worlds.write_raster(tmp_path / "map.tif", values, nodata=-9999)])
    for design in DESIGNS.values():
        one, other = drawn(mapped, **design), drawn(wide, **design)
        assert one.units.equals(other.units)
        assert one.design == other.design


def test_strata_and_the_choices_of_the_form_have_the_names_and_colours_of_other_programs(tmp_path):
    path = worlds.write_raster(tmp_path / "map.tif", VALUES, nodata=255)
    names = "".join(f"<Category>{name}</Category>" for name in ("", "wood", "water", "", "", "ice"))
    (tmp_path / "map.tif.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames></PAMRasterBand></PAMDataset>'
    )
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {2: (0, 0, 255, 255)})
    sample = drawn(Raster.open([path]), size=60)
    assert [stratum.name for stratum in sample.design.strata] == ["wood", "water", "3"]
    assert [(own.name, own.value, own.units > 0) for own in sample.design.classes] == [
        ("wood", 1, True), ("water", 2, True), ("3", 3, True), ("ice", 5, False)
    ]  # fmt: skip
    assert sample.design.classes[1].colour == "#0000ff"


def test_a_class_table_names_the_strata_and_adds_classes_to_the_form(mapped, tmp_path):
    table = tmp_path / "classes.csv"
    table.write_text("value,name,colour\n1,wood,#00ff00\n2,water,\n3,town,\n9,wetland,\n")
    sample = drawn(mapped, size=60, class_table=str(table))
    assert [stratum.name for stratum in sample.design.strata] == ["wood", "water", "town"]
    assert [own.name for own in sample.design.classes if not own.units] == ["wetland"]
    table.write_text("value,name\n1,wood\n2,water\n")
    with pytest.raises(LandscribeError, match=r"map\.tif holds the value 3, which .*classes\.csv does not list \(1, 2"):
        drawn(mapped, size=60, class_table=str(table))


def test_an_allocation_to_a_stratum_outside_of_the_area_is_refused(mapped, tmp_path):
    strata = np.repeat(np.array([1, 2], np.uint8), WIDTH // 2)[None].repeat(HEIGHT, axis=0)
    area = str(worlds.write_polygons(tmp_path / "area.gpkg", [worlds.pixel_box(0, 0, 20, 20)]))
    given = {"strata": strata_raster(tmp_path, strata), "area": area}
    with pytest.raises(LandscribeError, match=r"allocation, inside .*area\.gpkg, names '2'\. Known: 1"):
        drawn(mapped, allocation="1=9,2=9", **given)
    assert [stratum.name for stratum in drawn(mapped, size=9, **given).design.strata] == ["1"]
