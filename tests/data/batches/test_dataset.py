"""Chips as batches of tensors."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from landscribe.data.batches import dataset
from landscribe.data.batches.dataset import ChipDataset, loader, to_float
from landscribe.data.batches.sampling import ChipSampler
from landscribe.data.chips.chips import ChipReader, Chips
from landscribe.data.chips.cutting import chip
from landscribe.data.chips.spec import ChipSpec
from landscribe.data.scenes.scene import open_scenes
from landscribe.data.scenes.spec import ClassSpec, SceneSpec
from landscribe.data.splits.spec import SplitSpec
from landscribe.errors import ChipError
from worlds import noise, pixel_box, write_polygons, write_raster

TABLE = [ClassSpec(name="ground", value=0), ClassSpec(name="house", value=7)]


@pytest.fixture(scope="module")
def chips(tmp_path_factory) -> Chips:
    """Nine chips of 8 x 8 pixels, partly nodata, with a house of value 7."""
    folder = tmp_path_factory.mktemp("world")
    array = noise(3, 24, 24, "uint16")
    array[:, 0:4, 0:9] = 0
    labels = write_polygons(folder / "labels.gpkg", [pixel_box(2, 2, 9, 9)])
    spec = SceneSpec(image=(str(write_raster(folder / "scene.tif", array, nodata=0)),), labels=str(labels))
    scenes, classes = open_scenes([spec], TABLE)
    split = SplitSpec(val=0, test=0)
    return chip(scenes, classes, [spec], folder / "chips", spec=ChipSpec(size=8), split=split)


def test_a_batch_holds_pixels_as_stored_and_labels_as_indices(chips):
    (batch,) = loader(chips, batch=9, workers=0)
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in batch.items()} == {
        "image": ((9, 3, 8, 8), torch.uint16),
        "valid": ((9, 8, 8), torch.bool),
        "label": ((9, 8, 8), torch.uint8),
    }
    floats = to_float(batch)
    assert (floats["image"].dtype, floats["label"].dtype) == (torch.float32, torch.int64)
    assert all(torch.equal(floats[name].double(), batch[name].double()) for name in batch)
    reader = ChipReader(chips)
    for index in range(9):
        pixels, valid, mask = reader.read(index)
        np.testing.assert_array_equal(batch["image"][index], pixels)
        np.testing.assert_array_equal(batch["valid"][index], valid)
        # Value 7 is index 1; 255 stays.
        np.testing.assert_array_equal(batch["label"][index], np.where(mask == 7, 1, mask))


def order_of(chips: Chips, seed: int) -> list[float]:
    batches = loader(chips, batch=3, workers=0, order=ChipSampler(np.ones(len(chips)), seed=seed))
    return torch.cat([batch["image"].double().sum(dim=(1, 2, 3)) for batch in batches]).tolist()


def test_the_same_seed_gives_the_same_order(chips):
    assert order_of(chips, 1) == order_of(chips, 1)


def test_another_seed_gives_another_order_of_the_same_chips(chips):
    first, second = order_of(chips, 1), order_of(chips, 2)
    assert first != second
    assert sorted(first) == sorted(second)


@pytest.mark.parametrize(("batch", "sizes"), [(3, [3, 3, 3]), (4, [4, 4]), (8, [8]), (9, [9]), (20, [9])])
def test_a_shuffled_last_batch_of_one_chip_is_dropped(chips, batch, sizes):
    # Nine chips: by four they leave one, by eight too.
    order = ChipSampler(np.ones(len(chips)), seed=0)
    assert [len(b["label"]) for b in loader(chips, batch=batch, workers=0, order=order)] == sizes


def test_no_chip_is_dropped_without_an_order(chips):
    assert sum(len(b["label"]) for b in loader(chips, batch=4, workers=0)) == 9


def test_chips_that_fit_in_memory_are_read_once_and_give_the_same_batches(chips, monkeypatch):
    reads, read = [], ChipReader.read
    monkeypatch.setattr(ChipReader, "read", lambda self, index: reads.append(index) or read(self, index))
    epochs = {}
    # Nine chips of 8 x 8 pixels of three bands of two bytes, valid and mask.
    needed = 9 * 8 * 8 * (3 * 2 + 2)
    for budget, expected_reads in ((needed, 9), (needed - 1, 18)):
        batches = loader(chips, batch=3, workers=0, order=ChipSampler(np.ones(9), seed=0), kept_bytes=budget)
        epochs[budget] = [batch for _ in range(2) for batch in batches]
        assert len(reads) == expected_reads
        reads.clear()
    kept, reread = epochs.values()
    for one, other in zip(kept, reread, strict=True):
        for name, tensor in one.items():
            torch.testing.assert_close(tensor, other[name], rtol=0, atol=0)


def test_a_changed_tensor_does_not_change_the_kept_chip(chips):
    samples = ChipDataset(chips, kept_bytes=2**30)
    first = {name: tensor.clone() for name, tensor in samples[0].items()}
    for _ in range(2):
        for name, tensor in samples[0].items():
            torch.testing.assert_close(tensor, first[name], rtol=0, atol=0)
            tensor.zero_()


def test_the_processes_of_a_loader_share_the_budget(chips, monkeypatch):
    monkeypatch.setattr(dataset, "get_worker_info", lambda: SimpleNamespace(num_workers=3))
    needed = 3 * 9 * 8 * 8 * (3 * 2 + 2)
    for budget, expected in ((needed, True), (needed - 1, False)):
        assert ChipDataset(chips, kept_bytes=budget).reader.keeps == expected


def test_a_dataset_is_as_long_as_its_chips(chips):
    assert len(ChipDataset(chips)) == len(chips) == 9


# ---- transforms of a user


def rotated(*, image, masks):
    """Rotation by 90 degrees."""
    return {"image": np.rot90(image), "masks": [np.rot90(mask) for mask in masks]}


def shifted(*, image, masks):
    """Shift by two columns to the right, filled with 0."""

    def shift(array):
        return np.concatenate([np.zeros_like(array[:, :2]), array[:, :-2]], axis=1)

    return {"image": shift(image), "masks": [shift(mask) for mask in masks]}


def test_a_transform_applies_to_image_valid_and_labels(chips):
    for index in range(len(chips)):
        plain, changed = ChipDataset(chips)[index], ChipDataset(chips, rotated)[index]
        for name in plain:
            assert torch.equal(changed[name], torch.rot90(plain[name], 1, (-2, -1)))


def test_pixels_filled_by_a_transform_are_ignored_although_0_is_a_class(chips):
    for index in range(len(chips)):
        plain, changed = ChipDataset(chips)[index], ChipDataset(chips, shifted)[index]
        assert (changed["label"][:, :2] == 255).all()
        assert not changed["valid"][:, :2].any()
        assert torch.equal(changed["label"][:, 2:], plain["label"][:, :-2])


def test_any_number_but_0_is_valid_in_the_mask_that_a_transform_returns(chips):
    def raised(*, image, masks):
        return {"image": image, "masks": [masks[0], masks[1] * 255]}

    for index in range(len(chips)):
        plain, changed = ChipDataset(chips)[index], ChipDataset(chips, raised)[index]
        assert all(torch.equal(plain[name], changed[name]) for name in plain)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image: image / 2, "an image of float64. Expected uint16, .*Remove Normalize or ToFloat"),
        (lambda image: image.astype("float32"), "an image of float32. Expected uint16"),
        (lambda image: image.astype("int32"), "an image of int32. Expected uint16"),
        (lambda image: image[..., :2], "returned 2 bands. Expected 3, .*Add an index to the image files"),
        (lambda image: np.concatenate([image, image[..., :1]], axis=2), "returned 4 bands. Expected 3"),
    ],
)
def test_a_transform_that_returns_another_dtype_or_number_of_bands_is_refused(chips, change, words):
    def changed(*, image, masks):
        return {"image": change(image), "masks": masks}

    with pytest.raises(ChipError, match=words) as refused:
        ChipDataset(chips, changed)[4]
    assert "\n" not in str(refused.value)


def test_a_transform_crops_all_chips_to_one_size_or_is_refused(chips):
    sizes = iter([6, 6, 6, 5])

    def cropped(*, image, masks):
        size = next(sizes)
        return {"image": image[:size, :size], "masks": [mask[:size, :size] for mask in masks]}

    samples = ChipDataset(chips, cropped)
    assert [samples[index]["image"].shape for index in range(3)] == 3 * [(3, 6, 6)]
    with pytest.raises(ChipError, match="returned 5 x 5 pixels for a chip, and 6 x 6 for another"):
        samples[3]


@pytest.mark.parametrize(
    "masks",
    [lambda mask: mask[None], lambda mask: mask + 9, lambda mask: mask.astype(int) - 3, lambda mask: mask + 0.5],
    ids=["shape", "values", "negative", "fractions"],
)
def test_a_transform_that_returns_unusable_masks_is_refused(chips, masks):
    def unusable(*, image, masks: list, change=masks):
        return {"image": image, "masks": [change(mask) for mask in masks]}

    with pytest.raises(ChipError, match="the augmentation returned an image of shape"):
        ChipDataset(chips, unusable)[4]


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (lambda image, mask: (image, mask), "unexpected keyword argument 'masks'"),
        (lambda image, masks: (image, masks), "it returned a tuple"),
        (lambda image, masks: None, "it returned a NoneType"),
        (lambda image, masks: {"image": image}, "'masks'"),
    ],
)
def test_a_transform_of_another_kind_is_refused_in_one_line(chips, transform, words):
    with pytest.raises(ChipError, match=r"cannot be used: .*Albumentations") as refused:
        ChipDataset(chips, transform)[0]
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
