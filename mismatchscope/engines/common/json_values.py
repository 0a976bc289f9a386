"""Values out of an engine as JSON can hold them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any


def to_json_value(value: Any) -> Any:
    """A value that JSON can hold: of an enumeration the word for it, of a torch.dtype its name."""
    if isinstance(value, Enum):
        return value.value if isinstance(value.value, str) else value.name
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): to_json_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set):
        return [to_json_value(entry) for entry in value]
    return str(value).removeprefix("torch.")


def dtype_names(dtypes: Iterable[Any]) -> str | None:
    """The names of the dtypes, each once, as in "bfloat16+float32"; None for none."""
    return "+".join(sorted({str(to_json_value(dtype)) for dtype in dtypes})) or None
