"""Every architecture, on a small backbone and on the encoder that its paper draws."""

import numpy as np
import pytest
import timm
import torch
from contract import NetworkContract, ServingContract
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from landscribe.errors import NetworkError
from landscribe.model import Model
from landscribe.nn import ARCHITECTURES, build
from landscribe.nn.architectures.blocks import interpolate
from landscribe.nn.architectures.unet_id import Widths, border_and_inner
from landscribe.nn.architectures.unetplusplus import pruned
from landscribe.nn.encoders.encoder import PlainEncoder
from landscribe.nn.meta_device import meta_device

BACKBONE = "test_resnet"
SMALL = {"encoder_widths": [8, 12, 16, 20]}
PLAIN = {name: SMALL for name in ARCHITECTURES if name != "deeplabv3plus"}
EVERYTHING = {
    "depth": 3, "encoder_widths": [8, 12, 16, 20], "dropout": 0.1, "activation": "swish", "attention": True,
    "squeeze_excitation": True, "residual": True, "aspp": [2, 4],
}  # fmt: skip
VARIANTS = [
    ("unet", "plain", EVERYTHING),
    ("unet", "plain", SMALL | {"batch_norm": False, "activation": "leaky_relu", "upsampling": "bicubic"}),
    ("unet", BACKBONE, {"full_resolution": 8, "attention": True, "upsampling": "bilinear", "depth": 4}),
    ("unetplusplus", BACKBONE, {"deep_supervision": False, "widths": [8, 12, 16]}),
    ("unetplusplus", "plain", SMALL | {"branch": 3, "upsampling": "bilinear"}),
    ("deeplabv3plus", BACKBONE, {"output_stride": 8, "separable": False, "channels": 32, "rates": [1, 2]}),
]


class TestArchitectures(NetworkContract):
    """What all of them compute, and how they learn."""

    @pytest.fixture(
        scope="class",
        params=[
            *((name, BACKBONE, {}) for name in ARCHITECTURES),
            *((name, "plain", options) for name, options in PLAIN.items()),
        ],
        ids=lambda case: "-".join(map(str, case[:2])),
    )
    @classmethod
    def case(cls, request):
        return request.param


class TestServedArchitectures(ServingContract):
    """The contract of trained networks, for all of them, with encoders of few scales."""

    @pytest.fixture(
        scope="class",
        params=[
            ("fcn", BACKBONE, {"depth": 3}),
            *((name, BACKBONE, {"depth": 3, "widths": [16, 12, 8]}) for name in ("unet", "unetplusplus", "unet_id")),
            ("deeplabv3plus", BACKBONE, {"channels": 32}),
            *((name, "plain", {"encoder_widths": [8, 12, 16]}) for name in PLAIN),
        ],
        ids=lambda case: "-".join(map(str, case[:2])),
    )
    @classmethod
    def case(cls, request):
        return request.param


class TestVariants(NetworkContract):
    """The contract, with options."""

    @pytest.fixture(scope="class", params=VARIANTS, ids=lambda case: f"{case[0]}-{case[1]}-{len(case[2])}")
    @classmethod
    def case(cls, request):
        return request.param


