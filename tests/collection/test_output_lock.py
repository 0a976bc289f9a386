"""One run writes to a directory at a time, and the second is told who does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mismatchscope.collection.output import output_directory
from mismatchscope.errors import LockedError
from mismatchscope.traces.writing import write_trace

pytestmark = pytest.mark.slow

HOLD = (
    "import sys, pathlib, time\nfrom mismatchscope.collection.output import output_directory\n"
    "with output_directory(pathlib.Path(sys.argv[1])):\n"
    "    (pathlib.Path(sys.argv[1]) / 'run.json').write_text('{\"behavior\": 1, \"reference\": 1}')\n"
    "    print('held', flush=True); time.sleep(60)"
)


@pytest.fixture
def held(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def holder(held: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes to `held`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(held)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(("force", "resume"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("name", ["run", "link/run", "x/../run", "run-link"])
def test_the_second_run_is_told_who_writes_there(
    held: Path, holder: subprocess.Popen[str], tmp_path: Path, force: bool, resume: bool, name: str
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "run-link").symlink_to(held)
    with pytest.raises(LockedError) as error, output_directory(tmp_path / name, force=force, resume=resume):
        pass
    assert f"is in use by process {holder.pid} on {socket.gethostname()} since 20" in error.value.message
    assert str(held) in error.value.message
    assert (held / "run.json").exists()


def test_a_killed_run_locks_nothing(held: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (held / ".mismatchscope.lock").exists()
    with output_directory(held, resume=True):
        assert (held / "run.json").exists()
    with output_directory(held, force=True):
        assert not (held / "run.json").exists()


@pytest.mark.parametrize("trace", ["behavior", "reference-repeat", "behavior-raw"])
def test_a_trace_within_is_not_written_by_another_run(held: Path, holder: object, trace: str) -> None:
    with pytest.raises(LockedError, match=f"{held} is in use"), output_directory(held / trace):
        pass


def test_a_run_is_not_written_around_a_trace_that_another_writes(tmp_path: Path) -> None:
    stops, run = pytest.raises(LockedError, match="behavior is in use"), tmp_path / "run"
    with output_directory(run / "behavior"), stops, output_directory(run, force=True):
        pass


def test_other_directories_are_free_meanwhile(held: Path, holder: object) -> None:
    for other in (held / "comparison", held.with_name("other"), held.parent / "deep" / "run"):
        with output_directory(other):
            pass


def test_a_directory_beside_is_locked_too(tmp_path: Path) -> None:
    stops, raw = pytest.raises(LockedError, match=f"process {os.getpid()}"), tmp_path / "t-raw"
    with output_directory(tmp_path / "t", beside=[raw]), stops, output_directory(raw):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_trace_of_arrays_is_locked_too(held: Path, holder: object) -> None:
    (held / "run.json").unlink()
    arrays = {"prompts": [[1]], "responses": [[2]], "logprobs": [[-1.0]]}
    with pytest.raises(LockedError, match="is in use by process"):
        write_trace(held, role="behavior", **arrays)
    assert [path.name for path in held.iterdir()] == [".mismatchscope.lock"]
    written = write_trace(held.with_name("free"), role="behavior", **arrays)
    assert not (written.path / ".mismatchscope.lock").exists()
