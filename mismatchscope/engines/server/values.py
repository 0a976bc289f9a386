"""Values of a server's JSON, taken as what they are: 306.0, "306" and true are no token ids, "-1" is no log-prob.

What is wrong is an `UnusableValue`, a clause that follows the server's URL; `responses.parsing` puts it there.
"""

from __future__ import annotations

import re
from collections.abc import Sized
from typing import Any

import numpy as np

from ...errors import CapabilityError
from .credentials import shown

EXCLUDED = -9999.0
"""At or below it a log-prob stands for -inf, which JSON lacks: vLLM sends -9999, SGLang the lowest float32."""
LARGEST_ABOVE_ZERO = 1e-3
"""A log-prob may be so much too large by rounding."""

_DIGITS = re.compile("0|[1-9][0-9]{0,8}")
_NUMBERS = {int, float, type(None)}
_LONGEST_TEXT = 512


class UnusableValue(Exception):
    """A clause that follows the server's URL."""


def integer(value: Any, what: str, least: int = 0, most: int = 2**31 - 1) -> int:
    """An integer within bounds, and nothing that Python takes for one."""
    if type(value) is not int or not least <= value <= most:
        raise UnusableValue(f"answers {_repr(value)} as {what}, which is no whole number from {least} to {most}")
    return value


def token_ids(values: Any) -> list[int] | np.ndarray:
    """A list of token ids, or an array of integers; whether a model has them is the caller's to check."""
    if isinstance(values, np.ndarray):
        if values.size and values.min() < 0:
            raise UnusableValue("answers a negative token id")
        return values
    _check_list(values, "token ids")
    if not set(map(type, values)) <= {int}:
        other = next(value for value in values if type(value) is not int)
        raise UnusableValue(f"answers {_repr(other)} as a token id")
    if values and not 0 <= min(values) <= max(values) < 2**31:
        raise UnusableValue("answers a token id that no vocabulary has")
    return values


def token_id_of(text: Any, prefix: str = "") -> int:
    """The id that a text spells, behind a prefix, with no other digits than 0 to 9."""
    if not isinstance(text, str) or not text.startswith(prefix) or not _DIGITS.fullmatch(text[len(prefix) :]):
        raise UnusableValue(f"answers {_repr(text)} as a token id")
    return int(text[len(prefix) :])


def log_probabilities(values: Any) -> np.ndarray:
    """float64, of numbers and nulls, or of an array; null is NaN. Raises `CapabilityError` for logits."""
    if not isinstance(values, np.ndarray):
        _check_list(values, "log-probs")
        if not set(map(type, values)) <= _NUMBERS:
            other = next(value for value in values if type(value) not in _NUMBERS)
            raise UnusableValue(f"answers {_repr(other)} as a log-prob")
    try:
        array = np.array(values, dtype=np.float64)  # None becomes NaN
    except OverflowError:
        raise UnusableValue("answers a log-prob that no number of 64 bits holds") from None
    if (array > LARGEST_ABOVE_ZERO).any():
        raise CapabilityError(
            f"The server calls {array[array > LARGEST_ABOVE_ZERO][0]:.4g} a log-probability: it reports logits.",
            hint="start vLLM with --logprobs-mode raw_logprobs, its default",
        )
    return np.where(array <= EXCLUDED, -np.inf, array)


def stated_text(value: Any, what: str) -> str | None:
    """A text that a server says of itself, to be written down; None where it says nothing."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise UnusableValue(f"answers {_repr(value)} as {what}")
    return shown(value)


def _check_list(values: Any, what: str) -> None:
    if not isinstance(values, list):
        raise UnusableValue(f"answers {_repr(values)} in place of a list of {what}")


def check_same_length(what: str, **lists: Sized) -> None:
    """Raise `UnusableValue` where lists that belong together have different lengths."""
    lengths = {name: len(entries) for name, entries in lists.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise UnusableValue(f"contradicts itself about {what}: {counts}")


def _repr(value: Any) -> str:
    """What a value is, for a message: never a text, a list or a table itself, which may be of the prompt."""
    if isinstance(value, (list, dict, str)):
        return {list: "a list", dict: "a table", str: "a text"}[type(value)]
    return "null" if value is None else str(value).lower()[:30]
