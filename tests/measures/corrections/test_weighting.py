"""A weight and masks put together, against a plain loop; and what the weights cost, against the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.measures.corrections import RatioBlock
from mismatchscope.measures.corrections.mismatch_rules import icepop, token_tis
from mismatchscope.measures.corrections.weighting import by_sequence, by_token

rows_of_ratios = st.lists(st.lists(st.floats(-2, 2), min_size=1, max_size=5), min_size=1, max_size=6)
clamps = st.sampled_from([None, (0.0, math.inf), (0.5, 1.5), (0.0, 2.0)])
bands = st.sampled_from([(0.0, math.inf), (0.4, 3.0)])


@settings(max_examples=80)
@given(rows_of_ratios, clamps, bands, st.integers(0, 63))
def test_token_weights_with_masks_of_both_kinds(rows, clamp, band, chosen: int) -> None:
    block = RatioBlock([d for row in rows for d in row], np.cumsum([0, *map(len, rows)]))
    keep = [bool(chosen >> s & 1) for s in range(len(rows))]
    found = by_token(block, clamp=clamp, band=band, keep_S=np.array(keep)).sums().correction("rule", {})
    ratios, weights, kept = [], [], 0
    for row, kept_row in zip(rows, keep, strict=True):
        for d in row:
            ratio = math.exp(d)
            inside = kept_row and band[0] <= ratio <= band[1]
            weight = 1.0 if clamp is None else min(max(ratio, clamp[0]), clamp[1])
            ratios.append(ratio)
            weights.append(weight if inside else 0.0)
            kept += inside
    n = len(ratios)
    pairs = list(zip(ratios, weights, strict=True))
    assert found.kept_tokens == pytest.approx(kept / n)
    assert found.mean_weight == pytest.approx(math.fsum(weights) / n)
    assert found.clipped_mass == pytest.approx(math.fsum(max(r - w, 0) for r, w in pairs) / n, abs=1e-12)
    assert found.added_mass == pytest.approx(math.fsum(max(w - r, 0) for r, w in pairs) / n, abs=1e-12)
    mean = math.fsum(weights) / n
    assert found.weight_variance == pytest.approx(math.fsum((w - mean) ** 2 for w in weights) / n, abs=1e-12)


@settings(max_examples=40)
@given(rows_of_ratios)
def test_sequences_with_weight_one(rows) -> None:
    block = RatioBlock([d for row in rows for d in row], np.cumsum([0, *map(len, rows)]))
    found = by_sequence(block, clamp=None).sums().correction("rule", {})
    ratios = [math.exp(math.fsum(row)) for row in rows]
    assert (found.kept_sequences, found.mean_weight, found.weight_variance) == (1, 1, pytest.approx(0, abs=1e-15))
    assert found.clipped_mass == pytest.approx(math.fsum(max(r - 1, 0) for r in ratios) / len(rows), abs=1e-12)
    assert found.added_mass == pytest.approx(math.fsum(max(1 - r, 0) for r in ratios) / len(rows), abs=1e-12)
    assert found.chi2 == pytest.approx(0, abs=1e-15)


def test_the_masses_bound_the_bias_and_the_variance_is_that_of_the_weights() -> None:
    """One state of two ids, where everything is known: mu = (p, 1 - p) and pi = (q, 1 - q)."""
    rng = np.random.default_rng(0)
    tokens, violations = 20_000, 0
    for p, q in rng.uniform(0.05, 0.95, (60, 2)):
        log_ratio = np.log([q / p, (1 - q) / (1 - p)])
        drawn_T = (rng.random(tokens) > p).astype(int)
        block = RatioBlock(log_ratio[drawn_T], np.arange(0, tokens + 1, 100))
        mu, ratio = np.array([p, 1 - p]), np.exp(log_ratio)
        for effect, weight in (
            (token_tis(block, cap=1.5), np.minimum(ratio, 1.5)),
            (icepop(block, low=0.5, high=2.0), np.where((ratio >= 0.5) & (ratio <= 2), ratio, 0)),
            (by_token(block, clamp=(0.5, 1.5)), np.clip(ratio, 0.5, 1.5)),
        ):
            found = effect.sums().correction("rule", {})
            for advantage in ([1, -1], [1, 0], [-0.3, 1]):
                bias = abs(mu @ ((weight - ratio) * advantage))
                assert bias <= mu @ np.abs(weight - ratio) + 1e-12
            truth = mu @ weight**2 - (mu @ weight) ** 2
            spread = 5 * math.sqrt((mu @ np.abs(weight - mu @ weight) ** 4) / tokens)
            violations += abs(found.weight_variance - truth) > spread + 1e-9
            error = 5 * math.sqrt(max(mu @ (weight - ratio) ** 2, 1e-18) / tokens)
            sampled = found.clipped_mass + found.added_mass
            violations += abs(sampled - mu @ np.abs(weight - ratio)) > error + 1e-9
    assert violations == 0  # of 360, at five standard errors
