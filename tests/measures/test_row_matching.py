"""Shapes: C rows, H tokens."""

from __future__ import annotations

import numpy as np
import pytest
from paired_columns import columns

from mismatchscope.measures.row_matching import ENOUGH, matching_rows


def test_a_permutation_is_found() -> None:
    rng = np.random.default_rng(1)
    mu_CH, pi_CH = columns(rng, 100, 48, 0.05)
    order_C = np.roll(rng.permutation(100), 1)
    partner_C = matching_rows(mu_CH, pi_CH[order_C])
    found_C = partner_C >= 0
    assert found_C.mean() > 0.8
    np.testing.assert_array_equal(order_C[partner_C[found_C]], np.flatnonzero(found_C))


@pytest.mark.parametrize("seed", range(3))
def test_unrelated_rows_match_none(seed: int) -> None:
    rng = np.random.default_rng([2, seed])
    mu_CH, _ = columns(rng, 300, 48, 0.0)
    _, pi_CH = columns(rng, 300, 48, 0.0)
    assert (matching_rows(mu_CH, pi_CH) >= 0).sum() <= 1


def test_rows_in_order_match_none() -> None:
    assert (matching_rows(*columns(np.random.default_rng(3), 200, 48, 0.3)) < 0).all()


def test_copies_are_no_partners() -> None:
    """Two rows that fit equally well tell nothing."""
    mu_CH, pi_CH = columns(np.random.default_rng(4), 20, 48, 0.05)
    pi_CH[:] = pi_CH[::-1]
    assert (matching_rows(np.repeat(mu_CH, 2, axis=0), np.repeat(pi_CH, 2, axis=0)) < 0).all()


def test_short_rows_match_none() -> None:
    mu_CH, pi_CH = columns(np.random.default_rng(5), 20, ENOUGH - 1, 0.0)
    assert (matching_rows(mu_CH, pi_CH[::-1]) < 0).all()
