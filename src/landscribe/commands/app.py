"""The command line: parse, call one verb, print.

Results go to stdout, progress and log messages to stderr. Exit 0 done, 2 the user's mistake (one line), 1 unfinished
(one line) or our bug, 130 interrupted. Nothing heavy is imported until a verb runs.
"""

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from landscribe.commands.models import model_commands
from landscribe.commands.options import (
    ACCURACY_SETTINGS,
    LABEL_SETTINGS,
    MARKUP,
    OBJECT_SETTINGS,
    AsJson,
    ClassTable,
    Command,
    Images,
    Labels,
    Out,
    Overwrite,
    Rasters,
    Seed,
    TrustCode,
    given,
    image_files,
    settings_of,
    with_settings,
)
from landscribe.commands.samples import sample_commands
from landscribe.commands.tables import (
    print_check,
    print_description,
    print_estimates,
    print_folds,
    print_json,
    print_measures,
    print_object_measures,
    print_run,
    print_transfer,
)
from landscribe.commands.terminal import show
from landscribe.errors import LandscribeError, counted
from landscribe.examples import EXAMPLES
from landscribe.exports import CHIP_EXPORTS, MAP_EXPORTS

app = typer.Typer(
    name="landscribe",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
)

FREQUENT = (
    "without", "band_numbers", "bands", "label_field", "label_crs", "labelled_area", "sparse", "size", "by", "val",
    "test", "preset", "architecture", "encoder", "effort", "minutes", "loss", "class_weights", "sampling", "background",
    "folds", "area", "minimum_area", "simplify", "square", "reference", "reference_field",
)  # fmt: skip
"""Settings that the help of a run shows; --help-all shows all."""

# All settings of a run.
RunCommand = with_settings(
    "scenes", "chips", "split", "augment", "train", "models", "predict", "vectorize", "assess",
    in_run=True, frequent=FREQUENT,
)  # fmt: skip


Recipe = Annotated[
    Path | None, typer.Argument(help="Recipe (TOML), instead of --image and --labels.", show_default=False)
]
Like = Annotated[
    str | None,
    typer.Option(help=f"Example of the lecture: {', '.join(EXAMPLES)}.", metavar=f"<{'|'.join(EXAMPLES)}>"),
]


def _show_version(is_asked: bool) -> None:  # noqa: FBT001  as typer calls it
    if is_asked:
        from importlib.metadata import version

        show(f"landscribe {version('landscribe')}")
        raise typer.Exit


