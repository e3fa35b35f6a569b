"""The settings of augmentation. Loads pydantic only, so that a recipe or a command's help needs no torch."""

from typing import Annotated, Literal, Self

from pydantic import Field

from landscribe.spec import Flag, NoFlag, Spec

_LONG = {"passes": 30, "steps": 1000}
"""Above these, a training gains from changes of tone, and the map from a final model (docs/LOG.md, 2026-11-29 and
2026-11-30)."""
_MANY_PIXELS = 500_000_000
"""Drawn in a long training: with fewer ones strong augmentation lost, with more it was good on each data set."""
_IN_RECIPE = NoFlag("--augment takes a preset; single strengths are set in a recipe or in Python")


class AugmentSpec(Spec):
    """How chips are augmented in training. Settings that are left out come from the preset; 0 turns them off."""

    preset: Annotated[Literal["auto", "none", "light", "standard", "strong"], Flag("--augment")] = "auto"
    """Augmentation preset. light: flips and quarter turns; standard: also brightness, contrast, gamma and saturation;
    strong: all except mixup, mosaic, median and band_swap. auto: light, unless the training has more than 1000 steps
    and shows each pixel of the training ground more than 30 times; then standard, or strong if its batches have more
    than 500 million pixels in all (2000 steps of 8 chips have 262 million at 128 pixels, 1049 million at 256)."""
    symmetries: Annotated[bool | None, _IN_RECIPE] = None
    """Flips and quarter turns."""
    rotation: Annotated[float | None, _IN_RECIPE] = Field(None, ge=0, le=180)
    """Maximum rotation in degrees, to either side. Uncovered corners are ignored."""
    scale: Annotated[float | None, _IN_RECIPE] = Field(None, ge=0, lt=1)
    """Maximum relative change of scale, up or down."""
    shift: Annotated[float | None, _IN_RECIPE] = Field(None, ge=0, lt=1)
    """Maximum shift as a fraction of the side."""
    brightness: Annotated[float | None, _IN_RECIPE] = Field(None, ge=0, le=100)
    """Maximum change of brightness, in standard deviations of the chip."""
    contrast: Annotated[float | None, _IN_RECIPE] = Field(None, ge=0, lt=1)
    """Maximum relative change of the differences from the chip's mean."""
    saturation: Annotated[float | None, _IN_RECIPE] = Field(None, ge=0, lt=1)
    """Maximum relative change of the differences between the bands, each in its standard deviations in the chip."""
    gamma: Annotated[float | None, _IN_RECIPE] = Field(None, ge=0, lt=1)
    """Maximum change of the gamma exponent, on pixels scaled to the chip's range."""
    noise: Annotated[float | None, _IN_RECIPE] = Field(None, ge=0, le=100)
    """Maximum standard deviation of Gaussian noise, in standard deviations of the chip."""
    blur: Annotated[float | None, _IN_RECIPE] = Field(None, ge=0, le=1)
    """Probability of a Gaussian blur."""
    median: Annotated[float | None, _IN_RECIPE] = Field(None, ge=0, le=1)
    """Probability of a median filter."""
    sharpen: Annotated[float | None, _IN_RECIPE] = Field(None, ge=0, le=1)
    """Probability of sharpening."""
    band_dropout: Annotated[float | None, _IN_RECIPE] = Field(None, ge=0, le=1)
    """Probability that one of several bands is replaced by its mean."""
    band_swap: Annotated[float | None, _IN_RECIPE] = Field(None, ge=0, le=1)
    """Probability that two bands are swapped."""
    cutmix: Annotated[float | None, _IN_RECIPE] = Field(None, ge=0, le=1)
    """Probability that a rectangle is pasted from another chip (Yun et al. 2019, arXiv:1905.04899)."""
    mixup: Annotated[float | None, _IN_RECIPE] = Field(None, ge=0, le=1)
    """Probability that the chips of a batch are mixed (Zhang et al. 2018, arXiv:1710.09412)."""
    mosaic: Annotated[float | None, _IN_RECIPE] = Field(None, ge=0, le=1)
    """Probability that a chip is composed of quarters of four chips (Bochkovskiy et al. 2020, arXiv:2004.10934)."""

    def resolved(self, passes: float | None, steps: int | None, pixels: int) -> Self:
        """The settings with the preset that auto stands for.

        Args:
            passes: over the training ground; None if unknown.
            steps: of the optimizer; None if unknown.
            pixels: that a step draws.
        """
        if self.preset != "auto":
            return self
        long = "strong" if (steps or 0) * pixels > _MANY_PIXELS else "standard"
        return self.model_copy(update={"preset": long if is_long(passes, steps) else "light"})

    @property
    def changes_anything(self) -> bool:
        """False if every transform is off."""
        return any(self.strength(name) for name in type(self).model_fields if name != "preset")

    def strength(self, name: str) -> float:
        """The setting, or the preset's value if it is left out; auto counts as light until it is resolved."""
        given = getattr(self, name)
        return float(PRESETS[self.resolved(None, None, 0).preset].get(name, 0) if given is None else given)


def is_long(passes: float | None, steps: int | None) -> bool:
    """True if a training shows each pixel more than 30 times in more than 1000 steps; False if either is unknown."""
    return (passes or 0) > _LONG["passes"] and (steps or 0) > _LONG["steps"]


PRESETS: dict[str, dict[str, float]] = {
    "none": {},
    "light": {"symmetries": 1},
    "standard": {"symmetries": 1, "brightness": 0.3, "contrast": 0.2, "gamma": 0.2, "saturation": 0.2},
    "strong": {
        "symmetries": 1, "rotation": 45, "scale": 0.25, "shift": 0.1, "brightness": 0.5, "contrast": 0.4, "gamma": 0.4,
        "saturation": 0.4, "noise": 0.1, "blur": 0.1, "sharpen": 0.1, "band_dropout": 0.05, "cutmix": 0.25,
    },
}  # fmt: skip
