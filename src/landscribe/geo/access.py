"""Access: how GDAL reaches files, near and far, and what it says where it cannot.

Settings that people otherwise have to know are made for what is far away; those of the user's environment win.
"""

import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import responses
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from landscribe.errors import ReadError, ServerError, UnreachableError
from landscribe.geo.grid import Window

# Also for a VRT on this machine whose files are far away. Nothing waits for ever: what does not answer, or no longer
# sends anything, is asked again and then given up; what is slow may take its time. GDAL asks up to six times for the
# blocks of a window in other ranges, so that each wait is short.
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
# What gdal.org/user/configoptions.html advises for Cloud Optimized GeoTIFFs.
_REMOTE = _HTTP | {
    # Side files are not looked for: that would ask for a listing of the folder.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",
    "VSI_CACHE": "TRUE",
}
# In bytes, as rasterio takes it.
_BLOCK_CACHE = 256 * 2**20
_USER = re.compile(r"://[^/@?]*@")
_SIGNED = re.compile(
    # Of S3 and Google, before and since their fourth version; of Azure; of CloudFront; and what others call a key.
    r"(x-amz-[\w-]+|x-goog-[\w-]+|awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id|"
    r"sig|sv|se|st|sr|sp|spr|sip|srt|ss|skoid|sktid|skt|ske|sks|skv|sdd|"
    r"token|access_token|api_?key|key|password)=",
    re.IGNORECASE,
)
"""The parts of a query that sign an address, with all that belongs to the signature."""
_NETWORKS = ("/vsicurl", "/vsis3", "/vsigs", "/vsiaz", "/vsiadls", "/vsioss", "/vsiswift", "/vsiwebhdfs")


def is_local(name: str) -> bool:
    """True for a path of this machine's file system: no URL, none of GDAL's own file systems."""
    return not ("://" in name or name.startswith("/vsi"))


def is_remote(name: str) -> bool:
    """True for what GDAL reads over a network: a URL, or one of its network file systems, also inside an archive."""
    return "://" in name or any(network in name for network in _NETWORKS)


def without_secrets(name: str) -> str:
    """A name as it may stand in files that are passed on: an address without its user, password and signature.

    A signature is made anew each day for the same file; other parts of a query may choose the file, and stay.

    >>> without_secrets("https://me:word@example.org/a.tif?band=2&sig=7Gx&se=2026-12-01")
    'https://example.org/a.tif?band=2'
    """
    if not is_remote(name):
        return name
    place, _, query = _USER.sub("://", name).partition("?")
    kept = [part for part in query.split("&") if part and not _SIGNED.match(part)]
    return place + (f"?{'&'.join(kept)}" if kept else "")


def opened(path: str | Path) -> Any:
    """A dataset of rasterio, to be closed by who asked; it may have no place on the Earth."""
    with plain_pictures_allowed():
        return rasterio.open(path)


@contextmanager
def explained(name: str, window: Window | None = None) -> Iterator[None]:
    """Reach a file, and turn GDAL's refusals into one line with the file and the place in it.

    Raises:
        ReadError: a window of it cannot be read; a ServerError if its server is known to have failed.
        UnreachableError: the file cannot be.
    """
    try:
        with _settings(name), _answers() as answers:
            yield
    except (RasterioError, OSError) as error:
        where = f" at rows {window.row} to {window.row_stop}, cols {window.col} to {window.col_stop}" if window else ""
        remedy = (
            "Check the address and the connection, and repeat the command" if is_remote(name)
            else "Check the path, or copy the file again"
        )  # fmt: skip
        of_window = ReadError if answers.is_silent else ServerError
        raise (of_window if window else UnreachableError)(
            f"{name} cannot be read{where}: {answers.explain(_reason(error, name))}. "
            f"A whole raster that GDAL can open was expected. {remedy}."
        ) from error


def forget(name: str) -> None:
    """Let GDAL forget what it has of a remote file; it keeps also what came only in part.

    Raises:
        UnreachableError: the file does not answer any more.
    """
    # What is opened under this setting is forgotten when it is closed.
    with explained(name), rasterio.Env(CPL_VSIL_CURL_NON_CACHED=":".join(f"{network}/" for network in _NETWORKS)):
        opened(name).close()


@contextmanager
def bounded_block_cache() -> Iterator[None]:
    """Keep GDAL from holding up to a twentieth of the machine's memory in decoded blocks, whoever reads or writes.

    The bound is the process's, whichever thread sets it; one in the user's environment wins.
    """
    with rasterio.Env(**({} if "GDAL_CACHEMAX" in os.environ else {"GDAL_CACHEMAX": _BLOCK_CACHE})):
        yield


def _settings(name: str) -> Any:
    wanted = _REMOTE if is_remote(name) else _HTTP
    return rasterio.Env(**{key: value for key, value in wanted.items() if key not in os.environ})


def _reason(error: BaseException, name: str) -> str:
    """GDAL's first words, behind which rasterio and GDAL itself put more general ones."""
    while error.__cause__ is not None:
        error = error.__cause__
    words = str(error).replace(f"'{name}' ", "").replace(f"{name}: ", "").strip().rstrip(".")
    return words or type(error).__name__


class _Answers(logging.Handler):
    """What a server answered at last in this thread: GDAL warns of it, and then only says what it missed."""

    _told = re.compile(r"(?:HTTP error code: |response_code=)(\d+)")

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self._last: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        found = self._told.search(record.getMessage())
        if found and record.thread == self._thread:
            self._last = int(found[1])

    @property
    def is_silent(self) -> bool:
        """True if no server failed, as far as GDAL says."""
        return self._last is None

    def explain(self, reason: str) -> str:
        """GDAL's reason, behind the server's if there is one."""
        if self._last is None:
            return reason
        if self._last == 0:
            return f"the server does not answer ({reason})"
        if self._last < 300:
            return f"the server's answer broke off ({reason})"
        return f"the server answered {self._last}, {responses.get(self._last, 'an unknown status')} ({reason})"


@contextmanager
def _answers() -> Iterator[_Answers]:
    heard, logger = _Answers(), logging.getLogger("rasterio._err")
    logger.addHandler(heard)
    try:
        yield heard
    finally:
        logger.removeHandler(heard)


class _Allowance:
    """How many are opening a file now, for whom the filters of warnings are changed."""

    lock = threading.Lock()
    count = 0
    before: Any = None


@contextmanager
def plain_pictures_allowed() -> Iterator[None]:
    """Whether a raster needs a place on the Earth is decided where it is used; rasterio need not warn.

    Only for as long as a file is opened: up to Python 3.13 the filters of warnings are the process's. So the first of
    several threads changes them and the last puts them back; none waits for another, whose server may be slow.
    """
    with _Allowance.lock:
        if not _Allowance.count:
            _Allowance.before = warnings.catch_warnings()
            _Allowance.before.__enter__()
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
        _Allowance.count += 1
    try:
        yield
    finally:
        with _Allowance.lock:
            _Allowance.count -= 1
            if not _Allowance.count:
                _Allowance.before.__exit__(None, None, None)
