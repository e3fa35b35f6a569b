"""The command line: parse, call one verb, print.

Results go to stdout, progress and remarks to stderr. Exit 0 done, 2 the user's mistake (one line), 1 work
left (one line) or our bug, 130 interrupted. Nothing heavy is imported until a verb runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from landscribe.commands.model_commands import bench, prune, summary
from landscribe.commands.options import (
    Accumulate,
    AnyPixelSize,
    Architecture,
    Area,
    AsJson,
    Assets,
    Augment,
    Background,
    Batch,
    Blend,
    Block,
    CheckSeams,
    ClassWeights,
    Crs,
    Dask,
    Device,
    Devices,
    Edge,
    Ema,
    Encoder,
    EncoderRate,
    EngineName,
    Ensemble,
    Epochs,
    Field,
    Folds,
    Format,
    Freeze,
    FreezeUntil,
    Gap,
    Images,
    Keep,
    LabelledArea,
    Labels,
    LearningRate,
    Log,
    Loss,
    Margin,
    MinimumArea,
    Minutes,
    Mode,
    Mosaic,
    Nodata,
    NodataRule,
    Optimizer,
    Option,
    Out,
    Overwrite,
    Patience,
    Precision,
    ProbabilitiesAs,
    Rasters,
    RecipePath,
    Repair,
    Resample,
    Sampling,
    Schedule,
    Seed,
    Shard,
    Size,
    Sparse,
    SplitAttribute,
    SplitBy,
    Stack,
    Steps,
    Stride,
    Symmetries,
    Test,
    TestList,
    Tile,
    Tiles,
    Tolerance,
    TrainList,
    UnitSide,
    Unlabelled,
    Val,
    ValList,
    Virtual,
    Weights,
    Workers,
    folds_in,
    given,
    labels_in,
    numbers_in,
    options_in,
    parts_in,
    scenes_in,
    weights_in,
)
from landscribe.commands.tables import (
    print_check,
    print_description,
    print_folds,
    print_json,
    print_measures,
    print_run,
)

app = typer.Typer(
    name="landscribe",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Rich's own markup would take [auto], as defaults are told, for a style.
    rich_markup_mode="markdown",
)


def _say_version(is_asked: bool) -> None:  # noqa: FBT001  as typer calls it
    if is_asked:
        from importlib.metadata import version

        print(f"landscribe {version('landscribe')}")
        raise typer.Exit


@app.callback()
def landscribe(
    version: Annotated[
        bool, typer.Option("--version", help="Say the version and end.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """From rasters and labels to maps: chips, a trained network, a seamless map, an honest accuracy statement."""


@app.command()
def check(
    recipe: Annotated[
        Path | None, typer.Argument(help="Recipe (TOML), or a chips folder to audit.", show_default=False)
    ] = None,
    image: Images = None, labels: Labels = None, label_field: Field = None,
    labelled_area: LabelledArea = None, sparse: Sparse = None, stack: Stack = None, nodata: Nodata = None,
    nodata_rule: NodataRule = None, repair: Repair = None, size: Size = None, stride: Stride = None,
    steps: Steps = None, epochs: Epochs = None, minutes: Minutes = None, architecture: Architecture = None,
    encoder: Encoder = None, weights: Weights = None, option: Option = None, batch: Batch = None,
    trial: Annotated[bool, typer.Option(help="Time one training step for the forecast.")] = True,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Look for problems, and foretell chips, disk, memory and time; or audit chips. Nothing is written."""
    from landscribe import verbs

    settings = given(
        label_field=label_field, labelled_area=labelled_area, sparse=sparse, stack=stack, nodata=nodata,
        nodata_rule=nodata_rule, repair=repair, size=size, stride=stride, steps=steps, epochs=epochs, minutes=minutes,
        architecture=architecture, encoder=encoder, weights=weights, options=options_in(option), batch=batch,
    )  # fmt: skip
    found = verbs.check(recipe, images=scenes_in(image), labels=labels_in(labels), trial=trial, **settings)
    print_json(found.summary()) if as_json else print_check(found)
    if found.errors:
        raise typer.Exit(2)


