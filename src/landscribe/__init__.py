"""Landscribe: from rasters and labels to maps, and an honest statement of their accuracy.

The names below are the public ones. Each is imported when it is first used, so that `import landscribe`
loads neither torch nor GDAL.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from landscribe import nn
    from landscribe.confusion import Confusion
    from landscribe.crossvalidation import cross_validate
    from landscribe.data.chips.chips import Chips
    from landscribe.data.scenes.scene import Scene
    from landscribe.errors import LandscribeError
    from landscribe.geo.classes import Classes
    from landscribe.geo.grid import Grid, Window
    from landscribe.geo.rasters.raster import Raster
    from landscribe.geo.tiling import Tile
    from landscribe.model import Model
    from landscribe.pipeline import demo, run
    from landscribe.recipe import Recipe
    from landscribe.verbs import (
        assess,
        bench,
        branches,
        check,
        chip,
        describe,
        export,
        new,
        predict,
        prune,
        report,
        summary,
        train,
    )

_HOMES = {
    **dict.fromkeys(
        (
            "assess",
            "bench",
            "branches",
            "check",
            "chip",
            "describe",
            "export",
            "new",
            "predict",
            "prune",
            "report",
            "summary",
            "train",
        ),
        "verbs",
    ),
    **dict.fromkeys(("demo", "run"), "pipeline"),
    "cross_validate": "crossvalidation",
    "Chips": "data.chips.chips",
    "Classes": "geo.classes",
    "Confusion": "confusion",
    "Grid": "geo.grid",
    "LandscribeError": "errors",
    "Model": "model",
    "Raster": "geo.rasters.raster",
    "Recipe": "recipe",
    "Scene": "data.scenes.scene",
    "Tile": "geo.tiling",
    "Window": "geo.grid",
}

__all__ = [
    "Chips", "Classes", "Confusion", "Grid", "LandscribeError", "Model", "Raster", "Recipe", "Scene", "Tile", "Window",
    "assess", "bench", "branches", "check", "chip", "cross_validate", "demo", "describe", "export", "new", "nn",
    "predict", "prune", "report", "run", "summary", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "nn":
        return import_module("landscribe.nn")
    if name not in _HOMES:
        raise AttributeError(f"module 'landscribe' has no attribute '{name}'")
    return getattr(import_module(f"landscribe.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
