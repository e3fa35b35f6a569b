"""Tables: results for people, on stdout."""

import math
from pathlib import Path
from typing import Any

from landscribe.commands.numbers import area_form, confidence_text, error_text, estimated_text, number, with_interval
from landscribe.commands.terminal import duration, show
from landscribe.errors import counted, listed, per_cent, printable
from landscribe.machine import bytes_text
from landscribe.runs import Run
from landscribe.texts import four_digits, json_text

_OVERALL = ("overall_accuracy", "mean_f1", "mean_iou")
_AGREEMENT = ("kappa", "mcc", "quantity_disagreement", "allocation_disagreement")
_OF_EDGES = {"precision": "precision", "recall": "recall", "f1": "boundary F1"}
_BY_CLASS = ("users_accuracy", "producers_accuracy", "f1", "iou")
_OF_OBJECTS = {
    "AP": "average_precision", "AR": "average_recall", "PQ": "panoptic_quality", "SQ": "segmentation_quality",
    "RQ": "recognition_quality", "count ratio": "count_ratio", "IoU": "area_iou", "C-IoU": "c_iou",
    "overseg.": "oversegmentation", "underseg.": "undersegmentation", "boundary F1": "boundary_f1",
}  # fmt: skip
"""Columns of the table of objects by class."""
_OF_ONE_SCENE = ". All these chips are of one scene: the intervals hold for this scene, not for others"
_WIDEST = 10_000
_MOST_CLASSES = 8
"""Up to this many classes, a table by group has a column for the F1 of each."""


def print_check(result: Any) -> None:
    """Findings and the forecast."""
    for finding in result.findings:
        show(f"{finding.severity}: {finding.text}")
    ahead = result.forecast
    if ahead is None:
        return
    parts = [f"at most {counted(ahead.chips, 'chip')}", f"at most {bytes_text(ahead.disk_bytes)} on disk"]
    if ahead.steps is not None:
        parts.append(f"at most {counted(ahead.steps, 'training step')}")
    if ahead.seconds is not None:
        parts.append(f"about {duration(ahead.seconds)} on this machine")
    if ahead.memory_bytes is not None:
        parts.append(f"about {bytes_text(ahead.memory_bytes)} of memory")
    show(f"forecast: {', '.join(parts)}")
    if efforts := [f"{name} about {duration(seconds)}" for name, seconds in ahead.seconds_by_effort.items()]:
        show(f"training by --effort: {', '.join(efforts)}")


