"""Export of a model's network to ONNX, for one shape of images, stored in the user's cache.

An export takes seconds, in which a fast backend runs megapixels. The files are in `exported/` in the cache folder of
the model. A file is used if its name has the digest of these package versions, and that of its own content.
"""

import hashlib
import importlib.metadata
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from landscribe.errors import BackendError, OutputError, root_cause
from landscribe.inference import cache
from landscribe.model import Model
from landscribe.outputs import atomic_file

FOLDER = "exported"

Shape = tuple[int, ...]
"""(B, C, H, W)."""

MAX_SHAPES = 4
"""Exports that are stored for one model: of full tiles, of rasters smaller than a tile, of several heads."""

_PACKAGES = ("landscribe", "torch", "onnxscript", "timm", "segmentation-models-pytorch")
"""Packages whose versions may change a network or its export."""


def load_or_export(model: Model, network: Callable[[], nn.Module], shape: Shape, heads: tuple[str, ...]) -> bytes:
    """The model's network in ONNX: the stored export, or a new one.

    Args:
        model: its cache folder stores the export; without one, or with a user's own class, nothing is stored.
        network: gives the network in eval mode; called only for a new export.
        shape: (B, C, H, W) of the images.
        heads: names of the heads whose logits the network gives, in this order.

    Returns:
        ONNX with one output for each head. It has the head's name, unless the main head is the only one.

    Raises:
        BackendError: it cannot be exported.
    """
    outputs = () if heads == (model.main_head,) else heads
    # The code of a user's own class may change while its weights stay.
    folder = None if model.config.is_code else cache.folder_of(model)
    if folder is None:
        return export(network(), shape, outputs)
    name = f"{'+'.join(('x'.join(map(str, shape)), *outputs))}-{_digest_of_versions()}"
    onnx = _load(folder / FOLDER, name)
    if onnx is None:
        onnx = export(network(), shape, outputs)
        _store(folder / FOLDER, name, onnx)
        cache.remove_unused(folder)
    return onnx


def _digest_of_versions() -> str:
    versions = []
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    return _digest(" ".join(versions).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _load(folder: Path, name: str) -> bytes | None:
    """The stored export of this name; None if there is none, or its content does not match its digest."""
    for path in folder.glob(f"{name}-*.onnx"):
        with suppress(OSError):
            data = path.read_bytes()
            if path.name == _file_name(name, data):
                return data
    return None


def _file_name(name: str, data: bytes) -> str:
    return f"{name}-{_digest(data)}.onnx"


def _store(folder: Path, name: str, data: bytes) -> None:
    """Write an export, and delete those of other versions, and the oldest beyond MAX_SHAPES."""
    # A read-only or full folder costs only a new export each time.
    with suppress(OutputError, OSError):
        with atomic_file(folder / _file_name(name, data)) as temporary:
            temporary.write_bytes(data)
        digest = name.rpartition("-")[2]
        by_age = sorted(folder.glob("*.onnx"), key=lambda path: path.stat().st_mtime, reverse=True)
        current = [path for path in by_age if path.name.split("-")[1:2] == [digest]]
        for path in by_age:
            if path not in current[:MAX_SHAPES]:
                path.unlink(missing_ok=True)


def export(network: nn.Module, shape: Shape, outputs: tuple[str, ...] = ()) -> bytes:
    """Export a network to ONNX, for images (B, C, H, W) of this shape.

    The shape is fixed: with dynamic sizes the export of a UNet took three times as long and ran no faster. `outputs`
    names the network's outputs; the exporter names them if it is empty.

    Raises:
        BackendError: it cannot be exported.
    """
    weight = next(network.parameters(), torch.empty(0))
    # Tensors that are created in inference mode cannot be traced.
    with torch.inference_mode(mode=False), torch.no_grad(), _silence():
        images = torch.zeros(shape, device=weight.device)
        try:
            # A separate call, because torch.onnx.export tries several strategies and prints each failure at length.
            program = torch.export.export(network, (images,))
            exported: Any = torch.onnx.export(program, dynamo=True, verbose=False, output_names=outputs or None)
            onnx: bytes = exported.model_proto.SerializeToString()
        except Exception as error:  # a network or an exporter may raise anything
            raise BackendError(
                f"{type(network).__name__} cannot be exported to ONNX: {root_cause(error)}. Expected a network whose "
                "operations do not depend on pixel values. Use --engine torch."
            ) from error
    return onnx


@contextmanager
def _silence() -> Iterator[None]:
    """Hide the exporters' deprecation warnings, and the networks that they print when they fail."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
