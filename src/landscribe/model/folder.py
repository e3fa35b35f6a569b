"""The model folder: `config.json`, `model.safetensors` and `README.md` (a model card); no other file in it is read.

A folder may come from a stranger. Loading executes nothing from it: weights are safetensors, never a pickle. Memory is
allocated only for a file whose tensors are those of the network.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from landscribe.errors import ClassError, ModelError, WithoutEffectError, counted, first_line, is_printable
from landscribe.geo.classes import Classes
from landscribe.geo.rasters.nodata import require_representable
from landscribe.machine import bytes_text, total_memory
from landscribe.model.card import model_card
from landscribe.model.config import ModelConfig
from landscribe.nn import build
from landscribe.nn.architectures.external import instance_of, with_class_logits
from landscribe.nn.encoders.encoder import removed_tensors
from landscribe.nn.meta_device import meta_device, shapes
from landscribe.outputs import atomic_folder

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
PICKLES = ("*.pt", "*.pth", "*.pkl", "*.bin", "*.ckpt")

_UPDATE = "Update landscribe if a newer version wrote the folder; otherwise copy it again"
_DEFAULTS = "Its class is called without arguments: give its constructor defaults that build the saved network"

_MAX_CONFIG = 2**25
"""Bytes of a `config.json`: ten thousand epochs of a hundred classes need as much."""
_MAX_HEADER = 2**24
"""Bytes of the header of a safetensors file: a hundred for each tensor."""
_MAX_NESTING = 32
"""Levels of lists and tables in `config.json`."""
_MAX_BANDS = 10_000
"""Bands of a model: weights of the first convolution are in memory before the header is compared."""
_MAX_VALUE_BYTES = 8
"""Bytes of the largest number in a tensor, float64 or int64."""
_LENGTH_BYTES = 8
"""A safetensors file begins with the length of its header, in so many bytes."""
_LOADED_BYTES = 8
"""Bytes of memory for each weight, beside the file: its tensor and that of the network, in float32."""


class ConfigFile(ModelConfig):
    """The content of `config.json`."""

    weights_sha256: str


@dataclass(frozen=True)
class SavedModel:
    """A model folder without its network: nothing is built, so that no code of an architecture runs."""

    config: ModelConfig
    sha256: str
    """`Model.sha256` of the model."""


def write_folder(folder: Path, config: ModelConfig, weights: bytes, *, overwrite: bool) -> None:
    """Write a model folder, whole or not at all.

    Args:
        folder: the folder to write.
        config: of the model.
        weights: the content of the safetensors file.
        overwrite: replace an existing folder.

    Raises:
        OutputError: the folder exists, or cannot be written.
    """
    file = ConfigFile(**dict(config), weights_sha256=hashlib.sha256(weights).hexdigest())
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        (temporary / WEIGHTS).write_bytes(weights)
        (temporary / CONFIG).write_text(file.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (temporary / CARD).write_text(model_card(config), encoding="utf-8")


def read_saved(folder: Path) -> SavedModel:
    """Read a model folder without building its network.

    Raises:
        ModelError: a file is missing, altered, too large, or a pickle.
    """
    config = read_config(folder)
    with _opened_weights(folder) as file:
        _require_memory(_size(file), folder / WEIGHTS)
        return SavedModel(plain_config(config), sha256_of(config, file.read(_size(file))))


def sha256_of(config: ModelConfig, weights: bytes) -> str:
    """Hash of all that decides the logits: weights, architecture, scaling, bands and classes."""
    # As JSON, so that a tuple has the same hash as the list that `config.json` holds.
    arguments = json.dumps(config.arguments, sort_keys=True, default=str)
    table = Classes(config.classes)
    rest = f"{config.architecture} {arguments} {config.scaling} {table} {config.bands}"
    return hashlib.sha256(weights + rest.encode()).hexdigest()


def _shown(text: str) -> str:
    """A stranger's text for a message: one short line. The error escapes its control characters."""
    line = " ".join(text.split())
    return line if len(line) <= 250 else f"{line[:120]} … {line[-120:]}"


def _is_file(path: Path) -> bool:
    """True for a file that ends: no folder, pipe or device, and a name that the system takes."""
    try:
        return path.is_file()
    except OSError:
        return False


# ---- config.json


