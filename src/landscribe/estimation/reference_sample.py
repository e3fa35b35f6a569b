"""ReferenceSample: sampling units that were drawn from a map, their reference classes, and the design of the draw."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyogrio
import shapely

from landscribe.errors import OutputError, SampleError, counted, listed
from landscribe.estimation.csv_texts import read_csv_texts
from landscribe.estimation.designs.design import Design
from landscribe.estimation.designs.hashes import is_column_of, pixel_hash
from landscribe.geo.access import require_file
from landscribe.geo.classes import Classes, label_key
from landscribe.geo.grid import grid_label
from landscribe.geo.rasters.raster import Raster
from landscribe.geo.vectors.feature_files import (
    GEOMETRY_FIELD,
    FeatureStream,
    read_layer_metadata,
    record_batch,
    write_features,
)
from landscribe.geo.vectors.point_form import point_form
from landscribe.outputs import atomic_files
from landscribe.spec import nearest

REFERENCE = "reference"
"""The column that is filled in."""
# The map's class and the stratum come last: who labels a unit does not look at them.
_KINDS: dict[str, Any] = {
    "id": int, REFERENCE: str, "cluster": int, "cluster_units": int, "x": float, "y": float, "row": int, "col": int,
    "side": int, "area_m2": float, "probability": float, "stratum": str, "map": str,
}  # fmt: skip
_OF_CLUSTERS = ("cluster", "cluster_units")
_HIDDEN = ("fid", "stratum", "map", "probability", *_OF_CLUSTERS)
"""Columns that the form does not show."""
_ARROW = {int: pa.int64(), float: pa.float64(), str: pa.string()}
_SUFFIXES = (".gpkg", ".csv")


@dataclass(frozen=True, eq=False)
class ReferenceSample:
    """A reference sample.

    `units` has one row for each sampling unit, and the columns

    - id: from 1, in random order, so that it says nothing about the stratum,
    - reference: class name; empty where the unit is not labelled yet,
    - cluster, cluster_units: only of a cluster design, the number of the primary unit, and its sampling units,
    - x, y: centre in the CRS of the map,
    - row, col, side: first pixel of the unit, and its side in pixels,
    - area_m2: of its valid pixels on the ground; NaN without a CRS,
    - probability: inclusion probability, 0 to 1,
    - stratum: name,
    - map: class name; of several pixels, the majority class (`sampling/frame.py`).
    """

    units: pd.DataFrame
    design: Design

    def save(self, path: str | Path) -> None:
        """Write a GeoPackage that QGIS opens as a form, with the design in its metadata; or a CSV file.

        The design of `points.csv` lies beside it, in `points.design.json`.

        Raises:
            OutputError: the suffix is another one, or the file cannot be written.
        """
        path = require_sample_suffix(Path(path))
        if path.suffix.lower() == ".gpkg":
            write_features(self._as_form(path.stem), path)
            return
        with atomic_files(path) as temporary:
            self.units.to_csv(temporary, index=False, lineterminator="\n")
            _design_file(temporary).write_text(self.design.to_json() + "\n", encoding="utf-8")

    def points(self, columns: Sequence[str], layer: str) -> FeatureStream:
        """The centres of the units as points with these columns; an empty reference is null."""
        schema = pa.schema([*(pa.field(name, _ARROW[_KINDS[name]]) for name in columns), GEOMETRY_FIELD])
        table = self.units.assign(**{REFERENCE: self.units[REFERENCE].replace("", None)})
        points = shapely.to_wkb(shapely.points(table["x"], table["y"]))
        batch = record_batch([*(table[name].to_numpy() for name in columns), points], schema)
        return FeatureStream(schema, lambda: iter([batch]), "Point", self.design.map.crs, layer)

    def _as_form(self, layer: str) -> FeatureStream:
        """The points with all columns, and the form and the design, which a GeoPackage holds too."""
        choices = [(entry.name, entry.colour) for entry in self.design.classes]
        form = point_form(["fid", *self.units.columns], field=REFERENCE, choices=choices, hidden=_HIDDEN)
        stream = self.points(list(self.units.columns), layer)
        return replace(stream, style=form, metadata=self.design.to_json())

    @classmethod
    def open(cls, path: str | Path, class_table: str | None = None) -> "ReferenceSample":
        """Read what `save` wrote, after somebody has filled in the reference classes, by name or value.

        Args:
            path: of the file.
            class_table: a CSV file with further classes, which the map lacks.

        Raises:
            ClassError: the class table cannot be read.
            SampleError: the file cannot be read or has no design, a column is missing, an id occurs twice, units are
                missing or were added, or a stratum, a class or a probability is not that of the design.
        """
        path = Path(path)
        require_file(str(path))
        table, text = _read_csv(path) if path.suffix.lower() == ".csv" else _read_geopackage(path)
        design = Design.from_json(text, path.name)
        if class_table is not None:
            design = design.with_classes(Classes.read(class_table), class_table)
        sample = cls(_by_name(_typed(table, path.name), design), design)
        sample._require_as_drawn(path.name)
        return sample

    def _require_as_drawn(self, name: str) -> None:
        """Raise SampleError if the units are not those that were drawn."""
        units, design = self.units, self.design
        twice = units["id"][units["id"].duplicated()].unique().tolist()
        if twice:
            raise SampleError(
                f"{name} has id {listed(twice)} more than once. Expected each id once. Remove the copies."
            )
        _require_among(units, "stratum", [stratum.name for stratum in design.strata], name)
        _require_among(units, "map", [entry.name for entry in design.classes], name)
        _refuse_shares(units, [entry.name for entry in design.classes], name)
        _require_among(units, REFERENCE, ["", *(entry.name for entry in design.classes)], name)
        counts = units["stratum"].value_counts().to_dict()
        # With all units there, another count means that their strata were edited.
        for stratum in () if len(units) == sum(each.drawn for each in design.strata) else design.strata:
            if counts.get(stratum.name, 0) != stratum.drawn:
                raise SampleError(
                    f"{name} has {counted(counts.get(stratum.name, 0), 'unit')} of stratum {stratum.name}, but the "
                    "draw gave "
                    f"{stratum.drawn}. Expected all of them: a unit that cannot be labelled keeps its row, with an "
                    "empty reference. Restore the rows."
                )
        for column, drawn_hash in design.columns_sha256.items():
            if column not in units or not is_column_of(units, column, drawn_hash):
                what = "other values in its" if column in units else "no"
                raise SampleError(
                    f"{name} has {what} column {column}{' than were drawn' if column in units else ''}. Expected what "
                    f"landscribe sample wrote: only {REFERENCE} is to be changed. Restore the column."
                )

    def require_map(self, mapped: Raster) -> None:
        """Raise SampleError unless a class map is the one that the sample was drawn from. The map is read once."""
        drawn_from, name = self.design.map, mapped.paths[0]
        if not mapped.grid.is_aligned(drawn_from.grid):
            raise SampleError(
                f"the sample was drawn from {drawn_from.name} ({grid_label(drawn_from.grid)}), but {name} is "
                f"{grid_label(mapped.grid)}. Assess the map that it was drawn from, or draw a sample of this one."
            )
        if pixel_hash(mapped) != drawn_from.sha256:
            raise SampleError(
                f"the sample was drawn from {drawn_from.name}, and {name} has other class values on the same grid. "
                "Assess the map that it was drawn from, or draw a sample of this one."
            )

    def with_labels(self, labels: dict[int, str], name: str = "the labels") -> "ReferenceSample":
        """The sample with these reference classes by id; the other units keep theirs.

        Args:
            labels: class by id, its name or value.
            name: of their file, for messages.

        Raises:
            SampleError: an id or class that the sample does not have.
        """
        ids = set(self.units["id"].tolist())
        unknown = [key for key in labels if key not in ids]
        if unknown:
            raise SampleError(f"{name} has id {listed(unknown)}, which the sample does not have. Expected its ids.")
        reference = self.units["id"].map(labels).fillna(self.units[REFERENCE]).astype(object)
        sample = ReferenceSample(_by_name(self.units.assign(**{REFERENCE: reference}), self.design), self.design)
        _require_among(sample.units, REFERENCE, ["", *(entry.name for entry in self.design.classes)], name)
        return sample


def require_sample_suffix(path: Path) -> Path:
    """The path, if its suffix is that of a reference sample.

    Raises:
        OutputError: it is not.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise OutputError(f"{path} has no suffix for a reference sample. Give it one of {', '.join(_SUFFIXES)}.")
    return path