@pytest.mark.parametrize(("bands", "classes"), [(1, 6), (3, 1), (5, 2)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_number_of_bands_and_classes(architecture, bands, classes):
    network = build(architecture, encoder=BACKBONE, bands=bands, classes=classes).train()
    images, labels = torch.rand(2, bands, 64, 64), torch.randint(0, max(2, classes), (2, 64, 64))
    loss = network.training_loss(images, labels, lambda logits, truth: logits.mean() * truth.float().mean())
    assert torch.isfinite(loss)
    with torch.inference_mode():
        assert network.eval()(images).shape == (2, classes, 64, 64)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_built_from_builds_the_network_again(architecture):
    network = build(architecture, encoder=BACKBONE, bands=4, classes=3)
    again = build(**network.built_from)
    again.load_state_dict(network.state_dict())
    assert again.reduction == network.reduction


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_image_that_is_too_small_is_refused_with_the_least_size(architecture):
    network = build(architecture, encoder=BACKBONE, bands=3, classes=2)
    cell = network.reduction
    with pytest.raises(NetworkError, match=rf"at least {cell} x {cell}"):
        network.eval()(torch.rand(1, 3, cell - 1, 64))
    with pytest.raises(NetworkError, match=rf"at least {cell + 1} x {cell + 1}"):
        network.train()(torch.rand(1, 3, cell, cell))
    with torch.inference_mode():
        assert network.eval()(torch.rand(1, 3, cell, cell)).shape[-1] == cell


def test_an_image_of_any_size_is_predicted_as_if_mirrored_at_its_right_and_lower_edge():
    network = build("unet", encoder=BACKBONE, bands=3, classes=2).eval()
    image = torch.rand(1, 3, 100, 117)
    padded = torch.from_numpy(np.pad(image, ((0, 0), (0, 0), (0, 28), (0, 11)), mode="reflect"))
    with torch.inference_mode():
        torch.testing.assert_close(network(image), network(padded)[..., :100, :117])


# ---- the papers' structure


def test_the_unet_of_the_lecture_has_the_parameters_counted_by_hand():
    with meta_device():
        network = build("unet", encoder="plain", bands=3, classes=10)

    def double(into: int, out: int) -> int:
        # Two 3 x 3 convolutions without bias, each with the weight and bias of a normalisation.
        return into * out * 9 + out * out * 9 + 2 * 2 * out

    encoder = double(3, 64) + double(64, 128) + double(128, 256) + double(256, 512)
    bottleneck = double(512, 1024)
    # A 2 x 2 transposed convolution with bias to half the channels, then a block over these and the skip.
    decoder = sum(2 * out * out * 4 + out + double(2 * out, out) for out in (512, 256, 128, 64))
    head = 64 * 10 + 10
    assert sum(parameter.numel() for parameter in network.parameters()) == encoder + bottleneck + decoder + head
    features = network.eval().features.encoder(torch.rand(1, 3, 128, 128, device="meta"))
    assert [tuple(feature.shape[1:]) for feature in features] == [
        (64, 128, 128), (128, 64, 64), (256, 32, 32), (512, 16, 16), (1024, 8, 8)
    ]  # fmt: skip


def test_unet_on_resnet18_has_the_parameters_counted_by_hand():
    with meta_device():
        network = build("unet", encoder="resnet18", bands=3, classes=2)

    def block(into: int, skip: int, out: int) -> int:
        return (into + skip) * out * 9 + out * out * 9 + 2 * 2 * out

    # ResNet-18 without its classifier has 11 176 512 parameters (He et al. 2016).
    decoder = sum(block(*row) for row in [(512, 256, 256), (256, 128, 128), (128, 64, 64), (64, 64, 32), (32, 0, 16)])
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_176_512 + decoder + 16 * 2 * 9 + 2


def test_unet_on_vgg16_matches_stages_and_decoder_blocks_by_size():
    with meta_device():
        features = build("unet", encoder="vgg16", bands=3, classes=2, widths=[512, 256, 128, 64, 32]).features
    assert features.encoder.channels == (64, 128, 256, 512, 512, 512)
    assert features.encoder.reductions == (1, 2, 4, 8, 16, 32)
    # Convolutional parts only: 14 714 688 parameters (Simonyan & Zisserman 2015).
    assert sum(parameter.numel() for parameter in features.encoder.parameters()) == 14_714_688
    assert len(features.decoder) == 5


def test_unet_on_resnet18_takes_a_first_block_at_full_resolution():
    with meta_device():
        features = build("unet", encoder="resnet18", bands=3, classes=2, full_resolution=64).features
    assert [block.convolve.first[0].in_channels for block in features.decoder][-1] == 32 + 64
    assert features.first(torch.rand(1, 3, 64, 64, device="meta")).shape == (1, 64, 64, 64)


def test_unetplusplus_has_the_nodes_and_connections_of_its_paper():
    with meta_device():
        network = build("unetplusplus", encoder="plain", bands=3, classes=2)
    assert isinstance(network.encoder, PlainEncoder)
    assert network.encoder.channels == (64, 128, 256, 512, 1024)
    # X(i, j) for i + j <= 4: the encoder's five and ten more.
    assert set(network.nodes) == {f"{i}_{j}" for j in range(1, 5) for i in range(5 - j)}
    for name, node in network.nodes.items():
        i, j = map(int, name.split("_"))
        # All j nodes before it at its scale, and the one below, brought to its width by the transposed convolution.
        assert node.first[0].in_channels == (j + 1) * network.encoder.channels[i]
    assert set(network.heads) == {"1", "2", "3", "4"}


def test_accurate_mode_is_the_mean_of_the_branches_and_fast_mode_is_one():
    network = build("unetplusplus", encoder=BACKBONE, bands=3, classes=2).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        branches = network.branches(images)
        torch.testing.assert_close(network(images), torch.stack(list(branches.values())).mean(0))
        network.branch = 2
        assert torch.equal(network(images), branches[2])


@pytest.mark.parametrize("encoder", [BACKBONE, "plain"])
def test_branches_have_the_size_of_the_images(encoder):
    network = build("unetplusplus", encoder=encoder, bands=3, classes=2, **(SMALL if encoder == "plain" else {})).eval()
    with torch.inference_mode():
        shapes = {branch: tuple(x.shape) for branch, x in network.branches(torch.rand(1, 3, 100, 117)).items()}
    assert shapes == dict.fromkeys(range(1, network.deepest + 1), (1, 2, 100, 117))


HEADS = dict.fromkeys(ARCHITECTURES, ("classes",)) | {"unet_id": ("segment", "border", "inner")}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_heads_are_named_and_the_main_head_is_forward_bit_by_bit(architecture):
    network = build(architecture, encoder=BACKBONE, bands=3, classes=3).eval()
    assert tuple(network.head_channels) == HEADS[architecture]
    assert network.head_channels[network.main_head] == 3
    images = torch.rand(2, 3, 70, 101)
    with torch.inference_mode():
        heads = network.forward_heads(images)
        assert torch.equal(heads[network.main_head], network(images))
    assert {name: tuple(logits.shape) for name, logits in heads.items()} == {
        name: (2, channels, 70, 101) for name, channels in network.head_channels.items()
    }


def test_every_branch_is_supervised_by_a_loss_of_its_own():
    network = build("unetplusplus", encoder=BACKBONE, bands=3, classes=2)
    images, labels = torch.rand(2, 3, 64, 64), torch.randint(0, 2, (2, 64, 64))
    seen = []
    network.training_loss(images, labels, lambda logits, truth: seen.append((logits, truth)) or logits.mean())
    assert len(seen) == 4
    assert all(truth is labels for _, truth in seen)


def test_branches_count_as_much_as_their_weights():
    network = build("unetplusplus", encoder="plain", bands=3, classes=2, branch_weights=[1, 0, 3], **SMALL)
    images, labels = torch.rand(2, 3, 64, 64), torch.randint(0, 2, (2, 64, 64))
    costs = iter([5.0, 7.0, 1.0])
    loss = network.training_loss(images, labels, lambda logits, _: logits.sum() * 0 + next(costs))
    assert loss.item() == pytest.approx((5 + 3 * 1) / 4)
    with pytest.raises(NetworkError, match="trains 3 branches"):
        build("unetplusplus", encoder="plain", bands=3, classes=2, branch_weights=[1, 1], **SMALL)


@pytest.mark.parametrize("encoder", [BACKBONE, "plain", "test_efficientnet", "test_convnext", "hrnet_w18_small"])
def test_a_pruned_network_has_exactly_the_logits_of_its_branch(encoder):
    torch.manual_seed(0)
    options = SMALL if encoder == "plain" else {}
    network = build("unetplusplus", encoder=encoder, bands=4, classes=3, **options).eval()
    images = torch.rand(1, 4, 64, 69)
    with torch.inference_mode():
        for branch, logits in network.branches(images).items():
            small = pruned(network, branch)
            assert torch.equal(small(images), logits)
            fewer = sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in network.parameters())
            assert fewer
            assert build(**small.built_from).load_state_dict(small.state_dict())


def test_pruning_keeps_the_widths_of_the_scales_that_are_left():
    network = build("unetplusplus", encoder=BACKBONE, bands=3, classes=2, widths=[8, 6, 4, 4, 2])
    assert pruned(network, 1).built_from["widths"] == (8, 6)
    with pytest.raises(NetworkError, match=f"6 widths, but '{BACKBONE}' has 5 scales at this depth"):
        build("unetplusplus", encoder=BACKBONE, bands=3, classes=2, widths=[8] * 6)


def test_pruning_to_a_branch_that_was_not_trained_is_refused():
    network = build("unetplusplus", encoder=BACKBONE, bands=3, classes=2, deep_supervision=False)
    with pytest.raises(NetworkError, match=r"branch is 2.*has trained branch 4"):
        pruned(network, 2)
    with pytest.raises(NetworkError, match="branch is 7"):
        build("unetplusplus", encoder=BACKBONE, bands=3, classes=2, branch=7)


def test_fcn_adds_scores_where_the_lecture_concatenates_features():
    network = build("fcn", encoder="plain", bands=3, classes=4, encoder_widths=[4, 6, 8]).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        features = [interpolate(x, 2**i, "bilinear") for i, x in enumerate(network.encoder(images))]
        kernel = torch.cat([score.weight for score in network.scores], dim=1)
        expected = nn.functional.conv2d(torch.cat(features, dim=1), kernel, network.scores[0].bias)
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)


