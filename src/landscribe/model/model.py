"""Model: a network and all that is needed to use it."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from landscribe.errors import NetworkError, RecipeError
from landscribe.geo.classes import Classes
from landscribe.geo.rasters.encoding import Encoding
from landscribe.geo.spec import NodataValue
from landscribe.model.config import ModelConfig, Scaling
from landscribe.model.folder import (
    load_network,
    loading_error,
    plain_config,
    read_config,
    require_consistent,
    require_trusted,
    sha256_of,
    write_folder,
)
from landscribe.nn.architectures.external import with_class_logits
from landscribe.nn.segmentation import CLASSES, Segmentation

log = logging.getLogger(__name__)


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
        scale: float | Sequence[float] | Scaling = 1.0,
        pixel_size: float | None = None,
        dtype: str = "uint8",
        **settings: Any,
    ) -> "Model":
        """Wrap any network as a Model. It stays in its mode: call its `eval()` for logits as maps have them.

        Args:
            network: (B, C, H, W) to logits (B, K, H, W), also in a list or dict, or to one logit for two classes.
                `load` rebuilds a network of `nn.build` or segmentation-models-pytorch by its arguments, and any other
                by importing its class and calling it without arguments.
            bands: names of the C bands.
            classes: names of the K classes (values 0 to K-1), or a class table.
            scale: factor of the pixels, or one for each band, or a Scaling.
            pixel_size: metres on the ground; None if it does not matter.
            dtype: data type of the raster's pixels.
            settings: nodata, encoding, chip_size, val_threshold, provenance, measures.

        Raises:
            NetworkError: the network returns several tensors or probabilities, or has other numbers of bands or classes
                than are named.
            RecipeError: an unknown setting, or a value of the wrong type or out of range.

        >>> from landscribe import nn
        >>> network = nn.build("unet", encoder="plain", bands=3, classes=2, encoder_widths=[8, 16]).eval()
        >>> model = Model.wrap(network, bands=["red", "green", "blue"], classes=["field", "house"], scale=1 / 255)
        >>> images = torch.randint(0, 256, (1, 3, 64, 80), dtype=torch.uint8)
        >>> tuple(model.logits(images, valid=torch.ones(1, 64, 80, dtype=torch.bool)).shape)
        (1, 2, 64, 80)
        >>> model.classes.names
        ('field', 'house')
        """
        if not isinstance(network, nn.Module):
            raise NetworkError(f"the network is a {type(network).__name__}. Expected an instance of nn.Module.")
        network_class = type(network)
        network = with_class_logits(network, bands=len(bands), classes=len(classes))
        arguments = dict(getattr(network, "built_from", {}))
        architecture = arguments.pop("architecture", f"{network_class.__module__}:{network_class.__qualname__}")
        if not isinstance(scale, Scaling):
            scale = Scaling(offset=(0.0,) * len(bands), factor=_factors(scale, len(bands)))
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
        wrapped = cls(network, ModelConfig.of(config | settings))
        try:
            require_consistent(wrapped.config)
        except ValueError as error:
            raise NetworkError(f"the network cannot be wrapped with these settings: {error} Correct them.") from error
        return wrapped

    @classmethod
    def of(cls, model: "Model | str | Path", *, trust: str | Sequence[str] = ()) -> "Model":
        """A Model as it is, or the one in a model folder.

        Raises:
            ModelError: as `load`.
        """
        return model if isinstance(model, Model) else cls.load(model, trust=trust)

    def __repr__(self) -> str:
        encoder = f", encoder={self.arguments['encoder']!r}" if "encoder" in self.arguments else ""
        return (
            f"Model(architecture={self.architecture!r}{encoder}, bands={self.bands}, classes={self.classes.names}, "
            f"pixel_size={self.pixel_size}, folder={None if self.folder is None else str(self.folder)!r})"
        )

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
    def val_threshold(self) -> float | None:
        """Probability of the second of two classes with its highest F1-score on the validation chips."""
        return self.config.val_threshold

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

    def __call__(self, images: Tensor | NDArray[Any], valid: Tensor | None = None) -> Tensor:
        """Logits (B, K, H, W) of the main head, for stored pixels (B, C, H, W); all are valid if `valid` is None."""
        images = torch.as_tensor(images)
        return self.logits(images, torch.ones_like(images[:, 0], dtype=torch.bool) if valid is None else valid)

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
        return sha256_of(self.config, self._weights())

    def _weights(self) -> bytes:
        """The content of the weights' file."""
        return safetensors.torch.save(_plain_state(self.network))

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the model folder, whole or not at all; a warning says if a wrapped network could not be loaded again.

        Raises:
            OutputError: the folder exists, or cannot be written.
        """
        write_folder(Path(folder), self.config, self._weights(), overwrite=overwrite)
        self.folder = Path(folder)
        reason = loading_error(self.config, self.network, self.folder)
        if reason is not None:
            log.warning("%s was saved, but cannot be loaded as its class is now: %s", folder, reason)
        return self.folder

    @classmethod
    def load(cls, folder: str | Path, *, trust: str | Sequence[str] = ()) -> "Model":
        """Load a model folder; nothing in it is executed, and nothing is downloaded.

        Args:
            folder: as `save` writes it.
            trust: "module:Class" that may be imported, or several. Architectures of landscribe and of
                segmentation-models-pytorch need none.

        Raises:
            ModelError: a file is missing, altered, too large or a pickle, or the architecture is code that is not
                trusted.
        """
        folder = Path(folder)
        config = read_config(folder)
        require_trusted(config, folder, trust)
        return cls(load_network(config, folder), plain_config(config), folder)


def _factors(scale: Any, bands: int) -> tuple[float, ...]:
    """A factor of the pixels for each band.

    Raises:
        RecipeError: another number of factors, or one that is no number, 0 or not finite.
    """
    try:
        factors = (float(scale),) * bands if np.ndim(scale) == 0 else tuple(map(float, scale))
    except (TypeError, ValueError):
        factors = ()
    if len(factors) != bands or not all(math.isfinite(factor) and factor for factor in factors):
        raise RecipeError(
            f"scale is {scale!r}. Expected a factor of the pixels, not 0, such as 1 / 255, or one for each of {bands} "
            "bands, or a Scaling."
        )
    return factors


def _plain_state(network: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers on the CPU, in plain layout, so that the file's bytes depend on the values alone."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
