"""Claims of `analyze`: a log of 50 M tokens in the recorder's Parquet form takes at most 2.5 times as long as
pyarrow's decoding of the same columns on the same cores; memory stays below 1 GiB, and grows by less than 100 MiB
from 5 M.

    python benchmarks/analyze_cost.py [--scale F]

Writes logs of random policies as the recorder writes them, lets pyarrow decode every column in a process of its
own, then runs the installed command on them. Time is wall time and processor time of the whole process tree;
memory is the sum of the proportional shares of all its processes, sampled every 50 ms. Writes
benchmarks/results/analyze_cost.md.

Shapes: N tokens of one shard, R its responses.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from mismatchscope.logs.columns import column_type
from mismatchscope.logs.shards import ShardWriter

RESPONSE_TOKENS = 1000
RESPONSES = 512  # of one step
SAMPLES = 8
SIZES = (5_000_000, 50_000_000)
RUNS = 2
RESULT = Path(__file__).parent / "results" / "analyze_cost.md"

DECODE = """
import sys
from pathlib import Path
import pyarrow.parquet as parquet
for path in sorted(Path(sys.argv[1]).glob("*.parquet")):
    file = parquet.ParquetFile(path)
    for group in range(file.num_row_groups):
        file.read_row_group(group)
"""


class Cost(NamedTuple):
    seconds: float
    cpu_seconds: float
    peak_mib: float


def shard(step: int, responses: int) -> pa.RecordBatch:
    """The responses of a step; two in five tokens are nearly certain, as those of trained models are."""
    rng = np.random.default_rng([0, step])
    n = responses * RESPONSE_TOKENS
    mu_N = -rng.exponential(0.5, n) * (rng.random(n) < 0.6) - 1e-4
    pi_N = np.minimum(mu_N + 0.02 * rng.standard_normal(n), -1e-9)
    offsets = pa.array(np.arange(0, n + 1, RESPONSE_TOKENS), pa.int32())
    first = step * RESPONSES
    by_row = {
        "sequence_id": np.arange(first, first + responses),
        "step": np.full(responses, step),
        "prompt": np.arange(first, first + responses) // SAMPLES,
        "policy_version": np.full(responses, max(step - 1, 0)),
        "trainer_version": np.full(responses, step),
        "worker": np.array([f"worker-{row % 4}" for row in range(responses)]),
        "reward": rng.random(responses),
    }
    by_token = {
        "token_ids": rng.integers(0, 150_000, n),
        "mask": np.ones(n, dtype=bool),
        "behavior_logprobs": mu_N,
        "reference_logprobs": pi_N,
        "advantages": np.repeat(rng.standard_normal(responses), RESPONSE_TOKENS),
    }
    columns = {name: pa.array(value_R).cast(column_type(name)) for name, value_R in by_row.items()}
    for name, value_N in by_token.items():
        values = pa.array(value_N).cast(column_type(name).value_type)
        columns[name] = pa.ListArray.from_arrays(offsets, values)
    return pa.RecordBatch.from_pydict(columns)


def write_log(directory: Path, tokens: int) -> int:
    """Returns the bytes on disk."""
    writer = ShardWriter(directory, None)
    responses = max(1, tokens // RESPONSE_TOKENS)
    for step, first in enumerate(range(0, responses, RESPONSES)):
        writer.write([shard(step, min(RESPONSES, responses - first))])
    return sum(path.stat().st_size for path in directory.iterdir())


def tree_of(pid: int) -> list[int]:
    """A process and those below it."""
    found = [pid]
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in tasks.read_text().split():
            found += tree_of(int(child))
    return found


def proportional_mib(pid: int) -> float:
    """Memory of a process tree; pages that processes share count once."""
    total = 0
    for each in tree_of(pid):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def cost_of(command: Sequence[str | Path]) -> Cost:
    """What a command costs, run to its end, with the processes that it starts.

    Python keeps the modules that it has compiled, as it does of an installed package.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    peaks, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            try:
                peaks.append(proportional_mib(process.pid))
            except OSError:  # one of them has just ended
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if status:
        raise SystemExit(f"{command[0]} failed with exit code {status}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, cpu, max(peaks))


def measure(directory: Path, tokens: int) -> str:
    """The row of one size: the faster of `RUNS` rounds of both, one after the other."""
    size = write_log(directory / "log", tokens)
    program = Path(sys.executable).with_name("mismatchscope")
    report = directory / "report"
    analyze = [program, "analyze", "-q", directory / "log", "-o", report, "--force"]
    for command in ([sys.executable, "-c", DECODE, directory / "log"], analyze):
        cost_of(command)  # the files are then in the page cache, the modules compiled
    rounds = [(cost_of([sys.executable, "-c", DECODE, directory / "log"]), cost_of(analyze)) for _ in range(RUNS)]
    shutil.rmtree(directory)
    decoding, cost = (min(column) for column in zip(*rounds, strict=True))
    ratio = min(found.seconds / decoded.seconds for decoded, found in rounds)
    peak = max(found.peak_mib for _, found in rounds)
    return (
        f"| {tokens:,} | {size / 2**20:,.0f} | {decoding.seconds:.1f} | {decoding.cpu_seconds:.1f} "
        f"| {cost.seconds:.1f} | {cost.cpu_seconds:.1f} | {ratio:.1f} | {peak:,.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of tokens")
    scale = parser.parse_args().scale
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for full_size in SIZES:
            tokens = int(full_size * scale)
            rows.append(measure(Path(scratch, str(tokens)), tokens))
            print(rows[-1], flush=True)
    lines = [
        "# Cost of analyze",
        "",
        f"Made by `python benchmarks/analyze_cost.py` on {date.today()}: logs as the recorder writes them, float32",
        f"log-probs; {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, numpy",
        f"{np.__version__}, pyarrow {pa.__version__}.",
        "",
        "| tokens | MiB on disk | decoding, s | decoding, CPU s | analyze, s | analyze, CPU s | analyze / decoding "
        "| peak MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
        "Decoding is pyarrow's reading of every column, a row group at a time with its threads, in a process of",
        "its own. The command also starts Python, measures all that it says of a log and writes its reports. The",
        f"ratio is that of one round, the better of {RUNS}. Memory is that of all processes together.",
        "",
        "Claims: at 50,000,000 tokens at most 2.5 × decoding; never more than 1024 MiB, and at 50,000,000 tokens",
        "at most 100 MiB more than at 5,000,000.",
    ]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
