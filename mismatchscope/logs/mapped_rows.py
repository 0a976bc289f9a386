"""Rows of somebody's table -> rows of our form, as a column map says.

Shapes: S rows of the table, K those of them that are kept, R the response tokens of all kept rows.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from ..measures.prompt_hash import labels_of_ids, labels_of_tokens
from .column_map import ColumnMap
from .columns import BY_ROW, BY_TOKEN, COLUMNS, LOGPROBS, column_type
from .flat_lists import FlatLists, cut, flat_lists, single_values
from .row_types import list_column

if TYPE_CHECKING:
    import pyarrow as pa

_UNITS: Final = {"log2": math.log(2), "log10": math.log(10)}
_KINDS: Final = {"float": "float", "int32": "int", "bool": "mask"}


def mapped_rows(
    batch: pa.RecordBatch, number_S: np.ndarray, columns: ColumnMap, rejected: Counter[str]
) -> pa.RecordBatch:
    """The responses of a batch; `number_S` is the id of each row, where the map names no column of integers for it.

    Rows that are no response go to `rejected`, by reason. Raises `ValueError` for a column of another kind.
    """
    import pyarrow as pa

    lists = _lists(batch, columns)
    row_K, first_K, length_K = _responses(batch, lists, columns, rejected)
    found: dict[str, pa.Array] = {}
    for name, flat in lists.items():
        value_R = cut(flat, row_K, first_K - columns.columns[name].shift, length_K)
        found[name] = list_column(_as_meant(value_R, name, columns), length_K, flat.there_S[row_K])
    others = {mapped.column for name, mapped in columns.columns.items() if name not in BY_TOKEN}
    kept = batch.select([name for name in batch.schema.names if name in others]).take(pa.array(row_K))
    for name in (*BY_ROW, "kept_ids", "experts"):
        if name in columns.columns and columns.columns[name].column in kept.schema.names:
            found[name] = _by_row(kept.column(columns.columns[name].column), name)
    _add_prompts(found, kept, lists, row_K, first_K, columns)
    if "sequence_id" not in found or found["sequence_id"].null_count:
        found["sequence_id"] = pa.array(number_S[row_K])
    names = [name for name in COLUMNS if name in found]
    return pa.RecordBatch.from_arrays([found[name] for name in names], names=names)


def _lists(batch: pa.RecordBatch, columns: ColumnMap) -> dict[str, FlatLists]:
    lists = {}
    for name, mapped in columns.columns.items():
        if name in BY_TOKEN and mapped.column in batch.schema.names:
            kind = _KINDS[BY_TOKEN[name][0]]
            lists[name] = flat_lists(batch.column(mapped.column), mapped.column, kind)
    return lists


def _responses(
    batch: pa.RecordBatch, lists: dict[str, FlatLists], columns: ColumnMap, rejected: Counter[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which rows are kept, at which token of its lists the response of each begins, and how many tokens it has."""
    rows = batch.num_rows
    kept_S = np.ones(rows, dtype=bool)

    def reject(fails_S: np.ndarray, reason: str) -> None:
        count = int((kept_S & fails_S).sum())
        if count:
            rejected[reason] += count
            kept_S[fails_S] = False

    for name, mapped in columns.columns.items():
        if name in (LOGPROBS["behavior"], LOGPROBS["reference"]):
            reject(~lists[name].there_S if name in lists else np.ones(rows, dtype=bool), f"no {mapped.column}")
    tokens_S = _tokens(lists, columns, rows)
    for name, flat in lists.items():
        # A list that is shifted may lack the values that no token has.
        lacking_S = tokens_S - flat.length_S
        fits_S = (lacking_S == 0) | (lacking_S == abs(columns.columns[name].shift)) | ~flat.there_S
        reject(~fits_S, f"{columns.columns[name].column} has another length")
    first_S = np.zeros(rows, dtype=np.int64)
    if columns.lists == "sequence":
        if columns.prompt_length is not None:
            first_S = _lengths(batch, columns.prompt_length)
        else:
            first_S = _first_kept(lists["mask"], tokens_S, columns) if "mask" in lists else tokens_S
    length_S = tokens_S - first_S
    if columns.response_length is not None:
        length_S = _lengths(batch, columns.response_length)
    reject((first_S < 0) | (length_S < 0) | (first_S + length_S > tokens_S), "a length beyond the lists")
    reject(length_S == 0, "no response tokens")
    if "mask" in lists:
        mask = lists["mask"]
        is_other = replace(mask, value_V=mask.value_V != mask.value_V.astype(bool))
        if is_other.value_V.any():
            row_K = np.flatnonzero(kept_S & mask.there_S)
            # A token for which the list has no place is not kept; one whose value is null may be.
            other_R = cut(is_other, row_K, first_S[row_K] - columns.columns["mask"].shift, length_S[row_K])
            other_S = np.zeros(rows, dtype=bool)
            other_S[np.repeat(row_K, length_S[row_K])[other_R]] = True
            reject(other_S, f"{columns.columns['mask'].column} has other values than 0 and 1")
    row_K = np.flatnonzero(kept_S)
    return row_K, first_S[row_K], length_S[row_K]


