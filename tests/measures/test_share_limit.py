"""Upper limits of shares of tokens: against Clopper–Pearson where it applies, and how often they hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.errors import EmptyComparisonError
from mismatchscope.measures.intervals import proportion_interval
from mismatchscope.measures.share_limit import share_upper_limits


@pytest.mark.parametrize("clusters", [8, 64, 600])
@pytest.mark.parametrize("hit", [0, 1, 5])
def test_is_clopper_and_pearsons_limit_where_prompts_are_hit_whole_or_not_at_all(clusters: int, hit: int) -> None:
    count_C = np.full(clusters, 100)
    hits_C = np.where(np.arange(clusters) < hit, 100, 0)
    (limit,) = share_upper_limits(hits_C[:, None], count_C)
    assert limit == pytest.approx(proportion_interval(hit, clusters, side="upper").high, rel=0.04)


@given(st.integers(0, 10**6), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_more_hits_never_have_a_lower_limit_and_order_does_not_matter(seed: int, clusters: int) -> None:
    rng = np.random.default_rng(seed)
    count_C = rng.integers(1, 400, clusters)
    hits_CT = np.minimum(count_C[:, None], rng.integers(0, 60, (clusters, 6)).cumsum(axis=1)[:, ::-1])
    limit_T = share_upper_limits(hits_CT, count_C)
    assert (np.diff(limit_T) <= 0).all()
    assert (limit_T > hits_CT.sum(axis=0) / count_C.sum() - 1e-12).all() and (limit_T <= 1).all()
    shuffled = rng.permutation(clusters)
    np.testing.assert_array_equal(share_upper_limits(hits_CT[shuffled], count_C[shuffled]), limit_T)


def test_no_prompts_have_no_share() -> None:
    with pytest.raises(EmptyComparisonError):
        share_upper_limits(np.zeros((0, 2)), np.zeros(0))


@pytest.mark.parametrize("samples", [1, 8])
@pytest.mark.parametrize("prompts", [8, 64])
@pytest.mark.parametrize("share_of_prompts", [0.02, 0.15, 0.5])
def test_holds_its_level_where_few_long_prompts_hold_most_hits(
    samples: int, prompts: int, share_of_prompts: float
) -> None:
    """Hard prompts are up to three times as long, and some are hit at every token. The whole table: benchmarks."""
    rng = np.random.default_rng([samples, prompts, round(100 * share_of_prompts)])

    def draw(clusters: int) -> tuple[np.ndarray, np.ndarray]:
        hard_C = rng.random(clusters) < share_of_prompts
        share_C = np.where(rng.random(clusters) < 0.05, 1.0, np.minimum(1, 0.005 * (1 + rng.pareto(1.0, clusters))))
        length_C = rng.uniform(20, 400, clusters) * (1 + 2 * hard_C * share_C**0.5) * samples
        count_C = length_C.astype(int)
        return np.where(hard_C, np.maximum(1, rng.binomial(count_C, share_C)), 0), count_C

    hits_C, count_C = draw(400_000)
    truth, held = hits_C.sum() / count_C.sum(), 0
    for _ in range(120):
        hits_C, count_C = draw(prompts)
        held += share_upper_limits(hits_C[:, None], count_C)[0] >= truth
    assert held / 120 >= 0.93 - 2.5 * math.sqrt(0.93 * 0.07 / 120)
