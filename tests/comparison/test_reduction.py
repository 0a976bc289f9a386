"""The statistics of a pair -> its figures, each against its definition in float64."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from synthetic_pair import make_pair
from written_traces import full_trace, pair_of, pair_with_ratios, sampled_pair

from mismatchscope.comparison.context import Context
from mismatchscope.comparison.pair import Pair
from mismatchscope.comparison.reduction import PairFigures, mean_of, reduce_pair
from mismatchscope.records import Evidence

LENGTHS = np.random.default_rng(5).integers(20, 60, 40)
OFFSETS = np.cumsum(LENGTHS)[:-1]


def figures_of(pair: Pair, *, on_policy: bool = True) -> PairFigures:
    return reduce_pair(pair.statistics, Context(on_policy=on_policy))


def random_pair(directory: Path) -> tuple[Pair, np.ndarray, np.ndarray]:
    """The pair, log μ and log π of its tokens: more than a thousand, so that every quantile exists."""
    rng = np.random.default_rng(0)
    logp_mu_N = np.log(rng.uniform(0.05, 0.9, LENGTHS.sum()))
    logp_pi_N = np.minimum(logp_mu_N + rng.normal(0, 0.15, logp_mu_N.size), -1e-3)
    pair = sampled_pair(directory, np.split(logp_mu_N, OFFSETS), np.split(logp_pi_N, OFFSETS))
    return pair, logp_mu_N, logp_pi_N


def test_sampled_figures_are_what_their_definitions_say(tmp_path: Path) -> None:
    pair, logp_mu_N, logp_pi_N = random_pair(tmp_path)
    token, d_N = figures_of(pair).token, logp_pi_N - logp_mu_N
    ratio_N, p_N, q_N = np.exp(d_N), np.exp(logp_mu_N), np.exp(logp_pi_N)
    for name, value_N in {
        "k1": -d_N,
        "k2": d_N**2 / 2,
        "k3": ratio_N - 1 - d_N,
        "ratio": ratio_N,
        "shortfall": np.maximum(1 - ratio_N, 0),
        "binary_tv": np.abs(q_N - p_N),
        "abs_logprob_diff": np.abs(d_N),
        "prob_diff": q_N - p_N,
        "exp_abs_diff": np.exp(np.abs(d_N)),
        "tv_lower": np.abs(q_N - p_N),
    }.items():
        found = getattr(token, name)
        assert found.mean == pytest.approx(value_N.mean(), rel=1e-9), name
        assert found.max == pytest.approx(value_N.max(), rel=1e-9), name
        assert (found.n, found.clusters) == (len(d_N), len(LENGTHS))
        assert found.low < found.mean < found.high
        for level, quantile in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p999")):
            # A sample value, and no more than a fraction `level` of the values lie below it.
            value = getattr(found, quantile)
            assert np.abs(value_N - value).min() <= 1e-9 * max(1, abs(value)), (name, quantile)
            assert (value_N < value - 1e-9).mean() <= level <= (value_N <= value + 1e-9).mean() + 1e-9, name
    assert token.prob_correlation == pytest.approx(np.corrcoef(p_N, q_N)[0, 1])
    assert token.ratio_outside_band == pytest.approx(((ratio_N < 0.8) | (ratio_N > 1.2)).mean())


def test_the_band_of_ratios_is_from_8_to_12_tenths(tmp_path: Path) -> None:
    outside = figures_of(pair_with_ratios(tmp_path, [[0.799, 0.801, 1.0], [1.199, 1.201, 1.0]])).token
    assert outside.ratio_outside_band == pytest.approx(2 / 6)


def test_tokens_of_another_policy_estimate_nothing(tmp_path: Path) -> None:
    pair, logp_mu_N, logp_pi_N = random_pair(tmp_path)
    on, off = figures_of(pair), figures_of(pair, on_policy=False)
    assert on.alpha.mean.value == pytest.approx(np.maximum(-np.expm1(logp_pi_N - logp_mu_N), 0).mean())
    assert (on.token.tv.mean, on.token.kl.mean) == (on.token.shortfall.mean, on.token.k3.mean)
    assert on.token.tv.max is None and on.token.tv.p50 is None  # an estimate of the mean says nothing of one state
    assert off.token.tv is None and off.token.kl is None and off.sequence.tv is None and off.corrections == ()
    assert (off.alpha.mean.value, off.alpha.mean.high) == (None, None)
    # The certified lower end is one whoever drew the token.
    assert off.alpha.mean.low > 0 and off.alpha.observed_max == on.alpha.observed_max
    assert off.token.tv_lower == on.token.tv_lower
    assert (off.bounds.max_free_linear, off.bounds.max_free_quadratic) == (None, None)


def whole_pair(directory: Path, p_pi_STV: list[list[list[float]]]) -> Pair:
    mu = full_trace(directory / "mu", [[[0.5, 0.25, 0.25]] * len(p_TV) for p_TV in p_pi_STV])
    return pair_of(mu, full_trace(directory / "pi", p_pi_STV, role="reference"))


def test_whole_distributions_give_exact_figures(tmp_path: Path) -> None:
    p_pi_STV = [[[0.4, 0.3, 0.3], [0.5, 0.2, 0.3]], [[0.6, 0.3, 0.1], [0.5, 0.25, 0.25]], [[0.2, 0.5, 0.3]] * 2]
    figures, mu_V = figures_of(whole_pair(tmp_path, p_pi_STV)), np.array([0.5, 0.25, 0.25])
    pi_NV = np.concatenate(p_pi_STV)
    middle_NV = (pi_NV + mu_V) / 2
    tv_N = np.abs(pi_NV - mu_V).sum(axis=1) / 2
    kl_N = (mu_V * np.log(mu_V / pi_NV)).sum(axis=1)
    js_N = (mu_V * np.log(mu_V / middle_NV) + pi_NV * np.log(pi_NV / middle_NV)).sum(axis=1) / 2
    expected = {
        "tv": tv_N,
        "tv_lower": tv_N,
        "tv_upper": tv_N,
        "kl": kl_N,
        "reverse_kl": (pi_NV * np.log(pi_NV / mu_V)).sum(axis=1),
        "js": js_N,
        "chi2": (pi_NV**2 / mu_V).sum(axis=1) - 1,
        "leak": np.zeros(6),
        "max_abs_dlogp": np.abs(np.log(pi_NV / mu_V)).max(axis=1),
        "top1_agreement": (pi_NV.argmax(axis=1) == 0).astype(float),
        "entropy_behavior": np.full(6, -(mu_V * np.log(mu_V)).sum()),
        "entropy_reference": -(pi_NV * np.log(pi_NV)).sum(axis=1),
    }
    for name, value_N in expected.items():
        found = getattr(figures.token, name)
        assert (found.mean, found.max) == pytest.approx((value_N.mean(), value_N.max()), abs=1e-6), name
    assert figures.evidence == "full"
    assert figures.bounds.horizon == 2
    # Both figures of a response of two states, by their definitions.
    assert figures.bounds.max_free_linear.value == pytest.approx(4 * tv_N.sum() / 3, abs=1e-6)
    ratio_ST = (pi_NV[:, 0] / 0.5).reshape(3, 2)
    products = np.abs(ratio_ST[:, 0] - 1) * np.maximum(1 - ratio_ST[:, 1], 0)
    assert figures.bounds.max_free_quadratic.value == pytest.approx(2 * products.mean(), abs=1e-6)


def test_an_infinite_bound_is_none(tmp_path: Path) -> None:
    """π excludes a token of μ: KL is infinite, and no bound from it is a number."""
    figures = figures_of(whole_pair(tmp_path, [[[0.5, 0.5, 0.0], [0.5, 0.25, 0.25]], [[0.5, 0.25, 0.25]] * 2]))
    assert figures.token.kl.mean == math.inf
    assert figures.bounds.classical_kl is None
    assert figures.bounds.classical_tv == pytest.approx(2 * 2 * 1 * 0.25**2, rel=1e-5)
    assert not any(isinstance(value, float) and math.isinf(value) for value in vars(figures.bounds).values())


def test_the_mean_comes_from_the_best_that_the_evidence_gives(tmp_path: Path) -> None:
    whole = whole_pair(tmp_path / "whole", [[[0.4, 0.3, 0.3]] * 2] * 2).statistics
    assert mean_of(whole, Context(on_policy=False), "tv") is whole.sums["tv"]
    assert mean_of(whole, Context(on_policy=False), "kl") is whole.sums["kl"]
    drawn = pair_with_ratios(tmp_path / "drawn", [[0.9, 1.1], [1.0, 0.8]]).statistics
    assert mean_of(drawn, Context(), "tv") is drawn.sums["shortfall"]
    assert mean_of(drawn, Context(), "kl") is drawn.sums["k3"]
    assert mean_of(drawn, Context(on_policy=False), "tv") is None
    made = make_pair(tmp_path / "topk", evidence=Evidence("topk", k=8))
    listed = pair_of(made.behavior, made.reference).statistics
    assert mean_of(listed, Context(), "tv") is listed.sums["tv_estimate"]
    assert mean_of(listed, Context(on_policy=False), "kl") is None
    made = make_pair(tmp_path / "some", evidence=Evidence("full", fraction=0.3))
    some = pair_of(made.behavior, made.reference).statistics
    assert 0 < some.exact_states < some.tokens
    assert mean_of(some, Context(on_policy=False), "tv") is some.sums["tv"]


def test_nothing_is_claimed_from_above_where_a_state_has_no_upper_end(tmp_path: Path) -> None:
    drawn = pair_with_ratios(tmp_path / "drawn", [[0.9, 1.1], [1.0, 0.8]] * 40)
    made = make_pair(tmp_path / "some", evidence=Evidence("full", fraction=0.9))
    for statistics in (drawn.statistics, pair_of(made.behavior, made.reference).statistics):
        alpha = reduce_pair(statistics, Context(tail=True)).alpha
        assert alpha.observed_upper is None
        assert {bound.value for bound in alpha.tolerance} == {None}
        assert "not every visited state" in alpha.tolerance[0].reason
        assert {(p.tokens, p.tokens_upper, p.prompts, p.prompts_upper) for p in alpha.exceedance} == {(None,) * 4}
        assert alpha.exceedance[0].tokens_lower > 0 and alpha.exceedance[0].prompts_lower > 0
        assert (alpha.tail.value, alpha.tail.high) == (None, None) and alpha.tail.reason
        assert alpha.mean.high is not None  # (1−ρ)₊ and a random subset do estimate the mean
    # The certified lower ends of tokens that another policy drew bound its mean from below alone.
    off = reduce_pair(drawn.statistics, Context(on_policy=False)).alpha
    assert (off.prompt_mean.value, off.prompt_mean.high) == (None, None)


def test_kl_of_responses_is_k3_from_sampled_tokens_with_k1_beside_it(tmp_path: Path) -> None:
    pair, logp_mu_N, logp_pi_N = random_pair(tmp_path)
    d_N = logp_pi_N - logp_mu_N
    k1_S, k3_S = (np.add.reduceat(x_N, np.r_[0, OFFSETS]) for x_N in (-d_N, np.expm1(d_N) - d_N))
    sequence = figures_of(pair).sequence
    assert (sequence.kl.mean, sequence.k1.mean) == (pytest.approx(k3_S.mean()), pytest.approx(k1_S.mean()))
    assert sequence.kl.low > 0 and sequence.kl.high - sequence.kl.low < (sequence.k1.high - sequence.k1.low) / 2
    assert "k3" in sequence.kl.estimator and "k1" in sequence.k1.estimator
    assert sequence.kl.p50 is None  # k3 of one response is no divergence of it
    assert sequence.by_length[0].kl.low >= 0
    assert figures_of(pair, on_policy=False).sequence.kl is None


def test_the_mean_weight_stands_beside_what_a_correction_keeps(tmp_path: Path) -> None:
    """Every response is twenty times likelier under μ: nothing is clipped, a twentieth of the gradient is left."""
    pair = pair_with_ratios(tmp_path, [[0.05]] * 30 + [[0.06]] * 30)
    by_name = {rule.name: rule for rule in figures_of(pair).corrections if rule.parameters == {"cap": 2.0}}
    kept = by_name["sequence_mis"]
    assert (kept.kept_sequences, kept.clipped_mass) == (1, 0)
    assert kept.mean_weight == pytest.approx(0.055)
    assert kept.ess_fraction > 0.98
