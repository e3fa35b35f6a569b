"""The verbs of models: train, summary, encoders, branches, prune, bench."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from landscribe.errors import RecipeError, first_line
from landscribe.outputs import claim, output_path, require_output_folder
from landscribe.spec import Seed, checked
from landscribe.verbs.sources import PathLike, open_chips, open_model, training_specs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from landscribe.data.batches.augment_spec import AugmentSpec
    from landscribe.data.chips.chips import Chips
    from landscribe.inference.benchmark import Benchmark
    from landscribe.inference.pruning import Branch
    from landscribe.model import Model
    from landscribe.nn.encoders.tried import EncoderCost
    from landscribe.nn.summary import Summary
    from landscribe.training.spec import TrainSpec
    from landscribe.verbs.keywords import TrainKeywords


def train(
    chips: Chips | PathLike, *, out: PathLike, seed: int = 0, overwrite: bool = False, **settings: Unpack[TrainKeywords]
) -> Model:
    """Train a network on chips and save the best epoch as a model folder.

    The same call resumes an interrupted training, and loads the model of a finished one, unless that depends on code
    of your own: a function as `augment`, or a class as `architecture`.

    With `workers`, processes read the chips. On Windows and macOS, each of them imports the calling script: write its
    calls below ``if __name__ == "__main__":``.

    Args:
        chips: a chips folder.
        out: the model folder to write.
        seed: random seed of weights, order and augmentation.
        overwrite: replace existing output.
        settings: fields of TrainSpec, and `augment`: a preset's name, a table of AugmentSpec, or a pipeline such as a
            Compose of Albumentations, which is called with image (height, width, bands) and masks. It returns both, in
            one size for all chips, the image with its bands and dtype (no Normalize or ToFloat: Landscribe scales the
            pixels). Mask pixels that it fills with 0 are ignored.

    Returns:
        The saved model, of the best epoch on the chips of split val, or the last one if the settings choose it.

    Raises:
        RecipeError: an unknown setting, one out of range, or one that is not possible with the chips or the machine.
        ChipError: chips cannot be read, hold one class, or split train has none.
        NetworkError: an unknown name, weights that do not fit, or a loss that is not finite.
        OutputError: `out` cannot be written, or holds a model or unfinished training of other settings, or other files.
        UnfinishedError: a disk is full or lost; the same call resumes the training.

    >>> import landscribe as ls
    >>> from tempfile import TemporaryDirectory
    >>> from landscribe.synthetic import draw, write
    >>> network = {"architecture": "unet", "encoder": "plain", "options": {"encoder_widths": [8, 16]}}
    >>> with TemporaryDirectory() as folder:
    ...     scene, labels, _ = write(draw(256, 192, seed=0), Path(folder) / "world")
    ...     chips = ls.chip(images=[scene], labels=labels, label_field="class", size=64, out=f"{folder}/chips")
    ...     model = ls.train(chips, **network, steps=2, batch=2, out=f"{folder}/model")
    >>> import torch
    >>> model.bands, model.classes.names
    (('red', 'green', 'blue'), ('background', 'field', 'house', 'road', 'water'))
    >>> model.logits(torch.zeros(1, 3, 100, 80), torch.ones(1, 100, 80, dtype=torch.bool)).shape
    torch.Size([1, 5, 100, 80])
    """
    seed = checked("seed", seed, Seed)
    fields: dict[str, Any] = dict(settings)
    pipeline = fields["augment"] if callable(fields.get("augment")) else None
    if pipeline is not None:
        _require_image_and_masks(pipeline)
        fields["augment"] = "none"
    spec, augmentation = training_specs(fields)
    return train_chips(
        open_chips(chips), spec, augmentation,
        out=output_path(out), change=pipeline, seed=seed, overwrite=overwrite,
    )  # fmt: skip


def train_chips(
    chips: Chips,
    spec: TrainSpec,
    augmentation: AugmentSpec,
    *,
    out: Path,
    seed: int,
    overwrite: bool = False,
    change: Callable[..., Any] | None = None,
) -> Model:
    """Train a network on open chips with checked settings; `change` is a pipeline in place of the augmentation."""
    # These imports take seconds: a wrong setting is refused before this call.
    from landscribe.training.checks import require_two_classes
    from landscribe.training.parallel import processes
    from landscribe.training.train_loop import train

    require_two_classes(chips)
    is_writer = processes(spec.devices).is_rank_zero
    if is_writer:
        # A model that is there may be that of this very call.
        is_model = (out / "config.json").exists()
        require_output_folder(out, mark="config.json", overwrite=overwrite or is_model)
    with claim(out) if is_writer else nullcontext():
        return train(chips, out, spec=spec, augmentation=augmentation, change=change, seed=seed, overwrite=overwrite)


def _require_image_and_masks(pipeline: Callable[..., Any]) -> None:
    """Raise RecipeError for a function that cannot be called with image and masks, before chips are read."""
    try:
        signature = inspect.signature(pipeline)
    except ValueError:  # some functions of compiled libraries have none
        return
    try:
        signature.bind(image=None, masks=[])
    except TypeError as error:
        raise RecipeError(
            f"augment cannot be called with image and masks: {first_line(error)}. Expected a function of image "
            '(height, width, bands) and masks that returns a dict with "image" and "masks", like a Compose of '
            "Albumentations."
        ) from error


def summary(
    model: Model | PathLike | None = None,
    *,
    architecture: str | None = None,
    encoder: str | None = None,
    bands: int | None = None,
    classes: int | None = None,
    size: int = 256,
    trust_code: str | Sequence[str] = (),
    **options: Any,
) -> Summary:
    """Describe a network block by block: output shapes, parameters, receptive fields, operations.

    Args:
        model: a model or its folder, instead of the names below, which may only repeat its own.
        architecture: as for `nn.build`. Default: unet.
        encoder: as for `nn.build`. Default: resnet18.
        bands: input channels. Default: 3.
        classes: outputs. Default: 2.
        size: side of the image in pixels.
        trust_code: "module:Class" of the model's network, if it is a class of your own that may be imported.
        options: options of the architecture.

    Returns:
        Blocks with their output shapes (C, H, W), parameters, receptive field in pixels, operations per megapixel.

    Raises:
        NetworkError: an unknown name, or a network that takes no image of this size.
        ModelError: a model folder that cannot be used.
        RecipeError: a number out of range, or a name that is not the model's own.
    """
    from landscribe.nn import build
    from landscribe.nn.summary import Channels, ImageSide, summary

    size = checked("size", size, ImageSide)
    named = {"architecture": architecture, "encoder": encoder, "bands": bands, "classes": classes, **options}
    named = {name: value for name, value in named.items() if value is not None}
    if model is None:
        chosen = {"architecture": "unet", "encoder": "resnet18", "bands": 3, "classes": 2, **named}
        for name in ("bands", "classes"):
            chosen[name] = checked(name, chosen[name], Channels)
        return summary(build(**chosen), bands=chosen["bands"], size=size)
    opened = open_model(model, trust_code)
    own = opened.arguments | {"architecture": opened.architecture, "bands": len(opened.bands)}
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in named.items()}
    if given.get("classes") == len(opened.classes):  # a network with one logit has two classes
        del given["classes"]
    if others := [name for name, value in given.items() if name not in own or value != own[name]]:
        raise RecipeError(
            f"a model was given together with {', '.join(others)}, which it decides itself. Give one or the other."
        )
    return summary(opened.network, bands=len(opened.bands), size=size)


def encoders(*, bands: int = 3, size: int = 256, device: str = "auto") -> list[EncoderCost]:
    """List the encoders that were tried, with their costs: parameters, operations, license of weights, measured time.

    Each is an encoder alone, without a decoder. Any other backbone of timm with a pyramid of features can be used, too.

    Args:
        bands: input channels.
        size: side of the images in pixels, 1 to 2048.
        device: where they are timed: auto, cpu, cuda, mps, …

    Returns:
        One row for each encoder; times in seconds per megapixel.

    Raises:
        ModelError: the device cannot be used.
        RecipeError: a number out of range.
    """
    from landscribe.inference.benchmark import compare_encoders
    from landscribe.inference.device import resolve_device
    from landscribe.nn.encoders.tried import TimedSide
    from landscribe.nn.summary import Channels

    size, bands = checked("size", size, TimedSide), checked("bands", bands, Channels)
    return compare_encoders(bands=bands, size=size, device=resolve_device(device))


def branches(model: Model | PathLike, *, chips: Chips | PathLike | None = None, split: str = "val") -> list[Branch]:
    """Measure the cost and accuracy of each branch of a UNet++.

    Args:
        model: a model or its folder.
        chips: a chips folder to score on. Default: `chips` beside the model's folder, as `run` leaves it.
        split: split of the chips.

    Returns:
        One row for each branch, the smallest first, and a last one for the mean of all.

    Raises:
        ModelError: the model is no UNet++, cannot be read, or the chips have other classes or none of `split`.
        RecipeError: `chips` is left out, and no chips lie beside the model.
        ChipError: a chips folder that cannot be read.
    """
    from landscribe.inference.pruning import branches

    opened = open_model(model)
    if chips is None:
        beside = Path(model).resolve().parent / "chips" if isinstance(model, (str, Path)) else None
        if beside is None or not beside.exists():
            raise RecipeError(
                "no chips were given to score the branches on. Pass --chips, such as those of the model's run."
            )
        chips = beside
    return branches(opened, open_chips(chips).of_split(split))


def prune(model: Model | PathLike, *, branch: int, out: PathLike, overwrite: bool = False) -> Model:
    """Keep one branch of a UNet++: a smaller model with the same maps as that branch.

    Args:
        model: a model or its folder.
        branch: 1 (the smallest) to the number of branches.
        out: the model folder to write.
        overwrite: replace existing output.

    Returns:
        The smaller model, as it was saved.

    Raises:
        ModelError: the model is no UNet++, cannot be read, or has no such branch.
        OutputError: `out` is not empty or cannot be written.
    """
    from landscribe.inference.pruning import prune

    out = output_path(out)
    with claim(out):
        require_output_folder(out, mark="config.json", overwrite=overwrite)
        small = prune(open_model(model), branch)
        small.save(out, overwrite=overwrite)
    return small


def bench(
    model: Model | PathLike,
    *,
    tile: int = 512,
    batch: int = 1,
    seconds: float = 10.0,
    device: str = "auto",
    trust_code: str | Sequence[str] = (),
) -> Benchmark:
    """Time the inference backends on this machine, and compare their outputs.

    Args:
        model: a model or its folder.
        tile: side of the images in pixels.
        batch: images per batch.
        seconds: seconds to measure; every backend runs at least three times.
        device: auto, cpu, cuda, mps, …
        trust_code: "module:Class" of the model's network, if it is a class of your own that may be imported.

    Returns:
        Megapixels per second of each backend, its agreement with torch (0 to 1), and why others did not run.

    Raises:
        ModelError: the model or the device cannot be used.
        NetworkError: the network takes no images of this size.
    """
    from landscribe.inference.backends.choice import compare_backends
    from landscribe.inference.device import resolve_device
    from landscribe.prediction.spec import PredictSpec

    opened = open_model(model, trust_code)
    return compare_backends(
        opened, tile=tile, batch=batch, seconds=seconds, device=resolve_device(device),
        tolerance=PredictSpec().tolerance,
    )  # fmt: skip
