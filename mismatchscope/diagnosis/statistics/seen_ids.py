"""Log-probs of ids that came before in their response, as a penalty on repetition scales them.

Shapes: N tokens, M tokens whose distributions are known, V vocabulary, K ids of each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..evidence import Array
from ..sample import Sample, statistic
from .distributions import LEAST_LOGP, Rows, rows


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
