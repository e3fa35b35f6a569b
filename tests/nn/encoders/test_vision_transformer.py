"""Vision transformers of few, narrow blocks, as encoders."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from contract import NetworkContract, ServingContract
from torch import nn

from landscribe.errors import NetworkError
from landscribe.inference.memory import PinnedModel
from landscribe.model import Model
from landscribe.nn import build, summary
from landscribe.nn.architectures.unetplusplus import pruned
from landscribe.nn.encoders.encoder import Encoder
from landscribe.nn.encoders.freezing import freeze, parts_of
from landscribe.nn.encoders.vision_transformer import is_vision_transformer
from landscribe.nn.encoders.weights import license_terms

DINOV2, DINOV3, PLAIN = "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3", "test_vit"
DEIT, FINE, COARSE = "deit_tiny_distilled_patch16_224", "vit_small_patch8_224", "vit_base_patch32_224"
SMALL = {"embed_dim": 48, "depth": 5, "num_heads": 2}
NARROW = {"widths": [32, 16, 8]}


@pytest.fixture(scope="module", autouse=True)
def _transformers_are_small():
    create = timm.create_model

    def small(name, **settings):
        is_large = is_vision_transformer(name) and name != PLAIN
        return create(name, **(SMALL | settings if is_large else settings))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", small)
        yield


class TestTransformers(NetworkContract):
    bands = 5

    @pytest.fixture(
        scope="class",
        params=[
            ("unet", PLAIN, NARROW), ("unet", DINOV2, NARROW), ("unet", DINOV3, NARROW), ("unet", DEIT, NARROW),
            ("fcn", DINOV2, {}), ("unetplusplus", DINOV3, NARROW), ("deeplabv3plus", PLAIN, {"channels": 16}),
            ("unet_id", PLAIN, NARROW),
        ],
        ids=lambda case: f"{case[0]}-{case[1]}",
    )  # fmt: skip
    @classmethod
    def case(cls, request):
        return request.param


class TestServedTransformers(ServingContract):
    @pytest.fixture(scope="class", params=[PLAIN, DINOV2, DINOV3])
    @classmethod
    def case(cls, request):
        return "unet", request.param, NARROW


@pytest.mark.parametrize(
    ("name", "reductions"),
    [(PLAIN, (4, 8, 16, 32)), (DINOV2, (4, 8, 16, 32)), (FINE, (2, 4, 8, 16)), (COARSE, (8, 16, 32, 64))],
)
def test_scales_follow_the_patch_as_powers_of_two(name, reductions):
    encoder = Encoder(name, bands=2).eval()
    assert encoder.reductions == reductions
    with torch.inference_mode():
        features = encoder(torch.rand(1, 2, 128, 64))
    assert [tuple(feature.shape[1:]) for feature in features] == [
        (channels, 128 // side, 64 // side) for channels, side in zip(encoder.channels, reductions, strict=True)
    ]


@pytest.mark.parametrize(("name", "patch"), [(DINOV2, 14), (DINOV3, 16), (FINE, 8)])
@pytest.mark.parametrize("count", [5, 8, 37])
def test_images_of_any_multiple_of_the_patch_have_logits_of_their_size(name, patch, count):
    network = build("unet", encoder=name, bands=3, classes=2, **NARROW).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, 3, count * patch, 5 * patch)).shape == (1, 2, count * patch, 5 * patch)


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", [PLAIN, DINOV2, FINE])
def test_deeplabv3plus_has_its_output_stride_on_a_transformer(name, stride):
    network = build("deeplabv3plus", encoder=name, bands=3, classes=2, channels=16, output_stride=stride).eval()
    with torch.inference_mode():
        assert network.encoder(torch.rand(1, 3, 72, 40))[-1].shape[-2:] == (72 // stride, 40 // stride)
        assert network(torch.rand(1, 3, 72, 40)).shape == (1, 2, 72, 40)


def without_positions(name: str) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(name, bands=3).eval()
    nn.init.zeros_(encoder.body.pos_embed)
    return encoder


@pytest.mark.parametrize("name", [PLAIN, DINOV2, FINE])
def test_without_positions_features_move_with_the_image(name):
    """Attention is the same for tokens in any order: only the order of features can change."""
    encoder = without_positions(name)
    image = torch.rand(1, 3, 160, 160)
    with torch.inference_mode():
        there, moved = encoder(image), encoder(image.roll((32, 64), (-2, -1)))
    # The coarsest features see zeros beyond the image's edge.
    for feature, shifted, reduction in zip(there[:3], moved[:3], encoder.reductions[:3], strict=True):
        assert feature.std(dim=(2, 3)).min() > 1e-4
        expected = feature.roll((32 // reduction, 64 // reduction), (-2, -1))
        torch.testing.assert_close(shifted, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [PLAIN, DINOV2, FINE])
def test_features_lie_over_the_pixels_that_they_come_from(name):
    """Without attention and positions a pixel changes the features of its token alone."""
    encoder = without_positions(name)
    for block in encoder.body.blocks:
        nn.init.zeros_(block.attn.proj.weight)
    cell = encoder.pyramid.cell
    image = torch.rand(1, 3, 96, 64)
    for row, col in [(0, 0), (41, 37), (cell, cell - 1), (95, 63)]:
        changed = image.clone()
        changed[..., row, col] += 3
        with torch.inference_mode():
            pairs = zip(encoder(image)[:3], encoder(changed)[:3], encoder.reductions[:3], strict=True)
        for before, after, reduction in pairs:
            found = (before - after).abs().amax(dim=(0, 1)) > 1e-5
            # Where a feature map is finer than a token, all of its pixels in the token may change.
            expected = torch.zeros_like(found)
            side = cell // reduction
            expected[row // cell * side :, col // cell * side :][:side, :side] = True
            assert found.any()
            assert not (found & ~expected).any()


def test_tokens_come_from_the_last_block_of_each_quarter():
    assert Encoder(DINOV3, bands=3).pyramid.depths == (1, 2, 3, 4)
    assert Encoder(PLAIN, bands=3).pyramid.depths == (1, 2, 4, 5)


def test_depth_removes_the_blocks_that_only_coarser_scales_need():
    encoder = Encoder(PLAIN, bands=3, depth=3)
    assert (encoder.reductions, len(encoder.body.blocks)) == ((4, 8), 3)
    with pytest.raises(NetworkError, match=r"begins at 1/4 of the size\. Choose a depth above 1"):
        Encoder(PLAIN, bands=3, depth=1)


def test_a_pruned_branch_on_a_transformer_keeps_its_logits_bit_by_bit():
    torch.manual_seed(0)
    network = build("unetplusplus", encoder=DINOV2, bands=3, classes=2, **NARROW).eval()
    small = pruned(network, 1)
    image = torch.rand(1, 3, 70, 50)
    with torch.inference_mode():
        assert torch.equal(small(image), network.branches(image)[1])
    assert len(small.encoder.body.blocks) < len(network.encoder.body.blocks)


def test_freezing_keeps_the_transformer_and_lets_the_pyramid_learn():
    network = build("unet", encoder=PLAIN, bands=3, classes=2, **NARROW)
    (body,) = parts_of(network, ["encoder"])
    freeze(body)
    encoder = network.features.encoder
    assert body is encoder.body
    assert all(parameter.requires_grad for parameter in encoder.pyramid.parameters())
    assert parts_of(network, ["patch_embed", "blocks.0"]) == [body.patch_embed, body.blocks[0]]
    with pytest.raises(NetworkError, match=r"unknown part 'blocks\.9' to freeze"):
        parts_of(network, ["blocks.9"])


def test_attention_is_global_context():
    for name in (PLAIN, DINOV3):
        network = build("unet", encoder=name, bands=3, classes=2, **NARROW)
        assert PinnedModel.pin(Model.wrap(network, bands=["r", "g", "b"], classes=["a", "b"])).has_global_context


def test_every_parameter_of_a_transformer_is_in_a_row_of_its_summary():
    table = summary(build("unet", encoder=DINOV2, bands=3, classes=2, **NARROW), bands=3, size=128)
    rows = {block.name: block for block in table.blocks}
    assert sum(block.parameters for block in table.blocks) == table.parameters
    assert sum(block.flops_per_megapixel for block in table.blocks) == pytest.approx(table.flops_per_megapixel)
    # 8 x 8 patches, a class token and four registers.
    assert rows["encoder.blocks.0 … 4"].shape == (48, 8 * 8 + 5)
    assert rows["encoder.blocks.0 … 4"].receptive_field is None
    assert rows["encoder.patch_embed.proj"].shape == (48, 8, 8)


def saved(path: Path, name: str, **settings) -> tuple[str, dict[str, torch.Tensor]]:
    torch.manual_seed(3)
    state = timm.create_model(name, **settings).state_dict()
    safetensors.torch.save_file(state, path)
    return str(path), state


@pytest.mark.parametrize("name", [PLAIN, DINOV2, DINOV3, DEIT])
def test_a_weight_file_reaches_the_transformer(name, tmp_path):
    path, state = saved(tmp_path / "vit.safetensors", name)
    encoder = Encoder(name, bands=4, weights=path, band_names=("blue", "green", "red", "nir"))
    body = encoder.body.state_dict()
    stem = "patch_embed.proj.weight"
    assert len(body) > 20
    assert all(torch.equal(value, state[key]) for key, value in body.items() if key != stem)
    torch.testing.assert_close(body[stem][:, 0], state[stem][:, 2])
    torch.testing.assert_close(body[stem].sum(1), state[stem].sum(1), rtol=1e-4, atol=1e-5)


def test_positions_of_another_image_size_are_resampled(tmp_path):
    path, state = saved(tmp_path / "vit.safetensors", DINOV2, img_size=224)
    state["pos_embed"] = torch.full_like(state["pos_embed"], 0.25)
    safetensors.torch.save_file(state, path)
    body = Encoder(DINOV2, bands=3, weights=path).body
    assert body.pos_embed.shape[1] == 37**2
    torch.testing.assert_close(body.pos_embed, torch.full_like(body.pos_embed, 0.25))


def test_a_checkpoint_of_the_authors_of_dinov2_reaches_the_transformer(tmp_path):
    """It has a mask token, the position of the class token, and other names for registers."""
    _, state = saved(tmp_path / "vit.safetensors", DINOV2)
    state = {name: value for name, value in state.items() if not name.startswith(("head", "fc_norm"))}
    first = torch.rand(1, 1, 48)
    theirs = dict(state) | {
        "pos_embed": torch.cat([first, state["pos_embed"]], dim=1),
        "cls_token": state["cls_token"] - first,
        "mask_token": torch.zeros(1, 48),
        "register_tokens": state["reg_token"],
    }
    del theirs["reg_token"]
    torch.save(theirs, tmp_path / "dinov2.pth")
    body = Encoder(DINOV2, bands=3, weights=str(tmp_path / "dinov2.pth")).body.state_dict()
    torch.testing.assert_close(body["cls_token"], state["cls_token"])
    assert torch.equal(body["reg_token"], state["reg_token"])


def test_a_file_that_lacks_blocks_of_a_transformer_is_refused(tmp_path):
    _, state = saved(tmp_path / "vit.safetensors", PLAIN)
    part = {name: value for name, value in state.items() if not name.startswith("blocks.5")}
    safetensors.torch.save_file(part, tmp_path / "part.safetensors")
    with pytest.raises(NetworkError, match=r"part\.safetensors.*lacks 4 of the.*blocks\.5"):
        Encoder(PLAIN, bands=3, weights=str(tmp_path / "part.safetensors"))


def test_a_file_of_another_width_is_refused_with_the_layers(tmp_path):
    path, _ = saved(tmp_path / "narrow.safetensors", PLAIN, embed_dim=32)
    with pytest.raises(NetworkError, match=r"cls_token is \(1, 1, 32\), not \(1, 1, 64\)"):
        Encoder(PLAIN, bands=3, weights=path)


@pytest.mark.parametrize(
    ("name", "license"),
    [("vit_large_patch16_dinov3.sat493m", "dinov3-license"), ("vit_small_patch14_dinov2", "apache-2.0")],
)
def test_the_license_of_weights_is_recorded(name, license):  # noqa: A002
    assert license_terms(name, "imagenet")["license"] == license


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "beit_base_patch16_224", "vit_relpos_small_patch16_224"]
)
def test_a_transformer_of_one_image_size_is_refused_in_one_line(name):
    with pytest.raises(NetworkError, match=r"has no pyramid of features: it does not take images.*dinov3") as raised:
        Encoder(name, bands=3)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", [DINOV2, DINOV3])
def test_a_transformer_in_onnx_has_the_same_logits(name):
    onnxruntime = pytest.importorskip("onnxruntime")
    from landscribe.inference.backends.onnx_export import export

    torch.manual_seed(0)
    network = build("unet", encoder=name, bands=3, classes=2, **NARROW).eval()
    image = torch.rand(1, 3, 70, 96)
    session = onnxruntime.InferenceSession(export(network, tuple(image.shape)))
    (logits,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, network(image).numpy(), rtol=1e-3, atol=1e-4)
