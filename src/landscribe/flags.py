"""The flags that commands share: what each is called, takes and does, and how its text is read."""

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from landscribe.errors import LandscribeError

Images = Annotated[
    list[str] | None,
    typer.Option("--image", help="Image of a scene; repeat for more scenes. Commas stack files as bands."),
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--labels", help="Polygons or label raster: one for all scenes, or repeat for each."),
]
Field = Annotated[str | None, typer.Option(help="Class column of the polygons; without it they are one class.")]
Nodata = Annotated[
    float | None,
    typer.Option(help="Nodata value of the imagery, instead of what it declares; nan for all that is not finite."),
]
Repair = Annotated[
    bool | None, typer.Option("--repair", help="Mend self-crossing polygons, leave out null and empty ones.")
]
LabelledArea = Annotated[
    str | None, typer.Option(help="Polygons outside of which nothing is known, whatever the labels hold there.")
]
Sparse = Annotated[
    bool | None, typer.Option("--sparse", help="Only what polygons cover is labelled; the rest is not known.")
]
Seed = Annotated[int | None, typer.Option(help="Of everything that chance decides.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where the result goes.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what stands there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
RecipePath = Annotated[
    Path | None, typer.Argument(help="Recipe (TOML), instead of --image and --labels.", show_default=False)
]

Size = Annotated[int | None, typer.Option(help="Side of a chip in pixels [256].")]
Stride = Annotated[int | None, typer.Option(help="Step between chips in pixels [the size].")]
Edge = Annotated[str | None, typer.Option(help="Chips at the edge: shift, pad or drop [shift].")]
Mode = Annotated[str | None, typer.Option(help="Which chips: all, positive or divided [all].")]
Format = Annotated[str | None, typer.Option(help="tif, png or jpg [tif].")]
Virtual = Annotated[bool | None, typer.Option("--virtual", help="Keep only the index; read windows from the scenes.")]
Val = Annotated[float | None, typer.Option(help="Share held out to choose the epoch by [0.15].")]
Test = Annotated[float | None, typer.Option(help="Share held out to assess with [0.15].")]
Gap = Annotated[int | None, typer.Option(help="Least pixels between chips of different splits [size / 4].")]
Block = Annotated[int | None, typer.Option(help="Side of the blocks that are held out, in pixels.")]

Architecture = Annotated[
    str | None,
    typer.Option(help="fcn, unet, unetplusplus, deeplabv3plus, unet_id, smp:Name or module:Class [unet]."),
]
Encoder = Annotated[str | None, typer.Option(help="Backbone, any of timm's, or plain for the paper's own [resnet18].")]
Weights = Annotated[str | None, typer.Option(help="auto, imagenet, none, or a file [auto].")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the chips [20, at least 200 steps].")]
Steps = Annotated[int | None, typer.Option(help="Batches, instead of epochs.")]
Minutes = Annotated[float | None, typer.Option(help="Wall-clock minutes, instead of epochs.")]
Batch = Annotated[int | None, typer.Option(help="Chips a step [8].")]
Option = Annotated[
    list[str] | None, typer.Option("--option", help="Of the architecture, NAME=VALUE as in TOML; repeat for more.")
]
Freeze = Annotated[str | None, typer.Option(help="Parts that do not learn: encoder, or stages, by commas.")]
FreezeUntil = Annotated[float | None, typer.Option(help="Share of the training after which they learn too [1].")]
EncoderRate = Annotated[float | None, typer.Option(help="Share of the learning rate for the encoder [1].")]
LearningRate = Annotated[float | None, typer.Option(help="Highest learning rate [0.002].")]
Loss = Annotated[str | None, typer.Option(help="A loss or a sum of losses [dice + ce].")]
ClassWeights = Annotated[
    str | None, typer.Option(help="none, inverse, median, effective, or a number for each class, by commas [none].")
]
Sampling = Annotated[str | None, typer.Option(help="all, or balanced: chips with rare classes more often [all].")]
Background = Annotated[float | None, typer.Option(help="Largest share of chips of nothing but background.")]
Augment = Annotated[
    str | None, typer.Option(help="Changes of chips: none, light, standard or strong; a recipe has more [light].")
]
Workers = Annotated[int | None, typer.Option(help="Processes that read chips [by the machine].")]

AnyPixelSize = Annotated[bool | None, typer.Option("--any-pixel-size", help="Map although the pixel size differs.")]
Tile = Annotated[int | None, typer.Option(help="Side of what the network reads at once, in pixels [1024].")]
Margin = Annotated[int | None, typer.Option(help="Pixels dropped around a tile [64].")]


def options_in(given: list[str] | None) -> dict[str, Any] | None:
    """NAME=VALUE with VALUE as TOML writes it; a word without quotes is text."""
    from landscribe.training.spec import RESERVED

    options: dict[str, Any] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise LandscribeError(f"--option {text} is not NAME=VALUE. Write it like --option depth=3.")
        if name.strip() in RESERVED:
            raise LandscribeError(f"--option {text} is no option of the architecture: {RESERVED[name.strip()]}.")
        try:
            options[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            options[name.strip()] = value.strip()
    return options or None


def parts_in(text: str | None) -> tuple[str, ...] | None:
    """Names by commas."""
    return None if text is None else tuple(part.strip() for part in text.split(","))


def weights_in(text: str | None) -> str | tuple[float, ...] | None:
    """Numbers by commas, or the name of a way of weighing."""
    if text is None or not any(sign.isdigit() for sign in text):
        return text
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise LandscribeError(f"--class-weights {text} is no list of numbers. Write it like 1,5,2.") from None


def numbers_in(text: str) -> tuple[int, ...]:
    """Band numbers by commas."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise LandscribeError(f"--bands {text} is no list of band numbers. Write it like 3,2,1.") from None
