"""The torch backend: the network itself, with fused normalisations, in the precision of the device."""

import torch
from torch import Tensor, nn

from landscribe.inference.backends.backend import Backend, BackendKind
from landscribe.inference.benchmark import synthetic_images
from landscribe.inference.device import inference_autocast, inference_dtype, place_network
from landscribe.inference.fusion import fuse_conv_bn
from landscribe.model import Model


def build_torch(model: Model, device: torch.device) -> Backend:
    """Run the network in torch; bfloat16 on CUDA devices that have it.

    It is not compiled: compilation takes a minute, which only a map of gigapixels would gain
    (docs/decisions/0012-backends.md).
    """
    network = fused_network(model, device)
    if inference_dtype(device) is torch.float32:
        return network

    def run(images: Tensor) -> Tensor:
        with inference_autocast(device):
            logits: Tensor = network(images)
        return logits

    return run


def fused_network(model: Model, device: torch.device) -> nn.Module:
    """The model's network on the device, with fused normalisations where possible; the model keeps its weights."""
    network = place_network(model.network, device)
    side = max(64, 2 * model.reduction) // model.reduction * model.reduction
    # Weights that are created in inference mode cannot be exported.
    with torch.inference_mode(mode=False), torch.no_grad():
        return fuse_conv_bn(network, synthetic_images((1, len(model.bands), side, side), device))


TORCH = BackendKind(build_torch, packages=("torch",))
