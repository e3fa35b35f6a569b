"""Every backend predicts what the network in torch predicts, and the fastest is measured once."""

import ctypes
import math
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, get_args

import pytest
import torch
from torch import Tensor, nn

import networks
from landscribe import verbs
from landscribe.errors import BackendError, RecipeError
from landscribe.inference import cache
from landscribe.inference.backends import BACKENDS, BackendKind, choice, installed_backends
from landscribe.inference.backends.choice import (
    build_backend,
    candidates,
    compare_backends,
    fastest_backend,
    require_engine,
)
from landscribe.inference.backends.onnx_export import FOLDER
from landscribe.inference.backends.onnxruntime_backend import compile_tensorrt
from landscribe.inference.backends.torch_backend import Backend, fuse_conv_bn
from landscribe.inference.benchmark import TOLERANCE_32, Benchmark, Timing, synthetic_images
from landscribe.inference.cache import TUNING
from landscribe.model import Model
from landscribe.nn import Segmentation, build
from landscribe.prediction.spec import PredictSpec
from worlds import noise, write_raster

pytestmark = pytest.mark.usefixtures("shared_exports")
CPU = torch.device("cpu")
SMALL = {
    "fcn": {"encoder": "plain", "encoder_widths": (6, 8, 12)},
    "unet": {"encoder": "plain", "encoder_widths": (6, 8, 12)},
    "unetplusplus": {"encoder": "plain", "encoder_widths": (6, 8, 12)},
    "unet_id": {"encoder": "plain", "encoder_widths": (6, 8)},
    "deeplabv3plus": {"encoder": "test_resnet", "channels": 8},
}
BACKBONES = ("test_resnet", "test_efficientnet")
ON_CPU = [name for name, kind in BACKENDS.items() if kind.devices is None or "cpu" in kind.devices]
EXPORTED = ["onnx", "openvino"]
# Largest difference of logits, relative to the largest, by precision: bfloat16 has 8 bits for a number's digits.
ROUNDING = {"32": 1e-4, "bf16": 0.05}


def as_trained(network: nn.Module, seed: int = 0) -> nn.Module:
    """Set normalisations to values other than their initial ones, so that a wrong fusion shows."""
    chance = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            size = module.running_mean.shape
            module.running_mean.copy_(0.3 * torch.randn(size, generator=chance))
            module.running_var.copy_(0.5 + torch.rand(size, generator=chance))
            module.weight.data.copy_(0.5 + torch.rand(size, generator=chance))
            module.bias.data.copy_(0.3 * torch.randn(size, generator=chance))
    return network.eval()


def small(architecture: str, **options) -> Model:
    torch.manual_seed(0)
    arguments = SMALL.get(architecture, {}) | options
    return wrapped(as_trained(build(architecture, bands=3, classes=4, **arguments)))


def wrapped(network: nn.Module) -> Model:
    return Model.wrap(network, bands=["r", "g", "b"], classes=["a", "b", "c", "d"])


def fastest(model: Model, tile: int, *, pixels: float = math.inf, precision: str = "auto") -> str:
    return fastest_backend(
        model, tile=tile, batch=1, device=CPU, pixels=pixels, precision=precision, tolerance=1e-3, on_dask=False
    )


def require(backend: str) -> None:
    if backend not in installed_backends():
        pytest.skip(f"{backend} is not installed")


def differs(logits: Tensor, expected: Tensor) -> float:
    return float((logits.float() - expected).abs().max() / expected.abs().max())


def main_head(backend: Backend) -> Callable[[Tensor], Tensor]:
    """Only the logits of the main head, which comes first."""
    return lambda images: next(iter(backend(images).values()))


def by_head(network: nn.Module) -> Backend:
    return lambda images: {"classes": network(images)}


class Deciding(nn.Module):
    """Decides by a pixel value which operations run: no graph can hold it."""

    reduction = 1

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x[:, :1]], dim=1) if x.mean() > 0 else torch.cat([-x, x[:, :1]], dim=1)


class Shared(nn.Module):
    """Also uses the features between a convolution and its normalisation: fusion would change its logits."""

    reduction = 1

    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(3, 4, 3, padding=1)
        self.normalise = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolve(x)
        return y + self.normalise(y)


