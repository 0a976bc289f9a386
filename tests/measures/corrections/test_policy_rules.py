"""Rules that look at the policy being optimised or at the advantage, against plain loops over their formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.measures.corrections import RatioBlock
from mismatchscope.measures.corrections import policy_rules as rules
from mismatchscope.measures.corrections.catalogue import RULES
from mismatchscope.measures.corrections.effect import Effect

# log mu, log pi_old - log mu, log pi_theta - log pi_old, advantage
token = st.tuples(st.floats(-4, -0.05), st.floats(-1, 1), st.floats(-0.6, 0.6), st.sampled_from([-1.0, 0.0, 0.5]))
sequences = st.lists(st.lists(token, min_size=1, max_size=5), min_size=1, max_size=5)
Tokens = list[tuple[float, float, float, float]]
Weight = Callable[[float, float, float, float], float]


def legal(tokens: Tokens) -> Tokens:
    """Probabilities that stay below one."""
    return [(mu, min(d, -mu / 2 - 1e-3), min(r, -mu / 2 - 1e-3), a) for mu, d, r, a in tokens]


def block_of(rows: list[Tokens]) -> RatioBlock:
    mu, d, r, a = (np.array([token[i] for tokens in rows for token in tokens]) for i in range(4))
    offsets = np.cumsum([0, *map(len, rows)])
    return RatioBlock(d, offsets, target_log_ratio_T=r, advantage_T=a, logp_mu_T=mu)


def check(
    effect: Effect, rows: list[Tokens], weight_of: Callable[[float, float, float, float], float], ratio_of
) -> None:
    """Token rules: `weight_of` is the rule, `ratio_of` what the weight stands in for."""
    found = effect.sums().correction("rule", {})
    tokens = [token for row in rows for token in row]
    weights, ratios = [weight_of(*token) for token in tokens], [ratio_of(*token) for token in tokens]
    kept = [weight > 0 for weight in weights]
    n = len(tokens)
    assert found.kept_tokens == pytest.approx(sum(kept) / n)
    assert found.kept_sequences == pytest.approx(
        sum(any(weight_of(*token) > 0 for token in row) for row in rows) / len(rows)
    )
    assert found.mean_weight == pytest.approx(math.fsum(weights) / n, abs=1e-12)
    assert found.mean_ratio == pytest.approx(math.fsum(ratios) / n)
    pairs = list(zip(ratios, weights, strict=True))
    assert found.clipped_mass == pytest.approx(math.fsum(max(r - w, 0) for r, w in pairs) / n, abs=1e-12)
    assert found.added_mass == pytest.approx(math.fsum(max(w - r, 0) for r, w in pairs) / n, abs=1e-12)
    assert found.chi2 == pytest.approx(math.fsum((w - 1) ** 2 for w in weights) / n, abs=1e-9)
    if any(kept):
        of_kept = [math.exp(token[1]) for token, keep in zip(tokens, kept, strict=True) if keep]
        assert found.ratio_retained == pytest.approx(math.fsum(of_kept) / sum(kept))


@settings(max_examples=60)
@given(sequences)
def test_token_rules_match_plain_loops(raw: list[Tokens]) -> None:
    rows = [legal(tokens) for tokens in raw]
    block = block_of(rows)

    def r(mu, d, r, a):
        return math.exp(r)

    def total(mu, d, r, a):
        return math.exp(d + r)

    def change(mu, d, r, a):
        return math.exp(mu + d + r) - math.exp(mu)

    def ppo(mu, d, r, a):
        ratio = math.exp(r)
        return 0.0 if (a > 0 and ratio > 1.3) or (a < 0 and ratio < 0.9) else ratio

    def dppo(mu, d, r, a):
        moved = change(mu, d, r, a)
        return 0.0 if (moved > 0.05 if a > 0 else moved < -0.03) else total(mu, d, r, a)

    def dppo_kl(mu, d, r, a):
        p, q = math.exp(mu), math.exp(mu + d + r)
        kl = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        outward = q > p if a > 0 else q < p
        return 0.0 if outward and kl > 0.02 else total(mu, d, r, a)

    check(rules.ppo_clip(block, low=0.1, high=0.3), rows, ppo, r)
    check(rules.cispo(block, low=0.8, high=1.2), rows, lambda *x: min(max(r(*x), 0.8), 1.2), r)
    check(
        rules.decoupled_ppo(block, low=0.1, high=0.3),
        rows,
        lambda mu, d, r, a: math.exp(d) * min(max(math.exp(r), 0.9), 1.3),
        total,
    )
    check(rules.dppo_tv_mask(block, low=0.03, high=0.05), rows, dppo, total)
    check(rules.dppo_kl_mask(block, threshold=0.02), rows, dppo_kl, total)
    check(rules.ipo_mask(block, threshold=0.04), rows, lambda *x: total(*x) * (abs(change(*x)) <= 0.04), total)
    check(
        rules.one_sided_reference_kl(block, threshold=0.04),
        rows,
        lambda *x: total(*x) * (change(*x) >= -0.04),
        total,
    )


@settings(max_examples=60)
@given(sequences)
def test_sequence_rules_match_plain_loops(raw: list[Tokens]) -> None:
    rows = [legal(tokens) for tokens in raw]
    block, n = block_of(rows), len(rows)
    advantages = [math.fsum(token[3] for token in row) / len(row) for row in rows]
    geometric = [math.exp(math.fsum(token[2] for token in row) / len(row)) for row in rows]
    gspo = [
        0.0 if (a > 0 and g > 1.1) or (a < 0 and g < 0.9) else g for a, g in zip(advantages, geometric, strict=True)
    ]
    found = rules.gspo_clip(block, low=0.1, high=0.1).sums().correction("rule", {})
    assert found.kept_sequences == pytest.approx(sum(w > 0 for w in gspo) / n)
    assert found.mean_weight == pytest.approx(math.fsum(gspo) / n)
    assert found.clipped_mass == pytest.approx(
        math.fsum(g - w for g, w in zip(geometric, gspo, strict=True)) / n, abs=1e-12
    )

    k1 = [-math.fsum(token[1] + token[2] for token in row) / len(row) for row in rows]
    kept = [a >= 0 or k <= 0.1 for a, k in zip(advantages, k1, strict=True)]
    found = rules.one_sided_sequence_mask(block, threshold=0.1).sums().correction("rule", {})
    assert found.kept_sequences == pytest.approx(sum(kept) / n)
    assert found.mean_weight == pytest.approx(sum(kept) / n)


def test_without_a_target_policy_the_reference_stands_in_and_is_said_to() -> None:
    block = RatioBlock([0.4, -0.4], [0, 2], advantage_T=[1.0, -1.0], logp_mu_T=[-0.5, -0.5])
    kept = rules.ipo_mask(block, threshold=0.25).sums()
    assert kept.kept_tokens == 1  # e^-0.5 moves by 0.298 and by -0.2
    assert "π_old stands in" in RULES["ipo_mask"].remark(block.known)
    assert RULES["ipo_mask"].remark(block.known | {"target"}) is None
    assert RULES["token_tis"].remark(block.known) is None
    assert set(RULES["ppo_clip"].missing(block.known)) == {"target"}


def test_a_token_at_the_threshold_is_kept() -> None:
    block = RatioBlock([0.0], [0, 1], target_log_ratio_T=[math.log(1.2)], advantage_T=[1.0], logp_mu_T=[-1.0])
    assert rules.ppo_clip(block, high=1.2 - 1).sums().kept_tokens == 1
    assert rules.ppo_clip(block, high=0.199).sums().kept_tokens == 0


def test_advantages_of_zero_have_no_gradient_to_clip() -> None:
    block = RatioBlock([0.0], [0, 1], target_log_ratio_T=[1.0], advantage_T=[0.0], logp_mu_T=[-2.0])
    assert rules.ppo_clip(block).sums().kept_tokens == 1
