"""What goes into a trace comes out of it, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from builders import V, manifest, record, records
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from trace_contents import LENGTHS, assert_holds, files

from mismatchscope.errors import TraceError
from mismatchscope.records import Evidence
from mismatchscope.traces import Trace, finish, write_records
from mismatchscope.traces import packing as packing_module


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any),
    level=st.sampled_from(["sampled", "topk", "full"]),
    fraction=st.sampled_from([0.3, 1.0]),
    row_group=st.sampled_from([1, 8, 65536]),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], level: str, fraction: float, row_group: int
) -> None:
    path = tmp_path_factory.mktemp("round") / "trace"
    expected = records(lengths, level=level, k=3, fraction=fraction)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing_module, "ROW_GROUP_TOKENS", row_group)
        written = write_records(path, manifest(evidence=Evidence(level, 3, fraction)), expected)
    trace = Trace.open(path)
    assert trace.manifest == written
    assert written.counts.tokens == sum(lengths)
    assert_holds(trace, expected)


def test_packing_in_pieces_holds_the_same_as_parts(filled: Path) -> None:
    done = finish(filled)
    assert done.complete
    assert (done.counts.prompts, done.counts.sequences, done.counts.tokens) == (3, 5, 45)
    assert_holds(Trace.open(filled), records(LENGTHS, raw=True))
    assert not (filled / "parts").exists()


def test_the_files_are_those_of_the_contract(filled: Path) -> None:
    finish(filled)
    assert sorted(files(filled)) == [
        "distributions.safetensors",
        "manifest.json",
        "sequences.parquet",
        "tokens.parquet",
    ]
    full = load_file(filled / "distributions.safetensors")
    assert full["logprobs"].shape == (45, V)
    assert full["logprobs"].dtype == np.float32
    assert full["row"].tolist() == list(range(45))
    tokens = pq.ParquetFile(filled / "tokens.parquet")
    assert tokens.schema_arrow.names == ["sequence_id", "position", "token_id", "logprob"]
    assert tokens.metadata.row_group(0).column(3).compression == "ZSTD"
    assert "BYTE_STREAM_SPLIT" in tokens.metadata.row_group(0).column(3).encodings


def test_the_raw_view_is_a_complete_trace_of_the_same_tokens(filled: Path, tmp_path: Path) -> None:
    finish(filled)
    raw = Trace.open(tmp_path / "trace-raw")
    assert (raw.manifest.policy, raw.manifest.temperature) == ("raw", 1.0)
    expected = records(LENGTHS, raw=True)
    for each in expected:
        each.observed = each.raw
    assert_holds(raw, expected)


def test_everything_known_of_a_sequence_is_kept(tmp_path: Path) -> None:
    each = record(4, 2)
    each.batch, each.policy_version, each.worker = 3, 17, "node1"
    each.prompt_text, each.response_pieces = "1+1=", ["2", "</s>"]
    each.group, each.max_abs_logit, each.extra = "12", 31.25, {"reward": 0.5}
    each.experts = np.arange(12, dtype=np.int16).reshape(2, 3, 2)
    write_records(tmp_path / "t", manifest(), [each])
    trace = Trace.open(tmp_path / "t")
    (row,) = trace.read_sequences().to_pylist()
    assert (row["batch"], row["policy_version"], row["worker"], row["group"]) == (3, 17, "node1", "12")
    assert row["max_abs_logit"] == 31.25
    assert (row["prompt_text"], row["response_pieces"]) == ("1+1=", ["2", "</s>"])
    assert row["extra"] == '{"reward": 0.5}'
    (batch,) = trace.iter_tokens(["experts"])
    assert batch["experts"].to_pylist() == each.experts.tolist()


def test_a_sequence_without_a_kept_distribution_is_no_contradiction(tmp_path: Path) -> None:
    batch = records([4, 4])
    batch[0].observed.full_row_R, batch[0].observed.full_logprobs_RV = np.zeros(0, np.int64), None
    write_records(tmp_path / "t", manifest(), batch)
    assert Trace.open(tmp_path / "t").full_rows().tolist() == [4, 5, 6, 7]


def test_a_foreign_distributions_file_may_be_laid_out_otherwise(tmp_path: Path) -> None:
    """The safetensors library puts the wider dtype, `row`, first."""
    write_records(tmp_path / "t", manifest(), records(LENGTHS, fraction=0.5))
    path = tmp_path / "t" / "distributions.safetensors"
    before = Trace.open(tmp_path / "t")
    rows, logprobs = before.full_rows(), np.array(before.full_logprobs(2, 5))
    content = load_file(path)
    save_file(content, path, metadata={"format": "np"})
    after = Trace.open(tmp_path / "t", verify=False)
    np.testing.assert_array_equal(after.full_rows(), rows)
    np.testing.assert_array_equal(after.full_logprobs(2, 5), logprobs)
    for wrong in ({"row": content["row"]}, content | {"row": content["row"][1:]}):
        save_file(wrong, path)
        with pytest.raises(TraceError, match="does not hold `logprobs`"):
            Trace.open(tmp_path / "t", verify=False)
    save_file(content | {"row": content["row"][::-1].copy()}, path)
    with pytest.raises(TraceError, match="not a rising list of rows"):
        Trace.open(tmp_path / "t", verify=False).full_rows()
