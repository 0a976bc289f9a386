"""Rules that look at the policy that is being optimised, pi_theta, or at the sign of the advantage.

PPO, GSPO and CISPO bound pi_theta / pi_old: they hold alpha_0 and leave the mismatch alone. The others bound what
pi_theta, or pi_old where it is not known, became of mu. Formulas and sources: `catalogue`.

Legend: S = sequences; B = bins of a quantity by the sign of the advantage (`bins`).
"""

from __future__ import annotations

import numpy as np

from .bins import TokenBins
from .block import RETAINED, Binned, RatioBlock
from .effect import Effect
from .weighting import by_sequence, sequence_effect

Array = np.ndarray
_POSITIVE, _ZERO, _NEGATIVE = 1, 0, 2


def ppo_clip(block: Binned, *, low: float = 0.2, high: float = 0.2) -> Effect:
    """PPO and GRPO: no gradient from a token with r > 1 + high and advantage > 0, or r < 1 - low and advantage < 0;
    the others have weight r = pi_theta / pi_old."""
    bins = block.bins("target", [float(np.log1p(-low))], [float(np.log1p(high))])
    return _token_effect(block, bins, kept_by_ppo(bins, low, high), "target")


def cispo(block: Binned, *, low: float = 0.0, high: float = 5.0) -> Effect:
    """CISPO: every token has weight r = pi_theta / pi_old, clamped to [low, high], which has no gradient."""
    return _clamped(block, low, high, "target")


def decoupled_ppo(block: Binned, *, low: float = 0.2, high: float = 0.2) -> Effect:
    """Decoupled PPO: weight pi_old / mu times pi_theta / pi_old clipped to [1 - low, 1 + high]."""
    return _clamped(block, 1 - low, 1 + high, "weight")


def gspo_clip(block: RatioBlock, *, low: float = 3e-4, high: float = 4e-4) -> Effect:
    """GSPO: as `ppo_clip` with the geometric mean of pi_theta / pi_old over the sequence and its mean advantage."""
    assert block.advantage_S is not None
    log_ratio_S = block.mean_target_log_ratio_S
    above_S, below_S = np.expm1(log_ratio_S) > high, -np.expm1(log_ratio_S) > low
    keep_S = ~((block.advantage_S > 0) & above_S | (block.advantage_S < 0) & below_S)
    return sequence_effect(block, keep_S, np.where(keep_S, log_ratio_S, -np.inf), log_ratio_S)


def dppo_tv_mask(block: Binned, *, low: float = 0.2, high: float = 0.2) -> Effect:
    """DPPO, binary TV: mask a token whose probability rose by more than `high` with advantage > 0, or fell by more
    than `low` without. Weight pi / mu of the others."""
    bins = block.bins("change", [-low], [high])
    return _token_effect(block, bins, kept_by_dppo(bins, low, high), "weight")


def dppo_kl_mask(block: Binned, *, threshold: float = 0.05) -> Effect:
    """DPPO, binary KL: mask a token for which KL of "this token or another" passes `threshold` in the direction in
    which its advantage pushes. Weight pi / mu of the others."""
    bins = block.bins("outward_kl", [], [threshold])
    return _token_effect(block, bins, bins.within(high=threshold), "weight")


def ipo_mask(block: Binned, *, threshold: float = 0.1) -> Effect:
    """Mask a token whose probability changed by more than `threshold`, either way. Weight pi / mu of the others."""
    bins = block.bins("change", [-threshold], [threshold])
    return _token_effect(block, bins, bins.within(-threshold, threshold), "weight")


def one_sided_reference_kl(block: Binned, *, threshold: float = 0.2) -> Effect:
    """Mask a token whose probability fell by more than `threshold`. Weight pi / mu of the others."""
    bins = block.bins("change", [-threshold], [])
    return _token_effect(block, bins, bins.within(low=-threshold), "weight")


def one_sided_sequence_mask(block: RatioBlock, *, threshold: float = 0.5) -> Effect:
    """Drop a sequence with a negative advantage whose mean of log mu - log pi is above `threshold`; the others have
    weight 1."""
    assert block.advantage_S is not None
    return by_sequence(block, (block.advantage_S >= 0) | (block.mean_k1_S <= threshold), clamp=None)


