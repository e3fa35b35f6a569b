"""The verbs of runs: new and report."""

from __future__ import annotations

from pathlib import Path

from landscribe.outputs import claim, require_absent
from landscribe.recipe import Recipe
from landscribe.verbs.sources import Source


def new(out: Source, *, overwrite: bool = False) -> Path:
    """Write a complete, commented recipe to start from."""
    out = Path(out)
    require_absent(out, overwrite=overwrite)
    example = {"scenes": [{"image": ["scene.tif"], "labels": "labels.geojson"}]}
    with claim(out):
        Recipe.of(example).save(out)
    return out


def report(folder: Source, *, out: Source | None = None) -> Path:
    """Write one self-contained HTML page about a run folder.

    Args:
        folder: a run folder.
        out: the page; default: `report.html` in the folder.
    """
    from landscribe.reports.inputs import ReportInputs
    from landscribe.reports.page import write_report
    from landscribe.runs import Run

    run = Run(Path(folder))
    page = Path(out) if out is not None else run.report_file
    with claim(page):
        return write_report(ReportInputs.of_run(run), page)
