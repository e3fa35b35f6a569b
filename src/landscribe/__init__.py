"""Landscribe: from rasters and labels to maps, and an honest statement of their accuracy.

The public names. Each is imported at its first use, so that `import landscribe` loads neither torch nor GDAL.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from landscribe import nn
    from landscribe.assessment.spec import AccuracySpec, AssessSpec, ObjectAssessmentSpec
    from landscribe.confusion import Confusion
    from landscribe.data.batches.augment_spec import AugmentSpec
    from landscribe.data.batches.dataset import ChipDataset, loader
    from landscribe.data.chips.chips import Chips
    from landscribe.data.chips.spec import ChipSpec
    from landscribe.data.scenes.scene import Scene
    from landscribe.data.scenes.spec import ClassSpec, SceneSpec
    from landscribe.data.splits.spec import SplitSpec
    from landscribe.errors import LandscribeError
    from landscribe.estimation.estimate import Estimate, estimate
    from landscribe.estimation.reference_sample import ReferenceSample
    from landscribe.experiments.cross_validation import cross_validate
    from landscribe.experiments.transfer import transfer
    from landscribe.geo.classes import Classes
    from landscribe.geo.grid import Grid, Window
    from landscribe.geo.rasters.raster import Raster
    from landscribe.geo.spec import ImagerySpec
    from landscribe.geo.tiling import Tile
    from landscribe.model import Model
    from landscribe.pipeline import demo, run
    from landscribe.polygons.spec import VectorizeSpec
    from landscribe.prediction.spec import PredictSpec
    from landscribe.recipe import Recipe
    from landscribe.sampling.spec import SampleSpec
    from landscribe.training.spec import ModelsSpec, TrainSpec
    from landscribe.verbs import (
        assess,
        assess_objects,
        bench,
        branches,
        check,
        chip,
        describe,
        encoders,
        export,
        new,
        plan_sample,
        predict,
        prune,
        report,
        sample,
        summary,
        train,
        vectorize,
    )

_VERBS = (
    "assess", "assess_objects", "bench", "branches", "check", "chip", "describe", "encoders", "export", "new",
    "plan_sample", "predict", "prune", "report", "sample", "summary", "train", "vectorize",
)  # fmt: skip
_HOMES = {
    **dict.fromkeys(_VERBS, "verbs"),
    **dict.fromkeys(("demo", "run"), "pipeline"),
    "cross_validate": "experiments.cross_validation",
    "transfer": "experiments.transfer",
    "AccuracySpec": "assessment.spec",
    "AssessSpec": "assessment.spec",
    "AugmentSpec": "data.batches.augment_spec",
    "ChipDataset": "data.batches.dataset",
    "ChipSpec": "data.chips.spec",
    "Chips": "data.chips.chips",
    "ClassSpec": "data.scenes.spec",
    "Classes": "geo.classes",
    "Confusion": "confusion",
    "Grid": "geo.grid",
    "ImagerySpec": "geo.spec",
    "Estimate": "estimation.estimate",
    "LandscribeError": "errors",
    "Model": "model",
    "ModelsSpec": "training.spec",
    "ObjectAssessmentSpec": "assessment.spec",
    "PredictSpec": "prediction.spec",
    "Raster": "geo.rasters.raster",
    "Recipe": "recipe",
    "Scene": "data.scenes.scene",
    "ReferenceSample": "estimation.reference_sample",
    "SampleSpec": "sampling.spec",
    "SceneSpec": "data.scenes.spec",
    "SplitSpec": "data.splits.spec",
    "Tile": "geo.tiling",
    "TrainSpec": "training.spec",
    "VectorizeSpec": "polygons.spec",
    "Window": "geo.grid",
    "estimate": "estimation.estimate",
    "loader": "data.batches.dataset",
}

__all__ = [
    "AccuracySpec", "AssessSpec", "AugmentSpec", "ChipDataset", "ChipSpec", "Chips", "ClassSpec", "Classes",
    "Confusion", "Estimate", "Grid", "ImagerySpec", "LandscribeError", "Model", "ModelsSpec", "ObjectAssessmentSpec",
    "PredictSpec", "Raster", "Recipe", "ReferenceSample", "SampleSpec", "Scene", "SceneSpec", "SplitSpec", "Tile",
    "TrainSpec", "VectorizeSpec", "Window", "assess", "assess_objects", "bench", "branches", "check", "chip",
    "cross_validate", "demo", "describe", "encoders", "estimate", "export", "loader", "new", "nn", "plan_sample",
    "predict", "prune", "report", "run", "sample", "summary", "train", "transfer", "vectorize",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "nn":
        return import_module("landscribe.nn")
    if name not in _HOMES:
        raise AttributeError(f"module 'landscribe' has no attribute '{name}'")
    return getattr(import_module(f"landscribe.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
