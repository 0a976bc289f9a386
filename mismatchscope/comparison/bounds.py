"""What the mismatch can cost the objective that the trainer optimises -> the bounds of the report."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np

from ..measures.bounds import finite_horizon_bounds, mean_tv_by_position, ratio_pair_sums
from ..measures.intervals import clustered_mean
from ..reports.document import Alpha, Bounds, SequenceMeasures, Statistic
from .states import StateMeasures
from .statistics import NONNEGATIVE, mean_of

# A reward in [0, 1], centred: ξ = max |R|.
REWARD_BOUND = 0.5


def bounds(
    measures: StateMeasures, alpha1: Alpha, sequences: SequenceMeasures, *, on_policy: bool, confidence: float
) -> Bounds:
    """The finite-horizon family, as far as the evidence goes, over responses as long as the longest one seen.

    Maxima over all states are not to be had: those over the visited states stand in for them. Expectations over μ's
    states are left out where the tokens are not μ's own.
    """
    offsets_S1 = measures.offsets_S1
    horizon = int(np.diff(offsets_S1).max())
    tv_N = measures.tv_upper_N if measures.bounded else measures.sampled.shortfall
    family = finite_horizon_bounds(
        horizon,
        max_tv=alpha1.observed_upper,
        max_kl=float(measures.columns["kl"].max()) if measures.exact_N.all() else None,
        sequence_tv=_mean(sequences.tv),
        sequence_kl=_mean(sequences.kl),
        mean_tv_T=mean_tv_by_position(tv_N, offsets_S1, horizon) if on_policy else None,
        reward_bound=REWARD_BOUND,
    )
    known = {name: value for name, value in asdict(family).items() if value is not None and math.isfinite(value)}
    if on_policy:
        prompt_S = measures.prompt_id_N[offsets_S1[:-1]]
        for name, value_S in (
            ("max_free_linear", 4 * REWARD_BOUND * np.add.reduceat(tv_N, offsets_S1[:-1])),
            ("max_free_quadratic", 2 * REWARD_BOUND * ratio_pair_sums(measures.sampled.log_ratio, offsets_S1)),
        ):
            mean = clustered_mean(value_S, prompt_S, confidence=confidence, bounds=NONNEGATIVE)
            known[name] = mean_of(mean)
    return Bounds(horizon=horizon, **known)


def _mean(statistic: Statistic | None) -> float | None:
    """The estimate of something that is not negative; one that noise has put below zero is none."""
    mean = None if statistic is None else statistic.mean
    return mean if mean is not None and mean >= 0 else None
