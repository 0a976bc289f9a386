"""How far each token's two distributions are apart, over its likeliest ids: whichever of them was drawn.

Shapes: M tokens whose distributions are known, K likeliest ids.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..sample import Sample, statistic
from .distributions import rows
from .stat import correlation

_IDS = 16
_LEAST = 1e-9
"""A level that is smaller counts as this: a tie has no logarithm."""
_FEWEST_TOKENS, _FEWEST_FIRST = 200, 12
_NEAR = 8
"""Tokens that are compared with the first one of a response."""


class Levels(NamedTuple):
    """The level of a token is the standard deviation of log π − log μ over the sixteen ids that μ finds likeliest.

    `exponent` is that of the level over the absolute position, `correlation` that of their logarithms. `median` is
    in nats, `wide` the 0.9-quantile over it, `spread` the standard deviation of the logarithm. `rise` is by how
    much the logarithm is higher at the eight tokens after the first one of a response than at that one.
    """

    exponent: float
    correlation: float
    median: float
    wide: float
    spread: float
    rise: float
    tokens: int


@statistic
def levels(sample: Sample) -> Levels | None:
    """From tops where there are some, for they are of all tokens; else from whole distributions."""
    evidence = sample.evidence
    if evidence.prompt_length_S is None:
        return None
    found = rows(sample if evidence.top is None else Sample(evidence.but(full=None), sample.out_N))
    if found is None or len(found.token_M) < _FEWEST_TOKENS:
        return None
    mu = np.where(np.isfinite(found.mu), found.mu, -np.inf)
    few = min(_IDS, mu.shape[1])
    likeliest_MK = np.argpartition(-mu, few - 1, axis=1)[:, :few]
    pi_MK, mu_MK = (np.take_along_axis(each, likeliest_MK, axis=1) for each in (found.pi, found.mu))
    seen_MK = np.isfinite(pi_MK) & np.isfinite(mu_MK)
    keep_M = np.count_nonzero(seen_MK, axis=1) >= 2
    if np.count_nonzero(keep_M) < _FEWEST_TOKENS:
        return None
    difference_MK = np.where(seen_MK, pi_MK - np.where(seen_MK, mu_MK, 0.0), np.nan)[keep_M]
    level_M = np.maximum(np.nanstd(difference_MK, axis=1), _LEAST)
    token_M = found.token_M[keep_M]
    position_M = evidence.position_N[token_M]
    place_M = np.log(position_M + evidence.prompt_length_S[evidence.sequence_N[token_M]] + 1.0)
    log_M = np.log(level_M)
    first_M, near_M = position_M == 0, (position_M > 0) & (position_M <= _NEAR)
    related, spread = correlation(place_M, log_M), float(np.std(log_M))
    if related is None or np.count_nonzero(first_M) < _FEWEST_FIRST or not near_M.any():
        return None
    median, wide = np.quantile(level_M, [0.5, 0.9])
    return Levels(
        exponent=related * spread / float(np.std(place_M)),
        correlation=related,
        median=float(median),
        wide=float(wide / median),
        spread=spread,
        rise=float(log_M[near_M].mean() - log_M[first_M].mean()),
        tokens=len(log_M),
    )
