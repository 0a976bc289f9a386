"""`analyze --follow` as a person starts it: what ends it, with which code, and what a restart does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command import COMMAND, run
from log_writers import nemo_rl
from log_writers.samples import samples

pytestmark = pytest.mark.slow


def start(run_directory: Path, output: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, "analyze", run_directory, "-o", output, "--follow", "--every", "0.1", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"NO_COLOR": "1", "COLUMNS": "200"},
        start_new_session=True,
    )


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def tokens_in(output: Path) -> int:
    try:
        return int(json.loads((output / "report.json").read_text())["counts"]["tokens"])
    except FileNotFoundError:
        return 0


def test_ctrl_c_is_how_it_ends(tmp_path: Path) -> None:
    logs, output = tmp_path / "logs", tmp_path / "out"
    logs.mkdir()
    with start(logs, output, "--prometheus", str(tmp_path / "run.prom")) as process:
        nemo_rl.write_step(logs, 1, samples(6))
        wait_for(lambda: tokens_in(output) > 0)
        first = tokens_in(output)
        nemo_rl.write_step(logs, 2, samples(6, seed=2))
        wait_for(lambda: tokens_in(output) > first)
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert "mean TV" in printed
    assert (output / "report.md").exists()
    assert f"counts_tokens {tokens_in(output)}.0" in (tmp_path / "run.prom").read_text()


def test_a_gate_that_fails_ends_it_with_1(tmp_path: Path) -> None:
    logs, output = tmp_path / "logs", tmp_path / "out"
    nemo_rl.write_step(logs, 1, samples(20))
    with start(logs, output, "--fail-on", "token.tv > 1e-9") as process:
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search(r"token.tv > 1e-9", printed)


def test_nothing_at_all_is_no_pass(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    done = run(
        "analyze", tmp_path / "logs", "-o", tmp_path / "out", "--follow", "--every", "0.1", "--until-idle", "0.3"
    )
    assert done.returncode == 4
    assert "No token that was finished" in done.stderr


def test_a_killed_one_goes_on_where_it_was(tmp_path: Path) -> None:
    logs, output = tmp_path / "logs", tmp_path / "out"
    nemo_rl.write_step(logs, 1, samples(6))
    with start(logs, output) as process:
        wait_for((output / "follow.checkpoint").exists)
        process.kill()
        process.communicate()
    before = tokens_in(output)
    nemo_rl.write_step(logs, 2, samples(6, seed=2))
    with start(logs, output, "--until-idle", "1") as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    more = int(re.search(r"([\d,]+) tokens more", said)[1].replace(",", ""))
    assert more == tokens_in(output) - before > 0
    once = tmp_path / "once"
    assert run("analyze", logs, "-o", once).returncode == 0
    ours, theirs = (json.loads((place / "report.json").read_text()) for place in (output, once))
    assert ours["counts"] == theirs["counts"]
    assert ours["token"]["tv"]["mean"] == pytest.approx(theirs["token"]["tv"]["mean"], rel=1e-12)
