"""Losses on logits. Each takes (B, K, H, W) logits and (B, H, W) labels of integers and gives a scalar.

K = 1 is a binary task with one logit (sigmoid, labels 0 and 1); K > 1 is softmax over classes. Pixels
labelled `ignore` take no part: their gradient is exactly zero. In the formulas p is the probability of a class at a
pixel, t its truth (0 or 1), and p_t the probability of the class that a pixel has.
"""

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Protocol

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor
from torch.nn import functional

from landscribe.errors import NetworkError
from landscribe.nn.segmentation import two_logits
from landscribe.spec import nearest

# Keeps the gradient of a power finite at 0.
_LEAST = 1e-6

NotNegative = Annotated[float, Field(ge=0, le=100)]
Positive = Annotated[float, Field(gt=0, le=100)]
Factor = Annotated[float, Field(gt=0, le=1e9)]
Share = Annotated[float, Field(ge=0, le=1)]
AboveZero = Annotated[float, Field(gt=0, le=1)]
"""A fraction above 0."""
BelowOne = Annotated[float, Field(ge=0, lt=1)]
"""A fraction below 1."""
Within = Annotated[float, Field(gt=0, lt=1)]
"""A fraction above 0 and below 1."""


class Loss(Protocol):
    """The signature of every entry of LOSSES."""

    def __call__(self, logits: Tensor, labels: Tensor, ignore: int = 255, weights: Tensor | None = None) -> Tensor:
        """Scalar loss.

        Args:
            logits: (B, K, H, W).
            labels: (B, H, W) integers, 0 to K-1 (0 and 1 for K = 1), or `ignore`; others are not checked.
            ignore: label of pixels that take no part.
            weights: (K,) class weights; (2,) for K = 1.
        """


# ---- one pixel at a time


def cross_entropy(
    logits: Tensor, labels: Tensor, ignore: int = 255, weights: Tensor | None = None, smoothing: BelowOne = 0.0
) -> Tensor:
    """Mean of `-log p_t` over the labelled pixels; the mean weighted by class with class weights.

    With label smoothing s the truth is 1 - s + s / K for a pixel's class and s / K for the others (K = 2 for one
    logit). Szegedy et al. 2016, arXiv:1512.00567.
    """
    logits, truth = _softmax_logits(logits), _fill_ignored(labels, ignore)
    losses = -logits.log_softmax(dim=1)
    chosen = losses.gather(1, truth.unsqueeze(1)).squeeze(1)
    if smoothing:
        chosen = (1 - smoothing) * chosen + smoothing * losses.mean(dim=1)
    return _pixel_mean(chosen, labels, ignore, weights)


def binary_cross_entropy(
    logits: Tensor, labels: Tensor, ignore: int = 255, weights: Tensor | None = None, smoothing: BelowOne = 0.0
) -> Tensor:
    """Each class against the rest: mean over labelled pixels and classes of `-t log p - (1 - t) log(1 - p)`.

    p is the sigmoid of a class's own logit; with label smoothing s, t is `t (1 - s) + s / 2`. The same as
    cross-entropy for one logit. Bishop 2006, "Pattern Recognition and Machine Learning", equation 4.90.
    """
    if logits.shape[1] == 1:
        return cross_entropy(logits, labels, ignore, weights, smoothing)
    truth = _one_hot(logits, _fill_ignored(labels, ignore)) * (1 - smoothing) + smoothing / 2
    losses = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return _pixel_mean(losses.mean(dim=1), labels, ignore, weights)


def focal(
    logits: Tensor, labels: Tensor, ignore: int = 255, weights: Tensor | None = None, gamma: NotNegative = 2.0
) -> Tensor:
    """Mean over the labelled pixels of `-(1 - p_t)^gamma log p_t`, so that easy pixels count less.

    Lin et al. 2017, "Focal Loss for Dense Object Detection", arXiv:1708.02002; its alpha are the class weights.
    """
    log_p = _softmax_logits(logits).log_softmax(dim=1)
    log_p_t = log_p.gather(1, _fill_ignored(labels, ignore).unsqueeze(1)).squeeze(1)
    return _pixel_mean(-_pow(1 - log_p_t.exp(), gamma) * log_p_t, labels, ignore, weights)


# ---- regions


def dice(logits: Tensor, labels: Tensor, ignore: int = 255, weights: Tensor | None = None) -> Tensor:
    """One minus the soft Dice coefficient, over all labelled pixels of the batch, mean over classes.

    For each class `1 - (2 sum(p t) + 1) / (sum(p) + sum(t) + 1)`. The ones keep a class that is absent from the
    batch at a loss that grows with its false positives. K = 1 counts the positive class alone.

    Milletari, Navab & Ahmadi 2016, "V-Net", arXiv:1606.04797.
    """
    tp, fp, fn = _soft_counts(logits, labels, ignore)
    index = (2 * tp + 1) / (2 * tp + fp + fn + 1)
    return _class_mean(1 - index, weights)


