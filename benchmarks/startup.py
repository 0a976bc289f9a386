"""Claim: `mismatchscope --help` takes at most 1.5 times as long as an empty typer program.

    python benchmarks/startup.py

Both are started alternately as fresh processes; the medians of the wall times are compared. Writes
benchmarks/results/startup.md.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

ROUNDS = 30
RESULT = Path(__file__).parent / "results" / "startup.md"

EMPTY_PROGRAM = """
import typer

app = typer.Typer()

@app.command()
def nothing() -> None:
    '''Does nothing.'''

app()
"""


def main() -> None:
    contenders = {
        "empty typer program": [sys.executable, "-c", EMPTY_PROGRAM, "--help"],
        "mismatchscope --help": [str(Path(sys.executable).with_name("mismatchscope")), "--help"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, command in contenders.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    empty, ours = medians.values()
    lines = [
        "# Start-up",
        "",
        f"Made by `python benchmarks/startup.py` on {date.today()}: {ROUNDS} alternating starts, medians; "
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}.",
        "",
        "| program | seconds |",
        "| --- | --- |",
        *(f"| {name} | {median:.3f} |" for name, median in medians.items()),
        "",
        f"Ratio: {ours / empty:.2f} (claim: at most 1.5).",
    ]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
