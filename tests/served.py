"""A local server of byte ranges, like those of remote rasters, with failures on request."""

import http.server
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Fault = int | str | None
"""How a request is answered: with a status; `hang`: not at all; `reset`: the connection ends at once; `short`: half of
what was promised, then it ends; `stall`: half of it, then nothing more; None: as it should be."""


_USED: set[int] = set()
"""Ports of this process's servers: GDAL keeps by address what it read, and connections to a server that was closed."""


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder by ranges, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Ranges)
        self.folder = folder
        self.asked: list[tuple[str, str | None]] = []
        self.fault: Callable[[str, int], Fault] = lambda path, stop: None
        """By the path and one past the last byte that is asked for; 0 where it is asked what there is."""
        self.ended = threading.Event()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def url(self, name: str) -> str:
        return f"http://{self.place}/{name}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that were cut."""


class Ranges(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def _answer(self, *, has_body: bool) -> None:
        path, _, _ = self.path.partition("?")
        self.server.asked.append((path, self.headers.get("Range")))
        file = self.server.folder / path.lstrip("/")
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        data = file.read_bytes() if file.is_file() else b""
        start, stop = (int(found[1]), min(len(data), int(found[2] or len(data)) + 1)) if found else (0, len(data))
        fault = self.server.fault(path, stop if found or has_body else 0)
        if fault == "hang":
            self.server.ended.wait()
        if fault in ("hang", "reset"):
            # With nothing kept back, so that the other side sees the end at once.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif isinstance(fault, int) or not file.is_file():
            self._send(fault if isinstance(fault, int) else 404, b"", {}, has_body=has_body)
        else:
            span = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"} if found else {}
            headers = {"Accept-Ranges": "bytes"} | span
            self._send(206 if found else 200, data[start:stop], headers, has_body=has_body, fault=fault)

    def _send(self, code: int, body: bytes, headers: dict[str, str], *, has_body: bool, fault: Fault = None) -> None:
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if not has_body:
            return
        self.wfile.write(body[: len(body) // 2] if fault in ("short", "stall") else body)
        if fault == "stall":
            self.server.ended.wait()
        if fault in ("short", "stall"):
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serve a folder for as long as this lasts."""
    folder.mkdir(exist_ok=True)
    server = Server(folder)
    while server.server_address[1] in _USED:
        server.server_close()
        server = Server(folder)
    _USED.add(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
