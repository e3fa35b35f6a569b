"""Tables: how results are printed for people, on stdout."""

import json
import math
from pathlib import Path
from typing import Any

from landscribe.commands.terminal import duration, size
from landscribe.runs import Run


def print_check(found: Any) -> None:
    """Findings, and the forecast."""
    for finding in found.findings:
        print(f"{finding.severity}: {finding.text}")
    ahead = found.forecast
    if ahead is None:
        return
    parts = [f"at most {ahead.chips} chips", f"at most {size(ahead.disk_bytes)} on disk"]
    if ahead.steps is not None:
        parts.append(f"{ahead.steps} training steps")
    if ahead.seconds is not None:
        parts.append(f"about {duration(ahead.seconds)} on this machine")
    if ahead.memory_bytes is not None:
        parts.append(f"about {size(ahead.memory_bytes)} of memory")
    print(f"forecast: {', '.join(parts)}")


def print_measures(summary: dict[str, Any]) -> None:
    """Accuracy, class by class."""

    def share(value: float | None) -> str:
        return "     -" if value is None else f"{value:6.3f}"

    print(
        f"{', '.join(summary['maps'])} against {summary['reference']}"
        + (f" ({summary['split']})" if summary["split"] else "")
    )
    overall = {name: share(summary[name]).strip() for name in ("overall_accuracy", "mean_f1", "mean_iou")}
    measures = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in overall.items())
    print(f"{summary['pixels']} pixels, {measures}")
    width = max(len(row["name"]) for row in summary["classes"])
    print(f"{'class':<{width}}  user's  producer's      F1     IoU  reference pixels")
    for row in summary["classes"]:
        print(
            f"{row['name']:<{width}}  {share(row['users_accuracy'])}      {share(row['producers_accuracy'])}  "
            f"{share(row['f1'])}  {share(row['iou'])}  {row['reference_pixels']:>16}"
        )


def print_blocks(table: Any) -> None:
    """A network's blocks, from its summary."""
    width = max(len(block.name) for block in table.blocks)
    print(f"an image of {' x '.join(map(str, table.shape))}")
    print(
        f"{'block':<{width}}  {'output shape':<16}  {'parameters':>11}  {'receptive field':>15}  {'GFLOP per Mpx':>13}"
    )
    for block in table.blocks:
        print(
            f"{block.name:<{width}}  {' x '.join(map(str, block.shape)):<16}  {block.parameters:>11,}  "
            f"{block.receptive_field or 'image':>15}  {block.flops_per_megapixel / 1e9:>13.2f}"
        )
    print(
        f"{'all':<{width}}  {'':<16}  {table.parameters:>11,}  {table.receptive_field or 'image':>15}  "
        f"{table.flops_per_megapixel / 1e9:>13.2f}"
    )


def print_branches(rows: Any) -> None:
    """What the branches of a UNet++ cost and are worth."""
    names = list(rows[0].f1)
    heads = "".join(f"  {'F1 ' + name:>14}" for name in names)
    print(f"{'branch':<7}  {'parameters':>11}  {'s per Mpx':>9}  {'mean F1':>7}  {'mean IoU':>8}{heads}")
    for row in rows:
        scores = "".join(f"  {row.f1[name]:>14.3f}".replace("nan", "  -") for name in names)
        print(
            f"{row.branch or 'mean':<7}  {row.parameters:>11,}  {row.seconds_per_megapixel:>9.2f}  "
            f"{row.mean_f1:>7.3f}  {row.mean_iou:>8.3f}{scores}"
        )


def print_bench(found: Any) -> None:
    """How fast engines are, against torch, and how alike."""
    speeds = {one.backend: one.megapixels_per_second for one in found.timings}
    width = max(map(len, ("engine", *speeds, *found.unavailable)))
    print(f"images of {' x '.join(map(str, found.shape))} on {found.device}")
    print(
        f"{'engine':<{width}}  {'Mpx per s':>9}  {'times torch':>11}  {'same class':>10}  "
        f"{'probabilities differ':>20}  {'s to make':>9}"
    )
    for one in found.timings:
        print(
            f"{one.backend:<{width}}  {one.megapixels_per_second:>9.3f}  "
            f"{one.megapixels_per_second / speeds['torch']:>11.2f}  {one.agreement:>10.4%}  "
            f"{one.max_probability_difference:>20.1e}  {one.compile_seconds:>9.1f}"
        )
    for name, reason in found.unavailable.items():
        print(f"{name:<{width}}  {reason}")
    print(f"{'auto':<{width}}  {found.fastest}")


