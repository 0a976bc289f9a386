"""JSON over HTTP, as long runs need it: deadlines, retries with back-off, and a key that is never written down.

httpx pools connections and ends them with the task that waits for them. The key is read from an environment
variable, sent to the server that the URL names and to nothing else: no redirect is followed, no proxy is used, no
cookie is kept, and what a server says of a key is not repeated.

httpx bounds each read alone, so that a byte now and then keeps it waiting for ever, be it of the status line, a
header, a chunk's extension, a trailer or one `100 Continue` after another. Deadlines of asyncio are around all of
it. h11 bounds the head of a response, and a line of its chunks, by 100 KiB; the body is bounded here.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from ... import __version__
from ...errors import ConfigError, EngineError
from .credentials import check_url, not_a_url, read_key, shown
from .failures import TEMPORARY_STATUSES, HttpError, TemporaryFailure, connection_failure, retry_after

CONNECT_SECONDS = 10.0
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
KEEPALIVE_SECONDS = 2.0
"""Below the 5 s after which vLLM and SGLang close idle connections: none is used at the moment it is closed."""
MAX_BODY_BYTES = 1 << 30
SMALL_BODY_BYTES = 4 << 20
"""Of what a server says of itself."""
TIMEOUTS_PER_REQUEST = 2
"""What all attempts of a request and the waits between them may take: a server that hangs is tried once more."""

# JSON is several times as large when it is parsed, and the more so the more lists and tables it consists of. What
# servers list of a token has one of them in 20 bytes or more.
_BYTES_PER_BRACKET = 12
_BRACKETS_OF_NO_CONCERN = 100_000


class Client:
    """Requests to one server, from the tasks of one event loop. A task that is cancelled ends its request."""

    def __init__(self, url: str, *, timeout: float, retries: int, key_env: str) -> None:
        self.url = check_url(url)
        self._timeout = timeout
        self._connect_seconds = min(CONNECT_SECONDS, timeout)
        self._retries = retries
        self._key_env = key_env
        self._key = read_key(key_env)
        headers = {"Accept": "application/json", "User-Agent": f"mismatchscope/{__version__}"}
        # What is not compressed is not larger in memory than it was on its way.
        headers |= {"Accept-Encoding": "identity"}
        headers |= {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            self._http = httpx.AsyncClient(
                base_url=self.url,
                headers=headers,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                # Trusts the system's authorities, or those of SSL_CERT_FILE. Reading them takes 50 ms.
                verify=ssl.create_default_context() if self.url.startswith("https:") else False,
                trust_env=False,  # no proxies, no .netrc
                follow_redirects=False,
                timeout=httpx.Timeout(None, connect=self._connect_seconds),
                limits=httpx.Limits(max_connections=None, keepalive_expiry=KEEPALIVE_SECONDS),
            )
        except httpx.InvalidURL:
            raise not_a_url(url) from None

    async def get(self, path: str) -> Any:
        """The JSON that GET answers; errors as of `post`."""
        return await self._request("GET", path, None, self._retries, SMALL_BODY_BYTES)

    async def post(
        self, path: str, body: dict[str, Any], *, retries: int | None = None, most_bytes: int = SMALL_BODY_BYTES
    ) -> Any:
        """The JSON that POST answers, of at most `most_bytes`; `retries` in place of the client's own.

        Raises `HttpError` for a refusal, `ConfigError` where the key is at fault, and `EngineError` for a server
        that cannot be reached, is not done in time, answers too much or no JSON, after the last retry.
        """
        return await self._request("POST", path, body, self._retries if retries is None else retries, most_bytes)

    async def command(self, path: str) -> bytes:
        """What POST answers to no body, JSON or not, once; errors as of `post`."""
        try:
            response, data = await self._send("POST", path, None, SMALL_BODY_BYTES)
            if not response.is_success:
                self._interpret(response, data, path)
            return bytes(data)
        except TemporaryFailure as failure:
            raise failure.final(self.url, attempts=1) from None

    @property
    def closed(self) -> bool:
        return self._http.is_closed

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _request(
        self, method: str, path: str, body: dict[str, Any] | None, retries: int, most_bytes: int
    ) -> Any:
        failure = TemporaryFailure(f"did not answer in time (timeout={self._timeout:g})")
        attempt = 0
        try:
            async with asyncio.timeout(TIMEOUTS_PER_REQUEST * self._timeout):
                for attempt in range(retries + 1):
                    if attempt:
                        delay = self._delay(attempt - 1, failure.wait)
                        print(
                            f"{self.url} {failure}; retry {attempt} of {retries} in {delay:.1f} s", file=sys.stderr
                        )
                        await asyncio.sleep(delay)
                    try:
                        return await self._attempt(method, path, body, most_bytes)
                    except TemporaryFailure as temporary:
                        failure = temporary
        except TimeoutError:
            pass
        raise failure.final(self.url, attempts=attempt + 1) from None

    def _delay(self, attempt: int, wait: float) -> float:
        """Seconds before the next attempt, `wait` of which the server asks for."""
        backoff = min(FIRST_DELAY_SECONDS * 2**attempt, LONGEST_DELAY_SECONDS)
        # Spread out, or all requests come back at the same moment.
        return max(backoff * random.uniform(0.5, 1.0), min(wait, self._timeout))

    async def _attempt(self, method: str, path: str, body: dict[str, Any] | None, most_bytes: int) -> Any:
        response, data = await self._send(method, path, body, most_bytes)
        return self._interpret(response, data, path)

    async def _send(
        self, method: str, path: str, body: dict[str, Any] | None, most_bytes: int
    ) -> tuple[httpx.Response, bytearray]:
        try:
            # Of everything, from the connection to the last byte: httpx counts anew with every byte that drips.
            async with (
                asyncio.timeout(self._timeout),
                self._http.stream(method, path, json=body) as response,
            ):
                data = await self._read(response, min(most_bytes, MAX_BODY_BYTES))
        except TimeoutError:
            raise TemporaryFailure(f"did not answer in time (timeout={self._timeout:g})") from None
        except httpx.TransportError as error:
            raise connection_failure(error, self.url, self._connect_seconds) from None
        return response, data

    async def _read(self, response: httpx.Response, most_bytes: int) -> bytearray:
        """The body. Raises `EngineError` as soon as it is too large, or for one that would grow when unpacked."""
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise EngineError(
                f"{self.url} compresses its answers ({shown(encoding)[:30]}) though it is asked not to.",
                hint="switch compression off in the server, or in the proxy before it",
            )
        data = bytearray()
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > most_bytes:
                raise EngineError(
                    f"{self.url} answers with more than {_size(most_bytes)}, more than was asked for can have.",
                    hint="is it the server that you mean? Fewer log-probs: --evidence topk:20, or sampled",
                )
        return data

    def _interpret(self, response: httpx.Response, data: bytearray, path: str) -> Any:
        status = response.status_code
        if response.is_success:
            try:
                return parse(data)
            except (ValueError, RecursionError):
                raise TemporaryFailure(f"answered {path} with what is not JSON") from None
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
        said = shown(_reason(data) or response.reason_phrase)
        if status in TEMPORARY_STATUSES:
            wait = retry_after(response.headers.get("Retry-After", ""))
            raise TemporaryFailure(f"answers {status}: {said}", status=status, wait=wait)
        raise HttpError(f"{self.url}{path} answers {status}: {said}", status=status)


def parse(data: bytearray) -> Any:
    """The value of a JSON text.

    Raises `ValueError` for anything else, for one that consists of little but brackets, and where a table has a key
    twice: which of its values counts would be up to the reader.
    """
    if data.count(b"[") + data.count(b"{") > _BRACKETS_OF_NO_CONCERN + len(data) // _BYTES_PER_BRACKET:
        raise ValueError("it has too many brackets")
    return json.loads(data, object_pairs_hook=_table)


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("it has a key twice")
    return table


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count} bytes"


def _reason(data: bytearray) -> str:
    """What the server says is wrong; empty where it says it in another form."""
    try:
        said = parse(data)
    except (ValueError, RecursionError):
        return ""
    error = said.get("error", said) if isinstance(said, dict) else None
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail")
    # Lists of details quote the request.
    return error if isinstance(error, str) else ""
