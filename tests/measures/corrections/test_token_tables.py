"""Compiled tables are those of numpy: every value, at every edge, and for every group."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures import kernel
from mismatchscope.measures.corrections.bins import KEYS, TokenBins
from mismatchscope.measures.corrections.token_tables import TokenColumns, token_bins

LOWS, HIGHS = {-0.5, -0.1, 0.2}, {-0.1, 0.0, 0.1, 0.7}
OFFSETS = np.array([0, 1, 40, 41, 900, 1000])


def columns(spread: float, target: bool, advantages: bool) -> TokenColumns:
    rng = np.random.default_rng(0)
    d, r = rng.normal(0, spread, (2, 1000))
    d[::17] = rng.choice([*LOWS, *HIGHS, -np.inf, np.nextafter(0.2, -1), np.nextafter(-0.5, -1)], len(d[::17]))
    mu = -rng.exponential(0.5, 1000)
    mu[::11] = rng.choice([0.0, 1e-6, -1e-12, -30.0], len(mu[::11]))
    d[d > -np.inf] = np.minimum(d[d > -np.inf], -mu[d > -np.inf])
    return TokenColumns(
        d,
        r if target else None,
        rng.choice([-1.0, 0.0, 0.5], 1000) if advantages else None,
        mu,
        {"tv": rng.random(1000)},
    )


@pytest.mark.parametrize(("target", "advantages"), [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("spread", [0.05, 1.0], ids=["most in one bin", "in all bins"])
def test_compiled_tables_are_those_of_numpy(
    target: bool, advantages: bool, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernel.backend() != "c":
        pytest.skip("there is no C compiler")
    given = columns(spread, target, advantages)
    thresholds = {key: (LOWS, HIGHS) for key in KEYS}
    compiled = token_bins(given, OFFSETS, thresholds)
    monkeypatch.setattr(kernel, "library", lambda: None)
    by_numpy = token_bins(given, OFFSETS, thresholds)
    assert compiled.keys() == by_numpy.keys() == given.keys
    for key, bins in by_numpy.items():
        for bins_B in np.eye(len(bins.within()), dtype=bool):
            for name in given.names:
                assert_equal(compiled[key], bins, name, bins_B)


def assert_equal(compiled: TokenBins, by_numpy: TokenBins, name: str, bins_B: np.ndarray) -> None:
    found_S, expected_S = compiled.sum_S(name, bins_B), by_numpy.sum_S(name, bins_B)
    np.testing.assert_allclose(found_S, expected_S, rtol=1e-12, atol=1e-13)
