"""The ONNX Runtime backends, on CPUs and CUDA devices, and by TensorRT."""

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from landscribe.errors import BackendError, OutputError
from landscribe.inference import cache
from landscribe.inference.backends.compiled import CompiledNetwork, Run
from landscribe.inference.backends.torch_backend import Backend
from landscribe.model import Model
from landscribe.outputs import atomic_folder


def build_onnxruntime(model: Model, device: torch.device, heads: tuple[str, ...]) -> Backend:
    """Run the network in ONNX Runtime, exported for each shape of images.

    Raises:
        BackendError: the installed ONNX Runtime has no CUDA. The backend itself raises it if the network cannot be
            exported.
    """
    if device.type == "cuda":
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise BackendError(
                "the installed onnxruntime does not run on CUDA. Install onnxruntime-gpu instead, or use --engine "
                "torch."
            )
    return CompiledNetwork(model, device, heads, compile_network)


def has_tensorrt() -> bool:
    """True if the installed ONNX Runtime runs TensorRT."""
    import onnxruntime

    return "TensorrtExecutionProvider" in onnxruntime.get_available_providers()


def build_tensorrt(model: Model, device: torch.device, heads: tuple[str, ...]) -> Backend:
    """Run the network by TensorRT in 16 bits, if ONNX Runtime and TensorRT are installed; compiled for each shape.

    Raises:
        BackendError: as `build_onnxruntime`.
    """
    if not has_tensorrt():
        raise BackendError(
            "the installed onnxruntime does not run TensorRT. Install onnxruntime-gpu and TensorRT, or use --engine "
            "torch-bf16."
        )
    return CompiledNetwork(model, device, heads, partial(compile_tensorrt, model))


def compile_tensorrt(model: Model, onnx: bytes, device: torch.device) -> Run:
    """Compile a model's network in ONNX by TensorRT; its engine, which takes minutes, stays in the model's cache."""

    def compiled(engines: Path | None) -> Run:
        stored = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(engines)} if engines else {}
        return compile_network(onnx, device, "TensorrtExecutionProvider", {"trt_fp16_enable": True} | stored)

    folder = None if model.config.is_code else cache.folder_of(model)
    if folder is None:
        return compiled(None)
    # A folder for each export: the name of an engine depends neither on weights nor on the shape of images.
    engines = folder / "tensorrt" / hashlib.sha256(onnx).hexdigest()[:16]
    if engines.exists():
        return compiled(engines)
    try:
        with atomic_folder(engines) as temporary:
            run = compiled(temporary)
    except OutputError:  # a cache that is read-only or full costs only a new engine each time
        return compiled(None)
    cache.remove_unused(engines)
    cache.remove_unused(folder)
    return run


def compile_network(
    onnx: bytes, device: torch.device, provider: str | None = None, settings: Mapping[str, Any] | None = None
) -> Run:
    """Compile a network in ONNX with ONNX Runtime; `provider` is that of the device unless named."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    # It would plan memory again for the second image and keep that of the first: twice as much.
    options.enable_mem_pattern = False
    # Threads that spin until the next tile would take the cores of those that read and write.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    provider = provider or ("CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider")
    own = {"device_id": device.index or 0} if device.type == "cuda" else {}
    # CUDA computes what TensorRT cannot.
    others = [("CUDAExecutionProvider", own)] if provider == "TensorrtExecutionProvider" else []
    session = onnxruntime.InferenceSession(onnx, options, providers=[(provider, own | dict(settings or {})), *others])
    if provider not in session.get_providers():
        # It would compute on the CPU without an error.
        raise BackendError(f"onnxruntime finds no working {provider} on this machine. Use --engine torch.")
    (source,), results = session.get_inputs(), session.get_outputs()

    def run(images: Tensor) -> list[Tensor]:
        # Torch and ONNX Runtime share the memory: nothing is copied, and on a GPU nothing leaves it.
        planar = images.float().contiguous()
        heads = [torch.empty(result.shape, device=images.device) for result in results]
        binding = session.io_binding()
        layout = (images.device.type, images.device.index or 0, "float32")
        binding.bind_input(source.name, *layout, planar.shape, planar.data_ptr())
        for result, logits in zip(results, heads, strict=True):
            binding.bind_output(result.name, *layout, logits.shape, logits.data_ptr())
        if images.device.type == "cuda":
            torch.cuda.current_stream(images.device).synchronize()
        session.run_with_iobinding(binding)
        return heads

    return run