def test_deeplabv3plus_dilates_instead_of_halving():
    with meta_device():
        for stride, rates in ((16, (6, 12, 18)), (8, (12, 24, 36))):
            network = build("deeplabv3plus", encoder="resnet18", bands=3, classes=2, output_stride=stride).eval()
            assert network.encoder(torch.rand(1, 3, 128, 128))[-1].shape[-1] == 128 // stride
            assert tuple(branch[0].dilation[0] for branch in network.pyramid.atrous) == rates
    assert network.low_level[0].out_channels == 48
    assert network.decoder[0].in_channels == 256 + 48


def test_unet_id_gives_each_head_the_activations_of_all_three():
    network = build("unet_id", encoder="plain", bands=3, classes=1, **SMALL).eval()
    heads = network.forward_heads(torch.rand(1, 3, 64, 64))
    assert {name: tuple(logits.shape) for name, logits in heads.items()} == dict.fromkeys(
        ("segment", "border", "inner"), (1, 1, 64, 64)
    )
    # One activation of each head goes in, 64 and 32 maps and an answer come out.
    assert [layer.in_channels for layer in network.last["inner"].modules() if isinstance(layer, nn.Conv2d)] == [
        3,
        64,
        32,
    ]


def test_borders_and_inner_parts_have_the_widths_of_the_paper():
    labels = torch.zeros(1, 40, 40, dtype=torch.int64)
    labels[0, 10:30, 10:30] = 1
    parts = border_and_inner(labels)
    # 4 pixels outside and 3 inside of an edge of 20: a ring of 28 x 28 without 14 x 14.
    assert parts["border"].sum() == 28**2 - 14**2
    assert parts["inner"].sum() == 16**2
    assert parts["inner"][0, 12:28, 12:28].all()


