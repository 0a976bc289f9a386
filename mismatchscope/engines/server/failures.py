"""What goes wrong between here and a server, and whether another attempt may go better."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from ...errors import EngineError

if TYPE_CHECKING:
    import httpx

TEMPORARY_STATUSES = (408, 425, 429, 500, 502, 503, 504)
REFUSED_STATUSES = (400, 422)
"""Of a request that the server understood and does not grant."""
RESUME_HINT = "what was finished is kept: the same command with --resume goes on"

_SECONDS = re.compile("[0-9]{1,9}")
_DATE = re.compile(
    "[A-Za-z]{3,9},? [0-9]{1,2}[ -][A-Za-z]{3}[ -][0-9]{2,4} [0-9]{2}:[0-9]{2}:[0-9]{2} ([A-Z]{1,4}|[+-][0-9]{4})"
)
"""Of RFC 9110, 5.6.7."""

_HUNG_UP = ("Server disconnected", "peer closed connection")
"""How httpx tells a server that hangs up from one that speaks something else: the error is of the same type."""


class HttpError(EngineError):
    """A server's refusal, with the reason that it gave. `status` is that of HTTP."""

    def __init__(self, message: str, hint: str | None = None, *, status: int) -> None:
        super().__init__(message, hint)
        self.status = status


class TemporaryFailure(Exception):
    """What may go better the next time: a clause that follows the URL.

    `wait` is the time that the server asks for, in seconds; `status` that of HTTP, where there is one.
    """

    def __init__(self, clause: str, *, status: int | None = None, wait: float = 0.0) -> None:
        super().__init__(clause)
        self.status = status
        self.wait = wait

    def final(self, url: str, attempts: int) -> EngineError:
        """The error after the last attempt."""
        message = f"{url} {self}" + (f", {attempts} times in a row." if attempts > 1 else ".")
        if self.status is not None:
            return HttpError(message, RESUME_HINT, status=self.status)
        return EngineError(message, hint=f"is the server up? curl {url}/v1/models; {RESUME_HINT}")


def connection_failure(error: httpx.TransportError, url: str, connect_seconds: float) -> TemporaryFailure:
    """What a failed connection means. Raises `EngineError` for a certificate that cannot be trusted."""
    import httpx

    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise EngineError(
                f"{url} shows a certificate that cannot be trusted: {cause.verify_message}.",
                hint="name the authority that signed it: export SSL_CERT_FILE=/path/to/ca.pem",
            )
        if isinstance(cause, ConnectionRefusedError):
            return TemporaryFailure("refuses connections")
        if isinstance(cause, socket.gaierror):
            return TemporaryFailure(f"cannot be found: {cause.strerror}")
    if isinstance(error, httpx.ConnectTimeout):
        return TemporaryFailure(f"did not accept a connection within {connect_seconds:g} s")
    if isinstance(error, httpx.ConnectError):
        reasons = [cause.strerror for cause in _causes(error) if isinstance(cause, OSError) and cause.strerror]
        return TemporaryFailure(f"cannot be reached: {reasons[-1] if reasons else 'the handshake failed'}")
    if isinstance(error, httpx.ProtocolError) and not str(error).startswith(_HUNG_UP):
        return TemporaryFailure("does not speak HTTP")
    return TemporaryFailure("closed the connection in the middle of an answer")


def retry_after(value: str) -> float:
    """The seconds of a Retry-After header, which gives a number of them or a date; 0 for anything else."""
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    if not _DATE.fullmatch(value):
        return 0.0
    try:
        date = parsedate_to_datetime(value)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return max(0.0, (date - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return 0.0


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it came from, and so on; of several addresses of a host, the first."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        else:
            error = error.__cause__ or error.__context__
