"""The memory of tiles is estimated without computing a tile."""

import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from test_mapping import model_of
from torch import Tensor, nn

import forked
from landscribe.errors import NetworkError
from landscribe.geo.classes import IGNORE
from landscribe.inference import memory
from landscribe.inference.memory import GIB, PinnedModel, budget, estimated_memory, step_memory
from landscribe.machine import total_memory
from landscribe.model import Model
from landscribe.nn import Segmentation, build
from landscribe.nn.losses import weighted_sum
from networks import AboveTheMean, OneLayer

CPU = torch.device("cpu")


class Wide(nn.Module):
    """Copies the pixels into many channels, of which it keeps two."""

    reduction = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        wide = x.repeat(1, self.channels, 1, 1)
        return wide[:, :2].clone()


class Weighted(nn.Module):
    """Multiplies by one of many weights."""

    reduction = 1

    def __init__(self, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(side, side))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, -x], dim=1) * self.weight.t()[0, 0]


class Deciding(nn.Module):
    """Decides by pixel values which operations run."""

    reduction = 1

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, -x if x.max() > 1 else x], dim=1)


def growth(network: nn.Module, shape: tuple[int, int, int], larger: tuple[int, int, int]) -> float:
    """Bytes for each further pixel."""
    model = model_of(network, 2)
    small, large = (estimated_memory([model], size) for size in (shape, larger))
    return (large - small) / (larger[0] * larger[1] * larger[2] - shape[0] * shape[1] * shape[2])


@pytest.mark.parametrize("channels", [10, 100])
def test_tensors_that_are_alive_together_are_added(channels):
    # Of a pixel: its byte, whether it is valid (1), as a float (4), in all channels (4 each), and the two kept (8).
    expected = 1 + 1 + 4 + 4 * channels + 8
    assert growth(Wide(channels), (1, 64, 64), (1, 128, 128)) == pytest.approx(expected, abs=0.1)
    assert growth(Wide(channels), (1, 64, 64), (3, 64, 64)) == pytest.approx(expected, abs=0.1)


def test_weights_and_their_views_do_not_count():
    small, large = (estimated_memory([model_of(Weighted(side), 2)], (1, 32, 32)) for side in (2, 2000))
    assert small == large


def saved_for_backward(network: nn.Module, images: Tensor) -> int:
    """Bytes that a real forward pass keeps for its backward pass, without the weights."""
    own = {tensor.untyped_storage().data_ptr() for tensor in network.parameters()}
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            # The reference keeps the address from being used again.
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = network(images)
    assert logits.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("name", ["unet", "fcn", "deeplabv3plus"])
def test_a_step_holds_what_its_backward_pass_needs(name):
    network = build(name, bands=3, classes=4, encoder="resnet18", weights=None).train()
    shape = (4, 3, 128, 128)
    saved = saved_for_backward(network, torch.rand(shape))
    gradients = 4 * sum(weights.numel() for weights in network.parameters())
    assert saved < step_memory(network, shape) < 1.3 * (saved + gradients)


def test_the_memory_of_a_step_grows_with_its_batch():
    network = build("unet", bands=3, classes=4, encoder="resnet18", weights=None)
    four, eight, sixteen = (step_memory(network, (batch, 3, 128, 128)) for batch in (4, 8, 16))
    assert sixteen - eight == pytest.approx(2 * (eight - four), rel=0.02)
    assert all(weights.device == CPU for weights in network.parameters())


def test_a_step_that_depends_on_pixel_values_has_no_estimate():
    class Deciding(Segmentation):
        def __init__(self) -> None:
            super().__init__(1, {"classes": 2})

        def forward_padded(self, images: Tensor) -> Tensor:
            return images if images.max() > 1 else -images

    assert step_memory(Deciding(), (2, 2, 32, 32)) is None


def test_images_that_are_too_small_for_a_network_are_refused():
    with pytest.raises(NetworkError, match="16 x 16"):
        step_memory(build("unet", bands=3, classes=2, encoder="resnet18", weights=None), (2, 3, 16, 16))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["unet", "unetplusplus"])
def test_a_step_on_a_gpu_takes_about_its_estimate(name):
    network = build(name, bands=3, classes=4, encoder="resnet18", weights=None).cuda().train()
    labels = torch.randint(0, 4, (8, 256, 256), device="cuda")
    loss = partial(weighted_sum("dice + ce"), ignore=IGNORE)
    # The first step also takes what libraries allocate once. Workspaces of convolutions vary.
    for _ in range(2):
        network.zero_grad()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        network.training_loss(torch.rand(8, 3, 256, 256, device="cuda"), labels, loss).backward()
        taken = torch.cuda.max_memory_allocated() - before
    assert step_memory(network, (8, 3, 256, 256)) == pytest.approx(taken, rel=0.5)