def kept_by_ppo(bins: TokenBins, low: float, high: float) -> Array:
    """The bins of log r that `ppo_clip` keeps."""
    return (
        bins.within(high=float(np.log1p(high)), group=_POSITIVE)
        | bins.within(low=float(np.log1p(-low)), group=_NEGATIVE)
        | bins.within(group=_ZERO)
    )


def kept_by_dppo(bins: TokenBins, low: float, high: float) -> Array:
    """The bins of the probability's change that `dppo_tv_mask` keeps."""
    return (
        bins.within(high=high, group=_POSITIVE)
        | bins.within(low=-low, group=_NEGATIVE)
        | bins.within(low=-low, group=_ZERO)
    )


def _token_effect(block: Binned, bins: TokenBins, kept_B: Array, weight: str) -> Effect:
    """Tokens in some bins keep the ratio named `weight` as their weight."""
    weight_S, ratio_S = bins.sum_S(weight, kept_B), bins.sum_S(weight, np.ones_like(kept_B))
    return _effect(
        block,
        kept_S=bins.tokens_S(kept_B),
        weight_S=weight_S,
        square_S=bins.sum_S(f"{weight}_square", kept_B),
        ratio_S=ratio_S,
        removed_S=bins.sum_S(weight, ~kept_B),
        added_S=np.zeros_like(weight_S),
        retained_S={name: bins.known_sum_S(name, kept_B) for name in RETAINED},
    )


def _clamped(block: Binned, low: float, high: float, weight: str) -> Effect:
    """All tokens, pi_theta / pi_old clamped; times pi_old / mu where `weight` is "weight"."""
    log_low = float(np.log(low)) if low > 0 else -np.inf
    log_high = float(np.log(high))
    bins = block.bins("target", [log_low] if low > 0 else [], [log_high])
    below_B, above_B = ~bins.within(log_low), ~bins.within(high=log_high)
    inside_B = ~below_B & ~above_B

    def factor_S(bins_B: Array, name: str) -> Array:
        """Sum of what multiplies the clamped ratio, or of its square."""
        return bins.sum_S(name, bins_B) if weight == "weight" else bins.tokens_S(bins_B).astype(np.float64)

    weight_S, square_S = bins.sum_S(weight, inside_B), bins.sum_S(f"{weight}_square", inside_B)
    removed_S, added_S = np.zeros_like(weight_S), np.zeros_like(weight_S)
    if above_B.any():
        above_S = high * factor_S(above_B, "ratio")
        weight_S, square_S = weight_S + above_S, square_S + high**2 * factor_S(above_B, "square")
        removed_S = bins.sum_S(weight, above_B) - above_S
    if below_B.any():
        below_S = low * factor_S(below_B, "ratio")
        weight_S, square_S = weight_S + below_S, square_S + low**2 * factor_S(below_B, "square")
        added_S = below_S - bins.sum_S(weight, below_B)
    every_B = np.ones_like(inside_B)
    return _effect(
        block,
        kept_S=block.length_S,
        weight_S=weight_S,
        square_S=square_S,
        ratio_S=bins.sum_S(weight, every_B),
        removed_S=removed_S,
        added_S=added_S,
        retained_S=dict(block.retained_S),
    )


def _effect(
    block: Binned,
    *,
    kept_S: Array,
    weight_S: Array,
    square_S: Array,
    ratio_S: Array,
    removed_S: Array,
    added_S: Array,
    retained_S: dict[str, Array | None],
) -> Effect:
    with np.errstate(divide="ignore"):
        return Effect(
            unit="token",
            length_S=block.length_S,
            kept_S=kept_S,
            log_weight_S=np.log(weight_S),
            log_square_S=np.log(square_S),
            log_ratio_S=np.log(ratio_S),
            removed_S=np.maximum(removed_S, 0.0),
            added_S=np.maximum(added_S, 0.0),
            retained_S=retained_S,
        )
