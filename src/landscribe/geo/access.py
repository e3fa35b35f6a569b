"""Access: the one door to GDAL's datasets, local and remote, with errors that say what to do.

Remote files get the GDAL settings that people otherwise have to know; settings of the user's environment win.
"""

import errno
import logging
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import responses
from pathlib import Path
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from landscribe.errors import LandscribeError, ReadError, ServerError, UnreachableError, is_utf8
from landscribe.geo.grid import Window

# A local VRT may name remote files, so these settings hold for local files too. A server that does not answer, or stops
# sending, is asked again and then given up; a slow server may take its time. GDAL requests the blocks of a window up
# to six times in different ranges, so each timeout is short.
_HTTP = {
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_HTTP_LOW_SPEED_TIME": "10",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    "GDAL_HTTP_TIMEOUT": "300",
    "GDAL_HTTP_MAX_RETRY": "5",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
}
# As gdal.org/user/configoptions.html advises for Cloud Optimized GeoTIFFs.
_REMOTE = _HTTP | {
    # GDAL does not look for side files: it would request a listing of the folder.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "VSI_CACHE": "TRUE",
}
GDAL_ERRORS = (RasterioError, CPLE_BaseError)
"""What rasterio raises for GDAL's errors: most as its own, some as they are, for which it has no public class."""
BLOCK_CACHE = 256 * 2**20
"""Bytes of GDAL's cache of decoded blocks."""
_USER = re.compile(r"://[^/@?]*@")
_SIGNED = re.compile(
    # S3 and Google, before and since their version 4; Azure; CloudFront; common names of keys elsewhere.
    r"(x-amz-[\w-]+|x-goog-[\w-]+|awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id|"
    r"sig|sv|se|st|sr|sp|spr|sip|srt|ss|skoid|sktid|skt|ske|sks|skv|sdd|"
    r"token|access_token|api_?key|key|password)=",
    re.IGNORECASE,
)
"""The parameters of a query that sign an address."""
_NETWORKS = ("/vsicurl", "/vsis3", "/vsigs", "/vsiaz", "/vsiadls", "/vsioss", "/vsiswift", "/vsiwebhdfs")


def is_local(name: str) -> bool:
    """True for a path of this machine's file system: neither a URL nor one of GDAL's virtual file systems."""
    return not ("://" in name or name.startswith("/vsi"))


def is_remote(name: str) -> bool:
    """True for a URL or a path on one of GDAL's network file systems, also inside an archive."""
    return "://" in name or any(network in name for network in _NETWORKS)


def without_secrets(name: str) -> str:
    """The name without user, password and signature, so that it may be written into files that people share.

    The same file is signed anew each day; other parameters of a query may select the file, and stay.

    >>> without_secrets("https://me:word@example.org/a.tif?band=2&sig=7Gx&se=2026-12-01")
    'https://example.org/a.tif?band=2'
    """
    if not is_remote(name):
        return name
    address, _, query = _USER.sub("://", name).partition("?")
    kept = [parameter for parameter in query.split("&") if parameter and not _SIGNED.match(parameter)]
    return address + (f"?{'&'.join(kept)}" if kept else "")


def require_file(name: str) -> None:
    """Raise UnreachableError for a name that no file can have, and for a pipe or device, which could be endless."""
    try:
        os.fsencode(name)
        mode = Path(name).stat().st_mode if is_local(name) else stat.S_IFREG
    except (OSError, ValueError) as error:
        # A missing file is reported by the program that opens it: it may be a name of GDAL.
        if isinstance(error, OSError) and error.errno not in (errno.ENAMETOOLONG, errno.ELOOP) and is_utf8(name):
            return
        reason = getattr(error, "strerror", None) or "it is no name of a file"
        raise UnreachableError(f"{ascii(name[:80])[1:-1]} cannot be opened: {reason}. Check the path.") from error
    if not is_utf8(name):
        raise UnreachableError(f"{name} has a name that is not UTF-8, which GDAL cannot open. Rename the file.")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UnreachableError(f"{name} is a pipe or a device. Expected a file. Copy its content into one.")


def read_utf8(path: str | Path, expected: str, error: type[LandscribeError]) -> str:
    """The text of a file that a user writes, without the byte order mark that programs of Windows begin it with.

    Args:
        path: of the file.
        expected: what the file should hold, for messages.
        error: the error to raise.

    Raises:
        error: the file cannot be read, or is not UTF-8.
        UnreachableError: no file can have that name, or it is a pipe or a device.
    """
    require_file(str(path))
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(
            f"{path} is not UTF-8 text (byte {reason.start}). Expected {expected}. Save it as UTF-8; for tables, "
            "spreadsheets call that CSV UTF-8."
        ) from reason
    except OSError as reason:
        raise error(f"{path} cannot be read: {reason.strerror}. Expected {expected}. Check the path.") from reason


def csv_separator(text: str) -> str:
    """The separator of a CSV text, by its first line: programs of many languages write semicolons, some tabs.

    >>> csv_separator("value;name"), csv_separator("value,name"), csv_separator("value")
    (';', ',', ',')
    """
    return max(",;\t", key=text.partition("\n")[0].count)


@contextmanager
def open_dataset(path: str | Path) -> Iterator[Any]:
    """Open a raster dataset of rasterio for the block of a `with`; a dataset without a georeference is accepted.

    Raises:
        UnreachableError: the file cannot be opened or, inside the block, cannot be read.
    """
    with gdal_errors(str(path)), open_handle(path) as dataset:
        yield dataset


