"""Claims: `probe batch` is at least 4 times as fast as its cells by audits, one for each size of a batch; and what
measuring adds to a probe's engine runs is at most 25 % of them.

    python benchmarks/probe_cost.py

Runs the installed command on the embedded model: the probe, which loads the engine once, draws tokens once and has
greedy completions too, and an audit of two SPECs for each size, which differ in `batch_size` alone. What measuring
takes is the probe once more, which finds every trace made: that starts no engine, and measures and reports. Writes
benchmarks/results/probe_cost.md.
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
SIZES = (2, 4, 8, 16, 32, 64)
LIMIT = 32
MOST_OF_AUDITS, MOST_OF_RUNS = 1 / 4, 0.25
_RUN = re.compile(r"sequences in ([\d.]+) s")


def seconds_of(*arguments: str) -> tuple[float, str]:
    """Wall time of a command, and its progress lines."""
    command = str(Path(sys.executable).with_name("mismatchscope"))
    began = time.perf_counter()
    done = subprocess.run([command, *arguments], check=True, capture_output=True, text=True)
    return time.perf_counter() - began, done.stderr


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        probe = ["probe", "batch", "--limit", str(LIMIT), "-o", f"{scratch}/probe"]
        whole, lines = seconds_of(*probe)
        again, _ = seconds_of(*probe, "--resume")
        audits = 0.0
        for size in SIZES:
            alone, batched = (f"transformers:dtype=bfloat16,batch_size={each}" for each in (1, size))
            sides = ["--behavior", alone, "--reference", batched, "--no-repeats", "--limit", str(LIMIT)]
            audits += seconds_of("audit", *sides, "-o", f"{scratch}/audit-{size}")[0]
    runs = sum(map(float, _RUN.findall(lines)))
    rows = [
        f"| `probe batch`, sizes {', '.join(map(str, SIZES))} | {whole:.1f} | |",
        f"| {len(SIZES)} audits, one for each size | {audits:.1f} | {audits / whole:.1f} × the probe |",
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
        "The probe compares decoding and the training forward at every size, in other orders and layouts, and",
        "counts greedy completions; an audit compares the one path with the other at one size. Every trace made,",
        "the probe starts Python, measures and writes its report.",
        "",
        f"Claims: at most {MOST_OF_AUDITS:.0%} of the audits' time; measuring at most {MOST_OF_RUNS:.0%} of the",
        "runs'.",
    ]
    RESULT.write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
