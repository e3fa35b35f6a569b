"""Geometry of backbones: padding so that sizes halve exactly, and dilation instead of strides."""

import math
from functools import partial, reduce
from typing import Any

import torch
from timm.models.inception_v3 import InceptionB, InceptionD
from torch import Tensor, nn

_LAYERS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


def pad_valid(body: nn.Module) -> None:
    """Pad unpadded layers by half a kernel, in place, so that features are aligned with their pixels.

    The Inception networks convolve and pool without padding: their features have odd sizes, and the offset of a feature
    depends on the size of the image. Layers whose stride is their kernel size (patches) need no padding.
    """
    for module in list(body.modules()):
        # Subclasses have a padding of their own, such as the "same" padding of networks from TensorFlow.
        if type(module) in _LAYERS:
            _pad_layer(module)
        elif type(module) in _REDUCTION_BLOCKS:
            _pool_by_layer(module)


def _pad_layer(layer: Any) -> None:
    kernel, stride, padding = _pair(layer.kernel_size), _pair(layer.stride), _pair(layer.padding)
    layer.padding = tuple(
        side // 2 if pad == 0 and step < side else pad for side, step, pad in zip(kernel, stride, padding, strict=True)
    )


# The branches of Inception-v3's reduction blocks; the third branch is a call of F.max_pool2d, not a layer.
_REDUCTION_BLOCKS: dict[type[nn.Module], tuple[tuple[str, ...], ...]] = {
    InceptionB: (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")),
    InceptionD: (
        ("branch3x3_1", "branch3x3_2"),
        ("branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4"),
    ),
}


def _pool_by_layer(block: nn.Module) -> None:
    """Replace the pooling call of a reduction block of Inception-v3 by a padded layer, which can be dilated."""
    block.pool = nn.MaxPool2d(3, stride=2, padding=1)
    # timm writes `F.max_pool2d(x, kernel_size=3, stride=2)` into `forward` of InceptionB and InceptionD, with no layer
    # to pad or replace. An attribute of the instance takes precedence over `forward` of the class; a `partial` of a
    # function of this module can be pickled, a bound closure cannot.
    block.__dict__["forward"] = partial(_reduced, block)


def _reduced(block: nn.Module, x: Tensor) -> Tensor:
    branches = [reduce(lambda y, name: getattr(block, name)(y), names, x) for names in _REDUCTION_BLOCKS[type(block)]]
    return torch.cat([*branches, block.get_submodule("pool")(x)], dim=1)


def dilate(body: nn.Module, stride: int, *, channels: int = 3) -> None:
    """Limit a backbone's reduction to `stride` input pixels, in place, by dilation instead of strides.

    Convolutions keep their weights and their receptive field (Yu & Koltun 2016, arXiv:1511.07122). Pools with a stride
    become 3 x 3 pools without one (Chen et al. 2015, arXiv:1412.7062, section 3.1), and pools without one are dilated.
    Layers that only halve within a module whose output is as large as its input, such as the keys of an attention, keep
    their number of outputs.
    """
    side = 128
    reached: dict[Any, int] = {}
    kept: set[nn.Module] = set()

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, _LAYERS):
            reached[module] = 2 ** round(math.log2(side / inputs[0].shape[-1]))
        if inputs and all(isinstance(each, Tensor) for each in (inputs[0], output)) and inputs[0].shape == output.shape:
            kept.update(part for part in module.modules() if part is not module)

    hooks = [module.register_forward_hook(note) for module in body.modules()]
    training = body.training
    body.eval()
    with torch.inference_mode():
        body(torch.zeros(1, channels, side, side))
    body.train(training)
    for hook in hooks:
        hook.remove()
    for layer, before in reached.items():
        if layer in kept and max(_pair(layer.stride)) > 1:
            _spread_layer(layer, max(1, before // stride))
        else:
            _dilate_layer(layer, before, stride)


def _spread_layer(layer: Any, rate: int) -> None:
    """Let a layer of `rate` times larger features read the pixels, and give the outputs, that it had before."""
    if rate > 1 and isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
        layer.dilation = rate if isinstance(layer, nn.MaxPool2d) else (rate, rate)
    if rate > 1:
        layer.stride = tuple(rate * step for step in _pair(layer.stride))


def _dilate_layer(layer: Any, before: int, stride: int) -> None:
    """Dilate one layer; `before` is the reduction at its input in the undilated backbone."""
    steps = _pair(layer.stride)
    halves = before * max(steps) > stride and max(steps) > 1
    rate = max(1, before // stride)
    if isinstance(layer, nn.Conv2d) and (halves or rate > 1):
        # The stride is 1 now, for which "same" padding is defined, for patches of 2 x 2 too.
        layer.stride, layer.dilation, layer.padding = (1, 1), (rate, rate), "same"
        if type(layer) is nn.Conv2d and any(rate * (side - 1) % 2 for side in layer.kernel_size):
            # torch pads even kernels in the same way, but warns of it.
            layer.padding = (0, 0)
            layer.__dict__["forward"] = partial(_convolved_same, layer)
    elif halves:
        layer.kernel_size, layer.stride, layer.padding = 3, 1, 1
    elif rate > 1 and type(layer) in _DILATED_POOLS:
        # As in `_pool_by_layer`, the layer can still be pickled.
        layer.__dict__["forward"] = partial(_DILATED_POOLS[type(layer)], layer, rate)


def _convolved_same(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution with "same" padding, of which the right and the bottom get the odd pixel."""
    rows, cols = (rate * (side - 1) for side, rate in zip(layer.kernel_size, layer.dilation, strict=True))
    padding = (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2)
    return nn.Conv2d.forward(layer, nn.functional.pad(x, padding))


def _dilated_maximum(layer: nn.MaxPool2d, rate: int, x: Tensor) -> Tensor:
    """The largest of every `rate`-th pixel of a window, without a stride; torch pads by half the kernel at most."""
    rows, cols = (rate * side for side in _pair(layer.padding))
    padded = nn.functional.pad(x, (cols, cols, rows, rows), value=-math.inf)
    return nn.functional.max_pool2d(padded, layer.kernel_size, stride=1, dilation=rate)


def _dilated_mean(layer: nn.AvgPool2d, rate: int, x: Tensor) -> Tensor:
    """The mean of every `rate`-th pixel of a window, without a stride; torch has no dilated mean."""
    window = x.new_ones(1, 1, *_pair(layer.kernel_size))
    padding = [rate * side for side in _pair(layer.padding)]
    height, width = x.shape[-2:]
    sums = nn.functional.conv2d(x.reshape(-1, 1, height, width), window, padding=padding, dilation=rate)
    if layer.count_include_pad:
        return (sums / window.sum()).reshape(x.shape)
    counts = nn.functional.conv2d(x.new_ones(1, 1, height, width), window, padding=padding, dilation=rate)
    return (sums / counts).reshape(x.shape)


_DILATED_POOLS: dict[type[nn.Module], Any] = {nn.MaxPool2d: _dilated_maximum, nn.AvgPool2d: _dilated_mean}


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)
