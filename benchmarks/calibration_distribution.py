"""Claims: each check of the distribution fails on at most 1 % of sound logs; a planted fault is found by its check
in at least 95 %.

    python benchmarks/calibration_distribution.py [--logs N]

Simulates logs (`distribution_designs`, `distribution_faults`) and runs every check. Writes
benchmarks/results/calibration_distribution.md and .json.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from calibration_tables import made_by, table, write
from distribution_designs import SOUND, Columns, Design, block_of
from distribution_faults import FAULTS

from mismatchscope.analysis.distribution.checks import DistributionChecks
from mismatchscope.analysis.rows import Rejected
from mismatchscope.analysis.states import states_of
from mismatchscope.comparison.context import Context
from mismatchscope.comparison.pair import PolicyPair
from mismatchscope.comparison.statistics import PairStatistics
from mismatchscope.measures.distance_histogram import scored_distances
from mismatchscope.measures.log_results import DistributionCheck

DESIGNS: dict[str, Design] = SOUND | FAULTS


@dataclass(frozen=True)
class Row:
    """Of `logs` simulated: the share in which the planted fault's check failed, in which any other did, and which
    of them did most often."""

    design: str
    logs: int
    planted: str | None
    found: float | None
    others: float
    most: str | None


def checks_of(columns: Columns) -> list[DistributionCheck]:
    """What an analysis says of these responses."""
    block, rejected = block_of(columns), Rejected()
    dropped_S = ~np.logical_or.reduceat(columns.mask_R, columns.start_S)
    if dropped_S.any():  # as the rows of a log are dropped before they become a block
        distance_R, scored_R = scored_distances(columns.mu_R, columns.pi_R)
        sum_S = np.add.reduceat(np.where(scored_R, distance_R, 0.0), columns.start_S)
        tokens_S = np.add.reduceat(scored_R.astype(np.int64), columns.start_S)
        rejected.dropped.add((sum_S / np.maximum(tokens_S, 1))[dropped_S])
    statistics, checks = PairStatistics(), DistributionChecks()
    statistics.add(states_of(block))
    checks.add(block)
    return checks.results(PolicyPair(Context(), statistics), rejected)


def simulate(name: str, logs: int, seed: int = 0) -> Row:
    """One row of the table."""
    design, failed, found, others = DESIGNS[name], Counter[str](), 0, 0
    logs = max(1, logs // design.cost)
    for log in range(logs):
        rng = np.random.default_rng([seed, log, *name.encode()])
        codes = {check.code for check in checks_of(design.draw(rng)) if check.status == "fail"}
        found += set(design.fails) <= codes
        other = codes - set(design.fails)
        others += bool(other)
        failed.update(other)
    most = failed.most_common(1)
    return Row(
        design=name,
        logs=logs,
        planted=", ".join(design.fails) or None,
        found=found / logs if design.fails else None,
        others=others / logs,
        most=f"{most[0][0]} ({most[0][1] / logs:.3f})" if most else None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=int, default=300, help="simulated a design")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    started = time.monotonic()
    rows = []
    for name in DESIGNS:
        rows.append(simulate(name, options.logs, options.seed))
        print(rows[-1], flush=True)
    columns = {
        "design": "log",
        "logs": "logs",
        "planted": "planted: check",
        "found": "found",
        "others": "any other check fails",
        "most": "which most often",
    }
    sound = [row for row in rows if row.design in SOUND]
    faults = [row for row in rows if row.design in FAULTS]
    text = f"""# How often the checks of a log's distribution fail

{made_by("calibration_distribution.py", options.seed, time.monotonic() - started)}

Shares of simulated logs. A planted fault often trips other checks too, rightly: a shifted column has a mean ratio
other than 1. In sound logs any failing check is a false alarm: at most {max(row.others for row in sound):.3f} of
the logs of a design. A planted fault is found in at least {min(row.found or 0.0 for row in faults):.3f}.

No failure in 300 logs bounds a rate at 1 % with 95 % confidence. Of what a check looks at, the simulation has
everything but a vocabulary: its states have two tokens.

## Sound logs

{table(sound, {name: columns[name] for name in ("design", "logs", "others", "most")})}

## Planted faults

{table(faults, columns)}
"""
    write(options.output, "calibration_distribution", text, options.seed, rows)


if __name__ == "__main__":
    main()
