"""The encoders of `summary --encoders`: their costs, and a few steps of training."""

import pytest
import timm
import torch

from landscribe.errors import LandscribeError
from landscribe.inference import benchmark
from landscribe.nn import build
from landscribe.nn.encoders.encoder import Encoder
from landscribe.nn.encoders.freezing import freeze
from landscribe.nn.encoders.tried import ENCODERS, encoder_cost
from landscribe.nn.encoders.vision_transformer import is_vision_transformer
from landscribe.nn.encoders.weights import license_terms
from landscribe.nn.losses import weighted_sum
from landscribe.verbs import encoders


@pytest.mark.parametrize("name", ENCODERS)
def test_the_license_of_a_tried_encoders_weights_is_known(name):
    assert license_terms(name, "imagenet")["license"] in ("apache-2.0", "mit", "dinov3-license")


def test_parameters_and_operations_are_those_of_the_encoder_alone():
    cost, encoder = encoder_cost("resnet18", bands=3, size=100), Encoder("resnet18", bands=3)
    assert cost.parameters == sum(parameter.numel() for parameter in encoder.parameters())
    # He et al. 2016: 1.8e9 multiplications and additions for 224 x 224 pixels.
    assert cost.flops_per_megapixel == pytest.approx(2 * 1.8e9 / 224**2 * 1e6, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_a_tried_encoder_learns_in_a_few_steps(name, monkeypatch):
    create = timm.create_model

    def short(name, **settings):
        return create(name, **({"depth": 4} if is_vision_transformer(name) else {}), **settings)

    monkeypatch.setattr(timm, "create_model", short)
    assert encoder_cost(name, bands=4, size=64).flops_per_megapixel > 10**9
    torch.manual_seed(0)
    network = build("unet", encoder=name, bands=4, classes=2, widths=[32, 16]).train()
    if is_vision_transformer(name):
        freeze(network.features.encoder.body)
    criterion = weighted_sum("ce")
    images = torch.rand(2, 4, 64, 64)
    labels = (torch.nn.functional.avg_pool2d(images[:, 0], 9, stride=1, padding=4) > 0.5).long()
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=5e-3)
    losses = []
    for _ in range(5):
        loss = network.training_loss(images, labels, criterion)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[1:]) < 0.95 * losses[0]


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(benchmark, "ENCODERS", ("test_resnet", "test_vit"))


def test_encoders_are_timed_on_this_machine(few):
    costs = encoders(bands=4, size=50)
    assert [cost.name for cost in costs] == ["test_resnet", "test_vit"]
    assert all(cost.seconds_per_megapixel > 0 for cost in costs)


@pytest.mark.parametrize(
    ("device", "side", "images", "calls"),
    [("cpu", 256, 1, 1), ("cuda", 256, 64, 4), ("cuda", 2048, 1, 4), ("mps", 64, 1024, 4)],
)
def test_a_gpu_computes_four_megapixels_a_call_and_four_calls_a_round(device, side, images, calls):
    assert benchmark._images_and_calls(side, torch.device(device)) == (images, calls)


@pytest.mark.parametrize(("images", "calls"), [(1, 1), (3, 2)])
def test_the_seconds_of_a_round_are_shared_by_all_of_its_pixels(few, monkeypatch, images, calls):
    monkeypatch.setattr(benchmark, "_images_and_calls", lambda *_: (images, calls))
    pixels, forward = [], Encoder.forward

    def counted(self, batch):
        pixels.append(batch[:, 0].numel())
        return forward(self, batch)

    def in_six_seconds(calls, *_, **__):
        pixels.clear()
        return {name: [6.0] for name, call in calls.items() if not call()}

    monkeypatch.setattr(Encoder, "forward", counted)
    monkeypatch.setattr(benchmark, "time_in_turns", in_six_seconds)
    seconds = benchmark._encoder_seconds("test_resnet", 3, 64, torch.device("cpu"))
    assert sum(pixels) == calls * images * 64**2
    assert seconds == pytest.approx(6 / (sum(pixels) / 1e6))


def test_an_encoder_too_large_for_this_machine_is_not_timed(few, monkeypatch):
    small, large = sorted(encoder_cost(name, bands=3, size=64).parameters for name in benchmark.ENCODERS)
    monkeypatch.setattr(benchmark, "total_memory", lambda: 4 * 4 * large)
    timed = {cost.parameters: cost.seconds_per_megapixel for cost in encoders(size=64)}
    assert timed[large] is None
    assert timed[small] > 0


def test_images_beyond_the_limit_are_refused():
    with pytest.raises(LandscribeError, match="'size' is 4096"):
        encoders(size=4096)
