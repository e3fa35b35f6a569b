"""Model: a network and all that is needed to use it, and the model folder.

The folder holds `config.json`, `model.safetensors` and `README.md` (a model card). Loading executes nothing from the
folder: weights are safetensors, never a pickle.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from landscribe.errors import ClassError, LandscribeError, ModelError
from landscribe.geo.classes import ClassEntry, Classes
from landscribe.geo.rasters.encoding import Encoding
from landscribe.geo.rasters.nodata import NodataValue
from landscribe.nn import build
from landscribe.nn.architectures.external import import_class
from landscribe.nn.segmentation import CLASSES, Segmentation
from landscribe.outputs import atomic_folder
from landscribe.spec import Spec

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
PICKLES = ("*.pt", "*.pth", "*.pkl", "*.bin", "*.ckpt")


class Scaling(Spec):
    """Scaling of stored pixels to the network's input: `(pixel - offset) * factor`, with one pair a band."""

    offset: tuple[float, ...]
    factor: tuple[float, ...]

    def apply(self, images: Tensor, valid: Tensor) -> Tensor:
        """Scale (B, C, H, W) to float32. Pixels that are not valid (B, H, W) become 0, like the padding."""
        shape = (1, -1, 1, 1)
        offset = torch.tensor(self.offset, dtype=torch.float32, device=images.device).view(shape)
        factor = torch.tensor(self.factor, dtype=torch.float32, device=images.device).view(shape)
        return ((images.float() - offset) * factor).masked_fill(~valid.unsqueeze(1), 0.0)


