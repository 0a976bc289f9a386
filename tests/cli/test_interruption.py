"""How a run is told to end, in the foreground and in the background, and what it then leaves."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from command import COMMAND, SMALL, SYNTHETIC, audit

pytestmark = pytest.mark.slow

SLOW = ["--behavior", "synthetic:slow=0.1,noise=0.003", *SYNTHETIC[2:], *SMALL]


def start(directory: Path, *, ignored: tuple[signal.Signals, ...] = ()) -> subprocess.Popen[str]:
    """A slow audit that has finished its first sequence, started with some signals ignored and no others, whatever
    the suite was started with."""

    def ignore() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    process = subprocess.Popen(
        [COMMAND, "audit", *SLOW, "-o", directory],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=ignore,
    )
    deadline = time.monotonic() + 60
    while not finished(directory) and time.monotonic() < deadline:
        time.sleep(0.01)
    return process


def finished(directory: Path) -> list[Path]:
    return list((directory / "behavior" / "parts").glob("[0-9]*.safetensors"))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
def test_an_interrupted_run_ends_in_order_and_says_so(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with start(tmp_path / "run") as process:
        process.send_signal(number)
        assert process.wait(timeout=30) == code
        assert "What was finished is kept" in (said := process.stderr.read()) and "--resume" in said
    assert finished(tmp_path / "run")


@pytest.mark.slow
def test_in_the_background_sigint_is_for_others_and_sigterm_ends_the_run(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with start(directory, ignored=(signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD)) as process:
        process.send_signal(signal.SIGINT)
        count = len(finished(directory))
        while len(finished(directory)) == count:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143
    kept = {path: path.stat().st_mtime_ns for path in finished(directory)}
    assert audit(directory, *SLOW[:2], "--resume").returncode == 0
    assert audit(tmp_path / "undisturbed", *SLOW[:2]).returncode == 0
    assert kept
    resumed, undisturbed = (
        json.loads((path / "report.json").read_text()) for path in (directory, tmp_path / "undisturbed")
    )
    for key in ("finding", "counts", "alpha1", "token", "sequence", "floor", "worst"):
        assert resumed[key] == undisturbed[key]
