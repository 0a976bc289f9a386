"""What is damaged, foreign or unfinished is said so; a trace asks for its own tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import manifest, record, records, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_contents import LENGTHS

from mismatchscope.errors import TraceError
from mismatchscope.records import (
    Evidence,
    SequenceRecord,
    read_requests,
    request_to_score,
    write_part,
    write_requests,
)
from mismatchscope.traces import Trace, create, write_records


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["sequences.parquet", "tokens.parquet", "distributions.safetensors"])
@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    write_records(tmp_path / "t", manifest(), records(LENGTHS))
    damage(tmp_path / "t" / name)
    with pytest.raises(TraceError, match=rf"{name} is (missing|truncated or altered)"):
        Trace.open(tmp_path / "t")
    if damage is not flip:
        with pytest.raises(TraceError, match=name):
            Trace.open(tmp_path / "t", verify=False)


def test_damage_within_a_page_is_an_error_even_unverified(tmp_path: Path) -> None:
    write_records(tmp_path / "t", manifest(), records([400]))
    path = tmp_path / "t" / "tokens.parquet"
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(3)
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 1
    path.write_bytes(data)
    trace = Trace.open(tmp_path / "t", verify=False)
    with pytest.raises(TraceError, match=r"tokens\.parquet cannot be read"):
        list(trace.iter_tokens())


def test_what_is_no_complete_trace_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no trace"):
        Trace.open(tmp_path / "nowhere")
    path = create(tmp_path / "t", manifest())
    write_part(path / "parts", record(0, 3))
    with pytest.raises(TraceError, match="incomplete: 1 of its sequences") as raised:
        Trace.open(path)
    assert "--resume" in raised.value.hint
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"schema_version": 1', '"schema_version": 7'))
    with pytest.raises(TraceError, match="schema version is 7, this version reads 1"):
        Trace.open(path)
    (path / "manifest.json").write_text(text.replace('"role": "behavior"', '"role": "villain"'))
    with pytest.raises(TraceError, match="role"):
        Trace.open(path)
    (path / "manifest.json").write_text(text[:30])
    with pytest.raises(TraceError, match="Invalid JSON"):
        Trace.open(path)


def test_a_foreign_table_must_have_the_columns_of_the_contract(tmp_path: Path) -> None:
    write_records(tmp_path / "t", manifest(), records(LENGTHS))
    path = tmp_path / "t" / "tokens.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["logprob"]), path)
    with pytest.raises(TraceError, match="column logprob is missing"):
        Trace.open(tmp_path / "t", verify=False)
    pq.write_table(table.set_column(3, "logprob", table["logprob"].cast(pa.float32())), path)
    with pytest.raises(TraceError, match="column logprob is float instead of double"):
        Trace.open(tmp_path / "t", verify=False)
    pq.write_table(table.slice(1), path)
    with pytest.raises(TraceError, match=r"44 rows, manifest\.json counts 45"):
        Trace.open(tmp_path / "t", verify=False)


def test_records_have_what_was_seen_of_the_tokens(tmp_path: Path) -> None:
    expected = records([4, 0, 70], level="topk", k=3)
    for one, each in zip(stored(tmp_path, expected).records(), expected, strict=True):
        for name in ("sequence_id", "prompt_id", "finish_reason"):
            assert getattr(one, name) == getattr(each, name)
        for name in ("prompt_token_ids", "response_token_ids"):
            np.testing.assert_array_equal(getattr(one, name), getattr(each, name))
        for name in ("logprob_T", "topk_ids_TK", "topk_logprobs_TK"):
            np.testing.assert_array_equal(getattr(one.observed, name), getattr(each.observed, name))


def test_requests_ask_for_the_same_tokens_at_the_observed_ids(tmp_path: Path) -> None:
    expected = records([4, 0, 70], level="topk", k=3)
    expected[0].observed.topk_ids_TK[1, 2] = -1  # this state shows two ids, and so all that it has
    expected[0].observed.topk_logprobs_TK[1, 2] = np.nan
    trace = stored(tmp_path, expected)
    requests = list(trace.requests())
    for request, each in zip(requests, expected, strict=True):
        assert (request.sequence_id, request.prompt_id) == (each.sequence_id, each.prompt_id)
        np.testing.assert_array_equal(request.prompt_token_ids, each.prompt_token_ids)
        np.testing.assert_array_equal(request.response_token_ids, each.response_token_ids)
        np.testing.assert_array_equal(request.observed_ids_TK, each.observed.topk_ids_TK)
        kth_T = np.nan_to_num(each.observed.topk_logprobs_TK[:, 2], nan=-np.inf)
        np.testing.assert_array_equal(request.kth_logprob_T, kth_T)
    assert len(requests) == 3
    write_requests(tmp_path / "requests.safetensors", requests)
    sampled = next(trace.requests(Evidence("sampled")))
    assert sampled.observed_ids_TK is None and sampled.kth_logprob_T is None


@st.composite
def ragged_top_k(draw: st.DrawFn) -> tuple[int, list[SequenceRecord]]:
    """Sequences whose states list up to k ids each, in arrays as wide as the longest list of the sequence."""
    k = draw(st.integers(1, 5))
    batch = records(draw(st.lists(st.integers(0, 6), min_size=1, max_size=4)), level="topk", k=k)
    for each in batch:
        length = len(each.response_token_ids)
        listed_T = np.array(draw(st.lists(st.integers(0, k), min_size=length, max_size=length)), dtype=np.int64)
        width = draw(st.integers(int(listed_T.max(initial=0)), k))
        hidden_TK = np.arange(k) >= listed_T[:, None]
        seen = each.observed
        seen.topk_ids_TK = np.where(hidden_TK, -1, seen.topk_ids_TK)[:, :width].astype(np.int32)
        seen.topk_logprobs_TK = np.where(hidden_TK, np.nan, seen.topk_logprobs_TK)[:, :width]
    return k, batch


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(ragged_top_k())
def test_a_trace_makes_the_requests_that_its_parts_made(
    tmp_path_factory: pytest.TempPathFactory, ragged: tuple[int, list[SequenceRecord]]
) -> None:
    k, batch = ragged
    evidence = Evidence("topk", k)
    trace = stored(tmp_path_factory.mktemp("ragged"), batch, evidence=evidence)
    from_trace = list(trace.requests())
    for request, each in zip(from_trace, batch, strict=True):
        from_part = request_to_score(each, evidence, "processed")
        assert vars(request).keys() == vars(from_part).keys()
        for name, value in vars(from_part).items():
            np.testing.assert_array_equal(getattr(request, name), value, err_msg=name)
            if isinstance(value, np.ndarray):
                assert getattr(request, name).dtype == value.dtype, name
    path = tmp_path_factory.mktemp("requests") / "file"
    write_requests(path, from_trace)
    assert [request.sequence_id for request in read_requests(path)] == [each.sequence_id for each in batch]
