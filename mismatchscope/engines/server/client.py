"""JSON over HTTP, as long runs need it: deadlines, retries with back-off, and a key that is never written down.

The standard library alone. The key is read from an environment variable, sent to the server that the URL names and
to nothing else: no redirect is followed, no proxy is used, and what a server says of a key is not repeated.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import socket
import ssl
import sys
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from ... import __version__
from ...errors import ConfigError, EngineError, SpecError

CONNECT_SECONDS = 10.0
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
LARGEST_ANSWER_BYTES = 1 << 30

_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
REFUSED = (400, 422)
"""The answer to a request that the server understood and does not grant."""
_RESUME = "what was finished is kept: the same command with --resume goes on"


class HttpError(EngineError):
    """A server's refusal, with the reason that it gave. `status` is that of HTTP."""

    def __init__(self, message: str, hint: str | None = None, *, status: int) -> None:
        super().__init__(message, hint)
        self.status = status


class _TemporaryError(Exception):
    """What may go better the next time; `wait` is the time that the server asks for, in seconds."""

    def __init__(self, message: str, *, status: int | None = None, wait: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.wait = wait


def check_url(url: str) -> str:
    """The base URL of a server, without a closing `/` or `/v1`. Raises `SpecError` for any other kind of URL."""
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise SpecError(
            "The URL of the server holds a password, which would end up in traces and reports.",
            hint="put it into the environment variable that key_env= names",
        )
    try:
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none
        valid = False
    if parts.query or parts.fragment:
        raise SpecError(
            "The URL of the server goes on behind its path, where keys are written too.",
            hint="leave out everything from '?' or '#' on, as in vllm@http://127.0.0.1:8000",
        )
    if not valid:
        raise SpecError(f"'{url}' is not the URL of a server.", hint="vllm@http://127.0.0.1:8000")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


class Client:
    """Requests to one server, from any number of threads. `close` ends those under way."""

    def __init__(self, url: str, *, timeout: float, retries: int, key_env: str) -> None:
        self.url = check_url(url)
        self._parts = urlsplit(self.url)
        self._timeout = timeout
        self._retries = retries
        self._key_env = key_env
        self._key = _read_key(key_env)
        self._tls = ssl.create_default_context() if self._parts.scheme == "https" else None
        self._closing = threading.Event()
        self._sockets: set[socket.socket] = set()

    def get(self, path: str) -> Any:
        """The JSON that GET answers."""
        return self._request("GET", path, None)

    def post(self, path: str, body: dict[str, Any], *, retries: int | None = None) -> Any:
        """The JSON that POST answers; `retries` in place of the client's own.

        Raises `HttpError` for a refusal, `ConfigError` where the key is at fault, and `EngineError` for a server
        that cannot be reached, is not done in time or answers no JSON, after the last retry.
        """
        return self._request("POST", path, json.dumps(body).encode(), retries)

    def close(self) -> None:
        """End what is under way, at once: threads that wait for an answer wake up with an error."""
        self._closing.set()
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):  # it ended by itself
                sock.shutdown(socket.SHUT_RDWR)

    def _request(self, method: str, path: str, payload: bytes | None, retries: int | None = None) -> Any:
        last = self._retries if retries is None else retries
        for attempt in range(last + 1):
            try:
                return self._attempt(method, path, payload)
            except _TemporaryError as failure:
                if self._closing.is_set():
                    raise EngineError("the run has ended") from None
                if attempt == last:
                    raise self._given_up(failure, attempts=last + 1) from None
                backoff = min(FIRST_DELAY_SECONDS * 2**attempt, LONGEST_DELAY_SECONDS)
                # Spread out, or all requests come back at the same moment.
                delay = max(backoff * random.uniform(0.5, 1.0), min(failure.wait, self._timeout))
                print(f"{self.url} {failure}; retry {attempt + 1} of {last} in {delay:.1f} s", file=sys.stderr)
                if self._closing.wait(delay):
                    raise EngineError("the run has ended") from None
        raise AssertionError("unreachable")

    def _given_up(self, failure: _TemporaryError, attempts: int) -> EngineError:
        message = f"{self.url} {failure}" + (f", {attempts} times in a row." if attempts > 1 else ".")
        if failure.status is not None:
            return HttpError(message, _RESUME, status=failure.status)
        return EngineError(message, hint=f"is the server up? curl {self.url}/v1/models; {_RESUME}")

    def _attempt(self, method: str, path: str, payload: bytes | None) -> Any:
        connection = self._connection()
        deadline = time.monotonic() + self._timeout
        sock = None
        try:
            connection.connect()
            sock = connection.sock
            sock.settimeout(self._timeout)
            self._sockets.add(sock)
            if self._closing.is_set():  # asked after adding: `close` has seen the socket, or this sees that it ran
                raise ConnectionAbortedError
            connection.request(method, self._parts.path + path, body=payload, headers=self._headers())
            response = connection.getresponse()
            data = self._read(response, sock, deadline)
        except ssl.SSLCertVerificationError as error:
            raise EngineError(
                f"{self.url} shows a certificate that cannot be trusted: {error.verify_message}.",
                hint="name the authority that signed it: export SSL_CERT_FILE=/path/to/ca.pem",
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise _TemporaryError(self._why(error)) from None
        finally:
            self._sockets.discard(sock)
            connection.close()
        return self._interpret(response, data, path)

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname, self._parts.port
        timeout = min(CONNECT_SECONDS, self._timeout)
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=timeout)
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=self._tls)

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": f"mismatchscope/{__version__}"}
        headers |= {"Content-Type": "application/json"}
        return headers | ({"Authorization": f"Bearer {self._key}"} if self._key else {})

    def _read(self, response: http.client.HTTPResponse, sock: socket.socket, deadline: float) -> bytes:
        """The whole body, by the deadline: a server that drips would keep a mere socket timeout waiting."""
        chunks, size = [], 0
        while chunk := response.read1(1 << 20):
            chunks.append(chunk)
            size += len(chunk)
            if size > LARGEST_ANSWER_BYTES:
                raise EngineError(
                    f"{self.url} answers with more than {LARGEST_ANSWER_BYTES >> 20} MiB.",
                    hint="ask for less: --evidence topk:20, or fewer --max-new-tokens",
                )
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(left)
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        return b"".join(chunks)

    def _why(self, error: Exception) -> str:
        """One clause about a failed connection, to follow the URL."""
        if isinstance(error, TimeoutError):
            return f"did not answer in time (timeout={self._timeout:g})"
        if isinstance(error, ConnectionRefusedError):
            return "refuses connections"
        if isinstance(error, socket.gaierror):
            return f"cannot be found: {error.strerror}"
        if isinstance(error, (ConnectionError, http.client.IncompleteRead, http.client.RemoteDisconnected)):
            return "closed the connection in the middle of an answer"
        if isinstance(error, http.client.HTTPException):
            return f"does not speak HTTP ({type(error).__name__})"
        return f"cannot be reached: {error.strerror or type(error).__name__}"

    def _interpret(self, response: http.client.HTTPResponse, data: bytes, path: str) -> Any:
        status = response.status
        if 200 <= status < 300:
            try:
                return json.loads(data)
            except ValueError:
                raise _TemporaryError(f"answered {path} with what is not JSON") from None
        if status in (401, 403):
            # Without the server's own words: some repeat the key.
            missing = "" if self._key else f", and ${self._key_env} is not set"
            raise ConfigError(
                f"{self.url} refuses access ({status}){missing}.",
                hint=f"export {self._key_env}=…, or name another variable with key_env=",
            )
        if 300 <= status < 400:
            raise EngineError(
                f"{self.url} redirects elsewhere ({status}).", hint="give the URL that it redirects to"
            )
        said = self._reason(data) or response.reason
        if status in _TEMPORARY:
            raise _TemporaryError(f"answers {status}: {said}", status=status, wait=_retry_after(response))
        raise HttpError(f"{self.url}{path} answers {status}: {said}", status=status)

    def _reason(self, data: bytes) -> str:
        """What the server says is wrong, on one line and without the key."""
        try:
            said = json.loads(data)
        except ValueError:
            return ""
        error = said.get("error", said) if isinstance(said, dict) else None
        if isinstance(error, dict):
            error = error.get("message") or error.get("detail")
        # Lists of details quote the request.
        text = " ".join(error.split()) if isinstance(error, str) else ""
        return (text.replace(self._key, "[key]") if self._key else text)[:300]


def _read_key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(f"What ${variable} holds is no key: it has blanks or characters beyond ASCII.")
    return key


def _retry_after(response: http.client.HTTPResponse) -> float:
    seconds = response.headers.get("Retry-After", "")
    return float(seconds) if seconds.isdigit() else 0.0
