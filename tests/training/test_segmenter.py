"""Steps: accumulated batches, averaged weights, the kept epoch, and the plateau schedule."""

import copy
import csv
import shutil
from contextlib import suppress

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from landscribe import verbs
from landscribe.model import Model
from landscribe.nn import build
from landscribe.training.callbacks import compiled
from landscribe.training.segmenter import optimizer_of, update_average
from landscribe.training.spec import TrainSpec

# Neither statistics of batches nor chance, and every pixel is labelled.
PLAIN = {
    "encoder": "plain", "weights": "none", "options": {"encoder_widths": [4, 8], "batch_norm": False}, "loss": "ce",
    "augment": "none", "optimizer": "sgd", "learning_rate": 0.02, "schedule": "constant",
}  # fmt: skip


def weights(model: Model) -> dict[str, torch.Tensor]:
    return model.network.state_dict()


def test_two_accumulated_batches_equal_one_batch_of_both(tiny_chips, tmp_path):
    settings = PLAIN | {"steps": 3, "precision": "32"}
    two = verbs.train(tiny_chips, out=tmp_path / "two", batch=2, accumulate=2, **settings)
    one = verbs.train(tiny_chips, out=tmp_path / "one", batch=4, **settings)
    assert [row["step"] for row in two.history] == [row["step"] for row in one.history] == [1, 2, 3]
    for name, value in weights(one).items():
        torch.testing.assert_close(weights(two)[name], value, rtol=0, atol=1e-6)


