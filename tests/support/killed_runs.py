"""Runs of the command that are killed at random moments and resumed: what is left, and how each one ends."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from command import COMMAND

import mismatchscope

Victim = Literal["command", "worker"]

FIGURES = ("finding", "counts", "alpha1", "token", "sequence", "floor", "worst")
ENDING_SECONDS = 30.0
_SUPERVISOR = str(Path(mismatchscope.__file__).with_name("supervisor.py"))


class KilledRuns:
    """Chains of one audit: killed, resumed, killed again, until one comes to its end with the usual figures.

    `server` is the process whose forks stand for the workers, where they are not children of the command.
    """

    def __init__(self, arguments: Sequence[str], directory: Path, seed: int, server: int | None = None) -> None:
        self._arguments, self._directory, self._server = arguments, directory, server
        self._random = random.Random(seed)
        self._temporary = directory / "tmp"
        self._temporary.mkdir()
        began = time.monotonic()
        undisturbed = self._start(directory / "undisturbed")
        assert undisturbed.wait(300) == 0, self._log()
        self._seconds = time.monotonic() - began
        self._figures = figures(directory / "undisturbed")

    def kill(self, victims: Sequence[Victim], count: int) -> int:
        """Kill `count` times, one of `victims` at random each time; returns in how many chains that was."""
        kills = chains = 0
        while True:
            run = self._directory / f"chain-{chains}"
            process = self._start(run)
            if kills < count and self._kill(process, self._random.choice(victims)):
                kills += 1
                if process.returncode != 0:  # a worker that has done all its work is not missed
                    continue
            assert process.wait(300) == 0, self._log()
            assert figures(run) == self._figures
            assert not [path for path in run.rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"]
            self._check_temporary_files()
            chains += 1
            if kills == count:
                return chains

    def _start(self, run: Path) -> subprocess.Popen[bytes]:
        with open(self._directory / "log", "ab") as log:
            return subprocess.Popen(
                [COMMAND, *self._arguments, "-o", run, *(["--resume"] if run.exists() else [])],
                stdout=log,
                stderr=log,
                env=os.environ | {"TMPDIR": str(self._temporary)},
            )

    def _kill(self, process: subprocess.Popen[bytes], victim: Victim) -> bool:
        """Whether there was something to kill at a random moment of a run. What it leaves must go by itself."""
        try:
            process.wait(self._random.uniform(0.0, self._seconds))
            return False
        except subprocess.TimeoutExpired:
            pass
        target = process.pid if victim == "command" else self._worker(process)
        if target is None:
            return False
        started = _descendants(process.pid) | self._forks()
        os.kill(target, signal.SIGKILL)
        status = process.wait(ENDING_SECONDS)
        if victim == "command" and status == 0:  # it had ended by itself when it was to be killed
            return False
        assert status in ([-signal.SIGKILL] if victim == "command" else [3, 0]), self._log()
        deadline = time.monotonic() + ENDING_SECONDS
        while left := {pid for pid in started | self._forks() | self._marked() if not gone(pid)}:
            assert time.monotonic() < deadline, f"left behind: {[_command_line(pid) for pid in left]}"
            time.sleep(0.2)
        return True

    def _worker(self, process: subprocess.Popen[bytes]) -> int | None:
        """The worker, waited for where there is none between two engines; None when the command ends without."""
        while process.poll() is None:
            for pid in _children(self._server) if self._server else _descendants(process.pid):
                words = _command_line(pid)
                if self._server or (
                    "mismatchscope.engines.runtime.worker" in words and words[3:4] != [_SUPERVISOR]
                ):
                    return pid
            time.sleep(0.05)
        return None

    def _forks(self) -> set[int]:
        return _descendants(self._server) if self._server else set()

    def _marked(self) -> set[int]:
        """The processes that were started with this run's temporary directory."""
        mark = f"TMPDIR={self._temporary}".encode()
        return {pid for pid in _processes() if mark in _read(pid, "environ").split(b"\0")}

    def _check_temporary_files(self) -> None:
        left = [path for path in self._temporary.rglob("*") if not path.is_dir()]
        assert not left, f"left behind: {left}"

    def _log(self) -> str:
        return (self._directory / "log").read_text()[-3000:]


def figures(directory: Path) -> dict[str, object]:
    report = json.loads((directory / "report.json").read_text())
    return {key: report[key] for key in FIGURES}


def gone(pid: int) -> bool:
    """Whether a process has ended; an orphan may stay a zombie where nobody reaps it."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return not fields or fields[0] == b"Z"


def _descendants(ancestor: int) -> set[int]:
    parents = {pid: fields for pid in _processes() if (fields := _read(pid, "stat").rpartition(b")")[2].split())}
    found = {ancestor}
    while more := {pid for pid, fields in parents.items() if int(fields[1]) in found} - found:
        found |= more
    return {pid for pid in found - {ancestor} if parents[pid][0] != b"Z"}


def _children(parent: int) -> set[int]:
    """Those that run, without what they started themselves."""
    stats = {pid: _read(pid, "stat").rpartition(b")")[2].split() for pid in _descendants(parent)}
    return {pid for pid, fields in stats.items() if fields and int(fields[1]) == parent}


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _command_line(pid: int) -> list[str]:
    return _read(pid, "cmdline").decode(errors="replace").split("\0")


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
