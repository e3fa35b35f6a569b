"""Inputs of a report: chips, training history, measures and maps of a run."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio

from landscribe.data.chips.chips import Chips
from landscribe.errors import listed
from landscribe.examples import EXAMPLES
from landscribe.examples.example import Published
from landscribe.maps.class_map import RUN_TAG, fingerprint_in, read_tags
from landscribe.model.config import ModelConfig
from landscribe.model.folder import SavedModel
from landscribe.reports.figures import measure
from landscribe.reports.folds import Folds
from landscribe.runs import Run

log = logging.getLogger(__name__)

_SETTINGS = (
    "batch", "loss", "class_weights", "sampling", "optimizer", "learning_rate", "schedule", "scaling", "precision",
)  # fmt: skip
"""Training settings that the report lists."""
_BUDGETS = ("steps", "epochs", "minutes", "effort")
"""Training settings of which the first that is set holds."""
_IF_SET = {"patience": "patience", "ema_decay": "EMA decay"}
"""Training settings that the report lists if they are not off, and their names."""
_MOST_FILES = 3
"""Files of polygons that the report names."""
_MOST_BANDS = 12
"""Bands whose scaling the report lists."""


@dataclass(frozen=True)
class ReportInputs:
    """Everything that a report shows."""

    title: str
    chips: Chips
    """Chips of all splits."""
    history: Sequence[Mapping[str, Any]]
    """One row per epoch, as in `Model.history`; may be empty."""
    kept_epoch: int | None
    """Epoch of the model's weights."""
    assessment: Mapping[str, Any]
    """`Confusion.as_dict()` with "reference", "split" and "maps"."""
    maps: Sequence[Path]
    """Class maps, each on the grid of one of the scenes."""
    facts: Sequence[tuple[str, str]]
    """Further facts: (name, text)."""
    of_both: Sequence[tuple[str, str, str]] = ()
    """Facts in which the assessed and the final model differ: (name, text of the assessed one, of the final one)."""
    assessed_maps: Sequence[Path] | None = None
    """The maps that are assessed on held-out chips, where other models have made `maps`; else None."""
    stops: Sequence[str] = ()
    """Where and why trainings stopped before the end of their budgets, or found one class at most: sentences."""
    folds: Folds | None = None
    """Of a run with folds: then there is no `history`, and `assessed_maps` are its out-of-fold maps."""
    reference: Mapping[str, Any] | None = None
    """As `assessment`, against the independent reference of the run."""
    sample: Mapping[str, Any] | None = None
    """Accuracy and areas that a reference sample estimates: `SampleAssessment.as_dict()`."""
    published: Sequence[tuple[Published, float | None]] = ()
    """Published numbers of an example of the lecture, and the same measures of this run."""

    @classmethod
    def of_run(cls, run: Run) -> "ReportInputs":
        """Read a run folder.

        Raises:
            LandscribeError: chips, model or assessment are missing or damaged.
        """
        chips = run.open_chips()
        assessment, reference, folds = run.read_assessment(), run.read_reference_assessment(), Folds.of_run(run, chips)
        published = EXAMPLES[run.example].published if run.example in EXAMPLES else ()
        assessed = None if folds else run.assessed.read_model().config
        facts, of_both = (_facts_of_folds(folds, chips, run), []) if folds else _facts_of_models(run, chips)
        return cls(
            title=f"Landscribe: {_title(chips)}",
            chips=chips,
            history=assessed.history if assessed else (),
            kept_epoch=assessed.measures.get("epoch") if assessed else None,
            assessment=assessment,
            maps=run.map_files,
            facts=[*facts, *_polygon_facts(run)],
            of_both=of_both,
            stops=_stops(folds, assessed),
            folds=folds,
            assessed_maps=None if run.assessed == run else run.assessed.map_files,
            reference=reference,
            sample=_sample_of(run),
            published=[
                (number, number.measured((number.on_reference and reference) or assessment)) for number in published
            ],
        )


def _title(chips: Chips) -> str:
    """The first scenes in the order of the run, and how many more there are.

    A title of all scenes would be as long as a page.
    """
    return listed(chips.metadata.scene_names)


