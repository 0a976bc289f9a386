"""A trace's life: created, filled, packed; whatever happens in between."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from builders import manifest, records
from trace_contents import LENGTHS, files

from mismatchscope.errors import OutputExistsError, TraceError
from mismatchscope.records import write_part
from mismatchscope.traces import create, finish, write_records
from mismatchscope.traces import store as store_module


def test_finishing_twice_changes_nothing(filled: Path) -> None:
    finish(filled)
    before = files(filled)
    finish(filled)
    assert files(filled) == before


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
    from mismatchscope.traces import unfinished
    unfinished._unlink = dies(unfinished._unlink)
finish(Path(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "count"), [("write", 3), ("rename", 3), ("rename", 6), ("rename", 9), ("unlink", 1), ("unlink", 3)]
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


def test_a_kill_before_the_manifest_was_written_can_be_resumed(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / ".manifest.json.17.tmp").write_bytes(b"{")
    with pytest.raises(TraceError, match=r"no trace: manifest\.json cannot be read"):
        finish(tmp_path / "t")
    for each in records(LENGTHS):
        write_part(create(tmp_path / "t", manifest()) / "parts", each)
    assert finish(tmp_path / "t").counts.sequences == 5
    assert sorted(files(tmp_path / "t")) == [
        "distributions.safetensors",
        "manifest.json",
        "sequences.parquet",
        "tokens.parquet",
    ]


def test_sequences_that_no_manifest_describes_are_nobodys(filled: Path) -> None:
    (filled / "manifest.json").unlink()
    before = files(filled)
    with pytest.raises(TraceError, match=r"no trace: manifest\.json cannot be read"):
        finish(filled)
    with pytest.raises(OutputExistsError, match=r"has sequences but no manifest\.json") as raised:
        create(filled, manifest())
    assert raised.value.exit_code == 2 and "put manifest.json back" in raised.value.hint
    assert files(filled) == before


def test_the_manifest_is_written_once_before_the_run_and_once_when_it_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    real = store_module.write_atomic

    def write(path: Path, data: bytes) -> None:
        written.append(path)
        real(path, data)

    monkeypatch.setattr(store_module, "write_atomic", write)
    path = create(tmp_path / "t", manifest())
    create(path, manifest(created="later"))  # a run that goes on
    for each in records(LENGTHS, raw=True):
        write_part(path / "parts", each)
    finish(path)
    finish(path)
    write_records(tmp_path / "u", manifest(), records(LENGTHS))
    assert Counter(file.parent.name for file in written) == {"t": 2, "t-raw": 2, "u": 2}


def test_a_damaged_part_is_named(filled: Path) -> None:
    part = filled / "parts" / "000000003.safetensors"
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(TraceError, match=r"000000003\.safetensors cannot be read") as raised:
        finish(filled)
    assert "--resume" in raised.value.hint
    assert part.exists(), "it is for the next run to make it again"


def test_without_a_finished_sequence_there_is_nothing_to_pack(tmp_path: Path) -> None:
    create(tmp_path / "t", manifest())
    with pytest.raises(TraceError, match="no finished sequence"):
        finish(tmp_path / "t")
    with pytest.raises(TraceError, match="no sequence"):
        write_records(tmp_path / "u", manifest(), [])
