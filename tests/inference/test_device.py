"""Device and precision are decided in one place, for training, inference, evaluation and forecast."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._python_dispatch import TorchDispatchMode

import worlds
from landscribe import verbs
from landscribe.errors import ModelError
from landscribe.inference import device
from landscribe.inference.benchmark import run_benchmark
from landscribe.inference.device import (
    copy_to_device,
    copy_to_memory,
    held_dtype,
    in_eval_mode,
    place_network,
    resolve_device,
    takes_threads,
    training_autocast,
    training_precision,
)
from landscribe.inference.evaluation import score
from landscribe.preflight.check import check
from landscribe.recipe import Recipe

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.fixture
def gpu(monkeypatch):
    """Describes the machine: which kind of GPU torch sees, and whether that and the CPU have bfloat16."""
    described = SimpleNamespace(cuda=False, mps=False, bfloat16=False, cpu_bfloat16=False)
    monkeypatch.setattr("landscribe.inference.device.cpu_has_bfloat16", lambda: described.cpu_bfloat16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: described.cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: described.mps)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: described.bfloat16)
    return described


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_is_the_gpu_if_there_is_one(gpu, cuda, mps, expected):
    gpu.cuda, gpu.mps = cuda, mps
    assert resolve_device("auto") == torch.device(expected)


@pytest.mark.parametrize("name", ["cudda", "hpu", "xla"])
def test_an_unusable_device_is_refused(name):
    with pytest.raises(
        ModelError, match=rf"device '{name}' cannot be used: .*Use auto, cpu, cuda, mps or xpu\.$"
    ) as line:
        resolve_device(name)
    assert len(str(line.value)) < 300


def test_a_placed_network_is_in_eval_mode_channels_last_and_trainable():
    network = nn.Conv2d(3, 4, 3).train()
    with torch.inference_mode():
        placed = place_network(network, CPU)
    assert placed is network
    assert not network.training
    assert network.weight.is_contiguous(memory_format=torch.channels_last)
    network(torch.zeros(1, 3, 8, 8)).sum().backward()
    assert network.weight.grad is not None


def test_of_a_network_in_training_mode_a_copy_is_in_eval_mode():
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout().eval())
    chosen = in_eval_mode(network)
    assert [module.training for module in network.modules()] == [True, True, False]
    assert not any(module.training for module in chosen.modules())
    assert in_eval_mode(chosen) is chosen


def test_a_network_in_training_mode_that_cannot_be_copied_is_set_to_eval_mode_with_a_warning(caplog):
    network = nn.Linear(1, 1)
    network.kept = network(torch.ones(1, 1))  # a step's feature map, of which torch makes no copy
    assert in_eval_mode(network) is network
    assert not network.training
    assert "set to eval mode, because it cannot be copied (Only Tensors created explicitly" in caplog.text


@pytest.mark.parametrize(
    ("requested", "bfloat16", "expected"),
    [
        ("auto", True, "bf16-mixed"),
        ("auto", False, "32-true"),
        ("32", True, "32-true"),
        ("bf16", False, "bf16-mixed"),
        ("16", True, "16-mixed"),
    ],
)
def test_training_and_forecast_have_the_same_precision(gpu, requested, bfloat16, expected):
    gpu.cuda, gpu.bfloat16 = True, bfloat16
    assert training_precision(requested) == expected
    assert training_precision(requested) == expected


@pytest.mark.parametrize(
    ("requested", "bfloat16", "expected"),
    [("auto", True, "bf16-mixed"), ("auto", False, "32-true"), ("32", True, "32-true"), ("bf16", False, "bf16-mixed")],
)
def test_training_on_a_cpu_is_in_bfloat16_where_it_has_that(gpu, requested, bfloat16, expected):
    gpu.cpu_bfloat16 = bfloat16
    assert training_precision(requested, CPU) == expected
    assert training_precision(requested) == expected


def test_bfloat16_of_the_cpu_is_not_that_of_an_apple_gpu(gpu):
    gpu.mps, gpu.cpu_bfloat16 = True, True
    assert training_precision("auto") == "32-true"


@pytest.mark.parametrize(("precision", "is_on"), [("32-true", False), ("bf16-mixed", True)])
def test_training_autocast_is_that_of_the_precision(precision, is_on):
    with training_autocast(precision, CPU):
        assert torch.is_autocast_enabled("cpu") is is_on
        assert not is_on or torch.get_autocast_dtype("cpu") is torch.bfloat16


class Observed(nn.Module):
    """A network that records whether each pass was in training mode and computed in bfloat16."""

    passes: list[tuple[bool, bool]] = []  # noqa: RUF012

    reduction = 1

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(in_channels, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.layer(images)
        self.passes.append((self.training, logits.dtype is torch.bfloat16))
        return logits


@pytest.mark.parametrize(("precision", "is_bfloat16"), [("32", False), ("bf16", True)])
def test_the_forecast_times_whole_steps_in_the_precision_of_training(tmp_path, precision, is_bfloat16):
    """Defects: the forecast timed float32 while training computed in bfloat16, and left the optimiser out."""
    worlds.write_raster(tmp_path / "scene.tif", worlds.noise(3, 64, 64, "uint8"))
    labels = (worlds.noise(1, 64, 64, "uint8") > 120).astype("uint8")
    worlds.write_raster(tmp_path / "labels.tif", labels, descriptions=None)
    scene = {"image": [str(tmp_path / "scene.tif")], "labels": str(tmp_path / "labels.tif")}
    training = {"architecture": f"{Observed.__module__}:Observed", "precision": precision}
    recipe = Recipe.of({"scenes": [scene], "chips": {"size": 32}, "train": training})
    Observed.passes.clear()
    steps: list[str] = []
    hook = register_optimizer_step_post_hook(lambda optimizer, *_: steps.append(type(optimizer).__name__))
    assert check(recipe, trial=True).forecast.seconds > 0
    hook.remove()
    assert steps == ["AdamW"] * sum(is_training for is_training, _ in Observed.passes)
    assert {seen for is_training, seen in Observed.passes if is_training} == {is_bfloat16}
    assert {seen for is_training, seen in Observed.passes if not is_training} == {False}


def test_a_device_without_pixels_is_refused():
    with pytest.raises(ModelError, match="device 'meta' cannot be used"):
        resolve_device("meta")


def test_on_a_cpu_copies_share_the_memory_of_their_tensors():
    tensors = (torch.arange(6), torch.ones(2, 3, dtype=torch.bool))
    on_device = copy_to_device(tensors, CPU).on_device()
    back = copy_to_memory(on_device).in_memory()
    for tensor, there, again in zip(tensors, on_device, back, strict=True):
        assert tensor.data_ptr() == there.data_ptr() == again.data_ptr()


@pytest.mark.parametrize(
    ("dtype", "on_mps"),
    [
        (torch.float64, torch.float32),
        (torch.float32, torch.float32),
        (torch.uint16, torch.int32),
        (torch.uint32, torch.int64),
        (torch.int16, torch.int16),
        (torch.uint8, torch.uint8),
        (torch.bool, torch.bool),
    ],
)
def test_apple_gpus_alone_hold_numbers_in_another_dtype(dtype, on_mps):
    assert held_dtype(dtype, MPS) is on_mps
    assert held_dtype(dtype, CPU) is held_dtype(dtype, CUDA) is dtype


def test_a_device_without_float64_and_threads_gives_the_same_model_and_map(tmp_path, monkeypatch):
    """Defects: on Apple's GPUs, imagery of float64 ended in a TypeError, and was copied by the thread that read it."""
    worlds.write_raster(tmp_path / "scene.tif", worlds.noise(2, 96, 96, "float64"))
    labels = (worlds.noise(1, 96, 96, "uint8") > 120).astype("uint8")
    worlds.write_raster(tmp_path / "labels.tif", labels, descriptions=None)
    chips = verbs.chip(images=[tmp_path / "scene.tif"], labels=tmp_path / "labels.tif", out=tmp_path / "c", size=32)

    def results(name):
        model = verbs.train(chips, out=tmp_path / name, steps=2, architecture="unet", encoder="plain", batch=2)
        (class_map,) = verbs.predict(model, [tmp_path / "scene.tif"], out=tmp_path / f"{name}.tif", engine="torch")
        return model.sha256, class_map.read_bytes(), score(model, chips, "score").counts.tolist()

    expected = results("cpu")
    move = Tensor.to

    def move_as_mps(tensor, *given, **named):
        if any(isinstance(each, torch.device) for each in given):
            assert tensor.dtype is not torch.float64
            assert threading.current_thread() is threading.main_thread()
        return move(tensor, *given, **named)

    monkeypatch.setattr(Tensor, "to", move_as_mps)
    monkeypatch.setattr(device, "held_dtype", lambda dtype, _: held_dtype(dtype, MPS))
    monkeypatch.setattr(device, "takes_threads", lambda _: takes_threads(MPS))
    assert results("mps") == expected


