"""The fused sums by segment and bin, against formulas on single tokens and against sorting."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures import kernel
from mismatchscope.measures.binned_sums import binned_sums

EDGES = np.log([0.01, 0.1, 0.5, 0.9, 0.99])


def columns(seed: int, tokens: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mu_N = -(rng.exponential(size=tokens) ** 3)
    pi_N = np.minimum(0, mu_N + rng.normal(scale=rng.choice([1e-7, 0.01, 2.0], tokens), size=tokens))
    inner = np.sort(rng.choice(np.arange(1, tokens), min(40, tokens - 1), replace=False))
    return mu_N, pi_N, np.concatenate([[0], inner, [tokens]])


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("tokens", [1, 2, 300, 5_000])
def test_each_bin_of_a_segment_has_the_sums_of_its_tokens(
    tokens: int, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(kernel, "library", lambda: None)
    elif kernel.library() is None:
        pytest.skip("no C compiler")
    mu_N, pi_N, offsets_U1 = columns(tokens, tokens)
    sum_UBF, max_UB = binned_sums(mu_N, pi_N, offsets_U1, EDGES)
    d_N = pi_N - mu_N
    figure_NF = np.column_stack(
        [
            *(np.ones(tokens), -np.expm1(np.minimum(d_N, 0)), np.exp(d_N) - 1 - d_N, d_N, np.abs(d_N), np.exp(d_N)),
            -np.expm1(mu_N),
        ]
    )
    gap_N = np.abs(np.exp(mu_N) - np.exp(pi_N))
    bin_N = np.searchsorted(EDGES, mu_N, side="right")
    segment_N = np.searchsorted(offsets_U1, np.arange(tokens), side="right") - 1
    for segment in range(len(offsets_U1) - 1):
        for each in range(len(EDGES) + 1):
            of_N = (segment_N == segment) & (bin_N == each)
            np.testing.assert_allclose(sum_UBF[segment, each], figure_NF[of_N].sum(axis=0), rtol=1e-9, atol=1e-12)
            assert max_UB[segment, each] == pytest.approx(gap_N[of_N].max() if of_N.any() else -np.inf, abs=1e-12)


def test_a_token_outside_pis_support_is_counted() -> None:
    sum_UBF, max_UB = binned_sums(
        np.log([0.5, 0.25]), np.array([-np.inf, np.log(0.25)]), np.array([0, 2]), np.log([0.4])
    )
    np.testing.assert_array_equal(sum_UBF[0, 1], [1, 1, np.inf, -np.inf, np.inf, 0, 0.5])
    np.testing.assert_array_equal(sum_UBF[0, 0], [1, 0, 0, 0, 0, 1, 0.75])
    assert max_UB.tolist() == [[0.0, 0.5]]
