"""Mapping: run and finish a plan, or leave the map that is up to date."""

import logging
from collections.abc import Sequence
from pathlib import Path

from landscribe.errors import (
    DamagedPartError,
    LandscribeError,
    OutputError,
    OutsideError,
    RasterError,
    ServerError,
    UnfinishedError,
    UnreachableError,
    listed,
)
from landscribe.geo.rasters.raster import Raster
from landscribe.maps.areas import format_areas
from landscribe.maps.candidates import run_of
from landscribe.maps.class_map import RUN_TAG, areas_in, fingerprint_in, read_tags
from landscribe.maps.legends.style import side_files
from landscribe.maps.output_paths import OutputPaths
from landscribe.outputs import write_text
from landscribe.prediction.finish import finish
from landscribe.prediction.plan import MapPlan, Planner
from landscribe.prediction.run import run
from landscribe.prediction.seams import check_seams

log = logging.getLogger(__name__)

_MOST_NAMES = 10
"""Rasters that the last line names; each was warned about when it failed."""


def write_maps(
    planner: Planner, rasters: Sequence[Raster], outputs: Sequence[OutputPaths], *, overwrite: bool
) -> list[Path]:
    """Write the map of each raster, as `write_map`; of several, one that cannot be mapped does not stop the others.

    The files of a map are claimed while it is written, not those of all maps: systems limit how many files are open.

    Of several, those outside the area of interest are skipped, unless all are. An error that would meet the others too
    stops all: a wrong setting, a full disk, a lost server.

    Args:
        planner: of the maps.
        rasters: the inputs.
        outputs: the files of each raster.
        overwrite: see `write_map`.

    Returns:
        The maps' paths.

    Raises:
        RasterError: rasters cannot be mapped; the others are.
        UnfinishedError: the same, and the same command can finish some of them.
        OutsideError: all rasters lie outside the area of interest.
    """
    maps, failed, outside = list[Path](), dict[str, LandscribeError](), dict[str, LandscribeError]()
    for raster, out in zip(rasters, outputs, strict=True):
        try:
            with out.claimed(shared=planner.spec.shard is not None):
                maps.append(write_map(planner.plan(raster, out), overwrite=overwrite))
        except LandscribeError as error:
            if len(rasters) == 1 or not _is_of_one_raster(error):
                raise
            if isinstance(error, OutsideError):
                outside[raster.paths[0]] = error
            else:
                log.warning("%s", error)
                failed[raster.paths[0]] = error
    if len(outside) == len(rasters):
        raise OutsideError(f"all {len(rasters)} rasters lie outside of {planner.spec.area}. {_example(outside)}")
    if outside:
        log.info("outside of %s, so skipped: %s", planner.spec.area, listed(outside))
    if failed:
        is_resumable = any(isinstance(error, UnfinishedError) for error in failed.values())
        raise (UnfinishedError if is_resumable else RasterError)(
            f"{len(failed)} of {len(rasters)} rasters are not mapped ({listed(failed, _MOST_NAMES)})"
            f"{'; the others are' if maps else ''}. {_example(failed)}"
        )
    return maps


def _is_of_one_raster(error: LandscribeError) -> bool:
    """False for an error that would meet other rasters too."""
    cause = error.__cause__ if isinstance(error, UnfinishedError) else error
    is_common = isinstance(cause, (ServerError, UnreachableError))
    return isinstance(cause, (OutsideError, RasterError, DamagedPartError)) and not is_common


def _example(errors: dict[str, LandscribeError]) -> str:
    """The whole message of one error; of one that a repetition can finish, if there is any."""
    shown = min(errors.values(), key=lambda error: not isinstance(error, UnfinishedError))
    return f"For example: {shown}" if len(errors) > 1 else str(shown)


def write_map(plan: MapPlan, *, overwrite: bool = False) -> Path:
    """Write the map of a plan; memory does not grow with the raster's size.

    The same call resumes an interrupted run. A finished map of the same plan is left as it is. A shard predicts its
    units and assembles nothing.

    Args:
        plan: by `Planner.plan`.
        overwrite: replace existing files, or the unfinished units of another map.

    Returns:
        The map's path.

    Raises:
        OutputError: another file exists, or a file cannot be written.
        RasterError: the raster cannot be read, or has no valid pixel.
        UnfinishedError: some units failed; the others are kept for the same call.
    """
    if plan.spec.check_seams:
        log.info("%s", check_seams(plan.predictor, plan.raster, plan.tiling, layer=plan.layers[0]))
    if _is_up_to_date(plan, overwrite=overwrite):
        _restore_style(plan)
        return plan.paths.map
    store = run(plan, overwrite=overwrite)
    if plan.spec.shard is not None:
        # The last shard assembles nothing either: two that end at once would write the same map.
        units = plan.units
        log.info(
            "%d of %d units done. When all shards have ended, repeat the command without --shard to assemble the map.",
            sum(map(store.is_done, units)), len(units),
        )  # fmt: skip
        return plan.paths.map
    return finish(plan, store)


def _is_up_to_date(plan: MapPlan, *, overwrite: bool) -> bool:
    """True if all files of the plan exist.

    Raises:
        OutputError: other files exist at their paths.
    """
    paths, store = plan.paths, plan.store
    run_hash = store.fingerprint.sha256
    own = {path for path in paths.rasters if read_tags(path).get(RUN_TAG) == run_hash}
    if paths.suggested_labels is not None and run_of(paths.suggested_labels) == run_hash:
        own.add(paths.suggested_labels)
    if own == set(paths):
        if store.exists():
            store.remove()
        return True
    differences = store.differences(fingerprint_in(read_tags(paths.map)))
    if not overwrite and paths.map not in own and differences:
        raise OutputError(
            f"{paths.map} exists already, as a map with another {differences}. Nothing was changed. Choose another "
            "path, or pass --overwrite."
        )
    # A run that was killed while its files were moved left some of them.
    paths.require_writable(overwrite=overwrite, own=own)
    return False


def _restore_style(plan: MapPlan) -> None:
    """Report an up-to-date map, and write its style again where it was deleted."""
    out = plan.paths.map
    for side, text in side_files(out, plan.classes).items():
        if not side.exists():
            write_text(side, text)
    log.info("%s is up to date. Nothing was done", out)
    log.info("%s: %s", out.name, format_areas(areas_in(read_tags(out))))
