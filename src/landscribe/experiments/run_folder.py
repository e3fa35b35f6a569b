"""The folder of a run: begun for a recipe, resumed, or refused where other settings or files decided its content."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from landscribe.data.chips.source_states import source_states
from landscribe.data.scenes.spec import SceneSpec
from landscribe.errors import OutputError, listed
from landscribe.fingerprint import Fingerprint, read_fingerprint
from landscribe.geo.rasters.source_files import state_text
from landscribe.outputs import remove_empty, write_text
from landscribe.recipe import Recipe
from landscribe.runs import Run
from landscribe.training.spec import WITHOUT_EFFECT, with_weights_of

_OF_MACHINE = {
    "chips": {"dask": True},
    # Auto stands for another precision on another machine, where a finished run stays what it is.
    "train": dict.fromkeys(WITHOUT_EFFECT - {"precision"}, True),
    "predict": dict.fromkeys(("device", "dask", "check_seams"), True),
}
"""Settings that say where and how work is done; a run with others of these is resumed."""
_REPEATED = {"assess": True, "vectorize": True}
"""Sections whose results are written by every call."""


@contextmanager
def take_folder(files: Run, recipe: Recipe, *, overwrite: bool) -> Iterator[None]:
    """Make a folder that of this recipe; if the block fails before a new run has chips, it is as it was before.

    Args:
        files: of the run.
        recipe: with effort, batch and class table.
        overwrite: replace maps of other settings, and a run of other settings or files; and write into a folder that
            holds other files.

    Raises:
        OutputError: the folder holds other files, or a run of other settings or files.
    """
    fields, before = _fields(recipe), _read_fields(files)
    if before:
        _resume(files, before, fields, overwrite=overwrite)
    else:
        _require_no_run(files, overwrite=overwrite)
    missing = [folder for folder in (files.folder, *files.folder.parents) if not folder.exists()]
    # Of a new run, a recipe that the user wrote.
    found = files.recipe_file.read_bytes() if files.recipe_file.exists() else None
    write_text(files.fingerprint_file, Fingerprint.of(fields).text)
    recipe.save(files.recipe_file)
    try:
        yield
    except BaseException:
        if not before and not files.content:
            files.recipe_file.unlink(missing_ok=True)
            if found is not None:
                files.recipe_file.write_bytes(found)
            files.fingerprint_file.unlink(missing_ok=True)
            remove_empty(missing)
        raise


def begun_settings(files: Run, recipe: Recipe, names: list[str]) -> dict[str, Any] | None:
    """The effort and batch of a run of this recipe that began on another machine; None if there is none.

    Args:
        files: of the run.
        recipe: where these settings are auto.
        names: of the settings.
    """
    before = _read_fields(files)
    if not before:
        return None
    settings = {name: before["learning"]["train"].get(name) for name in names}
    filled = recipe.model_copy(update={"train": recipe.train.model_copy(update=settings)})
    # Auto is never thorough: a shorter training is asked for now.
    is_same = not _learning_differences(_learning(filled), before["learning"])
    return settings if is_same and settings.get("effort") != "thorough" else None


def _fields(recipe: Recipe) -> dict[str, Any]:
    """What decides the chips and models of a run, its maps, and the states of the files that its chips show."""
    maps = recipe.model_dump(mode="json", include={"predict"}, exclude=_OF_MACHINE)
    return {"learning": _learning(recipe), "maps": maps, "files": source_states(recipe.scenes, recipe.split)}


def _read_fields(files: Run) -> dict[str, Any]:
    """The fields of an earlier call, as `_fields` gave them; empty if there are none, or if the file is damaged."""
    fields = read_fingerprint(files.fingerprint_file)
    return fields if all(isinstance(fields.get(part), dict) for part in ("learning", "maps", "files")) else {}


def _learning(recipe: Recipe) -> dict[str, Any]:
    fields = recipe.model_dump(mode="json", exclude=_OF_MACHINE | _REPEATED | {"predict": True})
    fields["train"]["weights"] = recipe.train.decisive["weights"]
    return fields


def _learning_differences(now: dict[str, Any], before: dict[str, Any]) -> str:
    """Names and values of the settings of chips and models that differ."""
    # An earlier version may lack settings of scenes, which then had what is the default now.
    defaults = SceneSpec(image=("scene.tif",)).model_dump(mode="json")
    scenes = [defaults | scene for scene in before["scenes"]]
    train = with_weights_of(before["train"], now["train"])
    return Fingerprint.of(now).differences(before | {"scenes": scenes, "train": train})


def _resume(files: Run, before: dict[str, Any], now: dict[str, Any], *, overwrite: bool) -> None:
    """Keep what these settings and files would make again, and remove the rest, or refuse to."""
    learning = _learning_differences(now["learning"], before["learning"])
    maps = Fingerprint.of(now["maps"]).differences(before["maps"])
    changed = Fingerprint.of(now["files"]).differences(before["files"], lambda _, state: state_text(state))
    if learning or changed:
        # Without content, the run ended while it cut its chips.
        if not overwrite and files.content:
            held = f"a run with another {learning}" if learning else f"a run of files that have changed: {changed}"
            raise OutputError(f"{files.folder} holds {held}. Choose another --out, or pass --overwrite.")
        files.remove()
    elif maps:
        if not overwrite and (files.map_files or files.assessed.map_files):
            raise OutputError(
                f"{files.folder} holds maps with another {maps}. Choose another --out, or pass --overwrite: chips and "
                "model stay."
            )
        files.remove_maps()


def _require_no_run(files: Run, *, overwrite: bool) -> None:
    """Raise OutputError if a folder without a fingerprint holds files that steps of the run would take for their own.

    Raises it for any other files too, unless `overwrite` is set.
    """
    if content := files.content:
        names = listed(path.name for path in content)
        raise OutputError(
            f"{files.folder} holds {names}, but no readable {files.fingerprint_file.name} that says which run "
            "made them. Choose another --out, or remove them."
        )
    if not overwrite and files.folder.exists() and any(files.folder.iterdir()):
        raise OutputError(f"{files.folder} holds other files. Choose another --out, or pass --overwrite.")