def _sample_of(run: Run) -> dict[str, Any] | None:
    """What a reference sample estimates; None, with a warning, if it was drawn from another map than the run's."""
    sample = run.read_sample_assessment()
    # Earlier versions did not write the run of the map.
    if sample is None or "map_run" not in sample:
        return sample
    if sample["map_run"] in {read_tags(path).get(RUN_TAG) for path in run.map_files} - {None}:
        return sample
    log.warning(
        "the report leaves out %s: its sample is of another map (%s) than that of the run, or of an earlier one. Draw "
        "and label a sample of the map of the run, and assess it anew", run.sample_file, sample["map"],
    )  # fmt: skip
    return None


def _stops(folds: Folds | None, assessed: ModelConfig | None) -> list[str]:
    """Sentences on early stops, failures and needed thresholds: of the assessed model, or of each fold."""
    trainings = [] if assessed is None else [("", assessed)]
    if folds:
        trainings = [(f" of {name}", model.config) for name, model in zip(folds.names, folds.models, strict=True)]
    reasons = [(name, config.provenance.get("stopped")) for name, config in trainings]
    early = [f"The training{name} {reason}." for name, reason in reasons if reason]
    failed = [f"The training{name} failed. {config.collapse}." for name, config in trainings if config.collapse]
    advised = [(name, config.threshold_advice) for name, config in trainings]
    return [*early, *failed, *(f"The model{name} needs a threshold. {advice}." for name, advice in advised if advice)]


def _facts_of_models(run: Run, chips: Chips) -> tuple[list[tuple[str, str]], list[tuple[str, str, str]]]:
    """Of the run's model; with a final model, those that both models share, and those in which they differ.

    The threshold from val is that of the assessed model.
    """
    runs = (run.assessed, run)
    models = [each.read_model() for each in runs]
    assessed, final = (
        facts | dict(_threshold_facts(models[0].config, each.map_files))
        for facts, each in zip(_facts_of_each(models, chips), runs, strict=True)
    )
    same = [(name, text) for name, text in final.items() if assessed.get(name) == text]
    names = [name for name in dict.fromkeys([*assessed, *final]) if assessed.get(name) != final.get(name)]
    return same, [(name, assessed.get(name, "\u2013"), final.get(name, "\u2013")) for name in names]


def _facts_of_folds(folds: Folds, chips: Chips, run: Run) -> list[tuple[str, str]]:
    """Of the models of all folds: where they differ, the texts of each."""
    of_each = [
        facts | dict(_threshold_facts(model.config, run.map_files))
        for facts, model in zip(_facts_of_each(folds.models, chips), folds.models, strict=True)
    ]
    names = dict.fromkeys(name for facts in of_each for name in facts)
    texts = {name: dict.fromkeys(facts[name] for facts in of_each if name in facts) for name in names}
    return [("models", f"{len(folds.models)}, one for each fold"), *((name, " / ".join(texts[name])) for name in names)]


def _facts_of_each(models: Sequence[SavedModel], chips: Chips) -> list[dict[str, str]]:
    """The facts of each model. Those with equal initial weights share the text of the first.

    That text has the reason where auto chose the weights; the trainings after the first are given these weights.
    """
    of_each, texts = [dict(_facts(model, chips)) for model in models], dict[str, str]()
    for facts, model in zip(of_each, models, strict=True):
        own = facts["initial weights"]
        source = model.config.provenance.get("encoder_weights", {}).get("source", own)
        facts["initial weights"] = texts.setdefault(source, own)
    return of_each