def jaccard(logits: Tensor, labels: Tensor, ignore: int = 255, weights: Tensor | None = None) -> Tensor:
    """One minus the soft Jaccard index (intersection over union), mean over classes; the IoU loss.

    For each class `1 - (sum(p t) + 1) / (sum(p) + sum(t) - sum(p t) + 1)` over the batch, with the ones as in `dice`.
    Rahman & Wang 2016, "Optimizing Intersection-Over-Union in Deep Neural Networks for Image Segmentation", ISVC.
    """
    return _class_mean(1 - _tversky_index(logits, labels, ignore, 1, 1), weights)


def focal_dice(
    logits: Tensor, labels: Tensor, ignore: int = 255, weights: Tensor | None = None, gamma: Positive = 0.75
) -> Tensor:
    """`(1 - D)^gamma`, mean over classes, with D the soft Dice coefficient of a class.

    Focal Tversky with equal weights for both kinds of error (Abraham & Khan 2019, arXiv:1810.07842).
    """
    tp, fp, fn = _soft_counts(logits, labels, ignore)
    index = (2 * tp + 1) / (2 * tp + fp + fn + 1)
    return _class_mean(_pow(1 - index, gamma), weights)


def tversky(
    logits: Tensor, labels: Tensor, ignore: int = 255, weights: Tensor | None = None,
    alpha: Positive = 0.3, beta: Positive = 0.7,
) -> Tensor:  # fmt: skip
    """`1 - T`, mean over classes, with `T = (TP + 1) / (TP + alpha FP + beta FN + 1)` of a class.

    TP is `sum(p t)`, FP `sum(p (1 - t))`, FN `sum((1 - p) t)` over the batch. A beta above alpha finds more at the
    price of false alarms. Salehi, Erdogmus & Gholipour 2017, arXiv:1706.05721.
    """
    return _class_mean(1 - _tversky_index(logits, labels, ignore, alpha, beta), weights)


def focal_tversky(
    logits: Tensor, labels: Tensor, ignore: int = 255, weights: Tensor | None = None,
    alpha: Positive = 0.3, beta: Positive = 0.7, gamma: Positive = 0.75,
) -> Tensor:  # fmt: skip
    """`(1 - T)^gamma`, mean over classes, with T as in `tversky`; a gamma below 1 raises the gradient as T nears 1.

    Abraham & Khan 2019, "A Novel Focal Tversky Loss Function", arXiv:1810.07842 (whose gamma is 1 / this one).
    """
    return _class_mean(_pow(1 - _tversky_index(logits, labels, ignore, alpha, beta), gamma), weights)


def unified_focal(
    logits: Tensor, labels: Tensor, ignore: int = 255, weights: Tensor | None = None,
    lam: Share = 0.5, gamma: AboveZero = 0.5, delta: Within = 0.6,
) -> Tensor:  # fmt: skip
    """`lam` times a focal cross-entropy plus `1 - lam` times a focal Tversky loss, with one gamma for both.

    The first is the mean over labelled pixels of `-(1 - p_t)^(1 - gamma) log p_t`, the second the mean over classes
    of `(1 - T)^gamma` with `T = (TP + 1) / (TP + delta FN + (1 - delta) FP + 1)`. gamma lies in (0, 1]; at 1 neither
    part is focal. lam = 1 is a cross-entropy loss; lam = 0 with delta = 0.5 is a Dice loss.

    Yeung et al. 2022, "Unified Focal loss", arXiv:2102.04525, as generalised to several classes by Maxwell et al.
    2024 in geodl. In the paper delta also weighs the first part; use class weights for that.
    """
    pixels = focal(logits, labels, ignore, weights, gamma=1 - gamma)
    regions = focal_tversky(logits, labels, ignore, weights, alpha=1 - delta, beta=delta, gamma=gamma)
    return lam * pixels + (1 - lam) * regions


