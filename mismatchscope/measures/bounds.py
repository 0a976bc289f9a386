"""Policy improvement bounds: how much the mismatch can cost the surrogate objective.

Legend: T = token positions of the horizon.

The objective J(pi) differs from its first-order surrogate at mu by at most each bound, for rewards R of a response
with |R| <= 1. All forms are on that one scale and linear in it: for R in [0, 1], half of each is enough, because a
constant added to R moves J and the surrogate alike. Most of them need a maximum over all states, which no sample
gives: with an observed maximum they are structural figures, not certificates. Only the two max-free ones hold for
what was sampled. Sources: TRPO (1502.05477), CPO (1705.10528), trust region masking (2512.23075).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from .results import Bounds, Interval

Array = np.ndarray


def finite_horizon_bounds(
    horizon: int,
    *,
    max_tv: float | None = None,
    max_kl: float | None = None,
    sequence_tv: float | None = None,
    sequence_kl: float | None = None,
    mean_tv_T: ArrayLike | None = None,
) -> Bounds:
    """Every bound of the finite-horizon family that the given figures allow; the max-free ones are means over
    sequences.

    Args:
        horizon: T, the largest number of tokens in a response.
        max_tv, max_kl: maxima over states of TV and KL(mu || pi).
        sequence_tv, sequence_kl: TV and KL(mu || pi) of whole sequences. A KL estimate below zero is noise: None.
        mean_tv_T: E TV(s_t) at every position, from `positions.PositionSums`.

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
    return Bounds(
        horizon=horizon,
        classical_tv=_product(2, horizon, horizon - 1, max_tv, max_tv),
        classical_kl=_product(horizon, horizon - 1, max_kl),
        pinsker_marginal_tv=_product(4, tv, _total(drift_by_kl_T)),
        pinsker_marginal_kl=_product(4, tv_by_kl, _total(drift_by_kl_T)),
        mixed_tv=_product(4, horizon, tv, None if sequence_tv is None else min(1.0, sequence_tv)),
        mixed_kl=_product(4, horizon, tv_by_kl, None if sequence_kl is None else _pinsker(sequence_kl)),
        coupling=_product(4, tv, _total(drift_by_tv_T)),
        adaptive=adaptive,
    )


def with_policies(
    bounds: Bounds,
    *,
    discount: float | None,
    advantage_max: float | None,
    alpha0: float | None = None,
    alpha1: float | None = None,
    beta: float | None = None,
) -> Bounds:
    """The same bounds with those of a discounted objective, and with what is vacuous named.

    J(pi_theta) >= L_mu(pi_theta) - C beta >= L_mu(pi_theta) - C (alpha_0 + alpha_1), C = 2 eps gamma / (1-gamma)^2,
    by the performance difference lemma and a coupling of the two state distributions, which are no further apart
    than 2 gamma beta / (1 - gamma) in L1. ("From two policies to three", theorems 1 and 2.)

    Args:
        discount: gamma, in [0, 1).
        advantage_max: eps, the largest |A_mu(s, a)|, on the scale of |R| <= 1.
        alpha0, alpha1, beta: the largest TVs seen. Without alpha0 and beta there are two policies, mu and pi_old.

    Raises:
        ValueError: gamma or eps is outside its range, or one is given without the other.
    """
    if (discount is None) != (advantage_max is None):
        raise ValueError("the discounted bounds need both the discount and the largest advantage")
    if discount is not None and advantage_max is not None:
        if not 0 <= discount < 1:
            raise ValueError(f"a discount is at least 0 and below 1, not {discount}")
        if not 0 <= advantage_max < math.inf:
            raise ValueError(f"the largest advantage is a number from 0 on, not {advantage_max}")
        factor = 2 * advantage_max * discount / (1 - discount) ** 2
        known = None not in (alpha0, beta)
        bounds = replace(
            bounds,
            discount=discount,
            advantage_max=advantage_max,
            factor=factor,
            two_policies_lower=_product(factor, beta if known else alpha1),
            three_policies_lower=_product(factor, alpha0 + alpha1)
            if known and alpha0 is not None and alpha1 is not None
            else None,
        )
    return replace(bounds, vacuous=tuple(name for name in LIMITS if _is_vacuous(getattr(bounds, name))))


RANGE = 2.0
"""Of J for |R| <= 1."""
LIMITS = (
    "classical_tv",
    "classical_kl",
    "pinsker_marginal_tv",
    "pinsker_marginal_kl",
    "mixed_tv",
    "mixed_kl",
    "coupling",
    "adaptive",
    "max_free_linear",
    "max_free_quadratic",
    "two_policies_lower",
    "three_policies_lower",
)


def _is_vacuous(bound: float | Interval | None) -> bool:
    if isinstance(bound, Interval):
        return bound.value is not None and bound.value >= RANGE
    return bound is not None and bound >= RANGE


def _pinsker(kl: float) -> float:
    return min(1.0, math.sqrt(kl / 2))


def _product(*factors: float | None) -> float | None:
    known = [factor for factor in factors if factor is not None]
    if len(known) < len(factors):
        return None
    return 0.0 if 0 in known else float(math.prod(known))  # nothing times an infinite KL is nothing


def _total(values_T: Array | None) -> float | None:
    return None if values_T is None else float(values_T.sum())


def _checked_mean_tv(mean_tv_T: ArrayLike, horizon: int) -> Array:
    mean_tv_T = np.asarray(mean_tv_T, dtype=np.float64)
    if mean_tv_T.shape != (horizon,) or not (mean_tv_T >= 0).all():
        raise ValueError(f"mean_tv_T must hold {horizon} values >= 0, got shape {mean_tv_T.shape}")
    return mean_tv_T
