"""What an engine drew from, held against what its settings make of its raw policy."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.comparison.sampler_policy import RawPolicy
from mismatchscope.comparison.sampler_steps import SamplerChecking
from mismatchscope.records import Transforms

P_MV = np.array([[0.4, 0.25, 0.25, 0.1], [0.4, 0.25, 0.25, 0.1], [0.4, 0.25, 0.25, 0.1], [0.7, 0.1, 0.15, 0.05]])


def test_ids_that_tie_at_a_border_are_told_from_ids_that_do_not() -> None:
    """A nucleus of 0.5 has two ids: the first, or one of the two that tie; the last row has one."""
    kept_MV = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [1, 0, 0, 0]], dtype=bool)
    p_MV = np.where(kept_MV, P_MV, 0.0)
    with np.errstate(divide="ignore"):
        recorded_MV = np.log(p_MV / p_MV.sum(axis=1, keepdims=True))
    check = SamplerChecking(Transforms(top_p=0.5))
    check.add(RawPolicy(np.log(P_MV), None, at_once=False), recorded_MV)
    found = check.result
    assert (found.states, found.same_kept, found.tied) == (4, 2, 1)
    assert found.max_tv == pytest.approx(0.25 / 0.65)
