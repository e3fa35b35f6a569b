"""Model: a network and everything needed to use it, and the folder it lives in.

The folder holds `config.json`, `model.safetensors` and `README.md` (a model card). Loading executes
nothing from the folder: weights are safetensors, never a pickle.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from landscribe.errors import ClassError, LandscribeError, ModelError
from landscribe.geo.classes import ClassEntry, Classes
from landscribe.nn import build
from landscribe.nn.architectures.external import import_class
from landscribe.outputs import whole_folder
from landscribe.spec import Spec

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
PICKLES = ("*.pt", "*.pth", "*.pkl", "*.bin", "*.ckpt")


class Scaling(Spec):
    """From stored pixels to what the network sees: `(pixel - offset) * factor`, band by band."""

    offset: tuple[float, ...]
    factor: tuple[float, ...]

    def apply(self, images: Tensor, valid: Tensor) -> Tensor:
        """Scale (B, C, H, W); pixels that are not valid (B, H, W) become 0, like the padding of convolutions."""
        place = (1, -1, 1, 1)
        offset = torch.tensor(self.offset, dtype=torch.float32, device=images.device).view(place)
        factor = torch.tensor(self.factor, dtype=torch.float32, device=images.device).view(place)
        return ((images.float() - offset) * factor).masked_fill(~valid.unsqueeze(1), 0.0)


class ModelConfig(Spec):
    """What `config.json` holds."""

    landscribe_model: Literal[1] = 1
    """Version of the layout."""
    architecture: str
    """A name that `landscribe.nn.build` knows, or "module:Class"."""
    arguments: dict[str, Any]
    """What the architecture is built with."""
    bands: tuple[str, ...]
    dtype: str
    """Of the raster's pixels."""
    nodata: float | None
    """What marks unusable pixels where a raster declares nothing."""
    scaling: Scaling
    pixel_size: float | None
    """Metres on the ground of the pixels that it was trained on."""
    chip_size: int | None
    """Side of the chips that it was trained on, in pixels."""
    classes: tuple[ClassEntry, ...]
    provenance: dict[str, Any] = Field(default_factory=dict)
    """Hashes of data and recipe, versions, seed."""
    measures: dict[str, Any] = Field(default_factory=dict)
    """What was measured when it was trained."""
    history: list[dict[str, Any]] = Field(default_factory=list)
    """One row per epoch of the training."""
    weights_sha256: str


