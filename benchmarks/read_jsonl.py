"""Claim: reading JSON lines into rows, a trainer's or those of a table whose columns a map describes, takes at most
1.5 times as long as orjson takes to parse them.

    python benchmarks/read_jsonl.py

Files of NeMo-RL's and prime-rl's layout, and one of a table with a column map, are written to a temporary directory
and read in this process, on one core, in turn: by `orjson.loads` of every line, which throws away what it made, and
by `open_logs`, parts and rows, whose Arrow columns are thrown away too. The ratio is that of processor time, which
other programs on the machine change less. Prints the table and writes it to
benchmarks/results/read_jsonl.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median

import orjson

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests" / "support"))

from log_writers import nemo_rl, prime_rl  # noqa: E402
from log_writers.samples import Sample, samples  # noqa: E402

from mismatchscope.logs.reading import Log, open_logs  # noqa: E402

RESULT = Path(__file__).parent / "results" / "read_jsonl.md"
LIMIT = 1.5
MAP = """
lists = "sequence"
[columns]
token_ids = "tokens"
behavior_logprobs = "sampler"
reference_logprobs = "trainer"
mask = "mask"
"""


def write_table(directory: Path, written: list[Sample]) -> None:
    rows = [
        {
            "tokens": sample.tokens_T.tolist(),
            "sampler": sample.mu_T.tolist(),
            "trainer": sample.pi_T.tolist(),
            "mask": sample.generated_T.tolist(),
        }
        for sample in written
    ]
    directory.mkdir()
    (directory / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (directory / "map.toml").write_text(MAP, encoding="utf-8")


def parse(log: Log) -> int:
    """What any reader of these files must do."""
    rows = 0
    for path in log.files:
        with open(path, "rb") as file:
            for line in file:
                orjson.loads(line)
                rows += 1
    return rows


def read(log: Log) -> int:
    return sum(batch.rows.num_rows for part in log.parts() for batch in log.read(part))


CONTENDERS: dict[str, Callable[[Log], int]] = {"orjson": parse, "mismatchscope": read}


def measured(name: str, log: Log, repeats: int) -> tuple[list[str], float]:
    """The table's rows for one log, and the ratio of the medians of processor time."""
    wall, cpu = ({contender: [] for contender in CONTENDERS} for _ in range(2))
    for repeat in range(repeats + 1):
        for contender, run in CONTENDERS.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            rows = run(log)
            if repeat:  # the first one imports and fills caches
                wall[contender].append(time.perf_counter() - began)
                cpu[contender].append(time.process_time() - began_cpu)
            assert rows
    size = sum(path.stat().st_size for path in log.files) / 2**20
    base = median(cpu["orjson"])
    lines = []
    for contender, times in wall.items():
        middle = median(cpu[contender])
        lines.append(
            f"| {name} | {contender} | {size:.0f} | {1000 * median(times):.0f} ({1000 * min(times):.0f}) "
            f"| {1000 * middle:.0f} | {size / middle:.0f} | {middle / base:.2f} |"
        )
    return lines, median(cpu["mismatchscope"]) / base


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--samples", type=int, default=256)
    options.add_argument("--longest", type=int, default=4096)
    options.add_argument("--repeats", type=int, default=9)
    options.add_argument("--output", type=Path, default=RESULT)
    asked = options.parse_args()
    before = os.getloadavg()[0]
    written = samples(asked.samples, longest=asked.longest)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        for step, half in enumerate((written[::2], written[1::2])):
            nemo_rl.write_step(place / "nemo", step, half, multiple_of=64)
            prime_rl.write_rank(place / "prime", step, 0, half)
        write_table(place / "table", written)
        logs = {
            "NeMo-RL, padded": open_logs([place / "nemo"]),
            "prime-rl": open_logs([place / "prime"]),
            "a table with a map": open_logs([place / "table"], column_map=place / "table" / "map.toml"),
        }
        found = {name: measured(name, log, asked.repeats) for name, log in logs.items()}
    tokens = sum(len(sample.tokens_T) for sample in written)
    facts = (
        f"Made by `python benchmarks/read_jsonl.py` on {date.today()}: {len(written)} sequences, {tokens:,} "
        f"tokens; medians of {asked.repeats} readings in turn, in brackets the fastest; one core. "
        f"{platform.machine()}, {os.cpu_count()} cores, load average {before:.1f} before and "
        f"{os.getloadavg()[0]:.1f} after, Python {platform.python_version()}, orjson {orjson.__version__}."
    )
    head = "| log | contender | MiB | ms | processor ms | MiB / s | ratio |\n|---|---|---|---|---|---|---|"
    table = "\n".join(line for lines, _ in found.values() for line in lines)
    text = f"# Reading JSON lines: time against parsing them\n\n{facts}\n\n{head}\n{table}\n"
    print(text)
    asked.output.write_text(text, encoding="utf-8")
    return int(any(ratio > LIMIT for _, ratio in found.values()))


if __name__ == "__main__":
    raise SystemExit(main())
