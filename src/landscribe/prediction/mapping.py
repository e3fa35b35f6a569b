"""Mapping: run and finish a plan, or leave the map that is up to date."""

import logging
from pathlib import Path

from landscribe.errors import OutputError
from landscribe.maps.areas import format_areas
from landscribe.maps.candidates import run_of
from landscribe.maps.class_map import RUN_TAG, areas_in, fingerprint_in, read_tags
from landscribe.maps.style import side_files
from landscribe.outputs import write_text
from landscribe.prediction.finish import finish
from landscribe.prediction.plan import MapPlan
from landscribe.prediction.run import run
from landscribe.prediction.seams import check_seams

log = logging.getLogger(__name__)


def write_map(plan: MapPlan, *, overwrite: bool = False) -> Path:
    """Write the map of a plan; memory does not grow with the raster's size.

    The same call resumes an interrupted run. A finished map of the same plan is left as it is. A shard predicts its
    units and assembles nothing.

    Args:
        plan: by `plan_map`.
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
