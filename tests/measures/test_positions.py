"""TV along the response, against plain loops, whatever the chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.measures.positions import PositionProfile


def rows(seed: int, longest: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(positions, values) of some sequences."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest, 20)
    return [(np.arange(length), rng.beta(0.3, 2, length)) for length in lengths]


def profile_of(parts: list[tuple[np.ndarray, np.ndarray]], *, exact_values: int, merge: bool) -> PositionProfile:
    profile = PositionProfile(exact_values)
    for position_N, value_N in parts:
        one = PositionProfile(exact_values) if merge else profile
        one.add(position_N, value_N)
        if merge:
            profile.merge(one)
    return profile


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 24, 25, 700]), st.sampled_from([0, 10**6]), st.booleans())
def test_bins_are_those_of_a_plain_loop(seed: int, longest: int, exact_values: int, merge: bool) -> None:
    parts = rows(seed, longest)
    position_N, value_N = (np.concatenate(column) for column in zip(*parts, strict=True))
    bins = profile_of(parts, exact_values=exact_values, merge=merge).bins()
    assert len(bins) <= (24 if exact_values else 32)
    assert sum(found.n for found in bins) == len(value_N)
    for found in bins:
        inside_N = value_N[(position_N >= found.low) & (position_N <= found.high)]
        assert (found.n, found.max) == (len(inside_N), inside_N.max())
        assert found.mean == pytest.approx(inside_N.mean())
        if len(inside_N) < 100:
            assert found.p99 is None
        else:
            exact = np.quantile(inside_N, 0.99, method="inverted_cdf")
            assert found.p99 == pytest.approx(exact, rel=1e-12 if exact_values else 0.008)


@pytest.mark.parametrize("exact_values", [0, 50, 10**6])
def test_order_does_not_matter(exact_values: int) -> None:
    parts = rows(3, 300)
    forwards = profile_of(parts, exact_values=exact_values, merge=False).bins()
    backwards = profile_of(parts[::-1], exact_values=exact_values, merge=True).bins()
    for one, other in zip(forwards, backwards, strict=True):
        assert one._replace(mean=0) == other._replace(mean=0)
        assert one.mean == pytest.approx(other.mean, rel=1e-12)


def test_means_within_any_range() -> None:
    profile = profile_of([(np.arange(3), np.array([0.1, 0.2, 0.6]))], exact_values=9, merge=False)
    assert profile.within(1, 3) == (2, pytest.approx(0.4))
    assert profile.within(3, 9)[0] == 0
