"""Trends of simulated runs: what has been built in is found, and where nothing was nothing is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulated_runs import RunDesign, simulated_run

from mismatchscope.analysis.groups import GroupSums
from mismatchscope.analysis.trend import run_scalars, scalar_trend, steps_beyond, trend, trends_of
from mismatchscope.measures.log_results import Trends
from mismatchscope.measures.results import Interval

SMALL = {"prompts": 12, "samples": 2, "length": (16, 40)}


def trends(design: RunDesign, seed: int = 0, **options: object) -> Trends:
    sums = GroupSums()
    for block in simulated_run(design, seed).blocks(400):
        sums.add(block)
    found = trends_of(sums, **options)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_values_are_the_steps_own_figures() -> None:
    run = simulated_run(RunDesign(steps=8, error=0.3, lags=(0, 1), **SMALL))  # type: ignore[arg-type]
    sums = GroupSums()
    for block in run.blocks(50):
        sums.add(block)
    found = trends_of(sums)
    assert found is not None
    sequence_N = np.repeat(np.arange(len(run.length_S)), run.length_S)
    d_N = run.logp_pi_N - run.logp_mu_N
    of_N = run.step_S[sequence_N] == 5
    log_ratio_S = np.bincount(sequence_N, d_N)[run.step_S == 5]
    assert found.token.k1 and found.token.tv and found.sequence.tv and found.sequence.ess_fraction
    assert found.token.k1.values[5] == pytest.approx(-d_N[of_N].mean())
    assert found.token.tv.values[5] == pytest.approx(np.maximum(0, 1 - np.exp(d_N[of_N])).mean())
    assert found.sequence.tv.values[5] == pytest.approx(np.maximum(0, 1 - np.exp(log_ratio_S)).mean())
    weight_S = np.exp(log_ratio_S)
    assert found.sequence.ess_fraction.values[5] == pytest.approx(
        weight_S.sum() ** 2 / len(weight_S) / (weight_S @ weight_S)
    )
    assert found.run.reward and found.run.entropy and found.run.response_length and found.run.lag
    assert found.run.reward.values[5] == pytest.approx(run.reward_S[run.step_S == 5].mean())
    assert found.run.entropy.values[5] == pytest.approx(run.entropy_N[of_N].mean())
    assert found.run.response_length.values[5] == pytest.approx(run.length_S[run.step_S == 5].mean())
    assert found.run.lag.values[5] == pytest.approx((6 - run.version_N[of_N]).mean())
    assert found.run.grad_norm is None


def test_a_change_of_the_mismatch_is_found_at_its_step() -> None:
    found = trends(RunDesign(steps=30, change_at=20, change_factor=3.0, **SMALL)).token.tv  # type: ignore[arg-type]
    assert found is not None
    (change,) = found.change_points
    assert change.step == 20
    assert change.after / change.before == pytest.approx(3, rel=0.2)
    assert found.relative.low is not None and found.relative.low > 2
    assert (found.first_steps, found.last_steps) == ((0, 5), (24, 29))


def test_a_drift_has_a_slope_and_no_change_point() -> None:
    found = trends(RunDesign(steps=30, drift=1.5, **SMALL)).token.tv  # type: ignore[arg-type]
    assert found is not None and found.slope.low is not None
    assert found.slope.low > 0
    assert found.change_points == ()


@pytest.mark.slow
def test_runs_in_which_nothing_happens_rarely_show_anything() -> None:
    design = RunDesign(steps=24, step_spread=0.1, step_correlation=0.5, **SMALL)  # type: ignore[arg-type]
    found = [trends(design, seed).token.tv for seed in range(100)]
    assert all(each is not None and each.slope.low is not None and each.relative.low is not None for each in found)
    assert np.mean([bool(each.change_points) for each in found]) <= 0.05  # type: ignore[union-attr]
    assert np.mean([each.slope.low <= 0 <= each.slope.high for each in found]) > 0.88  # type: ignore[union-attr, operator]
    assert np.mean([each.relative.low <= 1 <= each.relative.high for each in found]) > 0.88  # type: ignore[union-attr, operator]


def test_steps_in_a_row_have_their_whole_intervals_beyond_a_tolerance() -> None:
    at_T = [Interval(value, value - 0.1, value + 0.1) for value in (0.45, 0.1, 0.35, 0.45, 0.6)]

    def passed_at(tolerance: float | None, below: bool = False) -> int | None:
        return trend(np.arange(5), at_T, tolerance=tolerance, below=below).passed_at  # type: ignore[union-attr]

    assert passed_at(0.3) == 3
    assert passed_at(0.46, below=True) == 1
    assert passed_at(0.3, below=True) is None
    assert passed_at(0.9) is None
    assert passed_at(None) is None


def test_steps_without_an_interval_are_passed_over() -> None:
    at_T = [Interval(0.1, 0.0, 0.2), Interval(0.5, 0.4, 0.6), Interval(None), Interval(0.5, 0.4, 0.6)]
    assert trend(np.arange(4), at_T, tolerance=0.3).passed_at == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("steps", [2, 10, 80, 1000])
def test_a_run_at_the_tolerance_rarely_passes_it(steps: int) -> None:
    """At most 5 % of 2,000 runs do; the first single step beyond it is there in 5, 22, 87 and 100 %."""
    rng = np.random.default_rng(steps)
    needed = steps_beyond(steps, 0.95)
    beyond_RT = rng.random((2000, steps)) < 0.025
    rows_RT = sum(beyond_RT[:, i : steps - needed + 1 + i].astype(int) for i in range(needed)) == needed
    assert rows_RT.any(axis=1).mean() <= 0.065


def test_the_first_and_the_last_steps_of_a_short_run_are_apart() -> None:
    for steps in (2, 3, 4, 5, 6, 20):
        found = trend(np.arange(steps), [Interval(1.0 + step) for step in range(steps)])
        assert found is not None and found.first_steps[1] < found.last_steps[0]
        assert found.relative.value is not None and found.relative.value > 1


def test_unknown_and_infinite_steps_keep_their_place_and_are_in_no_slope() -> None:
    values = [1.0, None, 2.0, float("inf"), 3.0]
    found = trend(np.array([0, 1, 2, 3, 4]), [Interval(value) for value in values])
    assert found is not None
    assert found.values == tuple(values)
    assert found.slope.value == pytest.approx(0.5)
    assert found.slope.n == 3
    assert trend(np.arange(2), [Interval(None), Interval(1.0)]) is None


def test_scalars_of_the_trainer_are_trends_too() -> None:
    found = trends(
        RunDesign(steps=12, **SMALL),  # type: ignore[arg-type]
        scalars={"grad_norm": {step: 1.0 + step for step in range(12)}, "reward": {0: 9.0, 1: 9.0}},
    )
    assert found.run.grad_norm is not None and found.run.grad_norm.slope.value == pytest.approx(1.0)
    assert found.run.grad_norm.low == (None,) * 12
    assert found.run.reward is not None and found.run.reward.values[0] != 9.0
    assert scalar_trend({3: 1.0}) is None


def test_a_tolerance_of_ess_is_passed_from_above() -> None:
    found = trends(
        RunDesign(steps=12, change_at=6, change_factor=6.0, error=0.2, **SMALL),  # type: ignore[arg-type]
        tolerances={"sequence.ess_fraction": 0.6, "token.tv": 0.05},
    )
    assert found.sequence.ess_fraction is not None and found.sequence.ess_fraction.passed_at in range(6, 9)
    assert found.token.tv is not None and found.token.tv.passed_at == 6


def test_the_trainers_own_names_of_run_figures_are_known() -> None:
    logged = {"actor/grad_norm": {0: 1.0}, "critic/rewards/mean": {0: 2.0}, "actor/entropy_loss": {0: 3.0}}
    assert run_scalars(logged) == {"grad_norm": {0: 1.0}, "reward": {0: 2.0}}
    assert run_scalars(None) == {}


def test_ess_of_steps_of_different_sizes_is_that_of_groups_of_one_size() -> None:
    block = simulated_run(RunDesign(steps=1, prompts=440, error=1.0, length=(20, 30))).block()
    size_T = np.repeat([16, 72], 10)
    sums = GroupSums()
    sums.add(replace(block, by_row=block.by_row | {"step": np.repeat(np.arange(20), size_T)}))
    found = trends_of(sums)
    assert found is not None and found.sequence.ess_fraction is not None
    assert found.sequence.ess_fraction.at_responses == 16
    relative = found.sequence.ess_fraction.relative
    assert relative.low is not None and relative.high is not None and relative.low < 1 < relative.high
