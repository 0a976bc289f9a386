"""A weight a token or a sequence, and what is dropped: what every correction of the mismatch is made of.

Legend: S = sequences of a block, B = bins of the log ratio (`bins`). Bands are on the ratio itself.
"""

from __future__ import annotations

import numpy as np

from .block import RETAINED, Binned, RatioBlock
from .effect import Effect

Array = np.ndarray

EVERYTHING = (0.0, np.inf)


def by_token(
    block: Binned,
    *,
    clamp: tuple[float, float] | None = EVERYTHING,
    band: tuple[float, float] = EVERYTHING,
    keep_S: Array | None = None,
) -> Effect:
    """Tokens with weight rho_t clamped to `clamp`, or 1 where that is None; those with rho_t outside `band` and
    those of sequences that are not in `keep_S` have weight 0."""
    low, high = (float(np.log(bound)) if bound > 0 else -np.inf for bound in clamp or EVERYTHING)
    band_low, band_high = (float(np.log(bound)) if bound > 0 else -np.inf for bound in band)
    # The clamp's lower bound is an edge from below as its upper one is: at equality both weights are the same.
    bins = block.bins(
        "ratio",
        [each for each in (low, band_low) if each > -np.inf],
        [each for each in (high, band_high) if each < np.inf],
    )
    kept_B = bins.within(band_low, band_high)
    below_B, above_B = kept_B & ~bins.within(low), kept_B & ~bins.within(high=high)
    inside_B = kept_B & ~below_B & ~above_B
    removed_S, added_S = bins.sum_S("ratio", ~kept_B), np.zeros(len(block.length_S))
    if clamp is None:
        weight_S = square_S = bins.tokens_S(kept_B).astype(np.float64)
        short_S = bins.sum_S("shortfall", kept_B)
        removed_S = removed_S + bins.sum_S("ratio", kept_B) - weight_S + short_S
        added_S = short_S
    else:
        weight_S, square_S = bins.sum_S("ratio", inside_B), bins.sum_S("square", inside_B)
        if above_B.any():
            above_S = bins.tokens_S(above_B)
            weight_S, square_S = weight_S + clamp[1] * above_S, square_S + clamp[1] ** 2 * above_S
            removed_S = removed_S + bins.sum_S("ratio", above_B) - clamp[1] * above_S
        if below_B.any():
            below_S = bins.tokens_S(below_B)
            weight_S, square_S = weight_S + clamp[0] * below_S, square_S + clamp[0] ** 2 * below_S
            added_S = clamp[0] * below_S - bins.sum_S("ratio", below_B)
    kept_S = bins.tokens_S(kept_B)
    retained_S = {name: bins.known_sum_S(name, kept_B) for name in RETAINED}
    if keep_S is not None:
        removed_S = np.where(keep_S, removed_S, block.sum_ratio_S)
        added_S, weight_S, square_S, kept_S = (
            np.where(keep_S, each_S, 0) for each_S in (added_S, weight_S, square_S, kept_S)
        )
        retained_S = {
            name: None if sum_S is None else np.where(keep_S, sum_S, 0.0) for name, sum_S in retained_S.items()
        }
    with np.errstate(divide="ignore"):
        return Effect(
            unit="token",
            length_S=block.length_S,
            kept_S=kept_S,
            log_weight_S=np.log(weight_S),
            log_square_S=np.log(square_S),
            log_ratio_S=np.log(block.sum_ratio_S),
            removed_S=np.maximum(removed_S, 0.0),
            added_S=np.maximum(added_S, 0.0),
            retained_S=retained_S,
        )


def by_sequence(
    block: RatioBlock, keep_S: Array | None = None, *, clamp: tuple[float, float] | None = EVERYTHING
) -> Effect:
    """Sequences with weight rho(y) clamped to `clamp`, or 1 where that is None; those not in `keep_S` have 0."""
    keep_S = np.ones(block.log_ratio_S.shape, dtype=bool) if keep_S is None else keep_S
    log_ratio_S = block.log_ratio_S
    with np.errstate(divide="ignore"):
        low, high = np.log(clamp or (1.0, 1.0))
    log_weight_S = np.where(keep_S, np.clip(log_ratio_S, low, high), -np.inf)
    return sequence_effect(block, keep_S, log_weight_S, log_ratio_S)


def sequence_effect(block: RatioBlock, keep_S: Array, log_weight_S: Array, log_ratio_S: Array) -> Effect:
    """Of weights of whole sequences, for the ratios that they stand in for."""
    with np.errstate(over="ignore", invalid="ignore"):  # a ratio beyond 1e308 takes an infinite mass with it
        difference_S = np.exp(log_ratio_S) - np.exp(log_weight_S)
    difference_S = np.where(log_ratio_S == log_weight_S, 0.0, difference_S)
    return Effect(
        unit="sequence",
        length_S=block.length_S,
        kept_S=np.where(keep_S, block.length_S, 0),
        log_weight_S=log_weight_S,
        log_square_S=2 * log_weight_S,
        log_ratio_S=log_ratio_S,
        removed_S=np.maximum(difference_S, 0.0),
        added_S=np.maximum(-difference_S, 0.0),
        retained_S={
            name: None if sum_S is None else np.where(keep_S, sum_S, 0.0)
            for name, sum_S in block.retained_S.items()
        },
    )


def within(log_ratio_U: Array, low: float, high: float) -> Array:
    """Bounds on the ratio itself: bounds on its negative logarithm swap their roles and are easily confused."""
    with np.errstate(divide="ignore"):
        return (log_ratio_U >= np.log(low)) & (log_ratio_U <= np.log(high))
