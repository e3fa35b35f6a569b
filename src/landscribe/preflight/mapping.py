"""Settings of maps and polygons that a run would refuse only after it has trained the network."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from landscribe.data.scenes.scene import Scene
from landscribe.errors import LandscribeError
from landscribe.executor import require_scheduler
from landscribe.geo.classes import Classes
from landscribe.geo.features import Features
from landscribe.geo.vectors.vector_files import is_vector
from landscribe.outputs import refuse_file, require_writable
from landscribe.polygons.class_codes import PolygonClass, select_classes
from landscribe.prediction.spec import PredictSpec
from landscribe.preflight.findings import Finding
from landscribe.recipe import Recipe


def check_mapping(recipe: Recipe, scenes: Sequence[Scene], classes: Classes) -> Iterator[Finding]:
    """Errors in settings of maps, polygons, the log and Dask that a run would meet after hours of other work."""
    checks: tuple[Callable[[], None], ...] = (
        lambda: _require_device_and_engine(recipe.predict),
        lambda: _require_map(recipe.predict, scenes),
        lambda: _require_classes(recipe, classes),
        lambda: _require_log(recipe.train.log),
        lambda: _require_schedulers(recipe),
    )
    for check in checks:
        try:
            check()
        except LandscribeError as error:
            yield Finding("error", str(error))


def _require_device_and_engine(predict: PredictSpec) -> None:
    from landscribe.inference.backends.choice import require_engine
    from landscribe.inference.device import resolve_device

    require_engine(predict.engine, predict.precision, resolve_device(predict.device))


def _require_map(predict: PredictSpec, scenes: Sequence[Scene]) -> None:
    """Raise for an area of interest or a minimum area that does not fit a scene: a run maps each of them."""
    from landscribe.prediction.plan import require_minimum_area

    area = None if predict.area is None else Features.read(predict.area)
    for scene in scenes:
        if area is not None:
            grid, name = scene.image.grid, scene.image.paths[0]
            area.on(grid, name).require_overlap(grid, name)
        if predict.minimum_area is not None:
            require_minimum_area(scene.image, predict.minimum_area)


def _require_classes(recipe: Recipe, classes: Classes) -> None:
    """Raise ClassError for polygons of classes that the map does not have, if a run writes polygons at all."""
    requested, labels = recipe.vectorize.classes, [source.labels for source in recipe.scenes]
    if requested is not None and any(path is not None and is_vector(path) for path in labels):
        mapped = tuple(PolygonClass(entry.value, entry.name, entry.colour) for entry in classes)
        select_classes(mapped, requested, "the map")


def _require_log(folder: str | None) -> None:
    if folder is not None:
        refuse_file(Path(folder))
        # A trial, which leaves nothing behind.
        require_writable(Path(folder) / "metrics.csv")


def _require_schedulers(recipe: Recipe) -> None:
    steps = recipe.chips, recipe.predict, recipe.vectorize
    for where in dict.fromkeys(step.dask for step in steps):
        if where is not None:
            require_scheduler(where)
