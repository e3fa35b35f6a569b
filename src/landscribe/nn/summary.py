"""Summary: the block table of a network, as textbooks draw it."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

_BODY = "encoder.body."
_SHELLS = ("encoder", "body", "network")


@dataclass(frozen=True)
class Block:
    """One row of the table."""

    name: str
    shape: tuple[int, ...]
    """Of its output: (channels, rows, cols)."""
    parameters: int
    receptive_field: int | None
    """Side in input pixels of the square that one pixel of its output depends on; None if on all of the image."""
    flops_per_megapixel: float
    """Floating-point operations for 10^6 input pixels; a multiplication and an addition are two."""


@dataclass(frozen=True)
class Summary:
    """A network, block by block, for images of one size."""

    shape: tuple[int, int, int]
    """Of the image: (bands, rows, cols)."""
    blocks: tuple[Block, ...]
    parameters: int
    """Of all of it."""
    receptive_field: int | None
    """Of the logits, in input pixels; None if all of the image."""
    flops_per_megapixel: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def summary(network: nn.Module, *, bands: int, size: int = 256) -> Summary:
    """Describe a network block by block.

    Args:
        network: (B, C, H, W) to logits (B, K, H, W).
        bands: C.
        size: side of the image in pixels, for the shapes.
    """
    copied = copy.deepcopy(network).cpu().eval()
    modules = dict(copied.named_modules())
    shapes, flops = _shapes_and_flops(copied, bands, size)
    names = [name for name in _block_names(copied, shapes) if _BODY in name or _parameters(modules[name])]
    fields = _receptive_fields(copied, names, bands)
    megapixels = size * size / 1e6
    blocks = [
        Block(name, shapes[name], _parameters(modules[name]), fields[name], flops[name] / megapixels) for name in names
    ]
    rows = tuple(replace(row, name=_short(row.name)) for row in _stages(blocks))
    return Summary((bands, size, size), rows, _parameters(copied), fields[""], flops[""] / megapixels)


def _short(name: str) -> str:
    """Without the names of shells that a reader does not need."""
    return name.removeprefix("features.").replace(".body.", ".")


def _stages(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """The rows of a backbone's layers put together where they keep the size: its stages."""
    groups = groupby(blocks, key=lambda block: (_BODY in block.name) and (block.name.split(_BODY)[0], block.shape[1:]))
    return tuple(row for key, group in groups for row in ([_joined(list(group))] if key else group))


def _joined(layers: list[Block]) -> Block:
    first, last = layers[0], layers[-1]
    return Block(
        first.name if first is last else f"{first.name} … {last.name.rpartition('.')[2]}",
        last.shape,
        sum(layer.parameters for layer in layers),
        last.receptive_field,
        sum(layer.flops_per_megapixel for layer in layers),
    )


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _block_names(module: nn.Module, shapes: dict[str, tuple[int, ...]], prefix: str = "") -> Iterator[str]:
    """The parts that a reader would call blocks: shells are opened, blocks are not."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        is_shell = name in _SHELLS or any(inner in _SHELLS for inner, _ in child.named_children())
        # What gave no feature maps by itself is a list of blocks that its owner runs.
        if path not in shapes or (is_shell and not isinstance(child, nn.Sequential)):
            yield from _block_names(child, shapes, f"{path}.")
        else:
            yield path


def _shapes_and_flops(network: nn.Module, bands: int, size: int) -> tuple[dict[str, tuple[int, ...]], dict[str, float]]:
    """By the names of parts, "" for the whole; parts that gave no feature maps have no shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    flops: dict[str, float] = {}
    begun: list[int] = []

    def before(*_: Any) -> None:
        begun.append(counter.get_total_flops())

    def after(name: str, output: Any) -> None:
        flops[name] = flops.get(name, 0.0) + counter.get_total_flops() - begun.pop()
        if isinstance(output, Tensor) and output.ndim == 4:
            shapes[name] = tuple(output.shape[1:])

    hooks: list[Any] = []
    for name, part in network.named_modules():
        hooks.append(part.register_forward_pre_hook(before))
        hooks.append(part.register_forward_hook(lambda _, __, output, name=name: after(name, output)))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, bands, size, size))
    for hook in hooks:
        hook.remove()
    return shapes, flops


def _receptive_fields(network: nn.Module, names: list[str], bands: int) -> dict[str, int | None]:
    """Sides of receptive fields, in a small image first, since few networks see farther."""
    near = _fields_within(network, names, bands, 1024)
    return near if None not in near.values() else _fields_within(network, names, bands, 4096)


def _fields_within(network: nn.Module, names: list[str], bands: int, width: int) -> dict[str, int | None]:
    """Sides of receptive fields, found by letting one column of the image be not a number and looking how far it gets.

    A network repeats itself every `reduction` pixels, so that many columns, one after the other, tell all: the sum of
    what they reach is what one period of outputs depends on. The image is one cell high: sides are those of columns.
    """
    period = int(getattr(network, "reduction", 32))
    width = -(-width // period) * period
    centre = width // 2 // period * period
    reached: dict[str, list[tuple[int, int, int]]] = {name: [] for name in ["", *names]}

    def note(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] > 1:
            columns = output.isnan().any(dim=2).any(dim=1)[0].nonzero()[:, 0]
            first, last = (int(columns[0]), int(columns[-1])) if len(columns) else (0, -1)
            reached[name].append((first, last, output.shape[-1]))

    modules = dict(network.named_modules())
    hooks = [modules[name].register_forward_hook(lambda _, __, out, name=name: note(name, out)) for name in names]
    with torch.inference_mode():
        for column in range(centre, centre + period):
            image = torch.zeros(1, bands, period, width)
            image[..., column] = torch.nan
            note("", network(image))
    for hook in hooks:
        hook.remove()
    return {name: _side(noted, width) for name, noted in reached.items()}


def _side(noted: list[tuple[int, int, int]], width: int) -> int | None:
    """Mean side over the outputs of one period; None if it reached the image's edge or nothing was noted."""
    if not noted or any(first == 0 or last == columns - 1 for first, last, columns in noted):
        return None
    cells = sum(last - first + 1 for first, last, _ in noted)
    # As many columns were tried as a period has, in which there is one output for `width / columns` of them.
    return round(cells / len(noted) * width / noted[0][2])
