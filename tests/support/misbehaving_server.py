"""A server on loopback that goes wrong in every way that servers do, below JSON and inside it."""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from fake_server import FakeServer


@dataclass
class MisbehavingServer(FakeServer):
    """`faults` happen one after another, at requests for which a model runs, and then `always` at each.

    `attempts` has the time of every such request, `connections` counts those that are open.
    """

    faults: list[str] = field(default_factory=list)
    always: str = ""
    attempts: list[float] = field(default_factory=list)
    connections: int = 0
    redirect_to: str = "http://192.0.2.1/"
    encoding: str = ""
    headers: bytes = b""
    path: str = ""
    body: bytes = b""
    refusal: tuple[int, str] = (400, "")
    cookies: list[str | None] = field(default_factory=list)
    accepted_encodings: set[str | None] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.released = threading.Event()

    def __exit__(self, *_: object) -> None:
        self.released.set()
        super().__exit__()

    @functools.cached_property
    def bomb(self) -> bytes:
        """A body of a few hundred bytes that becomes 64 MiB."""
        return gzip.compress(gzip.compress(bytes(64 << 20), compresslevel=1))

    class handler(FakeServer.handler):
        fake: MisbehavingServer

        def setup(self) -> None:
            super().setup()
            with self.fake._lock:
                self.fake.connections += 1

        def finish(self) -> None:
            with self.fake._lock:
                self.fake.connections -= 1
            with contextlib.suppress(OSError):
                super().finish()

        def reply(self, body: dict[str, Any] | None) -> None:
            if self.path == self.fake.path:
                with contextlib.suppress(OSError):
                    self.send(200, self.fake.body)
                return
            if self.path not in ("/v1/completions", "/generate"):
                super().reply(body)
                return
            self.fake.attempts.append(time.monotonic())
            self.fake.accepted_encodings.add(self.headers["Accept-Encoding"])
            fault = self.fake.faults.pop(0) if self.fake.faults else self.fake.always
            misbehave = {name: getattr(self, name) for name in dir(self) if name.startswith("do_")}
            misbehave.get("do_" + fault.replace(" ", "_"), super().reply)(body)

        def do_unauthorized(self, body: Any) -> None:
            key = self.headers.get("Authorization")
            self.send(401, json.dumps({"error": {"message": f"Incorrect API key provided: {key}"}}).encode())

        def do_busy(self, body: Any) -> None:
            self.send(429, b'{"error": {"message": "too many requests"}}', Retry_After="1")

        def do_broken(self, body: Any) -> None:
            key = self.headers.get("Authorization", "")
            self.send(500, json.dumps({"error": {"message": f"engine\nis dead, was asked with {key}"}}).encode())

        def do_refuse(self, body: Any) -> None:
            self.send(400, json.dumps({"detail": [{"msg": "bad", "input": body}]}).encode())

        def do_busy_until_a_date(self, body: Any) -> None:
            date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
            self.send(503, b"", Retry_After=date)

        def do_busy_for_a_year(self, body: Any) -> None:
            self.send(429, b"", Retry_After=str(365 * 24 * 3600))

        def do_key_as_reason(self, body: Any) -> None:
            self.send_response(400, f"no such key: {self.headers['Authorization']}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_encoded(self, body: Any) -> None:
            self.send(200, b"{}", Content_Encoding=self.fake.encoding)

        def do_headers(self, body: Any) -> None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" + self.fake.headers + b"\r\n")
            self.hang_up()

        def do_said(self, body: Any) -> None:
            self.send(self.fake.refusal[0], self.fake.refusal[1].encode())

        def do_key_as_encoding(self, body: Any) -> None:
            self.send(200, b"{}", Content_Encoding=self.headers["Authorization"])

        def do_redirect(self, body: Any) -> None:
            self.send(307, b"", Location=self.fake.redirect_to)

        def do_stall(self, body: Any) -> None:
            """Nothing, until the client hangs up."""
            self.drip(b"")

        def do_drip_status_line(self, body: Any) -> None:
            self.drip(b"HTTP/1.1 200 O")

        def do_drip_headers(self, body: Any) -> None:
            self.drip(b"HTTP/1.1 200 OK\r\nServer: ")

        def do_drip(self, body: Any) -> None:
            self.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")

        def drip(self, start: bytes) -> None:
            """A byte now and then, so that no single read takes long."""
            self.wfile.write(start)
            with contextlib.suppress(OSError):
                while not self.fake.released.wait(0.02) and not self.client_is_gone():
                    self.wfile.write(b"k" if start else b"")
            self.close_connection = True

        def client_is_gone(self) -> bool:
            readable, _, _ = select.select([self.connection], [], [], 0)
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

        def do_gzip_bomb(self, body: Any) -> None:
            self.send(200, self.fake.bomb, Content_Encoding="gzip, gzip")

        def do_oversized(self, body: Any) -> None:
            """64 MiB whose length is not told, as fast as they are taken."""
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(1 << 10):
                    self.wfile.write(b" " * (1 << 16))
            self.close_connection = True

        def do_deep(self, body: Any) -> None:
            self.send(200, b"[" * 100_000)

        def do_cookie(self, body: Any) -> None:
            self.fake.cookies.append(self.headers.get("Cookie"))
            self.send(200, json.dumps(self.fake.respond(self.path, body)).encode(), Set_Cookie="route=1; Path=/")

        def do_close(self, body: Any) -> None:
            """Half of the answer, then the end of the connection."""
            data = json.dumps(self.fake.respond(self.path, body)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.hang_up()

        def do_close_chunked(self, body: Any) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b'20\r\n{"choices": [')
            self.hang_up()

        def do_close_at_once(self, body: Any) -> None:
            self.hang_up()

        def do_malformed(self, body: Any) -> None:
            self.send(200, b'{"choices": [}')

        def do_noise(self, body: Any) -> None:
            self.wfile.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
            self.hang_up()

        def do_other_form(self, body: Any) -> None:
            self.send(200, b'["an", "answer"]')

        def do_null(self, body: Any) -> None:
            self.send(200, b"null")

        def do_other_model(self, body: Any) -> None:
            self.altered(body, lambda response: response.update(model="another"))

        def do_other_weights(self, body: Any) -> None:
            self.altered(body, lambda response: response["meta_info"].update(weight_version="another"))

        def do_other_prompt(self, body: Any) -> None:
            self.altered(body, lambda response: response["choices"][0]["prompt_token_ids"].append(1))

        def do_other_tokens(self, body: Any) -> None:
            self.altered(body, lambda response: response["meta_info"]["input_token_logprobs"].reverse())

        def do_foreign_id(self, body: Any) -> None:
            def spoil(response: dict[str, Any]) -> None:
                response["choices"][0]["token_ids"][0] = 10**6
                response["choices"][0]["logprobs"]["tokens"][0] = f"token_id:{10**6}"

            self.altered(body, spoil)

        def do_nothing(self, body: Any) -> None:
            empty = {"tokens": [], "token_logprobs": [], "top_logprobs": []}

            def spoil(response: dict[str, Any]) -> None:
                response["choices"][0].update(token_ids=[], logprobs=empty)
                response.pop("usage")

            self.altered(body, spoil)

        def do_abort(self, body: Any) -> None:
            self.altered(body, lambda response: response["choices"][0].update(finish_reason="abort"))

        def do_nan(self, body: Any) -> None:
            def spoil(response: dict[str, Any]) -> None:
                logprobs = response["choices"][0]["logprobs"]
                logprobs["token_logprobs"][0] = float("nan")
                logprobs["top_logprobs"][0] = dict.fromkeys(logprobs["top_logprobs"][0], float("nan"))

            self.altered(body, spoil)

        def do_null_logprob(self, body: Any) -> None:
            self.altered(
                body, lambda response: response["meta_info"]["output_token_logprobs"][0].__setitem__(0, None)
            )

        def do_logits(self, body: Any) -> None:
            logits = [12.5]
            self.altered(
                body,
                lambda response: response["choices"][0]["logprobs"]["token_logprobs"].__setitem__(slice(1), logits),
            )

        def altered(self, body: dict[str, Any], change: Callable[[dict[str, Any]], Any]) -> None:
            response = self.fake.respond(self.path, body)
            change(response)
            self.send(200, json.dumps(response).encode())

        def hang_up(self) -> None:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True


def closed_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
