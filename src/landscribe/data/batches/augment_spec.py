"""The settings of augmentation, in a module of their own so that reading a recipe does not import torch."""

from typing import Literal

from pydantic import Field

from landscribe.spec import Spec


class AugmentSpec(Spec):
    """How chips are changed in training. What is left out is as the preset has it; 0 is off."""

    preset: Literal["none", "light", "standard", "strong"] = "light"
    """none; light: flips and quarter turns; standard: tones too; strong: all but mixtures, mosaics, medians and swapped
    bands."""
    symmetries: bool | None = None
    """Flips and quarter turns."""
    rotation: float | None = Field(None, ge=0, le=180)
    """Largest rotation to either side, in degrees. Corners that nothing covers are not known."""
    scale: float | None = Field(None, ge=0, lt=1)
    """Largest share that chips are enlarged or shrunk by."""
    shift: float | None = Field(None, ge=0, lt=1)
    """Largest shift, as a share of the side."""
    brightness: float | None = Field(None, ge=0)
    """Largest change of all pixels, in standard deviations of the chip."""
    contrast: float | None = Field(None, ge=0, lt=1)
    """Largest share that differences from the chip's mean grow or shrink by."""
    saturation: float | None = Field(None, ge=0, lt=1)
    """Largest share that differences between the bands grow or shrink by."""
    gamma: float | None = Field(None, ge=0, lt=1)
    """Largest change of the exponent that pixels between the chip's darkest and brightest are raised to."""
    noise: float | None = Field(None, ge=0)
    """Largest deviation of Gaussian noise, in standard deviations of the chip."""
    blur: float | None = Field(None, ge=0, le=1)
    """Chance of a Gaussian blur."""
    median: float | None = Field(None, ge=0, le=1)
    """Chance of a median filter."""
    sharpen: float | None = Field(None, ge=0, le=1)
    """Chance of sharpening."""
    band_dropout: float | None = Field(None, ge=0, le=1)
    """Chance that one band, of several, becomes its own mean."""
    band_swap: float | None = Field(None, ge=0, le=1)
    """Chance that two bands change places."""
    cutmix: float | None = Field(None, ge=0, le=1)
    """Chance that a rectangle is taken from another chip (Yun et al. 2019, arXiv:1905.04899)."""
    mixup: float | None = Field(None, ge=0, le=1)
    """Chance that the chips of a batch are mixed with one another (Zhang et al. 2018, arXiv:1710.09412)."""
    mosaic: float | None = Field(None, ge=0, le=1)
    """Chance that a chip is put together from quarters of four (Bochkovskiy et al. 2020, arXiv:2004.10934)."""

    @property
    def changes_anything(self) -> bool:
        """False if every transform is off."""
        return any(self.strength(name) for name in type(self).model_fields if name != "preset")

    def strength(self, name: str) -> float:
        """The setting, or the preset's value if it is left out."""
        given = getattr(self, name)
        return float(PRESETS[self.preset].get(name, 0) if given is None else given)


PRESETS: dict[str, dict[str, float]] = {
    "none": {},
    "light": {"symmetries": 1},
    "standard": {"symmetries": 1, "brightness": 0.3, "contrast": 0.2, "gamma": 0.2, "saturation": 0.2},
    "strong": {
        "symmetries": 1, "rotation": 45, "scale": 0.25, "shift": 0.1, "brightness": 0.5, "contrast": 0.4, "gamma": 0.4,
        "saturation": 0.4, "noise": 0.1, "blur": 0.1, "sharpen": 0.1, "band_dropout": 0.05, "cutmix": 0.25,
    },
}  # fmt: skip