def _tokens(lists: dict[str, FlatLists], columns: ColumnMap, rows: int) -> np.ndarray:
    """How many tokens the lists of each row have: as `token_ids` has, or the first column that lacks none."""
    tokens_S = np.zeros(rows, dtype=np.int64)
    known_S = np.zeros(rows, dtype=bool)
    for name in sorted(lists, key=lambda name: (columns.columns[name].shift != 0, name != "token_ids")):
        new_S = lists[name].there_S & ~known_S
        tokens_S[new_S] = lists[name].length_S[new_S]
        known_S |= new_S
    return tokens_S


def _lengths(batch: pa.RecordBatch, name: str) -> np.ndarray:
    if name not in batch.schema.names:
        raise ValueError(f"it has no column {name}")
    return single_values(batch.column(name), "int", name).value_V.astype(np.int64)


def _first_kept(mask: FlatLists, tokens_S: np.ndarray, columns: ColumnMap) -> np.ndarray:
    """The first token of each row that the mask keeps; behind the last one where it keeps none."""
    kept_V = _is_kept(mask.value_V, columns).tobytes()
    stop_S = mask.start_S + mask.length_S
    place_S = [kept_V.find(1, *ends) for ends in zip(mask.start_S.tolist(), stop_S.tolist(), strict=True)]
    first_S = np.array(place_S, dtype=np.int64)
    return np.where(first_S < 0, tokens_S, first_S - mask.start_S + columns.columns["mask"].shift)


def _is_kept(value: np.ndarray, columns: ColumnMap) -> np.ndarray:
    """Of values of the mask, which are of tokens that the trainer counts."""
    return value == value.dtype.type(columns.columns["mask"].kept)  # numpy compares flags as integers otherwise


def _as_meant(value_R: np.ndarray, name: str, columns: ColumnMap) -> np.ndarray:
    mapped = columns.columns[name]
    if name == "mask":
        return _is_kept(value_R, columns)
    if mapped.scale == "probability":
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(value_R.astype(np.float64))
    return value_R * _UNITS[mapped.scale] if mapped.scale in _UNITS else value_R


def _by_row(column: pa.Array, name: str) -> pa.Array:
    import pyarrow as pa
    import pyarrow.types as types

    if name == "prompt":
        return labels_of(column)
    if name == "sequence_id":
        if not types.is_integer(column.type):
            return pa.nulls(len(column), pa.int64())
        return column.cast(pa.int64(), safe=False)  # unsigned ones stay as many as they are
    try:
        return column.cast(column_type(name))
    except pa.ArrowException:
        raise ValueError(f"its column for {name} is {column.type}, not {column_type(name)}") from None


def labels_of(column: pa.Array) -> pa.Array:
    """Labels of prompts, int64: of integers, of lists of tokens, of texts or of conversations. Equal prompts have
    equal labels."""
    import orjson
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_integer(column.type):
        ids = column.cast(pa.int64(), safe=False)
        labels = pa.array(labels_of_ids(ids.fill_null(0).to_numpy(zero_copy_only=False)))
        return pa.compute.if_else(ids.is_valid(), labels, None)
    is_list = types.is_list(column.type) or types.is_large_list(column.type)
    if is_list and types.is_integer(column.type.value_type):
        flat = flat_lists(column, "prompt", "int")
        return pa.array(labels_of_tokens(flat.value_V, flat.length_S), mask=~flat.there_S)
    if is_list or types.is_struct(column.type):  # a conversation
        texts = [None if value is None else orjson.dumps(value).decode() for value in column.to_pylist()]
        column = pa.array(texts, pa.string())
    encoded = column.cast(pa.string()).dictionary_encode()
    labels = [
        None if text is None else int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)
        for text in encoded.dictionary.to_pylist()
    ]
    return pa.array(labels, pa.int64()).take(encoded.indices)


def _add_prompts(
    found: dict[str, pa.Array],
    kept: pa.RecordBatch,
    lists: dict[str, FlatLists],
    row_K: np.ndarray,
    first_K: np.ndarray,
    columns: ColumnMap,
) -> None:
    """The prompt's tokens, from a column of their own or in front of the response; and a label made of them."""
    import pyarrow as pa

    mapped = columns.columns.get("prompt_token_ids")
    if mapped is not None and mapped.column in kept.schema.names:
        flat = flat_lists(kept.column(mapped.column), mapped.column, "int")
    elif columns.lists == "sequence" and "token_ids" in lists:
        shift = columns.columns["token_ids"].shift
        value = cut(lists["token_ids"], row_K, np.full(len(row_K), -shift), first_K)
        flat = FlatLists(value, np.cumsum(first_K) - first_K, first_K, lists["token_ids"].there_S[row_K])
    else:
        return
    found["prompt_token_ids"] = list_column(flat.value_V, flat.length_S, flat.there_S)
    if "prompt" not in found:
        found["prompt"] = pa.array(labels_of_tokens(flat.value_V, flat.length_S), mask=~flat.there_S)
