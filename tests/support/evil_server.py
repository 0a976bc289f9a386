"""Servers that mean harm: one that never ends a field of HTTP, and one whose answers are changed before they leave.

The first speaks through a raw socket, because no library for servers sends what it sends.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fake_server import FakeServer

_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"

# What is sent once, and what is sent again and again.
ENDLESS = {
    "nothing": (b"", b""),
    "the status line": (b"HTTP/1.1 200 O", b"k"),
    "a header's name": (_OK, b"X"),
    "a header's value": (_OK + b"Server: ", b"k"),
    "headers": (_OK, b"X: y\r\n"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "100 Continue with headers": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "a chunk's size": (_CHUNKED, b"0"),
    "a chunk's extension": (_CHUNKED + b"5;", b"e"),
    "chunks with extensions": (_CHUNKED, b"1;a=b\r\n \r\n"),
    "a trailer": (_CHUNKED + b"0\r\nX: ", b"k"),
    "trailers": (_CHUNKED + b"0\r\n", b"X: y\r\n"),
    "a body of a stated length": (_OK + b"Content-Length: 100000000\r\n\r\n", b" "),
    "a body until the end of the connection": (_OK + b"\r\n", b" "),
    "empty bodies and no end": (_OK + b"Content-Length: 1\r\n\r\n", b""),
}


class EndlessServer:
    """Sends one field of HTTP for ever: a piece of it every `pause` seconds, `pieces` of them together."""

    def __init__(self, what: str, *, pause: float, pieces: int = 1) -> None:
        self._start, unit = ENDLESS[what]
        self._unit, self._pause = unit * pieces, pause
        self._ended = threading.Event()

    def __enter__(self) -> EndlessServer:
        self._listening = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._listening.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._drip, args=(connection,), daemon=True).start()

    def _drip(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(self._start)
            while not self._ended.wait(self._pause):
                connection.sendall(self._unit)


@dataclass
class ChangingServer(FakeServer):
    """Honest but for what `change` makes of the answers to `path`, or of those that a model was run for.

    `change` alters an answer, or returns another one.
    """

    change: Callable[[Any], Any] | None = None
    path: str = ""
    bodies: list[int] = field(default_factory=list)

    def respond(self, path: str, body: dict[str, Any] | None) -> Any:
        response = super().respond(path, body)
        concerned = path == self.path or (not self.path and path in ("/v1/completions", "/generate"))
        if self.change is None or not concerned or response is None:
            return response
        changed = self.change(response)
        return response if changed is None else changed
