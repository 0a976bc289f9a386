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
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "probe_cost.md"
SPEC = "transformers:dtype=bfloat16"
SIZES = (2, 4, 8, 16, 32, 64)
LIMIT = 32
LEAST_SPEEDUP, MOST_OF_RUNS = 4, 0.25
_RUN = re.compile(r"sequences in ([\d.]+) s")


def seconds_of(*arguments: str) -> tuple[float, str]:
    """Wall time of a command, and its progress lines."""
    command = str(Path(sys.executable).with_name("mismatchscope"))
    began = time.perf_counter()
    done = subprocess.run([command, *arguments], check=True, capture_output=True, text=True)
    return time.perf_counter() - began, done.stderr


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


def one_by_one(scratch: str) -> tuple[float, float]:
    """Seconds of the rollouts, and of all else."""
    rollouts = others = 0.0
    for number, settings in enumerate(comparisons()):
        tokens, *traces, report = (f"{scratch}/{name}-{number}" for name in ("tokens", "first", "second", "report"))
        rollouts += seconds_of("rollout", "--engine", SPEC, "--limit", str(LIMIT), "-o", tokens)[0]
        for trace, role, arguments in zip(traces, ("behavior", "reference"), settings, strict=True):
            others += seconds_of("score", tokens, *arguments, "--role", role, "-o", trace)[0]
        others += seconds_of("compare", *traces, "-o", report)[0]
    return rollouts, others


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        probe = ["probe", "batch", "--behavior", SPEC, "--limit", str(LIMIT), "-o", f"{scratch}/probe"]
        whole, lines = seconds_of(*probe)
        again, _ = seconds_of(*probe, "--resume")
        rollouts, others = one_by_one(scratch)
    runs = sum(map(float, _RUN.findall(lines)))
    count = len(comparisons())
    rows = [
        f"| `probe batch`, sizes {', '.join(map(str, SIZES))} | {whole:.1f} | |",
        f"| {count} of its comparisons, one by one | {rollouts + others:.1f} | "
        f"{(rollouts + others) / whole:.1f} × the probe |",
        f"| the same, tokens drawn once | {others + rollouts / count:.1f} | "
        f"{(others + rollouts / count) / whole:.1f} × the probe |",
        f"| the probe's engine runs alone | {runs:.1f} | |",
        f"| the probe when every trace is made | {again:.1f} | {again / runs:.0%} of the runs |",
    ]
    text = [
        "# Cost of a probe",
        "",
        f"Made by `python benchmarks/probe_cost.py` on {date.today()}: the embedded model in bfloat16, {LIMIT}",
        f"prompts; {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}.",
        "",
        "| | seconds | |",
        "| --- | --- | --- |",
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
