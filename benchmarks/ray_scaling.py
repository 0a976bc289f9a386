"""Claim of `analyze --ray`: two workers on two cores read a log at least 1.6 times as fast as one worker does.

    python benchmarks/ray_scaling.py [--tokens N] [--runs R]

Writes a log of random policies in the recorder's form, then has a local Ray cluster of one worker and of two read
it, in turn and each in a process of its own. Start and end of the cluster are left out. Writes
benchmarks/results/ray_scaling.md.

Shapes: R responses of a file, T tokens of one, N = R T.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

RESPONSES, TOKENS = 2048, 500
CLAIM = 1.6
RESULT = Path(__file__).parent / "results" / "ray_scaling.md"

READ = """
import os, sys, time
from pathlib import Path
workers = int(sys.argv[2])
os.sched_getaffinity = lambda pid: set(range(workers))  # of workers: the cores stay as they are
from mismatchscope.analysis.mapping import statistics_of
from mismatchscope.analysis.ray_cluster import on_ray
from mismatchscope.analysis.settings import AnalysisSettings
from mismatchscope.logs.reading import open_logs
import ray
began = []
start = ray.init
def init(*arguments, **options):
    start(*arguments, **options)
    ray.get([ray.remote(lambda: time.sleep(1.0)).remote() for _ in range(workers)])  # every worker has started
    began.append(time.monotonic())
ray.init = init
found = statistics_of(open_logs([Path(sys.argv[1])]), AnalysisSettings(), on_ray("local"), lambda tokens: None)
print(time.monotonic() - began[0], found.pair.tokens)
"""


def write_log(directory: Path, tokens: int) -> None:
    for file in range(max(1, tokens // (RESPONSES * TOKENS))):
        rng = np.random.default_rng(file)
        behavior_N = np.minimum(-rng.exponential(1.0, RESPONSES * TOKENS) - 0.01, 0).astype(np.float32)
        noise_N = rng.normal(0, 0.05, RESPONSES * TOKENS).astype(np.float32)
        offsets = pa.array(np.arange(0, RESPONSES * TOKENS + 1, TOKENS, dtype=np.int32))

        def by_token(value_N: np.ndarray, offsets: pa.Array = offsets) -> pa.Array:
            return pa.ListArray.from_arrays(offsets, pa.array(value_N))

        response_R = np.arange(RESPONSES) + file * RESPONSES
        table = pa.table(
            {
                "sequence_id": response_R,
                "step": response_R // 512,
                "prompt": response_R // 8,
                "token_ids": by_token(rng.integers(0, 150_000, RESPONSES * TOKENS).astype(np.int32)),
                "behavior_logprobs": by_token(behavior_N),
                "reference_logprobs": by_token(np.minimum(behavior_N + noise_N, 0)),
            }
        )
        pq.write_table(table, directory / f"{file:04d}.parquet", compression="zstd")


def seconds(log: Path, workers: int) -> tuple[float, int]:
    """Time of reading, and how many tokens were read."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READ, str(log), str(workers)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    took, tokens = done.stdout.split()[-2:]
    return float(took), int(tokens)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=60_000_000)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        write_log(Path(directory), given.tokens)
        runs = [[seconds(Path(directory), workers) for workers in (1, 2)] for _ in range(given.runs)]
    ratios = [one[0] / two[0] for one, two in runs]
    rows = "\n".join(f"| {one[0]:.1f} | {two[0]:.1f} | {one[0] / two[0]:.2f} |" for one, two in runs)
    ratio = statistics.median(ratios)
    machine = f"{len(os.sched_getaffinity(0))} cores ({platform.machine()}), Python {platform.python_version()}"
    text = f"""# Two Ray workers against one

{runs[0][0][1]:,} tokens in the recorder's Parquet, {machine}, {date.today().isoformat()}.
Reading alone, without the start of the cluster.

| one worker, s | two workers, s | times as fast |
|---|---|---|
{rows}

Median {ratio:.2f}; claimed: at least {CLAIM}.
"""
    RESULT.write_text(text, encoding="utf-8")
    print(text)
    return 0 if ratio >= CLAIM else 1


if __name__ == "__main__":
    sys.exit(main())
