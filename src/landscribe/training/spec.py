"""The settings of training. Loads pydantic only, so that a recipe or a command's help needs no torch."""

import hashlib
import math
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from landscribe.spec import (
    AlsoCalled,
    CommaList,
    Count,
    Flag,
    FractionText,
    InputPath,
    NamedValues,
    Spec,
    TextMark,
    words,
)

EFFORT_STEPS = {"quick": 200, "standard": 2000, "thorough": 10_000}
"""Optimizer steps by effort."""
_MOST_EPOCHS, _LEAST_EPOCHS = 50, 5
"""Of a budget in steps: it is validated at least and at most so many times."""

ScalingName = Literal["auto", "range", "percentiles", "standardise"]

WITHOUT_EFFECT = {"workers", "log", "devices", "precision"}
"""Settings that do not change the weights. Of the precision, only its value on this machine changes them."""

RESERVED = {
    "encoder": "write it as train.encoder (--encoder)",
    "weights": "write it as train.weights (--weights)",
    "weights_bands": "write it as train.weights_bands (--weights-bands)",
    "bands": "the chips have it",
    "classes": "the chips have it, and classes = 1 is one logit for two classes",
    "band_names": "the chips have it",
}
"""Arguments of `nn.build` that are not options of an architecture, and their sources."""


def _weights(value: Any) -> Any:
    """Split numbers at commas; a name such as "median" stays."""
    return value.split(",") if isinstance(value, str) and any(sign.isdigit() for sign in value) else value


