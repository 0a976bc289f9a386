"""The texts of prompts: they may be confidential, and messages end up in terminals and CI logs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ...records import Request

_NO_TEXT = {"role", "type"}
"""Keys whose values are words of the format."""


def without_prompts(message: str, requests: Iterable[Request]) -> str:
    """A message with every text of the requests' prompts replaced, cut to 1000 characters."""
    for request in requests:
        for text in _texts_of([request.prompt, request.template_arguments]):
            message = message.replace(text, "[prompt]").replace(repr(text)[1:-1], "[prompt]")
    return message if len(message) <= 1000 else f"{message[:1000]}…"


def _texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value:
        yield value
    elif isinstance(value, dict):
        for key, entry in value.items():
            if key not in _NO_TEXT:
                yield from _texts_of(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _texts_of(entry)
