"""Forms: the points of a reference sample as other programs read them. They hold no class of the map, nor a stratum."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from landscribe.errors import SampleError
from landscribe.estimation.reference_sample import ReferenceSample
from landscribe.geo.grid import ASSIGN_CRS, LONLAT, transformer
from landscribe.geo.vectors.feature_files import write_features
from landscribe.outputs import atomic_file


@dataclass(frozen=True)
class Form:
    """A file that another program reads."""

    suffix: str
    """Of the file, after the stem of the sample's."""
    write: Callable[[ReferenceSample, Path], None]


def write_collect_earth_online(sample: ReferenceSample, path: Path) -> None:
    """Plots of Collect Earth Online: a CSV file with LON and LAT (WGS 84) and PLOTID, the id of the unit.

    Raises:
        SampleError: the map has no CRS.
        OutputError: the file cannot be written.
    """
    grid = sample.design.map.grid
    if grid.crs is None:
        raise SampleError(
            f"{sample.design.map.name} has no CRS, and {path.name} holds longitudes and latitudes. {ASSIGN_CRS}."
        )
    x, y = sample.units["x"].to_numpy(), sample.units["y"].to_numpy()
    lon, lat = transformer(grid.crs, LONLAT).transform(x, y)
    table = pd.DataFrame({"LON": lon, "LAT": lat, "PLOTID": sample.units["id"]})
    with atomic_file(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.9f", lineterminator="\n")


def write_acatama(sample: ReferenceSample, path: Path) -> None:
    """A sampling file of AcATaMa: points (GeoPackage) with the column id, in the CRS of the map.

    Raises:
        OutputError: the file cannot be written.
    """
    write_features(sample.points(["id"], path.stem), path)


FORMS = {
    "ceo": Form(".ceo.csv", write_collect_earth_online),
    "acatama": Form(".acatama.gpkg", write_acatama),
}
"""The forms that `sample` writes, by name."""


def form_path(sample_path: Path, name: str) -> Path:
    """The path of a form, beside the sample: `points.ceo.csv` for `points.gpkg`."""
    return sample_path.with_name(f"{sample_path.stem}{FORMS[name].suffix}")
