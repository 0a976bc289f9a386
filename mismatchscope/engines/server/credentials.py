"""What a server is told and may repeat: its URL carries no password, its key comes from the environment."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from ...credentials import keep_key, masked
from ...errors import ConfigError, SpecError
from ...foreign_text import printable

_MOST_READ = 4096
_MOST_SHOWN = 300


def check_url(url: str) -> str:
    """The base URL of a server, without a closing `/` or `/v1`. Raises `SpecError` for any other kind of URL."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets of no IPv6 address, or a port that is none
        if "@" in url:
            raise _holds_password() from None
        raise not_a_url(url) from None
    if "@" in parts.netloc:
        raise _holds_password()
    if parts.query or parts.fragment:
        raise SpecError(
            "The URL of the server goes on behind its path, where keys are written too.",
            hint="leave out everything from '?' or '#' on, as in vllm@http://127.0.0.1:8000",
        )
    if not valid:
        raise not_a_url(url)
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def not_a_url(url: str) -> SpecError:
    return SpecError(f"'{url}' is not the URL of a server.", hint="vllm@http://127.0.0.1:8000")


def _holds_password() -> SpecError:
    return SpecError(
        "The URL of the server holds a password, which would end up in traces and reports.",
        hint="put it into the environment variable that key_env= names",
    )


def check_variable(name: str, default: str) -> None:
    """Raise `SpecError` unless `name` is that of an environment variable: somebody may have put the key there.

    The one that is asked for when nobody names another need not be set.
    """
    if name != default and (not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name not in os.environ):
        raise SpecError(
            "key_env= names no environment variable that is set.",
            hint="export the key in a variable, MY_KEY for example, and write key_env=MY_KEY",
        )


def read_key(variable: str) -> str:
    """The bearer key of an environment variable, empty where it is not set; from now on it is masked everywhere.

    Raises `ConfigError` for one that no header can carry, without repeating it.
    """
    key = os.environ.get(variable, "").strip()
    keep_key(key)
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(f"What ${variable} holds is no key: it has blanks or characters beyond ASCII.")
    return key


def shown(text: str) -> str:
    """Foreign text on one line, bounded, without credentials and control characters."""
    line = printable(masked(" ".join(text[:_MOST_READ].split())))
    return line if len(line) <= _MOST_SHOWN else line[:_MOST_SHOWN] + "…"
