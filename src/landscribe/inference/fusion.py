"""Folding: batch normalisations become part of the convolutions before them.

In use, a normalisation multiplies each feature map by one number and adds another. A convolution whose kernels and
biases are multiplied and moved likewise gives the same, with one pass over all pixels less (Jacob et al. 2018,
arXiv:1712.05877, section 3.2).
"""

import copy
import logging
from collections import Counter
from typing import Any

from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

log = logging.getLogger(__name__)

_AGREEMENT = 1e-4
"""Largest difference of logits, as a share of the largest one; of fourteen networks, rounding made 8e-6 at most."""


def folded(network: nn.Module, images: Tensor) -> nn.Module:
    """A copy of a network without the normalisations that follow a convolution.

    Which follow which is seen in one pass over the images, whatever the network's code looks like. A copy that answers
    otherwise than the network is not taken: one that also uses what stands between the two, say.

    Args:
        network: in eval mode; it stays as it is.
        images: (B, C, H, W) of any content to try it on.

    Returns:
        The copy; the network itself if nothing can be folded.
    """
    if not any(type(module) in _REST for module in network.modules()):
        return network
    try:
        # On the CPU: GPUs may round more than folding is allowed to change.
        copied, shown = copy.deepcopy(network).cpu(), images.cpu()
        expected = copied(shown)
        pairs = _pairs(copied, shown)
        for convolution, normalisation in pairs:
            _fold(copied, convolution, normalisation)
        differs = float((copied(shown) - expected).abs().max() / expected.abs().max())
    except Exception as error:  # noqa: BLE001  whatever somebody else's code raises when it is copied or changed
        log.debug("not folded: %s", error)
        return network
    log.debug("%d normalisations folded, logits differ by %.1e", len(pairs), differs)
    return copied.to(images.device) if differs < _AGREEMENT else network


def _pairs(network: nn.Module, images: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions and the normalisations of just what they give, of those that are run once."""
    # The tensors are kept, so that no later one gets the identity of one that is gone.
    given: dict[int, tuple[Tensor, nn.Conv2d]] = {}
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    runs: Counter[nn.Module] = Counter()

    def after_convolution(module: Any, _: Any, output: Tensor) -> None:
        runs[module] += 1
        given[id(output)] = (output, module)

    def before_normalisation(module: Any, inputs: tuple[Tensor, ...]) -> None:
        runs[module] += 1
        if id(inputs[0]) in given:
            found.append((given[id(inputs[0])][1], module))

    hooks = []
    for module in network.modules():
        # Subclasses may do something of their own to their weights or their input.
        if type(module) is nn.Conv2d:
            hooks.append(module.register_forward_hook(after_convolution))
        elif type(module) in _REST and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(before_normalisation))
    network(images)
    for hook in hooks:
        hook.remove()
    return [pair for pair in found if runs[pair[0]] == runs[pair[1]] == 1]


_REST: dict[type[nn.Module], Any] = {
    nn.BatchNorm2d: lambda _: nn.Identity(),
    BatchNormAct2d: lambda module: nn.Sequential(module.drop, module.act),
}
"""What a normalisation still does when its numbers are another's."""


def _fold(network: nn.Module, convolution: nn.Conv2d, normalisation: nn.BatchNorm2d) -> None:
    fused = fuse_conv_bn_eval(convolution, normalisation)
    convolution.weight, convolution.bias = fused.weight, fused.bias
    name = next(name for name, module in network.named_modules() if module is normalisation)
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, _REST[type(normalisation)](normalisation))