def _print_table(headers: list[str], rows: list[list[str]]) -> None:
    """Print columns as wide as they need; text in the first is left-aligned, the others right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for index, header in enumerate(headers):
        table.add_column(printable(header), justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(printable, row))
    # As wide as the table: a pipe has no width, and nothing may be cut.
    Console(markup=False, highlight=False, emoji=False, width=_WIDEST).print(table)


def _title(name: str) -> str:
    """The name of a measure as people write it."""
    return name.replace("_", " ").replace("mcc", "MCC").replace("f1", "F1").replace("iou", "IoU")


def print_measures(summary: dict[str, Any]) -> None:
    """Accuracy by class."""
    split = f" ({summary['split']})" if summary["split"] else ""
    show(f"{listed(summary['maps'])} against {summary['reference']}{split}")
    if caveat := summary.get("caveat"):
        show(caveat)
    intervals = summary.get("intervals") or {}
    overall = [f"{_title(name)} {with_interval(summary, intervals, name)}" for name in _OVERALL]
    # Points have no blocks, from which intervals follow.
    noun = "pixel" if summary["split"] or "intervals" in summary else "point"
    show(f"{counted(summary['pixels'], noun)}, {', '.join(overall)}")
    if summary.get("quantity_disagreement") is not None:
        show(", ".join(f"{_title(name)} {number(summary[name])}" for name in _AGREEMENT))
    if summary.get("unmapped_pixels"):
        show(f"{summary['unmapped_pixels']:,} more {noun}s of the reference lie where the map has no class")
    by_class = intervals.get("classes") or [{}] * len(summary["classes"])
    _print_table(
        ["class", "user's", "producer's", "F1", "IoU", f"reference {noun}s"],
        [
            [row["name"], *(with_interval(row, own, name) for name in _BY_CLASS), f"{row['reference_pixels']:,}"]
            for row, own in zip(summary["classes"], by_class, strict=True)
        ],
    )
    if intervals:
        show(
            intervals.get("reason")
            or f"intervals: {confidence_text(intervals['confidence'])}, from resamples of "
            f"{intervals['blocks']:,} blocks of {intervals['block_side']} x {intervals['block_side']} pixels"
            + (f"; {intervals['note']}" if "note" in intervals else "")
            + (_OF_ONE_SCENE if summary.get("scenes") == 1 else "")
        )
    if "by_edge_distance" in summary:
        _print_edges(summary)
    if "calibration" in summary:
        _print_calibration(summary["calibration"])
    if summary.get("groups"):
        _print_groups(summary["groups"], noun)


def print_estimates(summary: dict[str, Any]) -> None:
    """Accuracy and areas that a reference sample estimates, with their intervals; the counts of the map beside them."""
    level, unit = confidence_text(summary["confidence"]), summary["area_unit"]
    inside = f", inside {summary['area_file']}" if summary["area_file"] else ""
    show(
        f"{summary['map']} against {summary['reference']}: {summary['estimator']}, "
        f"{counted(summary['units'], 'unit')}{inside}"
    )
    overall = summary["overall"]
    show(f"overall accuracy {estimated_text(overall)}, standard error (se) {error_text(overall)}; intervals of {level}")
    mapped = summary["map_counts"]
    _print_table(
        ["class", "user's", "se", "producer's", "se", "F1", "se", f"mapped ({unit})", f"estimated area ({unit})", "se"],
        [
            [
                name,
                *(
                    text
                    for measure in ("users", "producers", "f1")
                    for text in (estimated_text(summary[measure][name]), error_text(summary[measure][name]))
                ),
                number(mapped[name]["area"], area_form(area)) if mapped[name]["area"] else "0",
                estimated_text(area, area_form(area)), error_text(area, area_form(area)),
            ]
            for name, area in summary["areas"].items()
        ],
    )  # fmt: skip
    side = summary["unit"]
    counted_units = "pixels of the map" if side == 1 else f"blocks of {side} x {side} pixels by their majority class"
    show(f"mapped: {counted_units}, counted. Estimated: the true area of the class, by the sample")
    show("shares of the area, by class of the map (rows) and of the reference (columns)")
    matrix = summary["matrix"]
    rows = zip(matrix["classes"], matrix["shares"], strict=True)
    _print_table(["map", *matrix["classes"]], [[name, *(f"{share:.4f}" for share in shares)] for name, shares in rows])


def _print_edges(summary: dict[str, Any]) -> None:
    """Accuracy by distance to the edges between classes, and how edges agree."""
    _print_table(
        ["pixels from an edge", "pixels", "overall accuracy"],
        [
            [row["distance"], f"{row['pixels']:,}", number(row["overall_accuracy"])]
            for row in summary["by_edge_distance"]
        ],
    )
    boundary = summary["boundary"]
    measures = ", ".join(f"{title} {number(boundary[name])}" for name, title in _OF_EDGES.items())
    sides = " x ".join(f"{side:.3g}" for side in boundary.get("pixel_metres", ()))
    unit = f"m (pixels of {sides} m)" if sides else "pixels"
    show(f"edges that agree within {boundary['tolerance']:g} {unit}: {measures}")


def _print_calibration(calibration: dict[str, Any]) -> None:
    by_class = ", ".join(f"{row['name']} {number(row['average_precision'])}" for row in calibration["classes"])
    show(
        f"probabilities: calibration error (ECE) {number(calibration['expected_calibration_error'])}, Brier score "
        f"{number(calibration['brier_score'])}, average precision {number(calibration['mean_average_precision'])} "
        f"({by_class})"
    )


def print_object_measures(summary: dict[str, Any]) -> None:
    """Matches of objects by IoU, then the other measures by class."""
    show(f"{summary['objects']} against {summary['reference']}")
    show(_of_both(summary["predicted_objects"], summary["reference_objects"]))
    if any(summary["left_out"].values()):
        why = "outside the labelled area, cut by its edge, or a match of one that is cut"
        show(f"left out: {_of_both(**summary['left_out'])} more ({why})")
    by_threshold = (summary[name] for name in ("thresholds", "precision", "recall", "f1"))
    _print_table(
        ["matched at IoU", "precision", "recall", "F1"],
        [[f"{least:.2f}", *map(number, row)] for least, *row in zip(*by_threshold, strict=True)],
    )
    needs = {"average_precision": summary["score_field"], "boundary_f1": summary["tolerance"]}
    columns = {head: name for head, name in _OF_OBJECTS.items() if needs.get(name, True)}
    rows = summary["classes"] + ([summary | {"name": "mean"}] if len(summary["classes"]) > 1 else [])
    _print_table(
        ["class", "objects", "reference", *columns],
        [
            [
                row["name"], f"{row['predicted_objects']:,}", f"{row['reference_objects']:,}",
                *(number(row[name]) for name in columns.values()),
            ]
            for row in rows
        ],
    )  # fmt: skip


def _of_both(predicted: int, reference: int) -> str:
    return f"{counted(predicted, 'object')}, {counted(reference, 'reference object')}"


def _print_groups(groups: dict[str, Any], noun: str) -> None:
    """Accuracy by region, or by group of scenes, scene or map: a row for each."""
    names = [row["name"] for row in next(iter(groups.values()))["classes"]]
    few = names if len(names) <= _MOST_CLASSES else []
    _print_table(
        ["region or group", f"{noun}s", "overall accuracy", "mean F1", *(f"F1 {name}" for name in few)],
        [
            [
                group, f"{measures['pixels']:,}",
                *(
                    with_interval(measures, measures.get("intervals") or {}, name)
                    for name in ("overall_accuracy", "mean_f1")
                ),
                *(number(row["f1"]) for row in measures["classes"][: len(few)]),
            ]
            for group, measures in groups.items()
        ],
    )  # fmt: skip


def print_plan(plan: dict[str, Any]) -> None:
    """Units to draw of each stratum, and the accuracy that they will show if it is as expected."""
    overall, level = plan["overall"], confidence_text(plan["confidence"])
    is_stratified = plan["design"] == "stratified"
    show(
        f"{plan['map']}: {plan['design']} sample of {plan['size']:,} of {plan['units']:,} units "
        f"({'pixels' if plan['unit'] == 1 else 'blocks of {unit} x {unit} pixels'.format(**plan)})"
        + ("" if overall is None else f", expected accuracy {_expected(overall)}")
    )
    _print_table(
        [
            "stratum" if is_stratified else "class", "units", "share", "expected accuracy", f"{level} interval",
            "to draw" if is_stratified else "expected",
        ],
        [
            [
                row["name"], f"{row['units']:,}", per_cent(row["share"]),
                "-" if row["expected"] is None else number(row["expected"]["accuracy"]),
                "-" if row["expected"] is None else "{lower:.3f} to {upper:.3f}".format(**row["expected"]),
                f"{row['size']:,.0f}",
            ]
            for row in plan["strata"]
        ],
    )  # fmt: skip
    if plan["allocation"] == "auto":
        from landscribe.sampling.sizes import LEAST_OF_A_STRATUM

        show(f"allocation auto: {LEAST_OF_A_STRATUM} units of each stratum if the size allows it, the rest by share")
    show("expected accuracy is an assumption (--expected-accuracy). Intervals are longer on the side of 0.5")
    if plan["design"] == "cluster":
        show("intervals are those of a simple random sample: they are wider if the pixels of a square are correlated")


def _expected(overall: dict[str, float]) -> str:
    return "{accuracy:.3f}, standard error {standard_error:.4f}, {lower:.3f} to {upper:.3f}".format(**overall)


def print_blocks(table: Any) -> None:
    """The blocks of a network, from its summary."""
    show(f"an image of {' x '.join(map(str, table.shape))}")
    blocks = [(block.name, " x ".join(map(str, block.shape)), block) for block in table.blocks]
    _print_table(
        ["block", "output shape", "parameters", "receptive field", "GFLOP per Mpx"],
        [
            [
                name, shape, f"{counts.parameters:,}", str(counts.receptive_field or "image"),
                f"{counts.flops_per_megapixel / 1e9:.2f}",
            ]
            for name, shape, counts in (*blocks, ("all", "", table))
        ],
    )  # fmt: skip


def print_encoders(costs: Any) -> None:
    """The encoders that were tried, with their costs."""
    rows = [(f"{cost.parameters / 1e6:.1f}", f"{cost.flops_per_megapixel / 1e9:.1f}", cost) for cost in costs]
    _print_table(
        ["encoder", "parameters (M)", "GFLOP per Mpx", "s per Mpx", "license of weights", "note"],
        [[c.name, size, flops, number(c.seconds_per_megapixel, ".2f"), c.license, c.note] for size, flops, c in rows],
    )


def print_branches(rows: Any) -> None:
    """Cost and accuracy of the branches of a UNet++."""
    names = list(rows[0].f1)
    _print_table(
        ["branch", "parameters", "s per Mpx", "mean F1", "mean IoU", *(f"F1 {name}" for name in names)],
        [
            [
                str(row.branch or "mean"), f"{row.parameters:,}", f"{row.seconds_per_megapixel:.2f}",
                number(row.mean_f1), number(row.mean_iou), *(number(row.f1[name]) for name in names),
            ]
            for row in rows
        ],
    )  # fmt: skip


def print_bench(benchmark: Any) -> None:
    """Speed of the inference backends, and how their outputs differ from those of torch."""
    speeds = {timing.backend: timing.megapixels_per_second for timing in benchmark.timings}
    show(f"images of {' x '.join(map(str, benchmark.shape))} on {benchmark.device}")
    _print_table(
        ["backend", "Mpx per s", "speed-up vs torch", "same class", "required", "max. difference", "compile time (s)"],
        [
            [
                timing.backend, f"{timing.megapixels_per_second:.3f}",
                f"{timing.megapixels_per_second / speeds['torch']:.2f}",
                *(f"{100 * share:.3f} %" for share in (timing.agreement, 1 - timing.tolerance)),
                f"{timing.max_probability_difference:.1e}", f"{timing.compile_seconds:.1f}",
            ]
            for timing in benchmark.timings
        ],
    )  # fmt: skip
    for name, reason in benchmark.unavailable.items():
        show(f"{name}: {reason}")
    faster = [
        timing.backend for timing in benchmark.timings if timing.megapixels_per_second > speeds[benchmark.fastest]
    ]
    why = f" ({', '.join(faster)}: faster, but too few pixels have the same class)" if faster else ""
    show(f"auto: {benchmark.fastest}{why}")


def print_description(described: Any) -> None:
    """Contents of chips: classes, their co-occurrence, and bands."""
    splits = ", ".join(f"{name} {count:,}" for name, count in described.chips.items())
    show(f"{counted(sum(described.chips.values()), 'chip')} of {described.size} pixels of {described.dtype} ({splits})")
    show(f"{per_cent(described.unknown_share)} of the pixels are unlabelled")
    _print_table(
        ["class", "pixels", "share", *(f"in {name}" for name in described.chips), "of train",
         *described.classes[0].weights],
        [
            [
                row.name, f"{row.pixels:,}", per_cent(row.share), *map("{:,}".format, row.chips.values()),
                per_cent(row.train_share), *(f"{weight:.3f}" for weight in row.weights.values()),
            ]
            for row in described.classes
        ],
    )  # fmt: skip
    show("class weights are computed from the training chips")
    if described.overlaps:
        show("chips overlap: a pixel in several chips is counted in each of them")
    if described.groups:
        _print_table(
            ["group", *(f"in {name}" for name in described.chips), *(row.name for row in described.classes)],
            [
                [
                    group.name or "none",
                    *map("{:,}".format, group.chips.values()),
                    *map(per_cent, group.shares.values()),
                ]
                for group in described.groups
            ],
        )
    show("chips with both classes")
    _print_table(
        ["class", *(row.name for row in described.classes)],
        [
            [row.name, *map("{:,}".format, together)]
            for row, together in zip(described.classes, described.together, strict=True)
        ],
    )  # fmt: skip
    _print_table(
        ["band", "histogram", "mean", "std", "p2", "median", "p98"],
        [
            [
                band.name, _bars(band.shares), four_digits(band.mean), four_digits(band.standard_deviation),
                *(four_digits(band.quantiles[percent] or 0) for percent in ("2", "50", "98")),
            ]
            for band in described.bands
        ],
    )  # fmt: skip
    # The outer edges of integers are at halves.
    half = 0.5 if "int" in described.dtype else 0
    first, last = described.edges[0] + half, described.edges[-1] - half
    # Nor is there a value in the end of a last bin of several integers.
    last = min(last, max(band.quantiles["100"] or 0 for band in described.bands))
    show(f"histograms from {four_digits(first)} to {four_digits(last)}, of {counted(described.chips_read, 'chip')}")


def _bars(shares: tuple[float, ...]) -> str:
    """Shares as bars of eight heights; nothing where there is nothing."""
    most = max(shares)
    return "".join(" ▁▂▃▄▅▆▇█"[math.ceil(8 * share / most) if most else 0] for share in shares)


def print_folds(summary: dict[str, Any]) -> None:
    """Chips and F1 of each fold, by the name that it holds out; their mean and spread; the F1 of all chips together."""
    names, spreads = list(summary["f1"]), [summary["mean_f1"], *summary["f1"].values()]
    folds = [
        (fold.get("held_out") or fold["model"], fold["chips"]["train"], fold["chips"]["test"], fold)
        for fold in summary["folds"]
    ]
    tested = sum(fold[2] for fold in folds)
    rows = [
        [name, str(train), str(test), *map(number, (measures["mean_f1"], *(row["f1"] for row in measures["classes"])))]
        for name, train, test, measures in (*folds, ("all chips", "", tested, summary["pooled"]))
    ]
    rows += [
        [name.replace("_", " "), "", "", *(number(spread[name]) for spread in spreads)]
        for name in ("mean", "standard_deviation")
    ]
    _print_table(["fold", "train", "test", "mean F1", *(f"F1 {name}" for name in names)], rows)


def print_transfer(summary: dict[str, Any]) -> None:
    """Tables of the mean F1, and of F1 by class: trained groups in rows, assessed groups in columns."""
    names = [row["name"] for row in next(iter(summary["models"][0]["groups"].values()))["classes"]]
    columns = [f"{name} ({split})" for name, split in summary["assessed"].items()]
    few = names if len(names) <= _MOST_CLASSES else []
    for index, title in enumerate(["mean F1", *(f"F1 {name}" for name in few)]):
        rows = [
            [
                " + ".join(model["trained_on"]),
                *(
                    number(measures["mean_f1"] if not index else measures["classes"][index - 1]["f1"])
                    for measures in model["groups"].values()
                ),
            ]
            for model in summary["models"]
        ]
        _print_table([f"{title}: trained on", *columns], rows)


def print_run(folder: Path, *, as_json: bool) -> None:
    """The measures of a run, and the paths of its map and report."""
    run = Run(folder)
    summary, maps, reference = run.read_assessment(), run.map_files, run.read_reference_assessment()
    if as_json:
        files = {"maps": [str(path) for path in maps], "polygons": [str(path) for path in run.polygon_files]}
        further = {"reference": reference, "folds": run.read_folds()}
        measures = {"assessment": summary} | {name: own for name, own in further.items() if own is not None}
        print_json({"run": str(folder), **files, "report": str(run.report_file), **measures})
        return
    print_measures(summary)
    if reference is not None:
        print_measures(reference)
    if (folds := run.read_folds()) is not None:
        print_folds(folds)
        show(f"assessed  {', '.join(map(str, run.assessed.map_files))} (each chip by a model that has not seen it)")
        show(f"models    {run.folds_folder} (the map is that of all together)")
    elif run.assessed != run:
        show(f"assessed  {run.assessed.model_folder} (the map is that of the final model, {run.model_folder})")
    for word, paths in (("map", maps), ("polygons", run.polygon_files)):
        for path in paths:
            show(f"{word:8}  {path}")
    show(f"report    {run.report_file}")


def print_json(result: Any) -> None:
    """A result for scripts."""
    for line in json_text(result).splitlines():
        show(line)
