"""Claim: what is said of a run over its steps, and of its workers and caches, errs as often as is stated.

    python benchmarks/calibration_trend.py

Noise over steps is an AR(1) process, the same with t₃ innovations, or an AR(1) process under as much white noise,
as where few prompts a step are measured of a slowly moving run. Then whole simulated logs: with nothing in them,
one bad worker of eight, a stale prefix cache, a change. Prints the tables and writes them to
benchmarks/results/calibration_trend.md and .json.

Shape suffixes: R runs, T steps.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from calibration_runs import RunRow, run_rows
from calibration_tables import made_by, table, write
from scipy.signal import lfilter

from mismatchscope.measures.autocorrelation import ar1_product, relative_change, slope
from mismatchscope.measures.change_points import change_points

STEPS = (8, 20, 50, 100, 200, 500)
CORRELATIONS = (0.0, 0.3, 0.5, 0.8)
KINDS = ("normal", "t₃", "with white noise")
SHIFTS = (1.0, 2.0, 3.0, 4.0)


@dataclass(frozen=True)
class NoiseRow:
    """Shares of `runs`; `width` is the slope's interval over that of known noise, `changes` are false alarms."""

    kind: str
    correlation: float
    steps: int
    runs: int
    slope: float
    width: float
    relative: float
    open_ended: float
    changes: float


@dataclass(frozen=True)
class ExtremeRow:
    """Of a figure that does not change: shares of `runs` whose last over first has an interval without 1, has no
    ends, and that have a change point."""

    kind: str
    steps: int
    runs: int
    wrong: float
    open_ended: float
    changes: float


@dataclass(frozen=True)
class ShiftRow:
    """Shares of `runs` with a change of `shift` standard deviations after half, or 85 %, of the steps in which one
    was found, and found within a tenth of the steps of it; and of those with a line of as much in all."""

    correlation: float
    steps: int
    shift: float
    runs: int
    half: float
    half_near: float
    late: float
    late_near: float
    line: float


def noise(rng: np.random.Generator, kind: str, correlation: float, runs: int, steps: int) -> np.ndarray:
    """With variance 1, [R, T]."""
    if kind == "t₃":
        innovation_RT = rng.standard_t(3, (runs, steps + 100)) / np.sqrt(3)
        value_RT = lfilter([1.0], [1.0, -correlation], innovation_RT, axis=1)[:, 100:]
        return value_RT * np.sqrt(1 - correlation**2)
    innovation_RT = rng.normal(size=(runs, steps))
    innovation_RT[:, 1:] *= np.sqrt(1 - correlation**2)
    value_RT = lfilter([1.0], [1.0, -correlation], innovation_RT, axis=1)
    return value_RT if kind == "normal" else np.sqrt(0.5) * (value_RT + rng.normal(size=(runs, steps)))


