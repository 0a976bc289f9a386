"""What must not leak: a URL carries no password and no query, the key comes from the environment and stays here."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from ...errors import ConfigError, SpecError


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
        raise not_a_url(url)
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def not_a_url(url: str) -> SpecError:
    return SpecError(f"'{url}' is not the URL of a server.", hint="vllm@http://127.0.0.1:8000")


def read_key(variable: str) -> str:
    """The bearer key of an environment variable, empty where it is not set.

    Raises `ConfigError` for one that no header can carry, without repeating it.
    """
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(f"What ${variable} holds is no key: it has blanks or characters beyond ASCII.")
    return key


def redact(text: str, key: str) -> str:
    """Foreign text on one line, without the key and without control characters."""
    text = "".join(character if character.isprintable() else " " for character in text)
    text = " ".join(text.split())
    return text.replace(key, "[key]") if key else text
