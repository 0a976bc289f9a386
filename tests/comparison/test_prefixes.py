"""Beginnings of responses, against sums taken token by token and against errors of known law."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written_traces import pair_with_ratios

from mismatchscope.comparison.prefixes import PrefixSums


def sums(directory: Path, log_ratio_ST: list[np.ndarray]) -> PrefixSums:
    return PrefixSums.of(pair_with_ratios(directory, [np.exp(log_ratio_T) for log_ratio_T in log_ratio_ST]))


def test_each_length_has_the_sums_of_its_beginnings(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    log_ratio_ST = [0.1 * rng.standard_normal(length) for length in (3, 4, 7, 8, 9, 30, 33)]
    rows = {row.tokens: row for row in sums(tmp_path, log_ratio_ST).rows(0.95)}
    assert list(rows) == [4, 8, 16, 32] and [row.n for row in rows.values()] == [6, 4, 2, 1]
    for tokens, row in rows.items():
        x_S = np.array([log_ratio_T[:tokens].sum() for log_ratio_T in log_ratio_ST if len(log_ratio_T) >= tokens])
        assert row.log_ratio == pytest.approx(x_S.mean(), rel=1e-9)
        assert row.spread == pytest.approx(x_S.std(), rel=1e-6, abs=1e-7)
        assert row.tv.value == pytest.approx(np.maximum(0.0, 1 - np.exp(x_S)).mean(), rel=1e-9)


def test_a_beginning_with_a_token_that_pi_cannot_draw_is_lost_mass(tmp_path: Path) -> None:
    with np.errstate(divide="ignore"):
        impossible_T = np.log(np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0]))
        rows = sums(tmp_path, [impossible_T, np.zeros(8)]).rows(0.95)
    assert [(row.tokens, row.n, row.tv.value, row.log_ratio) for row in rows] == [
        (4, 2, 0.0, 0.0),
        (8, 2, 0.5, 0.0),
    ]


@pytest.mark.parametrize(("shared", "codes"), [(0.0, {"random_walk"}), (0.02, {"between", "biased"})])
def test_independent_errors_walk_and_shared_ones_do_not(tmp_path: Path, shared: float, codes: set[str]) -> None:
    """An error that all tokens of a response have in common adds up with its length."""
    rng = np.random.default_rng(1)
    log_ratio_ST = [0.02 * rng.standard_normal(64) + shared * rng.standard_normal() for _ in range(200)]
    scaling = sums(tmp_path, log_ratio_ST).scaling(0.95)
    assert scaling is not None and scaling.code in codes, scaling
