"""Compiled bins of tokens are those of numpy, at every edge and for every group."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures import kernel
from mismatchscope.measures.corrections.bins import TokenBins

LOWS, HIGHS = (-0.5, -0.1, 0.2), (-0.1, 0.0, 0.1, 0.7)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("spread", [0.05, 1.0], ids=["most in one bin", "in all bins"])
def test_compiled_tables_are_those_of_numpy(groups: int, spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernel.backend() != "c":
        pytest.skip("there is no C compiler")
    rng = np.random.default_rng(0)
    starts_S, n = np.array([0, 1, 40, 41, 900]), 1000
    key_T = rng.normal(0, spread, n)
    key_T[::17] = rng.choice(
        [*LOWS, *HIGHS, -np.inf, np.nextafter(0.2, -1), np.nextafter(-0.5, -1)], len(key_T[::17])
    )
    values = {"value": rng.normal(size=n), "none": None}
    group_T = None if groups == 1 else rng.integers(0, groups, n)

    def bins() -> TokenBins:
        return TokenBins(key_T, starts_S, values, group_T, LOWS, HIGHS, groups=groups)

    compiled = bins()
    one_bin = [np.eye(1, len(compiled.within()), at, dtype=bool)[0] for at in range(len(compiled.within()))]
    found = [(compiled.tokens_S(each), compiled.sum_S("value", each)) for each in one_bin]
    monkeypatch.setattr(kernel, "library", lambda: None)
    plain = bins()
    for each, (tokens_S, sum_S) in zip(one_bin, found, strict=True):
        np.testing.assert_array_equal(tokens_S, plain.tokens_S(each))
        np.testing.assert_allclose(sum_S, plain.sum_S("value", each), rtol=1e-12, atol=1e-13)
    assert compiled.known_sum_S("none", one_bin[0]) is None