def print_description(described: Any) -> None:
    """What chips hold."""
    splits = ", ".join(f"{name} {count}" for name, count in described.chips.items())
    print(f"{sum(described.chips.values())} chips of {described.size} pixels of {described.dtype} ({splits})")
    print(f"{described.unknown_share:.1%} of the pixels are not known")
    width = max(len(row.name) for row in described.classes)
    heads = "".join(f"  {'in ' + name:>8}" for name in described.chips)
    ways = "".join(f"  {way:>9}" for way in described.classes[0].weights)
    print(f"{'class':<{width}}  {'pixels':>12}  {'share':>6}{heads}  {'of train':>8}{ways}")
    for row in described.classes:
        counts = "".join(f"  {count:>8}" for count in row.chips.values())
        weights = "".join(f"  {weight:>9.3f}" for weight in row.weights.values())
        shares = f"{row.share:>6.1%}{counts}  {row.train_share:>8.1%}"
        print(f"{row.name:<{width}}  {row.pixels:>12,}  {shares}{weights}")
    print("class weights are those that the shares of train would give")
    print("chips that hold both classes")
    for row, together in zip(described.classes, described.together, strict=True):
        print(f"{row.name:<{width}}" + "".join(f"  {count:>8}" for count in together))
    width = max(len(band.name) for band in described.bands)
    for band in described.bands:
        low, middle, high = (f"{band.quantiles[percent]:.5g}" for percent in ("2", "50", "98"))
        print(
            f"band {band.name:<{width}}  {_bars(band.shares)}  mean {band.mean:.5g}, standard deviation "
            f"{band.standard_deviation:.5g}, 2 % below {low}, half below {middle}, 98 % below {high}"
        )
    first, last = described.edges[0], described.edges[-1]
    print(f"bars from {first:.5g} to {last:.5g}, of {described.chips_read} chips")


def _bars(shares: tuple[float, ...]) -> str:
    """Shares as bars of eight heights; nothing where there is nothing."""
    most = max(shares)
    return "".join(" ▁▂▃▄▅▆▇█"[math.ceil(8 * share / most) if most else 0] for share in shares)


def print_folds(summary: dict[str, Any]) -> None:
    """Chips and F1 of each class by fold, the spread of F1, and that of all chips together."""

    def share(value: float | None) -> str:
        return f"  {'-' if value is None else f'{value:.3f}':>14}"

    names, spread = list(summary["f1"]), [summary["mean_f1"], *summary["f1"].values()]
    rows = [(fold["model"], fold["chips"]["train"], fold["chips"]["test"], fold) for fold in summary["folds"]]
    width = max(18, *(len(name) for name, *_ in rows))
    head = f"{'fold':<{width}}  {'train':>6}  {'test':>6}  {'mean F1':>14}"
    print(head + "".join(f"  {'F1 ' + name:>14}" for name in names))
    for name, trained, tested, measures in (*rows, ("all chips", "", sum(row[2] for row in rows), summary["pooled"])):
        values = [measures["mean_f1"], *(row["f1"] for row in measures["classes"])]
        print(f"{name:<{width}}  {trained:>6}  {tested:>6}" + "".join(map(share, values)))
    for what in ("mean", "standard_deviation"):
        values = [some[what] for some in spread]
        print(f"{what.replace('_', ' '):<{width}}  {'':>6}  {'':>6}" + "".join(map(share, values)))


def print_run(folder: Path, *, as_json: bool) -> None:
    """What a run measured, and where its map and report are."""
    run = Run(folder)
    summary, maps = run.read_assessment(), run.map_files
    if as_json:
        print_json(
            {
                "run": str(folder),
                "maps": [str(path) for path in maps],
                "report": str(run.report_file),
                "assessment": summary,
            }
        )
        return
    print_measures(summary)
    print("\n".join(f"map     {path}" for path in maps))
    print(f"report  {run.report_file}")


def print_json(result: Any) -> None:
    """A result for scripts."""
    print(json.dumps(result, indent=1))
