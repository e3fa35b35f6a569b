"""Accuracy by distance to edges, and agreement of edges, against a brute-force count."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from landscribe import verbs
from landscribe.assessment import counting
from landscribe.assessment.edges import EdgeCounts, EdgeTolerance
from landscribe.assessment.spec import AccuracySpec
from landscribe.commands.tables import print_measures
from landscribe.errors import RecipeError
from landscribe.geo.grid import Window
from worlds import noise, pixel_box, write_polygons, write_raster

TWO, THREE = EdgeTolerance(2), EdgeTolerance(3)


def squares(side, seed, block=5):
    """Class indices in squares, some without a class."""
    rng = np.random.default_rng(seed)
    cells = rng.choice(np.array([0, 1, 2, 255], np.uint8), (-(-side // block),) * 2, p=[0.5, 0.3, 0.1, 0.1])
    return np.kron(cells, np.ones((block, block), np.uint8))[:side, :side]


def edge_pixels(indices):
    """(row, col) of pixels beside a pixel of another class."""
    rows, cols = indices.shape
    near = ((0, 1), (1, 0), (0, -1), (-1, 0))
    return np.array([
        (row, col)
        for row, col in np.ndindex(rows, cols)
        if indices[row, col] != 255
        and any(
            0 <= row + down < rows and 0 <= col + right < cols
            and indices[row + down, col + right] not in (255, indices[row, col])
            for down, right in near
        )
    ]).reshape(-1, 2)  # fmt: skip


def distance_to(points, row, col):
    return np.hypot(*(points - (row, col)).T).min() if len(points) else np.inf


@pytest.mark.parametrize("seed", range(3))
def test_pixels_count_in_the_class_of_their_distance_to_the_nearest_edge(seed):
    reference, predicted = squares(26, seed), squares(26, seed + 10)
    ours, edges, limits = EdgeCounts.of(reference, predicted, TWO), edge_pixels(reference), [1, 2, 4, 8, 16, np.inf]
    expected = np.zeros((6, 2), int)
    for row, col in np.ndindex(reference.shape):
        if 255 not in (reference[row, col], predicted[row, col]):
            near = next(index for index, end in enumerate(limits) if distance_to(edges, row, col) + 0.5 <= end)
            expected[near] += 1, reference[row, col] == predicted[row, col]
    np.testing.assert_array_equal(ours.by_distance, expected)


@pytest.mark.parametrize("tolerance", [0, 1, 2.5])
def test_edge_pixels_match_within_the_tolerance(tolerance):
    reference, predicted = squares(24, 0), squares(24, 10)
    of_map, of_reference = edge_pixels(predicted), edge_pixels(reference)
    compared = (reference != 255) & (predicted != 255)
    expected = []
    for own, other in ((of_map, of_reference), (of_reference, of_map)):
        points = [point for point in own.tolist() if compared[tuple(point)]]
        expected.append([len(points), sum(distance_to(other, *point) <= tolerance for point in points)])
    np.testing.assert_array_equal(EdgeCounts.of(reference, predicted, EdgeTolerance(tolerance)).matched, expected)


@pytest.mark.parametrize("pixel", [(1.0, 1.0), (1.0, 0.6), (0.3, 1.0)])
def test_edge_pixels_match_within_metres_on_the_ground(pixel):
    reference, predicted = squares(24, 0), squares(24, 10)
    of_map, of_reference = edge_pixels(predicted), edge_pixels(reference)
    expected = []
    for own, other in ((of_map, of_reference), (of_reference, of_map)):
        points = [point for point in own.tolist() if 255 not in (reference[tuple(point)], predicted[tuple(point)])]
        metres = [np.hypot(*((other - point) * pixel).T).min() for point in points]
        expected.append([len(points), sum(distance <= 1.5 for distance in metres)])
    np.testing.assert_array_equal(EdgeCounts.of(reference, predicted, EdgeTolerance(1.5, pixel)).matched, expected)


@given(
    st.integers(0, 20), st.integers(1, 90),
    st.sampled_from([THREE, EdgeTolerance(20), EdgeTolerance(3, (1.0, 0.2)), EdgeTolerance(3, (0.5, 0.5))]),
)  # fmt: skip
def test_counts_of_windows_with_a_halo_sum_to_those_of_the_whole(seed, first, tolerance):
    reference, predicted = squares(90, seed, 30), squares(90, seed + 50, 20)
    whole, summed = EdgeCounts.of(reference, predicted, tolerance), EdgeCounts.zeros(tolerance)
    full = Window(0, 0, 90, 90)
    for window in (Window(0, 0, first, 90), Window(first, 0, 90 - first, 90)):
        read = window.grown(tolerance.halo) & full
        if not window.is_empty:
            summed += EdgeCounts.of(reference[read.slices], predicted[read.slices], tolerance, window.relative_to(read))
    np.testing.assert_array_equal(summed.by_distance, whole.by_distance)
    np.testing.assert_array_equal(summed.matched, whole.matched)


def shifted_world(folder, shift, **georeference):
    """A map of two classes whose straight edge lies `shift` pixels to the right of that of the reference."""
    truth, mapped = np.zeros((2, 60, 100), np.uint8)
    truth[:, 50:], mapped[:, 50 + shift :] = 1, 1
    return [
        write_raster(folder / f"{name}.tif", array, **georeference)
        for name, array in (("map", mapped), ("truth", truth))
    ]


def test_an_edge_that_is_shifted_by_three_pixels_is_wrong_beside_the_edge_only(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(counting, "_STRIP_PIXELS", 1000)
    mapped, truth = shifted_world(tmp_path, 3)
    summary = verbs.assess(mapped, reference=truth, edges=True, edge_tolerance=2).as_dict()
    # Of the columns at 0.5, 1.5 and 2.5, one of two lies in the strip that is wrong.
    rows = {row["distance"]: (row["pixels"], row["overall_accuracy"]) for row in summary["by_edge_distance"]}
    assert rows == {
        "0-1": (120, 0.5), "1-2": (120, 0.5), "2-4": (240, 0.75), "4-8": (480, 1), "8-16": (960, 1), ">16": (4080, 1),
    }  # fmt: skip
    # Edge pixels are columns 52, 53 of the map and 49, 50 of the reference: 52 lies within 2 of 50.
    assert summary["boundary"] == {
        "tolerance": 2,
        "tolerance_unit": "pixels",
        "precision": 0.5,
        "recall": 0.5,
        "f1": 0.5,
    }
    print_measures(summary)
    assert (
        "edges that agree within 2 pixels: precision 0.500, recall 0.500, boundary F1 0.500" in capsys.readouterr().out
    )
    assert verbs.assess(mapped, reference=truth, edges=True, edge_tolerance=4).edges.boundary_f1 == 1


METRES = {
    # Two pixels of 0.5 m between the edge pixels: 52 of the map and 50 of the reference.
    "a grid in metres": ("EPSG:32632", Affine(0.5, 0, 400000, 0, -0.5, 5500000), ("0.9m", "1m")),
    # A degree of longitude is 55 800 m at 60 degrees north: 2 pixels of 1e-5 degrees are 1.116 m.
    "a grid in degrees": ("EPSG:4326", Affine(1e-5, 0, 10, 0, -1e-5, 60), ("1.1m", "1.13m")),
    "a grid in feet": ("EPSG:2263", Affine(1, 0, 980000, 0, -1, 200000), ("0.59 m", "0.61 m")),
}


@pytest.mark.parametrize("name", METRES)
def test_a_tolerance_in_metres_holds_on(name, tmp_path):
    crs, transform, (below, reached) = METRES[name]
    mapped, truth = shifted_world(tmp_path, 3, crs=crs, transform=transform)
    few, all_of_one_side = (
        verbs.assess(mapped, reference=truth, edges=True, edge_tolerance=text).as_dict()["boundary"]
        for text in (below, reached)
    )
    assert (few["precision"], all_of_one_side["precision"]) == (0, 0.5)
    assert (few["tolerance"], few["tolerance_unit"]) == (float(below.rstrip(" m")), "metres")


def test_the_tolerance_in_metres_is_printed_with_the_size_of_pixels(tmp_path, capsys):
    crs, transform, _ = METRES["a grid in degrees"]
    mapped, truth = shifted_world(tmp_path, 0, crs=crs, transform=transform)
    print_measures(verbs.assess(mapped, reference=truth, edges=True, edge_tolerance="2m").as_dict())
    assert "edges that agree within 2 m (pixels of 1.11 x 0.558 m): precision 1.000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("5x", r"expected pixels such as 2, or metres such as 5m"),
        ("0m", r"expected pixels such as 2, or metres such as 5m"),
        ("-1", r"greater than or equal to 0"),
        ("101", r"less than or equal to 100"),
    ],
)
def test_a_tolerance_of_no_length_is_refused(setting, message):
    with pytest.raises(RecipeError, match=message):
        AccuracySpec.of({"edges": True, "edge_tolerance": setting})


def test_a_tolerance_without_edges_is_refused():
    with pytest.raises(RecipeError, match=r"edge_tolerance is 5m, but edges are not assessed"):
        AccuracySpec.of({"edge_tolerance": "5 m"})


def test_metres_are_refused_without_a_crs_and_beyond_a_hundred_pixels(tmp_path):
    for crs, message in (
        (None, r"edge-tolerance is 120m, but .*map\.tif has no CRS"),
        (
            "EPSG:32632",
            r"edge-tolerance is 120m, which is 12. pixels of .*map\.tif\. Expected at most 100 pixels, (99.9|100).*m",
        ),
    ):
        mapped, truth = shifted_world(tmp_path, 0, crs=crs)
        with pytest.raises(RecipeError, match=message):
            verbs.assess(mapped, reference=truth, edges=True, edge_tolerance="120m")


def test_edges_of_one_class_are_none():
    counts = EdgeCounts.of(np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8), TWO)
    assert counts.by_distance.tolist()[-1] == [81, 81]
    assert counts.as_dict()["boundary"]["f1"] is None


def test_edges_of_points_are_refused(tmp_path):
    mapped, _ = shifted_world(tmp_path, 0)
    box = pixel_box(5, 5, 3, 3)
    points = write_polygons(tmp_path / "points.gpkg", [box.centroid], kind=[1])
    with pytest.raises(RecipeError, match=r"--edges needs polygons, .* points\.gpkg holds points"):
        verbs.assess(mapped, reference=points, label_field="kind", edges=True)


def test_edges_of_chips_are_refused(tmp_path):
    mapped, truth = shifted_world(tmp_path, 0)
    image = write_raster(tmp_path / "scene.tif", noise(3, 60, 100))
    chips = verbs.chip(images=[image], labels=truth, out=tmp_path / "chips", size=32, val=0, test=0, virtual=True)
    with pytest.raises(RecipeError, match=r"chips holds chips, whose borders cut edges"):
        verbs.assess(mapped, reference=chips, split="train", edges=True)


@pytest.mark.parametrize("edged", ["reference", "map"])
def test_a_map_or_a_reference_without_edges_has_a_boundary_f1_of_0(edged):
    halves = np.zeros((20, 20), np.uint8)
    halves[:, 10:] = 1
    arrays = (halves, np.zeros_like(halves))
    counts = EdgeCounts.of(*(arrays if edged == "reference" else arrays[::-1]), EdgeTolerance(2.0))
    assert counts.boundary_f1 == 0
    assert counts.as_dict()["boundary"]["f1"] == 0


def test_a_map_and_a_reference_without_edges_have_no_boundary_f1():
    counts = EdgeCounts.of(*[np.zeros((20, 20), np.uint8)] * 2, EdgeTolerance(2.0))
    assert np.isnan(counts.boundary_f1)
