"""The texts of prompts: they may be confidential, and messages end up in terminals and CI logs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ...records import Request

_MASK = "[prompt]"
_NO_TEXT = {"role", "type"}
"""Keys whose values are words of the format."""

_QUOTED = 12
"""As many characters in a row that a message shares with a prompt are taken for a quotation."""


def without_prompts(message: str, requests: Iterable[Request]) -> str:
    """A message with every text of the prompts and every piece of one replaced, cut to 1000 characters."""
    requests = list(requests)
    for text in _forms_of(requests):
        message = message.replace(text, _MASK)
    return without_quotations(message, requests)


def without_quotations(message: str, requests: Iterable[Request]) -> str:
    """A message of ours, whose own words may be a short prompt's: only pieces of some length are replaced."""
    message = message[:10_000]
    for text in _forms_of(requests):
        message = _without_pieces(message, text)
    return message if len(message) <= 1000 else f"{message[:1000]}…"


def _without_pieces(message: str, text: str) -> str:
    kept, end = [], 0
    for start in range(len(message) - _QUOTED + 1):
        if start >= end and message[start : start + _QUOTED] in text:
            kept.append(message[end:start])
            end = start + _QUOTED
            while end < len(message) and message[start : end + 1] in text:
                end += 1
    return _MASK.join([*kept, message[end:]])


def _forms_of(requests: Iterable[Request]) -> Iterator[str]:
    """Every text of the prompts, as it is and as `repr` shows it."""
    for request in requests:
        for text in _texts_of([request.prompt, request.template_arguments]):
            yield text
            yield repr(text)[1:-1]


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
