"""Files and folders are written completely or not at all."""

import errno
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

import windows_locks
from landscribe import locks
from landscribe.errors import OutputError
from landscribe.outputs import (
    atomic_file,
    atomic_files,
    atomic_folder,
    claim,
    remove_stale,
    require_absent,
    require_output_folder,
    require_writable,
    scratch_folder,
    write_json,
    write_text,
)


class MishapError(Exception):
    """An error in the middle of writing."""


def write_half(writer, mishap: BaseException) -> None:
    """Begin to write, then fail."""
    with writer as temporary:
        if temporary.is_dir():
            (temporary / "images").mkdir()
            (temporary / "images" / "a").write_text("half", encoding="utf-8")
        else:
            temporary.write_text("half", encoding="utf-8")
        raise mishap


def everything_below(folder) -> dict[str, bytes | None]:
    """Content of each file, None for folders, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("whole", [atomic_file, atomic_folder])
@pytest.mark.parametrize("mishap", [MishapError, KeyboardInterrupt, SystemExit])
def test_a_failed_write_leaves_nothing_parents_included(tmp_path, whole, mishap):
    with pytest.raises(mishap):
        write_half(whole(tmp_path / "a" / "b" / "map.tif"), mishap())
    assert everything_below(tmp_path) == {}


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "map.tif"
    with atomic_file(path) as temporary:
        temporary.write_text("whole", encoding="utf-8")
        assert not path.exists()
    assert everything_below(tmp_path) == {"new": None, "new/map.tif": b"whole"}


def test_a_folder_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "chips"
    with atomic_folder(path) as temporary:
        (temporary / "a").write_text("whole", encoding="utf-8")
        assert not path.exists()
    assert everything_below(tmp_path) == {"new": None, "new/chips": None, "new/chips/a": b"whole"}


def test_the_temporary_file_keeps_the_suffix(tmp_path):
    with atomic_file(tmp_path / "map.tif") as temporary:
        temporary.touch()
        assert temporary.suffix == ".tif"
        assert temporary.parent == tmp_path


def test_a_file_that_fails_keeps_the_old_content(tmp_path):
    path = tmp_path / "map.tif"
    write_text(path, "old")
    with pytest.raises(MishapError):
        write_half(atomic_file(path), MishapError())
    assert everything_below(tmp_path) == {"map.tif": b"old"}


def test_a_folder_that_fails_while_overwriting_keeps_the_old_content(tmp_path):
    path = tmp_path / "chips"
    path.mkdir()
    (path / "a").write_text("old", encoding="utf-8")
    with pytest.raises(MishapError):
        write_half(atomic_folder(path, overwrite=True), MishapError())
    assert everything_below(tmp_path) == {"chips": None, "chips/a": b"old"}


def test_overwriting_a_folder_leaves_nothing_of_the_old_one(tmp_path):
    path = tmp_path / "chips"
    path.mkdir()
    (path / "old").touch()
    with atomic_folder(path, overwrite=True) as temporary:
        (temporary / "new").touch()
    assert everything_below(tmp_path) == {"chips": None, "chips/new": b""}


def test_an_abandoned_folder_is_removed_even_if_others_write_into_it(tmp_path):
    refused = threading.Event()

    def write_on(folder: Path) -> None:
        for number in range(10**5):
            try:
                (folder / "images" / str(number)).write_text("late", encoding="utf-8")
            except FileNotFoundError:
                refused.set()
                return

    def fail_meanwhile() -> None:
        with atomic_folder(tmp_path / "chips") as folder:
            (folder / "images").mkdir()
            for number in range(2000):
                (folder / "images" / f"early{number}").touch()
            threading.Thread(target=write_on, args=(folder,), daemon=True).start()
            raise MishapError

    with pytest.raises(MishapError):
        fail_meanwhile()
    assert refused.wait(20)
    assert everything_below(tmp_path) == {}


def test_a_folder_that_is_not_empty_is_refused_before_the_block_runs(tmp_path):
    path = tmp_path / "chips"
    path.mkdir()
    (path / "a").touch()
    with (
        pytest.raises(OutputError, match=r"chips exists already\..*--overwrite"),
        atomic_folder(path),
    ):
        pytest.fail("the block must not run")


def test_an_empty_folder_may_be_filled(tmp_path):
    path = tmp_path / "chips"
    path.mkdir()
    with atomic_folder(path) as temporary:
        (temporary / "a").touch()
    assert everything_below(tmp_path) == {"chips": None, "chips/a": b""}


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    path = tmp_path / "chips"
    path.touch()
    with pytest.raises(OutputError, match="chips is a file"), atomic_folder(path, overwrite=True):
        pytest.fail("the block must not run")


def test_a_folder_in_place_of_a_file_is_refused_and_kept(tmp_path):
    path = tmp_path / "map.tif"
    path.mkdir()
    (path / "a").touch()
    with pytest.raises(OutputError, match=r"cannot write .*map\.tif"):
        write_text(path, "new")
    assert everything_below(tmp_path) == {"map.tif": None, "map.tif/a": b""}


@pytest.mark.parametrize("whole", [atomic_file, atomic_folder])
def test_a_file_in_place_of_a_parent_is_refused(tmp_path, whole):
    (tmp_path / "a").touch()
    with (
        pytest.raises(OutputError, match=r"cannot write .*b: .*a is a file\. Expected a folder"),
        whole(tmp_path / "a" / "b"),
    ):
        pytest.fail("the block must not run")
    assert everything_below(tmp_path) == {"a": b""}


@pytest.mark.parametrize("whole", [atomic_file, atomic_folder])
@pytest.mark.parametrize("place", ["{}", "new/{}", "new/{}/b"], ids=["name", "name in a new folder", "parent"])
def test_a_name_that_is_too_long_is_refused_and_leaves_nothing(tmp_path, whole, place):
    with pytest.raises(OutputError, match="File name too long"), whole(tmp_path / place.format("x" * 300)) as temporary:
        temporary.touch()
    assert everything_below(tmp_path) == {}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_system_errors_become_one_line_about_the_path(tmp_path, number):
    with pytest.raises(OutputError, match=rf"cannot write .*map\.tif: {os.strerror(number)}"):
        write_half(atomic_file(tmp_path / "new" / "map.tif"), OSError(number, os.strerror(number)))
    assert everything_below(tmp_path) == {}


def error_of_windows(number: int) -> PermissionError:
    """The error of Windows about a file that another program has open."""
    error = PermissionError(errno.EACCES, "The process cannot access the file")
    error.winerror = number
    return error


@pytest.mark.parametrize("number", [5, 32])
def test_an_output_that_is_open_elsewhere_on_windows_is_to_be_closed(tmp_path, number):
    path = tmp_path / "map.tif"
    path.touch()
    advice = r"cannot write .*map\.tif: The process .*Nothing half-written .*QGIS.* Close it and repeat the command"
    with pytest.raises(OutputError, match=advice):
        write_half(atomic_file(path), error_of_windows(number))


def test_a_new_output_that_windows_denies_is_not_said_to_be_open(tmp_path):
    with pytest.raises(OutputError, match="choose another path that is writable"):
        write_half(atomic_file(tmp_path / "map.tif"), error_of_windows(5))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_output_that_is_open_elsewhere_on_windows_is_refused_before_the_work(tmp_path, monkeypatch, kind):
    path = tmp_path / "out"
    path.mkdir() if kind == "folder" else path.touch()
    require_writable(path)
    require_writable(tmp_path / "new")
    before = everything_below(tmp_path)

    def rename(self, target):
        assert self == target == path
        raise error_of_windows(32)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OutputError, match="Close it and repeat the command"):
        require_writable(path)
    assert everything_below(tmp_path) == before


def test_a_full_disk_leaves_nothing(tmp_path):
    # A limit on the size of files stands for the disk: writing beyond it fails with "File too large".
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(OutputError, match="File too large"):
            write_text(tmp_path / "new" / "map.tif", "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert everything_below(tmp_path) == {}


def test_parents_that_are_not_empty_stay(tmp_path):
    writer = atomic_file(tmp_path / "a" / "b" / "map.tif")
    writer.__enter__()
    (tmp_path / "a" / "other").touch()
    writer.__exit__(MishapError, MishapError(), None)
    assert everything_below(tmp_path) == {"a": None, "a/other": b""}


def test_a_block_that_writes_nothing_is_refused(tmp_path):
    with pytest.raises(OutputError, match="cannot write"), atomic_file(tmp_path / "new" / "map.tif"):
        pass
    assert everything_below(tmp_path) == {}


def test_a_killed_writer_never_leaves_half_a_file_under_the_name(tmp_path):
    path = tmp_path / "map.tif"
    code = (
        "import os, pathlib, signal\n"
        "from landscribe.outputs import atomic_file\n"
        f"with atomic_file(pathlib.Path({str(path)!r})) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert not path.exists()


def test_an_existing_file_is_refused_without_overwrite(tmp_path):
    (tmp_path / "map.tif").touch()
    require_absent(tmp_path / "map.tif", overwrite=True)
    require_absent(tmp_path / "other.tif", overwrite=False)
    with pytest.raises(OutputError, match="exists already"):
        require_absent(tmp_path / "map.tif", overwrite=False)


def test_relative_paths_are_written_to_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    write_text(Path("map.txt"), "here")
    write_text(Path("new/map.txt"), "there")
    assert everything_below(tmp_path) == {"map.txt": b"here", "new": None, "new/map.txt": b"there"}


def test_the_old_folder_comes_back_if_the_new_one_cannot_be_renamed(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    real = Path.replace

    def refused(self, target):
        if ".partial." in self.name:
            raise OSError("refused")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(OutputError), atomic_folder(tmp_path / "out", overwrite=True) as folder:
        (folder / "new").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "old").read_text() == "old"


def test_only_temporary_files_of_the_same_file_are_removed(tmp_path):
    kept = [".0a1b2c3d.partial.other.tif", ".0a1b2c3d.partial.map.tif.aux.xml", "map.tif", "partial.map.tif"]
    for name in (*kept, ".0a1b2c3d.partial.map.tif", ".ffffffff.partial.map.tif"):
        (tmp_path / name).touch()
    remove_stale(tmp_path / "map.tif")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


HOLD = """
import pathlib, sys, pytest, windows_locks
from landscribe.outputs import claim
if "windows" in sys.argv:
    windows_locks.install(pytest.MonkeyPatch())
