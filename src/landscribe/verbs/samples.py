"""The verbs of reference samples: sample and plan_sample."""

from __future__ import annotations

import filecmp
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from landscribe.errors import RecipeError
from landscribe.outputs import atomic_files, claim, output_path, require_absent, require_apart
from landscribe.spec import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from landscribe.estimation.reference_sample import ReferenceSample
    from landscribe.sampling.plan import SamplePlan
    from landscribe.verbs.keywords import SampleKeywords
    from landscribe.verbs.sources import PathLike


def plan_sample(mapped: PathLike, **settings: Unpack[SampleKeywords]) -> SamplePlan:
    """Plan a reference sample without drawing it: units of each stratum, and the precision to expect.

    Args:
        mapped: a class map of `predict`, or any raster of whole numbers from 0 to 254.
        settings: fields of SampleSpec.

    Returns:
        The size of the sample, units and inclusion probability of each stratum, and expected intervals.

    Raises:
        RecipeError: an unknown setting, one out of range, or no size.
        SampleError: more units than a stratum has, or a setting in metres finds no CRS.
        RasterError: the map cannot be read, or has no class in any pixel.
        ClassError: a class or stratum that does not exist.

    >>> import landscribe as ls
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from landscribe.synthetic import draw, write
    >>> with TemporaryDirectory() as folder:
    ...     _, _, truth = write(draw(256, 192, seed=0), Path(folder))
    ...     plan = ls.plan_sample(truth, half_width=0.05, expected_accuracy=0.9)
    >>> plan.size, len(plan.strata), plan.strata[0].size
    (224, 5, 48.0)
    """
    from landscribe.sampling.spec import SampleSpec

    spec = SampleSpec.of(dict(settings))

    from landscribe.geo.rasters.raster import Raster
    from landscribe.sampling import plan

    return plan.plan_sample(Raster.open([mapped]), spec)


def sample(
    mapped: PathLike,
    *,
    out: PathLike,
    forms: Sequence[str] = (),
    sheet: PathLike | None = None,
    image: PathLike | None = None,
    overwrite: bool = False,
    **settings: Unpack[SampleKeywords],
) -> ReferenceSample:
    """Draw a reference sample from a map: units to label, by chance, so that `assess` can estimate from them.

    The form hides the class of the map and the stratum of a unit, and ids are in random order: labels are to be blind.

    Law: the same map, settings and seed give the same units.

    Args:
        mapped: a class map of `predict`, or any raster of whole numbers from 0 to 254.
        out: the file; its suffix chooses a GeoPackage (.gpkg), which QGIS opens as a form, or CSV (.csv).
        forms: files for other programs, beside `out`: "ceo" for Collect Earth Online (points.ceo.csv), "acatama" for
            AcATaMa (points.acatama.gpkg).
        sheet: also write a web page with a picture of `image` around each unit and a list of classes, for labelling
            without a GIS (.html). It saves the labels as CSV by id, for `ReferenceSample.with_labels`.
        image: imagery of the area, of any grid and CRS.
        overwrite: replace an existing file, and the labels in it.
        settings: fields of SampleSpec.

    Returns:
        The sampling units in random order, with the design that drew them.

    Raises:
        RecipeError: an unknown form, or no size.
        SampleError: more units than a stratum has, or a setting in metres finds no CRS.
        RasterError: the map has no class in any pixel.
        ClassError: a class or stratum that does not exist.
        OutputError: the file exists, cannot be written, or has an unknown suffix.

    >>> import landscribe as ls
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from landscribe.synthetic import draw, write
    >>> with TemporaryDirectory() as folder:
    ...     _, _, truth = write(draw(256, 192, seed=0), Path(folder))
    ...     sample = ls.sample(truth, out=f"{folder}/points.gpkg", size=250, allocation="equal")
    >>> len(sample.units), sample.units["stratum"].value_counts().unique().tolist()
    (250, [50])
    >>> list(sample.units.columns[:4])  # the reference is empty: it is to be filled in
    ['id', 'reference', 'x', 'y']
    """
    from landscribe.sampling.spec import SampleSpec

    spec = SampleSpec.of(dict(settings))

    from landscribe.estimation.reference_sample import require_sample_suffix
    from landscribe.geo.rasters.raster import Raster
    from landscribe.sampling.draw import draw_sample
    from landscribe.sampling.forms import FORMS, form_path
    from landscribe.sampling.plan import plan_sample

    for name in forms:
        if name not in FORMS:
            raise RecipeError(f"no form is called '{name}'{nearest(name, list(FORMS))}")
    if (sheet is None) != (image is None):
        raise RecipeError("a sheet shows an image around each unit: give both sheet and image, or neither.")
    path = require_sample_suffix(output_path(out))
    page, imagery = (None, None) if sheet is None else (output_path(sheet), Raster.open([str(image)], is_imagery=True))
    written = [path, *(form_path(path, name) for name in forms), *([] if page is None else [page])]
    inputs = (mapped, image, spec.strata, spec.area, spec.class_table)
    require_apart(written, {Path(name).resolve() for name in inputs if name is not None})
    with ExitStack() as claims:
        for file in written:
            claims.enter_context(claim(file))
        require_absent(path, overwrite=overwrite)
        if page is not None and not _is_sheet(page):  # a sheet may be left of a killed command
            require_absent(page, overwrite=overwrite)
        plan = plan_sample(Raster.open([mapped]), spec)
        if page is not None:
            # A page imports torch, which takes seconds.
            from landscribe.reports.labelling import require_labelling_page, write_labelling_page

            require_labelling_page(page, plan.size)
        drawn = draw_sample(plan)
        outside = {} if page is None or page.parent == path.parent else {page.name: page}
        temporary = claims.enter_context(atomic_files(path, *outside.values()))
        for name in forms:
            FORMS[name].write(drawn, form_path(temporary, name))
        if page is not None and imagery is not None:
            write_labelling_page(drawn, imagery, temporary.with_name(page.name))
        drawn.save(temporary)
        for file in temporary.parent.iterdir():
            _require_replaceable(file, outside.get(file.name, path.with_name(file.name)), overwrite=overwrite)
    return drawn


def _is_sheet(path: Path) -> bool:
    """True for a page that an earlier command wrote."""
    return path.is_file() and b'name="generator" content="landscribe"' in path.read_bytes()[:1024]


def _require_replaceable(file: Path, out: Path, *, overwrite: bool) -> None:
    """Raise OutputError if a file of another content lies at `out`. One of the same content is left of a kill."""
    if not (out.is_file() and filecmp.cmp(file, out, shallow=False)):
        require_absent(out, overwrite=overwrite)
