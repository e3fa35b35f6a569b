"""What a run folder holds for its report."""

import json
from pathlib import Path
from typing import Any

from landscribe.data.chips.chips import Chips
from landscribe.errors import RecipeError
from landscribe.model import Model
from landscribe.report.page import ReportInputs

_SETTINGS = (
    "batch", "loss", "class_weights", "sampling", "optimizer", "learning_rate", "schedule", "scaling", "precision",
)  # fmt: skip
"""Of the training, that the report tells."""


def read_run(folder: Path) -> ReportInputs:
    """Read what `run` left.

    Raises:
        LandscribeError: chips, model or measures are missing or damaged.
    """
    chips, model = Chips.open(folder / "chips"), Model.load(folder / "model")
    try:
        assessment: dict[str, Any] = json.loads((folder / "assessment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(
            f'{folder} has no readable assessment.json ({error}). A folder made by "landscribe run" was expected.'
        ) from error
    return ReportInputs(
        title=f"Landscribe: {', '.join(sorted(set(chips.scene_names.tolist())))}",
        chips=chips,
        history=model.history,
        kept_epoch=model.measures.get("epoch"),
        assessment=assessment,
        maps=_maps_in(folder),
        facts=_facts(model, chips),
    )


def _facts(model: Model, chips: Chips) -> list[tuple[str, str]]:
    settings = model.provenance.get("settings", {})
    size = f"{model.pixel_size:.3g} m" if model.pixel_size else "not known"
    return [
        ("network", f"{model.architecture} on {model.arguments.get('encoder', 'its own encoder')}"),
        ("start", str(model.provenance.get("weights", "not recorded"))),
        ("bands", f"{', '.join(model.bands)} ({model.dtype})"),
        ("pixel size", size),
        ("chips", f"{len(chips)} of {chips.metadata.size} pixels"),
        ("epochs", f"{len(model.history)}, of which number {model.measures.get('epoch')} was kept"),
        *((name.replace("_", " "), _said(settings.get(name))) for name in _SETTINGS),
        ("augmentation", _said(model.provenance.get("augment", {}).get("preset"))),
        ("seed", str(model.provenance.get("seed", "not recorded"))),
        ("landscribe", str(model.provenance.get("landscribe", "not recorded"))),
        ("model sha256", model.sha256[:16]),
        ("chips sha256", chips.sha256[:16]),
    ]


def _said(setting: Any) -> str:
    """A setting as a person writes it."""
    if isinstance(setting, (list, tuple)):
        return ", ".join(f"{number:g}" for number in setting)
    return "not recorded" if setting is None else str(setting)


def _maps_in(folder: Path) -> list[Path]:
    single = folder / "map.tif"
    return [single] if single.exists() else sorted((folder / "maps").glob("*.tif"))