with claim(pathlib.Path(sys.argv[1]), shared="shared" in sys.argv):
    print("held", flush=True)
    sys.stdin.read()
"""


Held = Callable[..., AbstractContextManager[subprocess.Popen]]


@pytest.fixture(params=["posix", "windows"])
def held_by_another_process(request, monkeypatch) -> Held:
    """Start a process that claims a path until it is killed, or until the block ends; with the locks of a system."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    if request.param == "windows":
        windows_locks.install(monkeypatch)

    @contextmanager
    def held(path: Path, *options: str) -> Iterator[subprocess.Popen]:
        command = [sys.executable, "-c", HOLD, str(path), request.param, *options]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"held\n"
            yield process
            process.stdin.close()

    return held


def test_an_output_that_another_process_writes_is_refused_and_left_as_it_is(tmp_path, held_by_another_process):
    path = tmp_path / "new" / "chips"
    with held_by_another_process(path) as process:
        (tmp_path / "new" / ".0a1b2c3d.partial.chips").mkdir()
        before = everything_below(tmp_path)
        holder = rf"chips is being written by another command \(process {process.pid} on"
        with pytest.raises(OutputError, match=holder), claim(path):
            pytest.fail("the block must not run")
        assert everything_below(tmp_path) == before
    with claim(path):
        pass