@app.callback()
def landscribe(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """From rasters and labels to maps: chips, a trained network, a seamless map, an honest accuracy statement."""


@app.command(cls=RunCommand)
def check(
    ctx: typer.Context,
    recipe: Annotated[
        Path | None, typer.Argument(help="Recipe (TOML), or a chips folder to audit.", show_default=False)
    ] = None,
    image: Images = None, labels: Labels = None, class_table: ClassTable = None, seed: Seed = None,
    trial: Annotated[bool, typer.Option(help="Time one training step for the forecast.")] = True,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Look for problems, and forecast chips, disk, memory and time; or audit chips. Writes nothing."""
    from landscribe import verbs

    result = verbs.check(
        recipe, images=image_files(image), labels=labels, trial=trial, **ctx.obj,
        **given(class_table=class_table, seed=seed),
    )  # fmt: skip
    print_json(result.as_dict()) if as_json else print_check(result)
    if result.errors:
        raise typer.Exit(2)


@app.command(cls=with_settings("scenes", "chips", "split"))
def chip(
    ctx: typer.Context, out: Out, recipe: Recipe = None, image: Images = None, labels: Labels = None,
    class_table: ClassTable = None, seed: Seed = None, overwrite: Overwrite = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Cut scenes into image chips and masks."""
    from landscribe import verbs

    chips = verbs.chip(
        recipe, images=image_files(image), labels=labels, out=out, overwrite=overwrite, **ctx.obj,
        **given(class_table=class_table, seed=seed),
    )  # fmt: skip
    splits = chips.split_counts
    if as_json:
        print_json({"chips": str(out), "count": len(chips), "splits": splits, "classes": chips.classes.names})
    else:
        shares = ", ".join(f"{name} {count}" for name, count in splits.items())
        show(f"{out}: {counted(len(chips), 'chip')} ({shares}), classes {', '.join(chips.classes.names)}")


@app.command(cls=Command)
def describe(
    chips: Annotated[Path, typer.Argument(help="Chips folder.")],
    sheet: Annotated[Path | None, typer.Option(help="Also write a contact sheet (PNG) of chips and labels.")] = None,
    augment: Annotated[
        str,
        typer.Option(
            metavar="<auto|none|light|standard|strong>",
            help="Augmentation preset that --sheet shows, as train takes it; auto shows light.",
        ),
    ] = "none",
    seed: Seed = None, overwrite: Overwrite = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Describe chips: class shares, band statistics, class weights; draw a contact sheet."""
    from landscribe import verbs

    description = verbs.describe(chips, sheet=sheet, augment=augment, overwrite=overwrite, **given(seed=seed))
    print_json(description.as_dict()) if as_json else print_description(description)
    if sheet is not None and not as_json:
        show(f"sheet  {sheet}")


@app.command(cls=with_settings("augment", "train"))
def train(
    ctx: typer.Context,
    chips: Annotated[Path, typer.Argument(help="Chips folder.")], out: Out,
    folds: Annotated[
        str | None,
        typer.Option(
            metavar="<int|scenes|groups>",
            help="Cross-validate: number of spatial folds (at least 3), or leave one scene, or one group of scenes, "
            "out.",
        ),
    ] = None,
    seed: Seed = None, overwrite: Overwrite = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Train a network on chips; the best epoch becomes a model folder. The same command resumes."""
    from landscribe import verbs
    from landscribe.experiments.cross_validation import cross_validate

    settings = settings_of(ctx) | given(seed=seed)
    if folds is not None:
        result = cross_validate(chips, out=out, folds=_folds(folds), overwrite=overwrite, **settings)
        print_json(result.as_dict()) if as_json else print_folds(result.as_dict())
        return
    model = verbs.train(chips, out=out, overwrite=overwrite, **settings)

    from landscribe.training.parallel import processes  # takes seconds, after which a wrong setting is refused too late

    if not processes("auto").is_rank_zero:
        return
    if as_json:
        print_json({"model": str(out), "measures": model.measures})
    else:
        f1 = model.measures.get("val_mean_f1")
        score = "no validation chips" if f1 is None else f"mean F1 {f1:.3f} on the validation chips"
        if model.val_threshold is not None:
            second, f1 = model.classes.names[1], model.measures["val_threshold_f1"]
            at_half = model.measures[f"val_f1_{second}"]
            score += f"; threshold {model.val_threshold:.3g} has F1 {f1:.3f} of {second} (0.5: {at_half:.3f})"
        show(f"{out}: epoch {model.measures['epoch']} kept, {score}")


@app.command(cls=with_settings("augment", "train"))
def transfer(
    ctx: typer.Context,
    chips: Annotated[Path, typer.Argument(help="Chips folder whose scenes name groups, such as cities.")], out: Out,
    seed: Seed = None, overwrite: Overwrite = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Train on each group of scenes and on all together, and assess each model on every group."""
    from landscribe.experiments.transfer import transfer

    result = transfer(chips, out=out, overwrite=overwrite, **settings_of(ctx), **given(seed=seed)).as_dict()
    print_json(result) if as_json else print_transfer(result)


def _folds(text: str) -> int | Literal["scenes", "groups"]:
    try:
        return cast('Literal["scenes", "groups"]', text) if text in ("scenes", "groups") else int(text)
    except ValueError:
        raise LandscribeError(f"--folds is '{text}'; expected a number such as 5, scenes or groups.") from None


@app.command(cls=with_settings("imagery", "predict"))
def predict(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(help="Model folder, or that of a cross-validation: all its models.")],
    images: Rasters,
    out: Annotated[Path, typer.Option("--out", "-o", help="The map; a folder for several images.")],
    probabilities: Annotated[Path | None, typer.Option(help="Also write the class probabilities.")] = None,
    uncertainty: Annotated[Path | None, typer.Option(help="Also write the normalised entropy, 0 to 1.")] = None,
    suggest_labels: Annotated[
        Path | None, typer.Option(help="Also write the most uncertain areas to label next (active learning).")
    ] = None,
    object_probabilities: Annotated[
        Path | None,
        typer.Option(help="Also write the probabilities of segments, borders and inner parts of objects (unet_id)."),
    ] = None,
    ensemble: Annotated[
        list[Path] | None,
        typer.Option(metavar="<path>", help="Further model, to average its probabilities; repeat for more."),
    ] = None,
    trust_code: TrustCode = None, overwrite: Overwrite = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Map rasters. The same command resumes an interrupted map."""
    from landscribe import verbs

    layers = given(
        probabilities=probabilities, uncertainty=uncertainty, suggest_labels=suggest_labels,
        object_probabilities=object_probabilities, ensemble=ensemble, trust_code=trust_code,
    )  # fmt: skip
    paths = verbs.predict(model, image_files(images), out=out, overwrite=overwrite, **layers, **settings_of(ctx))
    maps = [str(path) for path in paths if path.exists()]  # a shard assembles none
    if as_json:
        from landscribe.maps.class_map import ClassMap

        print_json({"maps": maps, "areas": {path: ClassMap.open(path).areas for path in maps}})
    else:
        for path in maps:
            show(path)


@app.command(cls=with_settings("vectorize"))
def vectorize(
    ctx: typer.Context,
    mapped: Annotated[Path, typer.Argument(metavar="map", help="Class map, or any raster of whole numbers.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The polygons: .gpkg, .fgb, .parquet, .geojson or .shp.")
    ],
    overwrite: Overwrite = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Turn a class map into polygons that fit together."""
    from landscribe import verbs

    _show_path("polygons", verbs.vectorize(mapped, out=out, overwrite=overwrite, **settings_of(ctx)), as_json=as_json)


def _show_path(name: str, path: Path, *, as_json: bool) -> None:
    print_json({name: str(path)}) if as_json else show(path)


@app.command(
    cls=with_settings(
        "scenes", "accuracy", "objects", only=(*LABEL_SETTINGS, *ACCURACY_SETTINGS, *OBJECT_SETTINGS),
        panels={"scenes": "Reference"}, also={"label_field": ("--reference-field",)},
    )
)  # fmt: skip
def assess(
    ctx: typer.Context,
    maps: Annotated[
        list[Path], typer.Argument(metavar="map...", help="Class maps, or a folder of them; polygons with --objects.")
    ],
    reference: Annotated[
        str,
        typer.Option(
            metavar="<path>",
            help="Polygons, points with a class column, a label raster, a folder of these, chips, or a labelled "
            "sample.",
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(metavar="<text>", help="Split of the chips, if the reference is a chips folder. [default: test]"),
    ] = None,
    nodata_as: Annotated[
        str | None,
        typer.Option(
            metavar="<text>", help="Class of nodata pixels of the map. [default: they are left out]", show_default=False
        ),
    ] = None,
    objects: Annotated[
        bool, typer.Option("--objects", help="Compare polygons one to one, each as an object, not pixels.")
    ] = False,
    seed: Seed = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the measures as JSON.")] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Compare a map with a reference: confusion matrix and accuracy by class; or objects, one to one."""
    from landscribe import verbs

    if objects:
        _require_no_flag_of(ctx, "accuracy", "is about pixels, not objects. Leave it out")
        if len(maps) > 1:
            raise LandscribeError("--objects takes one file of polygons. Assess files one by one.")
        for flag in given(split=split, nodata_as=nodata_as, seed=seed):
            raise LandscribeError(f"--{flag.replace('_', '-')} is about pixels, not objects. Leave it out.")
        measures = verbs.assess_objects(maps[0], reference=reference, out=out, **settings_of(ctx)).as_dict()
        print_json(measures) if as_json else print_object_measures(measures)
        return
    _require_no_flag_of(ctx, "objects", "is about objects. Pass --objects too, or leave it out")
    settings = settings_of(ctx) | given(seed=seed)
    measures = verbs.assess(
        maps, reference=reference, split=split, nodata_as=nodata_as, out=out, **settings
    ).as_dict()  # fmt: skip
    if as_json:
        print_json(measures)
    else:
        (print_estimates if "estimator" in measures else print_measures)(measures)


def _require_no_flag_of(ctx: typer.Context, section: str, why: str) -> None:
    if section in ctx.obj:
        raise LandscribeError(f"--{next(iter(ctx.obj[section])).replace('_', '-')} {why}.")


@app.command(cls=Command)
def report(
    folder: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page. [default: report.html in the folder]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one self-contained HTML page about a run."""
    from landscribe import verbs

    _show_path("report", verbs.report(folder, out=out), as_json=as_json)


@app.command(cls=RunCommand)
def run(
    ctx: typer.Context, out: Out,
    recipe: Recipe = None, image: Images = None, labels: Labels = None, class_table: ClassTable = None,
    seed: Seed = None, overwrite: Overwrite = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """All of it: check, chip, train, predict, vectorize, assess, report."""
    from landscribe import pipeline

    folder = pipeline.run(
        recipe, out=out, images=image_files(image), labels=labels, overwrite=overwrite, **ctx.obj,
        **given(class_table=class_table, seed=seed),
    )  # fmt: skip
    print_run(folder, as_json=as_json)


app.registered_commands += model_commands.registered_commands + sample_commands.registered_commands


@app.command(cls=Command)
def export(
    source: Annotated[
        list[Path], typer.Argument(metavar="chips|map...", help="Chips folder; or class maps, or a folder of maps.")
    ],
    out: Out,
    to: Annotated[str, typer.Option(
        metavar=f"<{'|'.join((*CHIP_EXPORTS, *MAP_EXPORTS))}>",
        autocompletion=lambda: [*CHIP_EXPORTS, *MAP_EXPORTS],
        help=" ".join(f"{name}: {export.description}." for name, export in (CHIP_EXPORTS | MAP_EXPORTS).items()),
    )] = "esri",
    split: Annotated[
        str | None, typer.Option(metavar="<text>", help="Only chips of this split. [default: all]")
    ] = None,
    nodata_as: Annotated[
        str | None,
        typer.Option(
            metavar="<text>", help="Class of nodata pixels of a map. [default: they are refused]", show_default=False
        ),
    ] = None,
    overwrite: Overwrite = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Export chips or maps for other programs."""
    from landscribe import verbs

    folder = verbs.export(source, out=out, to=to, split=split, nodata_as=nodata_as, overwrite=overwrite)
    _show_path("folder", folder, as_json=as_json)


@app.command(cls=Command)
def new(
    out: Annotated[Path, typer.Argument(help="The recipe to write.")] = Path("recipe.toml"),
    like: Like = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the example, as its publisher distributes it. [default: the recipe's]"),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a complete, commented recipe to start from."""
    from landscribe import verbs

    _show_path("recipe", verbs.new(out, like=like, data=data, overwrite=overwrite), as_json=as_json)


@app.command(cls=with_settings("train", only=("steps",)))
def demo(
    ctx: typer.Context,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the data and the run.")] = Path("demo"),
    like: Like = None,
    size: Annotated[
        int | None, typer.Option(help="Side of the world in pixels. [default: 1024; examples have sizes of their own]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the data and the run.")] = 0,
    overwrite: Overwrite = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """The whole pipeline on data that is drawn by code: a synthetic world, or a small data set of an example."""
    from landscribe import pipeline

    folder = pipeline.demo(out, like=like, size=size, seed=seed, overwrite=overwrite, **settings_of(ctx))
    print_run(folder, as_json=as_json)


def main() -> None:
    """Run the command line and exit."""
    from landscribe.commands.terminal import end_with_code_of

    end_with_code_of(app)


if __name__ == "__main__":
    main()
