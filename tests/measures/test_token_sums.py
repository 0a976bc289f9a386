"""Sums of segments: the kernel against numpy, and both against the estimators of sampled.py."""

from __future__ import annotations

import math
from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mismatchscope.measures import kernel
from mismatchscope.measures.sampled import sampled_estimators
from mismatchscope.measures.token_sums import TokenSums, token_sums

NAMES = [field.name for field in fields(TokenSums)]
few = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

illegal = st.sampled_from([math.nan, 0.5, math.inf])
edge = st.sampled_from([0.0, -1e-300, -1e-12, -0.35, -0.350001, -745.2, -709.79, -2000.0])
mu = st.one_of(st.floats(-60, 0), edge, st.just(-math.inf), illegal)
pi = st.one_of(st.floats(-60, 0), edge, st.just(-math.inf), illegal)
near = st.tuples(st.floats(-30, -1e-3), st.floats(-1e-6, 1e-6)).map(lambda pair: (pair[0], pair[0] + pair[1]))
tokens = st.lists(st.tuples(st.one_of(st.tuples(mu, pi), near), st.booleans()), min_size=1, max_size=40)


def close(ours: TokenSums, theirs: TokenSums, rel: float = 1e-12) -> None:
    for name in NAMES:
        expected = pytest.approx(getattr(theirs, name), rel=rel, abs=1e-300, nan_ok=True)
        assert getattr(ours, name) == expected, name


@given(tokens, st.data())
@few
def test_the_kernel_and_numpy_agree(compiled_kernel: None, drawn: list, data: st.DataObject) -> None:
    mu_N, pi_N = (np.array([token[0][side] for token in drawn]) for side in (0, 1))
    counts_N = np.array([token[1] for token in drawn])
    cuts = data.draw(st.lists(st.integers(0, len(drawn)), max_size=4))
    offsets_U1 = np.array([0, *sorted(cuts), len(drawn)])
    for dtype in (np.float64, np.float32):
        columns = mu_N.astype(dtype), pi_N.astype(dtype)
        found = token_sums(*columns, offsets_U1, counts_N=counts_N)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernel, "library", lambda: None)
            close(found, token_sums(*columns, offsets_U1, counts_N=counts_N))


def some(n: int = 5000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mu_N = -rng.exponential(1.0, n) * (rng.random(n) < 0.6)
    return mu_N, np.minimum(mu_N + rng.standard_normal(n) * rng.choice([1e-9, 1e-3, 1.0], n), 0.0)


def test_sums_are_those_of_the_estimators(backend: str) -> None:
    mu_N, pi_N = some()
    offsets_U1 = np.array([0, 1, 1, 700, 4999, 5000])
    found = token_sums(mu_N, pi_N, offsets_U1)
    for segment, (start, stop) in enumerate(pairwise(offsets_U1.tolist())):
        assert found.tokens[segment] == stop - start
        if start == stop:
            assert found.k3[segment] == 0
            assert found.smallest_log_ratio[segment] == math.inf
            assert found.largest_abs_prob_diff[segment] == -math.inf
            continue
        s = sampled_estimators(mu_N[start:stop], pi_N[start:stop])
        p_mu, p_pi = np.exp(mu_N[start:stop]), np.exp(pi_N[start:stop])
        for name, values in {
            "log_ratio": s.log_ratio,
            "log_ratio_square": 2 * s.k2,
            "abs_logprob_diff": s.abs_logprob_diff,
            "k3": s.k3,
            "ratio": s.ratio,
            "outside_band": (s.ratio < 0.8) | (s.ratio > 1.2),
            "shortfall": s.shortfall,
            "prob_diff": s.prob_diff,
            "abs_prob_diff": s.binary_tv,
            "exp_abs_diff": s.exp_abs_diff,
            "prob_mu": p_mu,
            "prob_pi_square": p_pi**2,
            "prob_product": p_mu * p_pi,
        }.items():
            terms = math.fsum(np.abs(values))
            assert getattr(found, name)[segment] == pytest.approx(math.fsum(values), rel=1e-13, abs=1e-13 * terms)
        assert found.largest_ratio[segment] == pytest.approx(s.ratio.max(), rel=1e-14)
        assert np.exp(found.smallest_log_ratio[segment]) == pytest.approx(s.ratio.min(), rel=1e-14)
        assert found.largest_abs_logprob_diff[segment] == s.abs_logprob_diff.max()
        assert found.largest_abs_prob_diff[segment] == pytest.approx(s.binary_tv.max(), rel=1e-14)


def test_padded_arrays_are_read_with_their_mask(backend: str) -> None:
    mu_N, pi_N = some(60)
    mask_BT = np.random.default_rng(1).random((6, 10)) < 0.7
    padded = token_sums(mu_N, pi_N, np.arange(0, 61, 10), counts_N=mask_BT.ravel())
    packed = token_sums(
        mu_N[mask_BT.ravel()], pi_N[mask_BT.ravel()], np.concatenate([[0], np.cumsum(mask_BT.sum(axis=1))])
    )
    close(padded, packed)


def test_what_is_not_legal_is_counted_and_nothing_else(backend: str) -> None:
    mu_N = np.array([-1.0, math.nan, -1.0, -math.inf, 0.1, -1.0, math.nan])
    pi_N = np.array([-1.0, -1.0, math.nan, -1.0, -1.0, -math.inf, -1.0])
    counts_N = np.array([True] * 6 + [False])
    found = token_sums(mu_N, pi_N, [0, 7], counts_N=counts_N)
    assert (found.tokens[0], found.rejected[0]) == (2, 4)
    assert found.log_ratio[0] == -math.inf
    assert found.k3[0] == math.inf
    assert found.ratio[0] == 1.0
    assert found.shortfall[0] == 1.0


def test_threads_change_nothing(backend: str) -> None:
    mu_N, pi_N = some(400)
    offsets_U1 = np.arange(0, 401, 10)
    close(token_sums(mu_N, pi_N, offsets_U1, threads=3), token_sums(mu_N, pi_N, offsets_U1), rel=0.0)


@pytest.mark.parametrize(
    "offsets",
    [[1, 0], [0, 4], [-1, 3], [0.0, 3.0], [], [[0, 3]]],
    ids=["falls", "beyond", "negative", "float", "none", "2d"],
)
def test_boundaries_outside_the_tokens_are_refused(offsets: list) -> None:
    with pytest.raises(ValueError, match="segment boundaries"):
        token_sums(np.zeros(3), np.zeros(3), np.array(offsets))


def test_columns_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="two arrays"):
        token_sums(np.zeros(3), np.zeros(4), [0, 3])
    with pytest.raises(ValueError, match="a boolean for each"):
        token_sums(np.zeros(3), np.zeros(3), [0, 3], counts_N=np.ones(3))
