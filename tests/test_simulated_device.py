"""What a GPU runs keeps to its memory, and does not wait for it: shown on a simulated device, without a GPU."""

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

import forked
import simulated_device
from landscribe import verbs
from landscribe.data.batches.augment import TRANSFORMS, LabelledBatch, augment
from landscribe.data.batches.augment_spec import AugmentSpec
from landscribe.data.chips.chips import Chips
from landscribe.inference import device as devices
from landscribe.inference import evaluation
from landscribe.model import Model
from landscribe.nn.losses import LOSSES, weighted_sum
from landscribe.synthetic import draw, write
from landscribe.training import callbacks

pytestmark = pytest.mark.skipif(
    not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this version of torch has no devices in Python",
)

SETTINGS = {
    "encoder": "plain", "weights": "none", "options": {"encoder_widths": [4, 8]}, "batch": 4, "steps": 4,
    "optimizer": "sgd", "precision": "32",
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A folder with a scene and chips of it that have object numbers."""
    folder = tmp_path_factory.mktemp("world")
    write(draw(160, 160, seed=1), folder)
    verbs.chip(
        images=[folder / "scene.tif"], labels=folder / "labels.geojson", label_field="class", objects=True, size=32,
        out=folder / "chips",
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def model(world) -> Path:
    """A model folder of a network with a head for borders."""
    verbs.train(world / "chips", out=world / "model", architecture="unet_id", **SETTINGS)
    return world / "model"


def there(function, *arguments):
    """The result of a function on the device, and how often that was read."""
    return forked.call(_there, function, *arguments)


def _there(function, *arguments):
    device = simulated_device.install()
    result = function(*arguments, device)
    reads = simulated_device.reads.copy()
    return in_memory(result), reads


def each_of(function, names, device):
    return [tensor for name in names for tensor in function(name, device)]


def in_memory(tensors):
    return [tensor.detach().cpu().numpy() for tensor in tensors]


def assert_same(tensors, others):
    for one, other in zip(tensors, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def augmented(names: tuple[str, ...], device: torch.device) -> list[torch.Tensor]:
    """Images, labels and objects after a transform."""
    rng = torch.Generator().manual_seed(0)
    valid = torch.rand(4, 16, 16, generator=rng) > 0.1
    images = torch.rand(4, 3, 16, 16, generator=rng) * valid.unsqueeze(1)
    numbers = [torch.randint(0, count, (4, 16, 16), generator=rng) for count in (3, 9)]
    batch = LabelledBatch(*(each.to(device) for each in (images, valid, *numbers)))
    spec = AugmentSpec(preset="none", **{name: True if name == "symmetries" else 0.9 for name in names})
    result = augment(batch, spec, torch.Generator().manual_seed(1))
    assert result.images.device == device
    return [result.images, result.labels, result.objects]


def test_transforms_compute_on_the_device_and_wait_for_nothing():
    names = tuple(TRANSFORMS.values())
    result, reads = there(each_of, augmented, names)
    assert_same(result, in_memory(each_of(augmented, names, torch.device("cpu"))))
    assert not reads


def lost(name: str, device: torch.device) -> list[torch.Tensor]:
    """The loss and its gradient, for one logit, two classes and four, without and with class weights."""
    rng, results = torch.Generator().manual_seed(0), []
    for channels in (1, 2, 4):
        logits = torch.randn(2, channels, 16, 16, generator=rng)
        labels = torch.randint(0, max(channels, 2), (2, 16, 16), generator=rng)
        labels[:, :3] = 255
        for weights in (None, torch.arange(1.0, 1 + max(channels, 2))):
            given = logits.clone().to(device).requires_grad_()
            loss = weighted_sum(name)(given, labels.to(device), 255, weights if weights is None else weights.to(device))
            loss.backward()
            results += [loss, given.grad]
    return results


def test_losses_compute_on_the_device_and_wait_for_nothing():
    names = tuple(LOSSES)
    result, reads = there(each_of, lost, names)
    assert_same(result, in_memory(each_of(lost, names, torch.device("cpu"))))
    assert not reads


def trained(chips: Path, out: Path, settings: dict, device: torch.device) -> list[torch.Tensor]:
    """The weights after a training."""
    # Notes of the progress bar, which read the last loss, come by the clock.
    callbacks._SECONDS_A_NOTE = math.inf
    model = verbs.train(chips, out=out, **(SETTINGS | settings))
    return list(model.network.state_dict().values())


@pytest.mark.parametrize(
    "settings",
    [
        {"augment": "strong", "schedule": "plateau", "sampling": "balanced"},
        {"ema_decay": 0.9, "accumulate": 2, "freeze": ("encoder",), "freeze_until": 0.5},
        {"loss": "focal + lovasz", "class_weights": "inverse", "augment": {"preset": "none", "mixup": 1.0}},
        {"architecture": "unet_id"},
    ],
    ids=str,
)
def test_a_training_computes_on_the_device(world, tmp_path, settings):
    result, _ = there(trained, world / "chips", tmp_path / "there", settings)
    assert_same(result, in_memory(trained(world / "chips", tmp_path / "here", settings, torch.device("cpu"))))


def test_a_step_of_a_training_does_not_wait_for_the_device(world, tmp_path):
    few, many = (
        there(trained, world / "chips", tmp_path / str(batch), {"steps": None, "epochs": 2, "batch": batch})[1].total()
        for batch in (8, 2)
    )
    chips = len(Chips.open(world / "chips").of_split("train"))
    # The loss is checked every 16 steps.
    assert many - few <= chips // 16


def mapped(world: Path, model: Path, out: Path, settings: dict, device: torch.device) -> list[torch.Tensor]:
    """The layers of a map."""
    outputs = {name: out / f"{name}.tif" for name in ("probabilities", "uncertainty", "object_probabilities")}
    verbs.predict(
        model, world / "scene.tif", out=out / "map.tif", device=str(device), engine="torch", margin=8,
        unit=128, **outputs, **settings,
    )  # fmt: skip
    return [torch.from_numpy(rasterio.open(path).read()) for path in (out / "map.tif", *outputs.values())]


def test_a_map_is_computed_on_the_device_which_is_read_as_often_whatever_the_tiles(world, model, tmp_path):
    reads = []
    for index, settings in enumerate([{"tile": 64}, {"tile": 128, "tta": True, "blend": "gaussian"}]):
        folders = [tmp_path / f"{place}{index}" for place in ("there", "here")]
        for folder in folders:
            folder.mkdir()
        result, read = there(mapped, world, model, folders[0], settings)
        assert_same(result, in_memory(mapped(world, model, folders[1], settings, torch.device("cpu"))))
        reads.append(read)
    assert reads[0] == reads[1]


def counted(chips: Path, model: Path, device: torch.device) -> list[torch.Tensor]:
    """The confusion of a model on the validation chips."""
    evaluation.resolve_device = lambda: device
    return [torch.from_numpy(evaluation.score(Model.load(model), Chips.open(chips).of_split("val"), "").counts)]


def test_pixels_of_chips_are_counted_on_the_device_and_read_once(world, model):
    result, reads = there(counted, world / "chips", model)
    assert_same(result, in_memory(counted(world / "chips", model, torch.device("cpu"))))
    assert reads == {"aten::_to_copy": 1}


def used(scene: Path, chips: Path, out: Path, device: torch.device) -> list[torch.Tensor]:
    """The confusion of a model that is trained, maps and is scored on a device as Apple's."""
    simulated_device.lacking.update([torch.float64, torch.uint16, torch.uint32])
    held_dtype = devices.held_dtype
    devices.held_dtype = lambda dtype, _: held_dtype(dtype, torch.device("mps"))
    trained(chips, out / "model", {"architecture": "unet"}, device)
    verbs.predict(
        out / "model", scene, out=out / "map.tif", device=str(device), engine="torch", uncertainty=out / "u.tif"
    )
    return counted(chips, out / "model", device)


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "float64"])
def test_imagery_is_mapped_on_a_device_that_lacks_its_dtype(world, tmp_path, dtype):
    with rasterio.open(world / "scene.tif") as source:
        pixels, profile = source.read(), source.profile
    with rasterio.open(tmp_path / "scene.tif", "w", **profile | {"dtype": dtype}) as target:
        target.write(pixels.astype(dtype))
    chips = tmp_path / "chips"
    verbs.chip(
        images=[tmp_path / "scene.tif"], labels=world / "labels.geojson", label_field="class", size=32, out=chips
    )
    result, _ = there(used, tmp_path / "scene.tif", chips, tmp_path)
    assert_same(result, in_memory(counted(chips, tmp_path / "model", torch.device("cpu"))))
