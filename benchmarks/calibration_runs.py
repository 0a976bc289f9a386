"""Whole simulated logs with a known fault or none, and how often a report says so; for calibration_trend.py."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
import confounded_logs
from simulated_runs import RunDesign, simulated_run

from mismatchscope.analysis.groups import GroupSums
from mismatchscope.analysis.prefix_cache import stale_cache_of
from mismatchscope.analysis.staleness import staleness_of
from mismatchscope.analysis.trend import trends_of
from mismatchscope.analysis.workers import labels_apart

CACHE = RunDesign(steps=24, prompts=12, samples=2, length=(80, 120), step_spread=0.1, step_correlation=0.5)
WORKERS = RunDesign(steps=10, prompts=16, samples=4, workers=8, prompt_spread=0.8, length=(16, 48))
LAGS = RunDesign(steps=6, prompts=24, samples=2, lags=(0, 1, 2), length=(16, 48), prompt_spread=0.5, error=0.3)
TREND = RunDesign(steps=30, prompts=12, samples=2, length=(16, 40), step_spread=0.1, step_correlation=0.5)


Said = Callable[[GroupSums], dict[str, bool]]
"""From the sums of a log to what a report would say, each true or false."""


@dataclass(frozen=True)
class RunRow:
    run: str
    runs: int
    said: str
    share: float


def run_rows(runs: int, seed: int) -> list[RunRow]:
    parts = (_caches, _workers, _lags, _confounded, _trends)
    return [row for part in parts for row in part(runs, seed)]


def _shares(name: str, design: RunDesign, runs: int, seed: int, said: Said) -> Iterator[RunRow]:
    def log(number: int) -> GroupSums:
        sums = GroupSums()
        for block in simulated_run(design, 1000 * seed + number).blocks(1000):
            sums.add(block)
        return sums

    return _shares_of(name, log, runs, said)


def _shares_of(name: str, log: Callable[[int], GroupSums], runs: int, said: Said) -> Iterator[RunRow]:
    found: dict[str, list[bool]] = {}
    for number in range(runs):
        for sentence, holds in said(log(number)).items():
            found.setdefault(sentence, []).append(bool(holds))
    for sentence, held in found.items():
        yield RunRow(name, runs, sentence, float(np.mean(held)))


def _caches(runs: int, seed: int) -> Iterator[RunRow]:
    def said(sums: GroupSums) -> dict[str, bool]:
        code = stale_cache_of(sums).code
        return {each: code == each for each in ("stale_cache", "neither", "cannot_tell")}

    for name, design in {
        "neither": CACHE,
        "first 16 tokens × 3 from step 12": replace(CACHE, cache_from=12, cache_tokens=16, cache_factor=3.0),
        "first 16 tokens × 1.5 from step 12": replace(CACHE, cache_from=12, cache_tokens=16, cache_factor=1.5),
        "all tokens × 2 from step 12": replace(CACHE, change_at=12, change_factor=2.0),
    }.items():
        yield from _shares(name, design, runs, seed, said)


def _workers(runs: int, seed: int) -> Iterator[RunRow]:
    def said(sums: GroupSums) -> dict[str, bool]:
        apart = labels_apart(sums.cells, "worker")
        names = {sums.texts[label] for label, each in apart.items() if each.differs}
        return {"worker 5 differs": "worker-5" in names, "another worker differs": bool(names - {"worker-5"})}

    for name, design in {
        "eight workers alike": WORKERS,
        "two workers alike": replace(WORKERS, workers=2),
        "worker 5 of eight × 1.3": replace(WORKERS, bad_worker=5, bad_factor=1.3),
        "worker 5 of eight × 2": replace(WORKERS, bad_worker=5, bad_factor=2.0),
    }.items():
        yield from _shares(name, design, runs, seed, said)


def _lags(runs: int, seed: int) -> Iterator[RunRow]:
    for name, per_lag in (("no staleness", 0.0), ("error + 40 % a version", 0.4)):
        yield from _shares(name, replace(LAGS, per_lag=per_lag), runs, seed, _split(per_lag))


def _split(per_lag: float) -> Said:
    """The truth is that of a run a hundred times as long."""
    large = simulated_run(replace(LAGS, per_lag=per_lag, steps=600), 1)
    lag_N = np.repeat(large.step_S + 2, large.length_S) - large.version_N
    numerics = large.tv_N[lag_N == 0].mean()
    slope = np.polyfit(lag_N, large.tv_N, 1)[0]
    ratio = large.tv_N[lag_N > 0].mean() / numerics

    def said(sums: GroupSums) -> dict[str, bool]:
        found = staleness_of(sums)
        return {
            "numerics' interval holds": found.numerics.low <= numerics <= found.numerics.high,
            "excess's interval holds": found.excess.low <= large.tv_N.mean() - numerics <= found.excess.high,
            "interval a version holds": found.per_lag.low <= slope <= found.per_lag.high,
            "excess is above 0": found.excess.low > 0,
            "ratio at like conditions holds": found.alike.low <= ratio <= found.alike.high,
            "ratio at like conditions is above 1": found.alike.low > 1,
        }

    return said


def _confounded(runs: int, seed: int) -> Iterator[RunRow]:
    """Logs in which something else goes with the lag, a worker or the later steps, and the error with neither."""

    def lags(sums: GroupSums) -> dict[str, bool]:
        found = staleness_of(sums)
        return {
            "excess is above 0, unremarked": found.excess.low > 0 and found.remark is None,
            "ratio at like conditions is above 1": found.alike.low is not None and found.alike.low > 1,
            "ratio at like conditions is below 1": found.alike.high is not None and found.alike.high < 1,
        }

    def workers(sums: GroupSums) -> dict[str, bool]:
        return {"a worker differs": any(each.differs for each in labels_apart(sums.cells, "worker").values())}

    def caches(sums: GroupSums) -> dict[str, bool]:
        return {"stale_cache": stale_cache_of(sums).code == "stale_cache"}

    designs = [(design, lags) for design in confounded_logs.LAGS]
    designs += [(design, workers) for design in confounded_logs.WORKERS]
    named = [(design.__name__.replace("_", " "), design, said) for design, said in designs]
    for state in (*confounded_logs.STATES, "cache"):
        changes = partial(confounded_logs.states_change, change=state)
        named.append((f"from step 12 on: {state}", changes, caches))
    for name, design, said in named:
        yield from _shares_of(
            name, lambda number, design=design: design(np.random.default_rng([seed, number])), runs, said
        )


def _trends(runs: int, seed: int) -> Iterator[RunRow]:
    def said(sums: GroupSums) -> dict[str, bool]:
        found = trends_of(sums)
        tv, ess = found.token.tv, found.sequence.ess_fraction
        return {
            "TV's slope is above 0": tv.slope.low > 0,
            "TV's last over first is above 1": tv.relative.low is not None and tv.relative.low > 1,
            "TV has a change point": bool(tv.change_points),
            "ESS's last over first is below 1": ess.relative.high is not None and ess.relative.high < 1,
        }

    for name, design in {
        "nothing happens": TREND,
        "mismatch × 2 from step 20": replace(TREND, change_at=20, change_factor=2.0),
        "mismatch doubles over the run": replace(TREND, drift=float(np.log(2))),
    }.items():
        yield from _shares(name, design, runs, seed, said)