class Repeating(Shared):
    """Runs its convolution twice, and normalises once."""

    def forward(self, x: Tensor) -> Tensor:
        return self.normalise(self.convolve(self.convolve(x)[:, :3]))


class Hasty(nn.Module):
    """Wrong logits, at once."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), 4, *x.shape[-2:])


def test_the_choices_of_the_engine_setting_are_the_backends():
    assert get_args(PredictSpec.model_fields["engine"].annotation) == ("auto", *BACKENDS)


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("architecture", list(SMALL))
def test_every_backend_gives_the_logits_of_the_network(backend, architecture):
    require(backend)
    model = small(architecture)
    run, images = main_head(build_backend(backend, model, CPU)), synthetic_images((2, 3, 64, 96), CPU)
    with torch.inference_mode():
        expected, logits = model.network(images), run(images)
    assert logits.shape == expected.shape
    assert logits.dtype == torch.float32
    assert differs(logits, expected) < ROUNDING[BACKENDS[backend].precision]


@pytest.mark.parametrize("backend", ON_CPU)
def test_a_backend_takes_images_of_one_shape_after_those_of_another(backend):
    require(backend)
    model = small("fcn")
    run = main_head(build_backend(backend, model, CPU))
    for shape in ((2, 3, 64, 96), (1, 3, 64, 64), (2, 3, 64, 96)):
        images = synthetic_images(shape, CPU)
        with torch.inference_mode():
            assert differs(run(images), model.network(images)) < ROUNDING[BACKENDS[backend].precision]


@pytest.mark.parametrize("heads", [("segment", "border", "inner"), ("inner",)])
@pytest.mark.parametrize("architecture", ["unet_id"])
@pytest.mark.parametrize("backend", ON_CPU)
def test_every_backend_gives_the_logits_of_every_head(backend, architecture, heads):
    require(backend)
    model, images = small(architecture), synthetic_images((2, 3, 64, 64), CPU)
    with torch.inference_mode():
        logits = build_backend(backend, model, CPU, heads)(images)
        expected = model.network.forward_heads(images)
    assert tuple(logits) == heads
    assert all(differs(logits[head], expected[head]) < ROUNDING[BACKENDS[backend].precision] for head in heads)


class TwoHeads(Segmentation):
    """Its second head uses the features between a convolution and its normalisation."""

    def __init__(self) -> None:
        super().__init__(1, {"classes": 4, "features": 4})
        self.convolve = nn.Conv2d(3, 4, 3, padding=1)
        self.normalise = nn.BatchNorm2d(4)

    def forward_heads_padded(self, images: Tensor) -> dict[str, Tensor]:
        features = self.convolve(images)
        return {"classes": self.normalise(features), "features": features}

    def forward_padded(self, images: Tensor) -> Tensor:
        return self.forward_heads_padded(images)["classes"]


def test_a_network_is_not_fused_where_fusion_would_change_another_head():
    model, images = wrapped(as_trained(TwoHeads())), synthetic_images((1, 3, 32, 32), CPU)
    with torch.inference_mode():
        expected = model.network.forward_heads(images)
        for heads in (("classes",), ("classes", "features")):
            logits = build_backend("torch", model, CPU, heads)(images)
            assert all(differs(logits[head], expected[head]) < 1e-5 for head in heads)


@pytest.mark.parametrize("encoder", BACKBONES)
def test_conv_bn_fusion_removes_every_normalisation_and_keeps_the_logits(encoder):
    network = as_trained(build("unet", bands=3, classes=4, encoder=encoder))
    images = synthetic_images((1, 3, 64, 64), CPU)
    with torch.no_grad():
        copied = fuse_conv_bn(network, images)
        assert differs(copied(images), network(images)) < 1e-5
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in copied.modules())


@pytest.mark.parametrize("network", [Shared(), Repeating()])
def test_a_network_that_fusion_would_change_is_not_fused(network):
    network, images = as_trained(network), synthetic_images((1, 3, 32, 32), CPU)
    with torch.no_grad():
        assert differs(fuse_conv_bn(network, images)(images), network(images)) < 1e-6


@pytest.mark.parametrize("backend", ON_CPU)
def test_a_backend_leaves_the_model_unchanged_and_trainable(backend):
    require(backend)
    model = small("unet")
    before = model.sha256
    with torch.inference_mode():
        build_backend(backend, model, CPU)(synthetic_images((1, 3, 64, 64), CPU))
    assert model.sha256 == before
    model.network.train()
    model.network(synthetic_images((2, 3, 64, 64), CPU)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.network.parameters())


@pytest.mark.parametrize("backend", EXPORTED)
def test_a_network_that_cannot_be_exported_is_refused_in_one_line(backend, capfd):
    require(backend)
    with pytest.raises(BackendError, match=r"^Deciding cannot be exported to ONNX: .*Use --engine torch\.$") as refused:
        build_backend(backend, wrapped(Deciding()), CPU)(synthetic_images((1, 3, 32, 32), CPU))
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


def test_a_network_that_cannot_be_exported_runs_in_torch():
    assert fastest(wrapped(Deciding()), tile=32) == "torch"
    found = compare_backends(wrapped(Deciding()), tile=32, batch=1, device=CPU, seconds=0, tolerance=1e-3)
    assert [one.backend for one in found.timings if one.tolerance == TOLERANCE_32] == ["torch"]
    assert set(EXPORTED) <= set(found.unavailable)


@pytest.mark.parametrize(("backend", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_missing_package_is_refused_with_the_command_that_installs_it(backend, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    assert backend not in installed_backends()
    with pytest.raises(BackendError, match=rf"{package}.*pip install 'landscribe\[{backend}\]'"):
        build_backend(backend, wrapped(Hasty()), CPU)
    found = compare_backends(wrapped(Hasty()), tile=32, batch=1, device=CPU, seconds=0, tolerance=1e-3)
    assert f"landscribe[{backend}]" in found.unavailable[backend]


@pytest.mark.parametrize("backend", EXPORTED)
def test_a_backend_refuses_a_device_that_it_does_not_run_on(backend):
    require(backend)
    with pytest.raises(BackendError, match="not on mps"):
        build_backend(backend, wrapped(Hasty()), torch.device("mps"))


def test_a_backend_with_wrong_classes_is_never_the_fastest(monkeypatch):
    monkeypatch.setitem(BACKENDS, "hasty", BackendKind(lambda model, device, heads: by_head(Hasty())))
    found = compare_backends(small("fcn"), tile=64, batch=1, device=CPU, seconds=0, tolerance=1e-3)
    speeds = {one.backend: one.megapixels_per_second for one in found.timings}
    assert max(speeds, key=speeds.get) == "hasty"
    assert found.fastest != "hasty"


def test_the_tolerance_is_a_share_of_pixels():
    def found(agreement: float) -> str:
        rows = (Timing("torch", 1.0, 1.0, 0.0, 0.0), Timing("onnx", 2.0, agreement, 0.0, 0.0))
        return Benchmark((1, 3, 64, 64), "cpu", rows).fastest

    assert found(1 - TOLERANCE_32 / 2) == "onnx"
    assert found(1 - TOLERANCE_32 * 2) == "torch"


class Rounding32(nn.Module):
    """Makes a tensor in 32 bits, which weights in bfloat16 do not multiply."""

    reduction = 1

    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x.float())


def test_a_network_that_does_not_run_in_bfloat16_is_refused_and_never_chosen(monkeypatch):
    monkeypatch.setattr(choice, "cpu_has_bfloat16", lambda: True)
    model, images = wrapped(Rounding32().eval()), synthetic_images((1, 3, 32, 32), CPU)
    with pytest.raises(BackendError, match=r"^Rounding32 does not run in bfloat16: .*Use --precision 32\.$"):
        build_backend("torch-bf16", model, CPU)(images)
    found = compare_backends(
        model, tile=32, batch=1, device=CPU, seconds=0, tolerance=1e-3, names=["torch", "torch-bf16"]
    )
    assert [one.backend for one in found.timings] == ["torch"]


def test_a_backend_of_16_bits_may_differ_by_the_tolerance_of_the_map(monkeypatch):
    # Wrong in most pixels, and faster than any network.
    kind = BackendKind(lambda model, device, heads: by_head(Hasty()), precision="bf16")
    monkeypatch.setitem(BACKENDS, "torch-bf16", kind)
    names = ["torch", "torch-bf16"]
    for tolerance, name in ((1.0, "torch-bf16"), (0.001, "torch")):
        found = compare_backends(
            small("fcn"), tile=64, batch=1, device=CPU, seconds=0, names=names, tolerance=tolerance
        )
        assert found.fastest == name


class Last(nn.Module):
    """The last class in all pixels."""

    reduction = 1

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.zeros(len(x), 3, *x.shape[-2:]), torch.ones(len(x), 1, *x.shape[-2:])], dim=1)


@pytest.mark.parametrize("others", [(), ("torch-compiled",)])
def test_a_precision_outside_the_tolerance_is_measured_once_and_warned_of_each_time(
    monkeypatch, caplog, tmp_path, others
):
    # The first class in all pixels.
    kind = BackendKind(lambda model, device, heads: by_head(Hasty()), precision="bf16")
    for name in ("torch-bf16", *others):
        monkeypatch.setitem(BACKENDS, name, kind)
    monkeypatch.setattr(choice, "_TRIAL_SECONDS", 0)
    assert candidates(CPU, "bf16") == ("torch-bf16", *others)
    folder = small("fcn").save(tmp_path / "model")
    for _ in range(2):
        model = replace(Model.load(folder), network=Last())
        assert fastest(model, tile=64, precision="bf16") == "torch-bf16"
    assert caplog.text.count("precision bf16 changes the class of 100 % of the pixels") == 2
    assert "the tolerance is 0.1 %" in caplog.text


@pytest.mark.parametrize("others", [(), ("torch-compiled",)])
def test_a_precision_that_no_backend_runs_is_refused_with_the_reason(monkeypatch, others):
    for name in others:
        monkeypatch.setitem(BACKENDS, name, BACKENDS["torch-bf16"])
    with pytest.raises(BackendError, match=r"^Rounding32 does not run in bfloat16"):
        fastest(wrapped(Rounding32().eval()), tile=32, precision="bf16")


def test_precision_16_without_tensorrt_is_refused_before_the_model_is_opened(monkeypatch, tmp_path):
    image = write_raster(tmp_path / "image.tif", noise(1, 8, 8))
    with pytest.raises(BackendError, match=r"^precision 16 needs a CUDA GPU .*Use --precision 32 or bf16\.$"):
        verbs.predict(tmp_path / "no model", [image], out=tmp_path / "map.tif", precision="16")
    # A GPU without TensorRT, and one with it.
    for has_tensorrt, refusal in ((False, pytest.raises(BackendError, match=r"^precision 16")), (True, nullcontext())):
        monkeypatch.setattr(choice, "has_tensorrt", lambda found=has_tensorrt: found)
        monkeypatch.setattr(choice, "installed_backends", lambda: ("torch", "tensorrt"))
        with refusal:
            require_engine("auto", "16", torch.device("cuda"))


@pytest.mark.parametrize("native", [True, False])
def test_a_cpu_without_bfloat16_computes_in_it_only_if_asked(monkeypatch, native):
    monkeypatch.setattr(choice, "cpu_has_bfloat16", lambda: native)
    assert ("torch-bf16" in candidates(CPU)) == native
    assert candidates(CPU, "bf16") == ("torch-bf16",)
    assert fastest(wrapped(Hasty()), tile=64, precision="bf16") == "torch-bf16"
    assert all(BACKENDS[name].precision == "32" for name in candidates(CPU, "32"))


def test_a_network_is_compiled_only_for_maps_that_win_back_the_time():
    cuda = torch.device("cuda")
    assert "torch-bf16" in candidates(cuda, pixels=2**24)
    assert "torch-compiled" not in candidates(cuda, pixels=2**24)
    assert "torch-compiled" in candidates(cuda, pixels=2**34)
    assert "torch-compiled" not in candidates(cuda, pixels=2**34, on_dask=True)


def test_a_compiled_network_is_that_of_bfloat16(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    model, images = small("unet"), synthetic_images((1, 3, 64, 64), CPU)
    with torch.inference_mode():
        compiled = BACKENDS["torch-compiled"].build(model, CPU, ("classes",))(images)
        assert torch.equal(compiled["classes"], build_backend("torch-bf16", model, CPU)(images)["classes"])


class Session:
    """Stands for a session of ONNX Runtime that builds an engine, unless one is stored."""

    built: ClassVar[list[bytes]] = []

    def __init__(self, onnx: bytes, options, providers) -> None:
        settings = providers[0][1]
        assert settings["trt_fp16_enable"]
        engine = Path(settings["trt_engine_cache_path"], "main_graph.engine") if len(settings) > 1 else None
        if engine is None or not engine.exists():
            self.built.append(onnx)
        if engine is not None:
            engine.write_bytes(onnx)

    def get_providers(self) -> list[str]:
        return ["TensorrtExecutionProvider"]

    def get_inputs(self) -> list[None]:
        return [None]

    def get_outputs(self) -> list[None]:
        return []


def test_an_engine_of_tensorrt_is_built_once_for_each_export(tmp_path, monkeypatch):
    monkeypatch.setattr(pytest.importorskip("onnxruntime"), "InferenceSession", Session)
    monkeypatch.setattr(Session, "built", [])
    model = small("fcn")
    for _ in range(2):  # a model without a folder has no cache
        compile_tensorrt(model, b"of 64 pixels", CPU)
    assert len(Session.built) == 2
    model.save(tmp_path / "model")
    for onnx in (b"of 64 pixels", b"of 96 pixels", b"of 64 pixels", b"of 96 pixels"):
        compile_tensorrt(Model.load(tmp_path / "model"), onnx, CPU)
    assert Session.built[2:] == [b"of 64 pixels", b"of 96 pixels"]
    assert len(list((cache.folder_of(model) / "tensorrt").iterdir())) == 2


def test_a_cache_that_cannot_be_written_costs_only_a_new_engine(tmp_path, monkeypatch, user_cache):
    monkeypatch.setattr(pytest.importorskip("onnxruntime"), "InferenceSession", Session)
    monkeypatch.setattr(Session, "built", [])
    small("fcn").save(tmp_path / "model")
    user_cache.write_text("a file")
    for _ in range(2):
        compile_tensorrt(Model.load(tmp_path / "model"), b"of 64 pixels", CPU)
    assert len(Session.built) == 2


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["torch-bf16", "torch-compiled"])
def test_backends_of_a_gpu_give_the_logits_of_32_bits(backend):
    cuda, model = torch.device("cuda"), small("unet")
    images = synthetic_images((2, 3, 256, 256), cuda)
    # A CUDA graph is captured in an early call, and overwrites its results in later ones.
    each = [factor * images for factor in (1, -1, 0.5, -0.5)]
    with torch.inference_mode():
        expected, found = (
            [logits["classes"] for logits in map(build_backend(name, model, cuda), each)] for name in ("torch", backend)
        )
    for logits, of_32_bits in zip(found, expected, strict=True):
        assert differs(logits, of_32_bits) < ROUNDING["bf16"]


@pytest.fixture
def built(monkeypatch) -> list[str]:
    """Names of the backends that are built; there are at least two, whatever is installed."""
    built: list[str] = []

    def noting(name: str, kind: BackendKind) -> BackendKind:
        return replace(kind, build=lambda *given: built.append(name) or kind.build(*given))

    for name, kind in {**BACKENDS, "again": BACKENDS["torch"]}.items():
        monkeypatch.setitem(BACKENDS, name, noting(name, kind))
    monkeypatch.setattr(choice, "_TRIAL_SECONDS", 0)
    return built


def test_the_fastest_backend_is_measured_once(tmp_path, built):
    model = small("fcn")
    folder = model.save(tmp_path / "model")
    chosen = fastest(model, tile=64)
    assert built == list(candidates(CPU))
    assert f'"{chosen}"' in (cache.folder_of(model) / TUNING).read_text()
    built.clear()
    assert fastest(Model.load(folder), tile=64) == chosen
    assert built == []


def test_on_another_machine_the_fastest_backend_is_measured_again(tmp_path, built, monkeypatch):
    folder = small("fcn").save(tmp_path / "model")
    fastest(Model.load(folder), tile=64)
    built.clear()
    monkeypatch.setattr(choice, "processor_name", lambda: "another")
    fastest(Model.load(folder), tile=64)
    assert built == list(candidates(CPU))


def test_for_few_pixels_nothing_is_measured(built):
    assert fastest(small("fcn"), tile=64, pixels=300**2) == "torch"
    assert built == []


def test_bench_times_every_backend_and_compares_it_with_torch(tmp_path):
    folder = small("unet").save(tmp_path / "model")
    found = verbs.bench(folder, tile=99, seconds=0)
    assert found.shape == (1, 3, 96, 96)
    assert {one.backend for one in found.timings} | set(found.unavailable) == set(BACKENDS)
    for one in found.timings:
        assert one.megapixels_per_second > 0
        if BACKENDS[one.backend].precision == "32":
            assert one.agreement > 1 - TOLERANCE_32
            assert one.max_probability_difference < 1e-4
    assert found.as_dict()["fastest"] in installed_backends()


def test_a_map_takes_the_fastest_backend_of_bench(tmp_path, built):
    folder = small("fcn").save(tmp_path / "model")
    found = verbs.bench(folder, tile=512, seconds=0)
    built.clear()
    # Also for few pixels, because a stored result costs nothing.
    assert fastest(Model.load(folder), tile=1024, pixels=300**2) == found.fastest
    assert built == []


@pytest.mark.parametrize("backend", EXPORTED)
def test_a_stored_export_gives_the_logits_of_the_network(tmp_path, backend):
    require(backend)
    folder, images = small("fcn").save(tmp_path / "model"), synthetic_images((1, 3, 64, 64), CPU)
    answers = []
    for _ in range(2):
        model = Model.load(folder)
        with torch.inference_mode():
            answers.append(main_head(build_backend(backend, model, CPU))(images))
            assert differs(answers[-1], model.network(images)) < 1e-4
    assert len(list((cache.folder_of(model) / FOLDER).iterdir())) == 1
    assert torch.equal(*answers)


def test_a_tile_of_no_pixels_is_refused():
    with pytest.raises(RecipeError, match="'tile' is 0"):
        verbs.bench(wrapped(Hasty()), tile=0)


def test_trial_images_have_the_statistics_of_scaled_synthetic_images():
    images = synthetic_images((2, 3, 128, 128), CPU)
    assert float(images.mean()) == pytest.approx(0, abs=1e-5)
    assert float(images.std()) == pytest.approx(1, abs=1e-5)
    # Neighbours and bands are correlated, unlike in white noise.
    assert float((images[..., 1:] * images[..., :-1]).mean()) > 0.5
    assert float((images[:, 0] * images[:, 1]).mean()) > 0.5


def test_the_command_prints_a_line_for_each_backend(tmp_path, capsys):
    from landscribe.commands.app import app

    folder = wrapped_folder(tmp_path)
    app(["bench", str(folder), "--tile", "64", "--seconds", "0"], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "images of 1 x 3 x 64 x 64 on cpu"
    assert {line.split()[0].rstrip(":") for line in lines[2:]} == {*BACKENDS, "auto"}


def wrapped_folder(tmp_path):
    return small("fcn").save(tmp_path / "model")


def test_every_backend_runs_a_users_network():
    model = wrapped(networks.Striding(3, 4).eval())
    for name in set(ON_CPU) & set(installed_backends()):
        images = synthetic_images((1, 3, 64, 64), CPU)
        with torch.inference_mode():
            logits = main_head(build_backend(name, model, CPU))(images)
            assert differs(logits, model.network(images)) < ROUNDING[BACKENDS[name].precision]


class _Stack(ctypes.Structure):
    """The structure that sigaltstack(2) of Linux fills."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def has_stack_for_signals() -> bool:
    stack = _Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return bool(stack.address)


@pytest.mark.skipif(sys.platform != "linux", reason="reads a structure of Linux")
@pytest.mark.parametrize("backend", ON_CPU)
def test_no_backend_leaves_a_signal_stack_in_the_calling_thread(backend):
    require(backend)

    def leaves_stack() -> bool:
        run = build_backend(backend, small("unet"), CPU)
        run(synthetic_images((1, 3, 64, 64), CPU))
        return has_stack_for_signals()

    # Each thread has its own signal stack; a new thread has none.
    with ThreadPoolExecutor(1) as thread:
        assert not thread.submit(leaves_stack).result()
