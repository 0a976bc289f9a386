"""Claim: what a report says of tails holds as often as it says: the tail model of maxima, the interval of the ESS.

    python benchmarks/calibration_tails.py

Maxima are drawn from populations with bounded and heavy tails; the interval of their 0.999 quantile is tried.
Importance weights are log-normal, with one spread or with a small and a large one by prompt, and share a part by
prompt; the interval of their ESS is tried where a report would give one. Prints the tables and writes them to
benchmarks/results/calibration_tails.md and .json.

Shape suffixes: C prompts, S responses.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from calibration_tables import made_by, table, write
from scipy import stats

from mismatchscope.measures.tail import tail_extrapolation
from mismatchscope.measures.weights import weight_figures

QUANTILE = 0.999
POPULATIONS = {
    "uniform to ½": stats.uniform(0, 0.5),
    "uniform to 1": stats.uniform(0, 1),
    "beta(5, 1)": stats.beta(5, 1),
    "beta(½, ½)": stats.beta(0.5, 0.5),
    "beta(2, 5)": stats.beta(2, 5),
    "Pareto, index 0.7, cut at 1": stats.truncpareto(0.7, 100, scale=0.01),
    "Pareto, index 1.2, cut at 1": stats.truncpareto(1.2, 1000, scale=0.001),
    "Pareto, index 1.5, clipped to 1": stats.pareto(1.5, scale=0.01),
    "Pareto, index 3": stats.pareto(3, scale=0.02),
    "log-normal, spread 1.2": stats.lognorm(1.2, scale=0.01),
}
TAIL_PROMPTS = (120, 400, 1500)
SPREADS = (0.02, 0.1, 0.3, 0.6, 1.0)
WEIGHT_PROMPTS = (8, 16, 64, 256)
# Of the spread of a log weight, the part that all responses of a prompt share.
SHARED = 0.6
# Half of the prompts have the one multiple of the spread, half the other.
UNEQUAL = np.array([0.5, 1.5])


@dataclass(frozen=True)
class TailRow:
    """How often the tail model's interval held."""

    population: str
    prompts: int
    audits: int
    held: float
    high_held: float
    truth: float
    median_low: float
    median_high: float


@dataclass(frozen=True)
class WeightRow:
    """How often the interval of the ESS held where there was one, in a share `given` of the audits."""

    spread: float
    prompts_differ: str
    prompts: int
    samples: int
    audits: int
    given: float
    held: float | None
    truth: float


def calibrate_tail(name: str, prompts: int, audits: int, seed: int) -> TailRow:
    population = POPULATIONS[name]
    rng = np.random.default_rng([seed, prompts, *name.encode()])
    truth = min(1.0, float(population.ppf(QUANTILE)))
    found = [
        tail_extrapolation(np.minimum(1, population.rvs(prompts, random_state=rng)), quantile=QUANTILE)
        for _ in range(audits)
    ]
    low, high = (np.array([getattr(tail, end) for tail in found]) for end in ("low", "high"))
    held = (low <= truth) & (truth <= high)
    ends = float(np.median(low)), float(np.median(high))
    return TailRow(name, prompts, audits, float(held.mean()), float((truth <= high).mean()), truth, *ends)


def calibrate_weights(
    spread: float, unequal: bool, prompts: int, samples: int, audits: int, seed: int
) -> WeightRow:
    rng = np.random.default_rng([seed, prompts, samples, round(1000 * spread), unequal])
    multiples = UNEQUAL if unequal else np.ones(1)
    truth = float(1 / np.exp((spread * multiples) ** 2).mean())  # E w = 1 for every prompt, E w² = exp(spread²)
    held = []
    for _ in range(audits):
        spread_C = spread * rng.choice(multiples, prompts)
        shared_C, own_CS = rng.normal(size=(prompts, 1)), rng.normal(size=(prompts, samples))
        normal_CS = SHARED * shared_C + math.sqrt(1 - SHARED**2) * own_CS
        log_weight_CS = spread_C[:, None] * normal_CS - spread_C[:, None] ** 2 / 2
        figures = weight_figures(log_weight_CS.ravel(), np.repeat(np.arange(prompts), samples))
        if figures.low is not None and figures.high is not None:
            held.append(figures.low <= truth <= figures.high)
    rate = float(np.mean(held)) if held else None
    differ = "yes" if unequal else "no"
    return WeightRow(spread, differ, prompts, samples, audits, len(held) / audits, rate, truth)


def _document(tails: list[TailRow], weights: list[WeightRow], seed: int, seconds: float) -> str:
    tail_columns = {
        "population": "maxima",
        "prompts": "prompts",
        "held": "interval holds",
        "high_held": "upper end holds",
        "truth": "true quantile",
        "median_low": "median low",
        "median_high": "median high",
    }
    weight_columns = {
        "spread": "spread of log ρ(y)",
        "prompts_differ": "prompts differ",
        "prompts": "prompts",
        "samples": "samples",
        "given": "interval given",
        "held": "interval holds",
        "truth": "true ESS / N",
    }
    return f"""# Calibration of tails

{made_by("calibration_tails.py", seed, seconds)}
{tails[0].audits} simulated audits a row of the first table, {weights[0].audits} of the second.

## The tail model: how often the 95 % interval holds the {QUANTILE} quantile of the prompts' maxima

{table(tails, tail_columns)}

The lower end holds for any distribution. The upper end rests on the model, with a likelihood ratio of two degrees
of freedom, so it is wide for tails that have no end.

## ESS: how often the 95 % interval holds (E w)² / E w²

{table(weights, weight_columns)}

An interval is given where Pareto k is within its limit. With weights spread by 1 and more, and few responses, a
sample without the heavy weights passes that test, and its interval ends too high.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the coverage of the tail model and of the ESS interval.")
    parser.add_argument("--audits", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()

    start = time.process_time()
    audits, seed = arguments.audits, arguments.seed
    tails = [calibrate_tail(name, prompts, audits, seed) for name in POPULATIONS for prompts in TAIL_PROMPTS]
    settings: list[tuple[float, bool, int, int]] = [
        (spread, unequal, prompts, samples)
        for spread in SPREADS
        for unequal in (False, True)
        for prompts in WEIGHT_PROMPTS
        for samples in (1, 8)
        if prompts * samples >= 25
    ]
    weights = [calibrate_weights(*setting, audits=5 * audits // 2, seed=seed) for setting in settings]
    document = _document(tails, weights, seed, time.process_time() - start)
    rows: list[Any] = [*tails, *weights]
    write(arguments.output, "calibration_tails", document, seed, rows)


if __name__ == "__main__":
    main()
