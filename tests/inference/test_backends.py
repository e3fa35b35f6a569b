"""Every engine answers as the network in torch does, and the fastest is found once."""

import ctypes
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

import networks
from landscribe import verbs
from landscribe.errors import EngineError, ModelError
from landscribe.inference import backends as engines
from landscribe.inference import onnx_export
from landscribe.inference.backends import ENGINES, device_of, fastest, installed, timings
from landscribe.inference.benchmark import TOLERANCE, Bench, Timing, imagery
from landscribe.inference.cache import TUNING
from landscribe.inference.fusion import folded
from landscribe.inference.onnx_export import FOLDER
from landscribe.model import Model
from landscribe.nn import build
from landscribe.prediction.spec import PredictSpec

CPU = torch.device("cpu")
SMALL = {
    "fcn": {"encoder": "plain", "encoder_widths": (6, 8, 12)},
    "unet": {"encoder": "plain", "encoder_widths": (6, 8, 12)},
    "unetplusplus": {"encoder": "plain", "encoder_widths": (6, 8, 12)},
    "unet_id": {"encoder": "plain", "encoder_widths": (6, 8)},
    "deeplabv3plus": {"encoder": "test_resnet", "channels": 8},
}
BACKBONES = ("test_resnet", "test_efficientnet")
EXPORTED = [name for name in ENGINES if name != "torch"]


def as_trained(network: nn.Module, seed: int = 0) -> nn.Module:
    """Normalisations that are not what they are at first: with these, folding them wrongly shows."""
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


def require(engine: str) -> None:
    if engine not in installed():
        pytest.skip(f"{engine} is not installed")


def differs(logits: Tensor, expected: Tensor) -> float:
    return float((logits.float() - expected).abs().max() / expected.abs().max())


class Deciding(nn.Module):
    """Looks at a pixel to decide what to do: this cannot be written down as a graph."""

    reduction = 1

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x[:, :1]], dim=1) if x.mean() > 0 else torch.cat([-x, x[:, :1]], dim=1)