def holds_design(path: Path) -> bool:
    """True if a file holds a reference sample with its design, and not just any points."""
    if path.suffix.lower() == ".csv":
        return _design_file(path).is_file()
    return path.is_file() and read_layer_metadata(path) is not None


def refuse_lost_design(path: Path) -> None:
    """Raise SampleError for a copy of a reference sample that has lost its design."""
    try:
        fields = set(pyogrio.read_info(path, layer=0)["fields"])
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError):
        return
    # A Shapefile cuts names to ten letters.
    if {REFERENCE, "probabilit", "stratum", "map"} <= {field[:10] for field in fields}:
        raise SampleError(
            f"{path} has the columns of a reference sample, but not its design, which a copy from a GIS or a table "
            "loses. Pass the file that landscribe sample wrote, and this copy as --sample-labels; or --label-field "
            f"{REFERENCE}, for accuracy without intervals."
        )


def _design_file(path: Path) -> Path:
    return path.with_suffix(".design.json")


def _by_name(units: pd.DataFrame, design: Design) -> pd.DataFrame:
    """The units with the name of a class where the reference is its value."""
    names = design.name_of_label
    return units.assign(**{REFERENCE: units[REFERENCE].map(lambda label: names.get(label_key(label), label))})


def _refuse_shares(units: pd.DataFrame, classes: Sequence[str], name: str) -> None:
    """Raise SampleError for shares of a class in place of class names."""
    filled = units[units[REFERENCE] != ""]
    numbers = pd.to_numeric(filled[REFERENCE].where(~filled[REFERENCE].isin(classes)), errors="coerce")
    is_share = numbers.between(0, 1)
    if is_share.any():
        raise SampleError(
            f"{name} has a share in column {REFERENCE}, {filled[REFERENCE][is_share].iloc[0]} (id "
            f"{listed(filled['id'][is_share])}). Expected one class for each unit: {listed(classes)}. Shares of a "
            "class are for ls.estimate in Python, in columns map_share and reference_share (see README)."
        )


