"""Commands of models: summary, prune, bench."""

from pathlib import Path
from typing import Annotated

import typer

from landscribe.commands.options import AsJson, Command, Overwrite, TrustCode, given, settings_of, with_settings
from landscribe.commands.tables import print_bench, print_blocks, print_branches, print_encoders, print_json
from landscribe.commands.terminal import show
from landscribe.errors import LandscribeError

model_commands = typer.Typer()
"""Its commands are those of `landscribe` itself."""


@model_commands.command(cls=with_settings("train", only=("architecture", "encoder", "options")))
def summary(
    ctx: typer.Context,
    model: Annotated[Path | None, typer.Argument(help="Model folder, instead of names.", show_default=False)] = None,
    bands: Annotated[int | None, typer.Option(help="Input bands. [default: 3]", show_default=False)] = None,
    classes: Annotated[int | None, typer.Option(help="Classes. [default: 2]", show_default=False)] = None,
    size: Annotated[int, typer.Option(help="Side of the image in pixels.")] = 256,
    encoders: Annotated[
        bool, typer.Option("--encoders", help="List the encoders that were tried, with costs measured here, instead.")
    ] = False,
    trust_code: TrustCode = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Describe a network block by block: shapes, parameters, receptive field, operations."""
    from landscribe import verbs
    from landscribe.training.spec import TrainSpec

    settings = settings_of(ctx)
    if encoders:
        flags = {"architecture": "--architecture", "encoder": "--encoder", "options": "--option"}
        written = {"the model": model, "--classes": classes} | {flags[name]: name for name in settings}
        if named := [name for name, value in written.items() if value is not None]:
            raise LandscribeError(f"--encoders lists encoders alone. Leave out {', '.join(named)}, or --encoders.")
        costs = verbs.encoders(size=size, **given(bands=bands))
        print_json([cost.as_dict() for cost in costs]) if as_json else print_encoders(costs)
        return
    spec = TrainSpec.of(settings)
    names = {name: getattr(spec, name) for name in ("architecture", "encoder") if name in settings}
    table = verbs.summary(
        model, size=size, **names, **given(bands=bands, classes=classes, trust_code=trust_code), **spec.options
    )
    print_json(table.as_dict()) if as_json else print_blocks(table)


@model_commands.command(cls=Command)
def prune(
    model: Annotated[Path, typer.Argument(help="Folder of a UNet++ model.")],
    branch: Annotated[int | None, typer.Option(help="The branch to keep; 1 is the smallest.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the smaller model.")] = None,
    branches: Annotated[bool, typer.Option("--branches", help="Only measure each branch.")] = False,
    chips: Annotated[
        Path | None, typer.Option(help="Chips to score branches on. [default: those beside the model]")
    ] = None,
    split: Annotated[str, typer.Option(metavar="<text>", help="Split of the chips.")] = "val",
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
        raise LandscribeError("prune needs --branch and --out, or --branches to measure the branches.")
    small = verbs.prune(model, branch=branch, out=out, overwrite=overwrite)
    parameters = sum(parameter.numel() for parameter in small.network.parameters())
    print_json({"model": str(out), "parameters": parameters}) if as_json else show(
        f"{out}: branch {branch}, {parameters} parameters"
    )


@model_commands.command(cls=with_settings("predict", only=("device",)))
def bench(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    tile: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 512,
    batch: Annotated[int, typer.Option(help="Images per batch.")] = 1,
    seconds: Annotated[float, typer.Option(help="Seconds to measure; every backend runs at least three times.")] = 10.0,
    trust_code: TrustCode = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Time the inference backends on this machine, and compare their outputs."""
    from landscribe import verbs

    result = verbs.bench(
        model, tile=tile, batch=batch, seconds=seconds, **given(trust_code=trust_code), **settings_of(ctx)
    )
    print_json(result.as_dict()) if as_json else print_bench(result)
