"""Tables that other tools wrote: every column that is wrong is named with its file and its row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import records, stored

from mismatchscope.comparison.compare_traces import compare
from mismatchscope.errors import TraceError
from mismatchscope.traces import Trace

LENGTHS = [5, 8, 6]
TEXTS = pa.list_(pa.string())


def pair(directory: Path, level: str) -> list[Trace]:
    made = []
    for seed, name in enumerate(("mu", "pi")):
        batch = records(LENGTHS, seed=seed, level=level, k=3)
        for each in batch:
            each.response_pieces = ["x"] * len(each.response_token_ids)
            if level == "topk":
                each.observed.tail_overlap_T = np.full(len(each.response_token_ids), 0.01)
        made.append(stored(directory / name, batch))
    return made


def rewritten(trace: Trace, file: str, name: str, values: list[Any] | None, kind: pa.DataType | None) -> Trace:
    """The trace with another column; without it where `values` is None. Its checksums are no longer looked at."""
    path = trace.path / file
    table = pq.read_table(path)
    if values is None:
        pq.write_table(table.drop_columns([name]), path)
    else:
        column = pa.array(values, kind or table.schema.field(name).type)
        field = pa.field(name, column.type)
        at = table.schema.get_field_index(name)
        pq.write_table(table.append_column(field, column) if at < 0 else table.set_column(at, field, column), path)
    return Trace.open(trace.path, verify=False)


def spoiled(values: list[Any], row: int, value: Any) -> list[Any]:
    return [value if at == row else each for at, each in enumerate(values)]


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    ("file", "name", "row", "value", "message"),
    [
        ("sequences", "sequence_id", 2, None, r"column sequence_id is null in row 2\."),
        ("sequences", "prompt_id", 1, None, r"column prompt_id is null in row 1 \(sequence 1\)"),
        ("sequences", "prompt_token_ids", 1, None, "column prompt_token_ids is null in row 1"),
        ("sequences", "prompt_token_ids", 1, [1, None, 2], "column prompt_token_ids has a null entry in row 1"),
        ("sequences", "prompt_token_ids", 1, [1, -1, 2], "column prompt_token_ids has an id below 0 in row 1"),
        ("sequences", "response_token_ids", 2, None, "column response_token_ids is null in row 2"),
        ("sequences", "response_token_ids", 2, [1, None], "column response_token_ids has a null entry in row 2"),
        (
            "sequences",
            "response_pieces",
            1,
            ["x"] * 7,
            "response_pieces has 7 entries for the 8 of response_token_ids",
        ),
        (
            "sequences",
            "response_pieces",
            1,
            ["x"] * 9,
            "response_pieces has 9 entries for the 8 of response_token_ids",
        ),
        ("sequences", "response_pieces", 1, [], "response_pieces has 0 entries for the 8 of response_token_ids"),
        ("sequences", "response_pieces", 1, [None] * 8, "column response_pieces has a null entry in row 1"),
        ("tokens", "sequence_id", 6, None, r"column sequence_id is null in row 6\."),
        ("tokens", "position", 6, None, r"column position is null in row 6 \(sequence 1\)"),
        ("tokens", "token_id", 6, None, r"column token_id is null in row 6 \(sequence 1\)"),
        ("tokens", "topk_ids", 6, None, "topk_logprobs has 3 entries for the 0 of topk_ids in row 6"),
        ("tokens", "topk_ids", 6, [1, None, 2], "column topk_ids has a null entry in row 6"),
        ("tokens", "topk_logprobs", 6, None, "topk_logprobs has 0 entries for the 3 of topk_ids in row 6"),
        ("tokens", "topk_logprobs", 6, [-1.0] * 4, "topk_logprobs has 4 entries for the 3 of topk_ids in row 6"),
    ],
)
def test_a_value_that_cannot_be_there_is_named_with_file_column_and_row(
    tmp_path: Path, side: int, file: str, name: str, row: int, value: Any, message: str
) -> None:
    traces = pair(tmp_path, "topk")
    values = pq.read_table(traces[side].path / f"{file}.parquet")[name].to_pylist()
    traces[side] = rewritten(traces[side], f"{file}.parquet", name, spoiled(values, row, value), None)
    if name == "response_pieces" and side == 1:
        compare(*traces)  # the text around the worst tokens is the behaviour's
        return
    with pytest.raises(TraceError, match=message) as raised:
        compare(*traces)
    assert f"{traces[side].path / file}.parquet: " in raised.value.message


@pytest.mark.parametrize(
    ("file", "name", "kind", "message"),
    [
        ("sequences", "extra", TEXTS, "column extra is list<.*> instead of a text"),
        ("sequences", "extra", pa.int64(), "column extra is int64 instead of a text"),
        ("sequences", "prompt_text", pa.binary(), "column prompt_text is binary instead of a text"),
        ("sequences", "worker", pa.int64(), "column worker is int64 instead of a text"),
        ("sequences", "policy_version", pa.string(), "column policy_version is string instead of an integer"),
        ("sequences", "max_abs_logit", pa.string(), "column max_abs_logit is string instead of a number"),
        (
            "sequences",
            "response_pieces",
            pa.string(),
            "column response_pieces is string instead of a list of texts",
        ),
        (
            "sequences",
            "response_pieces",
            pa.list_(pa.int64()),
            "response_pieces is list<.*> instead of a list of texts",
        ),
        ("tokens", "tail_overlap", pa.string(), "column tail_overlap is string instead of a number"),
        ("tokens", "experts", pa.string(), "column experts is string instead of a list of lists of integers"),
        ("tokens", "mask", pa.int64(), "column mask is int64 instead of bool"),
        ("tokens", "topk_ids", pa.string(), "column topk_ids is string instead of list"),
    ],
)
def test_a_column_of_another_type_is_named(
    tmp_path: Path, file: str, name: str, kind: pa.DataType, message: str
) -> None:
    trace = pair(tmp_path, "topk")[0]
    rows = len(LENGTHS) if file == "sequences" else sum(LENGTHS)
    with pytest.raises(TraceError, match=message):
        rewritten(trace, f"{file}.parquet", name, [None] * rows, kind)


def test_lists_without_their_log_probs_are_no_evidence(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="column topk_logprobs is missing"):
        rewritten(pair(tmp_path, "topk")[0], "tokens.parquet", "topk_logprobs", None, None)


@pytest.mark.parametrize("name", ["extra", "prompt_text", "response_pieces", "worker", "group", "max_abs_logit"])
@pytest.mark.parametrize("kind", ["missing", "null", "no value", "large"])
def test_what_is_there_for_people_may_be_left_out(tmp_path: Path, name: str, kind: str) -> None:
    mu, pi = pair(tmp_path, "full")
    if kind == "missing":
        mu = rewritten(mu, "sequences.parquet", name, None, None)
    elif kind == "null":
        mu = rewritten(mu, "sequences.parquet", name, [None] * 3, pa.null())
    elif kind == "no value":
        mu = rewritten(mu, "sequences.parquet", name, [None] * 3, None)
    elif name == "response_pieces":
        pieces = [["x"] * length for length in LENGTHS]
        mu = rewritten(mu, "sequences.parquet", name, pieces, pa.large_list(pa.large_string()))
    elif name != "max_abs_logit":
        mu = rewritten(mu, "sequences.parquet", name, ["x"] * 3, pa.large_string())
    assert compare(mu, pi).counts.tokens == sum(LENGTHS)


@pytest.mark.parametrize(("value", "known"), [(-3.0, None), (float("nan"), False), (None, False), (9.0, True)])
def test_a_largest_logit_is_a_magnitude_or_unknown(tmp_path: Path, value: float | None, known: bool | None) -> None:
    mu, pi = (
        rewritten(trace, "sequences.parquet", "max_abs_logit", [5.0, value, 4.0], None)
        for trace in pair(tmp_path, "full")
    )
    for trace in (mu, pi):
        trace.manifest.effective["logits_dtype"] = "bfloat16"
    if known is None:
        with pytest.raises(TraceError, match=r"column max_abs_logit is below 0 in row 1"):
            compare(mu, pi)
    else:
        assert (compare(mu, pi).rounding_floor is not None) == known


def test_a_null_log_prob_is_none_at_all(tmp_path: Path) -> None:
    traces = pair(tmp_path, "full")
    values = pq.read_table(traces[1].path / "tokens.parquet")["logprob"].to_pylist()
    traces[1] = rewritten(traces[1], "tokens.parquet", "logprob", spoiled(values, 6, None), None)
    assert compare(*traces).counts.rejected == 1
