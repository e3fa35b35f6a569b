"""Exported networks: ONNX, run by ONNX Runtime or by OpenVINO.

Both get the sizes of the images beforehand: with sizes that are left open the export of a UNet took three times as long
and what came of it was no faster (docs/decisions/0012-engines.md).
"""

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from landscribe.errors import EngineError

Run = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) of one shape to logits (B, K, H, W)."""

_MOST_SHAPES = 4
"""Of images, for which a network is kept: full tiles, and rasters that are smaller than a tile."""


class Exported:
    """A network that is exported for each shape of images when it first meets it."""

    def __init__(self, network: nn.Module, made: Callable[[bytes, torch.device], Run], device: torch.device) -> None:
        """Of a network in eval mode on its device; `made` runs its ONNX there."""
        self._network = network
        self._made = made
        self._device = device
        self._runs: dict[tuple[int, ...], Run] = {}
        # Threads of one process share an engine, and OpenVINO answers one of them at a time.
        self._lock = threading.Lock()

    def __call__(self, images: Tensor) -> Tensor:
        """Logits of images.

        Raises:
            EngineError: the network cannot be exported or run.
        """
        with self._lock:
            try:
                return self._run_for(tuple(images.shape))(images)
            except EngineError:
                raise
            except Exception as error:  # whatever somebody else's library raises
                name = type(self._network).__name__
                raise EngineError(
                    f"{name} was exported, but cannot be run: {_reason(error)}. Use --engine torch."
                ) from error

    def _run_for(self, shape: tuple[int, ...]) -> Run:
        if shape not in self._runs:
            if len(self._runs) == _MOST_SHAPES:
                del self._runs[next(iter(self._runs))]
            self._runs[shape] = self._made(_onnx(self._network, shape), self._device)
        return self._runs[shape]


def _onnx(network: nn.Module, shape: tuple[int, ...]) -> bytes:
    """A network as ONNX, for images of this shape.

    Raises:
        EngineError: it cannot be exported.
    """
    weight = next(network.parameters(), torch.empty(0))
    # What is made in inference mode cannot be traced.
    with torch.inference_mode(mode=False), torch.no_grad(), _silence():
        images = torch.zeros(shape, device=weight.device)
        try:
            # By itself, because to ONNX it would be tried in several ways, and said at length if all of them fail.
            program = torch.export.export(network, (images,))
            made: Any = torch.onnx.export(program, dynamo=True, verbose=False)
            onnx: bytes = made.model_proto.SerializeToString()
        except Exception as error:  # whatever a network or an exporter raises
            raise EngineError(
                f"{type(network).__name__} cannot be exported to ONNX: {_reason(error)}. A network without decisions "
                "that depend on pixels was expected. Use --engine torch."
            ) from error
    return onnx


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}{': ' + lines[0][:160].rstrip('. ') if lines else ''}"


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Exporters tell what will change in versions to come, and print the networks that they fail at."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def run_by_onnxruntime(onnx: bytes, device: torch.device) -> Run:
    """What ONNX Runtime makes of it, on the CPU or a CUDA device."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    # It lays out memory anew for the second image, and keeps that of the first: twice as much.
    options.enable_mem_pattern = False
    # Threads that wait for the next tile would take the cores from those that read and write.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    provider = "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"
    settings = {"device_id": device.index or 0} if device.type == "cuda" else {}
    session = onnxruntime.InferenceSession(onnx, options, providers=[(provider, settings)])
    if provider not in session.get_providers():
        # It would quietly compute on the CPU.
        raise EngineError(f"onnxruntime finds no working {provider} on this machine. Use --engine torch.")
    (source,), (result,) = session.get_inputs(), session.get_outputs()

    def run(images: Tensor) -> Tensor:
        # Both sides work on the same memory: nothing is copied, on a GPU nothing leaves it.
        planar = images.float().contiguous()
        logits = torch.empty(result.shape, device=images.device)
        binding, numbers = session.io_binding(), "float32"
        place = (images.device.type, images.device.index or 0, numbers)
        binding.bind_input(source.name, *place, planar.shape, planar.data_ptr())
        binding.bind_output(result.name, *place, logits.shape, logits.data_ptr())
        if images.device.type == "cuda":
            torch.cuda.current_stream(images.device).synchronize()
        session.run_with_iobinding(binding)
        return logits

    return run


OPENVINO_DEVICES = {"cpu": "CPU", "xpu": "GPU"}
"""What it calls torch's."""


def run_by_openvino(onnx: bytes, device: torch.device) -> Run:
    """What OpenVINO makes of it, on the CPU or a GPU of Intel's."""
    import openvino

    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if device.type == "cpu":
        # Pinned threads of several processes would all sit on the same cores.
        settings |= {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "ENABLE_CPU_PINNING": False}
    where = OPENVINO_DEVICES[device.type]

    def compiled_model() -> Any:
        # Read as ONNX rather than converted by openvino.convert_model, which tells Intel of its use.
        return openvino.Core().compile_model(openvino.Core().read_model(onnx), where, settings)

    # On processors with AMX it gives the thread that compiles a stack for signals, which does not outlive it: from then
    # on a signal, as of Ctrl-C or of a process that ends, would be a crash.
    with ThreadPoolExecutor(1) as passing:
        compiled = passing.submit(compiled_model).result()
    request = compiled.create_infer_request()
    shape = tuple(compiled.output(0).shape)

    def run(images: Tensor) -> Tensor:
        planar = images.float().cpu().contiguous()
        logits = torch.empty(shape)
        request.set_input_tensor(openvino.Tensor(planar.numpy(), shared_memory=True))
        request.set_output_tensor(openvino.Tensor(logits.numpy(), shared_memory=True))
        request.infer()
        return logits.to(images.device)

    return run
