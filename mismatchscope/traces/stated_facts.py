"""What a caller of `write_trace` states of its policy, checked: a manifest is JSON, and is read again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ..errors import UsageError
from ..records import Transforms

# NaN is in none of these ranges, as nothing compares with it.
_LEGAL: dict[str, tuple[Callable[[float], bool], str]] = {
    "temperature": (lambda value: 0 <= value < math.inf, "0, which is greedy, or more"),
    "top_p": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
    "top_k": (lambda value: value >= 0, "0, which keeps every id, or more"),
    "min_p": (lambda value: 0 <= value <= 1, "from 0 to 1"),
    "repetition_penalty": (lambda value: 0 < value < math.inf, "above 0"),
    "presence_penalty": (math.isfinite, "a number"),
    "frequency_penalty": (math.isfinite, "a number"),
}


def transforms_of(**given: Any) -> Transforms | None:
    """Unknown where nothing is given; what is left out beside something given changes nothing.

    Raises `UsageError` for values that no sampler has.
    """
    known = {name: json_of(value, name) for name, value in given.items() if value is not None}
    if not known:
        return None
    try:
        transforms = TypeAdapter(Transforms).validate_python(known)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise UsageError(
            f"{name} is {given[name]!r}: {first['msg']}.", hint="leave out what is not known"
        ) from None
    for name, (legal, expected) in _LEGAL.items():
        if not legal(getattr(transforms, name)):
            raise UsageError(f"{name} is {given[name]!r}.", hint=f"{name} is {expected}")
    if not all(math.isfinite(bias) for bias in (transforms.logit_bias or {}).values()):
        raise UsageError("logit_bias has a bias that is not finite.", hint="-100 bans an id, as 100 forces one")
    return transforms


def text_of(value: Any, name: str) -> str | None:
    """A name or a version; a path is its text. Raises `UsageError` for anything else."""
    text = json_of(value, name)
    if not isinstance(text, str | None):
        raise UsageError(f"{name} is {value!r}, not a text.", hint=f'{name}="…"')
    return text


def size_of(vocabulary: Any) -> int | None:
    """The number of ids. Raises `UsageError` for anything else."""
    size = json_of(vocabulary, "vocabulary_size")
    if size is not None and (type(size) is not int or size < 1):
        raise UsageError(f"vocabulary_size is {vocabulary!r}.", hint="the number of ids, an integer from 1")
    return size


def settings_of(effective: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings that somebody states, as JSON has them. Raises `UsageError` for what it cannot hold."""
    if not isinstance(effective, Mapping | None):
        raise UsageError("effective is no mapping.", hint='effective={"dtype": "bfloat16"}')
    settings: dict[str, Any] = json_of(dict(effective or {}), "effective")
    return settings


def json_of(value: Any, name: str) -> Any:
    """`value` as it is read again from JSON of UTF-8 text. Raises `UsageError` for what that cannot hold."""

    def converted(each: Any) -> Any:
        if isinstance(each, np.generic):
            return each.item()
        if isinstance(each, PurePath):
            return str(each)
        raise TypeError(f"a value of the type {type(each).__name__}")

    try:
        text = json.dumps(value, ensure_ascii=False, default=converted)
        text.encode()
        return json.loads(text)
    except UnicodeEncodeError:
        raise UsageError(
            f"{name} has a lone surrogate, which no UTF-8 text can hold.", hint="leave it out"
        ) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{name} has what JSON cannot hold: {error}.", hint="give texts, numbers, lists and dicts of them"
        ) from None
