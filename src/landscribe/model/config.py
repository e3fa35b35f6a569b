"""Config: all that is needed to use a network, beside its weights."""

from functools import lru_cache
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor

from landscribe.errors import listed
from landscribe.geo.classes import ClassEntry
from landscribe.geo.rasters.encoding import Encoding
from landscribe.geo.spec import NodataValue
from landscribe.spec import Pixels, Spec, StoredName

_MARGIN = 0.1
"""By which the F1-score at a threshold is above that of a map without a network, if the network is usable."""


_DTYPES = (
    "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64",
)  # fmt: skip
"""Data types of rasters."""


class Scaling(Spec):
    """Scaling of stored pixels to the network's input: `(pixel - offset) * factor`, with one pair a band."""

    offset: tuple[float, ...]
    factor: tuple[float, ...]

    def apply(self, images: Tensor, valid: Tensor) -> Tensor:
        """Scale (B, C, H, W) to float32. Pixels that are not valid (B, H, W) become 0, like the padding."""
        shape = (1, -1, 1, 1)
        offset, factor = (_constants(each, images.device).view(shape) for each in (self.offset, self.factor))
        return ((images.float() - offset) * factor).masked_fill(~valid.unsqueeze(1), 0.0)


@lru_cache(maxsize=32)
def _constants(numbers: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers in float32 on a device; a GPU would wait for a copy of them with each batch."""
    with torch.inference_mode(mode=False):
        return torch.tensor(numbers, dtype=torch.float32, device=device)


def _dtype_of_pixels(name: str) -> str:
    if name not in _DTYPES:
        raise ValueError(f"'{name}' is no data type of pixels; expected one of {', '.join(_DTYPES)}")
    return name


class ModelConfig(Spec):
    """All that is needed to use a network, beside its weights."""

    landscribe_model: Literal[1] = 1
    """Version of the layout of `config.json`."""
    architecture: str
    """A name that `landscribe.nn.build` takes, or "module:Class"."""
    arguments: dict[str, Any]
    """Arguments that the architecture was built with."""
    bands: tuple[StoredName, ...]
    """Names of the C input bands."""
    dtype: Annotated[str, AfterValidator(_dtype_of_pixels)]
    """Data type of the raster's pixels."""
    nodata: NodataValue
    """Nodata value of rasters that declare none, or one for each band."""
    encoding: tuple[Encoding, ...] = ()
    """What the stored numbers of the training imagery mean, for each band; empty if no tag declared it."""
    scaling: Scaling
    pixel_size: Annotated[float, Field(ge=1e-6, le=1e7)] | None
    """Pixel size of the training chips in metres on the ground; None if it does not matter."""
    pixel_sides: tuple[float, float] | None = None
    """Height and width of these pixels in metres; None for squares."""
    chip_size: Pixels | None
    """Side of the training chips in pixels."""
    classes: tuple[ClassEntry, ...]
    """The K classes, by index."""
    val_threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of two classes: the probability from which a pixel is of the second one, with the highest F1-score of that class
    on the validation chips. None if it was not measured."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """Hashes of chips and settings, versions, seed."""
    measures: dict[str, Any] = Field(default_factory=dict)
    """Measures on the validation chips."""
    history: list[dict[str, Any]] = Field(default_factory=list)
    """One row per epoch of the training."""

    @model_validator(mode="after")
    def _require_two_classes_for_a_threshold(self) -> Self:
        if self.val_threshold is not None and len(self.classes) != 2:
            raise ValueError(f"val_threshold is of two classes, but there are {len(self.classes)}")
        return self

    @property
    def collapse(self) -> str:
        """Why the network is not usable, and what to do: its epoch finds one class at most on the validation chips.

        Empty where it finds two, where a threshold separates the two (`threshold_advice`), or where these chips have
        one class alone.
        """
        found, missed = self._found_and_missed()
        if not missed or self.threshold_advice:
            return ""
        return (
            f"Epoch {self.measures.get('epoch')}, whose weights the model has, finds no class"
            f"{f' but {found[0]}' if found else ''} on the validation chips: F1 of {listed(missed)} is 0. Train with "
            "more steps, a lower learning rate or a larger batch"
        )

    @property
    def threshold_advice(self) -> str:
        """Which threshold separates two classes of which the network finds one alone at 0.5; empty if none does.

        The F1-score of the second class at this threshold is above that of a map of the second class alone, by more
        than 0.1.
        """
        _, missed = self._found_and_missed()
        best = self.measures.get("val_threshold_f1")
        if not missed or self.val_threshold is None or best is None:
            return ""
        first, second = (self.measures[f"val_f1_{entry.name}"] for entry in self.classes)
        # Of a share p of the second class, a map of it alone has F1 2p / (1 + p). A network that finds the first class
        # alone has F1 2 (1 - p) / (2 - p) of that one, from which p follows.
        alone = second or 4 * (1 - first) / (4 - 3 * first)
        if best <= alone + _MARGIN:
            return ""
        return (
            f"At threshold 0.5, F1 of {missed[0]} is 0 on the validation chips; at {self.val_threshold:.3g}, F1 of "
            f"{self.classes[1].name} is {best:.3g}. Map with --threshold val"
        )

    def _found_and_missed(self) -> tuple[list[str], list[str]]:
        """Classes with an F1 above 0 and of 0 on the validation chips; none of both unless it finds one at most."""
        scores = {entry.name: self.measures.get(f"val_f1_{entry.name}") for entry in self.classes}
        missed = [name for name, f1 in scores.items() if f1 == 0]
        found = [name for name, f1 in scores.items() if f1]
        return ([], []) if len(found) > 1 or len(missed) + len(found) < 2 else (found, missed)

    @property
    def is_code(self) -> bool:
        """True if the architecture is "module:Class": its module runs when the network is built."""
        return ":" in self.architecture and not self.architecture.startswith("smp:")
