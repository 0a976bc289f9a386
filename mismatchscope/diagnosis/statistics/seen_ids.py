"""Log-probs of ids that came before in their response, as a penalty on repetition scales them.

Shapes: N tokens, M tokens whose distributions are known, V vocabulary, K ids of each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..evidence import Array
from ..sample import Sample, statistic
from .distributions import LEAST_LOGP, Rows, rows
from .size import repeated
from .stat import Stat, regression, share

_FEWEST_OF_EITHER = 24
_FARTHEST = 6.0
"""Medians of |z| at which it is cut off, so that a few tokens make no slope."""


class SeenScaling(NamedTuple):
    """Slopes of log π − log μ on log μ within rows, of ids that came before in the response and of others, and what
    they explain of it together."""

    seen: float
    unseen: float
    explained: float
    rows: int


@statistic
def scaling_of_seen(sample: Sample) -> SeenScaling | None:
    """By least squares over ids with log μ above −12, each row about its own mean, weighted by the root of μ."""
    found, evidence = rows(sample), sample.evidence
    if found is None or evidence.token_N is None or len(found.token_M) < 8:
        return None
    seen = _seen(sample, found)
    use = (found.mu > LEAST_LOGP) & (found.pi > LEAST_LOGP)
    with np.errstate(invalid="ignore"):
        weight = np.where(use, np.exp(np.clip(found.mu / 2, -6, 0)), 0.0)
        mu, difference = (np.where(use, each, 0.0) for each in (found.mu, found.pi - found.mu))
    total_M1 = np.maximum(weight.sum(axis=1, keepdims=True), 1e-30)
    columns = []
    for value in (np.where(seen, mu, 0.0), np.where(seen, 0.0, mu), difference):
        columns.append(np.sqrt(weight) * (value - (weight * value).sum(axis=1, keepdims=True) / total_M1))
    x = np.stack([columns[0].ravel(), columns[1].ravel()], axis=1)
    y = columns[2].ravel()
    if not seen.any() or float(y @ y) <= 0:
        return None
    slopes, *_ = np.linalg.lstsq(x.T @ x, x.T @ y, rcond=None)
    explained = float(slopes @ (x.T @ y)) / float(y @ y)
    return SeenScaling(float(slopes[0]), float(slopes[1]), explained, len(found.token_M))


class Repeated(NamedTuple):
    """Of tokens that are new in their response and of those that came before, the share with z on the side where
    most new ones have it; and how much more steeply z goes with log p at the latter, over its standard error, where
    a positive z is one on that side."""

    new: Stat
    again: Stat
    t: float


@statistic
def repeated_apart(sample: Sample) -> Repeated | None:
    """A penalty takes from ids that came before, in proportion to their log-probs, and what it takes the others
    share: new tokens are moved one way, and repeated ones the other, the rarest most."""
    use_N = sample.scaled_N & (sample.p_N > 0)
    if sample.evidence.token_N is None or not use_N.any():
        return None
    z_M, again_M = sample.z_N[use_N], repeated(sample)[use_N]
    if min(np.count_nonzero(again_M), np.count_nonzero(~again_M)) < _FEWEST_OF_EITHER:
        return None
    way = -1.0 if np.mean(z_M[~again_M] < 0) >= 0.5 else 1.0
    limit = _FARTHEST * float(np.median(np.abs(z_M)))
    z_M = np.clip(way * z_M, -limit, limit)
    new, again = (share(int(np.count_nonzero(z_M[of_M] > 0)), int(of_M.sum())) for of_M in (~again_M, again_M))
    logp_M = np.log(sample.p_N[use_N])
    (new_slope, new_error), (slope, error) = (regression(logp_M[of_M], z_M[of_M]) for of_M in (~again_M, again_M))
    whole = float(np.hypot(new_error, error))
    return Repeated(new, again, (slope - new_slope) / whole) if whole > 0 else None


def _seen(sample: Sample, found: Rows) -> Array:
    """Which ids came before in their response [M, V] or [M, K]."""
    evidence = sample.evidence
    token_N = evidence.token_N
    assert token_N is not None
    size = 1 + int(max(token_N.max(initial=0), -1 if found.ids is None else found.ids.max(initial=0)))
    if found.ids is None:
        size = max(size, found.mu.shape[1])
    key_N = evidence.sequence_N.astype(np.int64) * size + token_N
    keys, first = np.unique(key_N, return_index=True)
    sequence_M1 = evidence.sequence_N[found.token_M][:, None].astype(np.int64)
    ids = np.arange(found.mu.shape[1])[None] if found.ids is None else np.maximum(found.ids, 0)
    wanted = sequence_M1 * size + ids
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return (keys[place] == wanted) & (first[place] < found.token_M[:, None])