def test_the_edge_of_an_image_is_no_border():
    parts = border_and_inner(torch.ones(1, 16, 16, dtype=torch.int64))
    assert (parts["border"] == 0).all()
    assert (parts["inner"] == 1).all()


def test_targets_are_ignored_near_unlabelled_pixels():
    labels = torch.ones(1, 16, 16, dtype=torch.int64)
    labels[0, :, 12:] = 255
    parts = border_and_inner(labels)
    # An edge may lie at column 12, or at any after it: its border reaches 3 columns in, what is eroded 2.
    assert (parts["border"][0, :, :9] == 0).all()
    assert (parts["border"][0, :, 9:] == 255).all()
    assert (parts["inner"][0, :, :10] == 1).all()
    assert (parts["inner"][0, :, 10:] == 255).all()


@given(seed=st.integers(0, 2**31), share=st.floats(0, 0.05))
def test_targets_hold_whatever_the_classes_of_unlabelled_pixels(seed, share):
    rng = np.random.default_rng(seed)
    truth = torch.from_numpy(np.kron(rng.integers(0, 2, (1, 4, 4)), np.ones((1, 8, 8), np.int64)))
    hidden = torch.from_numpy(rng.random(truth.shape) < share * rng.integers(0, 2))
    seen, full = (border_and_inner(labels) for labels in (truth.masked_fill(hidden, 255), truth))
    for path, target in seen.items():
        known = target != 255
        assert torch.equal(target[known], full[path][known])
        assert not known[hidden].any()
        if not hidden.any():
            assert known.all()


def alone(labels, objects, number):
    """The targets of one object: the others are background."""
    return border_and_inner(torch.where((labels > 0) & (labels != 255) & (objects != number), 0, labels))