def read_config(folder: Path) -> ConfigFile:
    """Read and check `config.json`.

    Raises:
        ModelError: it is missing, damaged, too large or too deep, or its settings contradict each other.
    """
    path = folder / CONFIG
    if not _is_file(path):
        raise _no_config(folder)
    size = path.stat().st_size
    if size > _MAX_CONFIG:
        raise ModelError(
            f"{path} has {size} bytes. Expected at most {_MAX_CONFIG}. Copy the model folder again, from its author."
        )
    try:
        with path.open("rb") as file:
            config = ConfigFile.model_validate_json(file.read(size))
        require_consistent(config)
    except ValidationError as error:
        raise _unusable(path, error) from error
    except (ValueError, ClassError, OSError) as error:
        raise ModelError(f"{path} is not usable: {_shown(str(error))} Copy the model folder again.") from error
    return config


def _no_config(folder: Path) -> ModelError:
    expected = 'Expected a model folder, as "landscribe train" writes it.'
    if _is_file(folder):
        return ModelError(f"{folder} is a file. {expected} Give the folder {folder.parent} if it is that of the model.")
    if not os.path.lexists(folder):
        return ModelError(f"{folder} has no {CONFIG}: there is no such folder. {expected}")
    inner = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
    return ModelError(f"{folder} has no {CONFIG}. {expected}{f' Its folder {inner[0]} is one.' if inner else ''}")


def _unusable(path: Path, error: ValidationError) -> ModelError:
    """The error for a config of other settings than this version's, which a newer version may have written."""
    errors = error.errors()
    for each in errors:
        layout = each["input"]
        if each["loc"] == ("landscribe_model",) and isinstance(layout, int) and layout > 1:
            return ModelError(
                f"{path} has the layout {layout} (landscribe_model), of a newer version of landscribe. This one reads "
                "layout 1. Update landscribe."
            )
    name = ".".join(map(str, errors[0]["loc"]))
    reason = _shown(f"{name}{': ' if name else ''}{errors[0]['msg']}")
    remedy = f"{_UPDATE}." if errors[0]["type"] == "extra_forbidden" else "Copy the model folder again."
    return ModelError(f"{path} is not usable ({reason}). {remedy}")


def plain_config(file: ConfigFile) -> ModelConfig:
    """The config without what concerns the file alone."""
    return ModelConfig(**{name: value for name, value in file if name in ModelConfig.model_fields})


def require_consistent(config: ModelConfig) -> None:
    """Raise ValueError, ClassError or RasterError if settings of the config contradict each other or are impossible."""
    classes = Classes(config.classes)
    _require_printable([*config.bands, *classes.names, *(str(entry.label) for entry in classes)])
    if len(config.bands) > _MAX_BANDS:
        raise ValueError(f"it has {len(config.bands)} bands; expected at most {_MAX_BANDS}.")
    counts = {
        "bands": len(config.bands),
        "offsets": len(config.scaling.offset),
        "factors": len(config.scaling.factor),
        "input channels": config.arguments.get("bands", len(config.bands)),
    }
    if len({str(count) for count in counts.values()}) > 1:
        raise ValueError(
            f"it has {', '.join(f'{count} {what}' for what, count in counts.items())}; expected one number."
        )
    outputs = config.arguments.get("classes", len(config.classes))
    is_one_logit = outputs == 1 and len(config.classes) == 2
    if outputs != len(config.classes) and not is_one_logit:
        raise ValueError(f"it has {counted(outputs, 'output channel')}, but {len(config.classes)} classes.")
    require_representable(config.nodata, config.dtype, len(config.bands), "the imagery of the model")
    for name in ("weights", "weights_bands", "band_names"):
        if name in config.arguments:
            raise ValueError(f"its arguments have '{name}', which would load other weights; expected none.")
    if _nesting([config.arguments, config.provenance, config.measures, config.history]) > _MAX_NESTING:
        raise ValueError(f"its values are nested more than {_MAX_NESTING} levels deep.")


def _require_printable(names: Sequence[str]) -> None:
    """Raise ValueError for a control character in a name of a band, class or label."""
    for name in names:
        if not is_printable(name):
            raise ValueError(f"it has the name {name!r}; expected a name without control characters.")


