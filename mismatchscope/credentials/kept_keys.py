"""The keys that this process was given, and where a text repeats one of them, in whatever encoding."""

from __future__ import annotations

import base64
import binascii
import html
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from urllib.parse import unquote

from .recognition import names_credential

_SHORTEST = 4
"""A shorter one is no secret, and stands in every word."""
_SHORTEST_FOLDED = 6
_SHORTEST_OF_ENVIRONMENT = 8
_SHORTEST_TOLD_BY_PIECES = 15
_SHORTEST_PIECE = 10
_LONGEST_DECODED = 1 << 14
"""What a server may say of itself is shorter."""
_DECODINGS = 3
"""One inside the other."""

_kept: set[str] = set()

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{8,}")
_ESCAPE = re.compile(r"\\+(?:u\{?([0-9a-fA-F]{2,6})\}?|x([0-9a-fA-F]{2})|([0-7]{3}))")


def keep_key(key: str) -> None:
    """Mask a key from now on, whoever repeats it."""
    if len(key) >= _SHORTEST:
        _kept.add(key)


def known_keys() -> list[str]:
    """The keys that were kept and those of the environment, the longest first."""
    named = {
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST_OF_ENVIRONMENT and not value.startswith("/") and names_credential(name, value)
    }
    return sorted(_kept | named, key=len, reverse=True)


def without_keys(text: str, keys: Sequence[str], mask: str) -> str:
    """A text without the given keys.

    What repeats one word by word keeps the rest of its words; where one is only found by decoding, all of the text
    may be part of it.
    """
    for key in keys:
        if len(_folded(key)) < _SHORTEST_FOLDED:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(key)}(?![A-Za-z0-9])", mask, text)
            continue
        text = text.replace(key, mask)
        if not _holds(text, key):
            continue
        text = "".join(mask if _holds(word, key) else word for word in re.split(r"(\s+)", text))
        if _holds(text, key):
            return mask
    return text


def _holds(text: str, key: str) -> bool:
    """Whether a text, decoded or not, has the key or a telling piece of it."""
    folded = _folded(key)
    length = len(folded) if len(folded) < _SHORTEST_TOLD_BY_PIECES else max(_SHORTEST_PIECE, len(folded) // 2)
    pieces = {folded[start : start + length] for start in range(len(folded) - length + 1)}
    pieces |= {piece[::-1] for piece in pieces}
    return any(piece in form for form in map(_folded, _decoded(text)) for piece in pieces)


def _folded(text: str) -> str:
    """Letters and digits alone: separators, escapes and capitals hide nothing."""
    return re.sub(r"[\W_]+", "", text).lower()


def _decoded(text: str) -> Iterator[str]:
    """The text, and what it becomes when it is decoded."""
    seen, fresh = {text}, [text]
    for _ in range(_DECODINGS if len(text) <= _LONGEST_DECODED else 0):
        yield from fresh
        forms = {form for known in fresh for form in _decode_once(known)} - seen
        seen |= forms
        fresh = list(forms)
    yield from fresh


def _unescaped(match: re.Match[str]) -> str:
    code = int(match[3], 8) if match[3] else int(match[1] or match[2], 16)
    return chr(code) if code <= sys.maxunicode else ""


def _decode_once(text: str) -> Iterator[str]:
    yield unquote(text)
    yield html.unescape(text)
    yield re.sub(r"=([0-9A-F]{2})|=\r?\n", lambda match: chr(int(match[1], 16)) if match[1] else "", text)
    yield _ESCAPE.sub(_unescaped, text)
    yield re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]|\\+[abfnrtv]", "", text)
    for run in _BASE64.findall(text):
        standard = run.replace("-", "+").replace("_", "/")
        for start in range(4):
            kept = standard[start : start + (len(standard) - start) // 4 * 4]
            tail = standard[start + len(kept) :]
            padded = kept + (tail + "=" * (4 - len(tail)) if len(tail) > 1 else "")
            try:
                yield base64.b64decode(padded).decode("latin-1")
            except binascii.Error:
                continue
        with suppress(binascii.Error):
            yield base64.b32decode(run.upper() + "=" * (-len(run) % 8)).decode("latin-1")
        digits = re.sub(r"[^0-9a-fA-F]", "", run)
        if len(digits) == len(run):
            for start in range(2):
                even = digits[start:]
                yield bytes.fromhex(even[: len(even) // 2 * 2]).decode("latin-1")
