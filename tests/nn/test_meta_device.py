"""Networks on the meta device: they are measured before memory is allocated."""

import pytest
import torch

from landscribe import machine, verbs
from landscribe.errors import NetworkError, ResourceError
from landscribe.nn import build
from landscribe.nn.meta_device import count_weights, meta_device, require_weights_memory


@pytest.fixture
def eight_gigabytes(monkeypatch):
    monkeypatch.setattr(machine, "total_memory", lambda: 8 * 10**9)


@pytest.mark.parametrize(
    ("architecture", "encoder", "options"),
    [
        ("unet", "plain", {"encoder_widths": [30_000, 30_000]}),
        ("unet", "resnet18", {"widths": [90_000]}),
        ("unetplusplus", "plain", {"encoder_widths": [20_000, 20_000]}),
        ("deeplabv3plus", "resnet18", {"channels": 1_000_000}),
        ("unet", "resnet18", {"full_resolution": 90_000}),
        ("networks:Wide", "plain", {"width": 60_000}),
    ],
)
def test_a_network_with_more_weights_than_memory_is_refused_with_both_numbers(
    eight_gigabytes, architecture, encoder, options
):
    option = next(iter(options))
    with pytest.raises(ResourceError, match=rf"weights needs at least [\d,.]+ GB of memory, but .* 8 GB\..*{option}"):
        build(architecture, encoder=encoder, bands=3, classes=1, **options)


def test_a_summary_counts_the_weights_alone(eight_gigabytes):
    # A convolution of 3 x 3 from 20,000 to as many channels has 3.6e9 weights; all others have few.
    with pytest.raises(ResourceError, match=r"unet with 3,60\d,.* weights needs at least 14\.4 GB"):
        verbs.summary(encoder="plain", encoder_widths=[8, 20_000])


def test_weights_are_counted_as_of_the_built_network():
    settings = {"encoder": "plain", "bands": 3, "classes": 2, "encoder_widths": [8, 16]}
    with meta_device():
        measured = count_weights(build("unet", **settings))
    network = build("unet", **settings)
    assert measured == count_weights(network) == sum(value.numel() for value in network.state_dict().values())


def test_a_network_without_a_large_setting_is_built_once():
    built = []
    require_weights_memory(lambda: built.append(1), {"encoder_widths": [512, 8], "encoder": "plain"}, "unet")
    assert built == []
    require_weights_memory(lambda: built.append(1), {"encoder_widths": [513, 8]}, "unet")
    assert built == [1]


def test_numbers_that_no_tensor_has_are_refused():
    with pytest.raises(NetworkError, match=r"'widths\.0' is"):
        build("unet", encoder="plain", bands=3, classes=2, widths=[10**30])
    with pytest.raises(NetworkError, match="Expected 1 to 1000000 of each"):
        build("unet", encoder="plain", bands=10**30, classes=2)


def test_the_default_device_is_the_same_after_a_refusal(eight_gigabytes):
    with pytest.raises(ResourceError):
        build("unet", encoder="plain", bands=3, classes=2, encoder_widths=[30_000, 30_000])
    assert torch.get_default_device().type == "cpu"
