"""Networks from elsewhere: architectures of segmentation-models-pytorch, and any class that can be imported."""

import importlib
import inspect
from typing import Any

from torch import Tensor, nn

from landscribe.errors import NetworkError
from landscribe.nn.segmentation import Segmentation
from landscribe.nn.stems import adapt_stem
from landscribe.nn.weights import read_weights
from landscribe.spec import nearest

SMP = "smp:"
"""Prefix of architectures of segmentation-models-pytorch."""
_REDUCTION = 32
# How other libraries name what `nn.build` calls bands and classes.
_SYNONYMS = {
    "bands": ("bands", "in_channels", "in_chans", "n_channels"),
    "classes": ("classes", "num_classes", "n_classes", "out_channels"),
    "encoder": ("encoder", "backbone"),
}


class External(Segmentation):
    """A network from elsewhere, (B, C, H, W) of whole cells to logits of that size, made to take any size."""

    def __init__(self, network: nn.Module, reduction: int) -> None:
        super().__init__(reduction)
        self.network = network

    def predicted(self, images: Tensor) -> Tensor:
        """Logits of the network as it is."""
        logits: Tensor = self.network(images)
        return logits


def is_external(architecture: str) -> bool:
    """True for "smp:Name" and "module:Class"."""
    return ":" in architecture


def build_external(
    architecture: str, *, bands: int, classes: int, encoder: str, weights: str | None,
    band_names: tuple[str, ...], **options: Any,
) -> External:  # fmt: skip
    """Make "smp:Name" or "module:Class".

    A class is called with those of bands (or in_channels, in_chans, n_channels), classes (or num_classes, n_classes,
    out_channels), encoder (or backbone) and weights that it takes, and with the options. Its attribute `reduction`,
    if it has one, says to a multiple of how many pixels images are padded; 32 otherwise.

    Raises:
        NetworkError: it cannot be imported or made.
    """
    if architecture.startswith(SMP):
        return _smp(architecture.removeprefix(SMP), bands, classes, encoder, weights, band_names, options)
    made = imported(architecture)
    known = inspect.signature(made).parameters
    given: dict[str, Any] = {"bands": bands, "classes": classes, "encoder": encoder, "weights": weights}
    taken = {
        synonym: value
        for name, value in given.items()
        for synonym in [next((word for word in _SYNONYMS.get(name, (name,)) if word in known), None)]
        if synonym is not None
    }
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    odd = [name for name in options if name not in known and not takes_any]
    if odd:
        raise NetworkError(f"{architecture} has no option '{odd[0]}'{nearest(odd[0], list(known))}")
    if weights is not None and "weights" not in taken:
        raise NetworkError(f"{architecture} takes no weights, but '{weights}' was given. Use weights = \"none\".")
    network = made(**taken, **options)
    return External(network, int(getattr(network, "reduction", _REDUCTION)))


def imported(architecture: str) -> type[nn.Module]:
    """The class that "module:Class" names.

    Raises:
        NetworkError: there is none on this machine, or it is no torch module.
    """
    module, _, name = architecture.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise NetworkError(
            f"the architecture '{architecture}' is not on this machine ({error}). "
            "Install what it is from; module:Class was expected."
        ) from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise NetworkError(f"'{architecture}' is no torch module and is not built.")
    return found


def _smp(
    name: str, bands: int, classes: int, encoder: str, weights: str | None, band_names: tuple[str, ...],
    options: dict[str, Any],
) -> External:  # fmt: skip
    try:
        smp = importlib.import_module("segmentation_models_pytorch")
    except ImportError as error:
        raise NetworkError(
            f"'{SMP}{name}' needs segmentation-models-pytorch, which is not installed. "
            'Run: pip install "landscribe[smp]"'
        ) from error
    known = {
        called: found
        for called, found in vars(smp).items()
        if isinstance(found, type) and issubclass(found, smp.base.SegmentationModel)
    }
    if name not in known:
        raise NetworkError(f"unknown architecture '{SMP}{name}'{nearest(name, list(known))}")
    # Its own encoders have their names; every other of timm's has a prefix there.
    theirs = encoder if encoder in smp.encoders.encoders else f"tu-{encoder}"
    odd = [option for option in options if option not in inspect.signature(known[name]).parameters]
    if odd:
        raise NetworkError(
            f"{SMP}{name} has no option '{odd[0]}'{nearest(odd[0], list(inspect.signature(known[name]).parameters))}"
        )
    try:
        network: Any = known[name](
            theirs,
            encoder_weights="imagenet" if weights == "imagenet" else None,
            in_channels=bands if weights is None else 3,
            classes=classes,
            **options,
        )
        if weights not in (None, "imagenet"):
            _load_encoder(network, str(weights))
    except (RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NetworkError(f"{SMP}{name} on '{encoder}' cannot be built: {reason}") from error
    if weights is not None:
        adapt_stem(network.encoder, band_names or tuple(f"band {number}" for number in range(1, bands + 1)))
    return External(network, _REDUCTION)


def _load_encoder(network: Any, path: str) -> None:
    body = network.encoder if not hasattr(network.encoder, "model") else network.encoder.model
    state = read_weights(path)
    missing = [name for name in body.state_dict() if name not in state]
    if missing:
        raise ValueError(f"weights '{path}' lack {len(missing)} tensors ({', '.join(missing[:3])})")
    body.load_state_dict(state, strict=False)
