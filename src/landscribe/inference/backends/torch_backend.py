"""The torch backends: the network itself, with fused normalisations, in 32 bits or in bfloat16, also compiled.

In eval mode a batch normalisation multiplies each feature map by one number and adds another. A convolution with scaled
kernels and shifted biases gives the same features with one pass over the pixels less (Jacob et al. 2018,
arXiv:1712.05877, section 3.2).
"""

import copy
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from landscribe.errors import BackendError, root_cause
from landscribe.inference.benchmark import synthetic_images
from landscribe.inference.device import place_network
from landscribe.model import Model
from landscribe.nn.segmentation import Segmentation

log = logging.getLogger(__name__)

Backend = Callable[[Tensor], dict[str, Tensor]]
"""Scaled images (B, C, H, W), float32, channels-last, on the backend's device, to logits (B, channels, H, W) there, of
each head that it was built for, by name."""

_TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest logit; rounding gave 8e-6 at most in fourteen networks."""


def build_torch(model: Model, device: torch.device, heads: tuple[str, ...]) -> Backend:
    """Run the network in torch, in 32 bits."""
    network = fused_network(model, device, heads)
    return lambda images: dict(zip(heads, _outputs(network, images), strict=True))


def build_bfloat16(model: Model, device: torch.device, heads: tuple[str, ...]) -> Backend:
    """Run the network in torch with weights and features in bfloat16, 16 bits with the range of 32.

    The backend raises BackendError if the network does not run so, as one that makes tensors in 32 bits.
    """
    return _in_bfloat16(_bfloat16_network(model, device, heads), heads)


def build_compiled(model: Model, device: torch.device, heads: tuple[str, ...]) -> Backend:
    """As `build_bfloat16`, compiled, in CUDA graphs: the first image of a shape takes most of a minute.

    The backend raises BackendError if the network cannot be compiled.
    """
    compiled: Any = torch.compile(_bfloat16_network(model, device, heads), mode="reduce-overhead", dynamic=False)
    return _in_bfloat16(compiled, heads)


def _bfloat16_network(model: Model, device: torch.device, heads: tuple[str, ...]) -> nn.Module:
    network = fused_network(model, device, heads)
    with torch.inference_mode(mode=False):
        try:
            # Without a normalisation to fuse, it is the model's own.
            return copy.deepcopy(network).to(torch.bfloat16)
        except Exception as error:  # a user's network may raise anything when it is copied
            raise BackendError(_refusal(network, error)) from error


def _in_bfloat16(network: Callable[[Tensor], Any], heads: tuple[str, ...]) -> Backend:
    def run(images: Tensor) -> dict[str, Tensor]:
        try:
            outputs = _outputs(network, images.to(torch.bfloat16))
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # a user's network, or the compiler, may raise anything
            raise BackendError(_refusal(network, error)) from error
        # Copies: what a CUDA graph returns is overwritten by its next run.
        return {head: logits.float() for head, logits in zip(heads, outputs, strict=True)}

    return run


def _refusal(network: object, error: Exception) -> str:
    return (
        f"{type(network).__name__} does not run in bfloat16: {root_cause(error)}. Expected a network that computes in "
        "the type of its weights. Use --precision 32."
    )


class SelectedHeads(nn.Module):
    """(B, C, H, W) to the logits of some heads of a network, from one pass: a tuple in the order of `heads`."""

    def __init__(self, network: Segmentation, heads: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.heads = heads

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Logits (B, channels, H, W) of each head."""
        logits = self.network.forward_heads(images)
        return tuple(logits[head] for head in self.heads)


def _outputs(network: Callable[[Tensor], Any], images: Tensor) -> tuple[Tensor, ...]:
    """All logits that a network gives: of the main head, or of `SelectedHeads`."""
    logits = network(images)
    return (logits,) if isinstance(logits, Tensor) else tuple(logits)


def fused_network(model: Model, device: torch.device, heads: tuple[str, ...]) -> nn.Module:
    """The model's network on the device, with fused normalisations where possible; the model keeps its weights.

    Returns:
        A network that gives the logits of the main head if that is the only one of `heads`, else `SelectedHeads`.
    """
    network = place_network(model.network, device)
    if isinstance(network, Segmentation) and heads != (network.main_head,):
        network = SelectedHeads(network, heads).eval()
    side = max(64, 2 * model.reduction) // model.reduction * model.reduction
    # Weights that are created in inference mode cannot be exported.
    with torch.inference_mode(mode=False), torch.no_grad():
        return fuse_conv_bn(network, synthetic_images((1, len(model.bands), side, side), device))


def fuse_conv_bn(network: nn.Module, images: Tensor) -> nn.Module:
    """Copy a network without the batch normalisations that follow a convolution.

    One pass over the images shows which normalisation follows which convolution, for any network. The copy is rejected
    if logits of any head differ from the network's, for example because it also uses the convolution's features.

    Args:
        network: in eval mode; it is not changed.
        images: (B, C, H, W) of any content for the trial pass.

    Returns:
        The fused copy; the network itself if nothing can be fused.
    """
    if not any(type(module) in _REMAINDERS for module in network.modules()):
        return network
    try:
        # On the CPU, because GPUs may round by more than the tolerance.
        fused, images_cpu = copy.deepcopy(network).cpu(), images.cpu()
        expected = _outputs(fused, images_cpu)
        pairs = _pairs(fused, images_cpu)
        for convolution, normalisation in pairs:
            _fuse(fused, convolution, normalisation)
        differences = list(map(_difference, _outputs(fused, images_cpu), expected))
    except Exception as error:  # noqa: BLE001  a user's network may raise anything when it is copied or changed
        log.debug("conv-bn fusion failed: %s", error)
        return network
    log.debug("%d normalisations fused, logits differ by %s", len(pairs), differences)
    return fused.to(images.device) if all(each < _TOLERANCE for each in differences) else network


def _difference(logits: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest logit."""
    return float((logits - expected).abs().max() / expected.abs().max())


def _pairs(network: nn.Module, images: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions and the normalisations of their features, if each runs once."""
    # The tensors are held, so that no later tensor gets the id of a freed one.
    outputs: dict[int, tuple[Tensor, nn.Conv2d]] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    runs: Counter[nn.Module] = Counter()

    def after_convolution(module: Any, _: Any, output: Tensor) -> None:
        runs[module] += 1
        outputs[id(output)] = (output, module)

    def before_normalisation(module: Any, inputs: tuple[Tensor, ...]) -> None:
        runs[module] += 1
        if id(inputs[0]) in outputs:
            pairs.append((outputs[id(inputs[0])][1], module))

    hooks = []
    for module in network.modules():
        # Subclasses may change their weights or input.
        if type(module) is nn.Conv2d:
            hooks.append(module.register_forward_hook(after_convolution))
        elif type(module) in _REMAINDERS and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(before_normalisation))
    network(images)
    for hook in hooks:
        hook.remove()
    return [pair for pair in pairs if runs[pair[0]] == runs[pair[1]] == 1]


_REMAINDERS: dict[type[nn.Module], Any] = {
    nn.BatchNorm2d: lambda _: nn.Identity(),
    BatchNormAct2d: lambda module: nn.Sequential(module.drop, module.act),
}
"""The part of a normalisation that remains after fusion."""


def _fuse(network: nn.Module, convolution: nn.Conv2d, normalisation: nn.BatchNorm2d) -> None:
    fused = fuse_conv_bn_eval(convolution, normalisation)
    convolution.weight, convolution.bias = fused.weight, fused.bias
    name = next(name for name, module in network.named_modules() if module is normalisation)
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, _REMAINDERS[type(normalisation)](normalisation))
