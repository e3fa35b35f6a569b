"""The verbs of runs: new and report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from landscribe.errors import RecipeError, listed
from landscribe.outputs import claim, output_path, require_absent, require_replaceable
from landscribe.recipe import Recipe
from landscribe.verbs.sources import PathLike

if TYPE_CHECKING:
    from landscribe.runs import Run


def new(out: PathLike, *, like: str | None = None, data: PathLike | None = None, overwrite: bool = False) -> Path:
    """Write a complete, commented recipe to start from.

    Args:
        out: the recipe.
        like: an example of the lecture: topodl, inria, landcoverai, wvlcdl.
        data: the folder of that example, as its publisher distributes it. It need not exist yet. Default: the recipe's.
        overwrite: replace an existing recipe.

    Returns:
        The recipe's path.

    Raises:
        RecipeError: an unknown example, or `data` without an example.
        OutputError: `out` exists, cannot be written, or does not end in .toml.
    """
    out = output_path(out)
    require_absent(out, overwrite=overwrite)
    if like is not None:
        recipe = _of_example(like, out.parent if data is None else Path(data), out.parent)
    elif data is None:
        recipe = Recipe.of({"scenes": [{"image": ["scene.tif"], "labels": "labels.geojson"}]})
    else:
        raise RecipeError(f"data is {data}, but no example is named. Name it with --like.")
    with claim(out):
        recipe.save(out)
    return out


def _of_example(name: str, data: Path, folder: Path) -> Recipe:
    """The recipe of an example, with paths relative to the recipe's folder, or absolute if `data` is."""
    try:
        relative = data if data.is_absolute() else Path(os.path.relpath(data, folder))
    except ValueError:  # on another drive of Windows
        relative = data.absolute()
    return Recipe.of_example(name, data).with_paths(lambda path: (relative / path).as_posix())


def report(folder: PathLike, *, out: PathLike | None = None) -> Path:
    """Write one self-contained HTML page about a run folder.

    Args:
        folder: a run folder.
        out: the page (.html); default: `report.html` in the folder. It may replace an earlier report, but no other
            file.

    Returns:
        The page.

    Raises:
        RecipeError: the folder holds no run.
        LandscribeError: chips, model or measures are missing or damaged.
        OutputError: `out` exists and is no report, or cannot be written.
    """
    from landscribe.runs import FOLDS, Run

    run = Run(Path(folder))
    if (run.folder / FOLDS).exists():
        raise RecipeError(
            f"{folder} holds a cross-validation, which names no chips and makes no map of a run. Its measures are in "
            f"{FOLDS}. Expected the folder of a finished run. landscribe run with --folds reports folds."
        )
    page = run.report_file if out is None else output_path(out)
    with claim(page):
        require_replaceable(page, "a report", (".html", ".htm"), _is_report)
        _require_chips(run)
        run.read_assessment()

        # These imports take seconds, so an unfinished run is refused before them.
        from landscribe.reports.inputs import ReportInputs
        from landscribe.reports.page import write_report

        return write_report(ReportInputs.of_run(run), page)


def _is_report(text: str) -> bool:
    """True for a page of `report`, also of an earlier version; False for any other, a labelling page included."""
    return all(part in text for part in ('<meta name="generator" content="landscribe">', '<section id="accuracy">'))


def _require_chips(run: Run) -> None:
    """Raise RecipeError for a folder that is no run, with the runs in it."""
    if run.chips_folder.exists():
        return
    within = sorted(str(path.parent) for path in run.folder.glob("*/recipe.toml"))
    raise RecipeError(
        f"{run.folder} is no run folder: it has no chips. Expected the folder of a finished landscribe run."
        + (f" Did you mean {listed(within)}?" if within else " Check the path.")
    )
