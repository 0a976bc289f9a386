"""Mass that μ lost to ids that nobody sees: cut by its sampler, or shared with a padded vocabulary.

Shapes: N tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..sample import Sample, statistic
from .size import CLEAR, mean_ratio


class Lost(NamedTuple):
    """Where π is below μ, e^Δ is what is left of π's mass: 1 − e^Δ is lost at a state.

    `mean` is 1 less the mean ratio. `rarest` is the least π of a token that was drawn, `rarest_of_own` the least of
    π over what is lost at its own state. `too_rare` counts tokens at whose state more is lost than all ids
    have if each is as likely as the token: a sampler that cuts the tail would have cut it. `kept_alone`
    and `alone_in_pi` are the shares of tokens with a log-prob of exactly 0, in μ and in π. `of_one_token` is the
    share of those that lost some whose two probabilities add up to more than 1, as only one token's can.
    `least`, `median`, `nearly_most` and `most` are quantiles of what is lost, at 0.01, 0.5, 0.99 and 1.
    """

    mean: float
    rarest: float
    rarest_of_own: float
    too_rare: int
    tokens: int
    kept_alone: float
    alone_in_pi: float
    of_one_token: float
    least: float
    median: float
    nearly_most: float
    most: float


_LEAST_ROUNDING = 1e-6


@statistic
def rarest_against_lost(sample: Sample) -> Lost:
    """The number of ids is taken from the largest id that was seen, 1,024 where none was."""
    evidence, ratio = sample.evidence, mean_ratio(sample).value
    pi_N = np.exp(np.minimum(np.where(sample.live_N, evidence.logp_pi_N, 0.0), 0.0))
    lost_N = -np.expm1(np.where(sample.live_N, np.minimum(sample.delta_N, 0.0), 0.0))
    clear_N = (np.abs(np.nan_to_num(sample.z_N)) > CLEAR * _rounding(sample)) & (lost_N > 0)
    ids = 1024 if evidence.token_N is None else 1 + int(evidence.token_N.max(initial=0))
    of_state_M = lost_N[sample.scaled_N] if sample.scaled_N.any() else np.zeros(1)
    of_own = pi_N[clear_N] / lost_N[clear_N]
    sum_M = np.exp(evidence.logp_mu_N[clear_N]) + pi_N[clear_N]
    return Lost(
        0.0 if ratio is None else 1 - ratio,
        float(pi_N[sample.scaled_N].min(initial=1.0)),
        float(of_own.min(initial=np.inf)),
        int(np.count_nonzero(of_own < 0.7 / ids)),
        int(np.count_nonzero(sample.scaled_N)),
        float(np.mean(evidence.logp_mu_N[sample.live_N] == 0)) if sample.live_N.any() else 0.0,
        float(np.mean(evidence.logp_pi_N[sample.live_N] == 0)) if sample.live_N.any() else 0.0,
        float(np.mean(sum_M > 1.01)) if len(sum_M) else 0.0,
        *np.quantile(of_state_M, (0.01, 0.5, 0.99, 1.0)).tolist(),
    )


def _rounding(sample: Sample) -> float:
    """Root mean square of z of rounding. Where no floor was measured, one that the gap has made counts no more than
    what is seen above μ, where nothing but rounding brings a π whose mass is lost to nobody."""
    if sample.floor.measured:
        return sample.floor.value
    above_M = sample.z_N[sample.scaled_N & (np.nan_to_num(sample.z_N) > 0)]
    seen = float(np.sqrt(np.mean(above_M**2))) if len(above_M) else 0.0
    return min(sample.floor.value, max(seen, _LEAST_ROUNDING))
