"""External networks: architectures of segmentation-models-pytorch, and any class that can be imported."""

import copy
import importlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from landscribe.errors import NetworkError, counted, first_line
from landscribe.nn.encoders.stems import adapt_stem
from landscribe.nn.encoders.weights import Weights, read_encoder
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
# Arguments of other libraries by which a constructor downloads weights, with the value for none.
_NO_WEIGHTS = {
    "weights": None, "encoder_weights": None, "weights_backbone": None, "pretrained": False,
    "pretrained_backbone": False,
}  # fmt: skip
# Functions by which a network returns probabilities, and those behind them that change nothing of that, as autograd
# names them.
_ACTIVATIONS = {"SigmoidBackward": "sigmoid", "SoftmaxBackward": "softmax"}
_AFTERWARDS = (
    "SliceBackward", "AliasBackward", "CloneBackward", "ViewBackward", "Upsample", "PermuteBackward", "ToCopyBackward",
)  # fmt: skip
_ON_LOGITS = (nn.Identity, nn.Sigmoid, nn.Softmax, nn.LogSoftmax)
"""Activations of segmentation-models-pytorch whose input is logits."""


class External(Segmentation):
    """An external network with one head; images of any size are padded for it.

    It maps (B, C, H, W), sides multiples of `reduction`, to logits (B, K, H, W).
    """

    def __init__(self, network: nn.Module, reduction: int, classes: int) -> None:
        super().__init__(reduction, {CLASSES: classes})
        self.network = network
        self.training = network.training

    def forward_padded(self, images: Tensor) -> Tensor:
        """Logits of the network itself."""
        return main_logits(self.network(images))


def main_logits(output: Any) -> Tensor:
    """The logits in the output of a network: a tensor, or the only one (B, K, H, W) in a list or dict.

    Raises:
        NetworkError: there is none, or there are several and none is called "out".
    """
    if isinstance(output, Mapping) and isinstance(output.get("out"), Tensor):
        return output["out"]
    parts = (
        [*output.values()] if isinstance(output, Mapping) else output if isinstance(output, (list, tuple)) else [output]
    )
    tensors = [part for part in parts if isinstance(part, Tensor) and part.ndim == 4]
    if len(tensors) != 1:
        names = f" ({', '.join(map(str, output))})" if isinstance(output, Mapping) else ""
        raise NetworkError(
            f"the network returned a {type(output).__name__}{names} with {len(tensors)} tensors (B, K, H, W). Expected "
            'one of logits, or one called "out". Wrap the network in a module that returns its logits.'
        )
    return tensors[0]


def with_class_logits(network: nn.Module, *, bands: int, classes: int) -> nn.Module:
    """A network that returns one tensor of logits, one for each class; other networks are wrapped.

    One logit stands for two classes (`Segmentation.for_two_classes`), and a network of segmentation-models-pytorch
    becomes that of `nn.build("smp:Name")`, without its activation. A network that is not a `Segmentation` is tried on
    one image; if the trial fails, it is returned as it is.

    Args:
        network: any network.
        bands: number C of bands.
        classes: number K of classes.

    Raises:
        NetworkError: logits of another number of classes, several tensors of which none is called "out", or
            probabilities in place of logits.
    """
    if not isinstance(network, Segmentation):
        network = _as_segmentation(network, bands, classes)
    channels = network.head_channels[network.main_head] if isinstance(network, Segmentation) else None
    _require_classes(channels, classes)
    return network.for_two_classes() if isinstance(network, Segmentation) and (channels, classes) == (1, 2) else network


def _require_classes(channels: int | None, classes: int) -> None:
    """Raise NetworkError if a network of so many output channels, None if not known, is not of so many classes."""
    if channels == 1 and classes > 2:
        raise NetworkError(f"the network has one logit, which stands for two classes, but there are {classes}.")
    if channels not in (None, classes) and (channels, classes) != (1, 2):
        raise NetworkError(
            f"the network has {counted(channels or 0, 'output channel')}, but the number of classes is {classes}. "
            "Expected one logit for each class."
        )


