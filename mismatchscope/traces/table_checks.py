"""Do the tables of a trace have the columns of the contract, and may their values be there?

A trainer writes its traces with other tools, so nothing is taken for granted that a file can get wrong: types,
nulls, lists of unequal lengths. A null among log-probs is NaN; among ids, or within a list of them, an error.

Shapes: N rows of a batch, F all entries of a list column end to end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ..errors import TraceError
from ..measures.full import EXACT
from .schema import MASK, TOKENS, sequences_schema, tokens_schema

if TYPE_CHECKING:
    import pyarrow as pa

_NEVER_NULL = ("sequence_id", "prompt_id", "position", "token_id", MASK, "prompt_token_ids", "response_token_ids")
_ENTRIES_NEVER_NULL = ("prompt_token_ids", "response_token_ids", "topk_ids", "response_pieces")
_NEVER_NEGATIVE = ("prompt_token_ids", "response_token_ids")
_AS_LONG_AS = {"topk_logprobs": "topk_ids", "response_pieces": "response_token_ids"}


def check_types(file: Path, schema: pa.Schema, *, topk: bool) -> None:
    """Raise `TraceError` unless a table has the columns of the contract: `topk` says that lists were recorded.

    What a comparison reads must have the exact type; what is there for people alone may have another width.
    """
    names = schema.names
    if file.name == TOKENS:
        topk = topk or "topk_ids" in names or "topk_logprobs" in names
        expected = tokens_schema(topk=topk, tail_overlap=False, experts=False, mask=MASK in names)
    else:
        expected = sequences_schema()
    for field in expected:
        at = schema.get_field_index(field.name)
        found = schema.field(at).type if at >= 0 else _missing(names.count(field.name))
        if field.nullable and field.name != "finish_reason":
            continue
        if found != field.type and (field.name, found) != ("position", "int64"):
            raise TraceError(
                f"{file}: column {field.name} is {found} instead of {field.type}.", hint="write the trace again"
            )
    for name, (is_legal, kind) in _optional_kinds().items():
        for field in schema:
            if field.name == name and not is_legal(field.type):
                raise TraceError(
                    f"{file}: column {name} is {field.type} instead of {kind}.",
                    hint="leave the column out",
                )


def checked(file: Path, batches: Iterable[pa.RecordBatch], first_row: int = 0) -> Iterator[pa.RecordBatch]:
    """The same batches, which follow each other from `first_row` on. Raises `TraceError` for an illegal value."""
    for batch in batches:
        _check(file, batch, first_row)
        yield batch
        first_row += batch.num_rows


def _check(file: Path, batch: pa.RecordBatch, first_row: int) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    def refuse(name: str, bad: pa.Array | np.ndarray, what: str) -> NoReturn:
        row = int(np.asarray(bad).argmax())
        where = f"row {first_row + row}"
        if name != "sequence_id" and "sequence_id" in batch.schema.names and batch["sequence_id"][row].is_valid:
            where += f" (sequence {batch['sequence_id'][row]})"
        raise TraceError(f"{file}: column {name} {what} in {where}.", hint="write the trace again")

    for name in batch.schema.names:
        column: Any = batch[name]
        if pa.types.is_null(column.type):
            continue  # nothing of what is optional was recorded
        if name in _NEVER_NULL and column.null_count:
            refuse(name, column.is_null().to_numpy(zero_copy_only=False), "is null")
        if name in _ENTRIES_NEVER_NULL and (entries := column.flatten()).null_count:
            refuse(name, _rows_with(column, entries.is_null().to_numpy(zero_copy_only=False)), "has a null entry")
        if name in _NEVER_NEGATIVE and len(entries) and pc.min(entries).as_py() < 0:
            refuse(name, _rows_with(column, entries.to_numpy() < 0), "has an id below 0")
        if name == "max_abs_logit" and (pc.min(column).as_py() or 0) < 0:
            refuse(name, column.fill_null(0).to_numpy(zero_copy_only=False) < 0, "is below 0")
        other = _AS_LONG_AS.get(name)
        if other in batch.schema.names:
            length_N, other_N = (_lengths(batch[each]) for each in (name, other))
            differs_N = length_N != other_N
            if name == "response_pieces":  # null, where nobody decoded the response
                differs_N &= ~column.is_null().to_numpy(zero_copy_only=False)
            if differs_N.any():
                at = int(differs_N.argmax())
                refuse(name, differs_N, f"has {length_N[at]} entries for the {other_N[at]} of {other}")


def _lengths(column: Any) -> np.ndarray:
    import pyarrow.compute as pc

    return np.asarray(pc.list_value_length(column).fill_null(0))


def _rows_with(column: Any, bad_F: np.ndarray) -> np.ndarray:
    """Boolean [N]: the rows that have one of these entries."""
    length_N = _lengths(column)
    return np.bincount(np.repeat(np.arange(len(length_N)), length_N), weights=bad_F, minlength=len(length_N)) > 0


def _missing(times: int) -> str:
    return "there twice" if times > 1 else "missing"


def _optional_kinds() -> dict[str, tuple[Callable[[pa.DataType], bool], str]]:
    """Columns that a table may lack: which types they may have, in words too. One of nothing but nulls is legal."""
    import pyarrow.types as kinds

    def text(type: Any) -> bool:
        plain = (kinds.is_string, kinds.is_large_string, kinds.is_string_view, kinds.is_null)
        return any(each(type) for each in plain) or (kinds.is_dictionary(type) and text(type.value_type))

    def integer(type: Any) -> bool:
        return kinds.is_integer(type) or kinds.is_null(type)

    def number(type: Any) -> bool:
        return kinds.is_floating(type) or integer(type)

    def listed(type: Any, entry: Callable[[Any], bool]) -> bool:
        return (kinds.is_list(type) or kinds.is_large_list(type)) and entry(type.value_type)

    return {
        **dict.fromkeys(("policy_version", "batch"), (integer, "an integer")),
        **dict.fromkeys(("worker", "group", "prompt_text", "extra"), (text, "a text")),
        "max_abs_logit": (number, "a number"),
        "response_pieces": (lambda type: kinds.is_null(type) or listed(type, text), "a list of texts"),
        "tail_overlap": (kinds.is_floating, "a number"),
        **dict.fromkeys(EXACT, (kinds.is_float64, "float64")),
        "experts": (lambda type: listed(type, lambda inner: listed(inner, integer)), "a list of lists of integers"),
    }
