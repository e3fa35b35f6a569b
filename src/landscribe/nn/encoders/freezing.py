"""Freezing: parts of a network that do not learn; their statistics of normalisation do not change either."""

from collections.abc import Iterator, Sequence
from functools import partial

from torch import nn

from landscribe.errors import NetworkError
from landscribe.nn.encoders.encoder import Encoder
from landscribe.spec import nearest

ENCODER = "encoder"


def freeze(part: nn.Module) -> None:
    """Freeze a part: no gradients, and eval mode even if `train()` is called later.

    So its batch normalisation neither uses nor updates statistics of batches, and its dropout is off.
    """
    part.requires_grad_(requires_grad=False).eval()
    # torch's `Module.train` of the whole network calls `train` of every child; it has no hook or flag to leave one out.
    # Lightning calls it at each epoch. An attribute of the instance takes precedence over the method of the class.
    part.__dict__["train"] = partial(_ignore_train, part)


def unfreeze(part: nn.Module) -> None:
    """Unfreeze a part and all parts in it: gradients, and training mode."""
    for inner in part.modules():
        inner.__dict__.pop("train", None)
    part.requires_grad_(requires_grad=True).train()


def _ignore_train(part: nn.Module, mode: bool = True) -> nn.Module:  # noqa: ARG001, FBT001, FBT002 - torch's own signature
    return part


def encoders_of(network: nn.Module) -> list[nn.Module]:
    """All modules of a network with the name "encoder", at any depth; UNet-ID has three.

    Of a vision transformer it is the network of timm alone: what makes a pyramid of its tokens has no weights to keep.
    """
    named = [part for name, part in network.named_modules() if name.rpartition(".")[2] == ENCODER]
    return [part.body if isinstance(part, Encoder) else part for part in named]


def parts_of(network: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Parts by name: "encoder", or a stage of it such as "layer1" or "blocks.0".

    Raises:
        NetworkError: an unknown name; the nearest is offered.
    """
    encoders = encoders_of(network)
    if names and not encoders:
        raise NetworkError(
            f"this network has no encoder to freeze: {', '.join(names)} cannot be frozen. Leave out freeze."
        )
    parts: list[nn.Module] = []
    for name in names:
        named = [part for encoder in encoders for stage, part in _stages(encoder) if name in (stage, ENCODER)]
        if not named:
            stages = [ENCODER, *dict.fromkeys(stage for stage, _ in _stages(encoders[0]) if stage.count(".") < 2)]
            raise NetworkError(f"unknown part '{name}' to freeze{nearest(name, stages)}")
        parts += encoders if name == ENCODER else named
    return parts


def _stages(encoder: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and parts with weights inside an encoder, without the wrapper modules of a backbone."""
    for name, part in encoder.named_modules():
        stage = name.removeprefix("body.").removeprefix("model.")
        # A stage behind the depth is an identity.
        if stage not in ("", "body", "model") and any(True for _ in part.parameters()):
            yield stage, part
