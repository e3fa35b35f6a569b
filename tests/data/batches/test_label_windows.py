"""Windows drawn around labelled pixels."""

import numpy as np
import pytest
import torch

from landscribe import verbs
from landscribe.data.batches.dataset import ChipDataset, loader
from landscribe.data.batches.label_windows import LabelWindowSampler
from landscribe.data.batches.sampling import RankShare
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.geo.grid import Window
from worlds import counting, pixel_box, write_polygons, write_raster

SIDE = 16


@pytest.fixture(scope="module")
def every(tmp_path_factory) -> Chips:
    """A scene of background with a field and, of one part in a thousand, a pond; 20 % is held out."""
    folder = tmp_path_factory.mktemp("world")
    image = write_raster(folder / "scene.tif", counting(2, 160, 160, "uint16"))
    boxes = [pixel_box(0, 0, 160, 50), pixel_box(70, 100, 5, 5)]
    labels = write_polygons(folder / "labels.gpkg", boxes, kind=["field", "pond"])
    return verbs.chip(
        images=[image], labels=labels, label_field="kind", out=folder / "chips", size=SIDE, val=0.2, test=0, seed=2
    )


@pytest.fixture(scope="module")
def chips(every) -> Chips:
    training = every.of_split("train")
    assert training.counts[:, 2].sum()  # train has the pond
    return training


def epoch(sampler: LabelWindowSampler, epochs: int = 1) -> list:
    return [index for _ in range(epochs) for index in sampler]


def window(index) -> Window:
    return Window(index[1], index[2], SIDE, SIDE)


def test_windows_keep_the_distance_of_train_chips_from_held_out_chips(every, chips):
    held_out = every.of_split("val").windows
    nearest = min(a.distance_to(b) for a in chips.windows for b in held_out)
    drawn = [window(index) for index in epoch(LabelWindowSampler(chips, background=None, seed=0), 5)]
    assert min(a.distance_to(b) for a in drawn for b in held_out) >= nearest
    assert len({(own.row, own.col) for own in drawn}) > 2 * len(chips)


def test_a_rare_class_is_drawn_as_often_as_the_others(chips):
    dataset = ChipDataset(chips)
    indices = epoch(LabelWindowSampler(chips, background=None, seed=0), 6)
    ponds = np.mean([bool((dataset[index]["label"] == 2).any()) for index in indices])
    assert ponds > 0.3
    assert (chips.counts[:, 2] > 0).mean() < 0.1


def test_background_windows_are_at_most_their_fraction(chips):
    sampler = LabelWindowSampler(chips, background=0.1, seed=0)
    by_class = np.bincount(sampler.anchor_pixels[:, 0]) * sampler.probabilities
    assert by_class == pytest.approx([0.1, 0.45, 0.45])


def test_a_window_is_read_from_its_scene(chips):
    scene = next(iter(chips.scenes().values()))
    dataset = ChipDataset(chips)
    for index in epoch(LabelWindowSampler(chips, background=None, seed=3))[:5]:
        pixels, _, mask = scene.read(window(index))
        np.testing.assert_array_equal(dataset[index]["image"], pixels)
        np.testing.assert_array_equal(dataset[index]["label"], chips.classes.to_indices(mask))


def test_the_same_seed_draws_the_same_windows_and_another_epoch_others(chips):
    first, second = (LabelWindowSampler(chips, background=None, seed=4) for _ in range(2))
    windows = epoch(first)
    assert epoch(second) == windows
    assert epoch(first) != windows


def test_two_processes_share_the_batches_of_one(chips):
    alone = epoch(LabelWindowSampler(chips, background=None, seed=1, share=RankShare(4, 0, 1)))
    parts = [epoch(LabelWindowSampler(chips, background=None, seed=1, share=RankShare(4, rank, 2))) for rank in (0, 1)]
    assert {*parts[0], *parts[1]} <= set(alone)
    for batch in range(len(parts[0]) // 2):
        together = [*parts[0][2 * batch : 2 * batch + 2], *parts[1][2 * batch : 2 * batch + 2]]
        assert sorted(together) == sorted(alone[4 * batch : 4 * batch + 4])


def test_the_number_of_workers_changes_nothing(chips):
    def batches(workers: int) -> list[torch.Tensor]:
        order = LabelWindowSampler(chips, background=None, seed=5)
        return [batch["image"] for batch in loader(chips, batch=4, workers=workers, order=order)]

    for serial, parallel in zip(batches(0), batches(2), strict=True):
        assert torch.equal(serial, parallel)


def test_a_single_chip_is_the_only_window(tmp_path):
    image = write_raster(tmp_path / "scene.tif", counting(1, SIDE, SIDE))
    labels = write_raster(tmp_path / "labels.tif", np.tile([1, 2], (SIDE, SIDE // 2)).astype(np.uint8))
    chips = verbs.chip(images=[image], labels=labels, out=tmp_path / "chips", size=SIDE, val=0, test=0)
    (index,) = epoch(LabelWindowSampler(chips, background=None, seed=0))
    np.testing.assert_array_equal(ChipDataset(chips)[index]["image"], ChipReader(chips).read(0)[0])
