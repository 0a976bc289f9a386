"""What a hook needs of a trainer, checked when it is attached: a function that has moved is an error at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import UsageError


def required(
    owner: Any, name: str, parameters: Sequence[str], trainer: str, written_against: str
) -> Callable[..., Any]:
    """The function `name` of a class, an object or a module.

    Raises `UsageError` where there is none, or it does not take these parameters.
    """
    function = getattr(owner, name, None)
    where = getattr(owner, "__name__", type(owner).__name__)
    hint = f"this hook was written against {written_against}: use that, or call Recorder.log in your own step"
    if not callable(function):
        raise UsageError(f"This {trainer} has no {where}.{name}, so nothing could be recorded.", hint=hint)
    try:
        found = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return function
    kinds = {parameter.kind for name, parameter in found.items() if name != "self"}
    if kinds == {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        return function  # a wrapper that does not say what it takes
    missing = [parameter for parameter in parameters if parameter not in found]
    if missing:
        raise UsageError(
            f"{where}.{name} of this {trainer} takes no {' and no '.join(missing)}, so nothing could be recorded.",
            hint=hint,
        )
    return function