def with_weights_of(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """`decisive` settings of an earlier training, with the weights of now if these are the same, their file being gone.

    >>> with_weights_of({"weights": "w.pth, sha256 ab12"}, {"weights": "folder/w.pth"})
    {'weights': 'folder/w.pth'}
    >>> with_weights_of({"weights": "w.pth, sha256 ab12"}, {"weights": "imagenet"})
    {'weights': 'w.pth, sha256 ab12'}
    """
    weights = str(now["weights"])
    is_gone = ", sha256 " not in weights
    is_same = is_gone and str(before.get("weights")).rpartition(", sha256 ")[0] == Path(weights).name
    return before | {"weights": now["weights"]} if is_same else before


class TrainSpec(Spec):
    """How a network is trained."""

    architecture: Annotated[
        str, words(**{"u-net": "unet", "unet++": "unetplusplus", "deeplabv3+": "deeplabv3plus"})
    ] = "unet"
    """Network: fcn, unet, unetplusplus, deeplabv3plus, unet_id, smp:Name or module:Class."""
    encoder: Annotated[str, AlsoCalled("backbone")] = "resnet18"
    """Name of a timm backbone, or plain for the encoder of the architecture's paper."""
    weights: Literal["auto", "imagenet", "none"] | InputPath = "auto"
    """Initial weights; auto is imagenet if available within seconds, otherwise none."""
    weights_bands: Annotated[tuple[str, ...], CommaList] = ()
    """Bands of a file of weights, in its order, such as B02,B03,B04,B08 or red,green,nir; or a table of a known file:
    sentinel2-13 (SSL4EO-S12), sentinel2-13-softcon, sentinel2-12, sentinel2-rgb, sentinel2-9-satlas,
    sentinel2-rgb-satlas, sentinel1, bigearthnet-s2-v0.2.0 (also -s1-, -all-, and v0.1.1), landsat5-tm-toa,
    landsat7-etm-toa, landsat7-etm-sr, landsat8-oli-tirs-toa, landsat8-oli-sr. Default: red, green, blue."""
    options: Annotated[dict[str, Any], NamedValues, Flag("--option")] = Field(default_factory=dict)
    """Option of the architecture, as NAME=VALUE with a TOML value; repeat for more. classes=1 gives two classes one
    logit and a sigmoid."""
    effort: Literal["auto", "quick", "standard", "thorough"] = "auto"
    """How long to train: quick, 200 steps; standard, 2000; thorough, 10000 ("landscribe check" says the minutes on this
    machine). auto: standard with a GPU, otherwise quick."""
    steps: Count | None = None
    """Optimizer steps, instead of an effort. An epoch is a pass over the training ground, but between a fifth and a
    fiftieth of the steps."""
    epochs: Count | None = None
    """Passes over the training ground, instead of an effort."""
    minutes: float | None = Field(None, gt=0, le=10**6)
    """Wall-clock minutes, instead of an effort. The weights then depend on the machine's speed."""
    batch: Annotated[Annotated[int, Field(ge=1, le=2**16)] | Literal["auto"], AlsoCalled("batch_size")] = 8
    """Chips per batch, over all devices; auto is the largest power of two up to 64 whose step needs at most 0.6 of a
    CUDA GPU's memory, and 8 without one. An effort's steps and the learning rate do not change with it: with 64
    chips, they take up to eight times as long as with 8."""
    accumulate: int = Field(1, ge=1, le=2**16)
    """Gradient accumulation: batches per optimizer step. Gradients are averaged as for one large batch."""
    learning_rate: Annotated[Annotated[float, Field(gt=0, le=1000)] | Literal["auto"], AlsoCalled("lr")] = 2e-3
    """Peak learning rate; auto runs a learning-rate range test on the training chips (Smith 2017, arXiv:1506.01186)."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Optimizer: AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), or SGD with momentum 0.9."""
    schedule: Literal["one_cycle", "cosine", "constant", "plateau"] = "one_cycle"
    """Learning-rate schedule. one_cycle: warm-up and decay to 0; cosine: decay to 0; plateau: halved if the mean F1 of
    the validation chips has not risen for four epochs."""
    gradient_clip: float = Field(1.0, ge=0, le=1e9)
    """Maximum gradient norm; 0 turns clipping off."""
    patience: Count | None = None
    """Early stopping: epochs without improvement. Default: no early stopping."""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Decay of the weight EMA, such as 0.999; 0 turns it off. The model gets the averaged weights (Tarvainen & Valpola
    2017, arXiv:1703.01780)."""
    checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint to keep: the best epoch, by mean F1 on the validation chips, or the last."""
    encoder_lr_factor: float = Field(1.0, gt=0, le=1)
    """Learning-rate factor for the encoder, such as 0.1 with pretrained weights."""
    freeze: Annotated[tuple[str, ...], CommaList] = ()
    """Layers to freeze: encoder, or stages of it such as layer1 (landscribe summary lists them)."""
    freeze_until: float = Field(1.0, gt=0, le=1)
    """Fraction of the training after which frozen layers are unfrozen; 1 keeps them frozen."""
    weight_decay: float = Field(1e-2, ge=0, le=1000)
    """Weight decay of the optimizer."""
    scaling: ScalingName = "auto"
    """Scaling of the input. range: the range of the data type to 0..1; percentiles: the 2nd and 98th percentile of the
    training chips to -1..1; standardise: zero mean and unit variance. auto: that of the pretrained weights where it is
    known; otherwise range for uint8, percentiles for other integers, standardise for floats."""
    loss: str = Field("dice + ce", max_length=500)
    """Loss, or a weighted sum such as "0.5*dice + 0.5*ce". Losses: ce, bce, focal, dice, jaccard, focal_dice, tversky,
    focal_tversky, unified_focal, lovasz."""
    class_weights: Annotated[
        Literal["none", "inverse", "median", "effective"] | tuple[Annotated[float, Field(ge=0, le=1e9)], ...],
        BeforeValidator(_weights),
    ] = "none"
    """Class weights in the loss: none, inverse (inverse frequency), median (median frequency), effective (effective
    number), or one number per class, in the order of the class table."""
    sampling: Literal["auto", "windows", "all", "balanced", "label_windows"] = "auto"
    """What the network trains on. windows: windows at random positions of the training ground, its middle about twice
    as often as its border; all: every chip once a pass; balanced: chips with rare classes more often; label_windows:
    windows around labelled pixels, each class equally often. auto: windows, but for chips with object numbers whose
    scenes cannot be read all."""
    background: Annotated[float | None, FractionText, TextMark()] = Field(None, ge=0, le=1)
    """Maximum fraction of chips with background only among those that are trained on; the chips folder keeps all.
    Default: no limit."""
    workers: int | None = Field(None, ge=0, le=1024)
    """Processes that read chips; 0 reads in a thread. Default: 0 without a GPU, or if the chips fit in an eighth of the
    memory; otherwise by the number of cores."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """Floating-point precision: 32 (convolutions of CUDA GPUs in TF32), bf16, or 16 (CUDA only); auto is bf16 on GPUs
    and CPUs that support it, otherwise 32."""
    compile: bool = False
    """Compile the network (torch.compile; on a GPU, CUDA graphs), unless it is trained by several heads or processes.
    The first step takes up to a minute on a GPU and minutes on a CPU, later ones less time: it may pay from some
    thousand steps."""
    devices: Annotated[int, Field(ge=1, le=2**16)] | Literal["auto"] = "auto"
    """Number of GPUs, or of processes on a CPU; auto is 1, or as many as torchrun or SLURM started. The devices share
    each batch; region losses (dice and similar) are computed on each device's part."""
    # torchrun reads --log as an abbreviation of an option of its own.
    log: Annotated[InputPath | None, Flag("--log", "--log-folder")] = None
    """Folder for a log of loss, learning rate and F1 as CSV, and for TensorBoard if it is installed."""

    @field_validator("precision", mode="before")
    @classmethod
    def _bits_are_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _options_are_of_the_architecture(self) -> Self:
        is_one_logit = self.options.get("classes") == 1
        taken = [name for name in RESERVED if name in self.options and not (name == "classes" and is_one_logit)]
        if taken:
            raise ValueError(
                f"options has '{taken[0]}', which is not an option of the architecture; {RESERVED[taken[0]]}"
            )
        return self

    @model_validator(mode="after")
    def _named_bands_are_of_a_file(self) -> Self:
        if self.weights_bands and self.weights in ("auto", "imagenet", "none"):
            raise ValueError(f"weights_bands names the bands of a file of weights, but weights is '{self.weights}'")
        return self

    @model_validator(mode="after")
    def _frozen_layers_thaw(self) -> Self:
        if self.freeze_until < 1 and not self.freeze:
            raise ValueError(
                f"freeze_until is {self.freeze_until:g}, but no layers are frozen; name them (freeze), or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        given = [name for name in ("epochs", "steps", "minutes") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are both given; give one of them")
        return self

    @property
    def decisive(self) -> dict[str, Any]:
        """The settings that decide the weights, for a fingerprint; a file of weights by its name and content."""
        fields = self.model_dump(mode="json", exclude=WITHOUT_EFFECT)
        if self.weights not in ("auto", "imagenet", "none"):
            # A file that is gone is not needed to resume, and refused when a network is built: `with_weights_of`.
            with suppress(OSError), Path(self.weights).open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                fields["weights"] = f"{Path(self.weights).name}, sha256 {sha256[:16]}"
        return fields

    @property
    def learns_objects(self) -> bool:
        """True if the network learns from the object numbers of chips."""
        return self.architecture == "unet_id"

    def resolved(self, *, has_gpu: bool, batch: int = 8) -> Self:
        """The settings with the effort and the batch that a machine takes for auto.

        Args:
            has_gpu: decides the effort.
            batch: that a GPU holds.
        """
        effort = "standard" if has_gpu else "quick"
        chosen = {"effort": effort, "batch": batch}
        return self.model_copy(update={name: value for name, value in chosen.items() if getattr(self, name) == "auto"})

    @property
    def chips_a_batch(self) -> int:
        """The batch, of resolved settings."""
        assert self.batch != "auto"
        return self.batch

    def steps_a_pass(self, chips: int) -> int:
        """Optimizer steps over this many chips or windows, of resolved settings."""
        batches = math.ceil(chips / self.chips_a_batch)
        return math.ceil(batches / self.accumulate)

    def total_steps(self, steps_a_pass: int) -> int | None:
        """Optimizer steps of the whole training, of resolved settings; None for a budget in minutes.

        Args:
            steps_a_pass: over the training ground.
        """
        if self.minutes is not None:
            return None
        if self.epochs is not None:
            return self.epochs * steps_a_pass
        return self.steps or EFFORT_STEPS[self.effort]

    def steps_an_epoch(self, steps_a_pass: int) -> int:
        """Optimizer steps from one validation to the next: a pass, unless that is too short or long for the budget."""
        if self.minutes is not None or self.epochs is not None:
            return steps_a_pass
        total = self.steps or EFFORT_STEPS[self.effort]
        return max(math.ceil(total / _MOST_EPOCHS), min(steps_a_pass, math.ceil(total / _LEAST_EPOCHS)))

    def drawn_an_epoch(self, pass_length: int) -> int:
        """Windows or chips that an epoch draws, of resolved settings: a pass, or full batches for its steps.

        Args:
            pass_length: windows or chips of a pass.
        """
        steps_a_pass = self.steps_a_pass(pass_length)
        steps = self.steps_an_epoch(steps_a_pass)
        # A compiled network would be compiled again for a last batch of fewer chips.
        is_pass = steps == steps_a_pass and not self.compile
        return pass_length if is_pass else steps * self.chips_a_batch * self.accumulate

    def passes(self, pass_length: int) -> float | None:
        """Passes over the training ground in the whole training; None for a budget in minutes. As `drawn_an_epoch`."""
        steps_a_pass = self.steps_a_pass(pass_length)
        steps = self.total_steps(steps_a_pass)
        if steps is None:
            return None
        return steps / self.steps_an_epoch(steps_a_pass) * self.drawn_an_epoch(pass_length) / pass_length


class ModelsSpec(Spec):
    """Which models a run trains, besides one on the training chips."""

    folds: Annotated[int, Field(ge=3, le=1000)] | Literal["scenes", "groups"] | None = None
    """Cross-validation: number of spatial folds (at least 3), or leave one scene, or one group of scenes, out at
    a time. Each fold is assessed by a model that has not seen it, and all models together make the map. Default: one
    model, assessed on the test chips."""
    final: Literal["auto", "none", "all"] = "auto"
    """all: after the assessment, train a final model on all labelled ground, which makes the map; none: the assessed
    model makes it. auto: all if the training has more than 1000 steps and shows each pixel of the training ground more
    than 30 times, otherwise none; none with given splits, folds, several processes or schedule = plateau."""

    @model_validator(mode="after")
    def _require_one_kind(self) -> Self:
        if self.folds is not None and self.final == "all":
            raise ValueError(
                f"folds is {self.folds} and final is all; the models of the folds make the map together and have seen "
                "all labelled ground. Leave out one of the two"
            )
        return self