class ModelConfig(Spec):
    """All that is needed to use a network, beside its weights."""

    landscribe_model: Literal[1] = 1
    """Version of the layout of `config.json`."""
    architecture: str
    """A name that `landscribe.nn.build` takes, or "module:Class"."""
    arguments: dict[str, Any]
    """Arguments that the architecture was built with."""
    bands: tuple[str, ...]
    """Names of the C input bands."""
    dtype: str
    """Data type of the raster's pixels."""
    nodata: NodataValue
    """Nodata value of rasters that declare none, or one for each band."""
    encoding: tuple[Encoding, ...] = ()
    """What the stored numbers of the training imagery mean, for each band; empty if no tag declared it."""
    scaling: Scaling
    pixel_size: float | None
    """Pixel size of the training chips in metres on the ground; None if it does not matter."""
    pixel_sides: tuple[float, float] | None = None
    """Height and width of these pixels in metres; None for squares."""
    chip_size: int | None
    """Side of the training chips in pixels."""
    classes: tuple[ClassEntry, ...]
    """The K classes, by index."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """Hashes of chips and settings, versions, seed."""
    measures: dict[str, Any] = Field(default_factory=dict)
    """Measures on the validation chips."""
    history: list[dict[str, Any]] = Field(default_factory=list)
    """One row per epoch of the training."""


class _ConfigFile(ModelConfig):
    """The content of `config.json`."""

    weights_sha256: str


@dataclass(eq=False)
class Model:
    """A network and all that is needed to use it: bands, scaling, pixel size, classes."""

    network: nn.Module
    """(B, C, H, W) scaled pixels to logits (B, K, H, W)."""
    config: ModelConfig
    folder: Path | None = None
    """The folder that it was loaded from or saved to."""

    @classmethod
    def wrap(
        cls,
        network: nn.Module,
        *,
        bands: Sequence[str],
        classes: Sequence[str] | Classes,
        scale: float | Scaling = 1.0,
        pixel_size: float | None = None,
        dtype: str = "uint8",
        **settings: Any,
    ) -> "Model":
        """Wrap any network as a Model.

        Args:
            network: (B, C, H, W) to logits (B, K, H, W). `load` rebuilds a network of `nn.build` by its arguments, and
                any other by importing its class and calling it without arguments.
            bands: names of the C bands.
            classes: names of the K classes (values 0 to K-1), or a class table.
            scale: factor of the pixels, or a Scaling.
            pixel_size: metres on the ground; None if it does not matter.
            dtype: data type of the raster's pixels.
            settings: nodata, encoding, chip_size, provenance, measures.

        Raises:
            RecipeError: an unknown setting, or a value of the wrong type.

        >>> from landscribe import nn
        >>> network = nn.build("unet", encoder="plain", bands=3, classes=2, encoder_widths=[8, 16]).eval()
        >>> model = Model.wrap(network, bands=["red", "green", "blue"], classes=["field", "house"], scale=1 / 255)
        >>> images = torch.randint(0, 256, (1, 3, 64, 80), dtype=torch.uint8)
        >>> tuple(model.logits(images, valid=torch.ones(1, 64, 80, dtype=torch.bool)).shape)
        (1, 2, 64, 80)
        >>> model.classes.names
        ('field', 'house')
        """
        arguments = dict(getattr(network, "built_from", {}))
        network_class = type(network)
        architecture = arguments.pop("architecture", f"{network_class.__module__}:{network_class.__qualname__}")
        if not isinstance(scale, Scaling):
            scale = Scaling(offset=(0.0,) * len(bands), factor=(float(scale),) * len(bands))
        if not isinstance(classes, Classes):
            table = Classes.from_labels(range(len(classes)), background=False)
            named = zip(table, classes, strict=True)
            classes = Classes(tuple(replace(entry, name=name, label=name) for entry, name in named))
        config = {
            "architecture": architecture,
            "arguments": arguments,
            "bands": tuple(bands),
            "dtype": dtype,
            "nodata": None,
            "scaling": scale,
            "pixel_size": pixel_size,
            "chip_size": None,
            "classes": classes.entries,
        }
        return cls(network, ModelConfig.of(config | settings))

    @classmethod
    def of(cls, model: "Model | str | Path") -> "Model":
        """A Model as it is, or the one in a model folder.

        Raises:
            ModelError: as `load`.
        """
        return model if isinstance(model, Model) else cls.load(model)

    @property
    def architecture(self) -> str:
        """A name that `nn.build` takes, or "module:Class"."""
        return self.config.architecture

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments that the architecture was built with."""
        return self.config.arguments

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the C input bands."""
        return self.config.bands

    @property
    def dtype(self) -> str:
        """Data type of the raster's pixels."""
        return self.config.dtype

    @property
    def nodata(self) -> NodataValue:
        """Nodata value of rasters that declare none, or one for each band."""
        return self.config.nodata

    @property
    def encoding(self) -> tuple[Encoding, ...]:
        """What the stored numbers of the training imagery mean, for each band; empty if no tag declared it."""
        return self.config.encoding

    @property
    def scaling(self) -> Scaling:
        """Scaling of stored pixels to the network's input."""
        return self.config.scaling

    @property
    def pixel_size(self) -> float | None:
        """Pixel size of the training chips in metres on the ground."""
        return self.config.pixel_size

    @property
    def pixel_sides(self) -> tuple[float, float] | None:
        """Height and width of a pixel of the training chips in metres; None if its size does not matter."""
        size = self.config.pixel_size
        return None if size is None else self.config.pixel_sides or (size, size)

    @property
    def chip_size(self) -> int | None:
        """Side of the training chips in pixels."""
        return self.config.chip_size

    @property
    def classes(self) -> Classes:
        """The table of the K classes."""
        return Classes(self.config.classes)

    @property
    def provenance(self) -> dict[str, Any]:
        """Hashes of chips and settings, versions, seed."""
        return self.config.provenance

    @property
    def measures(self) -> dict[str, Any]:
        """Measures on the validation chips."""
        return self.config.measures

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row per epoch of the training."""
        return self.config.history

    @property
    def head_channels(self) -> dict[str, int]:
        """Channels of each head of the network by its name, the main head first."""
        if isinstance(self.network, Segmentation):
            return dict(self.network.head_channels)
        return {CLASSES: len(self.config.classes)}

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the network's heads, the main head first."""
        return tuple(self.head_channels)

    @property
    def main_head(self) -> str:
        """Name of the head whose channels are the classes."""
        return self.heads[0]

    @property
    def reduction(self) -> int:
        """Input pixels per pixel of the network's deepest features; tiles are aligned to it."""
        return int(getattr(self.network, "reduction", 32))

    def logits(self, images: Tensor, valid: Tensor) -> Tensor:
        """Logits (B, K, H, W) of the main head, for stored pixels (B, C, H, W) and valid (B, H, W)."""
        result: Tensor = self.network(self.scaled(images, valid))
        return result

    def head_logits(self, images: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Logits (B, channels, H, W) of each head by its name, from one pass; arguments as `logits`."""
        scaled = self.scaled(images, valid)
        if isinstance(self.network, Segmentation):
            return self.network.forward_heads(scaled)
        return {CLASSES: self.network(scaled)}

    def scaled(self, images: Tensor, valid: Tensor) -> Tensor:
        """The network's input for stored pixels (B, C, H, W) and valid (B, H, W), in channels-last memory format."""
        return self.scaling.apply(images, valid).contiguous(memory_format=torch.channels_last)

    @property
    def sha256(self) -> str:
        """Hash of all that decides its logits: weights, architecture, scaling, bands and classes."""
        weights = safetensors.torch.save(_plain_state(self.network))
        # As JSON, so that a tuple has the same hash as the list that `config.json` holds.
        arguments = json.dumps(self.arguments, sort_keys=True, default=str)
        rest = f"{self.architecture} {arguments} {self.scaling} {self.classes} {self.bands}"
        return hashlib.sha256(weights + rest.encode()).hexdigest()

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the model folder, whole or not at all.

        Raises:
            OutputError: the folder exists, or cannot be written.
        """
        weights = safetensors.torch.save(_plain_state(self.network))
        config = _ConfigFile(**dict(self.config), weights_sha256=hashlib.sha256(weights).hexdigest())
        with atomic_folder(Path(folder), overwrite=overwrite) as temporary:
            (temporary / WEIGHTS).write_bytes(weights)
            (temporary / CONFIG).write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")
            (temporary / CARD).write_text(_card(config), encoding="utf-8")
        self.folder = Path(folder)
        return self.folder

    @classmethod
    def load(cls, folder: str | Path) -> "Model":
        """Load a model folder; nothing in it is executed.

        Raises:
            ModelError: a file is missing, altered, or a pickle.
        """
        folder = Path(folder)
        file = _read_config(folder)
        network = _rebuild(file, folder)
        state = _read_weights(folder, file.weights_sha256)
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(
                f"{folder / WEIGHTS} does not fit {file.architecture}: {reason}. Train the model or copy it again."
            ) from error
        network.eval()
        settings = {name: value for name, value in file if name in ModelConfig.model_fields}
        return cls(network, ModelConfig(**settings), folder)


def _plain_state(network: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers on the CPU, in plain layout, so that the file's bytes depend on the values alone."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}


def _read_config(folder: Path) -> _ConfigFile:
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(f'{folder} has no {CONFIG}. Expected a model folder, as "landscribe train" writes it.')
    try:
        config = _ConfigFile.model_validate_json(path.read_bytes())
        _require_consistent(config)
    except (ValueError, ClassError) as error:
        if not isinstance(error, ValidationError):
            raise ModelError(f"{path} is not usable: {error} Copy the model folder again.") from error
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise ModelError(
            f"{path} is not usable ({name}{': ' if name else ''}{first['msg']}). Copy the model folder again."
        ) from error
    return config


def _require_consistent(config: ModelConfig) -> None:
    """Raise ValueError or ClassError if settings of the config contradict each other or have impossible values."""
    Classes(config.classes)
    counts = {
        "bands": len(config.bands),
        "offsets": len(config.scaling.offset),
        "factors": len(config.scaling.factor),
        "input channels": config.arguments.get("bands", len(config.bands)),
    }
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"it has {', '.join(f'{count} {what}' for what, count in counts.items())}; expected one number."
        )
    outputs = config.arguments.get("classes", len(config.classes))
    if outputs != len(config.classes):
        raise ValueError(f"it has {outputs} output channels, but {len(config.classes)} classes.")
    values = (*config.scaling.offset, *config.scaling.factor)
    if not all(map(math.isfinite, values)):
        raise ValueError(f"its scaling is {values}; expected finite numbers.")
    if config.pixel_size is not None and not config.pixel_size > 0:
        raise ValueError(f"its pixel size is {config.pixel_size} m; expected more than 0.")


def _read_weights(folder: Path, expected: str) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        pickles = [pickle.name for pattern in PICKLES for pickle in folder.glob(pattern)]
        refused = f" {', '.join(pickles)} is a pickle: it can run code when loaded and is refused." if pickles else ""
        raise ModelError(f"{folder} has no {WEIGHTS}.{refused} Copy the whole model folder, or save it again.")
    data = path.read_bytes()
    if _is_pickle(data):
        raise ModelError(
            f"{path} is a pickle: it can run code when loaded and is refused. Expected a safetensors file. "
            'Save the model again with "model.save".'
        )
    actual = hashlib.sha256(data).hexdigest()
    if actual != expected:
        raise ModelError(
            f"{path} was altered: its sha256 is {actual[:12]}…, {CONFIG} says {expected[:12]}…. "
            "Copy the model folder again."
        )
    try:
        state = safetensors.torch.load(data)
    except SafetensorError as error:
        raise ModelError(f"{path} is no safetensors file: {error}. Copy the model folder again.") from error
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


def _is_pickle(data: bytes) -> bool:
    """True for the output of torch.save or pickle, whatever the file's name."""
    # Safetensors begin with the length of their header in 8 bytes, which may look like a pickle's start, and then "{".
    starts_like_pickle = data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return data[:4] == b"PK\x03\x04" or (starts_like_pickle and data[8:9] != b"{")


def _rebuild(config: ModelConfig, folder: Path) -> nn.Module:
    path = folder / CONFIG
    try:
        if "bands" in config.arguments:
            return build(config.architecture, **config.arguments)
        # A network that was wrapped, not built: an instance of its own class.
        return import_class(config.architecture)(**config.arguments)
    # An altered argument may raise any of these in torch or timm.
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError, LandscribeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"{path}: {config.architecture} cannot be built: {reason}. Copy the model folder again."
        ) from error


def _card(config: ModelConfig) -> str:
    """The model card, for readers and for model hubs."""
    rows = "\n".join(f"| {entry.value} | {entry.name} | {entry.colour} |" for entry in config.classes)
    measures = "\n".join(f"- {name}: {value}" for name, value in config.measures.items()) or "- none recorded"
    terms = config.provenance.get("encoder_weights", {})
    initial = f"{terms.get('source', 'not recorded')}" + "".join(
        f", {name} {terms[name]}" for name in ("tag", "hub", "license") if name in terms
    )
    size = f"{config.pixel_size:.3g} m" if config.pixel_size else "not recorded"
    return f"""---
library_name: landscribe
tags: [image-segmentation, remote-sensing]
---
# {config.architecture} on {config.arguments.get("encoder", "its own encoder")}

Maps {len(config.bands)} bands ({", ".join(config.bands)}; {config.dtype}) of {size} pixels
to {len(config.classes)} classes.

| value | class | colour |
|---|---|---|
{rows}

Initial weights: {initial}.

## Measures on the validation chips, which also chose the epoch
{measures}

## Use
```
landscribe predict THIS_FOLDER image.tif -o map.tif
```
"""
