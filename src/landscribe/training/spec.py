"""The settings of training. Kept apart from the training itself, so that reading a recipe needs no torch."""

from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, field_validator, model_validator

from landscribe.spec import Spec

DEFAULT_EPOCHS = 20
DEFAULT_LEAST_STEPS = 200

ScalingName = Literal["auto", "range", "percentiles", "standardise"]

WITHOUT_EFFECT = {"workers", "log", "devices", "precision"}
"""Settings that do not decide which weights come out; of the precision, what it stands for on this machine does."""

RESERVED = {
    "encoder": "write it as train.encoder (--encoder)",
    "weights": "write it as train.weights (--weights)",
    "bands": "the chips have it",
    "classes": "the chips have it",
    "band_names": "the chips have it",
}
"""What `nn.build` takes that is no option of an architecture, and where it comes from."""


class TrainSpec(Spec):
    """How a network is trained."""

    architecture: str = "unet"
    """Name of the network: fcn, unet, unetplusplus, deeplabv3plus, unet_id, smp:Name, or module:Class."""
    encoder: str = "resnet18"
    """Name of a timm backbone, or plain for the encoder that the architecture's paper draws."""
    weights: str = "auto"
    """auto (ImageNet when it can be had within seconds, else none), imagenet, none, or a file of weights."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The architecture's own options."""
    epochs: int | None = Field(None, ge=1)
    """Passes over the training chips. Without epochs, steps and minutes: 20, but at least 200 steps."""
    steps: int | None = Field(None, ge=1)
    """Steps of the optimiser, instead of epochs."""
    minutes: float | None = Field(None, gt=0)
    """Wall-clock time, instead of epochs. The result then depends on the machine's speed."""
    batch: int = Field(8, ge=1)
    """Chips a batch, those of all devices together."""
    accumulate: int = Field(1, ge=1)
    """Batches a step of the optimiser: the mean of their gradients, as of one batch that memory has no room for."""
    learning_rate: float | Literal["auto"] = 2e-3
    """Highest rate of the schedule; auto tries rates on the training chips (Smith 2017, arXiv:1506.01186)."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), or SGD with a momentum of 0.9."""
    schedule: Literal["one_cycle", "cosine", "constant", "plateau"] = "one_cycle"
    """Of the learning rate: a rise and a fall to 0, the fall alone, no change, or half of it whenever the mean F1 of
    the validation chips has not risen for four epochs."""
    gradient_clip: float = Field(1.0, ge=0)
    """Largest norm of the gradient; 0 does not limit it."""
    patience: int | None = Field(None, ge=1)
    """Stop after as many epochs without a better one; never if left out."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Share of itself that a running average of the weights keeps at each step, for example 0.999: the model then has
    these (Tarvainen & Valpola 2017, arXiv:1703.01780); 0 takes the weights themselves."""
    keep: Literal["best", "last"] = "best"
    """Which weights become the model: of the epoch with the highest mean F1 on the validation chips, or of the last."""
    encoder_rate: float = Field(1.0, gt=0, le=1)
    """Share of the learning rate that the encoder learns with, for example 0.1 from pretrained weights."""
    freeze: tuple[str, ...] = ()
    """Parts that do not learn: encoder, or stages of it by name (landscribe summary lists them), such as layer1."""
    freeze_until: float = Field(1.0, gt=0, le=1)
    """Share of the training after which frozen parts learn too; 1 keeps them frozen to the end."""
    weight_decay: float = Field(1e-2, ge=0)
    """Of the optimiser."""
    scaling: ScalingName = "auto"
    """From stored pixels to what the network sees: the type's range to 0 and 1 (range), the training chips' 2nd and
    98th percentile to -1 and 1 (percentiles), or to mean 0 and deviation 1 (standardise); auto takes the range for
    uint8, percentiles for other whole numbers, standardise for floating ones."""
    loss: str = "dice + ce"
    """A loss, or a sum such as 0.5*dice + 0.5*ce."""
    class_weights: Literal["none", "inverse", "median", "effective"] | tuple[NonNegativeFloat, ...] = "none"
    """How much a pixel of each class counts in the loss: one number for each class in the table's order, or from how
    many pixels there are (inverse frequency, median frequency, effective number)."""
    sampling: Literal["all", "balanced", "label_windows"] = "all"
    """Each epoch takes every chip once (all), chips with rare classes more often (balanced), or windows around what is
    labelled, each class as often as the others (label_windows)."""
    background: float | None = Field(None, ge=0, le=1)
    """Largest share of chips that hold nothing but background; as many as there are if left out."""
    workers: int | None = Field(None, ge=0)
    """Processes that read chips; 0 reads in the main one. By the machine if left out."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """Bits that the network computes with: 32, bf16, 16 (CUDA only), or auto, bf16 on GPUs that can and else 32."""
    devices: int | Literal["auto"] = "auto"
    """GPUs, or processes on a CPU, that train together; auto is 1, or as many as torchrun or SLURM started. They share
    each batch; losses over regions (dice and its kin) are of each one's part."""
    log: str | None = None
    """Folder for a log of losses, rates and F1: CSV, and TensorBoard's where that is installed. None if left out."""

    @field_validator("precision", mode="before")
    @classmethod
    def _bits_are_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("learning_rate", "devices", mode="before")
    @classmethod
    def _auto_or_above_zero(cls, value: Any) -> Any:
        try:
            usable = value == "auto" or float(value) > 0
        except (TypeError, ValueError):
            usable = False
        if not usable:
            raise ValueError("input should be greater than 0, or auto")
        return value

    @model_validator(mode="after")
    def _options_are_of_the_architecture(self) -> Self:
        taken = [name for name in RESERVED if name in self.options]
        if taken:
            raise ValueError(
                f"options holds '{taken[0]}', which is no option of the architecture; {RESERVED[taken[0]]}"
            )
        return self

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        given = [name for name in ("epochs", "steps", "minutes") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are both given; give one of them")
        return self

    def placed(self, absolute: Callable[[str], str]) -> Self:
        """The same settings with their paths made absolute."""
        weights = self.weights if self.weights in ("auto", "imagenet", "none") else absolute(self.weights)
        return self.model_copy(update={"weights": weights, "log": self.log and absolute(self.log)})

    def total_steps(self, steps_an_epoch: int) -> int | None:
        """Steps until the end; None when time decides."""
        if self.minutes is not None:
            return None
        if self.steps is not None:
            return self.steps
        if self.epochs is not None:
            return self.epochs * steps_an_epoch
        epochs = max(DEFAULT_EPOCHS, -(-DEFAULT_LEAST_STEPS // steps_an_epoch))
        return epochs * steps_an_epoch
