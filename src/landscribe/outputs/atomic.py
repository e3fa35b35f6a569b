"""Atomic output: files and folders are written whole or not at all.

Output is written under a temporary name beside the final path and renamed when complete. So a reader never meets half
a file, and a failed step leaves nothing behind, parent folders included.
"""

import glob
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from landscribe import locks
from landscribe.errors import OutputError
from landscribe.outputs.refusals import os_errors, refuse_blocked, refuse_file, refuse_working_folder, require_absent
from landscribe.outputs.side_files import side_files
from landscribe.texts import json_text

log = logging.getLogger(__name__)

_STATES = ("partial", "finished", "aside", "replaced", "abandoned")
"""Of a temporary file or folder: being written; files that only have to be moved out; old files for which others come;
moved aside for its successor; to be removed."""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path with the same suffix; rename it to `path` when the block succeeds.

    Side files of other programs beside an old file are removed.

    Raises:
        OutputError: `path` cannot be written (read-only, disk full, not in a folder).
    """
    # The name keeps all suffixes: GDAL picks drivers and side files by them.
    temporary = _beside(path, f".{uuid.uuid4().hex[:8]}.partial.")
    with _with_parents(path):
        try:
            yield temporary
            if side_files(path):
                with atomic_files(path) as whole:
                    temporary.replace(whole)
            else:
                _flush_to_disk(temporary)
                locks.remove_log(path)
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder; rename it to `path` when the block succeeds.

    Args:
        path: the folder. It may exist if it is empty.
        overwrite: replace a folder that is not empty.

    Raises:
        OutputError: `path` is not empty, or cannot be written.
    """
    with os_errors(path):
        refuse_file(path)
        refuse_working_folder(path)
        require_absent(path, overwrite=overwrite)
    mark = uuid.uuid4().hex[:8]
    states = ("partial", "replaced", "abandoned")
    temporary, replaced, abandoned = (_beside(path, f".{mark}.{state}.") for state in states)
    with _with_parents(path):
        try:
            temporary.mkdir()
            yield temporary
            if path.exists():
                # The old folder is moved aside first, so that at no moment both are lost.
                path.replace(replaced)
            temporary.replace(path)
            shutil.rmtree(replaced, ignore_errors=True)
        finally:
            if replaced.exists() and not path.exists():
                replaced.replace(path)
            # A process elsewhere may still write into the folder: after the rename, it cannot find it.
            with suppress(OSError):
                temporary.replace(abandoned)
            for leftover in (temporary, abandoned):
                shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def atomic_files(path: Path, *elsewhere: Path) -> Iterator[Path]:
    """Yield a path of the same name in a temporary folder; its files replace those in the folder of `path` at success.

    For files that belong together. The old ones, with the side files of other programs, are moved aside, `path` first;
    the new ones follow, `path` last: where it exists, all are of one command. After an error, the old files come back.
    After a kill, the next claim of `path` ends the exchange, or brings the old files back; a file in another folder has
    one rename in between.

    Args:
        path: the file without which the others are not read.
        elsewhere: files in other folders; the block writes them in the temporary folder, too.

    Raises:
        OutputError: a file cannot be written.
    """
    mark = uuid.uuid4().hex[:8]
    folder, finished, aside = (_beside(path, f".{mark}.{state}.") for state in ("partial", "finished", "aside"))
    staged = {other: _beside(other, f".{mark}.partial.") for other in elsewhere}
    with ExitStack() as parents:
        for file in (*elsewhere, path):
            parents.enter_context(_with_parents(file))
        try:
            folder.mkdir()
            yield folder / path.name
            for other, temporary in staged.items():
                with os_errors(other):
                    shutil.move(folder / other.name, temporary)  # maybe to another disk
            _exchange(path, (folder, finished, aside), staged)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            for temporary in staged.values():
                with suppress(OSError):  # of a read-only disk, also where there is no file
                    temporary.unlink(missing_ok=True)
            remove_empty([finished, aside])


