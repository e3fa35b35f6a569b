"""Parts: where units put what they made, until the map is whole.

Beside `map.tif`, the folder `map.tif.parts` holds `plan.json` (what is being mapped, by what, how) and, for
each unit, its files and at last a marker `<unit>.json`. A unit is done if its marker stands. So a run that
was killed goes on where it was, and a run of anything else is refused.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from landscribe.errors import LandscribeError, OutputError, RasterError, UnfinishedError, UnreachableError
from landscribe.geo.grid import Grid
from landscribe.geo.rasters.whole_files import write_raster
from landscribe.geo.tiling import Unit
from landscribe.maps.areas import NOTHING, Content
from landscribe.maps.layers import CLASS, Layer, LayerArrays
from landscribe.outputs import remove_empty, whole_file, write_text

_PLAN = "plan.json"
_LONGEST = 90
"""Characters of a value that people still read in a line."""


@dataclass(frozen=True)
class Parts:
    """The parts folder of one map."""

    folder: Path
    plan: str
    """What is being mapped, by what, how; as it stands in `plan.json`."""

    @classmethod
    def of(cls, out: Path, plan: dict[str, Any]) -> "Parts":
        """The parts of the map `out`; nothing is made yet."""
        return cls(_folder(out), json.dumps(plan, indent=1, sort_keys=True) + "\n")

    @property
    def run(self) -> str:
        """Hash of the plan: the map is the same if and only if this is."""
        return hashlib.sha256(self.plan.encode()).hexdigest()

    def begin(self, *, overwrite: bool) -> None:
        """Make the folder, or go on with the one of an interrupted run.

        Raises:
            OutputError: the folder holds parts of another plan, which are not given up for overwriting; says
                in what they differ. Or nothing can be written there.
        """
        if self._place.exists():
            self._require_same_plan(overwrite=overwrite)
        if not self._place.exists():
            self._claim()

    def _claim(self) -> None:
        """Write the plan, unless another run, as of a shard that started at the same moment, comes first."""
        written = self.folder / f".{uuid.uuid4().hex[:8]}.{_PLAN}"
        write_text(written, self.plan)
        try:
            os.link(written, self._place)
        except FileExistsError:
            self._require_same_plan(overwrite=False)
        except OSError:  # a file system without links
            written.replace(self._place)
        finally:
            written.unlink(missing_ok=True)

    def __getstate__(self) -> dict[str, Any]:
        # Workers elsewhere work in other folders.
        return self.__dict__ | {"folder": self.folder.absolute()}

    def is_begun(self) -> bool:
        """True if the folder holds parts of this very plan."""
        return self._place.exists() and self._place.read_text(encoding="utf-8") == self.plan

    def _require_same_plan(self, *, overwrite: bool) -> None:
        differs = self.differs(_read_plan(self._place)) or ("plan" if not self.is_begun() else "")
        if differs and overwrite:
            self.remove()
        elif differs:
            raise OutputError(
                f"{self.folder} holds an unfinished map with another {differs}. "
                "Finish that one with its own command, remove the folder, or pass --overwrite."
            )

    def differs(self, other: dict[str, Any]) -> str:
        """In what another plan differs, with both values; nothing if it does not, or if there is none."""
        plan = json.loads(self.plan)
        keys = [key for key in plan if other and other.get(key) != plan[key]]
        values = "; ".join(_change(_told(key, other.get(key)), _told(key, plan[key])) for key in keys)
        return f"{', '.join(keys)} ({values})" if keys else ""

    @property
    def _place(self) -> Path:
        return self.folder / _PLAN

    def is_done(self, unit: Unit) -> bool:
        """True if all that the unit makes is there."""
        return self._marker(unit).exists()

    def put(self, unit: Unit, made: LayerArrays | None, wanted: Sequence[Layer], grid: Grid) -> None:
        """Store what a unit of `grid` made of the wanted layers; None where it has no valid pixel.

        Raises:
            OutputError: the parts were taken away meanwhile: what a unit leaves there then, as a worker elsewhere that
                ends late might, would be taken for a part of the next map.
        """
        if not self.is_begun():
            raise OutputError(
                f"{self.folder} was removed, or holds another map by now. It was expected to stay until this map is "
                "whole. Repeat the same command."
            )
        content = NOTHING
        if made is not None:
            for layer in wanted:
                self.put_layer(unit, made[layer.kind], layer, grid)
            content = Content.of(made[CLASS.kind][0], grid[unit.keep])
        write_text(self._marker(unit), json.dumps(content.as_dict()))

    def put_layer(self, unit: Unit, array: NDArray[Any], layer: Layer, grid: Grid) -> None:
        """Store (bands, rows, cols) of one layer; the unit is not done by this."""
        layout: dict[str, Any] = {
            "driver": "GTiff",
            "tiled": True,
            "compress": "deflate",
            "zlevel": 1,
            "nodata": layer.nodata,
        }
        with whole_file(self.path(unit, layer.kind)) as temporary:
            write_raster(temporary, array, grid[unit.keep], **layout)

    def path(self, unit: Unit, kind: str) -> Path:
        """The file of a unit's layer; absent if the unit has no valid pixel."""
        return self.folder / f"{unit.name}.{kind}.tif"

    def content(self, unit: Unit) -> Content:
        """How much of each class the unit was mapped to."""
        return Content.from_dict(json.loads(self._marker(unit).read_text(encoding="utf-8")))

    def _marker(self, unit: Unit) -> Path:
        return self.folder / f"{unit.name}.json"

    def count_done(self) -> int:
        """How many units are done."""
        return sum(1 for _ in self.folder.glob("[0-9]*_*.json"))

    def remove(self) -> None:
        """Take everything away, once the map is whole or given up.

        Killed in the middle, it leaves no unit that counts as done without its files, and a plan that still says
        whose the rest is.
        """
        for part in sorted(self.folder.glob("*"), key=lambda part: (part == self._place, part.suffix != ".json")):
            with suppress(OSError):
                part.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def begun(parts: Parts, *, overwrite: bool, alone: bool = True) -> Iterator[None]:
    """Begin or go on with parts; when the block fails, keep them if a repetition of it can use them.

    So it is with all that can be mended from outside, once a unit is done: a full disk, a drive that was unplugged, a
    server or scheduler that went away. A raster that will not do would fail there again.

    Args:
        parts: to begin.
        overwrite: give up parts of another plan.
        alone: nobody else puts units there, as other shards do, for whom all is kept.

    Raises:
        UnfinishedError: it failed, and units are kept.
    """
    missing = [parent for parent in parts.folder.parents if not parent.exists()]
    parts.begin(overwrite=overwrite)
    try:
        yield
    except UnfinishedError:
        raise
    except LandscribeError as error:
        done = parts.count_done()
        will_not_do = isinstance(error, RasterError) and not isinstance(error, UnreachableError)
        if will_not_do or not done:
            if alone:
                parts.remove()
                remove_empty(missing)
            raise
        raise UnfinishedError(
            f"{parts.folder.with_suffix('')} is not finished: {error} Its finished units ({done}) are kept in "
            f"{parts.folder.name}: mend what is named and repeat the same command, or remove that folder."
        ) from error


def plan_beside(out: Path) -> dict[str, Any]:
    """The plan of the unfinished map `out`; empty if there is none."""
    return _read_plan(_folder(out) / _PLAN)


def _folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.parts")


def _read_plan(path: Path) -> dict[str, Any]:
    try:
        plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return plan


def _told(key: str, value: Any) -> str:
    """A value of a plan as people say it."""
    if key == "model" and value:
        text = ", ".join(sha256[:8] for sha256 in value)
    elif key == "raster" and value:
        text = ", ".join(_told_file(*file) for file in value)
    elif key == "area" and value:
        text = _told_file(*value)
    else:
        text = json.dumps(value).replace('"', "")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _change(before: str, now: str) -> str:
    return f"{before}, now {now}" if before != now else f"{before}, which was changed since"


def _told_file(name: str, size: int | None = None, changed: int | None = None, *_: object) -> str:
    """A file's stamp: see `identity`."""
    if not (isinstance(size, int) and isinstance(changed, int)):
        return name
    return f"{name} of {size} bytes and {datetime.fromtimestamp(changed / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC"
