"""Accuracy by distance to edges, and agreement of edges, against a brute-force count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscribe import verbs
from landscribe.assessment import counting
from landscribe.assessment.edges import HALO, EdgeCounts
from landscribe.commands.tables import print_measures
from landscribe.errors import RecipeError
from landscribe.geo.grid import Window
from worlds import noise, pixel_box, write_polygons, write_raster


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
    ours, edges, limits = EdgeCounts.of(reference, predicted, 2), edge_pixels(reference), [1, 2, 4, 8, 16, np.inf]
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
    np.testing.assert_array_equal(EdgeCounts.of(reference, predicted, tolerance).matched, expected)


@given(st.integers(0, 20), st.integers(1, 90))
def test_counts_of_windows_with_a_halo_sum_to_those_of_the_whole(seed, first):
    reference, predicted = squares(90, seed, 30), squares(90, seed + 50, 20)
    whole, summed, full = EdgeCounts.of(reference, predicted, 3), EdgeCounts.zeros(3), Window(0, 0, 90, 90)
    for window in (Window(0, 0, first, 90), Window(first, 0, 90 - first, 90)):
        read = window.grown(HALO) & full
        if not window.is_empty:
            summed += EdgeCounts.of(reference[read.slices], predicted[read.slices], 3, window.relative_to(read))
    np.testing.assert_array_equal(summed.by_distance, whole.by_distance)
    np.testing.assert_array_equal(summed.matched, whole.matched)


def shifted_world(folder, shift):
    """A map of two classes whose straight edge lies `shift` pixels to the right of that of the reference."""
    truth, mapped = np.zeros((2, 60, 100), np.uint8)
    truth[:, 50:], mapped[:, 50 + shift :] = 1, 1
    return [write_raster(folder / f"{name}.tif", array) for name, array in (("map", mapped), ("truth", truth))]


def test_an_edge_that_is_shifted_by_three_pixels_is_wrong_beside_the_edge_only(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(counting, "_STRIP_PIXELS", 1000)
    mapped, truth = shifted_world(tmp_path, 3)
    summary = verbs.assess(mapped, reference=truth, edges=True, edge_tolerance=2).summary()
    # Of the columns at 0.5, 1.5 and 2.5, one of two lies in the strip that is wrong.
    rows = {row["distance"]: (row["pixels"], row["overall_accuracy"]) for row in summary["by_edge_distance"]}
    assert rows == {
        "0-1": (120, 0.5), "1-2": (120, 0.5), "2-4": (240, 0.75), "4-8": (480, 1), "8-16": (960, 1), ">16": (4080, 1),
    }  # fmt: skip
    # Edge pixels are columns 52, 53 of the map and 49, 50 of the reference: 52 lies within 2 of 50.
    assert summary["boundary"] == {"tolerance": 2, "precision": 0.5, "recall": 0.5, "f1": 0.5}
    print_measures(summary)
    assert (
        "edges that agree within 2 pixels: precision 0.500, recall 0.500, boundary F1 0.500" in capsys.readouterr().out
    )
    assert verbs.assess(mapped, reference=truth, edges=True, edge_tolerance=4).edges.boundary_f1 == 1


def test_edges_of_one_class_are_none():
    counts = EdgeCounts.of(np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8), 2)
    assert counts.by_distance.tolist()[-1] == [81, 81]
    assert counts.summary()["boundary"]["f1"] is None


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
