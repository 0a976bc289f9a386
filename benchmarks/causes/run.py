"""Claim: causes that are planted are named, in so many of a hundred cases; what is not known is said to be unknown.

    python benchmarks/causes/run.py --part development --cases 5 --jobs 1
    python benchmarks/causes/run.py --part held-out --cases 3 --jobs 1

Makes the cases that are not in the cache, asks the detectors of each at six levels of evidence, and prints tables
of what they said. The development part also writes how often each detector was right, and what was there when
nothing was named, to mismatchscope/diagnosis/precision.json, which the package reads; the held-out part is only
reported, with what experiments add. Both are in results/causes.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import make  # noqa: E402
import report  # noqa: E402
from answers import answer, answer_across, look, tally, untold  # noqa: E402
from cases import keys  # noqa: E402
from narrow import narrowed  # noqa: E402

PRECISION = ROOT / "mismatchscope" / "diagnosis" / "precision.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    make.options(parser)
    parser.add_argument("--only-made", action="store_true", help="ask of the cases that are in the cache already")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    chosen = parser.parse_args()
    wanted = list(keys(chosen.part, chosen.cases))
    if not chosen.only_made:
        make.make(wanted, chosen.cache, chosen.jobs)
    looked = look(wanted, chosen.cache, chosen.jobs)
    if chosen.part == "development":
        table = tally(looked)
        scored = answer_across(looked)
        records = {"detectors": table, "untold": untold(scored)}
        PRECISION.write_text(json.dumps(records, indent=1, sort_keys=True) + "\n")
    else:
        table = json.loads(PRECISION.read_text())["detectors"]
        scored = [*answer(looked, table), *narrowed(looked, table, chosen.cache, chosen.jobs)]
    report.write(chosen.output, chosen.part, scored, sum(os.times()[:4]), chosen.cases)


if __name__ == "__main__":
    main()
