from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from blocks import log_softmax

from mismatchscope.errors import EmptyComparisonError
from mismatchscope.measures.full import divergences as from_logits
from mismatchscope.measures.support import renormalise_on_support

divergences = partial(from_logits, normalised=True)


def test_renormalising_on_the_support_removes_what_top_k_costs() -> None:
    logp_pi = log_softmax(np.random.default_rng(3).normal(0, 2, (6, 40)))
    kept = logp_pi >= np.sort(logp_pi, axis=1)[:, -5:-4]
    logp_mu = log_softmax(np.where(kept, logp_pi, -np.inf))
    processed = divergences(logp_mu, logp_pi)
    kept_mass = np.exp(logp_pi).sum(axis=1, where=kept)
    np.testing.assert_allclose(processed.tv, 1 - kept_mass, rtol=1e-12)
    on_support, kept_logmass = renormalise_on_support(logp_pi, logp_mu)
    np.testing.assert_allclose(kept_logmass, np.log(kept_mass), rtol=1e-12)
    same = divergences(logp_mu, on_support)
    assert same.tv.max() < 1e-15
    assert same.leak.max() == 0


def test_renormalised_float32_rows_stay_float32_and_normalised() -> None:
    logp_pi = log_softmax(np.random.default_rng(3).normal(0, 3, (4, 30_000))).astype(np.float32)
    kept = logp_pi > -14
    logp_mu = log_softmax(np.where(kept, logp_pi.astype(float), -np.inf)).astype(np.float32)
    on_support, kept_logmass = renormalise_on_support(logp_pi, logp_mu)
    assert on_support.dtype == np.float32
    np.testing.assert_array_equal(np.isneginf(on_support), ~kept)
    exact = np.log(np.exp(logp_pi.astype(float)).sum(axis=1, where=kept))
    np.testing.assert_allclose(kept_logmass, exact, atol=1e-7)
    assert divergences(logp_mu, on_support).tv.max() < 1e-6


def test_a_support_that_the_reference_all_but_lacks_is_still_renormalised() -> None:
    logp_mu, logp_pi = np.float32([[0.0, -np.inf]]), np.float32([[-300.0, 0.0]])
    on_support, kept_logmass = renormalise_on_support(logp_pi, logp_mu)
    assert (on_support[0, 0], kept_logmass[0]) == (0, -300)


def test_renormalising_without_common_mass_is_an_error() -> None:
    with pytest.raises(ValueError, match="row 0"):
        renormalise_on_support(np.array([[0.0, -np.inf]]), np.array([[-np.inf, 0.0]]))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_values_that_are_no_log_probabilities_are_refused_by_row(poison: float, side: int) -> None:
    logp_2TV = np.full((2, 3, 2), np.log(0.5))
    logp_2TV[side, 2, 1] = poison
    with pytest.raises(ValueError, match=f"row 2 of the {('reference', 'behaviour')[side]} holds NaN"):
        renormalise_on_support(*logp_2TV)


def test_shapes_and_empty_input_are_errors() -> None:
    with pytest.raises(ValueError, match="expected two arrays"):
        renormalise_on_support(np.zeros((1, 2)), np.zeros((1, 3)))
    with pytest.raises(EmptyComparisonError):
        renormalise_on_support(np.zeros((0, 2)), np.zeros((0, 2)))
