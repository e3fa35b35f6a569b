"""UNet++: UNets of every depth inside one another, sharing an encoder.

Zhou et al. 2018, "UNet++: A Nested U-Net Architecture for Medical Image Segmentation", arXiv:1807.10165; accurate
and fast mode and pruning as in Zhou et al. 2020, arXiv:1912.05074. Node (i, j) stands at scale i (0 is the finest)
and has j nodes of its scale before it. Node (i, 0) is the encoder's; every other convolves all nodes before it at its
scale together with node (i + 1, j - 1), upsampled. Node (0, j) is what a UNet of depth j would end in: branch j.
"""

from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn

from landscribe.errors import NetworkError
from landscribe.nn.architectures.blocks import Channels, DoubleConv, Interpolation, Upsample
from landscribe.nn.encoders.encoder import PLAIN, EncoderStyle, encoder_of
from landscribe.nn.segmentation import Criterion, Segmentation

BACKBONE_WIDTHS = (32, 64, 128, 256, 512)
"""Of the nodes on a timm backbone, fine to coarse."""


class UNetPlusPlusOptions(EncoderStyle):
    """What of a UNet++ can be chosen."""

    widths: tuple[Channels, ...] = ()
    """Channels of the nodes at each scale, fine to coarse; the last is repeated. If left out, those of the plain
    encoder, or 32, 64, 128, 256 on a backbone."""
    upsampling: Interpolation | Literal["transposed"] | None = None
    """How nodes come up a scale: by 2 x 2 transposed convolution (the plain encoder's default), or by nearest (a
    backbone's default), bilinear or bicubic interpolation."""
    deep_supervision: bool = True
    """Train every branch with a loss of its own; otherwise the deepest alone."""
    branch_weights: tuple[NonNegativeFloat, ...] = ()
    """How much each branch's loss counts, the smallest branch first; all alike if left out."""
    branch: int | None = Field(None, ge=1)
    """The branch that answers (fast mode); the mean of all of them if left out (accurate mode). `prune` leaves out what
    that branch does not need, of the encoder too."""
    cell: int | None = Field(None, ge=1)
    """Pixels to a multiple of which images are padded, where a pruned network keeps to what it was cut from."""


