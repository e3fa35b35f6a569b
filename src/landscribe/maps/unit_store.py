"""UnitStore: the folder in which units keep their layers until the map is assembled.

Beside `map.tif`, the folder `map.tif.parts` holds `plan.json` (the fingerprint of the map) and, for each unit, its
layers and at last a marker `<unit>.json`. A unit is done if its marker exists. So a killed run resumes, and a run of
anything else is refused.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe.errors import (
    DamagedPartError,
    LandscribeError,
    OutputError,
    OutsideError,
    RasterError,
    UnfinishedError,
    UnreachableError,
)
from landscribe.fingerprint import Fingerprint, read_fingerprint, value_text
from landscribe.geo.grid import Grid
from landscribe.geo.rasters.source_files import state_text
from landscribe.geo.rasters.whole_files import write_raster
from landscribe.geo.tiling import Unit
from landscribe.maps.areas import NO_AREA, ClassAreas
from landscribe.maps.layers import CLASS, Layer, LayerArrays
from landscribe.outputs import atomic_file, remove_empty, write_text

_FINGERPRINT = "plan.json"
SAME_FILE = "A file that was copied again is the same if it has the same size and modification time (cp -p, touch -r)."
"""Advice where a raster is repaired."""
_LAYOUT: dict[str, Any] = {
    "driver": "GTiff",
    "tiled": True,
    "compress": "deflate",
    "zlevel": 1,
}


@dataclass(frozen=True)
class UnitStore:
    """The units of one map, as files."""

    folder: Path
    fingerprint: Fingerprint
    """Of the map: everything that its bytes depend on."""

    @classmethod
    def of(cls, out: Path, fingerprint: Fingerprint) -> "UnitStore":
        """The store of the map `out`; nothing is written yet."""
        return cls(_folder(out), fingerprint)

    @contextmanager
    def session(self, *, overwrite: bool = False, is_shard: bool = False) -> Iterator[None]:
        """Create or resume the store; if the block fails, keep the units that a repetition of the command can use.

        A full disk, an unplugged drive, a lost server or scheduler can be repaired: the units stay. An unusable raster
        or area of interest would fail again: the units go.

        Args:
            overwrite: drop the units of another map.
            is_shard: other processes write units there too, so all are kept.

        Raises:
            OutputError: the folder holds units of another map (says which settings differ), or cannot be written.
            UnfinishedError: the block failed, and units are kept; a damaged part is removed.
        """
        missing = [parent for parent in self.folder.parents if not parent.exists()]
        self.claim(overwrite=overwrite)
        try:
            yield
        except UnfinishedError:
            raise
        except DamagedPartError as error:
            self._drop(error.path)
            raise UnfinishedError(
                f"{self.folder.with_suffix('')} is not finished: {error}. Repeat the same command: it writes that "
                f"part anew, and the others are kept in {self.folder.name}."
            ) from error
        except LandscribeError as error:
            done = self.count_done()
            is_unusable = isinstance(error, (RasterError, OutsideError)) and not isinstance(error, UnreachableError)
            if is_unusable or not done:
                if not is_shard:
                    self.remove()
                    remove_empty(missing)
                raise
            raise UnfinishedError(
                f"{self.folder.with_suffix('')} is not finished: {error} Its finished units ({done}) are kept in "
                f"{self.folder.name}: fix the cause and repeat the same command, or remove that folder."
            ) from error

    def claim(self, *, overwrite: bool = False) -> None:
        """Create the folder with this map's fingerprint, or accept the folder of an interrupted run of the same map.

        Raises:
            OutputError: it holds units of another map, and `overwrite` is False; or it cannot be written.
        """
        if overwrite and self._path.exists() and not self.exists():
            self.remove()
        # Another shard that started at the same moment may claim the folder first.
        if self._path.exists() or not self.fingerprint.claim(self._path):
            self._require_same_map()

    def _require_same_map(self) -> None:
        before = read_fingerprint(self._path)
        differences = self.differences(before) or ("" if self.exists() else "plan")
        if differences:
            remedy = "Finish that map with its own command, remove the folder, or pass --overwrite."
            if _is_of_same_names(before, self.fingerprint.fields):
                remedy = f"The file was changed since: pass --overwrite to map it from the beginning. {SAME_FILE}"
            raise OutputError(f"{self.folder} holds an unfinished map with another {differences}. {remedy}")

    def exists(self) -> bool:
        """True if the folder holds units of this very map."""
        return self.fingerprint.is_in(self._path)

    def differences(self, other: dict[str, Any]) -> str:
        """Names and values of the fields in which another map's fingerprint differs; empty if none does."""
        return self.fingerprint.differences(other, _describe)

    @property
    def _path(self) -> Path:
        return self.folder / _FINGERPRINT

    def __getstate__(self) -> dict[str, Any]:
        # Dask workers run in other working folders.
        return self.__dict__ | {"folder": self.folder.absolute()}

    def is_done(self, unit: Unit) -> bool:
        """True if all layers of the unit are written."""
        return self._marker(unit).exists()

    def write(
        self,
        unit: Unit,
        arrays: LayerArrays | None,
        layers: Sequence[Layer],
        grid: Grid,
        counts: NDArray[np.int64] | None = None,
    ) -> None:
        """Write the layers of a unit of `grid`, then its marker.

        Args:
            unit: of the map.
            arrays: its layers; None if no pixel was mapped.
            layers: to write.
            grid: of the map.
            counts: of its class values, as `ClassAreas.of` takes them.

        Raises:
            OutputError: the store was removed or replaced meanwhile. A worker that ends late must not leave units in
                the store of the next map.
        """
        if not self.exists():
            raise OutputError(
                f"{self.folder} was removed, or now holds another map, while this map was written. Repeat the same "
                "command."
            )
        areas = NO_AREA
        if arrays is not None:
            for layer in layers:
                self.write_layer(unit, arrays[layer.kind], layer, grid)
            areas = ClassAreas.of(arrays[CLASS.kind][0], grid[unit.keep], counts)
        write_text(self._marker(unit), json.dumps(areas.as_dict()))

    def write_layer(self, unit: Unit, array: NDArray[Any], layer: Layer, grid: Grid) -> None:
        """Write (bands, rows, cols) of one layer; the unit is not done by this."""
        with atomic_file(self.path(unit, layer.kind)) as temporary:
            write_raster(temporary, array, grid[unit.keep], nodata=layer.nodata, **_LAYOUT)

    def path(self, unit: Unit, kind: str) -> Path:
        """The file of a unit's layer; absent if the unit has no mapped pixel."""
        return self.folder / f"{unit.name}.{kind}.tif"

    def areas(self, unit: Unit) -> ClassAreas:
        """Area of each class in a unit that is done.

        Raises:
            DamagedPartError: its marker cannot be read.
        """
        marker = self._marker(unit)
        try:
            return ClassAreas.from_dict(json.loads(marker.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedPartError(marker, "is damaged") from error

    def _marker(self, unit: Unit) -> Path:
        return self.folder / f"{unit.name}.json"

    def _drop(self, path: Path) -> None:
        """Remove a damaged file; that of a unit's layer with the unit's marker, that of a group with its blocks."""
        (self.folder / path.name.partition(".")[0]).with_suffix(".json").unlink(missing_ok=True)
        path.with_suffix(".blocks").unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    def count_done(self) -> int:
        """Number of units that are done."""
        return sum(1 for _ in self.folder.glob("[0-9]*_*.json"))

    def remove(self) -> None:
        """Delete the folder.

        Markers go first and the fingerprint last, so that a kill in the middle leaves no unit that counts as done
        without its files, and no unit without the map it belongs to.
        """
        for path in sorted(self.folder.glob("*"), key=lambda path: (path == self._path, path.suffix != ".json")):
            with suppress(OSError):
                path.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)


def unfinished_fingerprint(out: Path) -> dict[str, Any]:
    """The fingerprint of the unfinished map `out`; empty if there is none."""
    return read_fingerprint(_folder(out) / _FINGERPRINT)


def _folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.parts")


def _is_of_same_names(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """True if maps differ only in the states of files of the same names: the map of before cannot be finished now."""
    names = [[file[0] for file in fields.get("raster") or []] for fields in (before, now)]
    return bool(names[0]) and names[0] == names[1] and before | {"raster": now["raster"]} == now


def _describe(key: str, value: Any) -> str:
    """A field of a map's fingerprint as text for a message."""
    if key == "model" and value:
        return ", ".join(sha256[:8] for sha256 in value)
    if key == "raster" and value:
        return ", ".join(state_text(file) for file in value)
    if key == "area" and value:
        return state_text(value)
    return value_text(value)
