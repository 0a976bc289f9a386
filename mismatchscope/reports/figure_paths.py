"""The figures of a report by path: `alpha1.mean.high` is `report.alpha1.mean.high`.

A path is a walk over attributes that ends at a figure: a number, a truth value, or an estimate with its interval.
Entries of a list go by their names (`entry_names`). What was chosen rather than measured (settings, parameters, bin
edges) and what is made for charts is no figure.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .entry_names import ENTRY_NAMES, EntryNames
from .fields import SECTIONS, field_types, is_record
from .figure_ends import CENTERS, Figure, known_ends, why_open

if TYPE_CHECKING:
    from .document import Report

_SETTINGS = {"confidence", "quantile", "threshold", "n_needed", "step_offset", "passed_at", "at_responses"}
_THRESHOLD = "tolerance"
"""A setting where it is one number; a list of figures where it is a list."""


def figure_at(report: Report, path: str) -> Figure:
    """The figure at a path that `check_path` accepts, with the ends between which it is known to lie.

    Raises `ConfigError` for the name of two entries.
    """
    parent: Any = None
    node: Any = report
    keys = path.split(".")
    for list_name, key in zip(["", *keys], keys, strict=False):
        parent = node
        if isinstance(node, list | tuple):
            naming = ENTRY_NAMES[list_name]
            node = naming.find(node, key)
            if node is None:
                present = ", ".join(naming.names(parent)) or "none"
                return Figure(None, reason=f"there is no {key} among the entries of this report: {present}")
        else:
            node = getattr(node, key)
        if node is None and key != keys[-1]:  # a whole group that was not measured
            return Figure(None, reason=why_open(parent, key))
    if is_record(type(node)):
        center = next(name for name in CENTERS if hasattr(node, name))
        parent, node, keys = node, getattr(node, center), [*keys, center]
    return known_ends(keys, parent, node)


def _why_unknown(parent: Any, key: str) -> str | None:
    if reason := getattr(parent, "reason", None):
        return str(reason)
    if hasattr(parent, f"{key}_lower"):
        return f"the evidence gives a lower bound alone, {key}_lower"
    return "this evidence bounds nothing from above" if key.endswith("_upper") else None


def check_path(path: str) -> None:
    """Raise `ConfigError`, with the nearest paths, for one at which no report has a figure."""
    known = known_paths()
    # `known` has one name for an entry, which can have several.
    if _with_entries(path, EntryNames.generic) not in known:
        raise ConfigError(f"A report has no figure at '{path}'.", hint=_hint(path, known))


def _hint(path: str, known: Sequence[str]) -> str:
    named = _with_entries(path, EntryNames.named_by_index)
    nearest = _nearest(named, known)
    if not nearest:
        return f"the figures of a report are in {', '.join(SECTIONS)}"
    if named != path:
        return f"entries of a list are named, not numbered, as in {nearest[0]}"
    return f"did you mean {' or '.join(nearest)}?"


def _nearest(path: str, known: Sequence[str]) -> list[str]:
    """Up to three known paths: those below this one, else those of its section that are spelled like it."""
    inside = [figure for figure in known if figure.startswith(f"{path}.")]
    section = difflib.get_close_matches(path.partition(".")[0], SECTIONS, n=1)
    candidates = [figure for figure in known if figure.partition(".")[0] in section]
    return inside[:3] or difflib.get_close_matches(path, candidates, n=3)


def _with_entries(path: str, rename: Callable[[EntryNames, str], str]) -> str:
    """The path with the names of its entries, by the list they are in, put through `rename`."""
    keys = path.split(".")
    renamed = [
        rename(ENTRY_NAMES[list_name], key) if list_name in ENTRY_NAMES else key
        for list_name, key in itertools.pairwise(keys)
    ]
    return ".".join([keys[0], *renamed])


@functools.cache
def known_paths() -> tuple[str, ...]:
    """Every path at which a report can have a figure, with the usual names of entries."""
    from .document import Report

    return tuple(path for path in paths_below(Report) if path.partition(".")[0] in SECTIONS)


def paths_below(kind: type, prefix: str = "", settings: Sequence[str] = ()) -> Iterator[str]:
    """Every path below a pydantic model or a dataclass that ends at a figure; `settings` are fields that do not."""
    for name, hint in field_types(kind).items():
        if name in _SETTINGS or name in settings:
            continue
        path = f"{prefix}{name}"
        for part in _alternatives(hint):
            if part in (int, float, bool) and name != _THRESHOLD:
                yield path
            elif is_record(part):
                yield from _record_paths(part, path)
            elif typing.get_origin(part) in (list, tuple) and name in ENTRY_NAMES:
                entry, naming = typing.get_args(part)[0], ENTRY_NAMES[name]
                for usual in naming.usual:
                    yield from _record_paths(entry, f"{path}.{usual}", naming.fields)


def _record_paths(kind: type, path: str, settings: Sequence[str] = ()) -> Iterator[str]:
    names = field_types(kind).keys()
    if {"low", "high"} <= names and not names.isdisjoint(CENTERS):
        yield path
    yield from paths_below(kind, f"{path}.", settings)


def _alternatives(hint: Any) -> Iterator[Any]:
    """The members of a union, in whichever way it is written; else the type itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for part in typing.get_args(hint):
            yield from _alternatives(part)
    else:
        yield hint
