"""What a sampler makes of a policy, one transform after another, in float64.

Order and rules are those of vLLM: penalties, temperature, min-p, top-k, top-p, each of what is left, and ids that
tie with the k-th are kept. SGLang takes min-p, top-k and top-p each of the whole, and keeps k (`at_once`).

Shapes: M states, V vocabulary, U entries (of ids that occur before a state). Log-probs are natural.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def normalised(logit_MV: Array) -> Array:
    """Log-probs [M, V] of logits of any level, float64; -inf stays -inf."""
    top_M1 = logit_MV.max(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        return logit_MV - (top_M1 + np.log(np.exp(logit_MV - top_M1).sum(axis=1, keepdims=True)))


def penalised(
    logit_MV: Array,
    state_U: Array,
    id_U: Array,
    count_U: Array,
    *,
    presence: float = 0.0,
    frequency: float = 0.0,
) -> Array:
    """Logits [M, V] less `presence` where an id occurs in the response before the state, and less `frequency` for
    each time that it does.

    The id `id_U` occurs `count_U` times before the state `state_U`; each pair of the two is there once.
    """
    logit_MV = logit_MV.copy()
    logit_MV[state_U, id_U] -= presence * (count_U > 0) + frequency * count_U
    return logit_MV


def kept(logp_MV: Array, *, min_p: float = 0.0, top_k: int = 0, top_p: float = 1.0, at_once: bool = False) -> Array:
    """Boolean [M, V]: the ids that min-p, top-k and top-p leave; 0, 0 and 1 leave all. The most probable one stays.

    An id is left by min-p where its probability is at least `min_p` times the largest, and by top-p where the more
    probable ones together have less than `top_p`.
    """
    p_MV = np.exp(logp_MV)
    kept_MV = logp_MV > -np.inf
    if min_p > 0:
        kept_MV &= p_MV >= min_p * p_MV.max(axis=1, keepdims=True)
    if 0 < top_k < p_MV.shape[1] and not at_once:
        kth_M1 = np.partition(p_MV, -top_k, axis=1)[:, -top_k, None]
        kept_MV &= p_MV >= kth_M1
    if top_p < 1 or (at_once and top_k > 0):
        counted_MV = p_MV if at_once else np.where(kept_MV, p_MV, 0.0)
        order_MV = np.argsort(-counted_MV, axis=1, kind="stable")
        falling_MV = np.take_along_axis(counted_MV, order_MV, axis=1)
        falling_MV /= falling_MV.sum(axis=1, keepdims=True)
        within_MV = np.ones_like(kept_MV) if top_p == 1 else np.cumsum(falling_MV, axis=1) - falling_MV < top_p
        if at_once and top_k > 0:
            within_MV[:, top_k:] = False
        within_MV[:, 0] = True
        nucleus_MV = np.empty_like(kept_MV)
        np.put_along_axis(nucleus_MV, order_MV, within_MV, axis=1)
        kept_MV &= nucleus_MV
    return kept_MV


def most_probable(logp_MV: Array) -> Array:
    """Boolean [M, V]: what greedy decoding keeps, the first most probable id."""
    kept_MV = np.zeros(logp_MV.shape, dtype=bool)
    np.put_along_axis(kept_MV, logp_MV.argmax(axis=1)[:, None], True, axis=1)
    return kept_MV


def mass_of(logp_MV: Array, kept_MV: Array) -> Array:
    """The probability [M] of the kept ids: 1 where they are all."""
    mass_M = np.where(kept_MV, np.exp(logp_MV), 0.0).sum(axis=1)
    return np.where(kept_MV.all(axis=1), 1.0, np.minimum(mass_M, 1.0))


def restricted(logp_MV: Array, kept_MV: Array) -> Array:
    """Log-probs [M, V] of the kept ids alone, normalised; NaN rows where they have no mass."""
    if kept_MV.all():
        return logp_MV
    with np.errstate(invalid="ignore"):
        return normalised(np.where(kept_MV, logp_MV, -np.inf))


def total_variation(logp_MV: Array, logq_MV: Array) -> Array:
    """½ Σ |p − q|, [M]."""
    return 0.5 * np.abs(np.exp(logp_MV) - np.exp(logq_MV)).sum(axis=1)
