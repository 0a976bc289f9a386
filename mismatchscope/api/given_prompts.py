"""Prompts as a program has them: texts, chats, token ids, or rows of a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import PromptsError
from ..prompts.rows import Prompt as CheckedPrompt
from ..prompts.rows import check_columns, prompt_of_row
from ..traces.arrays import numbers, token_ids

Prompt = str | Sequence[Mapping[str, Any]] | Sequence[int] | np.ndarray | Mapping[str, Any]
"""A text, a chat (messages with `role` and `content`), token ids, or a row as a prompts file has it."""


def listed_prompts(prompts: Sequence[Prompt], column: str | None) -> list[CheckedPrompt]:
    """The prompts that a list stands for. Raises `PromptsError`, which names a prompt as `prompts[0]`."""
    if isinstance(prompts, Mapping) or not len(prompts):
        what = "one row, not a list of them" if isinstance(prompts, Mapping) else "empty"
        raise PromptsError(f"prompts is {what}.", hint="give a file, or a list of texts, chats or token-id lists")
    listed = []
    for index, prompt in enumerate(prompts):
        row, where = _row_of(prompt, f"prompts[{index}]"), f"prompts[{index}]"
        if isinstance(prompt, Mapping) and column is None:
            check_columns(row, where, "key")
        read = prompt_of_row(row, index, where, column if isinstance(prompt, Mapping) else None)
        listed.append(read)
    return listed


def _row_of(prompt: Prompt, where: str) -> dict[str, Any]:
    """A prompt as the row of a file."""
    if isinstance(prompt, str) or not hasattr(prompt, "__getitem__"):  # which is no prompt, and is refused as one
        return {"prompt": prompt}
    if isinstance(prompt, Mapping):
        return {str(key): _json_of(value) for key, value in prompt.items()}
    if len(prompt) and isinstance(prompt[0], Mapping):
        return {"messages": _json_of(prompt)}
    return {"prompt_token_ids": token_ids(numbers(prompt, where), where).tolist()}


def _json_of(value: Any) -> Any:
    """Mappings, sequences and arrays, such as a row of a pandas frame has them, as JSON has them."""
    if isinstance(value, Mapping):
        return {str(key): _json_of(entry) for key, entry in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None  # what pandas has where a row has nothing
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes):
        return [_json_of(entry) for entry in value]
    return value