def _facts(saved: SavedModel, chips: Chips) -> list[tuple[str, str]]:
    model = saved.config
    settings = model.provenance.get("settings", {})
    used = _used(model)
    pixel_size = f"{model.pixel_size:.3g} m" if model.pixel_size else "unknown"
    return [
        ("architecture", model.architecture),
        ("encoder", model.arguments.get("encoder", "built in")),
        ("initial weights", _text(model.provenance.get("weights")).removeprefix("weights: ")),
        ("bands", f"{', '.join(model.bands)} ({model.dtype})"),
        ("pixel size", pixel_size),
        ("chips", f"{len(chips):,} of {chips.metadata.size} \u00d7 {chips.metadata.size} pixels"),
        ("trained on", _trained_text(model, chips)),
        ("epochs", f"{len(model.history)}; weights of epoch {model.measures.get('epoch')}"),
        ("budget", next((f"{name} {settings[name]}" for name in _BUDGETS if settings.get(name)), "not recorded")),
        *((name.replace("_", " "), used.get(name) or _text(settings.get(name))) for name in _SETTINGS),
        *((text, str(settings[name])) for name, text in _IF_SET.items() if settings.get(name)),
        ("augmentation", _text(model.provenance.get("augment", {}).get("preset"))),
        ("random seed", _text(model.provenance.get("seed"))),
        ("landscribe version", _text(model.provenance.get("landscribe"))),
        ("torch version", _text(model.provenance.get("torch"))),
        ("model sha256", saved.sha256[:16]),
        ("chips sha256", chips.sha256[:16]),
    ]


def _trained_text(model: ModelConfig, chips: Chips) -> str:
    """The splits that the folder of chips names for the training chips of a model."""
    splits = model.provenance.get("trained_splits")
    if not splits:
        return "not recorded"
    count = int(np.isin(chips.splits, splits).sum())
    return f"split{'' if len(splits) == 1 else 's'} {', '.join(splits)} ({count:,} chips)"


def _used(model: ModelConfig) -> dict[str, str]:
    """What a training used where a setting may be auto; earlier versions recorded less of it."""
    provenance = model.provenance
    fingerprint = provenance.get("training", {}).get("fingerprint", {})
    rate = provenance.get("learning_rate")
    return {
        "sampling": provenance.get("sampling", ""),
        "learning_rate": "" if rate is None else f"{rate:.3g}",
        "scaling": _scaling_text(model),
        "precision": fingerprint.get("precision", ""),
    }


def _scaling_text(model: ModelConfig) -> str:
    """The formula that scales stored values, with the numbers of each band, or once where they are those of all."""
    constants = zip(model.scaling.offset, model.scaling.factor, strict=True)
    formulas = [_formula(offset, factor) for offset, factor in constants]
    if len(set(formulas)) == 1:
        return formulas[0]
    named = zip(model.bands, formulas, strict=True)
    return listed((f"{band} {formula}" for band, formula in named), most=_MOST_BANDS)


def _formula(offset: float, factor: float) -> str:
    """The formula that scales stored values, without a double sign and without an offset of 0."""
    sign = "+" if offset < 0 else "\u2212"
    shifted = f"(value {sign} {abs(offset):.4g})" if offset else "value"
    return f"{shifted} \u00d7 {factor:.4g}"


def _threshold_facts(model: ModelConfig, maps: Sequence[Path]) -> list[tuple[str, str]]:
    """Of two classes: the threshold of the run's maps, and the one that the validation chips gave."""
    if len(model.classes) != 2:
        return []
    second = model.classes[1].name
    used = next((fingerprint_in(read_tags(path)).get("threshold") for path in maps), None)
    facts = [("threshold of the map", f"{used:.3g}, {second} from it up" if isinstance(used, float) else "0.5")]
    if model.val_threshold is not None:
        f1, f1_at_half = (model.measures.get(name) for name in ("val_threshold_f1", f"val_f1_{second}"))
        gain = f"F1 of {second} {measure(f1)}, {measure(f1_at_half)} at 0.5"
        facts.append(("threshold from val", f"{model.val_threshold:.3g} ({gain})"))
    return facts


def _polygon_facts(run: Run) -> list[tuple[str, str]]:
    """The files of the map's polygons, and their numbers."""
    counts = [(path, pyogrio.read_info(path, layer=path.stem)["features"]) for path in run.polygon_files]
    text = ", ".join(f"{path.relative_to(run.folder)} ({count:,})" for path, count in counts[:_MOST_FILES])
    more = f" and {len(counts) - _MOST_FILES} more files" if len(counts) > _MOST_FILES else ""
    return [("polygons of the map", text + more)] if counts else []


def _text(setting: Any) -> str:
    """A setting as text; "not recorded" for None."""
    if isinstance(setting, (list, tuple)):
        return ", ".join(f"{number:g}" for number in setting)
    return "not recorded" if setting is None else str(setting)
