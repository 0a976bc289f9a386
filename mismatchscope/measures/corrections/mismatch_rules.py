"""Rules that look at pi_old / mu alone: corrections of the mismatch between the sampler and the trainer.

Each takes a block and its thresholds and says what it does to every sequence. Formulas and sources: `catalogue`.
"""

from __future__ import annotations

import numpy as np

from .block import Binned, RatioBlock
from .effect import Effect
from .weighting import by_sequence, by_token, within


def token_tis(block: Binned, *, cap: float = 2.0, low: float = 0.0) -> Effect:
    """Truncated importance sampling, token level: w = min(rho_t, cap), and at least `low` where that is given."""
    return by_token(block, clamp=(low, cap))


def icepop(block: Binned, *, low: float = 0.5, high: float = 5.0) -> Effect:
    """IcePop: w = rho_t where rho_t is in [low, high], else the token is masked."""
    return by_token(block, band=(low, high))


def sequence_tis(block: RatioBlock, *, cap: float = 2.0) -> Effect:
    """Truncated importance sampling, sequence level: w = min(rho(y), cap)."""
    return by_sequence(block, clamp=(0.0, cap))


def sequence_mis(block: RatioBlock, *, cap: float = 2.0, low: float = 0.0) -> Effect:
    """Masked importance sampling: w = rho(y) where low <= rho(y) <= cap, else the sequence is masked."""
    return by_sequence(block, within(block.log_ratio_S, low, cap))


def geometric_mask(block: RatioBlock, *, low: float = 0.999, high: float = 1.001) -> Effect:
    """Keep a sequence while its geometric mean ratio rho(y)^(1 / length) is in [low, high]."""
    return by_sequence(block, within(block.log_ratio_S / block.length_S, low, high))


def mean_ratio_mask(block: RatioBlock, *, low: float = 0.999, high: float = 1.002) -> Effect:
    """Keep a sequence while the mean of its token ratios is in [low, high]."""
    return by_sequence(block, (block.mean_ratio_S >= low) & (block.mean_ratio_S <= high))


def k3_rejection(block: RatioBlock, *, threshold: float = 0.001) -> Effect:
    """Keep a sequence while its mean k3 is at most `threshold`."""
    return by_sequence(block, block.mean_k3_S <= threshold)


def largest_k3_rejection(block: RatioBlock, *, threshold: float = 0.05) -> Effect:
    """Keep a sequence while the k3 of all its tokens is at most `threshold`.

    Trust region masking asks this of the KL of each state; k3 of the one token that was sampled stands in for it.
    """
    return by_sequence(block, block.largest_k3_S <= threshold)


def worst_token_rejection(block: RatioBlock, *, low: float = 1e-4, high: float = np.inf) -> Effect:
    """Drop a sequence once one of its token ratios is below `low`, or above `high` where that is given."""
    keep_S = block.smallest_log_ratio_S >= np.log(low)
    return by_sequence(block, keep_S if high == np.inf else keep_S & (block.largest_log_ratio_S <= np.log(high)))


def error_rejection(block: RatioBlock, *, threshold: float = 1.5) -> Effect:
    """Keep a sequence while its mean of exp |d_t| is at most `threshold`."""
    return by_sequence(block, block.mean_error_S <= threshold)


def trust_region_mask_max(block: RatioBlock, *, threshold: float = 0.05) -> Effect:
    """Trust region masking (2512.23075): keep a sequence while KL(mu || pi) of all its states is <= threshold.

    Raises:
        ValueError: the states' KL is not known; the sampled ratio does not stand in for it.
    """
    return by_sequence(block, _known_kl(block.largest_state_kl_S) <= threshold)


def trust_region_mask_mean(block: RatioBlock, *, threshold: float = 0.001) -> Effect:
    """As `trust_region_mask_max`, by the mean over the sequence's states."""
    _known_kl(block.largest_state_kl_S)
    return by_sequence(block, block.mean_state_kl_S <= threshold)


def _known_kl(kl_S: np.ndarray | None) -> np.ndarray:
    if kl_S is None:
        raise ValueError("trust region masking needs the KL of each state, from full evidence")
    return kl_S
