"""Every family of backbones, under UNet."""

import copy
import pickle
from itertools import pairwise

import pytest
import timm
import torch
from contract import NetworkContract, ServingContract
from torch import nn

from landscribe.errors import NetworkError
from landscribe.nn import build, freeze
from landscribe.nn.encoders.encoder import Encoder

FAMILIES = [
    "resnet18", "densenet121", "inception_v3", "inception_v4", "inception_resnet_v2", "efficientnet_b0",
    "efficientnetv2_rw_t", "mobilenetv2_035", "mobilenetv3_small_050", "dpn48b", "vgg11_bn", "convnext_atto",
    "regnetx_002",
]  # fmt: skip
NARROW = {"widths": [32, 16, 8]}
"""Widths of the decoder: the same blocks on every backbone, of less work."""


def shortened(network: nn.Module) -> nn.Module:
    """The network with one block of each kind: of equal blocks in a row, the last stays."""
    for parent in [*network.modules()]:
        children = [*parent.named_children()] if isinstance(parent, nn.Sequential | nn.ModuleDict) else []
        for (name, block), (_, following) in pairwise(children):
            if any(block.children()) and repr(block) == repr(following):
                del parent._modules[name]
    return network


class TestBackbones(NetworkContract):
    """The contract, for all of them, and what each backbone does under another architecture."""

    bands = 5

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _a_short_backbone_is_drawn_once(cls):
        """The tests in a row that need a backbone copy it."""
        create, latest = timm.create_model, {}

        def copied(name: str, **settings):
            key = (name, repr(sorted(settings.items())))
            if key not in latest:
                latest.clear()
                latest[key] = shortened(create(name, **settings))
            return copy.deepcopy(latest[key])

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(timm, "create_model", copied)
            yield

    @pytest.fixture(scope="class", params=FAMILIES)
    @classmethod
    def case(cls, request):
        return "unet", request.param, NARROW

    def test_features_of_any_number_of_bands_lie_over_their_pixels(self, network):
        encoder = network.eval().features.encoder
        with torch.inference_mode():
            features = encoder(torch.rand(1, 5, 96, 64))
        assert [tuple(feature.shape[1:]) for feature in features] == [
            (channels, 96 // reduction, 64 // reduction)
            for channels, reduction in zip(encoder.channels, encoder.reductions, strict=True)
        ]

    def test_every_backbone_dilates(self, case):
        assert_dilates(case[1], 8, bands=5)


class TestServedBackbones(ServingContract):
    """The contract of trained networks, for backbones of unlike blocks."""

    @pytest.fixture(
        scope="class", params=[("inception_v3", {"depth": 4}), ("test_efficientnet", {}), ("test_convnext", {})],
        ids=lambda param: param[0],
    )  # fmt: skip
    @classmethod
    def case(cls, request):
        return "unet", request.param[0], NARROW | request.param[1]


def assert_dilates(name, stride, *, bands):
    network = build("deeplabv3plus", encoder=name, bands=bands, classes=2, output_stride=stride, channels=16).eval()
    with torch.inference_mode():
        assert network.encoder(torch.rand(1, bands, 64, 32))[-1].shape[-2:] == (64 // stride, 32 // stride)
        assert network(torch.rand(1, bands, 50, 37)).shape == (1, 2, 50, 37)


@pytest.mark.parametrize("name", ["resnet18", "inception_v3"])
def test_backbones_dilate_to_a_stride_of_16(name):
    assert_dilates(name, 16, bands=3)


@pytest.mark.parametrize("name", ["inception_v3", "inception_v4", "inception_resnet_v2"])
def test_features_of_inception_move_with_the_image(name):
    """Without padding, where a feature lies would depend on the size of the image."""
    torch.manual_seed(0)
    encoder = Encoder(name, bands=3, depth=2).eval()
    image = torch.zeros(1, 3, 192, 192)
    image[..., 80:112, 80:112] = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        there, moved = encoder(image), encoder(image.roll((16, 32), (-2, -1)))
    for feature, shifted, reduction in zip(there, moved, encoder.reductions, strict=True):
        inner = slice(40 // reduction, 150 // reduction)
        expected = feature.roll((16 // reduction, 32 // reduction), (-2, -1))
        torch.testing.assert_close(shifted[..., inner, inner], expected[..., inner, inner], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "mobilenetv2_035", "regnetx_002", "convnext_atto"])
def test_dilation_equals_that_of_timm_where_timm_has_it(name, stride):
    ours = Encoder(name, bands=3, output_stride=stride).eval()
    theirs = timm.create_model(name, features_only=True, output_stride=stride).eval()
    theirs.load_state_dict(ours.body.state_dict())
    image = torch.rand(1, 3, 96, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(image)[-1], theirs(image)[-1], rtol=1e-3, atol=1e-4)


def test_a_backbone_of_many_branches_is_not_dilated_but_refused():
    with pytest.raises(NetworkError, match="cannot be dilated"):
        build("deeplabv3plus", encoder="hrnet_w18_small", bands=3, classes=2)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18", "test_efficientnet", "mnasnet_small", "hardcorenas_b", "lcnet_035", "mobilenetv3_small_050",
        "tf_mobilenetv3_small_minimal_100", "inception_v4", "dla46x_c", "test_convnext",
    ],
)  # fmt: skip
def test_depth_keeps_exactly_the_layers_that_its_features_need(name):
    """HRNet and Xception are exceptions: they have features in the middle of a block, which stays whole."""
    full, short = Encoder(name, bands=3).eval(), Encoder(name, bands=3, depth=3).eval()
    assert short.reductions == tuple(reduction for reduction in full.reductions if reduction <= 8)
    state = full.state_dict()
    short.load_state_dict({name: state[name] for name in short.state_dict()})
    image = torch.rand(1, 3, 64, 96)
    features = short(image)
    with torch.inference_mode():
        assert all(map(torch.equal, features, full(image)))
    sum(feature.sum() for feature in features).backward()
    assert not [name for name, weight in short.named_parameters() if weight.grad is None]


@pytest.mark.parametrize("name", ["xception41p", "legacy_xception"])
def test_a_block_with_a_feature_in_its_middle_stays_whole(name):
    full, short = Encoder(name, bands=3).eval(), Encoder(name, bands=3, depth=3).eval()
    state = full.state_dict()
    short.load_state_dict({name: state[name] for name in short.state_dict()})
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert all(map(torch.equal, short(image), full(image)))
    assert 0 < len(short.state_dict()) < len(state) / 2


@pytest.mark.parametrize("name", ["resnet10t", "test_efficientnet", "vit_tiny_patch16_224"])
def test_a_depth_of_more_halvings_than_the_encoder_has_is_refused(name):
    assert Encoder(name, bands=3, depth=5).reductions[-1] == 32
    with pytest.raises(NetworkError, match=f"depth is 6, but '{name}' halves the size 5 times"):
        Encoder(name, bands=3, depth=6)


@pytest.mark.parametrize("name", ["legacy_seresnet18", "ese_vovnet19b_dw", "hgnetv2_b0", "resnetv2_50x1_bit"])
def test_backbones_with_a_padding_of_their_own_have_logits_of_the_images_size(name):
    network = build("unet", encoder=name, bands=3, classes=2, **NARROW).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 50, 37)).shape == (1, 2, 50, 37)


