"""What rounding can do at the most: to a policy whose logits were rounded, and to a log-prob that was stored."""

from __future__ import annotations

import numpy as np

SPARE_BITS = {8: np.int64(2**45 - 1), 11: np.int64(2**42 - 1)}
"""The bits of a float64 that are zero where 8 significant ones are enough, as in bfloat16, or 11, as in float16."""


def storage_error(value_N: np.ndarray) -> np.ndarray:
    """How far each value [N] may be from what was computed, if it was stored in the shortest type that holds it.

    A type of p significant bits rounds a value v by up to |v| / 2^p: 8 bits are bfloat16, 11 float16. What needs
    more was float32 at the least. Not finite: 0.
    """
    bits_N = np.ascontiguousarray(value_N, dtype=np.float64).view(np.int64)
    relative_N = np.full(bits_N.shape, 2.0**-24)
    for bits in sorted(SPARE_BITS, reverse=True):
        relative_N[bits_N & SPARE_BITS[bits] == 0] = 2.0**-bits
    return np.where(np.isfinite(value_N), np.abs(value_N), 0.0) * relative_N


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
