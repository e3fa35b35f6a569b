"""Losses on logits. Each takes (B, K, H, W) logits and (B, H, W) int64 labels and gives a scalar.

K = 1 is a binary task with one logit (sigmoid, labels 0 and 1); K > 1 is softmax over classes. Pixels
labelled `ignore` take no part: their gradient is exactly zero.
"""

import re
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from landscribe.errors import NetworkError
from landscribe.spec import nearest


class Loss(Protocol):
    """What every entry of LOSSES is."""

    def __call__(self, logits: Tensor, labels: Tensor, ignore: int = 255, weights: Tensor | None = None) -> Tensor:
        """Scalar loss.

        Args:
            logits: (B, K, H, W).
            labels: (B, H, W) int64, 0 to K-1 (0 and 1 for K = 1), or `ignore`.
            ignore: label of pixels that take no part.
            weights: (K,) class weights; (2,) for K = 1.
        """


def cross_entropy(logits: Tensor, labels: Tensor, ignore: int = 255, weights: Tensor | None = None) -> Tensor:
    """Mean negative log likelihood of the labelled pixels; weighted mean with class weights."""
    known = labels != ignore
    if not known.any():
        return logits.sum() * 0.0
    if logits.shape[1] > 1:
        return functional.cross_entropy(logits, labels, weight=weights, ignore_index=ignore)
    truth = labels[known]
    pixel_weights = None if weights is None else weights[truth]
    total = functional.binary_cross_entropy_with_logits(
        logits[:, 0][known], truth.to(logits.dtype), weight=pixel_weights, reduction="sum"
    )
    return total / (known.sum() if pixel_weights is None else pixel_weights.sum())


def dice(logits: Tensor, labels: Tensor, ignore: int = 255, weights: Tensor | None = None) -> Tensor:
    """One minus the soft Dice coefficient, over all labelled pixels of the batch, mean over classes.

    For class k with probabilities p and truth t in {0, 1}:
    `1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1)`. The ones keep a class that is absent from the batch at
    a loss that grows with its false positives. K = 1 counts the positive class alone.

    Reference: Milletari, Navab & Ahmadi 2016, "V-Net", arXiv:1606.04797.
    """
    known = (labels != ignore).unsqueeze(1)
    truth, probabilities = _truth_and_probabilities(logits, labels.masked_fill(~known[:, 0], 0))
    truth, probabilities = truth * known, probabilities * known
    pixels = (0, 2, 3)
    overlap = (probabilities * truth).sum(pixels)
    sizes = probabilities.sum(pixels) + truth.sum(pixels)
    losses = 1 - (2 * overlap + 1) / (sizes + 1)
    if weights is None or logits.shape[1] == 1:
        return losses.mean()
    return (losses * weights).sum() / weights.sum()


def _truth_and_probabilities(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """One-hot truth and probabilities, both (B, K, H, W)."""
    if logits.shape[1] == 1:
        return labels.unsqueeze(1).to(logits.dtype), logits.sigmoid()
    one_hot = functional.one_hot(labels, logits.shape[1]).movedim(-1, 1)
    return one_hot.to(logits.dtype), logits.softmax(dim=1)


LOSSES: dict[str, Loss] = {
    "ce": cross_entropy,
    "dice": dice,
}

_TERM = re.compile(r"\s*(?:(?P<factor>[0-9.]+)\s*\*\s*)?(?P<name>[a-z_]+)\s*")


def weighted_sum(text: str) -> Loss:
    """The loss that a text such as "0.5*dice + 0.5*ce" names.

    Raises:
        NetworkError: an unknown name, or a text that is no sum.
    """
    terms: list[tuple[float, Callable[..., Tensor]]] = []
    for part in text.split("+"):
        match = _TERM.fullmatch(part)
        if match is None:
            raise NetworkError(f"loss '{text}' is no sum of losses. Write it like '0.5*dice + 0.5*ce'.")
        if match["name"] not in LOSSES:
            raise NetworkError(f"unknown loss '{match['name']}'{nearest(match['name'], list(LOSSES))}")
        terms.append((float(match["factor"] or 1), LOSSES[match["name"]]))

    def total(logits: Tensor, labels: Tensor, ignore: int = 255, weights: Tensor | None = None) -> Tensor:
        return torch.stack([factor * loss(logits, labels, ignore, weights) for factor, loss in terms]).sum()

    return total
