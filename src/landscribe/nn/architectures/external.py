"""Networks from elsewhere: architectures of segmentation-models-pytorch, and any class that can be imported."""

import importlib
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from landscribe.errors import NetworkError
from landscribe.nn.encoders.stems import adapt_stem
from landscribe.nn.encoders.weights import read_weights
from landscribe.nn.segmentation import Segmentation
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
        try:
            logits: Tensor = self.network(images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise NetworkError(
                "this network normalises over a single pixel, which one image a step is too few for. "
                "Train with a batch of 2 or more."
            ) from error
        return logits


def is_external(architecture: str) -> bool:
    """True for "smp:Name" and "module:Class"."""
    return ":" in architecture


def build_external(
    architecture: str, *, bands: int, classes: int, encoder: str, weights: str | None,
    band_names: tuple[str, ...], **options: Any,
) -> Segmentation:  # fmt: skip
    """Make "smp:Name" or "module:Class".

    A class is called with those of bands (or in_channels, in_chans, n_channels), classes (or num_classes, n_classes,
    out_channels), encoder (or backbone) and weights that it takes, and with the options. Its attribute `reduction`,
    if it has one, says to a multiple of how many pixels images are padded; 32 otherwise. A `Segmentation` stays what
    it is.

    Raises:
        NetworkError: it cannot be imported or made, or gives something other than logits.
    """
    if architecture.startswith(SMP):
        made: nn.Module = _smp(architecture.removeprefix(SMP), bands, classes, encoder, weights, band_names, options)
    else:
        given = {"bands": bands, "classes": classes, "encoder": encoder, "weights": weights}
        made = _own(architecture, given, options)
    network = made if isinstance(made, Segmentation) else External(made, int(getattr(made, "reduction", _REDUCTION)))
    _require_logits(network, architecture, bands, classes)
    return network


def _own(architecture: str, given: dict[str, Any], options: dict[str, Any]) -> nn.Module:
    """A class that can be imported, called with what it takes."""
    made = imported(architecture)
    known = inspect.signature(made).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    taken: dict[str, Any] = {}
    for name, value in given.items():
        words = _SYNONYMS.get(name, (name,))
        found = next((word for word in words if word in known), words[0] if takes_any else None)
        if found is not None:
            taken[found] = value
    odd = [name for name in options if name not in known and not takes_any]
    if odd:
        raise NetworkError(f"{architecture} has no option '{odd[0]}'{nearest(odd[0], list(known))}")
    if given["weights"] is not None and "weights" not in taken:
        raise NetworkError(
            f"{architecture} takes no weights, but '{given['weights']}' was given. Use weights = \"none\"."
        )
    try:
        return made(**taken, **options)
    except Exception as error:  # whatever somebody else's code raises
        raise NetworkError(f"{architecture} cannot be made with {taken | options}: {_reason(error)}") from error


def _require_logits(network: Segmentation, architecture: str, bands: int, classes: int) -> None:
    """One image through the network: what comes out must be logits of its size."""
    side = 2 * network.reduction
    training = network.training
    try:
        with torch.inference_mode():
            logits: Any = network.eval()(torch.zeros(1, bands, side, side))
    except Exception as error:  # whatever somebody else's code raises
        raise NetworkError(
            f"{architecture} does not take images of {bands} bands and {side} x {side} pixels: {_reason(error)}"
        ) from error
    finally:
        network.train(training)
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (1, classes, side, side):
        raise NetworkError(
            f"{architecture} gave {shape} for an image of {bands} x {side} x {side}. Logits of shape "
            f"{(1, classes, side, side)} were expected: one for each of the {classes} classes and each pixel."
        )


def _reason(error: Exception) -> str:
    said = str(error).strip()
    return said.splitlines()[0] if said else type(error).__name__


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
    except Exception as error:  # a module of somebody's own may fail in any way
        raise NetworkError(
            f"the architecture '{architecture}' is not on this machine ({_reason(error)}). "
            "Install what it is from; module:Class was expected."
        ) from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise NetworkError(f"'{architecture}' is no torch module and is not built.")
    return found


def _smp(
    name: str, bands: int, classes: int, encoder: str, weights: str | None, band_names: tuple[str, ...],
    options: dict[str, Any],
) -> nn.Module:  # fmt: skip
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
    except (RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
        raise NetworkError(f"{SMP}{name} on '{encoder}' cannot be built: {_reason(error)}") from error
    if weights not in (None, "imagenet"):
        _load_encoder(network.encoder, str(weights))
    if weights is not None:
        adapt_stem(network.encoder, band_names or tuple(f"band {number}" for number in range(1, bands + 1)))
    made: nn.Module = network
    return made


def _load_encoder(encoder: Any, path: str) -> None:
    body = getattr(encoder, "model", encoder)
    state, ours = read_weights(path), body.state_dict()
    odd = [name for name in ours if name not in state or state[name].shape != ours[name].shape]
    if odd:
        raise NetworkError(
            f"weights '{path}' do not fit the encoder: {len(odd)} of its {len(ours)} tensors are missing or of another "
            f'shape ({", ".join(odd[:3])}). Use weights = "none", or a file of weights of this very encoder.'
        )
    body.load_state_dict({name: state[name] for name in ours})
