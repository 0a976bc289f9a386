"""Intervals of many labels at once are those of one label at a time."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures.interval_rows import label_intervals
from mismatchscope.measures.intervals import UNIT, ratio_interval


@pytest.mark.parametrize("skew", [-1, 0, 1])
def test_each_label_has_the_interval_of_its_own_rows(skew: int) -> None:
    rng = np.random.default_rng(skew + 1)
    size_L = np.array([2, 3, 5, 40, 300])
    start_L1 = np.append(0, np.cumsum(size_L))
    count_E = rng.integers(1, 60, size_L.sum()).astype(float)
    share_E = rng.normal(0.5, 0.05, len(count_E)) if not skew else 0.5 + 0.4 * skew * rng.beta(0.3, 3, len(count_E))
    found = label_intervals(share_E * count_E, count_E, start_L1, bounds=UNIT)
    for label, ours in enumerate(found):
        of = slice(start_L1[label], start_L1[label + 1])
        expected = ratio_interval((share_E * count_E)[of], count_E[of], bounds=UNIT)
        for name in ("value", "low", "high", "n", "clusters"):
            assert getattr(ours, name) == pytest.approx(getattr(expected, name), rel=1e-9)
        assert ours.method == expected.method


def test_what_has_no_interval_says_why() -> None:
    sum_E = np.array([0.0, 0, 1, 2, 4, np.inf, 1, np.inf, -np.inf, 7])
    count_E = np.array([1.0, 2, 5, 1, 2, 1, 1, 1, 1, 0])
    found = label_intervals(sum_E, count_E, np.array([0, 2, 3, 5, 7, 9, 10]))
    assert [(each.value, each.low, each.method) for each in found] == [
        (0.0, 0.0, "all-zero"),
        (0.2, None, "too-few-clusters"),
        (2.0, None, "no-between-cluster-variance"),
        (np.inf, np.inf, "infinite"),
        (None, None, "infinite"),
        (None, None, "no-values"),
    ]
