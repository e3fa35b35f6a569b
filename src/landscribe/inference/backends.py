"""Engines: what runs a network, and which of them does so fastest on this machine.

An engine takes scaled images (B, C, H, W), float32, channels-last, on the model's device, and gives logits
(B, K, H, W) there. Another one is a function here, a line in `ENGINES` and a name in `PredictSpec.engine`.
"""

import importlib.metadata
import importlib.util
import logging
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from landscribe.errors import EngineError, ModelError
from landscribe.inference.benchmark import Bench, imagery, measured
from landscribe.inference.cache import remember, remembered
from landscribe.inference.fusion import folded
from landscribe.inference.onnx_export import onnx_of
from landscribe.inference.runtimes import OPENVINO_DEVICES, Exported, run_by_onnxruntime, run_by_openvino
from landscribe.machine import processor_name
from landscribe.model import Model

log = logging.getLogger(__name__)

Engine = Callable[[Tensor], Tensor]

_TRIAL_SIDE, _TRIAL_SECONDS = 512, 3.0
"""Engines are compared on images no larger than this, for about so long: their order is that on larger ones
(docs/decisions/0012-engines.md), and trying must cost less than it gains."""


_WORTH_TRYING = 2**24
"""Pixels. Below, engines take longer to make ready than the fastest of them saves."""


def in_torch(model: Model, device: torch.device) -> Engine:
    """Torch itself: normalisations folded where that can be done, bfloat16 on CUDA devices that have it.

    Not compiled: that takes a minute, which a map of gigapixels alone would get back (docs/decisions/0012-engines.md).
    """
    network = _ready(model, device)
    if device.type != "cuda" or not torch.cuda.is_bf16_supported(including_emulation=False):
        return network

    def run(images: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            logits: Tensor = network(images)
        return logits

    return run


def in_onnxruntime(model: Model, device: torch.device) -> Engine:
    """ONNX Runtime, on CPUs and CUDA devices.

    Raises:
        EngineError: it is not installed or does not run there. Called, the engine raises it, too, where the network
            cannot be exported.
    """
    _require("onnx")
    if device.type == "cuda":
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise EngineError(
                "the onnxruntime that is installed does not run on CUDA. Install onnxruntime-gpu in its place, or use "
                "--engine torch."
            )
    elif device.type != "cpu":
        raise EngineError(f"--engine onnx runs on cpu and cuda, not on {device.type}. Use --engine torch.")
    return Exported(partial(onnx_of, model, partial(_ready, model, device)), run_by_onnxruntime, device)


def in_openvino(model: Model, device: torch.device) -> Engine:
    """OpenVINO, on CPUs and GPUs of Intel's.

    Raises:
        EngineError: as of `in_onnxruntime`.
    """
    _require("openvino")
    if device.type not in OPENVINO_DEVICES:
        raise EngineError(f"--engine openvino runs on cpu and xpu, not on {device.type}. Use --engine torch.")
    return Exported(partial(onnx_of, model, partial(_ready, model, device)), run_by_openvino, device)


ENGINES: dict[str, Callable[[Model, torch.device], Engine]] = {
    "torch": in_torch,
    "onnx": in_onnxruntime,
    "openvino": in_openvino,
}

_PACKAGES: dict[str, tuple[str, ...]] = {
    "torch": ("torch",),
    "onnx": ("onnxruntime", "onnxscript", "onnx"),
    "openvino": ("openvino", "onnxscript", "onnx"),
}
"""What each needs: the exporter to ONNX is onnxscript."""


def installed() -> tuple[str, ...]:
    """Names of the engines whose packages are there."""
    return tuple(name for name in ENGINES if not _missing(name))


def _missing(engine: str) -> list[str]:
    return [package for package in _PACKAGES.get(engine, ()) if importlib.util.find_spec(package) is None]


def _require(engine: str) -> None:
    missing = _missing(engine)
    if missing:
        raise EngineError(
            f"--engine {engine} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            f"installed. Install with: pip install 'landscribe[{engine}]', or use --engine torch."
        )


def _ready(model: Model, device: torch.device) -> nn.Module:
    """The model's network on its device, folded where that can be done; the model's own keeps its weights."""
    network = _placed(model, device)
    side = max(64, 2 * model.reduction) // model.reduction * model.reduction
    # What is made in inference mode cannot be exported.
    with torch.inference_mode(mode=False), torch.no_grad():
        return folded(network, imagery((1, len(model.bands), side, side), device))


def _placed(model: Model, device: torch.device) -> nn.Module:
    # Moved in inference mode, weights could not be trained any more.
    with torch.inference_mode(mode=False):
        return model.network.to(device).eval().to(memory_format=torch.channels_last)


def timings(model: Model, *, tile: int, batch: int, device: torch.device, seconds: float) -> Bench:
    """Time the installed engines on a model; the fastest is noted beside it, for this machine and these versions.

    Args:
        model: its network is moved to the device and set to eval mode.
        tile: side of the images in pixels; rounded down to the network's stride.
        batch: images at once.
        device: where.
        seconds: for the rounds, in which the engines take turns; there are three at least.

    Raises:
        EngineError: a tile or batch of nothing.
    """
    if tile < 1 or batch < 1:
        raise EngineError(f"tile is {tile} and batch is {batch}. At least 1 of each was expected.")
    side = _aligned(model, tile)
    makers = {name: partial(ENGINES[name], model, device) for name in installed()}
    images = imagery((batch, len(model.bands), side, side), device)
    found = measured(makers, _placed(model, device), images, seconds)
    absent = {name: f"not installed: pip install 'landscribe[{name}]'" for name in ENGINES if name not in makers}
    found.refused.update(absent)
    remember(model, _note(side, batch, device), found.fastest)
    return found


def fastest(model: Model, *, tile: int, batch: int, device: torch.device, pixels: float = math.inf) -> str:
    """The fastest installed engine whose classes are those of torch, found by trying.

    What is noted beside the model is not tried again.

    Args:
        model: its network is moved to the device and set to eval mode.
        tile: side of the images in pixels.
        batch: images at once.
        device: where.
        pixels: how many are to be mapped; for a few it is not tried, and torch is taken unless more is known.

    Returns:
        A name of `ENGINES`.
    """
    names, side = installed(), _aligned(model, min(tile, _TRIAL_SIDE))
    if names == ("torch",):
        return "torch"
    known = remembered(model, _note(side, batch, device))
    if known in names:
        return str(known)
    if pixels < _WORTH_TRYING:
        return "torch"
    found = timings(model, tile=side, batch=batch, device=device, seconds=_TRIAL_SECONDS)
    speeds = ", ".join(f"{one.engine} {one.megapixels_a_second:.3g}" for one in found.timings)
    log.info("engine: %s (megapixels a second: %s)", found.fastest, speeds)
    return found.fastest


def _aligned(model: Model, tile: int) -> int:
    align = model.reduction
    return max(align, tile // align * align)


def _note(side: int, batch: int, device: torch.device) -> str:
    """What the fastest engine is noted under."""
    return f"engine for {batch} x {side} px on {_machine(device)} with {_versions(installed())}"


def device_of(name: str) -> torch.device:
    """The device of that name; for auto a GPU if there is one.

    Raises:
        ModelError: it cannot be used.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"device '{name}' cannot be used: {reason}. Use auto, cpu, cuda or mps.") from error
    return device


def _versions(names: tuple[str, ...]) -> str:
    packages = sorted({package for name in names for package in _PACKAGES.get(name, ())[:1]})
    return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {processor_name()}, {torch.get_num_threads()} threads"