class Shared(nn.Module):
    """Uses what stands between a convolution and its normalisation: folding these would change its answer."""

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
    """A wrong answer, at once."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), 4, *x.shape[-2:])


_EXPORTS: dict[tuple, bytes] = {}


@pytest.fixture
def exported_once(monkeypatch, request):
    """Both engines that take ONNX get the same: exporting is most of what these tests do."""
    export, architecture = onnx_export.export, request.getfixturevalue("architecture")

    def once(network: nn.Module, shape: tuple[int, ...]) -> bytes:
        if (architecture, shape) not in _EXPORTS:
            _EXPORTS[architecture, shape] = export(network, shape)
        return _EXPORTS[architecture, shape]

    monkeypatch.setattr(onnx_export, "export", once)


def test_every_engine_can_be_asked_for_and_no_other():
    assert get_args(PredictSpec.model_fields["engine"].annotation) == ("auto", *ENGINES)


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize("architecture", list(SMALL))
@pytest.mark.usefixtures("exported_once")
def test_every_engine_answers_as_the_network_does(engine, architecture):
    require(engine)
    model = small(architecture)
    run = ENGINES[engine](model, CPU)
    for shape in ((1, 3, 64, 96), (2, 3, 64, 64)):
        images = imagery(shape, CPU)
        with torch.inference_mode():
            expected, logits = model.network(images), run(images)
        assert logits.shape == expected.shape
        assert differs(logits, expected) < 1e-4


@pytest.mark.parametrize("encoder", BACKBONES)
def test_folding_leaves_no_normalisation_and_the_same_answer(encoder):
    network = as_trained(build("unet", bands=3, classes=4, encoder=encoder))
    images = imagery((1, 3, 64, 64), CPU)
    with torch.no_grad():
        copied = folded(network, images)
        assert differs(copied(images), network(images)) < 1e-5
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in copied.modules())


@pytest.mark.parametrize("network", [Shared(), Repeating()])
def test_a_network_that_folding_would_change_is_not_folded(network):
    network, images = as_trained(network), imagery((1, 3, 32, 32), CPU)
    with torch.no_grad():
        assert differs(folded(network, images)(images), network(images)) < 1e-6


@pytest.mark.parametrize("engine", list(ENGINES))
def test_an_engine_leaves_the_model_as_it_is(engine):
    require(engine)
    model = small("unet")
    before = model.sha256
    with torch.inference_mode():
        ENGINES[engine](model, CPU)(imagery((1, 3, 64, 64), CPU))
    assert model.sha256 == before
    model.network.train()
    model.network(imagery((2, 3, 64, 64), CPU)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.network.parameters())


@pytest.mark.parametrize("engine", EXPORTED)
def test_a_network_that_cannot_be_exported_is_refused_in_one_line(engine, capfd):
    require(engine)
    with pytest.raises(EngineError, match=r"^Deciding cannot be exported to ONNX: .*Use --engine torch\.$") as refused:
        ENGINES[engine](wrapped(Deciding()), CPU)(imagery((1, 3, 32, 32), CPU))
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


def test_a_network_that_cannot_be_exported_is_left_to_torch():
    assert fastest(wrapped(Deciding()), tile=32, batch=1, device=CPU) == "torch"
    found = timings(wrapped(Deciding()), tile=32, batch=1, device=CPU, seconds=0)
    assert [one.engine for one in found.timings] == ["torch"]
    assert set(found.refused) == set(EXPORTED)


@pytest.mark.parametrize(("engine", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_an_engine_that_is_not_installed_is_refused_with_what_to_install(engine, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    assert engine not in installed()
    with pytest.raises(EngineError, match=rf"{package}.*pip install 'landscribe\[{engine}\]'"):
        ENGINES[engine](wrapped(Hasty()), CPU)
    found = timings(wrapped(Hasty()), tile=32, batch=1, device=CPU, seconds=0)
    assert f"landscribe[{engine}]" in found.refused[engine]


@pytest.mark.parametrize("engine", EXPORTED)
def test_an_engine_refuses_a_device_that_it_does_not_know(engine):
    require(engine)
    with pytest.raises(EngineError, match="not on mps"):
        ENGINES[engine](wrapped(Hasty()), torch.device("mps"))


def test_an_engine_that_answers_otherwise_is_never_the_fastest(monkeypatch):
    monkeypatch.setitem(ENGINES, "hasty", lambda model, device: Hasty())
    found = timings(small("fcn"), tile=64, batch=1, device=CPU, seconds=0)
    speeds = {one.engine: one.megapixels_a_second for one in found.timings}
    assert max(speeds, key=speeds.get) == "hasty"
    assert found.fastest != "hasty"


def test_the_tolerance_is_a_share_of_pixels():
    def found(agreement: float) -> str:
        rows = (Timing("torch", 1.0, 1.0, 0.0, 0.0), Timing("onnx", 2.0, agreement, 0.0, 0.0))
        return Bench((1, 3, 64, 64), "cpu", rows).fastest

    assert found(1 - TOLERANCE / 2) == "onnx"
    assert found(1 - TOLERANCE * 2) == "torch"


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """Names of the engines that are made; there are two at least, whatever is installed."""
    made: list[str] = []

    def noting(name: str, maker):
        return lambda *given: made.append(name) or maker(*given)

    for name, maker in {**ENGINES, "again": ENGINES["torch"]}.items():
        monkeypatch.setitem(ENGINES, name, noting(name, maker))
    monkeypatch.setattr(engines, "_TRIAL_SECONDS", 0)
    return made


def test_what_is_fastest_is_tried_once(tmp_path, made):
    model = small("fcn")
    folder = model.save(tmp_path / "model")
    chosen = fastest(model, tile=64, batch=1, device=CPU)
    assert made == list(installed())
    assert f'"{chosen}"' in (folder / TUNING).read_text()
    made.clear()
    assert fastest(Model.load(folder), tile=64, batch=1, device=CPU) == chosen
    assert made == []


def test_what_was_fastest_on_another_machine_is_tried_again(tmp_path, made, monkeypatch):
    folder = small("fcn").save(tmp_path / "model")
    fastest(Model.load(folder), tile=64, batch=1, device=CPU)
    made.clear()
    monkeypatch.setattr(engines, "processor_name", lambda: "another")
    fastest(Model.load(folder), tile=64, batch=1, device=CPU)
    assert made == list(installed())


def test_for_a_few_pixels_nothing_is_tried(made):
    assert fastest(small("fcn"), tile=64, batch=1, device=CPU, pixels=300**2) == "torch"
    assert made == []


def test_bench_times_every_engine_and_compares_it_with_torch(tmp_path):
    folder = small("unet").save(tmp_path / "model")
    found = verbs.bench(folder, tile=99, seconds=0)
    assert found.shape == (1, 3, 96, 96)
    assert {one.engine for one in found.timings} | set(found.refused) == set(ENGINES)
    for one in found.timings:
        assert one.megapixels_a_second > 0
        assert one.agreement > 1 - TOLERANCE
        assert one.largest_difference < 1e-4
    assert found.as_dict()["fastest"] in installed()


def test_what_bench_found_is_what_a_map_takes(tmp_path, made):
    folder = small("fcn").save(tmp_path / "model")
    found = verbs.bench(folder, tile=512, seconds=0)
    made.clear()
    # Also for a few pixels: what is known costs nothing.
    assert fastest(Model.load(folder), tile=1024, batch=1, device=CPU, pixels=300**2) == found.fastest
    assert made == []


@pytest.mark.parametrize("engine", EXPORTED)
def test_a_kept_export_answers_as_the_network_does(tmp_path, engine):
    require(engine)
    folder, images = small("fcn").save(tmp_path / "model"), imagery((1, 3, 64, 64), CPU)
    answers = []
    for _ in range(2):
        model = Model.load(folder)
        with torch.inference_mode():
            answers.append(ENGINES[engine](model, CPU)(images))
            assert differs(answers[-1], model.network(images)) < 1e-4
    assert len(list((folder / FOLDER).iterdir())) == 1
    assert torch.equal(*answers)


def test_a_tile_of_nothing_is_refused():
    with pytest.raises(EngineError, match="tile is 0"):
        verbs.bench(wrapped(Hasty()), tile=0)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ModelError, match="device 'cudda' cannot be used"):
        device_of("cudda")


def test_trial_images_have_the_statistics_of_scaled_imagery():
    images = imagery((2, 3, 128, 128), CPU)
    assert float(images.mean()) == pytest.approx(0, abs=1e-5)
    assert float(images.std()) == pytest.approx(1, abs=1e-5)
    # Neighbours and bands are alike, far more than in white noise.
    assert float((images[..., 1:] * images[..., :-1]).mean()) > 0.5
    assert float((images[:, 0] * images[:, 1]).mean()) > 0.5


def test_the_command_prints_a_line_for_each_engine(tmp_path, capsys):
    from landscribe.commands.app import app

    folder = wrapped_folder(tmp_path)
    app(["bench", str(folder), "--tile", "64", "--seconds", "0"], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "images of 1 x 3 x 64 x 64 on cpu"
    assert {line.split()[0] for line in lines[2:]} == {*ENGINES, "auto"}


def wrapped_folder(tmp_path):
    return small("fcn").save(tmp_path / "model")


def test_any_network_has_engines():
    model = wrapped(networks.Striding(3, 4).eval())
    for name in installed():
        images = imagery((1, 3, 64, 64), CPU)
        with torch.inference_mode():
            assert differs(ENGINES[name](model, CPU)(images), model.network(images)) < 1e-4


class _Stack(ctypes.Structure):
    """What sigaltstack(2) of Linux tells."""

    _fields_ = (("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def has_stack_for_signals() -> bool:
    stack = _Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return bool(stack.place)


@pytest.mark.skipif(sys.platform != "linux", reason="reads a structure of Linux")
@pytest.mark.parametrize("engine", ENGINES)
def test_no_engine_lends_a_thread_a_stack_for_signals_that_ends_with_it(engine):
    require(engine)

    def answered() -> bool:
        run = ENGINES[engine](small("unet"), CPU)
        run(imagery((1, 3, 64, 64), CPU))
        return has_stack_for_signals()

    # Such stacks are a thread's own: a new one has none.
    with ThreadPoolExecutor(1) as thread:
        assert not thread.submit(answered).result()