def _nesting(value: Any) -> int:
    """Levels of lists and tables; the parser allows too few for this recursion to fail."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if parts is None else 1 + max(map(_nesting, parts), default=0)


# ---- the network


def require_trusted(config: ModelConfig, folder: Path, trust: str | Sequence[str]) -> None:
    """Raise ModelError for an architecture that is code, unless the user named it.

    Args:
        config: of the folder.
        folder: for the message.
        trust: "module:Class" that the user trusts, or several.
    """
    trusted, name = (trust,) if isinstance(trust, str) else tuple(trust), _shown(config.architecture)
    if config.is_code and config.architecture not in trusted:
        raise ModelError(
            f"{folder / CONFIG} names the architecture {name!r}: loading it runs the code of that module. Expected an "
            f"architecture of landscribe, or smp:NAME. If you trust the module, pass --trust-code {name} (in Python: "
            f"Model.load(folder, trust={name!r}))."
        )


def rebuild(config: ModelConfig, folder: Path) -> nn.Module:
    """Build the network of a config, with random weights, and the caller's random state kept; nothing is downloaded.

    Raises:
        ModelError: the architecture or its arguments are unknown.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            if _is_wrapped(config):
                network: nn.Module = instance_of(config.architecture, config.arguments)
            else:
                network = _built(config.architecture, config.arguments)
        return with_class_logits(network, bands=len(config.bands), classes=len(config.classes))
    except Exception as error:  # an altered argument may raise anything in torch or timm
        reason = _shown(first_line(error)).removesuffix(".")
        is_missing = isinstance(error.__cause__, ImportError)
        remedy = "" if is_missing else f" {_DEFAULTS if _is_wrapped(config) else _UPDATE}."
        raise ModelError(
            f"{folder / CONFIG}: {_shown(config.architecture)} cannot be built: {reason}.{remedy}"
        ) from error


def _built(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network of saved arguments. Earlier versions saved options without effect, which `build` refuses."""
    try:
        return build(architecture, **arguments)
    except WithoutEffectError as error:
        return _built(architecture, {**arguments, **error.same})


def _is_wrapped(config: ModelConfig) -> bool:
    """True for a network that was wrapped, not built: an instance of its own class."""
    return config.is_code and "bands" not in config.arguments


def loading_error(config: ModelConfig, network: nn.Module, folder: Path) -> str | None:
    """Why a wrapped network could not be loaded again; None if it can, or if it is built by its arguments.

    Its class is called without arguments, as for loading.
    """
    if not _is_wrapped(config):
        return None
    try:
        _require_same_shapes(shapes(network), shapes(rebuild(config, folder)), config, folder / WEIGHTS)
    except ModelError as error:
        return str(error)
    return None


# ---- model.safetensors


def load_network(config: ConfigFile, folder: Path) -> nn.Module:
    """Build the network of a folder and load its weights; the network is in eval mode.

    Raises:
        ModelError: as `rebuild`, or the weights are missing, altered, too large, a pickle, not finite, or do not fit.
    """
    path = folder / WEIGHTS
    with _opened_weights(folder) as file:
        # A trusted class may do anything that meta tensors do not support.
        network = rebuild(config, folder) if config.is_code else None
        blank = _on_meta_device(config, folder) if network is None else network
        _require_fitting(file, blank, config, path)
        data = file.read(_size(file))
    surplus = removed_tensors(blank)
    state = {name: tensor for name, tensor in _parsed(data, config.weights_sha256, path).items() if name not in surplus}
    network = rebuild(config, folder) if network is None else network
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise _misfit(path, config, str(error)) from error
    return network.eval()


def _on_meta_device(config: ModelConfig, folder: Path) -> nn.Module:
    """The network of a config, without memory for the content of its tensors."""
    with meta_device():
        return rebuild(config, folder)


def _opened_weights(folder: Path) -> IO[bytes]:
    """The file of the weights; raises ModelError if there is none, or a pickle."""
    path = folder / WEIGHTS
    if not _is_file(path):
        pickles = [pickle.name for pattern in PICKLES for pickle in folder.glob(pattern)]
        refused = f" {', '.join(pickles)} is a pickle: it can run code when loaded and is refused." if pickles else ""
        raise ModelError(f"{folder} has no {WEIGHTS}.{refused} Copy the whole model folder, or save it again.")
    try:
        file = path.open("rb")
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}. Copy the model folder again.") from error
    if _is_pickle(file.read(_LENGTH_BYTES + 1)):
        file.close()
        raise ModelError(
            f"{path} is a pickle: it can run code when loaded and is refused. Expected a safetensors file. "
            'Save the model again with "model.save".'
        )
    file.seek(0)
    return file


def _is_pickle(start: bytes) -> bool:
    """True for the start of a file by torch.save or pickle, whatever the file's name."""
    # Safetensors begin with the length of their header in 8 bytes, which may look like a pickle's start, and then "{".
    starts_like_pickle = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return start[:4] == b"PK\x03\x04" or (starts_like_pickle and start[_LENGTH_BYTES : _LENGTH_BYTES + 1] != b"{")


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def _require_fitting(file: IO[bytes], network: nn.Module, config: ModelConfig, path: Path) -> None:
    """Raise ModelError for a file that is too large, or whose header lists other tensors than the network has.

    It may list tensors that encoders of an earlier version had. A file without a readable header is left to the
    checksum.
    """
    expected, surplus = shapes(network), removed_tensors(network)
    numbers = sum(map(math.prod, (expected | surplus).values()))
    most = _MAX_VALUE_BYTES * numbers + _MAX_HEADER
    if _size(file) > most:
        raise ModelError(
            f"{path} has {_size(file)} bytes, but the {numbers} weights of {config.architecture} need at most {most}. "
            "Copy the model folder again."
        )
    listed = _read_header(file)
    if listed is not None:
        listed = {name: shape for name, shape in listed.items() if surplus.get(name) != shape}
        _require_same_shapes(listed, expected, config, path)
    _require_memory(_size(file) + _LOADED_BYTES * numbers, path)


def _require_same_shapes(
    listed: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]], config: ModelConfig, path: Path
) -> None:
    """Raise ModelError if the tensors of the file are not those of the network."""
    differing = [name for name in expected | listed if listed.get(name) != expected.get(name)]
    if differing:
        name = differing[0]
        raise _misfit(
            path, config,
            f"{len(differing)} tensors differ, first {name!r}: {listed.get(name, 'missing')} in the file, "
            f"{expected.get(name, 'missing')} in the network",
        )  # fmt: skip


