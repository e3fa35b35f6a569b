"""One logit stands for two classes, whatever network gives it."""

import pytest
import torch

from landscribe.errors import NetworkError
from landscribe.model import Model
from landscribe.nn import LOSSES, build
from landscribe.nn.architectures.unetplusplus import pruned
from landscribe.nn.segmentation import two_logits

SMALL = {"encoder": "plain", "encoder_widths": [4, 8]}
BANDS, CLASSES = ["r", "g", "b"], ["rest", "house"]


def with_two_logits(one, two):
    """The network `two` with the weights of `one`; the added logit of its last layers is always 0."""
    state = {}
    for name, value in one.state_dict().items():
        missing = two.state_dict()[name].shape[:1].numel() - value.shape[:1].numel() if value.ndim else 0
        state[name] = torch.cat([torch.zeros_like(value[:1])] * missing + [value]) if missing else value
    two.load_state_dict(state)
    return two.eval()


def pair(architecture, **options):
    """A model with one logit, and that of two logits with the same weights."""
    torch.manual_seed(3)
    one, two = (build(architecture, bands=3, classes=classes, **options) for classes in (1, 2))
    networks = one.eval(), with_two_logits(one, two)
    return [Model.wrap(network, bands=BANDS, classes=CLASSES, scale=1 / 255) for network in networks]


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("unet", SMALL), ("fcn", SMALL), ("unetplusplus", SMALL), ("deeplabv3plus", {"encoder": "test_resnet"}),
        ("smp:Unet", {"encoder": "resnet18"}),
    ],
)  # fmt: skip
def test_one_logit_gives_the_logits_of_two_with_equal_weights(architecture, options):
    one, two = pair(architecture, **options)
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(one(images), two(images))
        assert one(images)[:, 0].abs().max() == 0
    assert one.head_channels == two.head_channels == {"classes": 2}


def test_the_softmax_of_two_logits_is_the_sigmoid_of_one():
    logits = torch.linspace(-30, 30, 101).view(1, 1, 1, -1)
    torch.testing.assert_close(two_logits(logits).softmax(1)[:, 1:], logits.sigmoid())


def test_the_wrapped_network_itself_keeps_its_one_logit_and_shares_its_weights():
    network = build("unet", bands=3, classes=1, **SMALL)
    model = Model.wrap(network, bands=BANDS, classes=CLASSES)
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 1, 32, 32)
    assert model.network(torch.rand(2, 3, 32, 32)).shape == (2, 2, 32, 32)
    assert {id(weight) for weight in model.network.parameters()} == {id(weight) for weight in network.parameters()}


def test_border_and_inner_of_unet_id_keep_their_one_logit():
    network = build("unet_id", bands=3, classes=1, **SMALL)
    model = Model.wrap(network, bands=BANDS, classes=CLASSES)
    assert model.head_channels == {"segment": 2, "border": 1, "inner": 1}
    heads = model.network.forward_heads(torch.rand(2, 3, 32, 32))
    assert {name: logits.shape[1] for name, logits in heads.items()} == model.head_channels
    channels = []
    labels = torch.ones(2, 32, 32, dtype=torch.long)
    model.network.training_loss(
        torch.rand(2, 3, 32, 32), labels, lambda logits, _: channels.append(logits.shape[1]) or logits.mean()
    )
    assert channels == [2, 1, 1]


def test_every_branch_of_a_unetplusplus_has_two_logits_also_when_it_is_pruned():
    network = build("unetplusplus", bands=3, classes=1, encoder="plain", encoder_widths=[4, 8, 8]).eval()
    model = Model.wrap(network, bands=BANDS, classes=CLASSES)
    images = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        branches = model.network.branches(images)
        assert {logits.shape[1] for logits in branches.values()} == {2}
        assert torch.equal(pruned(model.network, 1)(images), branches[1])


def test_one_logit_for_three_classes_is_refused():
    network = build("unet", bands=3, classes=1, **SMALL)
    with pytest.raises(NetworkError, match="one logit, which stands for two classes, but there are 3"):
        Model.wrap(network, bands=BANDS, classes=["a", "b", "c"])


def test_one_logit_of_one_class_stays_one():
    network = build("unet", bands=3, classes=1, **SMALL)
    assert Model.wrap(network, bands=BANDS, classes=["a"]).head_channels == {"classes": 1}


def test_a_saved_network_with_one_logit_is_loaded_with_two_classes(tmp_path):
    one, _ = pair("unet", **SMALL)
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    loaded = Model.load(one.save(tmp_path / "model"))
    assert loaded.arguments["classes"] == 1
    with torch.inference_mode():
        assert torch.equal(loaded(images), one(images))


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [
        ("unet", "skresnet18"), ("unetplusplus", "skresnet18"), ("unet_id", "skresnet18"),
        ("smp:DeepLabV3Plus", "resnet18"),
    ],
)  # fmt: skip
def test_normalisation_behind_global_pooling_trains_with_two_images_or_more(architecture, encoder):
    network = build(architecture, encoder=encoder, bands=3, classes=2).train()
    network.pixel_size = 1.0
    labels = torch.zeros(2, 64, 64, dtype=torch.long)
    with pytest.raises(NetworkError, match=r"more than one image a step\. Train with a batch of 2 or more"):
        network.training_loss(torch.rand(1, 3, 64, 64), labels[:1], LOSSES["ce"])
    assert network.training_loss(torch.rand(2, 3, 64, 64), labels, LOSSES["ce"]).isfinite()
