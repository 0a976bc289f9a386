"""Where a report has figures, and the fields of its records: pydantic models, dataclasses and dictionaries."""

from __future__ import annotations

import dataclasses
import functools
import typing
from typing import Any

SECTIONS = (
    "counts",
    "alpha1",
    "alpha0",
    "beta",
    "token",
    "sequence",
    "floor",
    "truncation_floor",
    "rounding_floor",
    "baseline",
    "corrections",
    "bounds",
    "diagnosis_answer",
    "distribution",
    "trend",
    "groups",
    "staleness",
    "stale_cache",
    "prompt_effect",
    "length_scaling",
    "kept_support",
    "correction_audit",
    "native_metrics",
    "probe",
)
"""The parts of a report that hold figures."""


def is_record(kind: Any) -> bool:
    """Whether it is a type with named fields: a pydantic model or a dataclass."""
    return isinstance(kind, type) and (hasattr(kind, "model_fields") or dataclasses.is_dataclass(kind))


@functools.cache
def field_types(kind: type) -> dict[str, Any]:
    """The types of a record's fields by name, without what `Annotated` adds to them."""
    hints = typing.get_type_hints(kind)
    declared = getattr(kind, "model_fields", None)
    names = declared if declared is not None else [field.name for field in dataclasses.fields(kind)]
    return {name: hints[name] for name in names}


def flatten(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