def test_a_killed_process_holds_no_claim_and_its_leftovers_are_removed(tmp_path, held_by_another_process):
    path = tmp_path / "chips"
    with held_by_another_process(path) as process:
        (tmp_path / ".0a1b2c3d.partial.chips").mkdir()
        (tmp_path / ".0a1b2c3d.partial.chips" / "a").touch()
        (tmp_path / ".0a1b2c3d.partial.other").touch()
        process.kill()
    with claim(path):
        assert sorted(everything_below(tmp_path)) == [".0a1b2c3d.partial.other", ".chips.lock"]
    assert list(everything_below(tmp_path)) == [".0a1b2c3d.partial.other"]


def test_the_scratch_folder_of_a_killed_process_is_removed_by_the_next_claim(tmp_path):
    path = tmp_path / "map.gpkg"
    with scratch_folder(path) as folder:
        (folder / "objects.tif").touch()
    assert everything_below(tmp_path) == {}
    killed = scratch_folder(path)  # it is never left
    (killed.__enter__() / "objects.tif").touch()
    with claim(path):
        assert list(everything_below(tmp_path)) == [".map.gpkg.lock"]


def test_a_claim_leaves_nothing_also_no_parents(tmp_path):
    with pytest.raises(MishapError), claim(tmp_path / "a" / "b" / "map.tif"):
        raise MishapError
    assert everything_below(tmp_path) == {}


