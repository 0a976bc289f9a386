"""Claims: `probe batch` is at least 4 times as fast as its comparisons one by one; and what measuring adds to a
probe's engine runs is at most 25 % of them.

    python benchmarks/probe_cost.py

Runs the installed command on the embedded model: the probe, which loads the engine once, draws tokens once and has
greedy completions too; then, for each of its comparisons that the other verbs can make, `rollout`, `score` under
both settings and `compare`. What measuring takes is the probe once more, which finds every trace made: that starts
no engine, and measures and reports. Writes benchmarks/results/probe_cost.md.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import NamedTuple

RESULT = Path(__file__).parent / "results" / "probe_cost.md"
SPEC = "transformers:dtype=bfloat16"
SIZES = (2, 4, 8, 16, 32, 64)
LIMIT = 32
LEAST_SPEEDUP, MOST_OF_RUNS = 4, 0.25
_RUN = re.compile(r"sequences in ([\d.]+) s")


class Seconds(NamedTuple):
    """Of commands: on the clock, and of processor time over all their processes, which other load leaves alone."""

    wall: float = 0.0
    processor: float = 0.0

    def plus(self, other: Seconds) -> Seconds:
        return Seconds(self.wall + other.wall, self.processor + other.processor)

    def over(self, other: Seconds) -> str:
        return (
            f"{self.wall / other.wall:.1f} × the probe, {self.processor / other.processor:.1f} × of processor time"
        )


def seconds_of(*arguments: str) -> tuple[Seconds, str]:
    """What a command took, and its progress lines."""
    command = str(Path(sys.executable).with_name("mismatchscope"))
    began, before = time.perf_counter(), processor_seconds()
    done = subprocess.run([command, *arguments], check=True, capture_output=True, text=True)
    return Seconds(time.perf_counter() - began, processor_seconds() - before), done.stderr


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def comparisons() -> list[tuple[list[str], list[str]]]:
    """The arguments of `score` for both settings of each comparison. The order by length is left out, which no
    other verb has."""

    def batches(path: str, size: int, *more: str, options: str = "") -> list[str]:
        return ["--engine", f"{SPEC},batch_size={size}{options}", "--path", path, *more]

    found = []
    for path in ("decode", "prefill"):
        found += [(batches(path, 1), batches(path, size)) for size in SIZES]
        found.append((batches(path, 8), batches(path, 8, "--shuffle-seed", "1")))
    right = batches("prefill", 8, options=",padding=right")
    return [*found, *((right, batches("prefill", 8, options=f",padding={each}")) for each in ("left", "packed"))]


def one_by_one(scratch: str) -> tuple[Seconds, Seconds]:
    """Seconds of the rollouts, and of all else."""
    rollouts = others = Seconds()
    for number, settings in enumerate(comparisons()):
        tokens, *traces, report = (f"{scratch}/{name}-{number}" for name in ("tokens", "first", "second", "report"))
        rollouts = rollouts.plus(seconds_of("rollout", "--engine", SPEC, "--limit", str(LIMIT), "-o", tokens)[0])
        for trace, role, arguments in zip(traces, ("behavior", "reference"), settings, strict=True):
            others = others.plus(seconds_of("score", tokens, *arguments, "--role", role, "-o", trace)[0])
        others = others.plus(seconds_of("compare", *traces, "-o", report)[0])
    return rollouts, others


def row(name: str, seconds: Seconds, note: str = "") -> str:
    return f"| {name} | {seconds.wall:.1f} | {seconds.processor:.1f} | {note} |"


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        probe = ["probe", "batch", "--behavior", SPEC, "--limit", str(LIMIT), "-o", f"{scratch}/probe"]
        whole, lines = seconds_of(*probe)
        again, _ = seconds_of(*probe, "--resume")
        rollouts, others = one_by_one(scratch)
    runs = sum(map(float, _RUN.findall(lines)))
    count = len(comparisons())
    every, once = rollouts.plus(others), others.plus(Seconds(rollouts.wall / count, rollouts.processor / count))
    rows = [
        row(f"`probe batch`, sizes {', '.join(map(str, SIZES))}", whole),
        row(f"{count} of its comparisons, one by one", every, every.over(whole)),
        row("the same, tokens drawn once", once, once.over(whole)),
        f"| the probe's engine runs alone | {runs:.1f} | | |",
        row("the probe when every trace is made", again, f"{again.wall / runs:.0%} of the runs"),
    ]
    text = [
        "# Cost of a probe",
        "",
        f"Made by `python benchmarks/probe_cost.py` on {date.today()}: the embedded model in bfloat16, {LIMIT}",
        f"prompts; {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}.",
        "",
        "| | seconds | of processor time | |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
        "One by one, a comparison is `rollout`, `score` under both settings, and `compare`. The probe compares",
        "batches ordered by length too, and has greedy completions under every setting. Every trace made, it",
        "starts Python, measures and writes its report.",
        "",
        f"Claims: at least {LEAST_SPEEDUP} times as fast as one by one; measuring at most {MOST_OF_RUNS:.0%} of",
        "the runs.",
    ]
    RESULT.write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
