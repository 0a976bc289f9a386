"""Every correction against a plain loop over sequences, and what must not depend on it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.errors import EmptyComparisonError
from mismatchscope.measures import corrections as c
from mismatchscope.measures.corrections import Correction, RatioSample

Sequences = list[list[float]]
log_ratios = st.lists(st.lists(st.floats(-2, 2), min_size=1, max_size=5), min_size=1, max_size=6)


def sample_of(sequences: Sequences, **known: list[float]) -> RatioSample:
    offsets = np.cumsum([0] + [len(d) for d in sequences])
    return RatioSample([x for d in sequences for x in d], offsets, **known)


def k3(d: float) -> float:
    return math.exp(d) - 1 - d


def check(measured: Correction, sequences: Sequences, keeps_token, unit_ratios, unit_weights) -> None:
    """`keeps_token(s, t)` is the rule; the ratios and weights are of its units."""
    kept = [(s, d) for s, tokens in enumerate(sequences) for t, d in enumerate(tokens) if keeps_token(s, t)]
    tokens = sum(len(d) for d in sequences)
    assert measured.kept_tokens == pytest.approx(len(kept) / tokens)
    assert measured.kept_sequences == pytest.approx(len({s for s, _ in kept}) / len(sequences))
    removed = math.fsum(r - w for r, w in zip(unit_ratios, unit_weights, strict=True))
    assert measured.clipped_mass == pytest.approx(removed / len(unit_ratios), abs=1e-12)
    if not kept:
        assert math.isnan(measured.tv_retained)
        assert math.isnan(measured.kl_retained)
        assert math.isnan(measured.ratio_retained)
        assert math.isnan(measured.ess_fraction)
        return
    ess = math.fsum(unit_weights) ** 2 / math.fsum(w * w for w in unit_weights) / len(unit_weights)
    assert measured.ess_fraction == pytest.approx(ess)
    assert measured.ratio_retained == pytest.approx(math.fsum(math.exp(d) for _, d in kept) / len(kept))
    shortfall = math.fsum(max(0.0, 1 - math.exp(d)) for _, d in kept) / len(kept)
    assert measured.tv_retained == pytest.approx(shortfall, abs=1e-12)
    assert measured.kl_retained == pytest.approx(math.fsum(k3(d) for _, d in kept) / len(kept), abs=1e-12)


@settings(max_examples=50)
@given(log_ratios)
def test_token_rules_match_a_plain_loop(sequences: Sequences) -> None:
    ratios = [math.exp(d) for tokens in sequences for d in tokens]
    sample = sample_of(sequences)
    check(c.token_tis(sample, cap=1.5), sequences, lambda s, t: True, ratios, [min(r, 1.5) for r in ratios])
    check(
        c.icepop(sample, low=0.7, high=1.9),
        sequences,
        lambda s, t: 0.7 <= math.exp(sequences[s][t]) <= 1.9,
        ratios,
        [r if 0.7 <= r <= 1.9 else 0.0 for r in ratios],
    )


@settings(max_examples=50)
@given(log_ratios)
def test_sequence_rules_match_a_plain_loop(sequences: Sequences) -> None:
    ratios = [math.exp(math.fsum(d)) for d in sequences]
    sample = sample_of(sequences)
    check(c.sequence_tis(sample, cap=3.0), sequences, lambda s, t: True, ratios, [min(r, 3.0) for r in ratios])

    rules = [
        (c.sequence_mis(sample, cap=3.0), lambda d: math.exp(math.fsum(d)) <= 3.0),
        (
            c.geometric_mask(sample, low=0.8, high=1.3),
            lambda d: 0.8 <= math.exp(math.fsum(d) / len(d)) <= 1.3,
        ),
        (c.k3_rejection(sample, threshold=0.21), lambda d: math.fsum(map(k3, d)) / len(d) <= 0.21),
        (c.worst_token_rejection(sample, low=0.4), lambda d: math.exp(min(d)) >= 0.4),
    ]
    for measured, keeps in rules:
        kept = [keeps(d) for d in sequences]
        weights = [r if k else 0.0 for r, k in zip(ratios, kept, strict=True)]
        check(measured, sequences, lambda s, t, kept=kept: kept[s], ratios, weights)


def test_trust_region_masking_looks_at_the_states() -> None:
    sequences = [[0.1, -0.1], [0.2, 0.0], [0.0]]
    sample = sample_of(sequences, kl_T=[0.0005, 0.0009, 0.06, 0.0, 0.01], tv_T=[0.1, 0.2, 0.3, 0.4, 0.5])
    largest = c.trust_region_mask_max(sample, threshold=0.05)
    assert (largest.kept_tokens, largest.kept_sequences) == (pytest.approx(3 / 5), pytest.approx(2 / 3))
    assert largest.tv_retained == pytest.approx((0.1 + 0.2 + 0.5) / 3)
    assert largest.kl_retained == pytest.approx((0.0005 + 0.0009 + 0.01) / 3)
    assert largest.clipped_mass == pytest.approx(math.exp(0.2) / 3)
    assert c.trust_region_mask_mean(sample, threshold=0.001).kept_sequences == pytest.approx(1 / 3)
    assert c.trust_region_mask_mean(sample, threshold=0.03).kept_sequences == 1


def test_trust_region_masking_is_not_faked_from_sampled_ratios() -> None:
    sample = sample_of([[0.1]])
    with pytest.raises(ValueError, match="KL of each state"):
        c.trust_region_mask_max(sample)
    assert not [row for row in c.corrections(sample) if row.name.startswith("trust_region")]


def test_every_usual_rule_is_there_and_keeps_all_of_an_exact_match() -> None:
    rows = c.corrections(sample_of([[0.0, 0.0], [0.0]], kl_T=[0.0] * 3, tv_T=[0.0] * 3))
    assert {row.name for row in rows} == {
        "token_tis",
        "icepop",
        "sequence_tis",
        "sequence_mis",
        "geometric_mask",
        "k3_rejection",
        "worst_token_rejection",
        "trust_region_mask_max",
        "trust_region_mask_mean",
    }
    for row in rows:
        assert (row.kept_tokens, row.kept_sequences, row.clipped_mass) == (1, 1, 0)
        assert (row.ess_fraction, row.ratio_retained, row.tv_retained, row.kl_retained) == (1, 1, 0, 0)


def test_a_looser_threshold_never_keeps_less() -> None:
    rng = np.random.default_rng(0)
    sample = RatioSample(rng.normal(0, 0.3, 4000), np.arange(0, 4001, 40), kl_T=rng.exponential(0.02, 4000))
    curves: dict[str, list[Correction]] = {}
    for row in c.corrections(sample, c.SWEEP):
        curves.setdefault(row.name, []).append(row)
    assert len(curves) == 9
    for name, curve in curves.items():
        kept = [row.kept_tokens for row in curve]
        order = -1 if name == "worst_token_rejection" else 1
        assert (np.diff(kept) * order >= 0).all(), name
        assert (np.diff([row.clipped_mass for row in curve]) * order <= 1e-15).all(), name


def test_tokens_outside_the_support_have_weight_zero() -> None:
    sample = sample_of([[-np.inf, 0.0], [0.0]])
    tis = c.token_tis(sample)
    assert (tis.kept_tokens, tis.clipped_mass) == (1, 0)
    assert tis.ess_fraction == pytest.approx(2 / 3)
    assert tis.tv_retained == pytest.approx(1 / 3)
    assert tis.kl_retained == np.inf
    assert c.worst_token_rejection(sample).kept_sequences == 0.5


def test_sequence_ratios_beyond_the_range_of_exp() -> None:
    sample = sample_of([[500.0, 400.0], [0.0]])
    capped = c.sequence_tis(sample, cap=2.0)
    assert capped.ess_fraction == pytest.approx((3**2 / 5) / 2)
    assert capped.clipped_mass == np.inf
    kept = c.worst_token_rejection(sample)
    assert (kept.clipped_mass, kept.ess_fraction) == (0, pytest.approx(0.5))


def test_bad_input_is_refused() -> None:
    with pytest.raises(EmptyComparisonError):
        RatioSample([], [0])
    with pytest.raises(ValueError, match="NaN"):
        RatioSample([np.nan], [0, 1])
    with pytest.raises(ValueError, match="kl has shape"):
        RatioSample([0.1], [0, 1], kl_T=[0.1, 0.2])