def lovasz(logits: Tensor, labels: Tensor, ignore: int = 255, weights: Tensor | None = None) -> Tensor:
    """The Lovász extension of `1 - IoU` of each class, mean over the classes that occur in the batch.

    Errors `|t - p|`, sorted downwards, are weighted by how much each adds to one minus the Jaccard index. K = 1 is
    the hinge variant, with errors `max(0, 1 - (2t - 1) logit)`. Berman, Triki & Blaschko 2018, arXiv:1705.08790.
    """
    # An ignored pixel has error and truth 0, and an absent class weight 0.
    labelled = (labels != ignore).unsqueeze(1)
    truth = _one_hot(logits, _fill_ignored(labels, ignore)) * labelled
    is_single = logits.shape[1] == 1
    errors = functional.relu(1 - (2 * truth - 1) * logits) if is_single else (truth - logits.softmax(dim=1)).abs()
    by_class = [values.movedim(1, 0).flatten(1) for values in (errors * labelled, truth)]
    of_class = _lovasz
    if not _waits_for_numbers(logits):
        # Other pixels and classes need not be sorted.
        by_class = [values[:, labelled.flatten()] for values in by_class]
        of_class = _lovasz if is_single else _lovasz_if_present
    losses = torch.stack([of_class(*both) for both in zip(*by_class, strict=True)])
    if is_single:
        return losses[0]
    present = truth.amax(dim=(0, 2, 3))
    return _class_mean(losses, present if weights is None else present * weights)


def _waits_for_numbers(logits: Tensor) -> bool:
    """True on a GPU, which waits where the shape of a tensor depends on numbers in another."""
    return logits.device.type != "cpu"


def _lovasz_if_present(errors: Tensor, truth: Tensor) -> Tensor:
    return _lovasz(errors, truth) if truth.any() else errors.sum() * 0.0


def _lovasz(errors: Tensor, truth: Tensor) -> Tensor:
    """Errors (N,) of one class and truth (N,) to a scalar: algorithm 1 of the paper."""
    sorted_errors, order = errors.sort(descending=True)
    ordered = truth[order]
    intersection = ordered.sum() - ordered.cumsum(0)
    union = ordered.sum() + (1 - ordered).cumsum(0)
    jaccard = 1 - intersection / union
    steps = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
    return (sorted_errors * steps).sum()


# ---- parts of several losses


def _fill_ignored(labels: Tensor, ignore: int) -> Tensor:
    """Labels as indices, with class 0 in place of `ignore`."""
    # As an index, a tensor of uint8 is a mask.
    return labels.masked_fill(labels == ignore, 0).long()


def _softmax_logits(logits: Tensor) -> Tensor:
    """The two logits of a single one; others stay as they are."""
    return two_logits(logits) if logits.shape[1] == 1 else logits


def _one_hot(logits: Tensor, truth: Tensor) -> Tensor:
    """(B, K, H, W) of 0 and 1; the positive class alone for K = 1."""
    if logits.shape[1] == 1:
        return truth.unsqueeze(1).to(logits.dtype)
    # `functional.one_hot` takes eight bytes for each class and pixel.
    classes = torch.arange(logits.shape[1], device=truth.device).view(-1, 1, 1)
    return (truth.unsqueeze(1) == classes).to(logits.dtype)


def _pow(x: Tensor, exponent: float) -> Tensor:
    """A power of x with a finite gradient at 0."""
    return x.clamp(min=_LEAST) ** exponent


def _pixel_mean(losses: Tensor, labels: Tensor, ignore: int, weights: Tensor | None) -> Tensor:
    """Mean of (B, H, W) over the labelled pixels, weighted by class; 0 without labelled pixels."""
    pixel_weights = (labels != ignore).to(losses.dtype)
    if weights is not None:
        pixel_weights = pixel_weights * weights.to(losses.dtype)[_fill_ignored(labels, ignore)]
    return (losses * pixel_weights).sum() / pixel_weights.sum().clamp(min=torch.finfo(losses.dtype).tiny)


