"""A batch of a training step as rows of a log, in the form of `columns`.

Shapes: B responses, E stored entries, R tokens of the responses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from ..measures.padding import looks_padded, padding_tokens
from ..measures.prompt_hash import labels_of_ids, labels_of_tokens
from .batch_layout import BatchLayout, end_to_end, layout_of, mask_values
from .columns import BY_ROW, BY_TOKEN, LOGPROBS, column_type
from .host_arrays import on_host

if TYPE_CHECKING:
    import pyarrow as pa

LAYOUT = ("lengths", "cu_seqlens", "prompt_lengths", "prompt_mask")
"""Arguments that say how a batch lies, and are no columns."""

_NEEDED = ("token_ids", *(LOGPROBS[role] for role in ("behavior", "reference")))


@dataclass(frozen=True, eq=False)
class RecordedBatch:
    """The tokens of a batch, for its metrics, and the columns that make its rows."""

    length_B: np.ndarray
    by_token: dict[str, np.ndarray]
    by_row: dict[str, list[Any]]
    nested: dict[str, tuple[np.ndarray, np.ndarray]]
    """Values end to end and how many each token has; for the prompt, each response."""

    def rows(self, first_id: int, rank: int | None) -> pa.RecordBatch:
        """One row a response; they are numbered from `first_id`."""
        import pyarrow as pa

        count = len(self.length_B)
        columns: dict[str, pa.Array] = {"sequence_id": pa.array(range(first_id, first_id + count), pa.int64())}
        for name, listed in self.by_row.items():
            columns[name] = pa.array(listed, column_type(name))
        if rank is not None:
            columns["rank"] = pa.array([rank] * count, column_type("rank"))
        for name, value_R in self.by_token.items():
            kind: Any = column_type(name, double=value_R.dtype == np.float64)
            columns[name] = _lists(_array(value_R, kind), self.length_B)
        for name, (ids, sizes) in self.nested.items():
            kind = column_type(name)
            if name == "prompt_token_ids":
                columns[name] = _lists(_array(ids, kind), sizes)
            else:
                columns[name] = _lists(_lists(_array(ids, kind.value_type), sizes), self.length_B)
        return pa.RecordBatch.from_pydict(columns)


def recorded_batch(values: Mapping[str, Any], *, keep_prompts: bool = True) -> RecordedBatch:
    """The batch that the arguments of `Recorder.log` are, those that are None left out.

    Raises `UsageError` for arrays whose shapes or values cannot be right; the argument is named.
    """
    given = on_host({name: value for name, value in values.items() if value is not None})
    for name in _NEEDED:
        if name not in given:
            raise UsageError(
                f"{name} is None.", hint="give a value for each token; log takes no batch without them"
            )
    layout = layout_of(given["token_ids"], given.get("mask"), *(given.get(name) for name in LAYOUT[:3]))
    by_token = {name: _of_tokens(given[name], name, layout) for name in BY_TOKEN if name in given}
    by_row = {
        name: _of_responses(value, name, name, layout)
        for name, value in given.items()
        if name in BY_ROW and name not in ("prompt", "policy_version")
    }
    if "policy_version" in given:
        _add_versions(given["policy_version"], layout, by_token, by_row)
    nested: dict[str, tuple[np.ndarray, np.ndarray]] = {
        name: _nested(given[name], name, layout) for name in ("kept_ids", "experts") if name in given
    }
    _add_prompts(given, layout, by_row, nested, keep_prompts)
    return RecordedBatch(layout.length_B, by_token, by_row, nested)


def padding_of(batch: RecordedBatch) -> int:
    """How many tokens of the batch look like padding; 0 where no more do than may by themselves."""
    mu_R, pi_R = batch.by_token["behavior_logprobs"], batch.by_token["reference_logprobs"]
    end_B = np.cumsum(batch.length_B)
    padding_B = padding_tokens(mu_R, pi_R, batch.by_token["token_ids"], end_B - batch.length_B, end_B)
    return int(padding_B.sum()) if looks_padded(padding_B) else 0


def _of_tokens(values: Any, name: str, layout: BatchLayout) -> np.ndarray:
    kind = BY_TOKEN[name][0]
    if kind == "float":
        value_R = layout.of_tokens(values, name, None if isinstance(values, np.ndarray) else np.float64)
        return value_R if value_R.dtype in (np.float32, np.float64) else value_R.astype(np.float32)
    value_R = layout.of_tokens(values, name)
    return mask_values(value_R) if kind == "bool" else _integers(value_R, name, np.int32)


def _of_responses(values: Any, column: str, name: str, layout: BatchLayout) -> list[Any]:
    """One value a response, of the type of a column; `name` is what the caller knows it by."""
    listed = layout.of_responses(values, name)
    kind = BY_ROW[column][0]
    if kind == "string":
        return [None if value is None else str(value) for value in listed]
    is_legal, what = _OF_KIND[kind]
    if not all(value is None or is_legal(value) for value in listed):
        raise UsageError(f"{name} has values that are no {what}.", hint=f"give {what}")
    return listed


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _is_integer(value: Any) -> bool:
    whole = _is_number(value) and not isinstance(value, bool) and value == value // 1
    return whole and -(2**63) <= value < 2**63


_OF_KIND: dict[str, tuple[Callable[[Any], bool], str]] = {
    "int64": (_is_integer, "integers of 64 bits"),
    "double": (_is_number, "numbers"),
    "bool": (lambda value: isinstance(value, bool), "booleans"),
}
"""By the Arrow type of a column whether a Python value is one, and what such values are called."""


def _integers(values: np.ndarray, name: str, dtype: type) -> np.ndarray:
    limits = np.iinfo(dtype)
    whole = values.dtype.kind in "ui" or not values.size or bool((values == np.floor(values)).all())
    if not whole or (values.size and (values.min() < limits.min or values.max() > limits.max)):
        raise UsageError(f"{name} has values that are no {np.dtype(dtype)}.", hint="give integers")
    return values.astype(dtype)


def _add_versions(
    value: Any, layout: BatchLayout, by_token: dict[str, np.ndarray], by_row: dict[str, list[Any]]
) -> None:
    """Versions of a response, or of each token; a response with one version for all its tokens has it as a row."""
    ragged = isinstance(value, list | tuple) and any(np.ndim(each) for each in value)
    if not ragged and (np.ndim(value) == 0 or np.size(value) == len(layout.stored_B) != len(layout.kept_E)):
        by_row["policy_version"] = _of_responses(value, "policy_version", "versions", layout)
        return
    by_token["versions"] = version_R = _integers(layout.of_tokens(value, "versions"), "versions", np.int32)
    length_B = layout.length_B
    counted_R = by_token.get("mask", np.ones(len(version_R), dtype=bool))
    versions = np.split(np.where(counted_R, version_R, -1), np.cumsum(length_B)[:-1])
    distinct = [np.unique(each[each >= 0]) for each in versions]
    by_row["policy_version"] = [int(each[0]) if len(each) == 1 else None for each in distinct]


def _add_prompts(
    given: Mapping[str, Any],
    layout: BatchLayout,
    by_row: dict[str, list[Any]],
    nested: dict[str, tuple[np.ndarray, np.ndarray]],
    keep_prompts: bool,
) -> None:
    """`prompt`, the label of what the caller tells prompts apart by, and their tokens."""
    prompt_P, length_B = _prompt_tokens(given, layout)
    if prompt_P is not None and keep_prompts:
        nested["prompt_token_ids"] = prompt_P, length_B
    if "prompt" in given:
        labels = layout.of_responses(given["prompt"], "prompts")
        by_row["prompt"] = [_label(value) for value in labels]
    elif prompt_P is not None:
        by_row["prompt"] = labels_of_tokens(prompt_P, length_B).tolist()


def _prompt_tokens(given: Mapping[str, Any], layout: BatchLayout) -> tuple[np.ndarray | None, np.ndarray]:
    """The prompts' tokens end to end and their lengths; None where the batch does not have them."""
    if "prompt_token_ids" in given:
        prompts = given["prompt_token_ids"]
        mask = given.get("prompt_mask")
        length_B = np.array([len(row) for row in prompts], dtype=np.int64)
        prompt_P = end_to_end(prompts, "prompt_token_ids")
        if mask is not None:
            kept_P = mask_values(end_to_end(mask, "prompt_mask"))
            if len(kept_P) != len(prompt_P):
                raise UsageError("prompt_mask has another shape than prompt_token_ids.", hint="give both one shape")
            owner_P = np.repeat(np.arange(len(length_B)), length_B)
            prompt_P, length_B = prompt_P[kept_P], np.bincount(owner_P[kept_P], minlength=len(length_B))
        if len(length_B) != len(layout.stored_B):
            raise UsageError(
                f"prompt_token_ids has {len(length_B)} rows for {len(layout.stored_B)} responses.",
                hint="repeat a prompt for each response to it",
            )
    elif layout.first_B.any():
        token_E = end_to_end(given["token_ids"], "token_ids")
        prompt_P, length_B = token_E[layout.place_E < np.repeat(layout.first_B, layout.stored_B)], layout.first_B
    else:
        return None, layout.first_B
    return _integers(prompt_P, "prompt_token_ids", np.int32), length_B


