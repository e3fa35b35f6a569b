"""Design: how a reference sample was drawn, the classes of its map, and what identifies the map."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from landscribe.errors import SampleError
from landscribe.geo.classes import Classes, label_key
from landscribe.geo.grid import Grid

Kind = Literal["simple random", "stratified", "systematic", "cluster"]

ALL = "all"
"""Name of the only stratum of a design without strata."""


@dataclass(frozen=True)
class Stratum:
    """A stratum: sampling units from which some were drawn by chance."""

    name: str
    value: int | None
    """In the raster of strata; None for all units together, and for the buffer around a class."""
    units: int
    """All of its sampling units, N_h."""
    area_m2: float
    """Of all of its sampling units on the ground; NaN without a CRS."""
    drawn: int
    """Sampling units in the sample, n_h."""


@dataclass(frozen=True)
class MapClass:
    """A class of the map, and how many sampling units have it: strata, if a sample is stratified after the draw."""

    name: str
    value: int
    colour: str
    """"#rrggbb"."""
    units: int
    area_m2: float
    """NaN without a CRS."""


@dataclass(frozen=True)
class Clusters:
    """The primary units of a cluster design: squares of pixels, cut at the edge of the map."""

    side: int
    """In pixels."""
    count: int
    """Squares that hold a sampling unit, N."""
    drawn: int
    """Squares in the sample, n."""


@dataclass(frozen=True)
class SampledMap:
    """What identifies the map that a sample was drawn from."""

    name: str
    """File name."""
    crs: str | None
    """WKT."""
    transform: tuple[float, ...]
    """The six coefficients from (col, row) to (x, y)."""
    shape: tuple[int, int]
    sha256: str
    """Of the class values, see `PixelHash`."""
    run: str | None = None
    """See `ClassMap.run`."""

    @property
    def grid(self) -> Grid:
        """The grid of the map."""
        return Grid(None if self.crs is None else CRS.from_wkt(self.crs), Affine(*self.transform), *self.shape)


@dataclass(frozen=True)
class Design:
    """How a sample was drawn: all that an estimator has to know, in JSON's types."""

    kind: Kind
    seed: int
    allocation: str
    """How sampling units were shared among strata: auto, proportional, equal, neyman or given; empty without strata."""
    unit: int
    """Side of a sampling unit in pixels."""
    strata: tuple[Stratum, ...]
    """Of a design without strata: one, named `ALL`."""
    classes: tuple[MapClass, ...]
    map: SampledMap
    version: str
    """Of Landscribe."""
    columns_sha256: dict[str, str]
    """Hash of each column that is not filled in, see `column_hash`."""
    clusters: Clusters | None = None
    strata_file: str | None = None
    """Name of the raster of strata; None if the classes of the map are the strata."""
    area_file: str | None = None
    """Name of the polygons in which the sample was drawn; None for all of the map."""
    buffer_m: float | None = None
    """Width of the buffer around a class that is a stratum of its own."""

    def with_classes(self, table: Classes, name: str) -> "Design":
        """The design with those classes of a class table that the map lacks; the others are the same in both.

        Args:
            table: the class table.
            name: of its file, for messages.

        Raises:
            SampleError: a class of the design has another name or value in the table.
        """
        own = {(entry.name, entry.value) for entry in self.classes}
        further = [row for row in table if (row.name, row.value) not in own]
        for row in further:
            same = next((entry for entry in self.classes if row.name == entry.name or row.value == entry.value), None)
            if same is not None:
                raise SampleError(
                    f"{name} has the class '{row.name}' with value {row.value}, but the sample was drawn with "
                    f"'{same.name}' of value {same.value}. Expected the classes of the sample as they are, and further "
                    f"ones. Correct the table, and label the units of this class '{same.name}'."
                )
        return replace(self, classes=(*self.classes, *(MapClass(r.name, r.value, r.colour, 0, 0.0) for r in further)))

    @property
    def name_of_label(self) -> dict[str, str]:
        """The class that a label means, by `label_key`: its name, or its value in the map."""
        by_value = {str(entry.value): entry.name for entry in self.classes}
        return by_value | {label_key(entry.name): entry.name for entry in self.classes}

    def as_dict(self) -> dict[str, Any]:
        """In JSON's types, with None for NaN."""
        fields: dict[str, Any] = _without_nan(asdict(self))
        return fields

    def to_json(self) -> str:
        """As JSON. Law: `Design.from_json(design.to_json(), name) == design`, but for NaN."""
        return json.dumps(self.as_dict(), indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, name: str) -> "Design":
        """Read a design.

        Args:
            text: JSON.
            name: of its file, for messages.

        Raises:
            SampleError: it is no design, or that of another version.
        """
        try:
            fields = json.loads(text)
            clusters, mapped = fields["clusters"], fields["map"]
            fields |= {
                "strata": tuple(Stratum(**_with_nan(row)) for row in fields["strata"]),
                "classes": tuple(MapClass(**_with_nan(row)) for row in fields["classes"]),
                "clusters": None if clusters is None else Clusters(**clusters),
                "map": SampledMap(
                    **mapped | {"transform": tuple(mapped["transform"]), "shape": tuple(mapped["shape"])}
                ),
            }
            return _checked(cls(**fields))
        except (ValueError, TypeError, KeyError) as error:
            raise SampleError(
                f"the design in {name} cannot be read ({type(error).__name__}: {error}). Expected what landscribe "
                "sample writes. Draw the sample again, or restore the file."
            ) from error


def _checked(design: Design) -> Design:
    """The design, if it is possible; else ValueError."""
    if design.kind not in get_args(Kind):
        raise ValueError(f"kind is {design.kind}; expected one of {', '.join(get_args(Kind))}")
    if any(not 0 <= stratum.drawn <= stratum.units for stratum in design.strata):
        raise ValueError("a stratum has fewer units than were drawn")
    if design.map.crs is not None:
        CRS.from_wkt(design.map.crs)
    return design


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def _with_nan(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"area_m2": np.nan if row["area_m2"] is None else row["area_m2"]}