@app.command()
def chip(
    out: Out, image: Images = None, labels: Labels = None, label_field: Field = None,
    labelled_area: LabelledArea = None, sparse: Sparse = None, stack: Stack = None, nodata: Nodata = None,
    repair: Repair = None, size: Size = None, stride: Stride = None, edge: Edge = None, mode: Mode = None,
    unlabelled: Unlabelled = None, nodata_rule: NodataRule = None,
    format: Format = None, virtual: Virtual = None, val: Val = None, test: Test = None, gap: Gap = None,  # noqa: A002
    block: Block = None, by: SplitBy = None, attribute: SplitAttribute = None, train_list: TrainList = None,
    val_list: ValList = None, test_list: TestList = None,
    dask: Dask = None, seed: Seed = None, overwrite: Overwrite = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Cut scenes into image chips and masks."""
    from landscribe import verbs

    settings = given(
        label_field=label_field, labelled_area=labelled_area, sparse=sparse, stack=stack,
        nodata=nodata, repair=repair, size=size, stride=stride, edge=edge, mode=mode, unlabelled=unlabelled,
        format=format, virtual=virtual, val=val, test=test, gap=gap, block=block, seed=seed, dask=dask,
        by=by, attribute=attribute, train_list=train_list, val_list=val_list, test_list=test_list,
        nodata_rule=nodata_rule,
    )  # fmt: skip
    chips = verbs.chip(images=scenes_in(image), labels=labels_in(labels), out=out, overwrite=overwrite, **settings)
    splits = {str(name): int(count) for name, count in chips.table["split"].value_counts().items()}
    if as_json:
        print_json({"chips": str(out), "count": len(chips), "splits": splits, "classes": chips.classes.names})
    else:
        shares = ", ".join(f"{name} {count}" for name, count in splits.items())
        print(f"{out}: {len(chips)} chips ({shares}), classes {', '.join(chips.classes.names)}")


@app.command()
def describe(
    chips: Annotated[Path, typer.Argument(help="Chips folder.")],
    sheet: Annotated[Path | None, typer.Option(help="Also write a PNG of chips under their labels.")] = None,
    augment: Annotated[str, typer.Option(help="Preset whose changes the sheet shows.")] = "none",
    seed: Annotated[int, typer.Option(help="Of the sheet.")] = 0,
    overwrite: Overwrite = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Say what chips hold: class shares, bands, weights; draw a sheet of them."""
    from landscribe import verbs

    described = verbs.describe(chips, sheet=sheet, augment=augment, seed=seed, overwrite=overwrite)
    print_json(described.as_dict()) if as_json else print_description(described)
    if sheet is not None and not as_json:
        print(f"sheet  {sheet}")


@app.command()
def train(
    chips: Annotated[Path, typer.Argument(help="Chips folder.")], out: Out, architecture: Architecture = None,
    encoder: Encoder = None, weights: Weights = None, option: Option = None, freeze: Freeze = None,
    freeze_until: FreezeUntil = None, epochs: Epochs = None, steps: Steps = None, minutes: Minutes = None,
    batch: Batch = None, learning_rate: LearningRate = None, encoder_rate: EncoderRate = None,
    optimizer: Optimizer = None, schedule: Schedule = None, patience: Patience = None,
    accumulate: Accumulate = None, ema: Ema = None, keep: Keep = None, precision: Precision = None,
    devices: Devices = None, log: Log = None, loss: Loss = None, class_weights: ClassWeights = None,
    sampling: Sampling = None, background: Background = None, augment: Augment = None, folds: Folds = None,
    workers: Workers = None, seed: Seed = None, overwrite: Overwrite = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Train a network on chips; the best epoch becomes a model folder. Interrupted, the same command goes on."""
    from landscribe import crossvalidation, verbs

    settings = given(
        architecture=architecture, encoder=encoder, weights=weights, options=options_in(option),
        freeze=parts_in(freeze), freeze_until=freeze_until, epochs=epochs, steps=steps, minutes=minutes, batch=batch,
        learning_rate=learning_rate, encoder_rate=encoder_rate, optimizer=optimizer, schedule=schedule,
        patience=patience, accumulate=accumulate, ema=ema, keep=keep, precision=precision, devices=devices, log=log,
        loss=loss, class_weights=weights_in(class_weights), sampling=sampling, background=background, augment=augment,
        workers=workers, seed=seed,
    )  # fmt: skip
    if folds is not None:
        result = crossvalidation.cross_validate(chips, out=out, folds=folds_in(folds), overwrite=overwrite, **settings)
        print_json(result.summary()) if as_json else print_folds(result.summary())
        return
    model = verbs.train(chips, out=out, overwrite=overwrite, **settings)

    from landscribe.training.parallel import processes  # takes seconds, for which a mistyped setting should not wait

    if not processes("auto").is_rank_zero:
        return
    if as_json:
        print_json({"model": str(out), "measures": model.measures})
    else:
        f1 = model.measures.get("val_mean_f1")
        score = "no validation chips" if f1 is None else f"mean F1 {f1:.3f} on the validation chips"
        print(f"{out}: epoch {model.measures['epoch']} kept, {score}")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    images: Rasters,
    out: Annotated[Path, typer.Option("--out", "-o", help="The map; a folder for several images.")],
    probabilities: Annotated[Path | None, typer.Option(help="Also write the classes' probabilities.")] = None,
    uncertainty: Annotated[Path | None, typer.Option(help="Also write the entropy of these, 0 (sure) to 1.")] = None,
    label_next: Annotated[Path | None, typer.Option(help="Also write where a label would teach most (.gpkg).")] = None,
    ensemble: Ensemble = None,
    bands: Annotated[str | None, typer.Option(help="Numbers of the bands to use, in the model's order: 3,2,1.")] = None,
    assets: Assets = None, mosaic: Mosaic = None, nodata: Nodata = None, nodata_rule: NodataRule = None,
    any_pixel_size: AnyPixelSize = None, resample: Resample = None, crs: Crs = None, tile: Tile = None,
    margin: Margin = None, unit: UnitSide = None, batch: Tiles = None, area: Area = None, symmetries: Symmetries = None,
    tolerance: Tolerance = None, check_seams: CheckSeams = None,
    engine: EngineName = None, blend: Blend = None, minimum_area: MinimumArea = None,
    probabilities_as: ProbabilitiesAs = None, device: Device = None, dask: Dask = None, shard: Shard = None,
    overwrite: Overwrite = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Map rasters. Interrupted, the same command goes on where it was."""
    from landscribe import verbs

    numbers = None if bands is None else numbers_in(bands)
    settings = given(
        bands=numbers, any_pixel_size=any_pixel_size, tile=tile, margin=margin, unit=unit, batch=batch, device=device,
        nodata=nodata, probabilities=probabilities, area=area, symmetries=symmetries, dask=dask, shard=shard,
        uncertainty=uncertainty, label_next=label_next, ensemble=ensemble, engine=engine, blend=blend,
        minimum_area=minimum_area, probabilities_as=probabilities_as, assets=parts_in(assets), mosaic=mosaic,
        nodata_rule=nodata_rule, resample=resample, crs=crs, tolerance=tolerance, check_seams=check_seams,
    )  # fmt: skip
    maps = verbs.predict(model, scenes_in(images), out=out, overwrite=overwrite, **settings)
    made = [str(path) for path in maps if path.exists()]  # a shard alone makes none
    if as_json:
        from landscribe.prediction.plan import areas_of

        print_json({"maps": made, "areas": {path: areas_of(Path(path)) for path in made}})
    else:
        print(*made, sep="\n", end="\n" if made else "")


@app.command()
def assess(
    maps: Annotated[
        list[Path], typer.Argument(metavar="MAP...", help="Class map; several with chips as the reference.")
    ],
    reference: Annotated[
        str, typer.Option(help="Polygons, points with a class column, a label raster, or a chips folder.")
    ],
    label_field: Field = None,
    split: Annotated[str, typer.Option(help="Which chips, if the reference is a chips folder.")] = "test",
    labelled_area: LabelledArea = None,
    sparse: Sparse = None,
    repair: Repair = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the measures as JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare a map with a reference: confusion matrix and accuracy by class."""
    from landscribe import verbs

    labels = given(labelled_area=labelled_area, sparse=sparse, repair=repair)
    result = verbs.assess(maps, reference=reference, label_field=label_field, split=split, out=out, **labels)
    print_json(result.summary()) if as_json else print_measures(result.summary())


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The page [report.html in the folder].")] = None,
) -> None:
    """Write one self-contained HTML page about a run."""
    from landscribe import verbs

    print(verbs.report(folder, out=out))


@app.command()
def run(
    out: Out, recipe: RecipePath = None, image: Images = None, labels: Labels = None, label_field: Field = None,
    labelled_area: LabelledArea = None, sparse: Sparse = None, stack: Stack = None, nodata: Nodata = None,
    nodata_rule: NodataRule = None, repair: Repair = None,
    size: Size = None, stride: Stride = None, virtual: Virtual = None, val: Val = None, test: Test = None,
    gap: Gap = None, by: SplitBy = None, attribute: SplitAttribute = None, train_list: TrainList = None,
    val_list: ValList = None, test_list: TestList = None,
    architecture: Architecture = None, encoder: Encoder = None, weights: Weights = None,
    option: Option = None, freeze: Freeze = None, freeze_until: FreezeUntil = None,
    epochs: Epochs = None, steps: Steps = None, minutes: Minutes = None, batch: Batch = None,
    learning_rate: LearningRate = None, encoder_rate: EncoderRate = None, optimizer: Optimizer = None,
    schedule: Schedule = None, patience: Patience = None, accumulate: Accumulate = None, ema: Ema = None,
    keep: Keep = None, precision: Precision = None, devices: Devices = None, log: Log = None, loss: Loss = None,
    class_weights: ClassWeights = None, sampling: Sampling = None, background: Background = None,
    augment: Augment = None,
    tile: Tile = None, margin: Margin = None, seed: Seed = None,
    overwrite: Overwrite = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """All of it: check, chip, train, predict, assess, report."""
    from landscribe import pipeline

    settings = given(
        label_field=label_field, labelled_area=labelled_area, sparse=sparse, stack=stack,
        nodata=nodata, nodata_rule=nodata_rule, repair=repair, size=size, stride=stride, virtual=virtual, val=val,
        test=test, gap=gap, by=by, attribute=attribute, train_list=train_list, val_list=val_list, test_list=test_list,
        architecture=architecture, encoder=encoder, weights=weights, options=options_in(option),
        freeze=parts_in(freeze), freeze_until=freeze_until, epochs=epochs, steps=steps, minutes=minutes, batch=batch,
        learning_rate=learning_rate, encoder_rate=encoder_rate, optimizer=optimizer, schedule=schedule,
        patience=patience, accumulate=accumulate, ema=ema, keep=keep, precision=precision, devices=devices, log=log,
        loss=loss,
        class_weights=weights_in(class_weights), sampling=sampling, background=background, augment=augment,
        tile=tile, margin=margin, seed=seed,
    )  # fmt: skip
    folder = pipeline.run(
        recipe, out=out, images=scenes_in(image), labels=labels_in(labels), overwrite=overwrite, **settings
    )
    print_run(folder, as_json=as_json)


for command in (summary, prune, bench):
    app.command()(command)


@app.command()
def export(
    chips: Annotated[Path, typer.Argument(help="Chips folder.")], out: Out,
    to: Annotated[str, typer.Option(help="esri: ArcGIS Classified Tiles.")] = "esri",
    split: Annotated[str | None, typer.Option(help="Only chips of this split [all].")] = None,
    overwrite: Overwrite = False,
) -> None:  # fmt: skip
    """Write chips as other programs take them."""
    from landscribe import verbs

    print(verbs.export(chips, out=out, to=to, split=split, overwrite=overwrite))


@app.command()
def new(
    out: Annotated[Path, typer.Argument(help="The recipe to write.")] = Path("recipe.toml"),
    overwrite: Overwrite = False,
) -> None:
    """Write a complete, commented recipe to start from."""
    from landscribe import verbs

    print(verbs.new(out, overwrite=overwrite))


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the world and the run go.")] = Path("demo"),
    size: Annotated[int, typer.Option(help="Side of the world in pixels.")] = 1024,
    steps: Steps = None, seed: Annotated[int, typer.Option(help="Of the world and the run.")] = 0,
    overwrite: Overwrite = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """The whole pipeline on a synthetic world; ends by naming the map and the report."""
    from landscribe import pipeline

    print_run(pipeline.demo(out, size=size, seed=seed, overwrite=overwrite, **given(steps=steps)), as_json=as_json)


def main() -> None:
    """Run the command line and exit."""
    from landscribe.commands.terminal import end_with_code_of

    end_with_code_of(app)


if __name__ == "__main__":
    main()