def test_an_epoch_ends_with_a_step_of_the_remaining_batches(tiny_chips, tmp_path):
    batches = -(-len(tiny_chips.of_split("train")) // 4)
    model = verbs.train(tiny_chips, out=tmp_path / "model", batch=4, accumulate=3, epochs=2, **PLAIN)
    assert [row["step"] for row in model.history] == [-(-batches // 3), 2 * -(-batches // 3)]


def test_the_weight_ema_covers_all_steps_and_forgets_the_first_ones():
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    averaged, expected = copy.deepcopy(network).requires_grad_(requires_grad=False), None
    for n, value in enumerate((5.0, 1.0, 2.0, -4.0)):
        network[0].weight.data.fill_(value)
        network[1].running_mean.fill_(10 * value)
        network[1].num_batches_tracked.fill_(n)
        update_average(averaged, network, 0.3, steps=n)
        # 2/11, 3/12, then the decay itself: 4/13 is more.
        kept = min(0.3, (1 + n) / (10 + n))
        expected = value if expected is None else kept * expected + (1 - kept) * value
        assert float(averaged[0].weight) == pytest.approx(expected, rel=1e-6)
        assert float(averaged[1].running_mean) == pytest.approx(10 * expected, rel=1e-6)
        assert int(averaged[1].num_batches_tracked) == n


def test_the_averaged_weights_are_validated_and_saved(tiny_chips, tmp_path):
    # The loss of the saved weights is computed in 32 bits below.
    settings = PLAIN | {"batch": 4, "epochs": 2, "checkpoint": "last", "precision": "32"}
    plain = verbs.train(tiny_chips, out=tmp_path / "plain", **settings)
    averaged = verbs.train(tiny_chips, out=tmp_path / "averaged", ema_decay=0.9, **settings)
    # Averaging is beside the training itself.
    assert [row["train_loss"] for row in averaged.history] == [row["train_loss"] for row in plain.history]
    assert averaged.history[-1]["val_loss"] != plain.history[-1]["val_loss"]
    assert any(not torch.equal(value, weights(plain)[name]) for name, value in weights(averaged).items())
    # The saved weights have the loss that is stated for them.
    loss = val_loss(Model.load(tmp_path / "averaged"), tiny_chips)
    assert loss == pytest.approx(averaged.measures["val_loss"], rel=1e-5)


def val_loss(model: Model, chips) -> float:
    from landscribe.data.batches.dataset import loader, to_float
    from landscribe.nn.losses import cross_entropy

    (batch,) = map(to_float, loader(chips.of_split("val"), batch=99, workers=0))
    with torch.inference_mode():
        return float(cross_entropy(model.logits(batch["image"], batch["valid"]), batch["label"]))


def test_weights_that_do_not_change_equal_their_average():
    network = nn.Linear(7, 7)
    averaged = copy.deepcopy(network)
    for step in range(9):
        update_average(averaged, network, 0.999, steps=step)
    assert torch.equal(averaged.weight, network.weight)


def test_the_weight_ema_reads_no_number_for_which_a_gpu_would_wait():
    """Tensors on the meta device have none."""
    network = nn.Sequential(nn.Linear(7, 7), nn.BatchNorm1d(7)).to("meta")
    averaged = copy.deepcopy(network)
    for step in range(3):
        update_average(averaged, network, 0.9, steps=step)


def test_biases_and_normalisation_do_not_decay_and_the_encoder_learns_at_its_factor_of_the_rate():
    network = build("unet", encoder="plain", bands=1, classes=2, encoder_widths=[4, 8])
    optimizer = optimizer_of(network, TrainSpec(weight_decay=0.1, encoder_lr_factor=0.5), 0.02, torch.device("cpu"))
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    expected = {
        id(parameter): (
            0.01 if ".encoder." in path else 0.02,
            0.0 if name == "bias" or isinstance(module, nn.BatchNorm2d) else 0.1,
        )
        for path, module in network.named_modules()
        for name, parameter in module.named_parameters(recurse=False)
    }
    assert found == expected


def test_the_last_epoch_is_kept_on_request(tiny_chips, tmp_path):
    # A rate that is far too high: each epoch finds background alone, and the loss does not fall to the end.
    settings = {"batch": 4, "epochs": 4, **PLAIN, "learning_rate": 0.6}
    best = verbs.train(tiny_chips, out=tmp_path / "best", **settings)
    last = verbs.train(tiny_chips, out=tmp_path / "last", checkpoint="last", **settings)
    assert best.history == last.history
    assert last.measures == last.history[-1]
    assert best.measures["val_mean_f1"] == max(row["val_mean_f1"] for row in best.history)
    assert best.measures == min(best.history, key=lambda row: row["val_loss"])
    assert (best.measures["epoch"], last.measures["epoch"]) == (3, 4)
    assert any(not torch.equal(value, weights(best)[name]) for name, value in weights(last).items())


def test_the_rate_is_halved_after_four_epochs_without_improvement(tiny_chips, tmp_path):
    settings = PLAIN | {"schedule": "plateau", "learning_rate": 1e-12}
    verbs.train(tiny_chips, out=tmp_path / "model", batch=8, epochs=7, log=str(tmp_path / "log"), **settings)
    with (tmp_path / "log" / "version_0" / "metrics.csv").open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file) if row["learning_rate"]]
    # Two steps an epoch; the first epoch is the best.
    assert rates == pytest.approx([1e-12] * 10 + [5e-13] * 4)


def test_a_class_that_the_validation_chips_lack_chooses_no_epoch(chips_without_squares_in_val, tmp_path):
    model = verbs.train(chips_without_squares_in_val, out=tmp_path / "model", batch=4, epochs=3, **PLAIN)
    for row in model.history:
        assert row["val_f1_squares"] is None
        assert row["val_mean_f1"] == row["val_f1_background"]
    # 2 a / (1 + a): F1 of a class that covers all reference pixels, of which the share a is predicted as such.
    accuracy = [row["val_overall_accuracy"] for row in model.history]
    assert [row["val_mean_f1"] for row in model.history] == pytest.approx([2 * a / (1 + a) for a in accuracy])
    assert accuracy[model.measures["epoch"] - 1] == max(accuracy)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_learns_what_the_network_itself_does(tiny_chips, tmp_path):
    settings = PLAIN | {"batch": 4, "steps": 4}
    eager = verbs.train(tiny_chips, out=tmp_path / "eager", **settings)
    torch._dynamo.reset()
    counters.clear()
    compiled = verbs.train(tiny_chips, out=tmp_path / "compiled", compile=True, **settings)
    # A network that cannot be compiled runs as it is.
    assert counters["stats"]["unique_graphs"] > 0
    for name, value in weights(eager).items():
        torch.testing.assert_close(weights(compiled)[name], value, rtol=1e-4, atol=1e-5)
    assert compiled.network._compiled_call_impl is None


@pytest.mark.parametrize("before", [True, False])
def test_a_compiled_training_that_fails_leaves_torch_as_it_was(tiny_chips, tmp_path, before):
    def broken(**_: object) -> object:
        raise ZeroDivisionError

    settings = PLAIN | {"augment": broken, "compile": True, "steps": 1}
    with torch._dynamo.config.patch(suppress_errors=before):
        with pytest.raises(ZeroDivisionError):
            verbs.train(tiny_chips, out=tmp_path / "model", **settings)
        assert torch._dynamo.config.suppress_errors is before


def test_an_interrupt_leaves_the_network_itself():
    network = build("unet", bands=1, classes=2, encoder="plain", weights=None)
    with suppress(KeyboardInterrupt), compiled(network, TrainSpec(compile=True), processes=1):
        assert network._compiled_call_impl is not None
        assert torch._dynamo.config.suppress_errors
        raise KeyboardInterrupt
    assert network._compiled_call_impl is None
    assert not torch._dynamo.config.suppress_errors


@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_gradients_are_clipped_whatever_optimizer_and_precision(tiny_chips, tmp_path, optimizer, precision):
    settings = PLAIN | {"optimizer": optimizer, "precision": precision, "steps": 1, "weight_decay": 0}

    def after_a_step(clip: float) -> torch.Tensor:
        model = verbs.train(tiny_chips, out=tmp_path / f"{clip}", gradient_clip=clip, **settings)
        return torch.cat([weight.flatten() for weight in weights(model).values()])

    # A step of AdamW is as long as the rate, but for gradients far below its epsilon of 1e-8.
    free, small, smaller = (after_a_step(clip) for clip in (0, 1e-13, 1e-14))
    rate = PLAIN["learning_rate"]
    assert (small - smaller).norm() < 1e-4 * rate
    assert (free - small).norm() > 0.1 * rate


def test_a_network_of_several_heads_is_trained_without_compiling_and_says_so(tiny_chips, tmp_path, caplog):
    settings = {"architecture": "unetplusplus", "encoder": "plain", "weights": "none", "steps": 1}
    verbs.train(tiny_chips, out=tmp_path / "model", compile=True, **settings)
    assert "unetplusplus is not compiled" in caplog.text