def test_averaged_probabilities_take_more():
    model = model_of(Wide(10), 2)
    alone, averaged = (estimated_memory([model], (1, 64, 64), averaged=averaged) for averaged in (False, True))
    assert averaged == alone + 2 * 2 * 4 * 64 * 64
    assert estimated_memory([model, model_of(Wide(20), 2)], (1, 64, 64)) > alone


def test_a_network_that_depends_on_pixel_values_has_no_estimate():
    assert estimated_memory([model_of(Deciding(), 2)], (1, 64, 64)) is None


def bytes_of(key: str) -> int:
    """An entry of this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def estimate_and_growth() -> tuple[int, int]:
    """The estimate for a tile of 512 pixels, and by how much this process grows."""
    torch.set_num_threads(1)
    network = build("unet", bands=3, classes=2, encoder="resnet18", weights=None).eval()
    model = Model.wrap(network, bands=list("rgb"), classes=list("ab"))
    network.to(memory_format=torch.channels_last)
    estimate = estimated_memory([model], (1, 512, 512))

    def run(side: int) -> None:
        model.logits(torch.zeros(1, 3, side, side, dtype=torch.uint8), torch.ones(1, side, side) > 0)

    with torch.inference_mode():
        run(64)
        Path("/proc/self/clear_refs").write_text("5")
        before = bytes_of("VmRSS")
        run(512)
    return estimate, bytes_of("VmHWM") - before


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's count of a process's memory")
def test_a_process_grows_by_no_more_than_the_estimate():
    estimate, measured = forked.call(estimate_and_growth)
    assert (estimate - 200e6) * 0.9 <= measured <= estimate


def test_the_budget_is_constant_and_divided_among_processes():
    assert budget(CPU) == budget(CPU) <= min(1.5 * GIB, total_memory() / 4)
    assert budget(CPU, processes=1000) <= total_memory() / 2000


@pytest.mark.parametrize(
    ("architecture", "encoder", "expected"),
    [("unet", "plain", False), ("unet", "test_resnet", False), ("deeplabv3plus", "test_resnet", True)],
)
def test_global_context_is_detected_in_networks_with_global_pooling(architecture, encoder, expected):
    network = build(architecture, encoder=encoder, bands=3, classes=2)
    assert (
        PinnedModel.pin(Model.wrap(network, bands=["r", "g", "b"], classes=["a", "b"])).has_global_context is expected
    )


def test_a_mean_of_the_image_is_global_context_and_data_dependence_is_not():
    assert PinnedModel.pin(model_of(AboveTheMean(), 2)).has_global_context
    assert not PinnedModel.pin(model_of(Deciding(), 2)).has_global_context


def test_what_is_found_of_a_pinned_model_is_kept(monkeypatch):
    traces, run = [], memory._run_on_meta_device
    monkeypatch.setattr(memory, "_run_on_meta_device", lambda *arguments: traces.append(1) or run(*arguments))
    model = model_of(OneLayer(), 2)
    pinned = PinnedModel.pin(model)
    sha256 = pinned.sha256
    assert sha256 == model.sha256
    for _ in range(2):
        assert not pinned.has_global_context
        assert estimated_memory([pinned], (1, 64, 64)) == estimated_memory([pinned], (1, 64, 64))
    assert len(traces) == 2
    assert estimated_memory([pinned], (1, 128, 64)) > estimated_memory([pinned], (1, 64, 64))
    assert len(traces) == 3
    with torch.no_grad():
        next(model.network.parameters()).add_(1)
    # A network that changed is another model.
    assert pinned.sha256 == sha256 != model.sha256 == PinnedModel.pin(model).sha256


def test_a_network_that_cannot_be_copied_is_traced():
    model = model_of(AboveTheMean(), 2)
    model.network.lock = threading.Lock()
    assert estimated_memory([model], (1, 64, 64)) is not None
    assert PinnedModel.pin(model).has_global_context


class Watching(nn.Module):
    """Notes where the weights of another network lie while it runs."""

    reduction = 1
    watched: nn.Module | None = None
    seen: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 2, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.watched is not None:
            type(self).seen += (self.watched.layer.weight.device.type,)
        return self.layer(x)


def test_the_weights_of_a_network_stay_while_it_is_traced_so_that_other_threads_can_run_it(monkeypatch):
    model = model_of(Watching(), 2)
    monkeypatch.setattr(Watching, "watched", model.network)
    monkeypatch.setattr(Watching, "seen", ())
    assert estimated_memory([model], (1, 64, 64)) is not None
    assert not PinnedModel.pin(model).has_global_context
    assert Watching.seen == ("cpu", "cpu")
