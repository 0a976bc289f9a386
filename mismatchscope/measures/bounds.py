"""Policy improvement bounds: how much the mismatch can cost the surrogate objective.

Legend: T = token positions of the horizon; N = sampled tokens of all sequences; S = sequences; S1 = S + 1
boundaries.

The objective J(pi) differs from its first-order surrogate at mu by at most each bound, for rewards whose range
is one. Most of them need a maximum over all states, which no sample gives: with an observed maximum they are
structural figures, not certificates. Only the two max-free ones hold for what was sampled.
Sources: TRPO (1502.05477), CPO (1705.10528), trust region masking (2512.23075).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from mismatchscope.measures.sampled import shortfall
from mismatchscope.measures.sequence import checked_offsets, checked_tokens

Array = np.ndarray


@dataclass(frozen=True)
class FiniteHorizonBounds:
    """Each bound in units of the reward's range; None: what it needs was not given.

    With e = max TV, k = max KL(mu || pi), D_t = mean TV at position t, T = horizon.
    """

    classical_tv: float | None
    """2 T (T - 1) e^2"""
    classical_kl: float | None
    """T (T - 1) k"""
    pinsker_marginal_tv: float | None
    """4 min(1, e) sum_t min(1, sqrt((t - 1) k / 2))"""
    pinsker_marginal_kl: float | None
    """4 min(1, sqrt(k / 2)) sum_t min(1, sqrt((t - 1) k / 2))"""
    mixed_tv: float | None
    """4 T min(1, e) min(1, TV of sequences)"""
    mixed_kl: float | None
    """4 T min(1, sqrt(k / 2)) min(1, sqrt(KL of sequences / 2))"""
    coupling: float | None
    """4 min(1, e) sum_t min(1, (t - 1) e)"""
    adaptive: float | None
    """4 sum_t D_t min(1, (T - t) e, sqrt((T - t) k / 2)), over what is known of e and k"""
    max_free_linear: float | None
    """4 xi sum_t D_t"""
    max_free_quadratic: float | None
    """2 xi E sum_{t < j} |rho_t - 1| (1 - rho_j)_+"""

    def smallest(self) -> tuple[str, float] | None:
        """Name and value of the tightest bound."""
        return _smallest({name: value for name, value in asdict(self).items()})

    def smallest_max_free(self) -> tuple[str, float] | None:
        """The tightest bound that needs no maximum over states."""
        return _smallest({name: value for name, value in asdict(self).items() if name.startswith("max_free")})


def finite_horizon_bounds(
    horizon: int,
    *,
    max_tv: float | None = None,
    max_kl: float | None = None,
    sequence_tv: float | None = None,
    sequence_kl: float | None = None,
    mean_tv_T: ArrayLike | None = None,
    ratio_pairs: float | None = None,
    reward_bound: float = 0.5,
) -> FiniteHorizonBounds:
    """Every bound of the finite-horizon family that the given figures allow.

    Args:
        horizon: T, the largest number of tokens in a response.
        max_tv, max_kl: maxima over states of TV and KL(mu || pi).
        sequence_tv, sequence_kl: TV and KL(mu || pi) of whole sequences. A KL estimate below zero is noise: None.
        mean_tv_T: E TV(s_t) at every position, from `mean_tv_by_position`.
        ratio_pairs: mean of `ratio_pair_sums`.
        reward_bound: xi = max |R|, used by the max-free bounds; 1/2 is a reward in [0, 1], centred.

    Raises:
        ValueError: the horizon is below one, a figure is negative or NaN, or `mean_tv_T` is not [horizon].
    """
    if horizon < 1:
        raise ValueError(f"a horizon has at least one token, not {horizon}")
    figures = {
        "max_tv": max_tv,
        "max_kl": max_kl,
        "sequence_tv": sequence_tv,
        "sequence_kl": sequence_kl,
        "ratio_pairs": ratio_pairs,
        "reward_bound": reward_bound,
    }
    for name, value in figures.items():
        if value is not None and not value >= 0:
            raise ValueError(f"{name} must not be negative or NaN, it is {value}")

    before_T = np.arange(horizon)  # t - 1, the tokens before position t
    tv = None if max_tv is None else min(1.0, max_tv)
    tv_by_kl = None if max_kl is None else _pinsker(max_kl)
    drift_by_tv_T = None if tv is None else np.minimum(1, before_T * tv)
    drift_by_kl_T = None if tv_by_kl is None else np.minimum(1, np.sqrt(before_T) * tv_by_kl)
    drifts = [drift_T for drift_T in (drift_by_tv_T, drift_by_kl_T) if drift_T is not None]
    mean_tv_T = None if mean_tv_T is None else _checked_mean_tv(mean_tv_T, horizon)
    adaptive = None
    if mean_tv_T is not None and drifts:
        adaptive = float(4 * mean_tv_T @ np.min(drifts, axis=0)[::-1])  # T - t is t - 1 backwards
    return FiniteHorizonBounds(
        classical_tv=_product(2, horizon, horizon - 1, max_tv, max_tv),
        classical_kl=_product(horizon, horizon - 1, max_kl),
        pinsker_marginal_tv=_product(4, tv, _total(drift_by_kl_T)),
        pinsker_marginal_kl=_product(4, tv_by_kl, _total(drift_by_kl_T)),
        mixed_tv=_product(4, horizon, tv, None if sequence_tv is None else min(1.0, sequence_tv)),
        mixed_kl=_product(4, horizon, tv_by_kl, None if sequence_kl is None else _pinsker(sequence_kl)),
        coupling=_product(4, tv, _total(drift_by_tv_T)),
        adaptive=adaptive,
        max_free_linear=_product(4, reward_bound, _total(mean_tv_T)),
        max_free_quadratic=_product(2, reward_bound, ratio_pairs),
    )


def mean_tv_by_position(tv_N: ArrayLike, offsets_S1: ArrayLike, horizon: int) -> Array:
    """Mean over sequences of TV at each position, [horizon]; a sequence that has ended counts as zero.

    `tv_N` holds each token's state TV, or (1 - rho)_+, which estimates it without bias.

    Raises:
        EmptyComparisonError: there are no sequences, or one of them has no tokens.
        ValueError: the boundaries do not fit, a value is NaN, or a sequence is longer than the horizon.
    """
    offsets_S1 = checked_offsets(offsets_S1)
    tv_N = checked_tokens(tv_N, offsets_S1, "tv")
    length_S = np.diff(offsets_S1)
    if length_S.max() > horizon:
        raise ValueError(f"a sequence has {length_S.max()} tokens, the horizon {horizon}")
    position_N = np.arange(len(tv_N)) - np.repeat(offsets_S1[:-1], length_S)
    return np.bincount(position_N, weights=tv_N, minlength=horizon) / len(length_S)


def ratio_pair_sums(log_ratio_N: ArrayLike, offsets_S1: ArrayLike) -> Array:
    """sum_{t < j} |rho_t - 1| (1 - rho_j)_+ of each sequence, [S].

    Its mean is the sampled part of the max-free quadratic bound, and being a mean over sequences it can be
    given an interval. Raises as `sequence_measures` does.
    """
    offsets_S1 = checked_offsets(offsets_S1)
    log_ratio_N = checked_tokens(log_ratio_N, offsets_S1, "log_ratio")
    with np.errstate(over="ignore"):
        distance_N = np.abs(np.expm1(log_ratio_N))
    shortfall_N = shortfall(log_ratio_N)
    sums_S = np.zeros(len(offsets_S1) - 1)
    for s, (start, stop) in enumerate(pairwise(offsets_S1)):
        earlier = np.cumsum(distance_N[start : stop - 1])
        later = shortfall_N[start + 1 : stop]
        counts = later > 0  # an infinite ratio before tokens that are not short adds nothing
        sums_S[s] = earlier[counts] @ later[counts]
    return sums_S


def three_policy_penalty(alpha0: float, alpha1: float, *, max_advantage: float, gamma: float) -> float:
    """C (alpha_0 + alpha_1) with C = 2 max|A| gamma / (1 - gamma)^2, the infinite-horizon bound of three policies.

    J(pi_theta) >= L_mu(pi_theta) - this. It is a structural tool, not a performance certificate.

    Raises:
        ValueError: an alpha is outside [0, 1], gamma outside [0, 1), or the advantage negative.
    """
    if not (0 <= alpha0 <= 1 and 0 <= alpha1 <= 1 and 0 <= gamma < 1 and max_advantage >= 0):
        raise ValueError(
            f"needs total variations in [0, 1], gamma in [0, 1) and max_advantage >= 0, got alpha0={alpha0}, "
            f"alpha1={alpha1}, gamma={gamma}, max_advantage={max_advantage}"
        )
    return 2 * max_advantage * gamma / (1 - gamma) ** 2 * (alpha0 + alpha1)


def _pinsker(kl: float) -> float:
    return min(1.0, math.sqrt(kl / 2))


def _product(*factors: float | None) -> float | None:
    if None in factors:
        return None
    return 0.0 if 0 in factors else float(math.prod(factors))  # nothing times an infinite KL is nothing


def _total(values_T: Array | None) -> float | None:
    return None if values_T is None else float(values_T.sum())


def _checked_mean_tv(mean_tv_T: ArrayLike, horizon: int) -> Array:
    mean_tv_T = np.asarray(mean_tv_T, dtype=np.float64)
    if mean_tv_T.shape != (horizon,) or not (mean_tv_T >= 0).all():
        raise ValueError(f"mean_tv_T must hold {horizon} values >= 0, got shape {mean_tv_T.shape}")
    return mean_tv_T


def _smallest(bounds: dict[str, float | None]) -> tuple[str, float] | None:
    known = [(name, value) for name, value in bounds.items() if value is not None]
    return min(known, key=lambda bound: bound[1], default=None)
