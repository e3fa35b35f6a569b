"""Objects assessed: answers by hand, laws, and the values of pycocotools, torchmetrics and panoptica."""

import json
import logging

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rasterio.features import shapes
from scipy import ndimage
from torchmetrics.detection import PanopticQuality

import landscribe as ls
from instances import draw_instances, write_instances
from landscribe.assessment.objects.object_files import Objects
from landscribe.assessment.objects.object_measures import THRESHOLDS, measure_objects
from worlds import METRE, UTM, pixel_box, write_polygons, write_raster

SQUARES = [pixel_box(0, col, 10, 10) for col in (0, 20, 40, 60)]
BOW_TIE = shapely.Polygon([METRE @ corner for corner in ((0, 0), (9, 9), (9, 0), (0, 9))])


def assess(folder, predicted, reference, *, columns=None, reference_columns=None, **settings):
    """The assessment of two lists of polygons in UTM."""
    objects = write_polygons(folder / "objects.fgb", predicted, **(columns or {}))
    table = write_polygons(folder / "reference.fgb", reference, **(reference_columns or {}))
    return ls.assess_objects(objects, reference=table, **settings)


# ---- answers by hand


def test_squares_that_are_shifted_match_up_to_their_iou(tmp_path):
    # IoU of squares of 10 that are shifted by 0, 1, 2, 3: 100/100, 90/110, 80/120, 70/130.
    shifted = [pixel_box(0, col, 10, 10) for col in (0, 21, 42, 63)]
    result = assess(tmp_path, shifted, SQUARES)
    # At IoU 0.50, 0.55, 0.60, 0.65, 0.70 ... 0.95.
    assert result.precision.tolist() == [1, 0.75, 0.75, 0.75, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert result.recall.tolist() == result.f1.tolist() == result.precision.tolist()
    (measures,) = result.classes
    assert measures.segmentation_quality == pytest.approx((1 + 90 / 110 + 80 / 120 + 70 / 130) / 4)
    assert measures.recognition_quality == 1
    assert result.panoptic_quality == measures.segmentation_quality
    assert measures.oversegmentation == pytest.approx((0 + 0.1 + 0.2 + 0.3) / 4)
    assert measures.undersegmentation == pytest.approx(measures.oversegmentation)
    assert measures.area_iou == pytest.approx(340 / 460)
    assert measures.c_iou == measures.area_iou  # 16 vertices on both sides
    assert measures.count_ratio == measures.vertex_ratio == 1


def test_a_square_that_is_split_in_two_is_oversegmented_and_one_half_matches_at_one_half(tmp_path):
    result = assess(tmp_path, [pixel_box(0, 0, 10, 5), pixel_box(0, 5, 10, 5)], SQUARES[:1])
    (measures,) = result.classes
    assert (measures.oversegmentation, measures.undersegmentation) == (0.5, 0)
    assert measures.matches.tolist() == [1, *[0] * 9]
    assert (result.precision[0], result.recall[0]) == (0.5, 1)
    assert result.panoptic_quality == 0  # needs more than 0.5
    assert np.isnan(measures.segmentation_quality)
    assert (measures.count_ratio, measures.vertex_ratio) == (2, 2)
    assert measures.area_iou == pytest.approx(1)
    assert measures.c_iou == pytest.approx(1 - 4 / 12)


def test_two_squares_that_are_merged_are_undersegmented(tmp_path):
    (measures,) = assess(tmp_path, [pixel_box(0, 0, 10, 10)], [pixel_box(0, 0, 10, 5), pixel_box(0, 5, 10, 5)]).classes
    assert (measures.oversegmentation, measures.undersegmentation) == (0, 0.5)
    assert measures.count_ratio == 0.5


def test_objects_without_a_partner_are_false_positives_and_misses(tmp_path):
    result = assess(tmp_path, [*SQUARES[:2], pixel_box(50, 0, 9, 9)], SQUARES)
    assert (result.precision[0], result.recall[0], result.f1[0]) == (2 / 3, 2 / 4, 4 / 7)
    assert result.panoptic_quality == pytest.approx(2 / (2 + 0.5 * 1 + 0.5 * 2))


@pytest.mark.parametrize("suffix", ["gpkg", "geojson"])
def test_a_file_without_objects_misses_all_reference_objects(tmp_path, suffix, caplog):
    objects = tmp_path / f"objects.{suffix}"
    gpd.GeoDataFrame({"kind": [], "score": []}, geometry=[], crs=UTM if suffix == "gpkg" else 4326).to_file(objects)
    reference = write_polygons(tmp_path / "reference.fgb", SQUARES, kind=["a", "a", "b", "b"])
    area = write_polygons(tmp_path / "area.fgb", [pixel_box(-10, -10, 30, 100)])
    result = ls.assess_objects(
        objects, reference=reference, label_field="kind", labelled_area=str(area), tolerance=1, score_field="score"
    )
    assert (result.f1[0], result.recall[0], result.panoptic_quality, result.boundary_f1) == (0, 0, 0, 0)
    assert np.isnan(result.precision).all()
    assert (result.average_precision, result.score_field) == (0, "score")
    assert [(measures.name, measures.predicted, measures.reference) for measures in result.classes] == [
        ("a", 0, 2), ("b", 0, 2),
    ]  # fmt: skip
    assert "holds no objects" in caplog.text


@pytest.mark.parametrize("side", ["objects", "reference"])
def test_dissolved_polygons_are_named_as_the_cause_of_no_match(tmp_path, side, caplog):
    dissolved = [shapely.MultiPolygon(SQUARES)]
    sides = (dissolved, SQUARES) if side == "objects" else (SQUARES, dissolved)
    assert assess(tmp_path, *sides).f1[0] == 0
    assert f"{side}.fgb: 1 features have 4 parts" in caplog.text
    assert "vectorize without --dissolve" in caplog.text


def test_an_empty_file_without_a_score_column_has_no_average_precision(tmp_path):
    objects, reference = tmp_path / "objects.gpkg", write_polygons(tmp_path / "reference.fgb", SQUARES)
    gpd.GeoDataFrame({"kind": []}, geometry=[], crs=UTM).to_file(objects)
    assert np.isnan(ls.assess_objects(objects, reference=reference).average_precision)


def test_classes_that_are_compared_as_one_are_named(tmp_path, caplog):
    kinds, names = ["a", "a", "b", "b"], {"name": ["w", "x", "y", "z"]}
    mixed = {"columns": {"class": kinds} | names, "reference_columns": {"class": kinds[::-1]} | names}
    result = assess(tmp_path, SQUARES, SQUARES, **mixed)
    assert (len(result.classes), result.f1[0]) == (1, 1)
    assert "both files have a column 'class' with a, b. To compare class by class, pass --label-field" in caplog.text
    caplog.clear()
    assert assess(tmp_path, SQUARES, SQUARES, label_field="class", **mixed).f1[0] == 0
    assess(tmp_path, SQUARES, SQUARES, columns=names, reference_columns=names)
    assess(tmp_path, SQUARES, SQUARES, columns={"class": ["a"] * 4}, reference_columns={"class": ["a"] * 4})
    assert "one class" not in caplog.text


def test_objects_of_several_parts_are_one_object(tmp_path):
    parts = shapely.MultiPolygon([SQUARES[0], SQUARES[1]])
    result = assess(tmp_path, [parts], [parts, SQUARES[3]], tolerance=1)
    assert (result.precision[0], result.recall[0]) == (1, 0.5)
    assert result.classes[0].vertices == (8, 12)
    assert result.classes[0].boundary_recall == pytest.approx(2 / 3)


def test_area_that_objects_of_one_file_share_counts_once(tmp_path):
    twice = [pixel_box(0, 0, 10, 10), pixel_box(0, 0, 10, 10), pixel_box(0, 5, 10, 10)]
    (measures,) = assess(tmp_path, twice, [pixel_box(0, 0, 10, 10)]).classes
    assert measures.area_iou == pytest.approx(100 / 150)


def test_the_average_precision_of_two_matches_around_a_false_positive(tmp_path):
    predicted = [SQUARES[0], pixel_box(50, 0, 9, 9), SQUARES[1]]
    result = assess(tmp_path, predicted, SQUARES[:2], columns={"score": [0.9, 0.8, 0.7]})
    # Precision is 1 up to recall 0.5 (51 of 101 recalls), then 2 / 3.
    assert result.average_precision == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert result.score_field == "score"


def test_the_probabilities_of_a_shapefile_are_scores(tmp_path):
    values = np.zeros((10, 40), np.uint8)
    values[2:8, 2:8] = values[2:8, 20:26] = 1
    mapped = write_raster(tmp_path / "map.tif", values)
    shares = np.stack([1 - values, np.where(np.arange(40) < 15, 0.6, 0.9) * values]).astype(np.float32)
    layers = write_raster(tmp_path / "p.tif", shares, descriptions=("0", "1"))
    reference = write_polygons(tmp_path / "reference.fgb", [pixel_box(2, 20, 6, 6)])
    for name, field in (("o.shp", "prob"), ("o.fgb", "probability")):
        objects = ls.vectorize(mapped, out=tmp_path / name, probabilities=layers)
        result = ls.assess_objects(objects, reference=reference)
        # The house without a reference has the lower score.
        assert (result.score_field, result.average_precision, result.precision[0]) == (field, 1, 0.5)


def test_without_scores_there_is_no_average_precision(tmp_path):
    result = assess(tmp_path, SQUARES, SQUARES)
    assert np.isnan(result.average_precision)
    assert result.as_dict()["average_precision"] is None


def test_a_score_column_that_nobody_named_may_be_unusable(tmp_path, caplog):
    result = assess(tmp_path, SQUARES[:2], SQUARES[:2], columns={"score": [0.5, None]})
    assert (result.score_field, result.f1[0]) == (None, 1)
    assert "holds nan in feature" in caplog.text


def test_boundaries_of_a_shifted_square_agree_within_the_tolerance(tmp_path):
    shifted = [pixel_box(0, 2, 10, 10)]
    assert assess(tmp_path, shifted, SQUARES[:1], tolerance=2.1).boundary_f1 == 1
    # Of the sides along the shift, 8 of 10 m are shared and 1.5 m more are near a corner. The others are 2 m apart: of
    # the one inside, 1.5 m at either end are near a side along the shift.
    (measures,) = assess(tmp_path, shifted, SQUARES[:1], tolerance=1.5).classes
    assert measures.boundary_precision == pytest.approx((2 * 9.5 + 2 * 1.5) / 40, abs=1e-3)
    assert measures.boundary_recall == pytest.approx(measures.boundary_precision)


@pytest.mark.parametrize("x", [250_000, 500_000, 750_000])
def test_outlines_that_are_the_tolerance_apart_agree_anywhere_in_the_zone(tmp_path, x):
    """In the middle of a zone of UTM, two metres of the grid are 2.0008 m on the ground."""
    square, shifted = (shapely.box(x + step, 5e6, x + step + 20, 5e6 + 20) for step in (0, 2))
    result = assess(tmp_path, [shifted], [square], tolerance=2)
    assert result.boundary_f1 == 1


# ---- the edge of the labelled area


@pytest.mark.parametrize("kind", ["polygons in degrees", "polygons", "raster"])
def test_objects_at_the_edge_of_the_labelled_area_take_no_part(tmp_path, kind, caplog):
    # Of 30 x 30 pixels: one whole square each, one cut by the edge, one that touches it, one outside.
    inside, cut, touching, outside = (pixel_box(10, col, 6, 6) for col in (10, 27, 24, 50))
    area = tmp_path / ("area.tif" if kind == "raster" else "area.fgb")
    if kind == "raster":
        write_raster(area, np.zeros((30, 30), np.uint8))
    else:
        box = gpd.GeoSeries([pixel_box(0, 0, 30, 30)], crs=UTM)
        box.to_crs("EPSG:4326" if kind.endswith("degrees") else UTM).to_file(area)
    # A part of the square that is cut lies inside: it is no false positive.
    part = pixel_box(10, 27, 6, 2)
    with caplog.at_level(logging.INFO):
        result = assess(
            tmp_path, [inside, part, touching, outside], [inside, cut, touching], labelled_area=area
        )  # fmt: skip
    assert result.left_out == (3, 2)
    assert (result.classes[0].predicted, result.classes[0].reference, result.f1[0]) == (1, 1, 1)
    assert "3 of 4 objects and 2 of 3 reference polygons are left out" in caplog.text
    # The part of the square is whole.
    assert "cuts 2 and 2 of them, or they lie outside; 1 and 0 whole ones could match" in caplog.text


def test_a_reference_object_under_an_object_that_is_cut_is_no_miss(tmp_path):
    area = write_polygons(tmp_path / "area.gpkg", [pixel_box(0, 0, 30, 30)])
    whole, cut = pixel_box(10, 10, 6, 6), pixel_box(20, 18, 6, 14)
    result = assess(tmp_path, [whole, cut], [whole, pixel_box(20, 18, 6, 8)], labelled_area=area)
    assert (result.left_out, result.recall[0]) == ((1, 1), 1)


@pytest.mark.parametrize("side", ["predicted", "reference"])
def test_a_cut_object_that_merges_many_excuses_none_of_them(tmp_path, side):
    # Of 30 x 30 pixels: four houses of 6 x 6, one of them right; the others lie under an object of 22 x 8 that is cut.
    area = write_polygons(tmp_path / "area.gpkg", [pixel_box(0, 0, 30, 30)])
    houses = [pixel_box(21, col, 6, 6) for col in (5, 12, 19)] + [pixel_box(2, 2, 6, 6)]
    merged = [houses[3], pixel_box(20, 4, 14, 22)]
    both = (merged, houses) if side == "predicted" else (houses, merged)
    result = assess(tmp_path, *both, labelled_area=area)
    (measures,) = result.classes
    assert result.left_out == ((1, 0) if side == "predicted" else (0, 1))
    assert (measures.predicted, measures.reference) == ((1, 4) if side == "predicted" else (4, 1))
    assert (result.precision[0], result.recall[0]) == ((1, 0.25) if side == "predicted" else (0.25, 1))


@pytest.mark.parametrize("side", ["predicted", "reference"])
@pytest.mark.parametrize(("others", "kinds", "left_out"), [
    # Inside the area, a cut object has 5 x 12 pixels. One of 5 x 6 has IoU 30/60 with it, one of 5 x 5 has 25/60.
    ([(20, 18, 5, 6)], "a", 1),
    ([(20, 18, 5, 5)], "a", 0),
    ([(20, 18, 5, 6)], "b", 0),
    ([(20, 18, 5, 5), (20, 23, 5, 6)], "aa", 1),
    # One of 12 x 10 has IoU 50/130, one of 8 x 11 has 55/93.
    ([(17, 18, 12, 10)], "a", 0),
    ([(17, 18, 8, 11)], "a", 1),
])  # fmt: skip
def test_objects_are_left_out_whose_iou_with_the_inner_part_is_a_half(tmp_path, side, others, kinds, left_out):
    area = write_polygons(tmp_path / "area.gpkg", [pixel_box(0, 0, 30, 30)])
    one, other = pixel_box(2, 2, 6, 6), pixel_box(2, 12, 6, 6)
    first = [pixel_box(20, 18, 5, 40), one, other], list("aab")
    second = [*(pixel_box(*box) for box in others), one, other], [*kinds, *"ab"]
    (predicted, columns), (true, true_columns) = (first, second) if side == "predicted" else (second, first)
    result = assess(
        tmp_path, predicted, true, labelled_area=area, label_field="kind", columns={"kind": columns},
        reference_columns={"kind": true_columns},
    )  # fmt: skip
    assert result.left_out == ((1, left_out) if side == "predicted" else (left_out, 1))


def test_false_objects_inside_a_cut_polygon_of_another_class_are_false(tmp_path):
    area = write_polygons(tmp_path / "area.gpkg", [pixel_box(0, 0, 40, 40)])
    houses = [pixel_box(2, 2 + 8 * index, 4, 4) for index in range(3)]
    inside_field = [pixel_box(12 + 8 * (index // 4), 2 + 8 * (index % 4), 4, 4) for index in range(12)]
    field = pixel_box(10, 0.5, 40, 35)
    result = assess(
        tmp_path, houses + inside_field, [*houses, field], labelled_area=area, label_field="kind",
        columns={"kind": ["house"] * 15}, reference_columns={"kind": ["house"] * 3 + ["field"]},
    )  # fmt: skip
    assert result.left_out == (0, 1)
    (measures,) = (row for row in result.classes if row.name == "house")
    assert (measures.predicted, measures.reference, result.precision[0]) == (15, 3, 3 / 15)


@pytest.mark.parametrize("side", ["predicted", "reference"])
def test_objects_of_one_file_alone_in_the_labelled_area_are_measured(tmp_path, side, caplog):
    area = write_polygons(tmp_path / "area.fgb", [pixel_box(0, 0, 30, 30)])
    inside, outside = [pixel_box(10, 10, 6, 6), pixel_box(60, 60, 6, 6)], [pixel_box(60, 60, 6, 6)]
    both = (inside, outside) if side == "predicted" else (outside, inside)
    result = assess(tmp_path, *both, labelled_area=area)
    assert (result.f1[0], result.panoptic_quality) == (0, 0)
    assert (result.classes[0].predicted, result.classes[0].reference) == ((1, 0) if side == "predicted" else (0, 1))
    assert "none of the 1 polygons of" in caplog.text


def test_fields_at_the_edge_of_a_real_mask_are_left_out(tmp_path, shared_data):
    with rasterio.open(shared_data / "ftw_fields" / "mask.tif") as mask:
        fields = mask.read(1) == 1
        parts = shapes(fields.astype(np.uint8), mask=fields, connectivity=4, transform=mask.transform)
        polygons = [shapely.geometry.shape(geometry) for geometry, _ in parts]
        path = write_polygons(tmp_path / "fields.fgb", polygons, crs=mask.crs)
    # 4-connected regions by scipy, and those of them in the first and last row or column.
    regions, count = ndimage.label(fields)
    edge = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    cut = np.unique(edge[edge > 0]).size
    result = ls.assess_objects(path, reference=path, labelled_area=shared_data / "ftw_fields" / "mask.tif")
    assert (count, result.left_out) == (272, (cut, cut))
    assert (result.classes[0].reference, result.panoptic_quality) == (272 - cut, pytest.approx(1))


# ---- coordinate reference systems


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:32633", "EPSG:2263"])
@pytest.mark.parametrize("side", ["objects", "reference"])
def test_measures_do_not_depend_on_the_crs_of_either_side(tmp_path, crs, side):
    predicted, reference = draw_instances(2)  # none of whose IoUs is at a threshold
    files = {
        name: write_instances(tmp_path / f"{name}.fgb", labels)
        for name, labels in (("objects", predicted), ("reference", reference))
    }
    same = ls.assess_objects(files["objects"], reference=files["reference"], tolerance=1.3)
    files[side] = tmp_path / "other.fgb"
    gpd.read_file(tmp_path / f"{side}.fgb").to_crs(crs).to_file(files[side])
    other = ls.assess_objects(files["objects"], reference=files["reference"], tolerance=1.3)
    assert other.classes[0].matches.tolist() == same.classes[0].matches.tolist()
    assert other.classes[0].square_metres == pytest.approx(same.classes[0].square_metres, rel=1e-5)
    for name in ("panoptic_quality", "boundary_f1", "average_recall"):
        assert getattr(other, name) == pytest.approx(getattr(same, name), rel=1e-4)
    assert other.classes[0].vertices == same.classes[0].vertices


# ---- classes


def test_classes_are_compared_one_by_one_and_their_mean_is_that_of_all(tmp_path):
    kinds = {"kind": ["house", "house", "barn"]}
    result = assess(
        tmp_path, SQUARES[:3], SQUARES[:3], columns={"class": ["house", "barn", "barn"]}, reference_columns=kinds,
        label_field="kind", object_field="class",
    )  # fmt: skip
    f1 = {measures.name: float(measures.f1[0]) for measures in result.classes}
    assert f1 == {"barn": pytest.approx(2 / 3), "house": pytest.approx(2 / 3)}
    assert result.f1[0] == pytest.approx(2 / 3)


def test_numbers_of_classes_are_the_same_as_words(tmp_path):
    result = assess(
        tmp_path, SQUARES[:2], SQUARES[:2], columns={"kind": ["1", "2"]}, reference_columns={"kind": [1, 2]},
        label_field="kind",
    )  # fmt: skip
    assert [measures.name for measures in result.classes] == ["1", "2"]
    assert result.f1[0] == 1


def test_a_class_without_reference_objects_has_false_positives_alone(tmp_path):
    result = assess(
        tmp_path, SQUARES[:3], SQUARES[:2], columns={"kind": ["a", "a", "b"], "score": [1, 2, 3]},
        reference_columns={"kind": ["a", "a"]}, label_field="kind",
    )  # fmt: skip
    second = result.classes[1]
    assert (second.precision[0], second.panoptic_quality) == (0, 0)
    assert np.isnan(second.recall[0])
    assert result.average_precision == 1  # as in COCO, of the classes with reference objects


# ---- laws


boxes = st.lists(
    st.tuples(*(st.integers(low, high) for low, high in ((0, 12), (0, 12), (1, 6), (1, 6)))).map(
        lambda box: pixel_box(*box)
    ),
    min_size=1,
    max_size=7,
)


def objects_of(polygons):
    """Objects of one class, in a CRS of metres without distortion."""
    count = len(polygons)
    metres = np.tile(np.eye(2), (count, 1, 1))
    return Objects("boxes", np.array(polygons, dtype=object), np.zeros(count, np.intp), np.full(count, 4), metres)


def measured(predicted, reference):
    return measure_objects("box", objects_of(predicted), objects_of(reference), tolerance=1.5)


@given(predicted=boxes, reference=boxes)
def test_swapped_sides_swap_precision_and_recall(predicted, reference):
    one, other = measured(predicted, reference), measured(reference, predicted)
    assert one.precision.tolist() == other.recall.tolist()
    assert one.f1.tolist() == other.f1.tolist()
    assert one.panoptic_quality == pytest.approx(other.panoptic_quality)
    assert one.boundary_precision == pytest.approx(other.boundary_recall)
    assert (one.area_iou, one.c_iou) == pytest.approx((other.area_iou, other.c_iou))


@given(predicted=boxes, reference=boxes, data=st.data())
def test_the_order_of_features_does_not_matter(predicted, reference, data):
    one = measured(predicted, reference).as_dict()
    other = measured(*(data.draw(st.permutations(each)) for each in (predicted, reference))).as_dict()
    assert [name for name in one if other[name] != pytest.approx(one[name])] == []


@given(polygons=boxes)
def test_objects_match_themselves(polygons):
    perfect = measured(polygons, polygons[::-1])
    assert perfect.f1.tolist() == [1] * len(THRESHOLDS)
    scalars = perfect.panoptic_quality, perfect.area_iou, perfect.c_iou, perfect.boundary_f1, perfect.count_ratio
    assert scalars == pytest.approx((1, 1, 1, 1, 1))
    assert (perfect.oversegmentation, perfect.undersegmentation) == pytest.approx((0, 0))


@given(predicted=boxes, reference=boxes)
def test_measures_stay_in_their_range(predicted, reference):
    result = measured([*predicted, *reference[:1]], reference)  # at least one match
    assert (np.diff(result.matches) <= 0).all()
    assert result.panoptic_quality == pytest.approx(result.segmentation_quality * result.recognition_quality)
    for name in ("area_iou", "c_iou", "oversegmentation", "undersegmentation", "boundary_precision", "boundary_recall"):
        assert 0 <= getattr(result, name) <= 1 + 1e-9, name


# ---- oracles


def masks(labels):
    """The mask of each instance, as COCO encodes it."""
    numbers = np.unique(labels[labels > 0])
    return {int(number): np.asfortranarray(labels == number, dtype=np.uint8) for number in numbers}


def coco_measures(predicted, scores, reference, most):
    """pycocotools' AP, AP by threshold, and AR of masks, all in one image."""
    images = [{"id": 1, "height": 64, "width": 64}]

    def entry(index, mask, **more):
        encoded = coco_mask.encode(mask)
        return {"id": index + 1, "image_id": 1, "category_id": 1, "segmentation": encoded, "iscrowd": 0,
                "area": int(mask.sum()), **more}  # fmt: skip

    truth, found = COCO(), COCO()
    for target, entries in (
        (truth, [entry(index, mask) for index, mask in enumerate(reference)]),
        (found, [entry(index, mask, score=float(scores[index])) for index, mask in enumerate(predicted)]),
    ):
        target.dataset = {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "object"}]}
        target.createIndex()
    evaluation = COCOeval(truth, found, "segm")
    evaluation.params.maxDets = [most]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"][:, :, 0, 0, 0].mean(axis=1), evaluation.eval["recall"][:, 0, 0, 0]


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_and_recall_are_those_of_pycocotools(seed, tmp_path):
    predicted, reference = draw_instances(seed)
    scores = np.random.default_rng(seed).permutation(40) / 40
    found = masks(predicted)
    precision, recall = coco_measures(
        list(found.values()), scores[list(found)], list(masks(reference).values()), most=1000
    )
    result = ls.assess_objects(
        write_instances(tmp_path / "objects.fgb", predicted, scores),
        reference=write_instances(tmp_path / "reference.fgb", reference),
    )
    assert result.classes[0].average_precisions == pytest.approx(precision)
    assert result.recall == pytest.approx(recall)
    assert result.average_precision == pytest.approx(precision.mean())
    assert result.average_recall == pytest.approx(recall.mean())


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_of_objects_that_overlap_is_that_of_pycocotools(seed, tmp_path):
    generator = np.random.default_rng(seed)
    starts = generator.integers(0, 40, (12, 2))
    sizes = generator.integers(6, 12, (12, 2))
    # Two objects around each true one, so that many share a partner.
    moved = np.concatenate([starts, starts]) + generator.integers(0, 4, (24, 2))
    true, found = (
        [(*start, *size) for start, size in zip(at.tolist(), of.tolist(), strict=True)]
        for at, of in ((starts, sizes), (moved, np.concatenate([sizes, sizes])))
    )
    scores = generator.permutation(24) / 24

    def mask(box):
        pixels = np.zeros((64, 64), np.uint8, order="F")
        row, col, height, width = box
        pixels[row : row + height, col : col + width] = 1
        return pixels

    precision, _ = coco_measures([mask(box) for box in found], scores, [mask(box) for box in true], most=1000)
    result = assess(
        tmp_path, [pixel_box(*box) for box in found], [pixel_box(*box) for box in true], columns={"sure": scores},
        score_field="sure",
    )  # fmt: skip
    assert result.classes[0].average_precisions == pytest.approx(precision)


@pytest.mark.parametrize("seed", range(6))
def test_panoptic_quality_is_that_of_torchmetrics(seed, tmp_path):
    predicted, reference = draw_instances(seed)
    # Objects are class 1, which is the first that it gives; all other pixels are class 0.
    oracle = PanopticQuality(things={1}, stuffs={0}, return_sq_and_rq=True, return_per_class=True)
    maps = [torch.from_numpy(np.stack([labels > 0, labels], axis=-1).astype(np.int64))[None]
            for labels in (predicted, reference)]  # fmt: skip
    expected = oracle(*maps)[0].tolist()
    (measures,) = ls.assess_objects(
        write_instances(tmp_path / "objects.fgb", predicted),
        reference=write_instances(tmp_path / "reference.fgb", reference),
    ).classes
    found = [measures.panoptic_quality, measures.segmentation_quality, measures.recognition_quality]
    assert found == pytest.approx(expected, rel=1e-6)  # of 32 bits


# panoptica 2.1.7, which needs an older numpy, gave these for `draw_instances(seed)`: instances are matched by
# NaiveThresholdMatching at IoU 0.5. seed: TP, FP, FN, PQ, SQ, RQ.
PANOPTICA = {
    0: (11, 8, 14, 0.31396750034543486, 0.6279350006908697, 0.5),
    1: (10, 12, 13, 0.283694605524963, 0.6383128624311668, 0.4444444444444444),
    2: (11, 9, 14, 0.32157408074994664, 0.6577651651703454, 0.4888888888888889),
    4: (10, 9, 14, 0.29367839083261355, 0.6314085402901192, 0.46511627906976744),
    5: (6, 13, 17, 0.20023074823928544, 0.7008076188374991, 0.2857142857142857),
}


@pytest.mark.parametrize("seed", PANOPTICA)
def test_panoptic_quality_is_that_of_panoptica(seed, tmp_path):
    predicted, reference = draw_instances(seed)
    (measures,) = ls.assess_objects(
        write_instances(tmp_path / "objects.fgb", predicted),
        reference=write_instances(tmp_path / "reference.fgb", reference),
    ).classes
    matched = measures.panoptic_ious.size
    counts = matched, measures.predicted - matched, measures.reference - matched
    quality = measures.panoptic_quality, measures.segmentation_quality, measures.recognition_quality
    assert (*counts, *quality) == pytest.approx(PANOPTICA[seed])


# ---- bad input


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of references that cannot be used."""
    folder = tmp_path_factory.mktemp("bad")
    numbers, kinds = [1, 2, 3, 4], ["a", "b", "a", "b"]
    write_polygons(folder / "objects.fgb", SQUARES, kind=kinds, number=numbers, word=["x", "1", "2", "3"])
    (folder / "a;b.fgb").write_bytes((folder / "objects.fgb").read_bytes())
    write_polygons(folder / "far.fgb", [pixel_box(9000, 9000, 5, 5)])
    write_polygons(folder / "invalid.geojson", [*SQUARES, BOW_TIE])
    write_polygons(folder / "points.fgb", [square.centroid for square in SQUARES])
    write_polygons(folder / "lines.fgb", [shapely.LineString(square.exterior.coords) for square in SQUARES])
    write_polygons(folder / "words.fgb", SQUARES[:1], kind=["wood"])
    (folder / "empty.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    return folder


BAD = {
    "invalid polygons": ("invalid.geojson", {}, "1 invalid (feature 4)", "--fix-geometries"),
    "no features": ("empty.geojson", {}, "holds no features"),
    "points": ("points.fgb", {}, "holds 4 Point", "Expected Polygon"),
    "lines": ("lines.fgb", {}, "holds 4 LineString", "Expected Polygon"),
    "elsewhere": ("far.fgb", {}, "do not overlap", "CRS of each"),
    "other classes": ("words.fgb", {"label_field": "kind"}, "no class in common: a, b and wood", "--object-field"),
    "no class column": ("objects.fgb", {"label_field": "type"}, "no column 'type'", "kind, number, word"),
    "one class column": ("objects.fgb", {"object_field": "kind"}, "object_field is 'kind'", "--label-field"),
    "no score column": ("objects.fgb", {"score_field": "sure"}, "no column 'sure'", "kind, number, word"),
    "words as scores": ("objects.fgb", {"score_field": "word"}, "score column 'word' holds", "--score-field"),
    "no tolerance": ("objects.fgb", {"tolerance": 0}, "'tolerance' is 0", "greater than 0"),
    "area elsewhere": ("objects.fgb", {"labelled_area": "far.fgb"}, "none of the 4", "without touching its edge"),
    "setting of pixels": ("objects.fgb", {"all_touched": "a"}, "'all_touched' says which pixels", "labelled_area"),
    "address": ("a;b.fgb", {}, "a;b.fgb would be read as another path", "Rename it"),
    "no file": ("nowhere.fgb", {}, "nowhere.fgb"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_refused_in_one_line(kind, files, monkeypatch):
    monkeypatch.chdir(files)
    reference, setting, *words = BAD[kind]
    with pytest.raises(ls.LandscribeError) as refused:
        ls.assess_objects("objects.fgb", reference=reference, out="measures.json", **setting)
    assert all(word in str(refused.value) for word in words), refused.value
    assert not list(files.glob("measures*"))


def test_invalid_polygons_are_repaired_when_asked(tmp_path):
    result = assess(tmp_path, [SQUARES[1]], [BOW_TIE, SQUARES[1]], fix_geometries=True)
    assert (result.precision[0], result.recall[0]) == (1, 0.5)


def test_the_file_of_measures_holds_what_the_assessment_does(tmp_path):
    objects = write_polygons(tmp_path / "objects.fgb", SQUARES)
    result = ls.assess_objects(objects, reference=objects, out=tmp_path / "new" / "measures.json")
    assert json.loads((tmp_path / "new" / "measures.json").read_text()) == result.as_dict()
