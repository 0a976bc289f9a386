"""The compiled sums that native metrics are made of, against numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures import kernel
from mismatchscope.measures.native.batch_sums import sums_by_batch


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("padded", [False, True])
def test_compiled_sums_are_those_of_numpy(
    compiled_kernel: None, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    n = 3000
    mu_N = -rng.exponential(1.0, n) * (rng.random(n) < 0.7)
    pi_N = np.minimum(mu_N + rng.standard_normal(n) * rng.choice([0.0, 1e-9, 0.02, 0.8, 5.0], n), 0.0)
    pi_N[[5, 6]] = -30.0, -100.0  # beyond the clamps
    mu_N[7], pi_N[7], pi_N[2999] = -60.0, -0.5, -np.inf
    offsets_S1 = np.array([0, 1, 100, 250, 2500, 2990, 3000])
    batch_S = np.array([0, 0, 1, 1, 2, 3])
    counts_N = rng.random(n) < 0.8 if padded else None
    if counts_N is not None:
        counts_N[[0, 5, 6, 7, 2999]] = True
        mu_N[~counts_N] = np.nan  # padding
    compiled = sums_by_batch(mu_N, pi_N, offsets_S1, batch_S, counts_N=counts_N)
    monkeypatch.setattr(kernel, "library", lambda: None)
    plain = sums_by_batch(mu_N, pi_N, offsets_S1, batch_S, counts_N=counts_N)
    assert compiled.keys() == plain.keys()
    for batch, sums in compiled.items():
        for kind in ("total", "largest", "smallest"):
            mine, theirs = getattr(sums, kind), getattr(plain[batch], kind)
            assert mine.keys() == theirs.keys()
            for name, value in mine.items():
                assert value == pytest.approx(theirs[name], rel=1e-11, abs=1e-13, nan_ok=True), (batch, name)
