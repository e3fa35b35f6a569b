"""Freezing: the whole encoder or stages of it, for all or a part of the training."""

import copy

import pytest
import torch
from test_train_loop import QUICK

from landscribe import verbs
from landscribe.errors import NetworkError, RecipeError
from landscribe.nn import build
from landscribe.nn.encoders.freezing import freeze, parts_of, unfreeze


def started(seed: int = 0) -> dict[str, torch.Tensor]:
    """The weights that a training with this seed starts from."""
    import lightning

    lightning.seed_everything(seed, workers=True, verbose=False)
    return build("unet", encoder="test_resnet", bands=2, classes=2, **QUICK["options"]).state_dict()


def moved(before: dict[str, torch.Tensor], model) -> set[str]:
    after = model.network.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_a_frozen_encoder_is_saved_as_it_started(chips, tmp_path):
    model = verbs.train(chips, out=tmp_path / "model", steps=2, freeze=("encoder",), **QUICK)
    changed = moved(started(), model)
    assert changed
    assert not any("encoder" in name for name in changed)


def test_named_stages_are_frozen_and_others_are_not(chips, tmp_path):
    model = verbs.train(chips, out=tmp_path / "model", steps=2, freeze=("conv1", "bn1", "layer1"), **QUICK)
    changed = moved(started(), model)
    stages = {name.split("encoder.body.")[1].split(".")[0] for name in changed if "encoder" in name}
    assert stages == {"layer2", "layer3", "layer4"}


def test_a_stage_behind_the_depth_cannot_be_frozen():
    network = build("unet", encoder="test_efficientnet", bands=2, classes=2, depth=2, widths=[8])
    assert len(parts_of(network, ["blocks.0"])) == 1
    with pytest.raises(NetworkError, match=r"unknown part 'blocks\.4' to freeze"):
        parts_of(network, ["blocks.4"])


def test_layers_frozen_for_a_while_learn_afterwards(chips, tmp_path, caplog):
    held = verbs.train(
        chips, out=tmp_path / "held", steps=4, freeze=("encoder",), freeze_until=0.5, checkpoint="last", **QUICK
    )
    assert "encoder starts from random weights and will not learn in the first 50 % of the training. " in caplog.text
    assert any("encoder" in name and "running_mean" in name for name in moved(started(), held))


def test_the_encoder_may_have_a_lower_learning_rate(chips, tmp_path):
    def distance(model, part: str) -> float:
        after = model.network.state_dict()
        return sum(
            float((value - after[name]).abs().sum())
            for name, value in started().items()
            if part in name and name.endswith("conv1.weight")
        )

    fast = verbs.train(chips, out=tmp_path / "fast", steps=2, **QUICK)
    slow = verbs.train(chips, out=tmp_path / "slow", steps=2, encoder_lr_factor=0.01, **QUICK)
    assert distance(slow, "encoder") < 0.05 * distance(fast, "encoder")


def test_an_unknown_part_offers_the_nearest(chips, tmp_path):
    with pytest.raises(NetworkError, match="did you mean 'layer1'"):
        verbs.train(chips, out=tmp_path / "model", steps=1, freeze=("layr1",), **QUICK)
    assert not (tmp_path / "model").exists()


def test_freezing_holds_across_train_and_ends_with_unfreeze():
    network = build("unet", encoder="test_resnet", bands=3, classes=2)
    (stage,) = parts_of(network, ["layer1"])
    freeze(stage)
    network.train()
    assert not any(module.training for module in stage.modules())
    unfreeze(stage)
    network.train()
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_unfreezing_a_network_unfreezes_the_parts_in_it():
    network = build("unet", encoder="test_resnet", bands=3, classes=2)
    for part in parts_of(network, ["layer1", "encoder"]):
        freeze(part)
    unfreeze(network)
    assert all(module.training for module in network.train().modules())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_freezing_random_weights_is_warned_about(chips, tmp_path, caplog):
    verbs.train(chips, out=tmp_path / "model", steps=1, freeze=("encoder",), **QUICK)
    assert "random weights" in caplog.text


def test_layers_stay_frozen_to_the_end_of_a_budget_in_minutes(chips, tmp_path):
    model = verbs.train(chips, out=tmp_path / "model", minutes=0.01, freeze=("encoder",), **QUICK)
    assert not any("encoder" in name for name in moved(started(), model))


def test_the_trained_network_can_be_trained_further(chips, tmp_path):
    network = verbs.train(chips, out=tmp_path / "model", steps=1, freeze=("encoder",), **QUICK).network
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(module.training for module in network.train().modules())


def test_an_unknown_option_of_an_architecture_is_refused(chips, tmp_path):
    with pytest.raises(RecipeError, match=r"write it as train\.encoder"):
        verbs.train(chips, out=tmp_path / "model", **QUICK | {"options": {"encoder": "plain"}})


def test_frozen_parts_stay_in_eval_mode_when_torch_calls_train():
    # The first half is the reason for replacing `train` of a frozen part.
    part = torch.nn.BatchNorm2d(1)
    network = torch.nn.Sequential(part.eval())
    assert network.train()[0].training
    freeze(part)
    assert not network.train()[0].training
    assert not copy.deepcopy(network).train()[0].training