def _as_segmentation(network: nn.Module, bands: int, classes: int) -> nn.Module:
    """A `Segmentation` for a network of another library that returns one logit, a list or a dict."""
    arguments = _smp_arguments(network)
    if arguments is not None:
        arguments.pop("activation", None)
        wrapped = External(_without_activation(network), _REDUCTION, arguments["classes"])
        wrapped.built_from = arguments
        return wrapped
    reduction = int(getattr(network, "reduction", _REDUCTION))
    try:
        output, _ = _trial(network, bands, reduction)
    except Exception:  # noqa: BLE001  a user's network may raise anything; its first map reports it
        return network
    if isinstance(output, Tensor) and output.ndim != 4:
        return network
    logits = main_logits(output)
    _require_no_activation(logits, type(network).__name__)
    _require_classes(logits.shape[1], classes)
    one_tensor = isinstance(output, Tensor) and output.shape[1] != 1
    return network if one_tensor else External(network, reduction, logits.shape[1])


def _require_no_activation(logits: Tensor, name: str) -> None:
    """Raise NetworkError if the last function of a network, as autograd recorded it, gives probabilities."""
    last: Any = logits.grad_fn
    while last is not None and last.name().startswith(_AFTERWARDS):
        last = last.next_functions[0][0]
    called = "" if last is None else last.name()
    activation = next((short for long, short in _ACTIVATIONS.items() if called.startswith(long)), None)
    if activation is not None:
        raise NetworkError(
            f"{name} ends with a {activation}, so that it returns probabilities. Expected logits: landscribe applies "
            f"softmax itself. Leave the {activation} out of the network."
        )


def _without_activation(network: nn.Module) -> nn.Module:
    """A network of segmentation-models-pytorch that returns logits; it shares the weights, and the other is unchanged.

    Raises:
        NetworkError: it has an activation whose input is not logits.
    """
    given = [type(module.activation) for module in _activations(network)]
    if set(given) <= {nn.Identity}:
        return network
    odd = next((kind.__name__ for kind in given if kind not in _ON_LOGITS), None)
    if odd is not None:
        raise NetworkError(f"the network has the activation {odd}. Expected none, for logits. Build it without.")
    weights = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    shared = copy.deepcopy(network, weights)
    for module in _activations(shared):
        module.activation = nn.Identity().train(module.training)
    return shared


def _activations(network: Any) -> list[Any]:
    return [module for module in network.segmentation_head.modules() if type(module).__name__ == "Activation"]


def _trial(network: nn.Module, bands: int, reduction: int) -> tuple[Any, int]:
    """The output of a network in eval mode for one black image, and the image's side; autograd records its functions.

    The image is twice the reduction, or else eight times: networks with pyramids of pooling refuse small images.
    """
    small, large = 2 * reduction, 8 * reduction
    try:
        return _output(network, bands, small), small
    except Exception:  # noqa: BLE001  a user's network may raise anything; the larger image's error is reported
        return _output(network, bands, large), large


def _output(network: nn.Module, bands: int, side: int) -> Any:
    modes = [(module, module.training) for module in network.modules()]
    device = next((parameter.device for parameter in network.parameters()), None)
    try:
        # Not in inference mode, whose tensors a network might keep. The image has gradients, so that the functions of a
        # frozen network are recorded, too; it is no leaf, which a network could not change in place.
        with torch.enable_grad():
            image = torch.zeros(1, bands, side, side, device=device, requires_grad=True).clone()
            return network.eval()(image)
    finally:
        for module, training in modes:
            module.training = training


def is_external(architecture: str) -> bool:
    """True for "smp:Name" and "module:Class"."""
    return ":" in architecture


