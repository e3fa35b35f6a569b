"""External networks: architectures of segmentation-models-pytorch, and any class that can be imported."""

import importlib
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from landscribe.errors import NetworkError
from landscribe.nn.encoders.stems import adapt_stem
from landscribe.nn.encoders.weights import first_line, read_weights
from landscribe.nn.segmentation import CLASSES, Segmentation
from landscribe.spec import nearest

SMP = "smp:"
"""Prefix of architectures of segmentation-models-pytorch."""
_REDUCTION = 32
# Names in other libraries of the arguments of `nn.build`.
_SYNONYMS = {
    "bands": ("bands", "in_channels", "in_chans", "n_channels"),
    "classes": ("classes", "num_classes", "n_classes", "out_channels"),
    "encoder": ("encoder", "backbone"),
}


class External(Segmentation):
    """An external network with one head; images of any size are padded for it.

    It maps (B, C, H, W), sides multiples of `reduction`, to logits (B, K, H, W).
    """

    def __init__(self, network: nn.Module, reduction: int, classes: int) -> None:
        super().__init__(reduction, {CLASSES: classes})
        self.network = network

    def forward_padded(self, images: Tensor) -> Tensor:
        """Logits of the network itself."""
        try:
            logits: Tensor = self.network(images)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise NetworkError(
                "this network's batch normalisation needs more than one image a step. Train with a batch of 2 or more."
            ) from error
        return logits


def is_external(architecture: str) -> bool:
    """True for "smp:Name" and "module:Class"."""
    return ":" in architecture


def build_external(
    architecture: str, *, bands: int, classes: int, encoder: str, weights: str | None,
    band_names: tuple[str, ...], **options: Any,
) -> Segmentation:  # fmt: skip
    """Build "smp:Name" or "module:Class": (B, C, H, W) to logits (B, K, H, W).

    A class is called with the options and with those of these arguments that it takes: bands (or in_channels, in_chans,
    n_channels), classes (or num_classes, n_classes, out_channels), encoder (or backbone), weights. Images are padded to
    a multiple of its attribute `reduction`, in pixels; 32 if it has none. A `Segmentation` is returned as it is, with
    its own heads; any other module has one head.

    Raises:
        NetworkError: the class cannot be imported or called, or does not return logits.
    """
    if architecture.startswith(SMP):
        built: nn.Module = _smp(architecture.removeprefix(SMP), bands, classes, encoder, weights, band_names, options)
    else:
        arguments = {"bands": bands, "classes": classes, "encoder": encoder, "weights": weights}
        built = _own(architecture, arguments, options)
    if isinstance(built, Segmentation):
        network: Segmentation = built
    else:
        network = External(built, int(getattr(built, "reduction", _REDUCTION)), classes)
    _require_logits(network, architecture, bands, classes)
    return network


def _own(architecture: str, arguments: dict[str, Any], options: dict[str, Any]) -> nn.Module:
    """An instance of the class "module:Class", called with those of the arguments that it takes."""
    network_class = import_class(architecture)
    parameters = inspect.signature(network_class).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    accepted: dict[str, Any] = {}
    for name, value in arguments.items():
        synonyms = _SYNONYMS.get(name, (name,))
        keyword = next((synonym for synonym in synonyms if synonym in parameters), synonyms[0] if takes_any else None)
        if keyword is not None:
            accepted[keyword] = value
    unknown = [name for name in options if name not in parameters and not takes_any]
    if unknown:
        raise NetworkError(f"{architecture} has no option '{unknown[0]}'{nearest(unknown[0], list(parameters))}")
    if arguments["weights"] is not None and "weights" not in accepted:
        raise NetworkError(f"{architecture} takes no weights, got '{arguments['weights']}'. Use weights = \"none\".")
    try:
        return network_class(**accepted, **options)
    except Exception as error:  # a user's class may raise anything
        raise NetworkError(f"{architecture} cannot be built with {accepted | options}: {first_line(error)}") from error


def _require_logits(network: Segmentation, architecture: str, bands: int, classes: int) -> None:
    """Run the network on one image; raise NetworkError unless it returns logits of the image's size."""
    side = 2 * network.reduction
    training = network.training
    try:
        with torch.inference_mode():
            logits: Any = network.eval()(torch.zeros(1, bands, side, side))
    except Exception as error:  # a user's class may raise anything
        raise NetworkError(
            f"{architecture} does not take images of {bands} bands and {side} x {side} pixels: {first_line(error)}"
        ) from error
    finally:
        network.train(training)
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (1, classes, side, side):
        raise NetworkError(
            f"{architecture} returned {shape} for an image of {bands} x {side} x {side}. Expected logits of shape "
            f"{(1, classes, side, side)}: one for each of the {classes} classes and each pixel."
        )


def import_class(architecture: str) -> type[nn.Module]:
    """Import the class "module:Class".

    Raises:
        NetworkError: the import fails, or the class is not a torch module.
    """
    module, _, name = architecture.partition(":")
    try:
        imported: Any = importlib.import_module(module)
        for part in name.split("."):
            imported = getattr(imported, part)
    except Exception as error:  # a user's module may raise anything
        raise NetworkError(
            f"the architecture '{architecture}' cannot be imported ({first_line(error)}). "
            "Expected module:Class. Install its package."
        ) from error
    if not (isinstance(imported, type) and issubclass(imported, nn.Module)):
        raise NetworkError(f"'{architecture}' is not a torch module. Expected a subclass of nn.Module.")
    return imported


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
    architectures = {
        key: value
        for key, value in vars(smp).items()
        if isinstance(value, type) and issubclass(value, smp.base.SegmentationModel)
    }
    if name not in architectures:
        raise NetworkError(f"unknown architecture '{SMP}{name}'{nearest(name, list(architectures))}")
    parameters = list(inspect.signature(architectures[name]).parameters)
    unknown = [option for option in options if option not in parameters]
    if unknown:
        raise NetworkError(f"{SMP}{name} has no option '{unknown[0]}'{nearest(unknown[0], parameters)}")
    try:
        network: Any = architectures[name](
            # Its own encoders have their own names; all other timm encoders have the prefix "tu-".
            encoder if encoder in smp.encoders.encoders else f"tu-{encoder}",
            encoder_weights="imagenet" if weights == "imagenet" else None,
            in_channels=bands if weights is None else 3,
            classes=classes,
            **options,
        )
    except (RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
        raise NetworkError(f"{SMP}{name} on '{encoder}' cannot be built: {first_line(error)}") from error
    if weights not in (None, "imagenet"):
        _load_encoder(network.encoder, str(weights))
    if weights is not None:
        adapt_stem(network.encoder, band_names or tuple(f"band {index}" for index in range(1, bands + 1)))
    built: nn.Module = network
    return built


def _load_encoder(encoder: Any, path: str) -> None:
    body = getattr(encoder, "model", encoder)
    state, expected = read_weights(path), body.state_dict()
    missing = [name for name in expected if name not in state or state[name].shape != expected[name].shape]
    if missing:
        raise NetworkError(
            f"weights '{path}' do not fit the encoder: {len(missing)} of its {len(expected)} tensors are missing or of "
            f'other shape ({", ".join(missing[:3])}). Use weights = "none", or a weights file of the same encoder.'
        )
    body.load_state_dict({name: state[name] for name in expected})