def _read_header(file: IO[bytes]) -> dict[str, tuple[int, ...]] | None:
    """Shapes of the tensors by name; None if the file has no readable header."""
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if length > min(_MAX_HEADER, _size(file)):
        file.seek(0)
        return None
    try:
        header = json.loads(file.read(length))
        return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    finally:
        file.seek(0)


def _require_memory(needed: int, path: Path) -> None:
    """Raise ModelError if this machine has less memory than the `needed` bytes."""
    if needed > total_memory():
        raise ModelError(
            f"{path} needs {bytes_text(needed)} of memory to load, but this machine has "
            f"{bytes_text(total_memory())}. Load it on a larger machine."
        )


def _misfit(path: Path, config: ModelConfig, reason: str) -> ModelError:
    remedy = _DEFAULTS if _is_wrapped(config) else "Train the model or copy it again"
    return ModelError(f"{path} does not fit {config.architecture}: {_shown(reason)}. {remedy}.")


def _parsed(data: bytes, expected: str, path: Path) -> dict[str, Tensor]:
    """Tensors by name of a safetensors file; raises ModelError if it was altered, or holds NaN or infinity."""
    actual = hashlib.sha256(data).hexdigest()
    if actual != expected:
        raise ModelError(
            f"{path} was altered: its sha256 is {actual[:12]}…, {CONFIG} says {expected[:12]}…. "
            "Copy the model folder again."
        )
    try:
        state = safetensors.torch.load(data)
    except SafetensorError as error:
        raise ModelError(f"{path} is no safetensors file: {first_line(error)}. Copy the model folder again.") from error
    _require_finite(state, path)
    return state


def _require_finite(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise ModelError for weights that are NaN or infinite: every pixel would get the first class."""
    odd = {name: int((~tensor.isfinite()).sum()) for name, tensor in state.items() if tensor.is_floating_point()}
    odd = {name: count for name, count in odd.items() if count}
    if odd:
        first, count = next(iter(odd.items()))
        raise ModelError(
            f"{path} holds {sum(odd.values())} weights that are NaN or infinite, in {len(odd)} tensors: first in "
            f"{first} ({count} of {state[first].numel()}). Expected finite weights. Train again, with a lower "
            "learning rate or precision 32."
        )
