"""Staleness against numerics, prefix caches against weights, bad workers: simulated, and told apart."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_runs import RunDesign, SimulatedRun, simulated_run

from mismatchscope.analysis.group_rows import groups_of
from mismatchscope.analysis.groups import GroupSums
from mismatchscope.analysis.staleness import stale_cache_of, staleness_of

CACHE = {"steps": 24, "prompts": 12, "samples": 2, "length": (80, 120)}


def summed(run: SimulatedRun) -> GroupSums:
    sums = GroupSums()
    for block in run.blocks(400):
        sums.add(block)
    return sums


def lags(run: SimulatedRun) -> np.ndarray:
    trained_S = run.step_S + max(run.design.lags)
    return np.repeat(trained_S, run.length_S) - run.version_N


def test_the_split_is_that_of_the_true_tv() -> None:
    run = simulated_run(RunDesign(steps=20, prompts=24, lags=(0, 1, 2, 3), per_lag=0.4, error=0.3))
    lag_N = lags(run)
    by_lag = [run.tv_N[lag_N == lag].mean() for lag in range(4)]
    found = staleness_of(summed(run), tolerance=float(by_lag[1] + by_lag[2]) / 2)
    assert found is not None
    for interval, truth in (
        (found.numerics, run.tv_N[lag_N == 0].mean()),
        (found.total, run.mean_tv),
        (found.excess, run.mean_tv - run.tv_N[lag_N == 0].mean()),
        (found.per_lag, np.polyfit(lag_N, run.tv_N, 1)[0]),
        (found.within_steps, run.tv_N[lag_N > 0].mean() - run.tv_N[lag_N == 0].mean()),
    ):
        assert interval is not None and interval.low is not None and interval.high is not None
        assert interval.low - 0.2 * abs(truth) <= truth <= interval.high + 0.2 * abs(truth)
        assert interval.low > 0
    assert found.passed_at == 2
    assert found.remark is None


def test_without_staleness_the_excess_holds_zero() -> None:
    held = []
    for seed in range(40):
        run = simulated_run(RunDesign(steps=6, prompts=16, samples=1, lags=(0, 1, 2), length=(8, 32)), seed)
        found = staleness_of(summed(run))
        assert found is not None
        held.append(found.excess.low <= 0 <= found.excess.high and found.per_lag.low <= 0 <= found.per_lag.high)  # type: ignore[operator]
    assert np.mean(held) > 0.8  # both at 0.95


def test_lag_that_only_later_steps_have_may_be_a_drift() -> None:
    run = simulated_run(RunDesign(steps=10, lags=(0, 1), drift=2.0))
    block = run.block()
    early_N = np.repeat(run.step_S, run.length_S) < 3
    block.by_token["versions"] = np.where(early_N, np.repeat(run.step_S + 1, run.length_S), run.version_N * 0 - 5)
    sums = GroupSums()
    sums.add(block)
    found = staleness_of(sums)
    assert found is not None and found.remark is not None
    assert "0%" in found.remark
    assert found.within_steps is None


def test_a_log_of_one_lag_has_no_split() -> None:
    assert staleness_of(summed(simulated_run(RunDesign(lags=(0,))))) is None
    assert staleness_of(summed(simulated_run(RunDesign(lags=(1, 2))))) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "code", "at_least"),
    [
        ({"cache_from": 12, "cache_factor": 3.0, "cache_tokens": 16}, "stale_cache", 0.95),
        ({"change_at": 12, "change_factor": 2.0}, "stale_weights", 0.9),
        ({"step_spread": 0.1, "step_correlation": 0.5}, "neither", 0.9),
        ({}, "neither", 0.9),
    ],
)
def test_a_stale_cache_is_told_from_stale_weights(fault: dict[str, float], code: str, at_least: float) -> None:
    found = [stale_cache_of(summed(simulated_run(RunDesign(**CACHE, **fault), seed))) for seed in range(40)]  # type: ignore[arg-type]
    assert np.mean([each is not None and each.code == code for each in found]) >= at_least
    if code != "neither":
        assert np.mean([each is not None and each.since in (11, 12, 13) for each in found]) >= at_least - 0.1


def test_few_steps_or_short_responses_cannot_tell() -> None:
    short = stale_cache_of(summed(simulated_run(RunDesign(steps=20, length=(8, 30)))))
    few = stale_cache_of(summed(simulated_run(RunDesign(steps=5, length=(80, 120)))))
    assert short is not None and short.code == "cannot_tell"
    assert few is not None and few.code == "cannot_tell"
    assert few.early is None


def test_one_bad_worker_of_eight_is_named() -> None:
    design = RunDesign(steps=10, prompts=16, samples=4, workers=8, bad_worker=5, prompt_spread=0.5, length=(16, 48))
    found = []
    for seed in range(10):
        (table,) = [each for each in groups_of(summed(simulated_run(design, seed))) if each.by == "worker"]
        found.append([row.differs for row in table.rows])
    assert np.mean([each[5] for each in found]) == 1
    assert np.mean([any(each[:5] + each[6:]) for each in found]) <= 0.2