def build_external(
    architecture: str, *, bands: int, classes: int, encoder: str, weights: str | Weights | None,
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
    chosen = Weights.of(weights)
    if architecture.startswith(SMP):
        built: nn.Module = _smp(architecture.removeprefix(SMP), bands, classes, encoder, chosen, band_names, options)
    else:
        if chosen is not None and chosen.bands:
            raise NetworkError(f"{architecture} loads its weights itself. Leave out weights_bands (--weights-bands).")
        arguments = {"bands": bands, "classes": classes, "encoder": encoder, "weights": chosen and chosen.source}
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
        network: Any = network_class(**accepted, **options)
    except Exception as error:  # a user's class may raise anything
        raise NetworkError(f"{architecture} cannot be built with {accepted | options}: {first_line(error)}") from error
    if not isinstance(network, nn.Module):
        raise NetworkError(f"{architecture} gives a {type(network).__name__}. Expected an instance of nn.Module.")
    return network


def _require_logits(network: Segmentation, architecture: str, bands: int, classes: int) -> None:
    """Run the network on one image; raise NetworkError unless it returns logits of the image's size."""
    try:
        logits, side = _trial(network, bands, network.reduction)
    except Exception as error:  # a user's class may raise anything
        raise NetworkError(
            f"{architecture} does not take images of {counted(bands, 'band')} and {8 * network.reduction} pixels "
            f"a side: {first_line(error)}. Use another architecture or encoder."
        ) from error
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (1, classes, side, side):
        raise NetworkError(
            f"{architecture} returned {shape} for an image of {bands} x {side} x {side}. Expected logits of shape "
            f"{(1, classes, side, side)}: one for each class and pixel."
        )
    _require_no_activation(logits, architecture)


def require_image_side(network: Segmentation, bands: int, side: int) -> None:
    """Raise NetworkError if an external network does not take square images of so many pixels a side."""
    if not isinstance(network, External):
        return
    try:
        _output(network, bands, side)
    except Exception as error:  # a user's network may raise anything
        raise NetworkError(
            f"the network does not take images of {side} x {side} pixels: {first_line(error)}. Use larger chips "
            "(--size), or another architecture."
        ) from error


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


def instance_of(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    """An instance of the class "module:Class". It is called with these arguments, and so that it downloads no weights.

    Raises:
        NetworkError: as `import_class`.
    """
    network_class = import_class(architecture)
    parameters = inspect.signature(network_class).parameters
    none = {name: value for name, value in _NO_WEIGHTS.items() if name in parameters}
    return network_class(**(none | dict(arguments)))


def _smp_arguments(network: nn.Module) -> dict[str, Any] | None:
    """The arguments of `nn.build` for a network of segmentation-models-pytorch; None if there are none."""
    kind, config = type(network), getattr(network, "config", None)
    if not kind.__module__.startswith("segmentation_models_pytorch.") or not isinstance(config, Mapping):
        return None
    options = {name: value for name, value in config.items() if name != "encoder_weights"}
    try:
        # JSON is what a model folder can hold.
        json.dumps(options)
        bands, classes, encoder = (options.pop(name) for name in ("in_channels", "classes", "encoder_name"))
    except (TypeError, ValueError, KeyError):
        return None
    if not options.keys() <= inspect.signature(kind).parameters.keys():
        return None
    return {"architecture": SMP + kind.__name__, "bands": bands, "classes": classes, "encoder": encoder, **options}


def _smp(
    name: str, bands: int, classes: int, encoder: str, weights: Weights | None, band_names: tuple[str, ...],
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
    if options.get("activation") is not None:
        raise NetworkError(
            f"the activation of {SMP}{name} is '{options['activation']}'. Expected none: landscribe applies softmax to "
            "the logits itself. Leave activation out."
        )
    # Its own encoders have their own names; all other timm encoders have the prefix "tu-".
    is_own = encoder in smp.encoders.encoders
    if not is_own and not timm.is_model(encoder.removeprefix("tu-")):
        # Names of other kinds would be looked up on a hub.
        raise NetworkError(f"unknown encoder '{encoder}' of {SMP}{name}. Expected a timm backbone, such as resnet18.")
    try:
        network: Any = architectures[name](
            encoder if is_own or encoder.startswith("tu-") else f"tu-{encoder}",
            encoder_weights=weights.source if weights is not None and not weights.is_file else None,
            in_channels=bands if weights is None else 3,
            classes=classes,
            **options,
        )
    except (RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
        raise NetworkError(f"{SMP}{name} on '{encoder}' cannot be built: {first_line(error)}") from error
    # It creates the first convolution of other bands than three on the CPU, whatever the default device is.
    network.to(torch.get_default_device())
    if weights is not None:
        _adapt_encoder(network.encoder, weights, band_names or tuple(f"band {index}" for index in range(1, bands + 1)))
    built: nn.Module = network
    return built


def _adapt_encoder(encoder: Any, weights: Weights, bands: tuple[str, ...]) -> None:
    """Load a file of weights into an encoder of three bands, and adapt its stem to bands of these names."""
    if not weights.is_file:
        return adapt_stem(encoder, bands)
    body = getattr(encoder, "model", encoder)
    file, expected = read_encoder(weights, body), body.state_dict()
    state = file.tensors
    missing = [name for name in expected if name not in state or state[name].shape != expected[name].shape]
    if missing:
        raise NetworkError(
            f"weights '{weights.source}' do not fit the encoder: {len(missing)} of its {len(expected)} tensors are "
            f"missing or of other shape ({', '.join(missing[:3])}). "
            'Use weights = "none", or a weights file of the same encoder.'
        )
    body.load_state_dict({name: state[name] for name in expected})
    return adapt_stem(encoder, bands, file.bands, file.kernels)
