"""Make the cases that are not there yet.

python benchmarks/causes/make.py --part development --cases 4
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import store
from cases import Key, Part, keys

CACHE = Path.home() / ".cache" / "mismatchscope" / "causes"


def make(wanted: Sequence[Key], cache: Path, jobs: int) -> None:
    """All cases of these keys on disk; a process makes those of one model and stack."""
    groups: dict[tuple[Part, str, str], list[Key]] = defaultdict(list)
    for key in wanted:
        if not store.place(key, cache).exists():
            groups[key.part, key.model, key.stack].append(key)
    if jobs == 1:
        for group in groups.values():
            make_group(group, cache)
    else:
        with ProcessPoolExecutor(jobs) as pool:
            list(pool.map(make_group, groups.values(), [cache] * len(groups)))


def make_group(wanted: Sequence[Key], cache: Path) -> None:
    import torch
    from workshop import Workshop

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    first, start = wanted[0], time.time()
    workshop = Workshop(first.part, first.model, first.stack, cache)
    for number, case in enumerate(workshop.make(wanted), start=1):
        store.write(case.key, case.evidence, case.truth, cache)
        if number % 20 == 0 or number == len(wanted):
            seconds = time.time() - start
            progress = (
                f"{first.part}, {first.model}, {first.stack}: {number} of {len(wanted)} cases, {seconds:.0f} s"
            )
            print(progress, file=sys.stderr, flush=True)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--part", choices=["development", "held-out"], default="development")
    parser.add_argument("--cases", type=int, default=4, metavar="N", help="of each cause, model and stack")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=CACHE, help="where cases are kept")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make planted cases.")
    options(parser)
    chosen = parser.parse_args()
    make(list(keys(chosen.part, chosen.cases)), chosen.cache, chosen.jobs)


if __name__ == "__main__":
    main()