def _exchange(path: Path, folders: tuple[Path, Path, Path], staged: Mapping[Path, Path]) -> None:
    """Replace files by those of a temporary folder: all of them, or none.

    Args:
        path: the main one.
        folders: the temporary folder; its name from the moment when no old file is left; a folder for the old files.
        staged: temporary files of files in other folders.
    """
    folder, finished, aside = folders
    names = [*sorted(file.name for file in folder.iterdir() if file.name != path.name), path.name]
    for file in (*(folder / name for name in names), *staged.values()):
        _flush_to_disk(file)
    targets = [path.with_name(name) for name in names]
    for target in (*targets, *staged):
        locks.remove_log(target)
    sides = [side for target in targets for side in side_files(target)]
    if names == [path.name] and not staged and not sides:
        (folder / path.name).replace(path)
        return
    aside.mkdir()
    replaced = {other: _beside(other, f"{aside.name[:10]}replaced.") for other in staged if _is_file(other)}
    with _undone_after_an_error(path, aside) as move:
        for old in (*reversed(targets), *sides):
            if _is_file(old):
                with suppress(FileNotFoundError):  # another command has moved a style that both have
                    move(old, aside / old.name)
        for other, old in replaced.items():
            move(other, old)
        move(folder, finished)
        for other, temporary in staged.items():
            move(temporary, other)
        for target in targets:
            move(finished / target.name, target)
    shutil.rmtree(aside, ignore_errors=True)
    for old in replaced.values():
        old.unlink()


@contextmanager
def _undone_after_an_error(path: Path, aside: Path) -> Iterator[Callable[[Path, Path], None]]:
    """Yield a function that moves a file or folder; after an error in the block all move back, the last one first."""
    moves: list[tuple[Path, Path]] = []

    def move(source: Path, target: Path) -> None:
        moves.append((source, target))
        source.replace(target)

    try:
        yield move
    except BaseException as error:
        try:
            for source, target in reversed(moves):
                if os.path.lexists(target) and not os.path.lexists(source):
                    target.replace(source)
        except OSError as second:
            raise OutputError(
                f"cannot write {path}, and the old files in {aside} could not be moved back: {second.strerror}. Close "
                "programs that have them open, such as QGIS, and repeat the command."
            ) from error
        raise


def _is_file(path: Path) -> bool:
    """True for a file, and for a link, also to nothing."""
    return path.is_file() or path.is_symlink()


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside `path` for temporary files. If the process is killed, the next claim of `path` removes it.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = _beside(path, f".{uuid.uuid4().hex[:8]}.partial.")
    with os_errors(path):
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _beside(path: Path, prefix: str) -> Path:
    """A path in the same folder, with a prefix before the name."""
    path = Path(os.path.abspath(path)) if path.name in ("", "..") else path  # noqa: PTH100  keeps links
    return path.with_name(f"{prefix}{path.name}")


def remove_stale(path: Path) -> None:
    """Remove temporary files and folders of `path` that killed processes left beside it.

    Where a process was killed while it replaced a file or folder, the new one comes if all of it is there, otherwise
    the old one comes back.
    """
    for state in _STATES:
        for stale in path.parent.glob(f".{'[0-9a-f]' * 8}.{state}.{glob.escape(path.name)}"):
            if state in ("finished", "aside") and not path.exists():
                with os_errors(path):
                    for file in sorted(stale.iterdir(), key=lambda file: file.name == path.name):
                        file.replace(path.with_name(file.name))
                log.info("%s is whole again: a command was killed when it had only to be moved", path)
            if state == "replaced" and not path.exists():
                stale.replace(path)
            elif stale.is_dir() and not stale.is_symlink():
                shutil.rmtree(stale, ignore_errors=True)
            else:
                stale.unlink(missing_ok=True)


def remove_whole(path: Path) -> None:
    """Remove a file or folder, if there is one. A killed process leaves no part of a folder under its name."""
    if path.is_dir() and not path.is_symlink():
        abandoned = _beside(path, f".{uuid.uuid4().hex[:8]}.abandoned.")
        path.replace(abandoned)
        shutil.rmtree(abandoned, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON, whole or not at all; see `json_text`."""
    write_text(path, json_text(value) + "\n")


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove the folders that are empty."""
    for folder in folders:
        # The system refuses to remove a folder that is not empty.
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def _with_parents(path: Path) -> Iterator[None]:
    """Create the missing parents of `path`; remove them again if the block fails."""
    with os_errors(path):
        refuse_blocked(path)
        missing = [parent for parent in path.parents if not parent.exists()]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield
        except BaseException:
            remove_empty(missing)
            raise


def _flush_to_disk(path: Path) -> None:
    """Write the file's bytes to the disk, so that a crash after the rename leaves no empty file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
