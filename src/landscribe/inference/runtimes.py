"""Exported networks: ONNX, run by ONNX Runtime or by OpenVINO."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from landscribe.errors import EngineError
from landscribe.inference.onnx_export import MOST_SHAPES, Shape, reason_of

Run = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) of one shape to logits (B, K, H, W)."""


class Exported:
    """A network that is exported for each shape of images when it first meets it."""

    def __init__(
        self, onnx: Callable[[Shape], bytes], made: Callable[[bytes, torch.device], Run], device: torch.device
    ) -> None:
        """`onnx` gives the network for a shape of images, `made` runs it on the device."""
        self._onnx = onnx
        self._made = made
        self._device = device
        self._runs: dict[Shape, Run] = {}
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
                raise EngineError(
                    f"the exported network cannot be run: {reason_of(error)}. Use --engine torch."
                ) from error

    def _run_for(self, shape: Shape) -> Run:
        if shape not in self._runs:
            if len(self._runs) == MOST_SHAPES:
                del self._runs[next(iter(self._runs))]
            self._runs[shape] = self._made(self._onnx(shape), self._device)
        return self._runs[shape]


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
