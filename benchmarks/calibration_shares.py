"""Claim: the upper limit of a share of tokens holds where few and long prompts hold most of what is beyond.

    python benchmarks/calibration_shares.py

A share of the prompts is hard: beyond the threshold at some of their tokens or at all, and up to three times as
long as the others. Counts how often the limit holds, beside the upper end of the clustered interval of the share,
which knows no prompts but those seen. Prints the table and writes it to
benchmarks/results/calibration_shares.md and .json.

Shape suffixes: C prompts.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from calibration_tables import made_by, table, write

from mismatchscope.measures.intervals import ratio_interval
from mismatchscope.measures.share_limit import share_upper_limits

HARD = (0.02, 0.05, 0.15, 0.5)
PROMPTS = (8, 16, 64)
SAMPLES = (1, 8)
# What share of a hard prompt's tokens is beyond the threshold.
KINDS = {
    "at every token": lambda rng, clusters: np.ones(clusters),
    "Pareto": lambda rng, clusters: np.minimum(1, 0.005 * (1 + rng.pareto(1.0, clusters))),
    "few, and 1 in 20 at every token": lambda rng, clusters: np.where(rng.random(clusters) < 0.05, 1.0, 0.003),
}


@dataclass(frozen=True)
class Row:
    kind: str
    hard: float
    samples: int
    prompts: int
    audits: int
    held: float
    normal_held: float
    truth: float
    median_limit: float


def draw(
    rng: np.random.Generator, kind: str, hard: float, samples: int, clusters: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens beyond the threshold, and all tokens, of each prompt."""
    hard_C, share_C = rng.random(clusters) < hard, KINDS[kind](rng, clusters)
    length_C = rng.uniform(20, 400, clusters) * samples * np.where(hard_C, 1 + 2 * np.sqrt(share_C), 1)
    count_C = length_C.astype(int)
    return np.where(hard_C, np.maximum(1, rng.binomial(count_C, share_C)), 0), count_C


def calibrate(kind: str, hard: float, samples: int, prompts: int, audits: int, seed: int) -> Row:
    rng = np.random.default_rng([seed, samples, prompts, round(100 * hard), *kind.encode()])
    hits_C, count_C = draw(rng, kind, hard, samples, 1_000_000)
    truth = hits_C.sum() / count_C.sum()
    limits, normal = [], []
    for _ in range(audits):
        hits_C, count_C = draw(rng, kind, hard, samples, prompts)
        limits.append(share_upper_limits(hits_C[:, None], count_C)[0])
        normal.append(ratio_interval(hits_C, count_C, confidence=0.9, bounds=(0.0, 1.0)).high or 0.0)
    held, normal_held = (float(np.mean(np.array(each) >= truth)) for each in (limits, normal))
    return Row(kind, hard, samples, prompts, audits, held, normal_held, float(truth), float(np.median(limits)))


def _document(rows: list[Row], seed: int, seconds: float) -> str:
    columns = {
        "kind": "hard prompts are beyond τ",
        "hard": "share of prompts",
        "samples": "samples",
        "prompts": "prompts",
        "held": "limit holds",
        "normal_held": "clustered interval's upper end holds",
        "truth": "true share of tokens",
        "median_limit": "median limit",
    }
    return f"""# Calibration of the limit on a share of tokens

{made_by("calibration_shares.py", seed, seconds)}
{rows[0].audits} simulated audits a row, nominal 0.95.

{table(rows, columns)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how often the limit on a share of tokens holds.")
    parser.add_argument("--audits", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()

    start = time.process_time()
    rows = [
        calibrate(kind, hard, samples, prompts, arguments.audits, arguments.seed)
        for kind in KINDS
        for hard in HARD
        for samples in SAMPLES
        for prompts in PROMPTS
    ]
    document = _document(rows, arguments.seed, time.process_time() - start)
    write(arguments.output, "calibration_shares", document, arguments.seed, rows)


if __name__ == "__main__":
    main()