def test_shards_share_a_claim_that_no_other_command_gets(tmp_path, held_by_another_process):
    path = tmp_path / "map.tif"
    with held_by_another_process(path, "shared"):
        with claim(path, shared=True):
            (tmp_path / ".0a1b2c3d.partial.map.tif").touch()
        assert (tmp_path / ".map.tif.lock").exists()
        with pytest.raises(OutputError, match="being written by another command"), claim(path):
            pytest.fail("the block must not run")
        assert (tmp_path / ".0a1b2c3d.partial.map.tif").exists()
    with claim(path):
        pass
    assert everything_below(tmp_path) == {}


def test_a_second_claim_of_the_same_process_is_refused(tmp_path):
    with claim(tmp_path / "chips"), pytest.raises(OutputError, match="by this process"), claim(tmp_path / "chips"):
        pytest.fail("the block must not run")
    with claim(tmp_path / "chips"):
        pass


def test_links_to_one_output_are_one_claim(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with claim(tmp_path / "real" / "a"), pytest.raises(OutputError), claim(tmp_path / "link" / "a"):
        pytest.fail("the block must not run")


def test_a_file_system_without_locks_is_warned_about_and_nothing_is_removed(tmp_path, monkeypatch, caplog):
    def lockf(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks.fcntl, "lockf", lockf)
    unfinished = tmp_path / ".0a1b2c3d.partial.chips"
    unfinished.mkdir()
    with claim(tmp_path / "chips"):
        assert unfinished.exists()
    assert "chips cannot be locked: No locks available. Do not run two commands that write it at once" in caplog.text


def test_an_old_folder_that_a_killed_process_moved_aside_comes_back(tmp_path):
    (tmp_path / ".0a1b2c3d.replaced.chips").mkdir()
    (tmp_path / ".0a1b2c3d.replaced.chips" / "old").touch()
    with claim(tmp_path / "chips"):
        pass
    assert everything_below(tmp_path) == {"chips": None, "chips/old": b""}


@pytest.mark.parametrize("folder", [".", "..", "../.."])
def test_the_working_folder_is_never_replaced(tmp_path, monkeypatch, folder):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    with pytest.raises(OutputError, match="is or holds the working folder"):
        require_output_folder(Path(folder), mark="x", overwrite=True)
    with pytest.raises(OutputError, match="is or holds the working folder"), atomic_folder(Path(folder)):
        pytest.fail("the block must not run")


def test_a_control_character_in_the_name_of_an_output_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"a\\x1b\.tif has a control character"), claim(tmp_path / "a\x1b.tif"):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_files_hold_null_for_a_number_that_json_lacks(tmp_path, value):
    write_json(tmp_path / "measures.json", {"f1": {"water": value, "field": 0.1}, "interval": (0.25, value)})

    def refuse(constant):
        pytest.fail(f"{constant} is not JSON")

    text = (tmp_path / "measures.json").read_text()
    read = json.loads(text, parse_constant=refuse)
    assert read == {"f1": {"water": None, "field": 0.1}, "interval": [0.25, None]}


