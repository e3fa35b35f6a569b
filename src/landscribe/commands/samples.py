"""The command of reference samples: sample."""

from pathlib import Path
from typing import Annotated

import typer

from landscribe.commands.options import AsJson, Overwrite, settings_of, with_settings
from landscribe.commands.tables import print_json, print_plan
from landscribe.commands.terminal import show
from landscribe.errors import LandscribeError, counted

sample_commands = typer.Typer()
"""Its commands are those of `landscribe` itself."""


@sample_commands.command(cls=with_settings("sample"))
def sample(
    ctx: typer.Context,
    mapped: Annotated[Path, typer.Argument(metavar="map", help="Class map, or any raster of class values.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The sample: .gpkg, which QGIS opens as a form, or .csv.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print sizes and expected intervals; draw and write nothing.")
    ] = False,
    form: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<ceo|acatama>",
            help="Also write the points for Collect Earth Online (ceo) or AcATaMa (acatama); repeat for both.",
        ),
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Also write a web page with a picture of --image around each unit (.html).")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="Imagery for --sheet.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Draw a reference sample from a map: units to label by chance, for an honest assessment."""
    from landscribe import verbs

    if plan:
        written = {"--out": out, "--form": form, "--sheet": sheet, "--image": image, "--overwrite": overwrite}
        if named := [name for name, value in written.items() if value]:
            raise LandscribeError(f"--plan draws and writes nothing. Leave out {', '.join(named)}, or --plan.")
        planned = verbs.plan_sample(mapped, **settings_of(ctx)).as_dict()
        print_json(planned) if as_json else print_plan(planned)
        return
    if out is None:
        raise LandscribeError("sample needs --out, such as -o points.gpkg; or --plan, which draws nothing.")
    drawn = verbs.sample(
        mapped, out=out, forms=form or (), sheet=sheet, image=image, overwrite=overwrite, **settings_of(ctx)
    )
    if as_json:
        print_json({"sample": str(out), "size": len(drawn.units), "design": drawn.design.as_dict()})
        return
    from landscribe.sampling.forms import form_path

    design = drawn.design
    shares = ", ".join(f"{stratum.name} {stratum.drawn}" for stratum in design.strata)
    by_stratum = f" ({shares})" if design.kind == "stratified" else ""
    show(
        f"{out}: {design.kind} sample of {counted(len(drawn.units), 'unit')}{by_stratum}; fill in its column reference"
    )
    for name in form or ():
        show(f"form   {form_path(out, name)}")
    if sheet is not None:
        show(f"sheet  {sheet}")
