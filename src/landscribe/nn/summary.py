"""Summary: a network's blocks as a table, with shapes, parameters, receptive fields and operations."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, islice
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from landscribe.nn.meta_device import on_meta_device

ImageSide = Annotated[int, Field(ge=1, le=10**6)]
Channels = Annotated[int, Field(ge=1, le=10**4)]
_NARROW, _WIDE = (256, 512), (1024, 4096)
"""Widths of the images in which receptive fields are sought."""
_BODY = "encoder.body."
_SHELLS = ("encoder", "body", "network", "patch_embed")


@dataclass(frozen=True)
class Block:
    """One row of the table."""

    name: str
    shape: tuple[int, ...]
    """Shape of the block's output: (channels, rows, cols), or (channels, tokens) of a transformer's block."""
    parameters: int
    """Those of tokens and positions, which belong to no block, count in the first block."""
    receptive_field: int | None
    """Side in input pixels of the square that one pixel of the output depends on; None: the whole image."""
    flops_per_megapixel: float
    """Floating-point operations for 10^6 input pixels; a multiplication and an addition are two."""


@dataclass(frozen=True)
class Summary:
    """A network, block by block, for images of one size."""

    shape: tuple[int, int, int]
    """Shape of the image: (bands, rows, cols)."""
    blocks: tuple[Block, ...]
    parameters: int
    """Parameters of the whole network."""
    receptive_field: int | None
    """Receptive field of the logits, in input pixels; None: the whole image."""
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
    names = [
        name
        for name in _block_names(copied, shapes)
        if _parameters(modules[name]) or (_BODY in name and len(shapes[name]) == 3 and _is_layer(modules[name]))
    ]
    parameters = _parameters_by_row(modules, names)
    fields = _receptive_fields(copied, ["", *names], bands)
    megapixels = size * size / 1e6
    blocks = [Block(name, shapes[name], parameters[name], fields[name], flops[name] / megapixels) for name in names]
    rows = tuple(replace(row, name=_short(row.name)) for row in _stages(blocks))
    return Summary((bands, size, size), rows, _parameters(copied), fields[""], flops[""] / megapixels)


def _short(name: str) -> str:
    """A block's name without the names of wrapper modules."""
    return name.removeprefix("features.").replace(".body.", ".")


def _stages(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Rows of a backbone's layers joined into stages: consecutive layers with outputs of one size."""
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


def _is_layer(module: nn.Module) -> bool:
    return not isinstance(module, nn.Identity)


def _parameters_by_row(modules: dict[str, nn.Module], rows: list[str]) -> dict[str, int]:
    """Parameters of each row; those of a shell itself are added to its first row."""
    counts = {row: _parameters(modules[row]) for row in rows}
    for name, module in modules.items():
        own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        if own and not any(f"{name}.".startswith(f"{row}.") for row in rows):
            first = next(row for row in rows if not name or row.startswith(f"{name}."))
            counts[first] += own
    return counts


def _block_names(module: nn.Module, shapes: dict[str, tuple[int, ...]], prefix: str = "") -> Iterator[str]:
    """Names of the blocks: children of wrapper modules are visited, children of blocks are not."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        is_shell = name in _SHELLS or any(inner in _SHELLS for inner, _ in child.named_children())
        # A child without a shape is a list of blocks that its parent runs.
        if path not in shapes or (is_shell and not isinstance(child, nn.Sequential)):
            yield from _block_names(child, shapes, f"{path}.")
        else:
            yield path


def _shapes_and_flops(network: nn.Module, bands: int, size: int) -> tuple[dict[str, tuple[int, ...]], dict[str, float]]:
    """Shapes and operations by module name, "" for the network; modules without feature maps or tokens have no shape.

    The network runs on torch's meta device, where an image of any size takes no memory and no time.
    """
    network = on_meta_device(network)
    shapes: dict[str, tuple[int, ...]] = {}
    flops: dict[str, float] = {}
    flops_before: list[int] = []

    def before(*_: Any) -> None:
        flops_before.append(counter.get_total_flops())

    def after(name: str, output: Any) -> None:
        flops[name] = flops.get(name, 0.0) + counter.get_total_flops() - flops_before.pop()
        if isinstance(output, Tensor) and output.ndim == 4:
            shapes[name] = tuple(output.shape[1:])
        elif isinstance(output, Tensor) and output.ndim == 3:
            shapes[name] = (output.shape[2], output.shape[1])

    hooks: list[Any] = []
    for name, part in network.named_modules():
        hooks.append(part.register_forward_pre_hook(before))
        hooks.append(part.register_forward_hook(lambda _, __, output, name=name: after(name, output)))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, bands, size, size, device="meta"))
    for hook in hooks:
        hook.remove()
    return shapes, flops


def _receptive_fields(network: nn.Module, names: list[str], bands: int) -> dict[str, int | None]:
    """Sides of receptive fields, from a narrow image first: the receptive fields of most networks fit into it."""
    sides: dict[str, int | None] = dict.fromkeys(names)
    # One column tells whether the logits fit into an image.
    narrow = (width for width in _NARROW if _fields_within(network, [""], bands, width, columns=1)[""] is not None)
    for width in (*islice(narrow, 1), *_WIDE):
        wider = [name for name, side in sides.items() if side is None]
        sides |= _fields_within(network, wider, bands, width) if wider else {}
    return sides


def _fields_within(
    network: nn.Module, names: list[str], bands: int, width: int, *, columns: int | None = None
) -> dict[str, int | None]:
    """Sides of receptive fields: a column of the image is NaN, and the output columns that become NaN are counted.

    A network's output repeats with a period of `reduction` pixels, so each column of one period is tried once: an
    output depends on as many columns as the columns of a period reach outputs, on average. The image is `reduction`
    pixels high: sides are counted along rows. With `columns`, only so many columns of a period are tried.
    """
    period = int(getattr(network, "reduction", 32))
    width = -(-width // period) * period
    centre = width // 2 // period * period
    extents: dict[str, list[tuple[int, int, int]]] = {name: [] for name in names}

    def note(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] > 1:
            reached = output.isnan().any(dim=2).any(dim=1)[0].nonzero()[:, 0]
            first, last = (int(reached[0]), int(reached[-1])) if len(reached) else (0, -1)
            extents[name].append((first, last, output.shape[-1]))

    modules = dict(network.named_modules())
    hooks = [modules[name].register_forward_hook(lambda _, __, out, name=name: note(name, out)) for name in names]
    with torch.inference_mode():
        for column in range(centre, centre + (columns or period)):
            image = torch.zeros(1, bands, period, width)
            image[..., column] = torch.nan
            network(image)
            # Blocks that depend on the whole image show it on the first column.
            if all(_reaches_edge(extent) for extent in extents.values()):
                break
    for hook in hooks:
        hook.remove()
    return {name: _side(extent, width) for name, extent in extents.items()}


def _reaches_edge(extents: list[tuple[int, int, int]]) -> bool:
    return not extents or any(first == 0 or last == columns - 1 for first, last, columns in extents)


def _side(extents: list[tuple[int, int, int]], width: int) -> int | None:
    """Mean side in input pixels from (first NaN column, last NaN column, columns); None if NaN reached the edge."""
    if _reaches_edge(extents):
        return None
    reached = sum(last - first + 1 for first, last, _ in extents)
    # One output column covers `width / columns` input columns.
    return round(reached / len(extents) * width / extents[0][2])