# Databases -------------------------------------------------------------------------------------------------------


def database(path: Path, value: str) -> None:
    """A GeoPackage in the eyes of SQLite, with one value."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE layer (value TEXT)")
        connection.execute("INSERT INTO layer VALUES (?)", [value])


def values(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [value for (value,) in connection.execute("SELECT value FROM layer")]


def edit_and_die(path: Path, journal: str) -> None:
    """Change a GeoPackage as a program that is killed: its log stays beside the file."""
    edit = f"""
import os, sqlite3
connection = sqlite3.connect({str(path)!r}, isolation_level=None)
connection.execute("PRAGMA journal_mode = {journal}")
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN")
connection.executemany("INSERT INTO layer VALUES (?)", [("edit" * 500,)] * 100)
if {journal!r} == "WAL":
    connection.execute("COMMIT")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", edit], check=True)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("write", [atomic_file, atomic_files])
@pytest.mark.parametrize(("journal", "log"), [("WAL", "-wal"), ("DELETE", "-journal")])
@pytest.mark.parametrize("old", ["there", "damaged", "removed"])
def test_the_log_of_an_old_geopackage_does_not_change_the_new_one(tmp_path, write, journal, log, old):
    path = tmp_path / "fields.gpkg"
    database(path, "old")
    edit_and_die(path, journal)
    assert (tmp_path / f"fields.gpkg{log}").stat().st_size > 0
    if old == "damaged":
        path.write_bytes(b"no database" * 1000)
    elif old == "removed":
        path.unlink()
    with write(path) as temporary:
        database(temporary, "new")
    assert files_in(tmp_path) == ["fields.gpkg"]
    assert values(path) == ["new"]


def test_an_old_geopackage_is_whole_without_its_log_before_it_is_replaced(tmp_path, monkeypatch):
    """A process that is killed between the two steps leaves the old file with all of its edits."""
    path = tmp_path / "fields.gpkg"
    database(path, "old")
    edit_and_die(path, "WAL")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(MishapError))
    with pytest.raises(MishapError), atomic_file(path) as temporary:
        database(temporary, "new")
    assert files_in(tmp_path) == ["fields.gpkg"]
    assert values(path) == ["old", *["edit" * 500] * 100]


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_a_geopackage_that_another_program_edits_is_refused_before_the_work(tmp_path, monkeypatch, journal):
    monkeypatch.setattr(locks, "_SECONDS", 0)
    path = tmp_path / "fields.gpkg"
    database(path, "old")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(f"PRAGMA journal_mode = {journal}")
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO layer VALUES ('edit')")
        with pytest.raises(OutputError, match="is being changed by another program"):
            require_absent(path, overwrite=True)
        with pytest.raises(OutputError, match="is being changed by another program"), atomic_file(path) as temporary:
            database(temporary, "new")
        other.execute("COMMIT")
    assert values(path) == ["old", "edit"]


