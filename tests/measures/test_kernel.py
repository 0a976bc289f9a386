from __future__ import annotations

import numpy as np
import pytest
from blocks import log_probabilities, normal

from mismatchscope.measures import kernel
from mismatchscope.measures.full import divergences
from mismatchscope.measures.topk import topk_interval


def test_without_a_compiler_the_slow_path_says_so_once(monkeypatch, caplog):
    mu, pi = log_probabilities(normal(2, 300), normal(2, 300, seed=1))
    expected, observed = divergences(mu, pi).tv, topk_interval(mu[:, :9], pi[:, :9]).tv_lower
    kernel.library.cache_clear()
    monkeypatch.setenv("CC", "no-such-compiler")
    try:
        assert kernel.backend() == "numpy"
        assert divergences(mu, pi, normalised=True).tv == pytest.approx(expected, abs=1e-6)
        assert divergences(mu, pi).tv == pytest.approx(expected, abs=1e-6)
        assert topk_interval(mu[:, :9], pi[:, :9]).tv_lower == pytest.approx(observed, rel=1e-12)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "no-such-compiler" in caplog.text
    finally:
        kernel.library.cache_clear()


@pytest.mark.parametrize(("n_rows", "threads"), [(1, 4), (3, 1), (7, 2), (100, 3)])
def test_pieces_cover_every_row_once(n_rows, threads):
    seen = np.zeros(n_rows, int)

    def measure(begin: int, end: int) -> None:
        assert begin < end
        seen[begin:end] += 1

    kernel.in_pieces(measure, n_rows, threads)
    assert np.all(seen == 1)