def _label(value: Any) -> int | None:
    """An int64 that is the same in every process: of a text its hash."""
    if value is None:
        return None
    if isinstance(value, int):
        return int(labels_of_ids(np.array([value], dtype=np.int64))[0])
    return int.from_bytes(hashlib.blake2b(str(value).encode(), digest_size=8).digest(), "little", signed=True)


def _nested(values: Any, name: str, layout: BatchLayout) -> tuple[np.ndarray, np.ndarray]:
    """Ids of each token end to end, and how many each has; ids below 0 fill an array up and are left out."""
    dtype = np.int32 if name == "kept_ids" else np.int16
    if isinstance(values, np.ndarray):
        entries = len(layout.kept_E)
        value_EK = values.reshape(entries, -1) if entries and values.size % entries == 0 else values
        if len(value_EK) != entries:
            raise UsageError(
                f"{name} does not have the shape of token_ids.", hint="give [B, T, …], filled up with -1"
            )
        value_RK = value_EK[layout.kept_E]
        legal_RK = value_RK >= 0
        return _integers(value_RK[legal_RK], name, dtype), legal_RK.sum(axis=1)
    tokens = [np.asarray(token).ravel() for row in values for token in row]
    if len(tokens) != len(layout.kept_E):
        raise UsageError(
            f"{name} has {len(tokens)} lists for {len(layout.kept_E)} entries of token_ids.",
            hint="give a list of ids for each token",
        )
    kept = [token[token >= 0] for token, is_kept in zip(tokens, layout.kept_E, strict=True) if is_kept]
    size_R = np.array([len(token) for token in kept], dtype=np.int64)
    return _integers(np.concatenate([*kept, np.empty(0, dtype=np.int64)]), name, dtype), size_R


def _array(values: np.ndarray, lists: Any) -> Any:
    """Values of the type that the lists of an Arrow type hold."""
    import pyarrow as pa

    return pa.array(values, lists.value_type)


def _lists(values: Any, sizes: np.ndarray) -> Any:
    """A list array: its first list is the first `sizes`[0] values."""
    import pyarrow as pa

    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32()), values)