def test_a_finished_geopackage_waits_for_a_program_that_saves_its_edits(tmp_path):
    path = tmp_path / "fields.gpkg"
    database(path, "old")
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        with atomic_file(path) as temporary:
            database(temporary, "new")
            other.execute("BEGIN IMMEDIATE")
            save = threading.Timer(0.3, other.execute, ["COMMIT"])
            save.start()
        save.join()
    assert values(path) == ["new"]


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_a_geopackage_that_another_program_reads_is_replaced(tmp_path, journal):
    path = tmp_path / "fields.gpkg"
    database(path, "old")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(f"PRAGMA journal_mode = {journal}")
        other.execute("INSERT INTO layer VALUES ('edit')")
        reading = other.execute("SELECT value FROM layer")
        assert reading.fetchone() == ("old",)
        require_absent(path, overwrite=True)
        with atomic_file(path) as temporary:
            database(temporary, "new")
        assert values(path) == ["new"]
        reading.close()
    assert values(path) == ["new"]
    assert files_in(tmp_path) == ["fields.gpkg"]


def test_an_old_file_that_is_no_database_is_left_until_it_is_replaced(tmp_path):
    path = tmp_path / "fields.gpkg"
    path.write_text("no database", encoding="utf-8")
    require_absent(path, overwrite=True)
    assert path.read_text(encoding="utf-8") == "no database"


# Files that belong together --------------------------------------------------------------------------------------


OLD = {"h.shp": b"old", "h.dbf": b"old", "h.cpg": b"old"}
NEW = {"h.shp": b"new", "h.dbf": b"new", "h.prj": b"new"}
GENERATIONS = ({**OLD, "pages/sheet.html": b"old"}, {**NEW, "pages/sheet.html": b"new"})


def a_shapefile_and_its_page(folder: Path) -> Path:
    """Old files, of which the page lies in another folder."""
    (folder / "pages").mkdir(parents=True)
    for name, content in GENERATIONS[0].items():
        (folder / name).write_bytes(content)
    return folder / "h.shp"


def replace_all(path: Path) -> None:
    page = path.parent / "pages" / "sheet.html"
    with atomic_files(path, page) as temporary:
        for name, content in (NEW | {page.name: b"new"}).items():
            temporary.with_name(name).write_bytes(content)


def files_below(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in everything_below(folder).items() if content is not None}


