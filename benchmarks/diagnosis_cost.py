"""Claims of the diagnosis: `analyze` of a log of 1 M tokens takes at most 20 % longer with it than without, and
that of a default audit takes at most 2 s.

    python benchmarks/diagnosis_cost.py

Both are measured in one run. The command is run with the diagnosis and with a stand-in that says nothing, by turns,
in processes of their own. Time is the processor time of the whole process tree, with one thread for linear algebra,
so that what else the machine does matters little. The diagnosis of an audit is timed on its traces. Writes
benchmarks/results/diagnosis_cost.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # threads that wait for one another count as work

import numpy as np
from analyze_cost import cost_of, write_log

TOKENS = 1_000_000
RUNS = 7
RESULT = Path(__file__).parent / "results" / "diagnosis_cost.md"

WITHOUT = """
import sys
from mismatchscope.analysis import report, statistics, token_sample
report.with_diagnosis = lambda made, evidence, left_out: made
token_sample.TokenSample.add = lambda self, block: None
from mismatchscope import cli
sys.argv[0] = "mismatchscope"
cli.main()
"""
"""The command without the sample and what is made of it."""


def of_a_log(directory: Path, tokens: int) -> list[tuple[float, float]]:
    """Processor seconds of `analyze` (with, without), a pair a round."""
    write_log(directory / "log", tokens)
    arguments = ["analyze", "-q", directory / "log", "-o", directory / "report", "--force"]
    both = ([sys.executable, "-m", "mismatchscope", *arguments], [sys.executable, "-c", WITHOUT, *arguments])
    for command in both:
        cost_of(command)  # the files are then in the page cache, the modules compiled
    return [(cost_of(both[0]).cpu_seconds, cost_of(both[1]).cpu_seconds) for _ in range(RUNS)]


def of_an_audit(directory: Path) -> tuple[int, list[float]]:
    """Tokens of the default audit, and processor seconds of its diagnosis."""
    from mismatchscope.comparison.context import Context
    from mismatchscope.comparison.floors import Repeats, measure_floors
    from mismatchscope.comparison.pair import measure_pair
    from mismatchscope.comparison.token_evidence import evidence_of
    from mismatchscope.diagnosis.results import diagnose
    from mismatchscope.traces.reader import Trace

    cost_of([sys.executable, "-m", "mismatchscope", "audit", "-q", "-o", directory / "audit"])
    mu, pi, mu_again, pi_again = (
        Trace.open(directory / "audit" / name)
        for name in ("behavior", "reference", "behavior-repeat", "reference-repeat")
    )
    pair = measure_pair(mu, pi, Context.of(mu, pi, None))
    noise = measure_floors(pair, Repeats(mu_again, pi_again), margin=0.5)
    seconds = []
    for _ in range(RUNS):
        began = time.process_time()
        diagnose(evidence_of(pair, noise, []))
        seconds.append(time.process_time() - began)
    return pair.statistics.tokens, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of tokens of the log")
    tokens = int(TOKENS * parser.parse_args().scale)
    with tempfile.TemporaryDirectory() as scratch:
        rounds = of_a_log(Path(scratch), tokens)
        audited, seconds = of_an_audit(Path(scratch))
    more = [given / without - 1 for given, without in rounds]
    lines = [
        "# Cost of the diagnosis",
        "",
        f"Made by `python benchmarks/diagnosis_cost.py` on {date.today()}; {os.cpu_count()} cores,",
        f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}. Processor time of all",
        f"processes; medians of {RUNS} rounds, in brackets the smallest and the largest.",
        "",
        "| of | tokens | with it, s | without, s | it adds |",
        "| --- | --- | --- | --- | --- |",
        f"| `analyze` of a log | {tokens:,} | {_spread([each for each, _ in rounds])} "
        f"| {_spread([each for _, each in rounds])} | {_spread([100 * each for each in more], ' %')} |",
        f"| the default audit | {audited:,} | | | {_spread(seconds, ' s')} |",
        "",
        "Claims: at most 20 % of `analyze` of 1,000,000 tokens, and at most 2 s of the default audit.",
    ]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def _spread(values: list[float], unit: str = "") -> str:
    return f"{statistics.median(values):.3g}{unit} [{min(values):.3g}, {max(values):.3g}]"


if __name__ == "__main__":
    main()
