"""Trials: whether an output can be written, before hours of work are spent on its content."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from landscribe.errors import OutputError
from landscribe.outputs.atomic import atomic_file
from landscribe.outputs.refusals import os_errors, refuse_file, refuse_folder, refuse_working_folder, require_absent


def require_output_file(path: Path) -> None:
    """Raise OutputError if a file cannot be written, before hours of work are spent on its content."""
    refuse_folder(path)
    require_writable(path)


def require_replaceable(path: Path, content: str, suffixes: Sequence[str], is_own: Callable[[str], bool]) -> None:
    """Raise OutputError if a text file cannot be written, or would replace a file of another kind.

    For outputs that replace earlier ones without --overwrite: a slip in a path must not cost a map, or labels that
    people made.

    Args:
        path: the output.
        content: of the output, in words.
        suffixes: that its name may have.
        is_own: True for the text of an earlier output.
    """
    refuse_folder(path)
    if path.suffix.lower() not in suffixes:
        raise OutputError(
            f"{path} does not end in {' or '.join(suffixes)}, as a file of {content} does. Nothing was changed. Choose "
            "another name."
        )
    if path.exists() and not is_own(path.read_text(encoding="utf-8", errors="replace")):
        raise OutputError(
            f"{path} exists already, and does not hold {content}. Nothing was changed. Choose another path, or remove "
            "the file."
        )
    require_writable(path)


def require_output_folder(folder: Path, *, mark: str, overwrite: bool) -> None:
    """Raise OutputError if a folder cannot be written, before hours of work are spent on its content.

    Args:
        folder: the output folder of a command.
        mark: a file that each output folder of this command holds. A folder without it is never overwritten.
        overwrite: replace an output folder of the same command.
    """
    with os_errors(folder):
        refuse_file(folder)
        refuse_working_folder(folder)
        require_absent(folder, overwrite=overwrite)
        if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).exists():
            raise OutputError(
                f"{folder} holds other files, and no {mark}. Nothing was changed: --overwrite replaces only output of "
                "the same command. Choose another path."
            )
    require_writable(folder)


def require_writable(path: Path) -> None:
    """Raise OutputError if `path` cannot be written, before hours of work are spent on its content."""
    with suppress(_TrialEnd), atomic_file(path) as temporary:
        temporary.touch()
        with suppress(FileNotFoundError, FileExistsError):
            # Nothing changes, but Windows refuses to rename what a program has open, and would refuse to replace it.
            path.rename(path)
        raise _TrialEnd


class _TrialEnd(Exception):  # noqa: N818
    """Leaves the block of a trial write, so that its file is removed."""