def test_files_that_belong_together_are_replaced_together(tmp_path):
    replace_all(a_shapefile_and_its_page(tmp_path))
    assert files_below(tmp_path) == GENERATIONS[1]
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "in use"), KeyboardInterrupt()], ids=["refused", "interrupted"]
)
def test_an_error_at_any_rename_brings_all_old_files_back(tmp_path, monkeypatch, error):
    real, renames = Path.replace, 0
    for failing in range(20):
        path, calls = a_shapefile_and_its_page(tmp_path / str(failing)), iter(range(100))

        def replace(self, target, calls=calls, failing=failing):
            if next(calls) == failing:
                raise error
            return real(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            try:
                replace_all(path)
            except (OutputError, KeyboardInterrupt):
                renames += 1
                assert everything_below(path.parent) == {"pages": None} | GENERATIONS[0]
    assert renames == 9  # h.shp, h.dbf, h.cpg and the page aside; the folder; the page, h.dbf, h.prj and h.shp


def killed_at(rename: int, path: Path) -> bool:
    """Replace files in a process that is killed at a rename; False if there are fewer."""
    child = os.fork()
    if child == 0:
        real, calls = Path.replace, iter(range(100))

        def replace(self, target):
            if next(calls) == rename:
                os._exit(9)
            return real(self, target)

        Path.replace = replace
        replace_all(path)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_a_kill_at_any_rename_leaves_no_mixed_files_and_the_next_claim_ends_it(tmp_path):
    found = []
    for rename in range(9):
        path = a_shapefile_and_its_page(tmp_path / str(rename))
        assert killed_at(rename, path)
        if path.exists():
            assert rename == 0
            assert {name: files_below(path.parent)[name] for name in GENERATIONS[0]} == GENERATIONS[0]
        with claim(path), claim(path.parent / "pages" / "sheet.html"):
            pass
        found.append(everything_below(path.parent))
    old, new = ({"pages": None} | files for files in GENERATIONS)
    # The page lies in another folder: between two renames, a kill cannot tell it.
    assert [files == old for files in found] == [True] * 5 + [False] * 4
    assert found[6:] == [new] * 3
    assert not killed_at(9, a_shapefile_and_its_page(tmp_path / "9"))


def test_an_old_file_that_a_kill_moved_aside_does_not_replace_a_later_one(tmp_path):
    path = a_shapefile_and_its_page(tmp_path)
    assert killed_at(2, path)
    path.write_bytes(b"later")
    with claim(path):
        pass
    assert path.read_bytes() == b"later"
    assert not list(tmp_path.glob(".*.shp"))


def test_old_files_that_cannot_be_moved_back_are_named(tmp_path, monkeypatch):
    path, real, calls = a_shapefile_and_its_page(tmp_path), Path.replace, iter(range(100))

    def replace(self, target):
        if next(calls) >= 5:
            raise OSError(errno.EACCES, "in use")
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(
            OutputError, match=r"the old files in .*\.aside\.h\.shp could not be moved back: in use\. Close"
        ):
            replace_all(path)
    (tmp_path / "pages" / "sheet.html").unlink(missing_ok=True)
    with claim(path):
        pass
    assert {name: content for name, content in files_below(tmp_path).items() if name in NEW} == NEW


@pytest.mark.parametrize("name", ["h.shp", "h.dbf"])
def test_a_folder_of_the_name_of_a_file_stays(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine").touch()
    with pytest.raises(OutputError, match="cannot write"):
        replace_all(tmp_path / "h.shp")
    assert everything_below(tmp_path) == {name: None, f"{name}/mine": b""}


@pytest.mark.parametrize("write", [atomic_file, atomic_files])
@pytest.mark.parametrize(
    ("name", "sides", "others"),
    [
        ("h.shp", ["h.qix", "h.sbn", "h.shp.xml", "h.cpg", "h.kind.atx", "h.idm"], ["h.qml", "h1.qix", "h.tfw"]),
        ("H.SHP", ["H.DBF", "H.SHX"], ["h.dbf", "H.shp", "H.dbf"]),
        ("h.shp", ["h.qix"], ["h.tab", "h.ind", "h.idm", "h.2020.kind.atx", "h.SHP", "h.DBF"]),
        ("h.tif", ["h.tif.aux.xml", "h.tif.ovr", "h.tif.msk"], ["h.qml", "h.prj", "h2.tif.ovr", "h.tfw", "h.tiff"]),
        ("h.TIFF", ["h.TIFF.ovr", "h.TIFF.aux.xml"], ["h.tif.ovr"]),
        ("h.fgb", [], ["h.qix", "h.fgb.xml"]),
    ],
)  # fmt: skip
def test_side_files_of_an_old_file_do_not_stay_beside_its_successor(tmp_path, write, name, sides, others):
    for each in (*sides, *others, name):
        (tmp_path / each).write_bytes(b"old")
    with pytest.raises(MishapError), write(tmp_path / name):
        raise MishapError
    assert files_in(tmp_path) == sorted([*sides, *others, name])
    with write(tmp_path / name) as temporary:
        temporary.write_bytes(b"new")
    assert files_below(tmp_path) == dict.fromkeys(others, b"old") | {name: b"new"}


@pytest.mark.parametrize("write", [atomic_file, atomic_files])
@pytest.mark.parametrize(
    ("name", "sides", "others"),
    [("h.tif", ["h.tif.aux.xml", "h.tif.ovr"], ["h.tfw"]), ("h.shp", [], ["h.SHP", "h.DBF", "h.qix", "h.ind"])],
)
def test_files_of_another_shapefile_stay_and_those_of_a_removed_geotiff_do_not(tmp_path, write, name, sides, others):
    for each in (*sides, *others):
        (tmp_path / each).write_bytes(b"old")
    with write(tmp_path / name) as temporary:
        temporary.write_bytes(b"new")
    assert files_below(tmp_path) == dict.fromkeys(others, b"old") | {name: b"new"}
