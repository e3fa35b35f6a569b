"""What makes a map the same map: everything that its bytes depend on.

Some of it people state, some is chosen for the machine (tiles, batch, engine). An unfinished or finished map goes on
with what was chosen for it, so that the same command is the same map, also on another day or machine.
"""

import json
from pathlib import Path
from typing import Any

import rasterio

from landscribe.errors import RasterError
from landscribe.geo.access import clear_vsi_cache, is_remote, open_dataset, without_secrets
from landscribe.geo.rasters.raster import Raster
from landscribe.inference.predictor import Predictor
from landscribe.maps.areas import AREAS_TAG, Areas
from landscribe.maps.layers import Layer
from landscribe.maps.unit_store import plan_beside
from landscribe.prediction.finish import PLAN_TAG
from landscribe.prediction.spec import PredictSpec

_CHOSEN = ("tiling", "batch", "engine", "tolerance")
"""What of a plan is chosen, and by what; all else is stated."""
_SAY_NOTHING = (".ovr", ".aux.xml")
"""Ends of side files in which GDAL and others put, now or later, what makes no other pixels: overviews, statistics."""
_BLOCKS_TOLD = 16
"""Of a file far away, to tell it from another one."""


def stated(predictor: Predictor, raster: Raster, spec: PredictSpec, layers: tuple[Layer, ...]) -> dict[str, Any]:
    """What a map depends on that is not chosen, in JSON's types."""
    return {
        "model": [model.sha256 for model in predictor.models],
        "raster": [_fingerprint(path) for path in raster.paths],
        **raster.fingerprint_fields,
        "layers": [[layer.kind, layer.dtype] for layer in layers],
        "device": predictor.device.type,
        "symmetries": spec.symmetries,
        "blend": spec.blend,
        "minimum area": spec.minimum_area,
        "area": None if spec.area is None else _stamp(spec.area),
    }


def chosen_before(out: Path, stated: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any] | None:
    """What was chosen for the same map when it was begun or made, and by what; None if there is none.

    Args:
        out: the map.
        stated: see there.
        asked: by name, what of the choice is asked for; others are free.
    """
    for plan in (plan_beside(out), plan_in(out)):
        choice: dict[str, Any] = {name: plan[name] for name in _CHOSEN if name in plan}
        settings = choice | choice.get("tiling", {})
        same = all(plan.get(name) == value for name, value in stated.items())
        if choice and same and all(settings.get(name) == value for name, value in asked.items()):
            return choice
    return None


def plan_in(path: Path) -> dict[str, Any]:
    """The plan of a finished map; empty if it is none of ours."""
    try:
        plan: dict[str, Any] = json.loads(tags_of(path).get(PLAN_TAG, "{}"))
    except ValueError:
        return {}
    return plan


def areas_of(path: Path) -> Areas:
    """How much of each class a finished map holds; empty if it is none of ours."""
    found: Areas = json.loads(tags_of(path).get(AREAS_TAG, "{}"))
    return found


def tags_of(path: Path) -> dict[str, str]:
    """The tags of a raster; none if there is none."""
    if not path.exists():
        return {}
    try:
        with rasterio.open(path) as source:
            return dict(source.tags())
    except rasterio.errors.RasterioIOError:
        return {}


def _stamp(name: str) -> list[Any]:
    """Name, size and time of change of a file, in JSON's types; the name alone of what is no local file."""
    local = Path(name)
    if not local.exists():
        return [without_secrets(name)]
    stat = local.stat()
    return [local.name, stat.st_size, stat.st_mtime_ns]


def _fingerprint(name: str, *, is_fresh: bool = False) -> list[Any]:
    """What tells a raster file from others of its name, in JSON's types: its stamp, and those of the files it reads.

    So a VRT's files count, masks and headers that lie beside a file, and the file of which a raster is a part. Of a
    TIFF far away, where some of its blocks lie and how long they are: that needs no more than its head, and compressed
    pixels that change hardly ever keep it. Pixels that are not compressed may change unseen there.

    Args:
        name: of the file.
        is_fresh: ask the servers of what is far away, not GDAL, which keeps what it once had.

    Raises:
        UnreachableError: the file cannot be read.
    """
    if is_fresh and is_remote(name):
        clear_vsi_cache(name)
    with open_dataset(name) as source:
        files = [file for file in source.files if file != name and not file.lower().endswith(_SAY_NOTHING)]
        found = _stamp(name) + ([] if Path(name).exists() else _layout(source))
    if name.lower().endswith(".vrt"):
        return found + [_fingerprint(file, is_fresh=is_fresh) for file in files]
    return found + [_stamp(file) for file in files]


def _layout(source: Any) -> list[str | None]:
    """Places and lengths of some blocks; nothing of what is no TIFF."""
    if source.driver not in ("GTiff", "COG"):
        return []
    rows, cols = (-(-length // side) for length, side in zip(source.shape, source.block_shapes[0], strict=True))
    places = [divmod(rows * cols * part // _BLOCKS_TOLD, cols) for part in range(_BLOCKS_TOLD)]
    items = ("BLOCK_OFFSET", "BLOCK_SIZE")
    return [source.get_tag_item(f"{item}_{col}_{row}", "TIFF", bidx=1) for row, col in places for item in items]


def require_unchanged(raster: Raster, plan: dict[str, Any]) -> None:
    """Raise RasterError if a file became another one while it was mapped: the map would be of both.

    UnreachableError, if a file does not answer any more.
    """
    for path, before in zip(raster.paths, plan["raster"], strict=True):
        if _fingerprint(path, is_fresh=True) != before:
            raise RasterError(
                f"{path} was changed while it was mapped. One raster from beginning to end was expected. "
                "Nothing was written; map it again when it is whole."
            )
