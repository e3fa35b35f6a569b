"""Parts: where units put what they made, until the map is whole.

Beside `map.tif`, the folder `map.tif.parts` holds `plan.json` (what is being mapped, by what, how) and, for
each unit, its files and at last a marker `<unit>.json`. A unit is done if its marker stands. So a run that
was killed goes on where it was, and a run of anything else is refused.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscribe.errors import OutputError
from landscribe.geo.classes import IGNORE
from landscribe.geo.grid import Grid
from landscribe.geo.raster import write_raster
from landscribe.geo.tiling import Unit
from landscribe.outputs import explained, whole_file, write_text
from landscribe.prediction.unit import Prediction

CLASS, PROBABILITY = "class", "probability"


@dataclass(frozen=True)
class Parts:
    """The parts folder of one map."""

    folder: Path
    run: str
    """Hash of the plan: the map is the same if and only if this is."""

    @classmethod
    def open(cls, out: Path, plan: dict[str, Any]) -> "Parts":
        """Begin, or go on with, the parts of `out`.

        Raises:
            OutputError: the folder holds parts of another plan; says in what they differ.
        """
        text = json.dumps(plan, indent=1, sort_keys=True) + "\n"
        parts = cls(out.with_name(f"{out.name}.parts"), hashlib.sha256(text.encode()).hexdigest())
        path = parts.folder / "plan.json"
        if path.exists():
            begun = json.loads(path.read_text(encoding="utf-8"))
            differs = [key for key in plan if begun.get(key) != json.loads(text)[key]]
            if differs:
                raise OutputError(
                    f"{parts.folder} holds an unfinished map with another {', '.join(differs)} "
                    f"({_short(begun.get(differs[0]))}, now {_short(plan[differs[0]])}). "
                    "Finish that one with its own command, remove the folder, or pass --overwrite."
                )
        else:
            with explained(parts.folder):
                write_text(path, text)
        return parts

    def give_up_unless(self, plan: dict[str, Any]) -> None:
        """Remove the parts of any other plan."""
        path = self.folder / "plan.json"
        if path.exists() and json.loads(path.read_text(encoding="utf-8")) != json.loads(json.dumps(plan)):
            self.remove()

    def is_done(self, unit: Unit) -> bool:
        """True if all that the unit makes is there."""
        return self._marker(unit).exists()

    def put(self, unit: Unit, prediction: Prediction | None, grid: Grid) -> None:
        """Store what a unit of `grid` made; None where it has no valid pixel."""
        known = 0
        if prediction is not None:
            place = grid[unit.keep]
            _write(self.path(unit, CLASS), prediction.values[None], place)
            if prediction.probabilities is not None:
                _write(self.path(unit, PROBABILITY), prediction.probabilities, place)
            known = int((prediction.values != IGNORE).sum())
        write_text(self._marker(unit), json.dumps({"valid_pixels": known}))

    def path(self, unit: Unit, kind: str) -> Path:
        """The file of a unit; absent if the unit has no valid pixel."""
        return self.folder / f"{unit.name}.{kind}.tif"

    def valid_pixels(self, unit: Unit) -> int:
        """How many pixels of the unit were mapped."""
        return int(json.loads(self._marker(unit).read_text(encoding="utf-8"))["valid_pixels"])

    def _marker(self, unit: Unit) -> Path:
        return self.folder / f"{unit.name}.json"

    def remove(self) -> None:
        """Take everything away, once the map is whole or given up."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _write(path: Path, array: NDArray[np.uint8], grid: Grid) -> None:
    layout: dict[str, Any] = {
        "driver": "GTiff",
        "tiled": True,
        "compress": "deflate",
        "zlevel": 1,
        "nodata": IGNORE,
    }
    with whole_file(path) as temporary:
        write_raster(temporary, array, grid, **layout)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:57]}…"


def leftovers(folder: Path) -> Iterator[Path]:
    """Temporary files of a run that was killed."""
    yield from folder.glob(".*.partial.*")
