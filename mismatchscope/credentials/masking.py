"""Texts and tables without the credentials in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from .kept_keys import known_keys, without_keys
from .recognition import certain_spans, names_credential, random_spans

T = TypeVar("T")

MASK = "[key]"


def masked(value: T) -> T:
    """A text, or lists and tables with texts in them, without credentials: `[key]` stands in their place.

    All that is written or shown and that came from a user, an environment or a server goes through this.
    """
    return _masked(value, (), known_keys())


def find_credential(value: Any, *names: str) -> str | None:
    """The dotted name of the first credential in the value of an option of that name; None for none.

    Entropy alone is no reason to refuse an option.
    """
    if isinstance(value, (Mapping, list, tuple)):
        within = (find_credential(item, *names, *inner) for inner, item in _entries(value))
        return next((found for found in within if found is not None), None)
    return ".".join(names) if _is_credential(value, names) or _gives_away(value) else None


def _masked(value: Any, names: tuple[str, ...], keys: Sequence[str]) -> Any:
    if isinstance(value, Mapping):
        items = [_masked(item, (*names, *inner), keys) for inner, item in _entries(value)]
        return dict(zip((_masked(key, (), keys) for key in value), items, strict=True))
    if isinstance(value, (list, tuple)):
        return type(value)(_masked(item, (*names, *inner), keys) for inner, item in _entries(value))
    if _is_credential(value, names):
        return MASK
    return _masked_text(value, keys) if isinstance(value, str) else value


def _masked_text(text: str, keys: Sequence[str]) -> str:
    text = without_keys(text, keys, MASK)
    spans = sorted([*certain_spans(text), *random_spans(text)])
    parts, end = [], 0
    for start, stop in spans:
        if start >= end:
            parts += [text[end:start], MASK]
        end = max(end, stop)
    return "".join([*parts, text[end:]])


def _is_credential(value: Any, names: tuple[str, ...]) -> bool:
    return isinstance(value, (str, int, float)) and any(names_credential(name, value) for name in names)


def _gives_away(value: Any) -> bool:
    return isinstance(value, str) and next(certain_spans(value), None) is not None


def _entries(value: Mapping[Any, Any] | Sequence[Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What a table or list holds, each behind the names that it stands for.

    A name may also be an entry of its own: ["X-Api-Key", value] and {"name": "X-Api-Key", "value": value}.
    """
    if isinstance(value, Mapping):
        label = value.get("name", value.get("key"))
        for key, item in value.items():
            named = key == "value" and isinstance(label, str)
            yield (str(label),) if named else (str(key),), item
        return
    label = None
    for item in value:
        yield (label,) if isinstance(label, str) else (), item
        label = item
