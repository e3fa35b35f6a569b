"""What every network of `nn.build` must do, as tests that classes of cases inherit."""

import copy

import pytest
import torch
from torch import nn

from landscribe.model import Model
from landscribe.nn import build, freeze, unfreeze
from landscribe.nn.encoders.freezing import encoders_of
from landscribe.nn.losses import weighted_sum

CRITERION = weighted_sum("dice + ce")
SIZES = [(64, 32), (70, 45)]


def awake(network: nn.Module) -> nn.Module:
    """The network with normalisations that let gradients through: timm starts some at 0, and some layers at 1e-6."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    for name, parameter in network.named_parameters():
        if name.endswith("gamma"):
            nn.init.ones_(parameter)
    return network


def calibrated(network: nn.Module, bands: int) -> nn.Module:
    """The network with statistics of normalisation from one batch, as training leaves them, rather than none."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.rand(2, bands, 64, 64))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network


def batch(bands: int, *, count: int = 2, side: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(count, bands, side, side), torch.randint(0, 2, (count, side, side))


class _Built:
    """Inherited by classes with a fixture `case`: (architecture, encoder, options)."""

    bands = 3

    @pytest.fixture(scope="class")
    @classmethod
    def network(cls, case):
        torch.manual_seed(0)
        architecture, encoder, options = case
        return calibrated(build(architecture, encoder=encoder, bands=cls.bands, classes=2, **options), cls.bands)


class NetworkContract(_Built):
    """What a network computes and how it learns."""

    def test_logits_have_the_size_of_the_images(self, network):
        network.eval()
        with torch.inference_mode():
            for size in SIZES:
                assert network(torch.rand(1, self.bands, *size)).shape == (1, 2, *size)

    def test_finite_gradients_reach_every_parameter(self, network):
        trained = awake(copy.deepcopy(network)).train()
        trained.training_loss(*batch(self.bands), CRITERION).backward()
        # Dead units of a rectifier let no gradient through: that some pixel of a large parameter moves is enough.
        silent = [name for name, p in trained.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert silent == []
        assert all(torch.isfinite(parameter.grad).all() for parameter in trained.parameters())

    def test_one_image_is_enough_to_train_on(self, network):
        trained = copy.deepcopy(network).train()
        loss = trained.training_loss(*batch(self.bands, count=1), CRITERION)
        loss.backward()
        assert torch.isfinite(loss)

    def test_a_frozen_encoder_is_unchanged_and_all_other_parameters_learn(self, network):
        trained = awake(copy.deepcopy(network))
        encoders = encoders_of(trained)
        before = [copy.deepcopy(encoder.state_dict()) for encoder in encoders]
        for encoder in encoders:
            freeze(encoder)
        trained.train().training_loss(*batch(self.bands), CRITERION).backward()
        inside = {id(parameter) for encoder in encoders for parameter in encoder.parameters()}
        assert inside
        for name, parameter in trained.named_parameters():
            assert (parameter.grad is None) == (id(parameter) in inside), name
        for encoder, state in zip(encoders, before, strict=True):
            assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())
        for encoder in encoders:
            unfreeze(encoder)
        assert all(parameter.requires_grad for parameter in trained.parameters())
        assert all(module.training for module in trained.modules())

    def test_logits_of_an_image_do_not_depend_on_its_batch(self, network):
        # In 64 bits: deep networks with weights like these enlarge rounding a million times.
        exact, images = copy.deepcopy(network).eval().double(), batch(self.bands, side=32)[0].double()
        with torch.inference_mode():
            torch.testing.assert_close(exact(images)[1:2], exact(images[1:2]), rtol=1e-5, atol=1e-6)

    def test_every_head_has_the_images_size_and_the_main_head_is_forward_bit_by_bit(self, network):
        network.eval()
        images = torch.rand(1, self.bands, 70, 45)
        with torch.inference_mode():
            heads = network.forward_heads(images)
            assert torch.equal(heads[network.main_head], network(images))
        shapes = {name: (1, channels, 70, 45) for name, channels in network.head_channels.items()}
        assert {name: tuple(logits.shape) for name, logits in heads.items()} == shapes
        assert network.head_channels[network.main_head] == 2


class ServingContract(_Built):
    """What stays the same of a trained network when it is saved, exported or computed in half precision."""

    def test_the_same_image_has_the_same_logits(self, network):
        network.eval()
        images, _ = batch(self.bands, count=1, side=32)
        with torch.inference_mode():
            assert torch.equal(network(images), network(images))

    def test_a_saved_and_loaded_model_has_the_same_logits(self, network, tmp_path):
        images, _ = batch(self.bands, count=1, side=32)
        model = Model.wrap(network, bands=[f"band {n}" for n in range(self.bands)], classes=["rest", "house"])
        model.save(tmp_path / "model")
        loaded = Model.load(tmp_path / "model")
        network.eval()
        with torch.inference_mode():
            assert torch.equal(loaded.network(images), network(images))
        assert loaded.reduction == network.reduction

    def test_an_exported_network_has_the_same_logits(self, network):
        network.eval()
        images, _ = batch(self.bands, count=1, side=32)
        with torch.no_grad():
            exported = torch.export.export(network, (images,)).module()
            torch.testing.assert_close(exported(images), network(images), rtol=1e-4, atol=1e-4)

    def test_half_precision_stays_finite(self, network):
        halved = copy.deepcopy(network).eval().to(torch.bfloat16)
        images, _ = batch(self.bands, count=1, side=32)
        with torch.inference_mode():
            assert torch.isfinite(halved(images.to(torch.bfloat16))).all()
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.float16):
            assert torch.isfinite(copy.deepcopy(network).eval()(images)).all()
