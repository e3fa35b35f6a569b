"""The commands that look into a model: its blocks, its branches, its speed."""

from pathlib import Path
from typing import Annotated

import typer

from landscribe.commands.options import (
    Architecture,
    AsJson,
    Device,
    Encoder,
    ImageSide,
    Option,
    Overwrite,
    Seconds,
    given,
    options_in,
)
from landscribe.commands.tables import print_bench, print_blocks, print_branches, print_json
from landscribe.errors import LandscribeError


def summary(
    model: Annotated[Path | None, typer.Argument(help="Model folder, instead of names.", show_default=False)] = None,
    architecture: Architecture = None, encoder: Encoder = None, option: Option = None,
    bands: Annotated[int, typer.Option(help="Input bands.")] = 3,
    classes: Annotated[int, typer.Option(help="Classes.")] = 2,
    size: Annotated[int, typer.Option(help="Side of the image in pixels.")] = 256,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Describe a network block by block: shapes, parameters, receptive field, operations."""
    from landscribe import verbs

    named = given(architecture=architecture, encoder=encoder)
    if model is not None and (named or option):
        raise LandscribeError("a model folder and names of a network were given. Give one or the other.")
    table = verbs.summary(model, bands=bands, classes=classes, size=size, **named, **(options_in(option) or {}))
    print_json(table.as_dict()) if as_json else print_blocks(table)


def prune(
    model: Annotated[Path, typer.Argument(help="Folder of a UNet++ model.")],
    branch: Annotated[int | None, typer.Option(help="The branch to keep, 1 is the smallest.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The smaller model's folder.")] = None,
    branches: Annotated[bool, typer.Option("--branches", help="Only measure each branch, to choose by.")] = False,
    chips: Annotated[Path | None, typer.Option(help="Chips to score branches on [those beside the model].")] = None,
    split: Annotated[str, typer.Option(help="Which of the chips.")] = "val",
    overwrite: Overwrite = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Keep one branch of a UNet++: a smaller model with the same maps as that branch."""
    from landscribe import verbs

    if branches and (branch is not None or out is not None):
        raise LandscribeError("--branches only measures. Leave out --branch and --out, or --branches.")
    if branches:
        rows = verbs.branches(model, chips=chips, split=split)
        print_json([row.as_dict() for row in rows]) if as_json else print_branches(rows)
        return
    if branch is None or out is None:
        raise LandscribeError("prune needs --branch and --out, or --branches to measure what there is to choose.")
    small = verbs.prune(model, branch=branch, out=out, overwrite=overwrite)
    parameters = sum(parameter.numel() for parameter in small.network.parameters())
    print_json({"model": str(out), "parameters": parameters}) if as_json else print(
        f"{out}: branch {branch}, {parameters} parameters"
    )


def bench(
    model: Annotated[Path, typer.Argument(help="Model folder.")], tile: ImageSide = 512,
    batch: Annotated[int | None, typer.Option(help="Images at once [1].")] = None,
    seconds: Seconds = None, device: Device = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Time the engines that can run a model on this machine, and compare their answers."""
    from landscribe import verbs

    found = verbs.bench(model, tile=tile, **given(batch=batch, seconds=seconds, device=device))
    print_json(found.as_dict()) if as_json else print_bench(found)
