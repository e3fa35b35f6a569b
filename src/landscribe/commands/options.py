"""The flags of the commands: what each is called, takes and does, and how its text is read."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from landscribe.errors import LandscribeError

Images = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        help="Image of a scene, or a folder or pattern of them; repeat for more. Commas stack files as bands.",
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--labels",
        help="Polygons or label raster: one for all scenes, or repeat for each; a folder for a folder of images.",
    ),
]
Stack = Annotated[bool | None, typer.Option("--stack", help="Files of a folder or pattern are bands of one scene.")]
Field = Annotated[str | None, typer.Option(help="Class column of the polygons; without it they are one class.")]
Nodata = Annotated[
    float | None,
    typer.Option(
        help="Nodata value of the imagery, instead of what it declares; nan, beside that, for all not finite."
    ),
]
NodataRule = Annotated[
    str | None, typer.Option("--nodata-rule", help="Pixels are nodata where any or all bands hold it [auto].")
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
Mode = Annotated[str | None, typer.Option(help="Which chips: all, positive or separate [all].")]
Unlabelled = Annotated[
    bool | None, typer.Option("--unlabelled", help="Also cut chips without a single labelled pixel.")
]
Format = Annotated[str | None, typer.Option(help="tif, png or jpg [tif].")]
Virtual = Annotated[bool | None, typer.Option("--virtual", help="Keep only the index; read windows from the scenes.")]
Val = Annotated[float | None, typer.Option(help="Share held out to choose the epoch by [0.15].")]
Test = Annotated[float | None, typer.Option(help="Share held out to assess with [0.15].")]
Gap = Annotated[int | None, typer.Option(help="Least pixels between chips of different splits [size / 4].")]
Block = Annotated[int | None, typer.Option(help="Side of the blocks that are held out, in pixels.")]
SplitBy = Annotated[
    str | None,
    typer.Option("--split-by", help="What is held out: auto, block, scene, attribute (a column) or list [auto]."),
]
SplitAttribute = Annotated[
    str | None, typer.Option("--split-attribute", help="Polygons' column of train, val, test, or of groups to draw.")
]
TrainList = Annotated[str | None, typer.Option(help="Text file of the scenes to train on, one a line.")]
ValList = Annotated[str | None, typer.Option(help="Likewise, to choose the epoch by.")]
TestList = Annotated[str | None, typer.Option(help="Likewise, to assess with.")]

Architecture = Annotated[
    str | None,
    typer.Option(help="fcn, unet, unetplusplus, deeplabv3plus, unet_id, smp:Name or module:Class [unet]."),
]
Encoder = Annotated[str | None, typer.Option(help="Backbone, any of timm's, or plain for the paper's own [resnet18].")]
Weights = Annotated[str | None, typer.Option(help="auto, imagenet, none, or a file [auto].")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the chips [20, at least 200 steps].")]
Steps = Annotated[int | None, typer.Option(help="Steps of the optimiser, instead of epochs.")]
Minutes = Annotated[float | None, typer.Option(help="Wall-clock minutes, instead of epochs.")]
Batch = Annotated[int | None, typer.Option(help="Chips a batch [8].")]
Option = Annotated[
    list[str] | None, typer.Option("--option", help="Of the architecture, NAME=VALUE as in TOML; repeat for more.")
]
Freeze = Annotated[str | None, typer.Option(help="Parts that do not learn: encoder, or stages, by commas.")]
FreezeUntil = Annotated[float | None, typer.Option(help="Share of the training after which they learn too [1].")]
EncoderRate = Annotated[float | None, typer.Option(help="Share of the learning rate for the encoder [1].")]
Accumulate = Annotated[int | None, typer.Option(help="Batches a step of the optimiser [1].")]
LearningRate = Annotated[str | None, typer.Option(help="Highest learning rate, or auto to try some first [0.002].")]
Optimizer = Annotated[str | None, typer.Option(help="adamw or sgd [adamw].")]
Schedule = Annotated[str | None, typer.Option(help="one_cycle, cosine, constant or plateau [one_cycle].")]
Patience = Annotated[int | None, typer.Option(help="Stop after as many epochs without a better one.")]
Ema = Annotated[float | None, typer.Option(help="Share that a running average of the weights keeps a step [0: none].")]
Keep = Annotated[str | None, typer.Option(help="Weights of the best epoch, or of the last [best].")]
Precision = Annotated[str | None, typer.Option(help="auto, 32, bf16 or 16 bits [auto].")]
Devices = Annotated[str | None, typer.Option(help="GPUs, or processes on a CPU, that train together [auto].")]
# torchrun takes --log for the beginning of an option of its own.
Log = Annotated[str | None, typer.Option("--log", "--log-folder", help="Folder for a log as CSV, and for TensorBoard.")]
Loss = Annotated[str | None, typer.Option(help="A loss or a sum of losses [dice + ce].")]
ClassWeights = Annotated[
    str | None, typer.Option(help="none, inverse, median, effective, or a number for each class, by commas [none].")
]
Sampling = Annotated[
    str | None,
    typer.Option(
        help="all, balanced: chips with rare classes more often, or label_windows: windows drawn around labels [all]."
    ),
]
Background = Annotated[float | None, typer.Option(help="Largest share of chips of nothing but background.")]
Augment = Annotated[
    str | None, typer.Option(help="Changes of chips: none, light, standard or strong; a recipe has more [light].")
]
Workers = Annotated[int | None, typer.Option(help="Processes that read chips [by the machine].")]

Folds = Annotated[
    str | None, typer.Option(help="Cross-validate: a model for each of so many folds, or for each of the scenes.")
]

Rasters = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE...",
        help="Rasters, folders, patterns, lists (@files.txt), URLs, STAC items; commas stack bands.",
    ),
]
Assets = Annotated[str | None, typer.Option(help="Assets of STAC items to stack, by commas: red,green,blue,nir.")]
Mosaic = Annotated[
    bool | None, typer.Option("--mosaic", help="All images are one raster; where they overlap, the first counts.")
]
Resample = Annotated[
    bool | None, typer.Option("--resample", help="Read rasters of another pixel size in pixels of the model's.")
]
Crs = Annotated[str | None, typer.Option("--crs", help="Map in another CRS, such as EPSG:32632.")]
AnyPixelSize = Annotated[bool | None, typer.Option("--any-pixel-size", help="Map although the pixel size differs.")]
Tile = Annotated[
    str | None, typer.Option(help="Side of what the network reads at once, in pixels, or auto by memory [auto].")
]
Tolerance = Annotated[
    float | None, typer.Option(help="Share of pixels that may differ from a single pass, for auto [0.001].")
]
CheckSeams = Annotated[bool | None, typer.Option("--check-seams", help="Tell how often classes differ at seams.")]
UnitSide = Annotated[
    int | None, typer.Option("--unit", help="Side of what is mapped in one piece, in pixels, a tile at least [2048].")
]
Tiles = Annotated[int | None, typer.Option("--batch", help="Tiles at once [1 on a CPU, what keeps a GPU busy].")]
ImageSide = Annotated[int, typer.Option("--tile", help="Side of the images in pixels.")]
Seconds = Annotated[float | None, typer.Option(help="How long engines take turns; three turns at least [10].")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps [auto].")]
Area = Annotated[str | None, typer.Option(help="Polygons that alone are mapped.")]
Symmetries = Annotated[
    bool | None, typer.Option("--symmetries", help="Average over the eight symmetries: eight times the work.")
]
EngineName = Annotated[
    str | None, typer.Option("--engine", help="torch, onnx, openvino, or auto for the fastest [auto].")
]
Blend = Annotated[str | None, typer.Option(help="none, or gaussian to average overlapping tiles [none].")]
MinimumArea = Annotated[float | None, typer.Option(help="Square metres of the smallest patch that stays in the map.")]
ProbabilitiesAs = Annotated[str | None, typer.Option(help="uint8 in steps of 1/254, or float32 [uint8].")]
Ensemble = Annotated[
    list[Path] | None, typer.Option(help="A further model, whose probabilities are averaged with the first's.")
]
Dask = Annotated[
    str | None, typer.Option(help="Use many processes or machines: auto, or a scheduler's address or file.")
]
Shard = Annotated[
    str | None, typer.Option(help="i/n: only every n-th unit; without it, the same command makes the map.")
]
Margin = Annotated[
    str | None, typer.Option(help="Pixels dropped around a tile, or auto to measure how many it takes [auto].")
]


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


def folds_in(text: str) -> int | Literal["scenes"]:
    """A number, or the word scenes."""
    if text == "scenes":
        return "scenes"
    try:
        return int(text)
    except ValueError:
        raise LandscribeError(f"--folds {text} is no number of folds. Write it like 5, or scenes.") from None


def numbers_in(text: str) -> tuple[int, ...]:
    """Band numbers by commas."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise LandscribeError(f"--bands {text} is no list of band numbers. Write it like 3,2,1.") from None


def given(**settings: Any) -> dict[str, Any]:
    """The settings that were named on the command line; the specs have the defaults of the others."""
    return {name: value for name, value in settings.items() if value is not None}


def scenes_in(images: list[str] | None) -> list[list[str]]:
    """The files of each image."""
    return [[part.strip() for part in image.split(",")] for image in images or []]


def labels_in(labels: list[str] | None) -> list[str | None] | None:
    """One for all images, or one for each; None for none."""
    return list(labels) if labels else None