@dataclass(eq=False)
class Model:
    """A network that knows its bands, scaling, pixel size and classes."""

    network: nn.Module
    """(B, C, H, W) scaled pixels to logits (B, K, H, W)."""
    architecture: str
    arguments: dict[str, Any]
    bands: tuple[str, ...]
    dtype: str
    nodata: float | None
    scaling: Scaling
    pixel_size: float | None
    chip_size: int | None
    classes: Classes
    provenance: dict[str, Any] = field(default_factory=dict)
    measures: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    folder: Path | None = None
    """Where it was loaded from or saved to."""

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
        **known: Any,
    ) -> "Model":
        """Make a Model of any network.

        Args:
            network: (B, C, H, W) to logits (B, K, H, W). To be loaded again, it is one of `nn.build`, or
                its class can be imported and needs no argument.
            bands: names of the C bands.
            classes: names of the K classes (values 0 to K-1), or a class table.
            scale: what pixels are multiplied by, or a Scaling.
            pixel_size: metres on the ground; None if it does not matter.
            dtype: of the raster's pixels.
            known: nodata, chip_size, provenance, measures.
        """
        built = dict(getattr(network, "built_from", {}))
        kind = type(network)
        architecture = built.pop("architecture", f"{kind.__module__}:{kind.__qualname__}")
        if not isinstance(scale, Scaling):
            scale = Scaling(offset=(0.0,) * len(bands), factor=(float(scale),) * len(bands))
        if not isinstance(classes, Classes):
            table = Classes.from_labels(range(len(classes)), background=False)
            named = zip(table, classes, strict=True)
            classes = Classes(tuple(replace(entry, name=name, label=name) for entry, name in named))
        settings: dict[str, Any] = {"nodata": None, "chip_size": None} | known
        return cls(
            network, architecture, built, tuple(bands), dtype,
            scaling=scale, pixel_size=pixel_size, classes=classes, **settings,
        )  # fmt: skip

    @property
    def reduction(self) -> int:
        """Input pixels per pixel of the network's deepest features; tiles are aligned to it."""
        return int(getattr(self.network, "reduction", 32))

    def logits(self, images: Tensor, valid: Tensor) -> Tensor:
        """Scale stored pixels (B, C, H, W), valid (B, H, W), and run the network: (B, K, H, W)."""
        result: Tensor = self.network(self.scaled(images, valid))
        return result

    def scaled(self, images: Tensor, valid: Tensor) -> Tensor:
        """What the network sees of stored pixels (B, C, H, W), valid (B, H, W)."""
        return self.scaling.apply(images, valid).contiguous(memory_format=torch.channels_last)

    @property
    def sha256(self) -> str:
        """Identifies what decides its answers: the weights, scaling and classes."""
        weights = safetensors.torch.save(_plain_state(self.network))
        # As the config has them, where a tuple is a list.
        arguments = json.dumps(self.arguments, sort_keys=True, default=str)
        rest = f"{self.architecture} {arguments} {self.scaling} {self.classes} {self.bands}"
        return hashlib.sha256(weights + rest.encode()).hexdigest()

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the model folder, whole or not at all.

        Raises:
            OutputError: something stands there, or it cannot be written.
        """
        weights = safetensors.torch.save(_plain_state(self.network))
        config = ModelConfig(
            architecture=self.architecture,
            arguments=self.arguments,
            bands=self.bands,
            dtype=self.dtype,
            nodata=self.nodata,
            scaling=self.scaling,
            pixel_size=self.pixel_size,
            chip_size=self.chip_size,
            classes=self.classes.entries,
            provenance=self.provenance,
            measures=self.measures,
            history=self.history,
            weights_sha256=hashlib.sha256(weights).hexdigest(),
        )
        with whole_folder(Path(folder), overwrite=overwrite) as temporary:
            (temporary / WEIGHTS).write_bytes(weights)
            (temporary / CONFIG).write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")
            (temporary / CARD).write_text(_card(config), encoding="utf-8")
        self.folder = Path(folder)
        return self.folder

    @classmethod
    def load(cls, folder: str | Path) -> "Model":
        """Load a model folder; nothing in it is executed.

        Raises:
            ModelError: a part is missing, altered, or a pickle.
        """
        folder = Path(folder)
        config = _read_config(folder)
        network = _rebuild(config, folder)
        state = _read_weights(folder, config.weights_sha256)
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(
                f"{folder / WEIGHTS} does not fit {config.architecture}: {reason}. Train or copy it again."
            ) from error
        network.eval()
        return cls(
            network, config.architecture, dict(config.arguments), config.bands, config.dtype, config.nodata,
            config.scaling, config.pixel_size, config.chip_size, Classes(config.classes),
            dict(config.provenance), dict(config.measures), list(config.history), folder,
        )  # fmt: skip


def _plain_state(network: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers on the CPU, in plain layout, so that the file's bytes depend on the values alone."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}


def _read_config(folder: Path) -> ModelConfig:
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(f'{folder} has no {CONFIG}. A model folder made by "landscribe train" was expected.')
    try:
        config = ModelConfig.model_validate_json(path.read_bytes())
        _require_consistent(config)
    except (ValueError, ClassError) as error:
        if not isinstance(error, ValidationError):
            raise ModelError(f"{path} is not usable: {error} Copy the model folder again.") from error
        first = error.errors()[0]
        place = "".join(f"{part}: " for part in (".".join(map(str, first["loc"])),) if part)
        raise ModelError(f"{path} is not usable ({place}{first['msg']}). Copy the model folder again.") from error
    return config


def _require_consistent(config: ModelConfig) -> None:
    """Raise ValueError or ClassError where one part of the config contradicts another, or cannot be meant."""
    Classes(config.classes)
    built = config.arguments
    bands = {
        "bands": len(config.bands),
        "offsets": len(config.scaling.offset),
        "factors": len(config.scaling.factor),
        "input channels": built.get("bands", len(config.bands)),
    }
    if len(set(bands.values())) > 1:
        raise ValueError(f"it has {', '.join(f'{count} {what}' for what, count in bands.items())}, not one for each.")
    outputs = built.get("classes", len(config.classes))
    if outputs != len(config.classes):
        raise ValueError(f"it has {outputs} output channels, but {len(config.classes)} classes.")
    numbers = (*config.scaling.offset, *config.scaling.factor)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"its scaling holds {numbers}, of which some are not finite.")
    if config.pixel_size is not None and not config.pixel_size > 0:
        raise ValueError(f"its pixel size is {config.pixel_size} m.")


def _read_weights(folder: Path, expected: str) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        pickles = [found.name for pattern in PICKLES for found in folder.glob(pattern)]
        instead = (
            f" {', '.join(pickles)} is a pickle, which can run code when loaded and is refused." if pickles else ""
        )
        raise ModelError(f"{folder} has no {WEIGHTS}.{instead} Copy the whole model folder, or save it again.")
    data = path.read_bytes()
    if _is_pickle(data):
        raise ModelError(
            f"{path} is a pickle, which can run code when loaded. It is refused; a safetensors file was expected. "
            'Save the model again with "model.save".'
        )
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise ModelError(
            f"{path} was altered: its sha256 is {found[:12]}…, {CONFIG} says {expected[:12]}…. "
            "Copy the model folder again."
        )
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise ModelError(f"{path} is no safetensors file: {error}. Copy the model folder again.") from error


def _is_pickle(data: bytes) -> bool:
    """True for what torch.save or pickle wrote, under whatever name."""
    # Safetensors begin with the length of their header in 8 bytes, which may look like a pickle's mark, and then "{".
    marked = data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return data[:4] == b"PK\x03\x04" or (marked and data[8:9] != b"{")


def _rebuild(config: ModelConfig, folder: Path) -> nn.Module:
    path = folder / CONFIG
    try:
        if "bands" in config.arguments:
            return build(config.architecture, **config.arguments)
        # A network that was wrapped rather than built is made as its class is.
        return import_class(config.architecture)(**config.arguments)
    # What an altered argument leads to in torch or timm.
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError, LandscribeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"{path}: {config.architecture} cannot be built: {reason}. Copy the model folder again."
        ) from error


def _card(config: ModelConfig) -> str:
    """The model card, for people and for model hubs."""
    rows = "\n".join(f"| {entry.value} | {entry.name} | {entry.colour} |" for entry in config.classes)
    measures = "\n".join(f"- {name}: {value}" for name, value in config.measures.items()) or "- none recorded"
    terms = config.provenance.get("encoder_weights", {})
    start = f"{terms.get('source', 'not recorded')}" + "".join(
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

Weights it started from: {start}.

## Measured on the validation chips, by which the epoch was chosen
{measures}

## Use
```
landscribe predict THIS_FOLDER image.tif -o map.tif
```
"""