def _require_among(units: pd.DataFrame, column: str, known: Sequence[str], name: str) -> None:
    """Raise SampleError for a name in a column that is not known."""
    odd = [value for value in units[column].unique().tolist() if value not in known]
    if odd:
        ids = units["id"][units[column] == odd[0]]
        way_out = (
            ". A class that the map lacks goes into a class table (--class-table). Of a unit that cannot be labelled, "
            "leave the cell empty, and pass --skip-unlabelled."
            if column == REFERENCE
            else ""
        )
        meant = nearest(odd[0], [each for each in known if each])
        raise SampleError(f"{name} has {column} '{odd[0]}' (id {listed(ids)}){meant}{way_out}")


def _read_geopackage(path: Path) -> tuple[pd.DataFrame, str]:
    """The table of units and the design as JSON."""
    stored = read_layer_metadata(path)
    if stored is None:
        raise SampleError(
            f"{path} holds no sampling design. Expected the GeoPackage that landscribe sample wrote: a copy that a GIS "
            "exports loses the design."
        )
    layer, design = stored
    try:
        return pyogrio.read_dataframe(path, layer=layer, read_geometry=False), design
    except (pyogrio.errors.DataLayerError, pyogrio.errors.DataSourceError) as error:
        raise SampleError(f"{path} cannot be read: {error}. Expected the layer {layer}.") from error


def _read_csv(path: Path) -> tuple[pd.DataFrame, str]:
    """The table of units and the design as JSON, from the file beside the table."""
    beside = _design_file(path)
    if not beside.is_file():
        raise SampleError(
            f"{path} has no design beside it. Expected {beside.name}, which landscribe sample wrote with it. Copy both."
        )
    return read_csv_texts(path), beside.read_text(encoding="utf-8")


def _typed(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The columns of units in their order and types.

    Raises:
        SampleError: a column is missing, or holds text where numbers are expected.
    """
    absent = [each for each in _KINDS if each not in table.columns and each not in _OF_CLUSTERS]
    if absent:
        raise SampleError(
            f"{name} has no column {listed(absent)}. Expected all columns that landscribe sample wrote: only "
            f"{REFERENCE} is to be changed. Restore the column."
        )
    columns = {}
    for column, kind in _KINDS.items():
        if column not in table.columns:
            continue
        if kind is str:
            columns[column] = table[column].fillna("").astype(str).str.strip().astype(object)
            continue
        numbers = pd.to_numeric(table[column].replace("", np.nan), errors="coerce").astype(float)
        is_wrong = ~np.isfinite(numbers) if kind is float else ~(numbers % 1 == 0)
        # Without a CRS, areas are not known.
        if is_wrong.any() and column != "area_m2":
            raise SampleError(
                f"{name} has '{table[column][is_wrong].iloc[0]}' in its column {column}. Expected "
                f"{'' if kind is float else 'whole '}numbers. Restore the column."
            )
        columns[column] = numbers.astype(kind)
    return pd.DataFrame(columns)
