from __future__ import annotations

import math

import numpy as np
import pytest

from mismatchscope.measures.full import divergences
from mismatchscope.measures.rounding import rounding_floor_tv


@pytest.mark.parametrize(("dtype", "numpy_dtype"), [("float16", np.float16), ("float32", np.float32)])
def test_rounding_floor_bounds_what_rounding_does(dtype: str, numpy_dtype: type) -> None:
    logits_TV = np.random.default_rng(4).uniform(-20, 20, (50, 100))
    rounded_TV = logits_TV.astype(numpy_dtype).astype(np.float64)
    tv_T = divergences(logits_TV, rounded_TV).tv
    assert 0 < tv_T.max() <= rounding_floor_tv(20.0, dtype)


def test_rounding_floor_is_reached_by_two_balanced_ids() -> None:
    half_ulp = 2.0**-8 * 16  # bfloat16, logits in [16, 32)
    logits_2V = np.array([[1, -1], [-1, 1]]) * half_ulp / 2  # one id rounded up, the other down
    assert divergences(logits_2V[:1], logits_2V[1:]).tv[0] == pytest.approx(
        rounding_floor_tv(31.0, "bfloat16"), rel=1e-12
    )


def test_rounding_floor_rejects_what_it_does_not_know() -> None:
    assert rounding_floor_tv(0.0, "float32") == 0
    with pytest.raises(ValueError, match="bfloat16"):
        rounding_floor_tv(1.0, "int8")
    with pytest.raises(ValueError, match="finite"):
        rounding_floor_tv(math.nan, "float32")