class _WithoutFloat64(TorchDispatchMode):
    """No result may be of float64, as on Apple's GPUs."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        assert getattr(result, "dtype", None) is not torch.float64
        return result


def test_the_agreement_of_a_backend_is_counted_without_float64():
    """Defect: `bench` ended in a TypeError on Apple's GPUs."""
    images = torch.zeros(1, 2, 2, 2)
    images[0, 0] = 1
    other = images.clone()
    other[0, 1, 0, 0] = 2
    with _WithoutFloat64():
        (timing,) = run_benchmark({"torch": lambda: lambda _: other}, lambda _: images, images, seconds=0).timings
    assert timing.agreement == 0.75


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.int16, torch.float32, torch.bool])
def test_a_gpu_gives_back_what_was_copied_to_it(dtype):
    tensor = torch.randint(0, 2, (3, 500, 700)).to(dtype)
    (there,) = copy_to_device([tensor], CUDA).on_device()
    (back,) = copy_to_memory([there]).in_memory()
    assert there.is_cuda
    assert back.is_pinned()
    assert back.dtype == dtype
    assert (back.numpy() == tensor.numpy()).all()


@pytest.mark.gpu
def test_a_part_of_an_array_reaches_a_gpu_without_a_wait():
    whole = torch.randint(0, 2, (500, 700)).bool()
    torch.cuda.set_sync_debug_mode("error")
    try:
        copied = copy_to_device([whole[20:480, 20:680]], CUDA)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (copied.on_device()[0].cpu() == whole[20:480, 20:680]).all()


@pytest.mark.gpu
def test_copies_of_many_threads_do_not_overwrite_each_other():
    def there_and_back(number: int) -> bool:
        tensor = torch.full((2**22,), number, dtype=torch.uint8)
        (there,) = copy_to_device([tensor], CUDA).on_device()
        # Computing that takes longer than the next copy.
        for _ in range(20):
            there = (there + 1) - 1
        return bool((copy_to_memory([there]).in_memory()[0] == number).all())

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(there_and_back, range(200)))
