"""What rounding logits to a dtype can do to a policy at the most."""

from __future__ import annotations

import numpy as np


def rounding_floor_tv(max_abs_logit: float, dtype: str) -> float:
    """Largest TV that rounding logits of at most this magnitude to `dtype` can cause: tanh(e / 2).

    e is half a unit in the last place at `max_abs_logit`. This is for one rounded side; two sides that round
    apart reach tanh(e). `dtype` is "bfloat16", "float16" or "float32".

    Raises:
        ValueError: another dtype, or a magnitude that is not a finite number >= 0.
    """
    significand_bits = {"bfloat16": 8, "float16": 11, "float32": 24}
    if dtype not in significand_bits:
        raise ValueError(f"no rounding floor for dtype {dtype!r}; one of {', '.join(significand_bits)}")
    if not 0 <= max_abs_logit < np.inf:
        raise ValueError(f"a logit magnitude must be finite and not negative, not {max_abs_logit}")
    if max_abs_logit == 0:
        return 0.0
    exponent = np.frexp(max_abs_logit)[1] - 1
    return float(np.tanh(np.ldexp(1.0, exponent - significand_bits[dtype]) / 2))
