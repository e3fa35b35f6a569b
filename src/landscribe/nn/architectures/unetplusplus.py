"""UNet++: nested UNets of every depth on one encoder.

Zhou et al. 2018, "UNet++: A Nested U-Net Architecture for Medical Image Segmentation", arXiv:1807.10165; accurate
and fast mode and pruning as in Zhou et al. 2020, arXiv:1912.05074. Node (i, j) is node j of scale i; scale 0 is the
finest. Node (i, 0) is the encoder's output. Every other node convolves the concatenation of nodes (i, 0) to (i, j - 1)
and of node (i + 1, j - 1), upsampled. Node (0, j) is the last node of a UNet of depth j: branch j.
"""

from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn

from landscribe.errors import NetworkError, WithoutEffectError
from landscribe.nn.architectures.blocks import Channels, DoubleConv, Interpolation, Upsample
from landscribe.nn.encoders.encoder import PLAIN, EncoderStyle, encoder_of
from landscribe.nn.encoders.weights import Weights
from landscribe.nn.segmentation import CLASSES, Criterion, Segmentation

BACKBONE_WIDTHS = (32, 64, 128, 256, 512)
"""Channels of the nodes on a timm backbone, fine to coarse."""


class UNetPlusPlusOptions(EncoderStyle):
    """Options of a UNet++."""

    widths: tuple[Channels, ...] = ()
    """Channels of the nodes at each scale, fine to coarse; the last is repeated. Default: those of the plain encoder,
    or 32, 64, 128, 256, 512 on a backbone."""
    upsampling: Interpolation | Literal["transposed"] | None = None
    """Upsampling between scales: 2 x 2 transposed convolution (the plain encoder's default), or nearest (a backbone's
    default), bilinear or bicubic interpolation."""
    deep_supervision: bool = True
    """A loss for every branch; if false, for the deepest branch only."""
    branch_weights: tuple[NonNegativeFloat, ...] = ()
    """Weight of each branch's loss, the smallest branch first. Default: equal weights."""
    branch: int | None = Field(None, ge=1, le=2**20)
    """The branch whose logits are returned (fast mode). Default: the mean of all branches (accurate mode). `prune`
    removes the nodes and encoder stages that a branch does not need."""
    cell: int | None = Field(None, ge=1, le=1024)
    """Sides of images are padded to a multiple of this many pixels. `prune` sets it to that of the whole network, so
    that a branch keeps its logits."""