def noise_row(kind: str, correlation: float, steps: int, runs: int, seed: int) -> NoiseRow:
    rng = np.random.default_rng([seed, steps, round(10 * correlation), *kind.encode()])
    value_RT, step_T = noise(rng, kind, correlation, runs, steps), np.arange(steps, dtype=float)
    slopes = [slope(step_T, value_T) for value_T in value_RT]
    level_T = 1 + step_T / steps
    window = max(2, steps // 5)
    truth = level_T[-window:].mean() / level_T[:window].mean()
    ratios = [relative_change(level_T * np.exp(0.2 * value_T), window) for value_T in value_RT]
    found = [bool(change_points(step_T, value_T)) for value_T in value_RT]
    weight_T = (step_T - step_T.mean()) / np.sum((step_T - step_T.mean()) ** 2)
    known = 1.96 * np.sqrt(weight_T @ ar1_product(weight_T, correlation))
    return NoiseRow(
        kind=kind,
        correlation=correlation,
        steps=steps,
        runs=runs,
        slope=float(np.mean([each.low <= 0 <= each.high for each in slopes])),
        width=float(np.median([each.high for each in slopes] - np.array([each.value for each in slopes])) / known),
        relative=float(np.mean([each.low is None or each.low <= truth <= each.high for each in ratios])),
        open_ended=float(np.mean([each.low is None for each in ratios])),
        changes=float(np.mean(found)),
    )


EXTREMES = (
    "lognormal, sd 0.5",
    "lognormal, sd 1.5",
    "lognormal, sd 2",
    "3 % spikes of 20",
    "Pareto, 1.5",
    "batches grow 32 times at half",
    "batches shrink 32 times at half",
)


def extremes(rng: np.random.Generator, kind: str, shape: tuple[int, int]) -> np.ndarray:
    """Figures of steps of the same mean, [R, T]."""
    if kind.startswith("lognormal"):
        return np.exp(float(kind.split()[-1]) * rng.normal(size=shape))
    if kind.startswith("3 %"):
        return np.exp(0.1 * rng.normal(size=shape)) * np.where(rng.random(shape) < 0.03, 20, 1)
    if kind.startswith("Pareto"):
        return rng.pareto(1.5, shape) + 0.1
    half = (shape[0], shape[1] // 2)
    value_RT = np.concatenate([rng.gamma(0.5, 2, half), rng.gamma(16, 1 / 16, half)], axis=1)
    return value_RT[:, ::-1] if "shrink" in kind else value_RT


def extreme_row(kind: str, steps: int, runs: int, seed: int) -> ExtremeRow:
    rng = np.random.default_rng([seed, steps, *kind.encode()])
    value_RT, step_T = extremes(rng, kind, (runs, steps)), np.arange(steps, dtype=float)
    ratios = [relative_change(value_T, max(3, steps // 5)) for value_T in value_RT]
    return ExtremeRow(
        kind=kind,
        steps=steps,
        runs=runs,
        wrong=float(np.mean([each.low is not None and not each.low <= 1 <= each.high for each in ratios])),
        open_ended=float(np.mean([each.low is None for each in ratios])),
        changes=float(np.mean([bool(change_points(step_T, value_T)) for value_T in value_RT])),
    )


def shift_row(correlation: float, steps: int, shift: float, runs: int, seed: int) -> ShiftRow:
    rng = np.random.default_rng([seed, steps, round(10 * correlation), round(10 * shift)])
    step_T, found = np.arange(steps), {}
    for name, place in (("half", steps // 2), ("late", round(0.85 * steps))):
        value_RT = noise(rng, "normal", correlation, runs, steps) + shift * (step_T >= place)
        changes = [change_points(step_T, value_T) for value_T in value_RT]
        found[name] = float(np.mean([bool(each) for each in changes]))
        near = [any(abs(change.step - place) <= steps / 10 for change in each) for each in changes]
        found[f"{name}_near"] = float(np.mean(near))
    line_RT = noise(rng, "normal", correlation, runs, steps) + shift * np.linspace(0, 1, steps)
    found["line"] = float(np.mean([bool(change_points(step_T, value_T)) for value_T in line_RT]))
    return ShiftRow(correlation=correlation, steps=steps, shift=shift, runs=runs, **found)


def _document(
    noises: list[NoiseRow],
    extreme: list[ExtremeRow],
    shifts: list[ShiftRow],
    runs: list[RunRow],
    seed: int,
    seconds: float,
) -> str:
    noise_columns = {
        "kind": "AR(1) noise",
        "correlation": "ρ",
        "steps": "steps",
        "slope": "slope's interval holds",
        "width": "its width over that of known noise",
        "relative": "interval of last over first holds",
        "open_ended": "or has no ends",
        "changes": "runs with a change point",
    }
    extreme_columns = {
        "kind": "noise",
        "steps": "steps",
        "wrong": "interval of last over first without 1",
        "open_ended": "without ends",
        "changes": "runs with a change point",
    }
    shift_columns = {
        "correlation": "ρ",
        "steps": "steps",
        "shift": "standard deviations",
        "half": "found, at half",
        "half_near": "where it is",
        "late": "found, at 85 %",
        "late_near": "where it is ",
        "line": "a line taken for one",
    }
    run_columns = {"run": "simulated log", "runs": "logs", "said": "what is said", "share": "share of logs"}
    return f"""# Calibration of trends and of what differs

{made_by("calibration_trend.py", seed, seconds)}

## Noise without a change

{noises[0].runs} runs a row. Intervals are nominal 0.95; a change point is one with p < 0.01. The ratio of the last
to the first fifth is of a level that doubles, with noise in proportion to it. The width of runs under white noise
is over that of the AR(1) process alone.

{table(noises, noise_columns)}

## Extreme steps, and noise that changes

{extreme[0].runs} runs a row of a figure whose mean never changes. A ratio has no ends where a few steps make the
means.

{table(extreme, extreme_columns)}

## A change of level, and a line

{shifts[0].runs} runs a row, AR(1) noise of the given ρ.

{table(shifts, shift_columns)}

## Whole logs

{table(runs, run_columns)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how often what is said of a run's course errs.")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--shifts", type=int, default=300)
    parser.add_argument("--logs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    of = parser.parse_args()

    start = time.process_time()
    noises = [
        noise_row(kind, rho, steps, of.runs, of.seed) for kind in KINDS for rho in CORRELATIONS for steps in STEPS
    ]
    extreme = [extreme_row(kind, steps, of.runs, of.seed) for kind in EXTREMES for steps in (10, 20, 50, 100, 300)]
    shifts = [
        shift_row(rho, steps, shift, of.shifts, of.seed)
        for rho in (0.0, 0.5, 0.8)
        for steps in (20, 50, 100, 200)
        for shift in SHIFTS
    ]
    runs = run_rows(of.logs, of.seed)
    document = _document(noises, extreme, shifts, runs, of.seed, time.process_time() - start)
    write(of.output, "calibration_trend", document, of.seed, [*noises, *extreme, *shifts, *runs])


if __name__ == "__main__":
    main()