def _class_mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted mean of (classes,), 0 without weights; with K = 1 the positive class is the only one and needs none."""
    if weights is None or len(losses) != len(weights):
        return losses.mean()
    return (losses * weights).sum() / weights.sum().clamp(min=torch.finfo(losses.dtype).tiny)


def _soft_counts(logits: Tensor, labels: Tensor, ignore: int) -> tuple[Tensor, Tensor, Tensor]:
    """Soft true positives, false positives and false negatives of each class over the batch: (classes,) each."""
    labelled = (labels != ignore).unsqueeze(1)
    truth = _one_hot(logits, _fill_ignored(labels, ignore)) * labelled
    probabilities = (logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)) * labelled
    pixels = (0, 2, 3)
    tp = (probabilities * truth).sum(pixels)
    return tp, probabilities.sum(pixels) - tp, truth.sum(pixels) - tp


def _tversky_index(logits: Tensor, labels: Tensor, ignore: int, alpha: float, beta: float) -> Tensor:
    tp, fp, fn = _soft_counts(logits, labels, ignore)
    return (tp + 1) / (tp + alpha * fp + beta * fn + 1)


LOSSES: dict[str, Loss] = {
    "ce": cross_entropy,
    "bce": binary_cross_entropy,
    "focal": focal,
    "dice": dice,
    "jaccard": jaccard,
    "focal_dice": focal_dice,
    "tversky": tversky,
    "focal_tversky": focal_tversky,
    "unified_focal": unified_focal,
    "lovasz": lovasz,
}

SYNONYMS = {
    "iou": "jaccard", "softiou": "jaccard", "crossentropy": "ce", "categoricalcrossentropy": "ce",
    "softmaxcrossentropy": "ce", "xent": "ce", "nll": "ce", "binarycrossentropy": "bce", "bcewithlogits": "bce",
    "softdice": "dice", "lovaszsoftmax": "lovasz",
}  # fmt: skip
"""Other names of losses, without "loss", hyphens and underscores."""

_NUMBER = r"[0-9.]+(?:e-?[0-9]+)?"
_TERM = re.compile(
    rf"\s*(?:(?P<factor>{_NUMBER})\s*\*\s*)?(?P<name>[a-z][a-z_-]*)\s*(?:\((?P<settings>[^()]*)\))?\s*"
    rf"(?:\*\s*(?P<behind>{_NUMBER})\s*)?",
    re.IGNORECASE,
)
_SETTING = re.compile(rf"\s*(?P<name>[a-z]+)\s*=\s*(?P<value>{_NUMBER})\s*", re.IGNORECASE)
_COMMON = ("logits", "labels", "ignore", "weights")


def weighted_sum(text: str) -> Loss:
    """Parse a loss, or a weighted sum of losses such as "0.5*dice + focal(gamma=3)".

    Raises:
        NetworkError: an unknown name or setting, or a text that is not a sum of losses.
    """
    terms = [_term(part, text) for part in re.split(r"\+(?![^(]*\))", text)]

    def total(logits: Tensor, labels: Tensor, ignore: int = 255, weights: Tensor | None = None) -> Tensor:
        return torch.stack([factor * loss(logits, labels, ignore, weights) for factor, loss in terms]).sum()

    return total


def _term(part: str, text: str) -> tuple[float, Callable[..., Tensor]]:
    match = _TERM.fullmatch(part)
    factors = [] if match is None else [match[group] for group in ("factor", "behind") if match[group]]
    if match is None or len(factors) > 1 or not all(map(_is_number, factors)):
        raise NetworkError(f"loss '{text}' is not a sum of losses. Write it like '0.5*dice + 0.5*focal(gamma=3)'.")
    name = _known_name(match["name"])
    loss: Callable[..., Tensor] = LOSSES[name]
    factor = _in_range(float(factors[0]) if factors else 1.0, Factor, f"the factor of '{name}' in loss '{text}'")
    return factor, partial(loss, **_settings(match["settings"], name, loss))


def _known_name(written: str) -> str:
    """The name in `LOSSES` of a loss, such as focal_dice for FocalDiceLoss or cross-entropy for ce.

    Raises:
        NetworkError: there is none.
    """
    names = {name.replace("_", ""): name for name in LOSSES} | SYNONYMS
    bare = re.sub("[_-]", "", written.lower()).removesuffix("loss")
    if bare not in names:
        raise NetworkError(f"unknown loss '{written}'{nearest(written.lower(), list(LOSSES))}")
    return names[bare]


def _settings(text: str | None, name: str, loss: Callable[..., Any]) -> dict[str, float]:
    ranges = {
        setting: parameter.annotation
        for setting, parameter in inspect.signature(loss).parameters.items()
        if setting not in _COMMON
    }
    settings: dict[str, float] = {}
    for part in text.split(",") if text and text.strip() else []:
        match = _SETTING.fullmatch(part)
        if match is None or not _is_number(match["value"]):
            raise NetworkError(f"'{part.strip()}' in loss '{name}' is not NAME=NUMBER. Write it like focal(gamma=3).")
        setting = match["name"]
        if setting not in ranges:
            hint = nearest(setting, list(ranges)) if ranges else ". It has none."
            raise NetworkError(f"loss '{name}' has no setting '{setting}'{hint}")
        settings[setting] = _in_range(float(match["value"]), ranges[setting], f"'{setting}' of loss '{name}'")
    return settings


def _in_range(value: float, allowed: Any, name: str) -> float:
    """The value, if it is in the range of the annotated type `allowed`."""
    try:
        return float(TypeAdapter(allowed).validate_python(value))
    except ValidationError as error:
        expected = error.errors()[0]["msg"].removeprefix("Input should be ")
        raise NetworkError(f"{name} is {value:g}. Expected a number {expected}.") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
