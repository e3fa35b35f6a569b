"""Layers of a map: how each is computed from the network's logits, and how it is stored.

All are reduced on the device, so that what travels back is small.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from landscribe.geo.classes import IGNORE, Classes

STEPS = 254
"""Shares from 0 to 1 are stored as uint8 0 to 254, nodata 255."""

HeadLogits = dict[str | None, Tensor]
"""Logits by the name of their head; None names the main head, whose channels are the classes."""


@dataclass(frozen=True)
class Layer:
    """One file of a map."""

    kind: str
    """Names its parts."""
    output: str
    """The field of OutputPaths with its file."""
    reduce: Callable[..., Tensor]
    """Logits of each head, (channels, H, W), to what is stored, (bands, H, W)."""
    dtype: str
    nodata: float
    scale: float = 1.0
    """What a stored number is multiplied by to give its meaning."""
    resampling: str = "AVERAGE"
    """Of overviews."""
    heads: tuple[str | None, ...] = (None,)
    """Names of the network's heads from whose logits it is computed; None for the main head."""
    bands: tuple[str, ...] | None = None
    """Names of its bands; None for one band for each class."""

    def band_names(self, classes: Classes) -> tuple[str, ...]:
        """Names of the bands of its file, for a map of these classes."""
        return self.bands or classes.names

    def of(self, logits: HeadLogits) -> Tensor:
        """The stored numbers (bands, H, W), for logits by head."""
        return self.reduce(*(logits[head] for head in self.heads))


def head_probabilities(logits: Tensor) -> Tensor:
    """Probabilities of one head's logits (..., channels, H, W): softmax over the channels, sigmoid of a single one.

    >>> head_probabilities(torch.zeros(4, 1, 1)).flatten().tolist(), head_probabilities(torch.zeros(1, 1, 1)).item()
    ([0.25, 0.25, 0.25, 0.25], 0.5)
    """
    return logits.sigmoid() if logits.shape[-3] == 1 else logits.softmax(dim=-3)


def head_logits(probabilities: Tensor) -> Tensor:
    """Logits of one head's probabilities (..., channels, H, W).

    Law: `head_probabilities(head_logits(probabilities))` is `probabilities`, up to rounding.
    """
    if probabilities.shape[-3] == 1:
        # Rounding takes a mean beyond 0 or 1, where no logit is finite.
        return probabilities.logit(torch.finfo(probabilities.dtype).eps)
    return probabilities.log()


def _class_index(logits: Tensor) -> Tensor:
    """The class with the highest score."""
    # As argmax, which on a CPU takes fifteen times as long along this axis.
    return logits.max(dim=0, keepdim=True).indices.to(torch.uint8)


def _probabilities(logits: Tensor) -> Tensor:
    return logits.float().softmax(dim=0)


def _index_from(logits: Tensor, *, threshold: float) -> Tensor:
    """1 where the probability of the second of two classes is at least the threshold, else 0."""
    return (_probabilities(logits)[1:] >= threshold).to(torch.uint8)


def _in_steps(shares: Tensor) -> Tensor:
    return (shares * STEPS).round().to(torch.uint8)


def _uncertainty(logits: Tensor) -> Tensor:
    """Shannon's entropy of the class probabilities, as a share of the highest that so many classes can have."""
    shares = _probabilities(logits)
    entropy = torch.special.entr(shares).sum(dim=0, keepdim=True)
    return (entropy / math.log(max(2, len(logits)))).clamp(0, 1)


def _stepped_probabilities(logits: Tensor) -> Tensor:
    return _in_steps(_probabilities(logits))


def _stepped_uncertainty(logits: Tensor) -> Tensor:
    return _in_steps(_uncertainty(logits))


def _object_probabilities(classes: Tensor, border: Tensor, inner: Tensor) -> Tensor:
    """Probabilities of a segment (any class but the first, the background), a border and an inner part."""
    segment = 1 - _probabilities(classes)[:1]
    return _in_steps(torch.cat([segment, border.float().sigmoid(), inner.float().sigmoid()]))


CLASS = Layer("class", "map", _class_index, "uint8", IGNORE, resampling="MODE", bands=("class",))
"""Class indices while they are computed, class values in files."""


def class_layer(threshold: float | None = None) -> Layer:
    """CLASS, or that of two classes with a threshold other than the higher probability.

    Law: the class is the second one where EXACT_PROBABILITY of it is at least the threshold, compared in float32. With
    a threshold of 0.5 it is that of CLASS, except where both probabilities are 0.5: these pixels get the second class.

    >>> logits = torch.tensor([[[0.0, 0.0]], [[-1.0, 1.0]]])  # probabilities of the second class: 0.27 and 0.73
    >>> CLASS.reduce(logits).tolist(), class_layer(0.2).reduce(logits).tolist()
    ([[[0, 1]]], [[[1, 1]]])
    """
    return CLASS if threshold is None else replace(CLASS, reduce=partial(_index_from, threshold=threshold))


PROBABILITY = Layer("probability", "probabilities", _stepped_probabilities, "uint8", IGNORE, scale=1 / STEPS)
"""One band for each class."""
EXACT_PROBABILITY = Layer("probability", "probabilities", _probabilities, "float32", math.nan)
UNCERTAINTY = Layer(
    "uncertainty", "uncertainty", _stepped_uncertainty, "uint8", IGNORE, scale=1 / STEPS, bands=("uncertainty",)
)
"""0 where one class is certain, 1 where all are as likely."""

OBJECT_BANDS = ("segment", "border", "inner")
"""Of OBJECT_PROBABILITY."""
OBJECT_PROBABILITY = Layer(
    "object_probability", "object_probabilities", _object_probabilities, "uint8", IGNORE, scale=1 / STEPS,
    heads=(None, "border", "inner"), bands=OBJECT_BANDS,
)  # fmt: skip
"""Of networks with the heads border and inner, such as UNet-ID."""

LayerArrays = dict[str, NDArray[Any]]
"""What a unit's kept part holds, by the layers' kinds: (bands, height, width), nodata outside the area of interest."""