class UNetPlusPlus(Segmentation):
    """(B, C, H, W) to logits (B, K, H, W).

    `heads` holds the last layer of each trained branch by its number. As named heads they are one, "classes": the
    branches predict the same classes.

    >>> network = UNetPlusPlus(bands=3, classes=2, encoder="plain", encoder_widths=[8, 16, 32])
    >>> tuple(network(torch.rand(1, 3, 100, 120)).shape)
    (1, 2, 100, 120)
    >>> sorted(network.branches(torch.rand(1, 3, 100, 120)))
    [1, 2]
    """

    def __init__(
        self, *, bands: int, classes: int, encoder: str = "resnet18", weights: str | Weights | None = None,
        band_names: tuple[str, ...] = (), **options: Any,
    ) -> None:  # fmt: skip
        chosen, plain = UNetPlusPlusOptions.of(options), encoder == PLAIN
        built = encoder_of(encoder, bands, weights, band_names, chosen)
        if chosen.cell and chosen.cell % built.multiple:
            raise NetworkError(f"cell is {chosen.cell}. Expected a multiple of {built.multiple}.")
        super().__init__(chosen.cell or built.multiple, {CLASSES: classes})
        self.encoder = built
        self.deepest = len(built.channels) - 1
        """Number of the deepest branch."""
        _require_branches(self.deepest, chosen, encoder)
        _require_branch_weights(self.deepest, chosen)
        self.branch = chosen.branch
        self.branch_weights = chosen.branch_weights
        chosen_widths = chosen.widths or (built.channels if plain else BACKBONE_WIDTHS)
        widths = [chosen_widths[min(scale, len(chosen_widths) - 1)] for scale in range(self.deepest + 1)]
        mode = chosen.upsampling or ("transposed" if plain else "nearest")
        self.up, self.nodes = nn.ModuleDict(), nn.ModuleDict()
        for i, j in _decoder_nodes(self.deepest):
            below = widths[i + 1] if j > 1 else built.channels[i + 1]
            up = Upsample((below, widths[i]), built.reductions[i + 1] // built.reductions[i], mode)
            into = built.channels[i] + (j - 1) * widths[i] + up.channels
            self.up[f"{i}_{j}"], self.nodes[f"{i}_{j}"] = up, DoubleConv((into, widths[i]), chosen)
        supervised = range(1, self.deepest + 1) if chosen.deep_supervision else [self.deepest]
        self.heads = nn.ModuleDict({str(j): _head(widths[0], classes, built.reductions[0]) for j in supervised})

    def forward_padded(self, images: Tensor) -> Tensor:
        """Logits of one branch, or the mean of the logits of all branches."""
        logits = self._branches(images, upto=self.branch)
        return logits[self.branch] if self.branch else torch.stack(list(logits.values())).mean(0)

    def branches(self, images: Tensor) -> dict[int, Tensor]:
        """Logits (B, K, H, W) of each trained branch by its number."""
        height, width = images.shape[-2:]
        branches = self._of_padded(self._branches, images)
        return {branch: self.class_logits(logits[..., :height, :width]) for branch, logits in branches.items()}

    def training_loss(
        self,
        images: Tensor,
        labels: Tensor,
        criterion: Criterion,
        objects: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Mean of the branches' losses, weighted by `branch_weights` if given."""
        losses = [criterion(logits, labels) for logits in self.branches(images).values()]
        weights = self.branch_weights or (1.0,) * len(losses)
        return torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum() / sum(weights)

    def _branches(self, images: Tensor, *, upto: int | None = None) -> dict[int, Tensor]:
        upto = upto or self.deepest
        rows = [[x] for x in self.encoder(images)]
        for i, j in _decoder_nodes(upto):
            node = f"{i}_{j}"
            below = self.up[node](rows[i + 1][j - 1])
            rows[i].append(self.nodes[node](torch.cat([*rows[i], below], dim=1)))
        return {int(j): head(rows[0][int(j)]) for j, head in self.heads.items() if int(j) <= upto}


def _head(channels: int, classes: int, factor: int) -> nn.Module:
    """The paper's 1 x 1 convolution, or sub-pixel convolution if the finest features are `factor` times smaller.

    Sub-pixel convolution is a 3 x 3 convolution to factor^2 channels a class, which are rearranged into pixels (Shi et
    al. 2016, arXiv:1609.05158).
    """
    if factor == 1:
        return nn.Conv2d(channels, classes, kernel_size=1)
    return nn.Sequential(nn.Conv2d(channels, classes * factor**2, kernel_size=3, padding=1), nn.PixelShuffle(factor))


def _decoder_nodes(deepest: int) -> list[tuple[int, int]]:
    """The nodes (i, j) with j > 0, each after its inputs."""
    return [(i, j) for j in range(1, deepest + 1) for i in range(deepest + 1 - j)]


def _require_branch_weights(deepest: int, chosen: UNetPlusPlusOptions) -> None:
    branches, weights = deepest if chosen.deep_supervision else 1, chosen.branch_weights
    if weights and (len(weights) != branches or not sum(weights)):
        raise NetworkError(
            f"branch_weights are {list(weights)}, but this UNet++ trains {branches} branches. "
            "Expected one number for each branch, not all 0."
        )


def _require_branches(deepest: int, chosen: UNetPlusPlusOptions, encoder: str) -> None:
    if deepest < 1:
        raise NetworkError(f"'{encoder}' has one scale at this depth, UNet++ needs two. Choose a larger depth.")
    if len(chosen.widths) > deepest + 1:
        raise WithoutEffectError(
            f"there are {len(chosen.widths)} widths, but '{encoder}' has {deepest + 1} scales at this depth. "
            "Give at most one width for each scale.",
            widths=chosen.widths[: deepest + 1],
        )
    if chosen.branch is not None and (chosen.branch > deepest or not chosen.deep_supervision):
        trained = f"1 to {deepest}" if chosen.deep_supervision else f"{deepest} alone"
        raise NetworkError(f"branch is {chosen.branch}, but this UNet++ trains branch {trained}. Choose one of them.")


def pruned(network: UNetPlusPlus, branch: int) -> UNetPlusPlus:
    """The part of a UNet++ that one branch needs. Law: its logits are those of the branch, bit by bit.

    Args:
        network: built by `nn.build` with deep supervision.
        branch: 1 (the smallest) to `network.deepest`.

    Raises:
        NetworkError: that branch was not trained.
    """
    if str(branch) not in network.heads:
        trained = ", ".join(network.heads)
        raise NetworkError(f"branch is {branch}, but this UNet++ has trained branch {trained}. Choose one of them.")
    arguments = dict(network.built_from)
    arguments.pop("architecture")
    halvings = network.encoder.reductions[branch].bit_length() - 1
    if arguments.get("widths"):
        arguments["widths"] = tuple(arguments["widths"])[: branch + 1]
    if network.encoder.widths:
        arguments["encoder_widths"] = network.encoder.widths[: branch + 1]
    arguments |= {
        "depth": halvings,
        "deep_supervision": False,
        "branch": None,
        "branch_weights": (),
        "cell": network.reduction,
    }
    small = UNetPlusPlus(**arguments)
    small.built_from = {"architecture": "unetplusplus", **arguments}
    state = network.state_dict()
    small.load_state_dict({name: state[name] for name in small.state_dict()})
    small.train(network.training)
    return small if small.head_channels == network.head_channels else small.for_two_classes()
