"""Intervals by prompt of what a rule keeps: a share of none or all is no certainty.

Shapes: S responses, C prompts.
"""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures.corrections.effect import Effect
from mismatchscope.measures.corrections.series import ClusterWeights
from mismatchscope.measures.results import Interval


def intervals(kept_S: np.ndarray, length_S: np.ndarray, weight_S: np.ndarray) -> tuple[Interval, Interval]:
    """Of the mean weight and the kept share, of responses of a prompt each."""
    with np.errstate(divide="ignore"):
        log_weight_S = np.log(weight_S * length_S)
    nothing_S = np.zeros(len(length_S))
    effect = Effect(
        "token", length_S, kept_S, log_weight_S, log_weight_S, nothing_S, nothing_S, nothing_S, {"tv": None}
    )
    weights = ClusterWeights(1)
    weights.add(np.arange(len(length_S)), [effect])
    return weights.intervals(0, 0.95)


@pytest.mark.parametrize(("kept", "low", "high"), [(0, 0.0, 0.1391), (1, 0.8609, 1.0)])
def test_a_share_of_none_or_all_has_the_rule_of_three(kept: int, low: float, high: float) -> None:
    """1 − 0.05^(1/20): as many as 14 % of all prompts may do otherwise, and 20 not show it."""
    length_S = np.full(20, 30)
    weight, share = intervals(kept * length_S, length_S, np.full(20, 1.0 * kept))
    assert share.value == kept
    assert (share.low, share.high) == pytest.approx((low, high), abs=1e-4)
    assert weight.value == pytest.approx(kept)
    assert (weight.low, weight.high) == (None, None)


def test_what_varies_keeps_its_interval() -> None:
    length_S = np.full(20, 30)
    weight, share = intervals(np.arange(20), length_S, 0.5 + np.arange(20) / 20)
    for each in (weight, share):
        assert each.low is not None and each.high is not None and each.low < each.value < each.high  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize("prompts", [8, 20, 50, 200])
@pytest.mark.parametrize("truth", [0.002, 0.01, 0.1, 0.3, 0.99])
def test_the_interval_of_a_share_holds_where_few_prompts_differ(prompts: int, truth: float) -> None:
    """In 95 % or more of 200 logs; with no width where none differs, in 1.5 % of logs of 8 prompts."""
    held = []
    for seed in range(200):
        rng = np.random.default_rng([seed, prompts])
        length_S = rng.integers(50, 200, prompts)
        kept_S = np.where(rng.random(prompts) < truth, length_S, 0)
        _, share = intervals(kept_S, length_S, np.ones(prompts))
        held.append(share.low is not None and share.low <= truth <= share.high)
    assert np.mean(held) >= 0.92