def open_handle(path: str | Path) -> Any:
    """Open a dataset that stays open until its caller closes it; call it, and read, inside `gdal_errors`."""
    require_file(str(path))
    with allow_ungeoreferenced():
        return rasterio.open(path)


@contextmanager
def gdal_errors(name: str, window: Window | None = None) -> Iterator[None]:
    """Apply the access settings for a file, and turn GDAL's errors into one line.

    Args:
        name: path or address of the file.
        window: of the file, which is read inside the block; None for opening it.

    Raises:
        ReadError: the window cannot be read; a ServerError if GDAL reports that the server failed.
        UnreachableError: the file cannot be opened.
    """
    try:
        with _settings(name), _http_status() as status:
            yield
    except (*GDAL_ERRORS, OSError, UnicodeError) as error:
        where = f" at rows {window.row} to {window.row_stop}, cols {window.col} to {window.col_stop}" if window else ""
        remedy = (
            "Check the address and the connection, and repeat the command" if is_remote(name)
            else "It is a folder: give a file in it, or join its files (gdalbuildvrt)" if Path(name).is_dir()
            else "Check the path, or copy the file again"
        )  # fmt: skip
        window_error = ServerError if status.server_failed else ReadError
        raise (window_error if window else UnreachableError)(
            f"{name} cannot be read{where}: {status.explain(_reason(error, name))}. "
            f"Expected a readable raster. {remedy}."
        ) from error


def clear_vsi_cache(name: str) -> None:
    """Clear what GDAL has cached of a remote file: GDAL also caches incomplete answers.

    Raises:
        UnreachableError: the file does not answer any more.
    """
    # GDAL drops the cache of a file that was opened under this setting when the file is closed.
    with gdal_errors(name), rasterio.Env(CPL_VSIL_CURL_NON_CACHED=":".join(f"{network}/" for network in _NETWORKS)):
        open_handle(name).close()


@contextmanager
def bounded_block_cache(bytes_: int = BLOCK_CACHE) -> Iterator[None]:
    """Limit GDAL's cache of decoded blocks, to 256 MiB unless stated; GDAL's default is 5 % of the machine's memory.

    The limit holds for the whole process, whichever thread sets it; GDAL_CACHEMAX in the user's environment wins.
    """
    with rasterio.Env(**({} if "GDAL_CACHEMAX" in os.environ else {"GDAL_CACHEMAX": bytes_})):
        yield


@contextmanager
def decoding_threads(count: int) -> Iterator[None]:
    """Let GDAL decode the blocks of one read in so many threads; GDAL_NUM_THREADS in the user's environment wins."""
    with rasterio.Env(**({} if count == 1 or "GDAL_NUM_THREADS" in os.environ else {"GDAL_NUM_THREADS": str(count)})):
        yield


def _settings(name: str) -> Any:
    options = _REMOTE if is_remote(name) else _HTTP
    return rasterio.Env(**{key: value for key, value in options.items() if key not in os.environ})


def _reason(error: BaseException, name: str) -> str:
    """The first error in the chain of causes: later ones, of rasterio and GDAL, are more general."""
    while error.__cause__ is not None:
        error = error.__cause__
    words = str(error).replace(f"'{name}' ", "").replace(f"{name}: ", "").strip().rstrip(".")
    if "GDAL_MAX_DATASET_POOL_SIZE" in words:
        return "it is a virtual raster of itself, or of too many in turn"
    return words or type(error).__name__


class _HttpStatusLog(logging.Handler):
    """Keeps the last HTTP status that GDAL warned of in this thread: GDAL's exception names only the consequence."""

    _pattern = re.compile(r"(?:HTTP error code: |response_code=)(\d+)")

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self._status: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        match = self._pattern.search(record.getMessage())
        if match and record.thread == self._thread:
            self._status = int(match[1])

    @property
    def server_failed(self) -> bool:
        """True if GDAL reported a failed request."""
        return self._status is not None

    def explain(self, reason: str) -> str:
        """GDAL's reason, after the server's answer if there was one."""
        if self._status is None:
            return reason
        if self._status == 0:
            return f"the server does not answer ({reason})"
        if self._status < 300:
            return f"the server's answer broke off ({reason})"
        return f"the server answered {self._status}, {responses.get(self._status, 'an unknown status')} ({reason})"


@contextmanager
def _http_status() -> Iterator[_HttpStatusLog]:
    status, logger = _HttpStatusLog(), logging.getLogger("rasterio._err")
    logger.addHandler(status)
    try:
        yield status
    finally:
        logger.removeHandler(status)


class _WarningFilter:
    """How many threads open a file now under the changed filter of warnings, and the filter to restore."""

    lock = threading.Lock()
    count = 0
    before: Any = None


@contextmanager
def allow_ungeoreferenced() -> Iterator[None]:
    """Silence rasterio's warning about rasters without a georeference: those who use a raster decide if it needs one.

    Up to Python 3.13 the filters of warnings belong to the process, so the first of several threads changes them and
    the last restores them. Use it only around opening: no thread then waits for another, whose server may be slow.
    """
    with _WarningFilter.lock:
        if not _WarningFilter.count:
            _WarningFilter.before = warnings.catch_warnings()
            _WarningFilter.before.__enter__()
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
        _WarningFilter.count += 1
    try:
        yield
    finally:
        with _WarningFilter.lock:
            _WarningFilter.count -= 1
            if not _WarningFilter.count:
                _WarningFilter.before.__exit__(None, None, None)
