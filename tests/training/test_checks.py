"""Checks before a training: settings that this machine cannot hold are refused."""

from types import SimpleNamespace

import pytest

from landscribe import machine, verbs
from landscribe.errors import RecipeError, ResourceError
from landscribe.geo.classes import ClassEntry, Classes
from landscribe.training import checks
from landscribe.training.spec import TrainSpec

TINY = {"encoder": "plain", "weights": "none", "batch": 4, "steps": 1, "options": {"encoder_widths": [4, 8]}}
WIDE = TINY | {"options": {"encoder_widths": [4, 600]}}


@pytest.mark.parametrize(
    ("settings", "copies"),
    [(WIDE, 4), (WIDE | {"optimizer": "sgd"}, 3), (WIDE | {"ema_decay": 0.9}, 5), (TINY, 4)],
)
def test_training_needs_weights_gradients_and_moments(tiny_chips, tmp_path, monkeypatch, settings, copies):
    weights = []
    monkeypatch.setattr(checks.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(checks, "_require_memory", lambda *_: None)
    for module in (machine, checks):
        monkeypatch.setattr(module, "require_memory", lambda needed, *_: weights.append(needed), raising=False)
    monkeypatch.setattr("landscribe.nn.meta_device.require_memory", lambda needed, *_: weights.append(needed))
    model = verbs.train(tiny_chips, out=tmp_path / "model", **settings)
    count = sum(value.numel() for value in model.network.state_dict().values())
    assert max(weights) == 4 * copies * count


def test_a_network_that_fits_without_its_gradients_is_refused_before_it_is_built(tiny_chips, tmp_path, monkeypatch):
    monkeypatch.setattr(checks.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "total_memory", lambda: 5 * 10**9)
    monkeypatch.setattr("landscribe.training.checks.build", lambda *_, **__: pytest.fail("built"))
    wide = TINY | {"options": {"encoder_widths": [8, 7_000]}}
    with pytest.raises(ResourceError, match=r"training unet with 44\d,.* weights needs at least 7\.\d+ GB .* 5 GB"):
        verbs.train(tiny_chips, out=tmp_path / "model", **wide)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("names", "values", "is_taken"),
    [
        (["background", "house"], [0, 1], True), (["rest", "house"], [0, 7], True),
        (["Background", "house"], [1, 2], True), (["field", "house"], [1, 2], False),
        (["house", "rest"], [1, 0], False),
    ],
)  # fmt: skip
def test_a_network_of_objects_needs_the_background_as_first_class(names, values, is_taken):
    entries = (ClassEntry(value, name, "#102030", name) for name, value in zip(names, values, strict=True))
    classes = Classes(tuple(entries))
    checks.require_settings(TrainSpec(architecture="unet"), classes)
    if is_taken:
        checks.require_settings(TrainSpec(architecture="unet_id"), classes)
        return
    with pytest.raises(RecipeError, match=rf"all classes but the first, which is '{names[0]}' \(value 1\)"):
        checks.require_settings(TrainSpec(architecture="unet_id"), classes)


def test_more_readers_than_the_cores_can_serve_are_refused(tiny_chips, tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "cores", lambda: 2)
    with pytest.raises(RecipeError, match=r"workers is 1024, but this machine has 2 cores .*at most 32"):
        verbs.train(tiny_chips, out=tmp_path / "model", workers=1024, **TINY)


ONE_WEIGHT = {"bands": 1, "classes": 2, "size": 64}


@pytest.fixture
def gpu_of(monkeypatch):
    """Pretend a GPU with so many bytes of memory, on which a chip takes 1000."""

    def pretend(memory: float, step_memory=lambda _, shape: 1000 * shape[0]) -> None:
        monkeypatch.setattr(checks.torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(checks.torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=memory))
        monkeypatch.setattr(checks, "build", lambda *_, **__: None)
        monkeypatch.setattr(checks, "count_weights", lambda _: 10)
        monkeypatch.setattr(checks, "step_memory", step_memory)

    return pretend


@pytest.mark.parametrize(("has_mps", "effort"), [(True, "standard"), (False, "quick")])
def test_effort_auto_counts_an_apple_gpu_that_training_takes(monkeypatch, has_mps, effort):
    monkeypatch.setattr(checks.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(checks.torch.backends.mps, "is_available", lambda: has_mps)
    assert checks.resolved_settings(TrainSpec(), **ONE_WEIGHT).effort == effort
    assert checks.resolved_settings(TrainSpec(batch="auto"), **ONE_WEIGHT).batch == 8


@pytest.mark.parametrize(
    # 10 weights of 4 bytes, with gradient and two moments: 160. A step may take 0.6 of the memory.
    ("memory", "batch"),
    [(1160 / 0.6, 1), (2159 / 0.6, 1), (2161 / 0.6, 2), (16_161 / 0.6, 16), (10**9, 64)],
)
def test_batch_auto_is_the_largest_power_of_two_that_a_gpu_holds(gpu_of, memory, batch):
    gpu_of(memory)
    assert checks.resolved_settings(TrainSpec(batch="auto"), **ONE_WEIGHT).batch == batch
    assert checks.resolved_settings(TrainSpec(batch=5), **ONE_WEIGHT).batch == 5


def test_a_chip_that_a_gpu_cannot_hold_is_refused(gpu_of):
    gpu_of(1150 / 0.6)
    with pytest.raises(ResourceError, match=r"step, of chips of 64 x 64 pixels, needs 1\.16 kB"):
        checks.resolved_settings(TrainSpec(batch="auto"), **ONE_WEIGHT)


def test_a_network_that_refuses_a_single_chip_needs_the_memory_of_two(gpu_of):
    gpu_of(2150 / 0.6, step_memory=lambda _, shape: 1000 * shape[0] if shape[0] > 1 else None)
    with pytest.raises(ResourceError, match=r"needs 2\.16 kB"):
        checks.resolved_settings(TrainSpec(batch="auto"), **ONE_WEIGHT)


def test_a_batch_that_cannot_be_foreseen_is_asked_for(gpu_of):
    gpu_of(10**9, step_memory=lambda *_: None)
    with pytest.raises(RecipeError, match=r"batch = auto cannot foresee the memory of unet\. Give a number"):
        checks.resolved_settings(TrainSpec(batch="auto"), **ONE_WEIGHT)
    with pytest.raises(RecipeError, match=r"batch = auto needs one process, but there are 2\. Give a number"):
        checks.resolved_settings(TrainSpec(batch="auto"), **ONE_WEIGHT, processes=2)