class UNetPlusPlus(Segmentation):
    """(B, C, H, W) to logits (B, K, H, W)."""

    def __init__(
        self, *, bands: int, classes: int, encoder: str = "resnet18", weights: str | None = None,
        band_names: tuple[str, ...] = (), **options: Any,
    ) -> None:  # fmt: skip
        chosen, plain = UNetPlusPlusOptions.of(options), encoder == PLAIN
        made = encoder_of(encoder, bands, weights, band_names, chosen)
        if chosen.cell and chosen.cell % made.reductions[-1]:
            raise NetworkError(f"cell is {chosen.cell}. A multiple of {made.reductions[-1]} was expected.")
        super().__init__(chosen.cell or made.reductions[-1])
        self.encoder = made
        self.deepest = len(made.channels) - 1
        """How many branches there are."""
        _require_branches(self.deepest, chosen, encoder)
        _require_branch_weights(self.deepest, chosen)
        self.branch = chosen.branch
        self.branch_weights = chosen.branch_weights
        chosen_widths = chosen.widths or (made.channels if plain else BACKBONE_WIDTHS)
        widths = [chosen_widths[min(scale, len(chosen_widths) - 1)] for scale in range(self.deepest + 1)]
        mode = chosen.upsampling or ("transposed" if plain else "nearest")
        self.up, self.nodes = nn.ModuleDict(), nn.ModuleDict()
        for i, j in _places(self.deepest):
            below = widths[i + 1] if j > 1 else made.channels[i + 1]
            up = Upsample((below, widths[i]), made.reductions[i + 1] // made.reductions[i], mode)
            into = made.channels[i] + (j - 1) * widths[i] + up.channels
            self.up[f"{i}_{j}"], self.nodes[f"{i}_{j}"] = up, DoubleConv((into, widths[i]), chosen)
        supervised = range(1, self.deepest + 1) if chosen.deep_supervision else [self.deepest]
        self.heads = nn.ModuleDict({str(j): _head(widths[0], classes, made.reductions[0]) for j in supervised})

    def predicted(self, images: Tensor) -> Tensor:
        """Logits of one branch, or the mean of the logits of all."""
        logits = self._branches(images, upto=self.branch or self.deepest)
        return logits[self.branch] if self.branch else torch.stack(list(logits.values())).mean(0)

    def branches(self, images: Tensor) -> dict[int, Tensor]:
        """Logits (B, K, H, W) of each branch that was trained, by its number."""
        height, width = images.shape[-2:]
        logits = self._branches(self.whole_cells(images), upto=self.deepest)
        return {branch: some[..., :height, :width] for branch, some in logits.items()}

    def training_loss(self, images: Tensor, labels: Tensor, criterion: Criterion) -> Tensor:
        """Mean over the branches of each one's own loss, weighted if they are not to count alike."""
        losses = torch.stack([criterion(logits, labels) for logits in self.branches(images).values()])
        weights = losses.new_tensor(self.branch_weights or [1.0] * len(losses))
        return (weights * losses).sum() / weights.sum()

    def _branches(self, images: Tensor, *, upto: int) -> dict[int, Tensor]:
        rows = [[x] for x in self.encoder(images)]
        for i, j in _places(upto):
            place = f"{i}_{j}"
            below = self.up[place](rows[i + 1][j - 1])
            rows[i].append(self.nodes[place](torch.cat([*rows[i], below], dim=1)))
        return {int(j): head(rows[0][int(j)]) for j, head in self.heads.items() if int(j) <= upto}


def _head(channels: int, classes: int, cell: int) -> nn.Module:
    """The paper's 1 x 1 convolution; where the finest scale is coarser than the image, one for each pixel of a cell.

    These are 3 x 3 convolutions, whose logits are set side by side (Shi et al. 2016, arXiv:1609.05158).
    """
    if cell == 1:
        return nn.Conv2d(channels, classes, kernel_size=1)
    return nn.Sequential(nn.Conv2d(channels, classes * cell**2, kernel_size=3, padding=1), nn.PixelShuffle(cell))


def _places(deepest: int) -> list[tuple[int, int]]:
    """The nodes (i, j) that the encoder does not make, each after all that it takes from."""
    return [(i, j) for j in range(1, deepest + 1) for i in range(deepest + 1 - j)]


def _require_branch_weights(deepest: int, chosen: UNetPlusPlusOptions) -> None:
    branches, weights = deepest if chosen.deep_supervision else 1, chosen.branch_weights
    if weights and (len(weights) != branches or not sum(weights)):
        raise NetworkError(
            f"branch_weights are {list(weights)}, but this UNet++ trains {branches} branches. "
            "One number for each, not all of them 0, was expected."
        )


def _require_branches(deepest: int, chosen: UNetPlusPlusOptions, encoder: str) -> None:
    if deepest < 1:
        raise NetworkError(f"'{encoder}' has one scale at this depth. UNet++ needs two: choose a larger depth.")
    if chosen.branch is not None and (chosen.branch > deepest or not chosen.deep_supervision):
        trained = f"1 to {deepest}" if chosen.deep_supervision else f"{deepest} alone"
        raise NetworkError(f"branch {chosen.branch} was asked for, but this UNet++ trains branch {trained}.")


def pruned(network: UNetPlusPlus, branch: int) -> UNetPlusPlus:
    """The part of a UNet++ that one branch needs, with the same answer as that branch.

    Args:
        network: made by `nn.build`, with deep supervision.
        branch: 1 (the smallest) to `network.deepest`.

    Raises:
        NetworkError: that branch was not trained.
    """
    if str(branch) not in network.heads:
        known = ", ".join(network.heads)
        raise NetworkError(f"branch {branch} was asked for, but this UNet++ has trained {known}. Choose one of them.")
    arguments = dict(network.built_from)
    arguments.pop("architecture")
    halvings = network.encoder.reductions[branch].bit_length() - 1
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
    return small.train(network.training)
