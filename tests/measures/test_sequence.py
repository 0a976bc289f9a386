"""Sequence measures against plain loops, and their expectations over every sequence of a small policy pair."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope.errors import EmptyComparisonError
from mismatchscope.measures.sequence import length_bins
from mismatchscope.measures.sequence_sums import SequenceSums

log_ratios = st.lists(st.lists(st.floats(-3, 3), min_size=1, max_size=6), min_size=1, max_size=6)


def offsets_of(sequences: list[list[float]]) -> np.ndarray:
    return np.cumsum([0] + [len(tokens) for tokens in sequences])


@given(log_ratios)
def test_every_field_matches_a_plain_loop(sequences: list[list[float]]) -> None:
    tokens = list(itertools.chain(*sequences))
    kl, tv = [abs(d) / 3 for d in tokens], [min(1.0, abs(d) / 4) for d in tokens]
    offsets = offsets_of(sequences)
    m = SequenceSums.of(tokens, offsets, kl_T=kl, tv_T=tv)
    for s, d in enumerate(sequences):
        inside = slice(offsets[s], offsets[s + 1])
        total = math.fsum(d)
        assert m.length[s] == len(d)
        assert m.log_ratio[s] == pytest.approx(total, abs=1e-12)
        assert m.ratio[s] == pytest.approx(math.exp(total))
        assert m.geometric_ratio[s] == pytest.approx(math.exp(total / len(d)))
        assert m.shortfall[s] == pytest.approx(max(0.0, 1 - math.exp(total)), abs=1e-12)
        assert m.sum_tv_estimate[s] == pytest.approx(math.fsum(max(0.0, 1 - math.exp(x)) for x in d), abs=1e-12)
        assert m.sum_k3[s] == pytest.approx(math.fsum(math.expm1(x) - x for x in d), abs=1e-12)
        assert m.sum_kl[s] == pytest.approx(math.fsum(kl[inside]))
        assert m.sum_tv[s] == pytest.approx(math.fsum(tv[inside]))
        assert m.max_tv[s] == max(tv[inside])


def test_what_was_not_given_stays_unknown() -> None:
    m = SequenceSums.of([0.1, 0.2], [0, 2])
    assert np.isnan([m.sum_kl, m.sum_tv, m.max_tv]).all()
    k3_T = np.expm1([0.1, 0.2]) - [0.1, 0.2]
    assert m.kl == pytest.approx([k3_T.sum()]) and not m.kl_known
    partly = SequenceSums.of([0.1, 0.2, 0.3], [0, 2, 3], kl_T=[0.1, np.nan, 0.2])
    assert np.isnan(partly.sum_kl).tolist() == [True, False]


def test_chunks_join_in_the_order_of_their_ids() -> None:
    log_ratio, ids = np.array([0.1, 0.2, -0.3, 0.4]), np.array([4, 2, 9])
    whole = SequenceSums.of(log_ratio, [0, 1, 3, 4], sequence_id_S=ids, prompt_id_S=ids // 2)
    parts = [
        SequenceSums.of(log_ratio[:1], [0, 1], sequence_id_S=ids[:1], prompt_id_S=ids[:1] // 2),
        SequenceSums.of(log_ratio[1:], [0, 2, 3], sequence_id_S=ids[1:], prompt_id_S=ids[1:] // 2),
    ]
    for order in (parts, parts[::-1]):
        joined = SequenceSums.joined(order)
        assert joined.sequence_id.tolist() == [2, 4, 9]
        np.testing.assert_array_equal(joined.log_ratio, whole.log_ratio[[1, 0, 2]])
        np.testing.assert_array_equal(joined.prompt_id, whole.prompt_id[[1, 0, 2]])


@given(st.integers(0, 2**32 - 1))
def test_expectations_over_all_sequences(seed: int) -> None:
    """Three steps over two ids with state-dependent probabilities: all eight sequences, weighted by mu."""
    rng = np.random.default_rng(seed)
    contexts = [c for t in range(3) for c in itertools.product((0, 1), repeat=t)]
    mu = {c: rng.dirichlet([1, 1]) for c in contexts}
    pi = {c: rng.dirichlet([1, 1]) for c in contexts}
    sequences = list(itertools.product((0, 1), repeat=3))

    def along(y: tuple[int, ...], per_state) -> list[float]:
        return [per_state(y[:t], y[t]) for t in range(3)]

    m = SequenceSums.of(
        [d for y in sequences for d in along(y, lambda c, a: math.log(pi[c][a] / mu[c][a]))],
        range(0, 25, 3),
        kl_T=[k for y in sequences for k in along(y, lambda c, _: float(mu[c] @ np.log(mu[c] / pi[c])))],
        tv_T=[v for y in sequences for v in along(y, lambda c, _: float(np.abs(mu[c] - pi[c]).sum() / 2))],
    )
    mu_y = np.array([math.prod(along(y, lambda c, a: mu[c][a])) for y in sequences])
    pi_y = np.array([math.prod(along(y, lambda c, a: pi[c][a])) for y in sequences])
    tv, kl = np.abs(mu_y - pi_y).sum() / 2, float(mu_y @ np.log(mu_y / pi_y))
    assert mu_y @ m.ratio == pytest.approx(1)
    assert mu_y @ m.shortfall == pytest.approx(tv)
    assert mu_y @ -m.log_ratio == pytest.approx(kl)
    assert mu_y @ m.sum_kl == pytest.approx(kl)
    assert mu_y @ m.sum_k3 == pytest.approx(kl)
    assert tv <= mu_y @ m.sum_tv + 1e-12


def test_a_token_outside_the_support_ends_the_sequence() -> None:
    m = SequenceSums.of([0.5, -np.inf, 0.5, 0.1], [0, 3, 4])
    assert m.log_ratio.tolist() == [-np.inf, 0.1]
    assert (m.ratio[0], m.geometric_ratio[0], m.shortfall[0], m.kl[0]) == (0, 0, 1, np.inf)


@pytest.mark.parametrize(
    ("tokens", "offsets", "error", "why"),
    [
        ([], [0], EmptyComparisonError, "no sequence"),
        ([0.1], [0, 1, 1], EmptyComparisonError, "Sequence 1 has no tokens"),
        ([0.1, 0.2], [0, 2, 1], ValueError, "sequence 1 ends"),
        ([0.1, 0.2], [0, 1], ValueError, "cover 1 tokens"),
        ([0.1, 0.2], [1, 2], ValueError, "start at 0"),
        ([0.1, np.nan], [0, 2], ValueError, "token 1 is NaN"),
        ([0.1, np.inf], [0, 2], ValueError, r"token 1 is \+inf"),
    ],
)
def test_bad_input_is_refused(tokens: list[float], offsets: list[int], error: type, why: str) -> None:
    with pytest.raises(error, match=why):
        SequenceSums.of(tokens, offsets)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 8))
def test_length_bins_cover_every_sequence_once_and_are_never_empty(lengths: list[int], max_bins: int) -> None:
    bins = length_bins(lengths, max_bins)
    assert 1 <= len(bins.longest_B) <= max_bins
    assert set(bins.bin_S) == set(range(len(bins.longest_B)))
    for length, b in zip(lengths, bins.bin_S, strict=True):
        assert bins.shortest_B[b] <= length <= bins.longest_B[b]
    assert (bins.longest_B[:-1] < bins.shortest_B[1:]).all()


def test_length_bins_hold_equally_many_where_lengths_differ() -> None:
    bins = length_bins(np.arange(1, 101))
    assert np.bincount(bins.bin_S).tolist() == [20] * 5
    assert length_bins([7, 7, 7]).longest_B.tolist() == [7]
    with pytest.raises(EmptyComparisonError):
        length_bins([])
    with pytest.raises(ValueError, match="max_bins"):
        length_bins([1], 0)