@pytest.mark.parametrize(
    ("name", "depth", "multiple"),
    [
        ("mobilevitv2_050", None, 64), ("hrnet_w18_small", None, 32), ("hrnet_w18_small", 2, 32),
        ("hrnet_w18_small", 3, 32), ("resnet10t", 2, 4), ("vit_tiny_patch16_224", 2, 4),
    ],
)  # fmt: skip
def test_images_of_any_size_are_padded_to_a_multiple_that_every_branch_takes(name, depth, multiple):
    network = build("unet", encoder=name, bands=3, classes=2, depth=depth, widths=[8]).eval()
    assert network.reduction == multiple
    with torch.inference_mode():
        for size in ((multiple, multiple), (72, 100), (3 * multiple, 260)):
            if min(size) >= multiple:
                assert network(torch.rand(1, 3, *size)).shape == (1, 2, *size)


def test_a_dilated_backbone_of_even_tokens_pads_to_them():
    network = build("deeplabv3plus", encoder="mobilevitv2_050", bands=3, classes=2, channels=16).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 80, 112)).shape == (1, 2, 80, 112)


@pytest.mark.parametrize(
    "name", ["vit_relpos_small_patch16_224", "swin_tiny_patch4_window7_224", "mambaout_femto", "mvitv2_tiny"]
)
def test_a_backbone_without_a_pyramid_of_features_is_refused(name):
    with pytest.raises(NetworkError, match="no pyramid of features"):
        build("unet", encoder=name, bands=3, classes=2)


def test_deeplabv3plus_needs_features_at_a_quarter():
    with pytest.raises(NetworkError, match="begin at 1/16"):
        build("deeplabv3plus", encoder="efficientvit_m0", bands=3, classes=2)


def test_a_frozen_network_can_be_pickled():
    network = build("unet", encoder="inception_v3", bands=3, classes=2, depth=4).eval()
    freeze(network.features.encoder)
    again = pickle.loads(pickle.dumps(network))
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(again(image), network(image))
    assert not again.train().features.encoder.training
