"""The OpenVINO backend, on CPUs and Intel GPUs."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from landscribe.inference.backends.compiled import CompiledNetwork, Run
from landscribe.inference.backends.torch_backend import Backend
from landscribe.model import Model

_DEVICES = {"cpu": "CPU", "xpu": "GPU"}
"""OpenVINO's names of torch's devices."""


def build_openvino(model: Model, device: torch.device, heads: tuple[str, ...]) -> Backend:
    """Run the network in OpenVINO, exported for each shape of images.

    The backend raises BackendError if the network cannot be exported.
    """
    return CompiledNetwork(model, device, heads, compile_network)


def compile_network(onnx: bytes, device: torch.device) -> Run:
    """Compile a network in ONNX with OpenVINO."""
    import openvino

    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if device.type == "cpu":
        # Several processes would pin their threads to the same cores.
        settings |= {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "ENABLE_CPU_PINNING": False}

    def compile_model() -> Any:
        # read_model, because openvino.convert_model sends telemetry to Intel.
        return openvino.Core().compile_model(openvino.Core().read_model(onnx), _DEVICES[device.type], settings)

    # On processors with AMX, OpenVINO gives the compiling thread a signal stack and frees it: a later signal, such as
    # Ctrl-C, would crash this thread. So a thread that ends at once compiles.
    with ThreadPoolExecutor(1) as compiling:
        compiled = compiling.submit(compile_model).result()
    request = compiled.create_infer_request()
    shapes = [tuple(output.shape) for output in compiled.outputs]

    def run(images: Tensor) -> list[Tensor]:
        planar = images.float().cpu().contiguous()
        heads = [torch.empty(shape) for shape in shapes]
        request.set_input_tensor(openvino.Tensor(planar.numpy(), shared_memory=True))
        for index, logits in enumerate(heads):
            request.set_output_tensor(index, openvino.Tensor(logits.numpy(), shared_memory=True))
        request.infer()
        return [logits.to(images.device) for logits in heads]

    return run