@given(seed=st.integers(0, 2**31), share=st.floats(0, 0.05))
def test_targets_of_objects_are_those_of_each_object_alone(seed, share):
    rng = np.random.default_rng(seed)
    objects = torch.from_numpy(np.kron(rng.integers(0, 4, (1, 5, 5)), np.ones((1, 6, 6), np.int64)))
    labels = (objects > 0).long().masked_fill(torch.from_numpy(rng.random(objects.shape) < share), 255)
    together = border_and_inner(labels, objects)
    parts = {number: alone(labels, objects, number) for number in (1, 2, 3)}
    for number, own in parts.items():
        mine = (objects == number) & (labels == 1)
        assert torch.equal(together["border"][mine], own["border"][mine])
        assert torch.equal(together["inner"][mine], own["inner"][mine])
    outside = labels == 0
    borders = torch.stack([own["border"][outside] for own in parts.values()])
    ignored = torch.where((borders == 255).any(0), 255, 0)
    assert torch.equal(together["border"][outside], torch.where((borders == 1).any(0), 1, ignored))
    assert (together["inner"][outside] == 0).all()


@given(seed=st.integers(0, 2**31))
def test_permuted_object_numbers_give_the_same_targets(seed):
    rng = np.random.default_rng(seed)
    objects = rng.integers(0, 5, (1, 4, 4)).repeat(7, 1).repeat(7, 2)
    labels = torch.from_numpy((objects > 0).astype(np.int64))
    permuted = np.concatenate([[0], 1 + rng.permutation(4)])[objects]
    first, second = (border_and_inner(labels, torch.from_numpy(numbers)) for numbers in (objects, permuted))
    assert all(torch.equal(first[head], second[head]) for head in first)


def test_one_object_has_the_targets_of_its_class():
    labels = torch.zeros(1, 40, 40, dtype=torch.int64)
    labels[0, 10:30, 10:30], labels[0, :4] = 1, 255
    first, second = border_and_inner(labels), border_and_inner(labels, 7 * (labels == 1))
    assert all(torch.equal(first[head], second[head]) for head in first)


def test_touching_objects_have_two_inner_parts_and_a_common_border():
    labels, objects = torch.zeros(2, 1, 40, 60, dtype=torch.int64)
    labels[0, 10:30, 10:50], objects[0, 10:30, 10:30], objects[0, 10:30, 30:50] = 1, 1, 2
    joined, parts = border_and_inner(labels), border_and_inner(labels, objects)
    assert joined["inner"][0, 12:28, 12:48].all()
    # 2 pixels on each side of the common edge are in no inner part, 3 on each side are border.
    assert parts["inner"][0, 12:28, 12:28].all()
    assert not parts["inner"][0, :, 28:32].any()
    assert parts["inner"].sum() == 2 * 16 * 16
    assert parts["border"][0, 10:30, 27:33].all()
    assert not parts["border"][0, 13:27, 13:27].any()


def test_targets_of_a_crop_are_the_crop_of_the_targets_but_for_its_edge():
    rng = np.random.default_rng(0)
    objects = torch.from_numpy(rng.integers(0, 5, (1, 8, 8)).repeat(6, 1).repeat(6, 2))
    labels = (objects > 0).long()
    whole = border_and_inner(labels, objects)
    crop = border_and_inner(labels[:, 11:40, 7:41], objects[:, 11:40, 7:41])
    assert all(torch.equal(crop[head][:, 4:-4, 4:-4], whole[head][:, 15:36, 11:37]) for head in whole)


def test_widths_in_metres_become_pixels():
    options = {"border_outside": "1.2 m", "border_inside": "0.1m", "inner_distance": 5}
    network = build("unet_id", encoder="plain", bands=3, classes=2, **SMALL, **options)
    with pytest.raises(NetworkError, match=r"a width of unet_id is 1.2 m, but .* Give it in pixels"):
        _ = network.widths
    network.pixel_size = 0.3
    assert network.widths == Widths(outside=4, inside=1, eroded=5)


def test_unet_id_learns_from_object_numbers():
    network = build("unet_id", encoder="plain", bands=3, classes=2, **SMALL)
    labels = torch.ones(1, 32, 32, dtype=torch.int64)
    objects = 1 + (torch.arange(32) > 15).long().expand(1, 32, 32)
    seen = []
    for numbers in (None, objects):
        network.training_loss(
            torch.rand(2, 3, 32, 32), labels, lambda logits, truth: seen.append(truth) or logits.mean(), numbers
        )
    joined, parts = seen[:3], seen[3:]
    assert torch.equal(joined[0], parts[0])
    assert [int(target.sum()) for target in joined[1:]] == [0, 32 * 32]
    assert [int(target.sum()) for target in parts[1:]] == [32 * 6, 32 * 28]


