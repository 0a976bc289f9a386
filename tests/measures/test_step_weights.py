"""ESS and the mean weight of a step from sums by prompt, against `weights`, which has every weight."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures.intervals import clustered_mean
from mismatchscope.measures.step_weights import comparable_size, ess_interval, ess_of_groups, mean_weight
from mismatchscope.measures.weights import weight_figures


def by_prompt(log_ratio_S: np.ndarray, prompt_S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    log_CG = np.full((prompt_S.max() + 1, 2), -np.inf)
    for power in (1, 2):
        np.logaddexp.at(log_CG[:, power - 1], prompt_S, power * log_ratio_S)
    return log_CG, np.bincount(prompt_S).astype(float)


@pytest.mark.parametrize("shift", [0.0, -800.0, 300.0])
def test_ess_is_that_of_every_weight(shift: float) -> None:
    rng = np.random.default_rng(0)
    prompt_S = np.repeat(np.arange(40), 4)
    log_ratio_S = rng.normal(scale=0.4, size=160) + shift
    ours, theirs = ess_interval(*by_prompt(log_ratio_S, prompt_S)), weight_figures(log_ratio_S, prompt_S)
    assert ours.value == pytest.approx(theirs.ess_fraction, rel=1e-9)
    assert ours.low == pytest.approx(theirs.low, rel=1e-6)
    assert ours.high == pytest.approx(theirs.high, rel=1e-6)


def test_the_mean_weight_is_clustered_by_prompt() -> None:
    rng = np.random.default_rng(1)
    prompt_S, log_ratio_S = np.repeat(np.arange(40), 4), rng.normal(scale=0.4, size=160)
    ours = mean_weight(*by_prompt(log_ratio_S, prompt_S))
    theirs = clustered_mean(np.exp(log_ratio_S), prompt_S, bounds=(0, np.inf))
    assert (ours.value, ours.low, ours.high) == pytest.approx((theirs.value, theirs.low, theirs.high))


def test_no_weight_is_no_figure() -> None:
    nothing = np.full((3, 2), -np.inf)
    assert ess_interval(nothing, np.zeros(3)).value is None
    assert ess_interval(nothing, np.ones(3)).value is None
    assert mean_weight(nothing, np.zeros(3)).value is None
    assert mean_weight(np.full((3, 2), 800.0), np.ones(3)).value is None


def test_groups_of_one_size_compare_steps_of_different_sizes() -> None:
    """ESS / N of heavy weights falls with N; that of groups does not."""
    rng = np.random.default_rng(2)
    steps = {
        size: [by_prompt(rng.normal(scale=2.0, size=size), np.arange(size) // 4) for _ in range(960 // size * 16)]
        for size in (16, 512)
    }
    assert comparable_size([whole_C for _, whole_C in steps[16][:20] + steps[512][:20]]) == 16
    assert comparable_size([whole_C for _, whole_C in steps[16]]) is None
    pooled, grouped = (
        {size: np.mean([ess(*step).value for step in each]) for size, each in steps.items()}
        for ess in (ess_interval, lambda *step: ess_of_groups(*step, 16))
    )
    assert pooled[512] < 0.6 * pooled[16]
    assert grouped[512] == pytest.approx(grouped[16], rel=0.15)
    held = [(each := ess_of_groups(*step, 16)).low <= grouped[512] <= each.high for step in steps[512]]
    assert np.mean(held) > 0.85
    assert ess_of_groups(*steps[16][0], 100).value is None


def test_a_short_last_step_does_not_decide_the_size() -> None:
    assert comparable_size([np.full(8, 4.0)] * 15 + [np.ones(1)]) == 32
    assert comparable_size([np.ones(0)] * 3) is None
