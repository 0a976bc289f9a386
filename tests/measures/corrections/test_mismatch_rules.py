"""Every correction against a plain loop over sequences, and what must not depend on it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.errors import EmptyComparisonError
from mismatchscope.measures.correction_results import Correction
from mismatchscope.measures.corrections import Corrections, RatioBlock
from mismatchscope.measures.corrections import mismatch_rules as c
from mismatchscope.measures.corrections.catalogue import USUAL
from mismatchscope.measures.corrections.effect import Effect

Sequences = list[list[float]]
log_ratios = st.lists(st.lists(st.floats(-2, 2), min_size=1, max_size=5), min_size=1, max_size=6)


def block_of(sequences: Sequences, **known: list[float]) -> RatioBlock:
    offsets = np.cumsum([0] + [len(d) for d in sequences])
    return RatioBlock([x for d in sequences for x in d], offsets, **known)


def k3(d: float) -> float:
    return math.exp(d) - 1 - d


def reduced(effect: Effect) -> Correction:
    return effect.sums().correction("rule", {})


def all_rules(*blocks: RatioBlock) -> tuple[Correction, ...]:
    corrections = Corrections()
    for block in blocks:
        corrections.add(block)
    return corrections.results()


def check(effect: Effect, sequences: Sequences, keeps_token, unit_ratios, unit_weights) -> None:
    """`keeps_token(s, t)` is the rule; the ratios and weights are of its units."""
    measured = reduced(effect)
    kept = [(s, d) for s, tokens in enumerate(sequences) for t, d in enumerate(tokens) if keeps_token(s, t)]
    tokens = sum(len(d) for d in sequences)
    assert measured.kept_tokens == pytest.approx(len(kept) / tokens)
    assert measured.kept_sequences == pytest.approx(len({s for s, _ in kept}) / len(sequences))
    removed = math.fsum(r - w for r, w in zip(unit_ratios, unit_weights, strict=True))
    assert measured.clipped_mass == pytest.approx(removed / len(unit_ratios), abs=1e-12)
    if not kept:
        assert measured.tv_retained is None
        assert measured.kl_retained is None
        assert measured.ratio_retained is None
        assert measured.ess_fraction is None
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
    block = block_of(sequences)
    check(c.token_tis(block, cap=1.5), sequences, lambda s, t: True, ratios, [min(r, 1.5) for r in ratios])
    check(
        c.icepop(block, low=0.7, high=1.9),
        sequences,
        lambda s, t: 0.7 <= math.exp(sequences[s][t]) <= 1.9,
        ratios,
        [r if 0.7 <= r <= 1.9 else 0.0 for r in ratios],
    )


@settings(max_examples=50)
@given(log_ratios)
def test_sequence_rules_match_a_plain_loop(sequences: Sequences) -> None:
    ratios = [math.exp(math.fsum(d)) for d in sequences]
    block = block_of(sequences)
    check(c.sequence_tis(block, cap=3.0), sequences, lambda s, t: True, ratios, [min(r, 3.0) for r in ratios])

    rules = [
        (c.sequence_mis(block, cap=3.0), lambda d: math.exp(math.fsum(d)) <= 3.0),
        (
            c.geometric_mask(block, low=0.8, high=1.3),
            lambda d: 0.8 <= math.exp(math.fsum(d) / len(d)) <= 1.3,
        ),
        (c.k3_rejection(block, threshold=0.21), lambda d: math.fsum(map(k3, d)) / len(d) <= 0.21),
        (c.worst_token_rejection(block, low=0.4), lambda d: math.exp(min(d)) >= 0.4),
        (
            c.worst_token_rejection(block, low=0.4, high=3.0),
            lambda d: math.exp(min(d)) >= 0.4 and math.exp(max(d)) <= 3.0,
        ),
        (c.sequence_mis(block, low=0.6, cap=3.0), lambda d: 0.6 <= math.exp(math.fsum(d)) <= 3.0),
        (c.largest_k3_rejection(block, threshold=0.3), lambda d: max(map(k3, d)) <= 0.3),
        (
            c.error_rejection(block, threshold=1.6),
            lambda d: math.fsum(math.exp(abs(x)) for x in d) / len(d) <= 1.6,
        ),
        (
            c.mean_ratio_mask(block, low=0.8, high=1.4),
            lambda d: 0.8 <= math.fsum(map(math.exp, d)) / len(d) <= 1.4,
        ),
    ]
    for measured, keeps in rules:
        kept = [keeps(d) for d in sequences]
        weights = [r if k else 0.0 for r, k in zip(ratios, kept, strict=True)]
        check(measured, sequences, lambda s, t, kept=kept: kept[s], ratios, weights)


def test_trust_region_masking_looks_at_the_states() -> None:
    sequences = [[0.1, -0.1], [0.2, 0.0], [0.0]]
    block = block_of(sequences, kl_T=[0.0005, 0.0009, 0.06, 0.0, 0.01], tv_T=[0.1, 0.2, 0.3, 0.4, 0.5])
    largest = reduced(c.trust_region_mask_max(block, threshold=0.05))
    assert (largest.kept_tokens, largest.kept_sequences) == (pytest.approx(3 / 5), pytest.approx(2 / 3))
    assert largest.tv_retained == pytest.approx((0.1 + 0.2 + 0.5) / 3)
    assert largest.kl_retained == pytest.approx((0.0005 + 0.0009 + 0.01) / 3)
    assert largest.clipped_mass == pytest.approx(math.exp(0.2) / 3)
    assert reduced(c.trust_region_mask_mean(block, threshold=0.001)).kept_sequences == pytest.approx(1 / 3)
    assert reduced(c.trust_region_mask_mean(block, threshold=0.03)).kept_sequences == 1


def test_trust_region_masking_is_not_faked_from_sampled_ratios() -> None:
    block = block_of([[0.1]])
    with pytest.raises(ValueError, match="KL of each state"):
        c.trust_region_mask_max(block)
    assert not [row for row in all_rules(block) if row.name.startswith("trust_region")]


def test_every_usual_rule_is_there_and_keeps_all_of_an_exact_match() -> None:
    rows = all_rules(block_of([[0.0, 0.0], [0.0]], kl_T=[0.0] * 3, tv_T=[0.0] * 3))
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
        assert row.ess_fraction == pytest.approx(1, rel=1e-14)
        assert (row.ratio_retained, row.tv_retained, row.kl_retained) == (1, 0, 0)


def test_a_looser_threshold_never_keeps_less() -> None:
    rng = np.random.default_rng(0)
    block = RatioBlock(rng.normal(0, 0.3, 4000), np.arange(0, 4001, 40), kl_T=rng.exponential(0.02, 4000))
    caps, thresholds = (1.0, 1.1, 1.5, 2.0, 5.0, 100.0), (1e-5, 1e-3, 3e-3, 1e-2, 5e-2, 0.5)
    settings = {
        c.token_tis: [{"cap": cap} for cap in caps],
        c.icepop: [{"low": 1 / cap, "high": cap} for cap in caps],
        c.sequence_tis: [{"cap": cap} for cap in caps],
        c.sequence_mis: [{"cap": cap} for cap in caps],
        c.geometric_mask: [{"low": 1 - e, "high": 1 + e} for e in thresholds],
        c.k3_rejection: [{"threshold": threshold} for threshold in thresholds],
        c.worst_token_rejection: [{"low": low} for low in (0.7, 0.5, 0.1, 1e-2, 1e-4)],
        c.trust_region_mask_max: [{"threshold": threshold} for threshold in thresholds],
        c.trust_region_mask_mean: [{"threshold": threshold} for threshold in thresholds],
    }
    assert {rule.__name__ for rule in settings} == {name for name, _ in USUAL}
    for rule, parameters in settings.items():
        curve = [reduced(rule(block, **each)) for each in parameters]
        assert (np.diff([row.kept_tokens for row in curve]) >= 0).all(), rule
        assert (np.diff([row.clipped_mass for row in curve]) <= 1e-15).all(), rule


@settings(max_examples=50)
@given(log_ratios, st.integers(1, 5))
def test_blocks_add_up(sequences: Sequences, cut: int) -> None:
    parts = [part for part in (sequences[:cut], sequences[cut:]) if part]
    whole, split = all_rules(block_of(sequences)), all_rules(*map(block_of, parts))
    for one, other in zip(whole, split, strict=True):
        assert (one.name, one.parameters, one.kept_tokens) == (other.name, other.parameters, other.kept_tokens)
        for figure in ("clipped_mass", "ess_fraction", "ratio_retained", "tv_retained", "kl_retained"):
            expected = getattr(other, figure)
            assert getattr(one, figure) == (None if expected is None else pytest.approx(expected, rel=1e-12))


def test_a_rule_that_did_not_see_every_state_says_nothing() -> None:
    rows = all_rules(block_of([[0.1]], kl_T=[0.1], tv_T=[0.1]), block_of([[0.2]]))
    assert not [row for row in rows if row.name.startswith("trust_region")]
    assert rows[0].tv_retained == 0  # (1 - rho)_+ of both, not the TV of the first


def test_tokens_outside_the_support_have_weight_zero() -> None:
    block = block_of([[-np.inf, 0.0], [0.0]])
    tis = reduced(c.token_tis(block))
    assert (tis.kept_tokens, tis.clipped_mass) == (1, 0)
    assert tis.ess_fraction == pytest.approx(2 / 3)
    assert tis.tv_retained == pytest.approx(1 / 3)
    assert tis.kl_retained == np.inf
    assert reduced(c.worst_token_rejection(block)).kept_sequences == 0.5


def test_sequence_ratios_beyond_the_range_of_exp() -> None:
    block = block_of([[500.0, 400.0], [0.0]])
    capped = reduced(c.sequence_tis(block, cap=2.0))
    assert capped.ess_fraction == pytest.approx((3**2 / 5) / 2)
    assert capped.clipped_mass == np.inf
    kept = reduced(c.worst_token_rejection(block))
    assert (kept.clipped_mass, kept.ess_fraction) == (0, pytest.approx(0.5))


def test_bad_input_is_refused() -> None:
    with pytest.raises(EmptyComparisonError):
        RatioBlock([], [0])
    with pytest.raises(ValueError, match="NaN"):
        RatioBlock([np.nan], [0, 1])
    with pytest.raises(ValueError, match="kl has shape"):
        RatioBlock([0.1], [0, 1], kl_T=[0.1, 0.2])