# ---- names and options


def test_unknown_names_and_options_offer_the_nearest():
    with pytest.raises(NetworkError, match="did you mean 'unet'"):
        build("unett", bands=3, classes=2)
    with pytest.raises(NetworkError, match="did you mean 'resnet18'"):
        build("unet", encoder="resnet81", bands=3, classes=2)
    with pytest.raises(NetworkError, match=r"unet \(train.options\).*did you mean 'attention'"):
        build("unet", encoder="plain", bands=3, classes=2, atention=True)
    with pytest.raises(NetworkError, match="'depth' is 9"):
        build("unet", encoder="plain", bands=3, classes=2, depth=9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"widths": [0]}, "'widths.0' is 0"),
        ({"aspp": [-2]}, "'aspp.0' is -2"),
        ({"encoder": "plain", "encoder_widths": [8]}, "at least two"),
        ({"encoder": "plain", "encoder_widths": [8, 16], "depth": 3}, "depth is 3"),
        ({"encoder_widths": [8, 16]}, "of the plain encoder"),
        ({"encoder": "plain", "full_resolution": 8}, "for backbones"),
        ({"encoder": "convnext_atto", "depth": 1}, "Choose a depth above 1"),
        ({"band_names": ["red"]}, "Give the names as bands"),
        ({"widths": [8] * 6}, "6 widths, but the decoder on 'test_resnet' has 5 blocks"),
        ({"encoder": "plain", "encoder_widths": [8, 16], "widths": [8, 4]}, "2 widths.*'plain' has 1 block at"),
        ({"encoder": "vgg11_bn", "full_resolution": 8}, "'vgg11_bn' begins at full size"),
        ({"bands": "red"}, "bands is 'red'. Expected their number, such as 3, or a list"),
        ({"bands": ["red", "red"]}, "a list of different names"),
        ({"bands": []}, "a list of different names"),
        ({"bands": 3.0}, "bands is 3.0"),
        ({"classes": 2.0}, "classes is 2.0. Expected the number of classes"),
        ({"classes": True}, "classes is True"),
        ({"bands": True}, "bands is True"),
        ({"classes": 0}, "Expected 1 to 1000000 of each"),
        ({"bands": 0}, "Expected 1 to 1000000 of each"),
    ],
)
def test_options_out_of_range_or_in_conflict_are_refused(options, words):
    with pytest.raises(NetworkError, match=words):
        build("unet", **({"encoder": BACKBONE, "bands": 3, "classes": 2} | options))


def test_bands_and_classes_may_be_integers_of_numpy():
    network = build("unet", encoder="plain", bands=np.int64(3), classes=np.uint8(2), **SMALL)
    assert (network.built_from["bands"], network.built_from["classes"]) == (3, 2)
    assert type(network.built_from["bands"]) is type(network.built_from["classes"]) is int


def test_batch_norm_false_leaves_no_normalisation_in_any_part():
    network = build("unet", encoder="plain", bands=3, classes=2, batch_norm=False, attention=True, aspp=[2], **SMALL)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    network.train()(torch.rand(1, 3, 8, 8))


def test_the_plain_encoder_has_no_weights():
    with pytest.raises(NetworkError, match="no weights for the plain encoder"):
        build("unet", encoder="plain", bands=3, classes=2, weights="imagenet")


def test_deeplabv3plus_needs_a_backbone():
    with pytest.raises(NetworkError, match="plain"):
        build("deeplabv3plus", encoder="plain", bands=3, classes=2)


def test_a_class_that_gives_no_network_is_refused():
    with pytest.raises(NetworkError, match=r"networks:Nothing gives a NoneType\. Expected an instance of nn"):
        build("networks:Nothing", bands=3, classes=2)
    with pytest.raises(NetworkError, match=r"the network is a NoneType\. Expected an instance of nn"):
        Model.wrap(None, bands=["red"], classes=["a", "b"])


def test_weights_of_another_encoder_are_refused_in_one_line(tmp_path, caplog):
    # Of the same names and shapes, as far as both encoders have them.
    state = timm.create_model("test_efficientnet").state_dict()
    state["blocks.9.conv.weight"] = state.pop("blocks.0.0.conv.weight")
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(NetworkError, match="could not be loaded"):
        build("unet", encoder="test_efficientnet", bands=3, classes=2, weights=str(tmp_path / "other.safetensors"))
    assert not caplog.records
