"""Records that contradict each other, disks that are full, distributions larger than memory."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from builders import manifest, record, records
from trace_contents import files

from mismatchscope.errors import DiskFullError, TraceError
from mismatchscope.records import SequenceRecord
from mismatchscope.traces import finish, write_records
from mismatchscope.traces import packing as packing_module


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
        write_records(tmp_path / "t", manifest(), batch)
    assert list(files(tmp_path / "t")) == ["manifest.json"]


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
    with pytest.raises(TraceError, match="Input/output error"):
        finish(filled)


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

    write_records(tmp_path / "t", manifest(), stream())
    assert most <= 3
