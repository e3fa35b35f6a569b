"""A model's network as ONNX, for images of one shape: exported once, and kept beside the model.

The export takes seconds, as long as a fast engine needs for megapixels. `exported/` in the model folder holds what came
of it; a file there is taken if it is of these weights, made by these versions, and still what was written.
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

from landscribe.errors import EngineError, OutputError
from landscribe.model import Model
from landscribe.outputs import atomic_file

FOLDER = "exported"

Shape = tuple[int, ...]
"""(B, C, H, W)."""

MOST_SHAPES = 4
"""Of images, for which a network is kept: full tiles, and rasters that are smaller than a tile."""

_MAKERS = ("landscribe", "torch", "onnxscript", "timm", "segmentation-models-pytorch")
"""Packages that decide what a network and its export are."""


def onnx_of(model: Model, ready: Callable[[], nn.Module], shape: Shape) -> bytes:
    """The model's network as ONNX.

    Args:
        model: whose weights are asked for.
        ready: makes its network ready to be exported, in eval mode; called if none is kept.
        shape: of the images.

    Raises:
        EngineError: it cannot be exported.
    """
    if model.folder is None or not _is_named(model):
        return export(ready(), shape)
    name = f"{'x'.join(map(str, shape))}-{_identity(model)}"
    kept = _kept(model.folder / FOLDER, name)
    if kept is None:
        kept = export(ready(), shape)
        _keep(model.folder / FOLDER, name, kept)
    return kept


def _is_named(model: Model) -> bool:
    """False for a class of the user's, whose code may change without its weights."""
    return ":" not in model.architecture or model.architecture.startswith("smp:")


def _identity(model: Model) -> str:
    versions = []
    for package in _MAKERS:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    return _digest(" ".join([model.sha256, *versions]).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _kept(folder: Path, name: str) -> bytes | None:
    """The file of that name and of its own digest; None if there is none."""
    for path in folder.glob(f"{name}-*.onnx"):
        with suppress(OSError):
            data = path.read_bytes()
            if path.name == _file_name(name, data):
                return data
    return None


def _file_name(name: str, data: bytes) -> str:
    return f"{name}-{_digest(data)}.onnx"


def _keep(folder: Path, name: str, data: bytes) -> None:
    """Put a file, and take away those of other weights or versions, and the oldest of more shapes than are kept."""
    # A folder that is read-only or full is none the worse for what it does not keep.
    with suppress(OutputError, OSError):
        with atomic_file(folder / _file_name(name, data)) as temporary:
            temporary.write_bytes(data)
        identity = name.rpartition("-")[2]
        by_age = sorted(folder.glob("*.onnx"), key=lambda path: path.stat().st_mtime, reverse=True)
        alike = [path for path in by_age if path.name.split("-")[1:2] == [identity]]
        for path in by_age:
            if path not in alike[:MOST_SHAPES]:
                path.unlink(missing_ok=True)


def export(network: nn.Module, shape: Shape) -> bytes:
    """A network as ONNX, for images of this shape.

    With sizes that are left open the export of a UNet took three times as long, and what came of it was no faster.

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
                f"{type(network).__name__} cannot be exported to ONNX: {reason_of(error)}. A network without decisions "
                "that depend on pixels was expected. Use --engine torch."
            ) from error
    return onnx


def reason_of(error: BaseException) -> str:
    """What began an error, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}{': ' + lines[0][:160].rstrip('. ') if lines else ''}"


@contextmanager
def _silence() -> Iterator[None]:
    """Exporters tell what will change in versions to come, and print the networks that they fail at."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
