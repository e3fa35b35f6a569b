"""Freezing: parts of a network that training leaves as they are, statistics of normalisation included."""

from collections.abc import Iterator, Sequence
from functools import partial

from torch import nn

from landscribe.errors import NetworkError
from landscribe.spec import nearest

ENCODER = "encoder"


def freeze(part: nn.Module) -> None:
    """Stop a part from learning: no gradients, and eval mode whatever `train()` is called later.

    So its batch normalisation neither uses nor gathers statistics of batches, and its dropout rests.
    """
    part.requires_grad_(requires_grad=False).eval()
    # An attribute of the instance hides the method of its class from the `train()` of what the part is in.
    part.__dict__["train"] = partial(_stay, part)


def unfreeze(part: nn.Module) -> None:
    """Let a frozen part learn again."""
    part.__dict__.pop("train", None)
    part.requires_grad_(requires_grad=True).train()


def _stay(part: nn.Module, mode: bool = True) -> nn.Module:  # noqa: ARG001, FBT001, FBT002 - torch's own signature
    return part


def encoders_of(network: nn.Module) -> list[nn.Module]:
    """The encoders in a network (UNet-ID has three): what is called encoder, at any depth."""
    return [part for name, part in network.named_modules() if name.rpartition(".")[2] == ENCODER]


def parts_of(network: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Parts by name: "encoder", or a stage of it such as "layer1" or "blocks.0".

    Raises:
        NetworkError: an unknown name; the nearest is offered.
    """
    encoders = encoders_of(network)
    if names and not encoders:
        raise NetworkError(f"this network has no part called encoder, so that {', '.join(names)} cannot be frozen.")
    parts: list[nn.Module] = []
    for name in names:
        found = [part for encoder in encoders for called, part in _stages(encoder) if name in (called, ENCODER)]
        if not found:
            known = [ENCODER, *dict.fromkeys(called for called, _ in _stages(encoders[0]) if called.count(".") < 2)]
            raise NetworkError(f"unknown part '{name}' to freeze{nearest(name, known)}")
        parts += encoders if name == ENCODER else found
    return parts


def _stages(encoder: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and parts inside an encoder, without the shell that holds a backbone."""
    for name, part in encoder.named_modules():
        called = name.removeprefix("body.").removeprefix("model.")
        if called not in ("", "body", "model"):
            yield called, part
