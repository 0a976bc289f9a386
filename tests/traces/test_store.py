"""What goes into a trace comes out of it, whatever happens in between."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import V, manifest, record, records
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from mismatchscope.errors import DiskFullError, OutputExistsError, TraceError
from mismatchscope.records import Evidence, SequenceRecord, write_part, write_requests
from mismatchscope.traces import ModelFacts, Trace, create, finish, read_manifest, write_trace
from mismatchscope.traces import packing as packing_module

LENGTHS = [5, 1, 0, 9, 30]
TOPK = manifest(evidence=Evidence("topk", 3))


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A run that has ended and is not packed yet, with what a killed worker leaves behind."""
    path = create(tmp_path / "trace", manifest())
    for each in records(LENGTHS, raw=True):
        write_part(path / "parts", each)
    (path / "parts" / ".000000099.safetensors.17.tmp").write_bytes(b"half a sequ")
    return path


def files(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def assert_holds(trace: Trace, expected: list[SequenceRecord]) -> None:
    """Every number of the records is in the trace, bit for bit."""
    rows = trace.read_sequences().to_pylist()
    assert [row["sequence_id"] for row in rows] == [each.sequence_id for each in expected]
    tokens = (
        pa.Table.from_batches(list(trace.iter_tokens(batch_rows=7)), schema=None).to_pylist() if expected else []
    )
    full_rows = trace.full_rows().tolist()
    at = 0
    for row, each in zip(rows, expected, strict=True):
        assert row["prompt_token_ids"] == each.prompt_token_ids.tolist()
        assert row["response_token_ids"] == each.response_token_ids.tolist()
        assert row["finish_reason"] == each.finish_reason
        for position, token_id in enumerate(each.response_token_ids.tolist()):
            token = tokens[at + position]
            assert (token["sequence_id"], token["position"]) == (each.sequence_id, position)
            assert (token["token_id"], token["logprob"]) == (token_id, each.observed.logprob_T[position])
            if each.observed.topk_ids_TK is not None:
                assert token["topk_ids"] == each.observed.topk_ids_TK[position].tolist()
                assert token["topk_logprobs"] == each.observed.topk_logprobs_TK[position].tolist()
        for row_R, logp_V in zip(
            each.observed.full_row_R if each.observed.full_row_R is not None else [],
            each.observed.full_logprobs_RV if each.observed.full_row_R is not None else [],
            strict=True,
        ):
            stored = full_rows.index(at + row_R)
            np.testing.assert_array_equal(trace.full_logprobs(stored, stored + 1)[0], logp_V)
        at += len(each.response_token_ids)


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
        written = write_trace(path, manifest(evidence=Evidence(level, 3, fraction)), expected)
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


def test_finishing_twice_changes_nothing(filled: Path) -> None:
    finish(filled)
    before = files(filled)
    finish(filled)
    assert files(filled) == before


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


def test_the_raw_view_never_overwrites_another_trace(filled: Path, tmp_path: Path) -> None:
    write_trace(tmp_path / "trace-raw", manifest(engine="vllm"), records([3]))
    with pytest.raises(OutputExistsError, match="engine is 'vllm' there"):
        finish(filled)
    assert finish(filled, raw_path=tmp_path / "elsewhere").complete
    assert Trace.open(tmp_path / "elsewhere").manifest.policy == "raw"


def test_everything_known_of_a_sequence_is_kept(tmp_path: Path) -> None:
    each = record(4, 2)
    each.batch, each.policy_version, each.worker = 3, 17, "node1"
    each.prompt_text, each.response_pieces = "1+1=", ["2", "</s>"]
    each.extra = {"group": 12, "reward": 0.5}
    each.experts = np.arange(12, dtype=np.int16).reshape(2, 3, 2)
    write_trace(tmp_path / "t", manifest(), [each])
    trace = Trace.open(tmp_path / "t")
    (row,) = trace.read_sequences().to_pylist()
    assert (row["batch"], row["policy_version"], row["worker"], row["group"]) == (3, 17, "node1", "12")
    assert (row["prompt_text"], row["response_pieces"]) == ("1+1=", ["2", "</s>"])
    assert row["extra"] == '{"reward": 0.5}'
    (batch,) = trace.iter_tokens(["experts"])
    assert batch["experts"].to_pylist() == each.experts.tolist()


KILLED = """
import os, signal, sys
from pathlib import Path
from mismatchscope.traces import finish, packing
where, count = sys.argv[2], int(sys.argv[3])
def dies(real):
    def call(*arguments, **keywords):
        global count
        count -= 1
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **keywords)
    return call
if where == "rename":
    os.replace = dies(os.replace)
elif where == "write":
    packing._Table.write = dies(packing._Table.write)
else:
    import shutil
    shutil.rmtree = dies(shutil.rmtree)
finish(Path(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("where", "count"), [("write", 3), ("rename", 3), ("rename", 6), ("rename", 9), ("rmtree", 1)]
)
def test_a_kill_while_packing_changes_no_byte_of_the_result(
    filled: Path, tmp_path: Path, where: str, count: int
) -> None:
    undisturbed = tmp_path / "undisturbed" / "trace"
    shutil.copytree(filled, undisturbed)
    finish(undisturbed)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(filled), where, str(count)], check=False)
    assert killed.returncode == -signal.SIGKILL
    create(filled, manifest(created="later"))
    finish(filled)
    assert files(filled) == files(undisturbed)
    assert files(tmp_path / "trace-raw") == files(tmp_path / "undisturbed" / "trace-raw")


def test_a_kill_before_the_manifest_was_written_can_be_resumed(filled: Path) -> None:
    (filled / "manifest.json").unlink()
    (filled / ".manifest.json.17.tmp").write_bytes(b"{")
    with pytest.raises(TraceError, match=r"no trace: manifest\.json cannot be read"):
        finish(filled)
    create(filled, manifest())
    assert finish(filled).counts.sequences == 5


def test_a_damaged_part_is_named(filled: Path) -> None:
    part = filled / "parts" / "000000003.safetensors"
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(TraceError, match=r"000000003\.safetensors cannot be read") as raised:
        finish(filled)
    assert "--resume" in raised.value.hint


def test_without_a_finished_sequence_there_is_nothing_to_pack(tmp_path: Path) -> None:
    create(tmp_path / "t", manifest())
    with pytest.raises(TraceError, match="no finished sequence"):
        finish(tmp_path / "t")
    with pytest.raises(TraceError, match="no sequence"):
        write_trace(tmp_path / "u", manifest(), [])


def test_creating_the_same_trace_again_resumes_it_and_adds_what_was_learnt(tmp_path: Path) -> None:
    path = create(tmp_path / "t", manifest(model=ModelFacts(name="tiny"), created="first"))
    learnt = manifest(engine_version="5.1", environment={"torch": "2.13"}, created="second")
    create(path, learnt)
    create(path, manifest(model=ModelFacts(name="tiny")))
    found = read_manifest(path)
    assert found.engine_version == "5.1"
    assert found.environment == {"torch": "2.13"}
    assert found.model == learnt.model
    assert found.created == "first"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sampling": {"temperature": 0.7}}, r"sampling\.temperature is 1\.0 there and 0\.7 here"),
        ({"evidence": Evidence("sampled")}, r"evidence\.level"),
        ({"model": ModelFacts(name="tiny", weights_sha256="other")}, r"model\.weights_sha256"),
        ({"settings": {"dtype": "bfloat16"}}, r"settings\.dtype"),
        ({"parent": "0" * 64}, "parent"),
    ],
)
def test_another_trace_is_never_overwritten(tmp_path: Path, change: dict, named: str) -> None:
    create(tmp_path / "t", manifest())
    before = files(tmp_path)
    with pytest.raises(OutputExistsError, match=named):
        create(tmp_path / "t", manifest(**change))
    assert files(tmp_path) == before


def test_a_complete_trace_is_never_written_again(tmp_path: Path) -> None:
    write_trace(tmp_path / "t", manifest(), records([3]))
    with pytest.raises(OutputExistsError, match="complete trace"):
        write_trace(tmp_path / "t", manifest(), records([3]))
    create(tmp_path / "t", manifest())
    assert Trace.open(tmp_path / "t").manifest.complete


def test_a_directory_or_file_that_is_no_trace_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("…")
    with pytest.raises(OutputExistsError, match="not empty and no trace"):
        create(tmp_path / "thesis", manifest())
    (tmp_path / "file").write_text("…")
    with pytest.raises(OutputExistsError, match="is a file"):
        create(tmp_path / "file", manifest())


def drop_observed(each: SequenceRecord) -> None:
    each.observed.logprob_T = each.observed.logprob_T[:-1]


def reorder_rows(each: SequenceRecord) -> None:
    each.observed.full_row_R = each.observed.full_row_R[::-1]


def widen(each: SequenceRecord) -> None:
    each.observed.full_logprobs_RV = np.pad(each.observed.full_logprobs_RV, ((0, 0), (0, 1)))


def other_kind(each: SequenceRecord) -> None:
    each.observed.topk_ids_TK = np.zeros((4, 2), np.int32)
    each.observed.topk_logprobs_TK = np.zeros((4, 2))


def same_id(each: SequenceRecord) -> None:
    each.sequence_id = 0


def one_raw(each: SequenceRecord) -> None:
    each.raw = each.observed


@pytest.mark.parametrize("spoil", [drop_observed, reorder_rows, widen, other_kind, same_id, one_raw])
def test_a_record_that_contradicts_itself_or_others_is_refused(
    tmp_path: Path, spoil: Callable[[SequenceRecord], None]
) -> None:
    batch = records([4, 4])
    spoil(batch[1])
    with pytest.raises(TraceError, match=r"Sequence [01] "):
        write_trace(tmp_path / "t", manifest(), batch)
    assert list(files(tmp_path / "t")) == ["manifest.json"]


def test_requests_ask_for_the_same_tokens_at_the_observed_ids(tmp_path: Path) -> None:
    expected = records([4, 0, 70], level="topk", k=3)
    expected[0].observed.topk_ids_TK[1, 2] = -1  # padding
    expected[0].observed.topk_logprobs_TK[1, 2] = np.nan
    write_trace(tmp_path / "t", TOPK, expected)
    trace = Trace.open(tmp_path / "t")
    requests = list(trace.requests())
    for request, each in zip(requests, expected, strict=True):
        assert (request.sequence_id, request.prompt_id) == (each.sequence_id, each.prompt_id)
        np.testing.assert_array_equal(request.prompt_token_ids, each.prompt_token_ids)
        np.testing.assert_array_equal(request.response_token_ids, each.response_token_ids)
        np.testing.assert_array_equal(request.observed_ids_TK, each.observed.topk_ids_TK)
        np.testing.assert_array_equal(request.kth_logprob_T, np.nanmin(each.observed.topk_logprobs_TK, axis=1))
    assert len(list(trace.requests(limit=2))) == 2
    write_requests(tmp_path / "requests.safetensors", requests)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["sequences.parquet", "tokens.parquet", "distributions.safetensors"])
@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    write_trace(tmp_path / "t", manifest(), records(LENGTHS))
    damage(tmp_path / "t" / name)
    with pytest.raises(TraceError, match=rf"{name} is (missing|truncated or altered)"):
        Trace.open(tmp_path / "t")
    if damage is not flip:
        with pytest.raises(TraceError, match=name):
            Trace.open(tmp_path / "t", verify=False)


def test_damage_within_a_page_is_an_error_even_unverified(tmp_path: Path) -> None:
    write_trace(tmp_path / "t", manifest(), records([400]))
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
    write_trace(tmp_path / "t", manifest(), records(LENGTHS))
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


def test_a_foreign_distributions_file_may_be_laid_out_otherwise(tmp_path: Path) -> None:
    """The safetensors library puts the wider dtype, `row`, first."""
    write_trace(tmp_path / "t", manifest(), records(LENGTHS, fraction=0.5))
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


@pytest.mark.parametrize("file", ["tokens.parquet", "sequences.parquet", "distributions.safetensors"])
def test_a_full_disk_keeps_what_was_finished(filled: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    """/dev/full answers every write as a full disk does."""
    real_open = open

    def full(path: object, *arguments: object, **keywords: object) -> object:
        return real_open("/dev/full" if str(path).endswith(f".{file}.tmp") else path, *arguments, **keywords)

    before = files(filled)
    with monkeypatch.context() as patch:
        patch.setattr(packing_module, "open", full, raising=False)
        with pytest.raises(
            DiskFullError, match=r"No space left on device.*5 finished sequences are kept"
        ) as raised:
            finish(filled)
    assert "--resume" in raised.value.hint
    assert files(filled) == before
    assert finish(filled).counts.sequences == 5


def test_a_file_size_limit_is_a_full_disk_too(filled: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from mismatchscope.traces import finish\n"
        "from mismatchscope.errors import DiskFullError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))\n"
        "try: finish(Path(sys.argv[1]))\n"
        "except DiskFullError as error: sys.exit(error.message)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(filled)], check=False, capture_output=True, text=True)
    assert ended.stderr.startswith(os.strerror(errno.EFBIG))
    assert len(ended.stderr.splitlines()) == 1
    assert finish(filled).counts.sequences == 5


def test_another_failure_of_the_disk_is_not_called_a_full_one(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(packing_module, "_sync", fails)
    with pytest.raises(OSError, match="Input/output error"):
        finish(filled)


def test_a_sequence_without_a_kept_distribution_is_no_contradiction(tmp_path: Path) -> None:
    batch = records([4, 4])
    batch[0].observed.full_row_R, batch[0].observed.full_logprobs_RV = np.zeros(0, np.int64), None
    write_trace(tmp_path / "t", manifest(), batch)
    assert Trace.open(tmp_path / "t").full_rows().tolist() == [4, 5, 6, 7]


def test_distributions_do_not_pile_up_while_they_are_packed(tmp_path: Path) -> None:
    """64 sequences of 1 MiB of distributions each: far fewer than all of them are alive at a time."""
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def stream() -> Iterator[SequenceRecord]:
        nonlocal most
        for sequence_id in range(64):
            each = record(sequence_id, 4)
            each.observed.full_logprobs_RV = np.zeros((4, 65536), np.float32)
            alive.append(weakref.ref(each.observed.full_logprobs_RV))
            most = max(most, sum(reference() is not None for reference in alive))
            yield each

    write_trace(tmp_path / "t", manifest(), stream())
    assert most <= 3
