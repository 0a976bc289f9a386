"""What whole distributions, or their tops, say beyond the sampled token.

Shapes: M tokens whose distributions are known, V vocabulary, K ids of each, H hidden, R rows that are used.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..evidence import Array
from ..sample import Sample, statistic
from .stat import Stat, ratio_of_sums
from .values import SIDES, Side

_ROWS = 4096
"""Distributions that are looked at, evenly over the tokens."""
_IDS_A_DIMENSION = 4
NO_MASS = -80.0
LEAST_LOGP = -12.0
"""Ids below say more of rounding than of policies."""


class Rows(NamedTuple):
    """Log-probs under both policies at the same ids, where both are seen; NaN elsewhere. Of whole distributions
    [M, V], of tops [M, K]; `token_M` has their places among the tokens."""

    token_M: Array
    mu: Array
    pi: Array
    ids: Array | None
    """Of tops [M, K]."""


@statistic
def rows(sample: Sample) -> Rows | None:
    """Whole distributions where there are some, else tops, of live tokens, float64; at most 4,096 of them."""
    evidence = sample.evidence
    if evidence.full is not None:
        use_M = np.flatnonzero(sample.live_N[evidence.full.row_M])
        use_M = use_M[:: max(1, -(-len(use_M) // _ROWS))]
        if not len(use_M):
            return None
        mu, pi = (each[use_M].astype(np.float64) for each in (evidence.full.logp_mu_MV, evidence.full.logp_pi_MV))
        return Rows(evidence.full.row_M[use_M], mu, pi, None)
    if evidence.top is None:
        return None
    use_M = np.flatnonzero(sample.live_N)
    use_M = use_M[:: max(1, -(-len(use_M) // _ROWS))]
    if not len(use_M):
        return None
    top = evidence.top
    ids, mu = top.ids_mu_NK[use_M], top.logp_mu_NK[use_M].astype(np.float64)
    pi = _at_ids(ids, top.ids_pi_NK[use_M], top.logp_pi_NK[use_M].astype(np.float64))
    return Rows(use_M, np.where(ids < 0, np.nan, mu), pi, ids)


def _at_ids(ids_MK: Array, theirs_MK: Array, logp_MK: Array) -> Array:
    """Another side's log-probs at these ids; NaN where it has none."""
    order = np.argsort(theirs_MK, axis=1)
    sorted_MK = np.take_along_axis(theirs_MK, order, axis=1)
    offset = np.arange(len(ids_MK))[:, None] * (2 + int(max(ids_MK.max(initial=0), theirs_MK.max(initial=0))))
    place = np.searchsorted((sorted_MK + offset).ravel(), (ids_MK + offset).ravel())
    place = np.minimum(place, sorted_MK.size - 1)
    found = (sorted_MK + offset).ravel()[place] == (ids_MK + offset).ravel()
    values = np.take_along_axis(logp_MK, order, axis=1).ravel()[place]
    return np.where(found, values, np.nan).reshape(ids_MK.shape)


class Scaling(NamedTuple):
    """Each row's log π as a line in its log μ: the slope that all rows share, and how much of the rows' differences
    it explains. 1 is a temperature; `spread` is the standard deviation of the rows' own slopes."""

    slope: Stat
    explained: float
    spread: float


@statistic
def scaling(sample: Sample) -> Scaling | None:
    """By least squares over ids with log μ above −12, each row about its own mean, weighted by √(μπ)."""
    found = rows(sample)
    if found is None or len(found.token_M) < 8:
        return None
    seen = (found.mu > LEAST_LOGP) & (found.pi > LEAST_LOGP)
    with np.errstate(invalid="ignore", over="ignore"):
        weight = np.where(seen, np.exp(np.clip((found.mu + found.pi) / 4, -6, 0)), 0.0)
    total_M1 = weight.sum(axis=1, keepdims=True)
    keep_M = (np.count_nonzero(seen, axis=1) >= 3) & (total_M1[:, 0] > 0)
    if np.count_nonzero(keep_M) < 8:
        return None
    weight, total_M1 = weight[keep_M], total_M1[keep_M]
    mu = np.where(seen[keep_M], found.mu[keep_M], 0.0)
    difference = np.where(seen[keep_M], found.pi[keep_M] - found.mu[keep_M], 0.0)
    mean = mu + difference / 2
    mean = mean - (weight * mean).sum(axis=1, keepdims=True) / total_M1
    difference = difference - (weight * difference).sum(axis=1, keepdims=True) / total_M1
    xx_M, xy_M, yy_M = (
        (weight * first * second).sum(axis=1)
        for first, second in ((mean, mean), (mean, difference), (difference, difference))
    )
    if xx_M.sum() <= 0 or yy_M.sum() <= 0:
        return None
    slope = _by_prompt(sample, found.token_M[keep_M], xy_M, xx_M)
    if slope.value is None:
        return None
    explained = slope.value**2 * xx_M.sum() / yy_M.sum()
    wide_M = xx_M > 0.1 * np.median(xx_M)
    spread = float(np.std(xy_M[wide_M] / xx_M[wide_M])) if wide_M.any() else float("inf")
    factor = [None if end is None else (2 + end) / (2 - end) for end in slope[:3]]
    return Scaling(Stat(factor[0], factor[1], factor[2], slope.n), float(explained), spread)


def _by_prompt(sample: Sample, token_M: Array, sum_M: Array, count_M: Array) -> Stat:
    prompt_M = sample.evidence.prompt_S[sample.evidence.sequence_N[token_M]]
    _, index = np.unique(prompt_M, return_inverse=True)
    stat = ratio_of_sums(np.bincount(index, sum_M), np.bincount(index, count_M))
    return stat._replace(n=len(token_M))


class Beyond(NamedTuple):
    """Of the difference of the logits, the share outside the column space of the head, and its root mean square in
    floors: rounding of the logits lies outside as well."""

    share: float
    floors: float


@statistic
def beyond_head(sample: Sample) -> Beyond | None:
    """None outside where the head is the same on both sides, most where it alone differs. The head is the model's
    where that is known; else the span of μ's own logits stands in for it, where there are more distributions than
    it has dimensions."""
    found = rows(sample)
    if found is None or found.ids is not None:
        return None
    use_M = (found.mu > NO_MASS).all(axis=1) & (found.pi > NO_MASS).all(axis=1)
    if np.count_nonzero(use_M) < 16:
        return None
    difference = found.pi[use_M] - found.mu[use_M]
    head_VH = sample.evidence.head_VH
    if head_VH is None or head_VH.shape[0] != found.mu.shape[1]:
        head_VH = _span_of(found.mu[use_M])
        if head_VH is None:
            return None
    difference_MU, head_UH = _likeliest(found.mu[use_M], difference, head_VH)
    share = _share_outside(difference_MU, head_UH)
    if share is None:
        return None
    centred_MU = difference_MU - difference_MU.mean(axis=1, keepdims=True)
    return Beyond(share, float(np.sqrt(share * np.mean(centred_MU**2))) / sample.floor.value)


def _likeliest(mu_MV: Array, difference_MV: Array, head_VH: Array) -> tuple[Array, Array]:
    """The likeliest ids, `_IDS_A_DIMENSION` for each dimension of the head: what lies in its column space does so
    at any choice of ids, and what noise leaves outside depends on how many there are."""
    most = _IDS_A_DIMENSION * head_VH.shape[1]
    if len(head_VH) <= most:
        return difference_MV, head_VH.astype(np.float64)
    ids = np.argpartition(-mu_MV.mean(axis=0), most)[:most]
    return difference_MV[:, ids], head_VH[ids].astype(np.float64)


def _share_outside(difference_MU: Array, head_UH: Array) -> float | None:
    """By the normal equations, H x H: a row of logits may also be shifted as a whole."""
    difference_MU = difference_MU - difference_MU.mean(axis=1, keepdims=True)
    head_UH = head_UH - head_UH.mean(axis=0)
    total = float(np.sum(difference_MU**2))
    if total <= 0:
        return None
    gram_HH, seen_MH = head_UH.T @ head_UH, difference_MU @ head_UH
    gram_HH[np.diag_indices_from(gram_HH)] += 1e-12 * np.trace(gram_HH) / len(gram_HH)
    inside = float(np.sum(seen_MH * np.linalg.solve(gram_HH, seen_MH.T).T))
    return max(0.0, 1 - inside / total)


def _span_of(logp_MV: Array) -> Array | None:
    """The directions of a matrix of logits that stand out of its rounding."""
    logp_MV = logp_MV[:1024] - logp_MV[:1024].mean(axis=1, keepdims=True)
    if min(logp_MV.shape) < 24:
        return None
    _, value, direction_RV = np.linalg.svd(logp_MV, full_matrices=False)
    fall = value[:-1] / np.maximum(value[1:], 1e-300)
    rank = int(fall[4:].argmax()) + 5
    # A span is one where there is a gap behind it, and rows enough beyond it.
    return direction_RV[:rank].T if fall[rank - 1] > 3 and 2 * rank < len(logp_MV) else None


class Grid(NamedTuple):
    """Share of the differences between neighbouring log-probs of a row that are multiples of a power of two, by
    side,
    and that power."""

    share: dict[Side, float]
    step: float


@statistic
def logit_grid(sample: Sample) -> Grid | None:
    """Logits that were rounded to 16 bits leave differences on a grid, whatever was subtracted from all of them."""
    found = rows(sample)
    if found is None:
        return None
    best: Grid | None = None
    for step in (2.0**-4, 2.0**-5, 2.0**-6, 2.0**-7, 2.0**-8):
        share = {}
        for side, logp in zip(SIDES, (found.mu, found.pi), strict=True):
            with np.errstate(invalid="ignore"):
                top = np.sort(np.where(np.isfinite(logp) & (logp > LEAST_LOGP), logp, -np.inf), axis=1)[:256, -16:]
                difference = np.diff(top, axis=1)
            usable = np.isfinite(difference) & (difference > 0)
            units = difference[usable] / step
            near = np.abs(units - np.rint(units)) < 2e-5 / step
            share[side] = float(near.mean()) if len(units) >= 64 else float("nan")
        if any(each > 0.9 for each in share.values()) and (best is None or step > best.step):
            return Grid(share, step)
    return best


@statistic
def of_previous_rows(sample: Sample) -> Stat:
    """Mean cosine of two rows of log π − log μ with the same token before them, of different prompts: the change of
    a distribution as a function of the last token alone."""
    found, previous_N = rows(sample), sample.evidence.previous_N
    if found is None or found.ids is not None or previous_N is None:
        return Stat(None)
    logp = np.where(found.mu > LEAST_LOGP, found.pi - found.mu, 0.0)
    weight = np.exp(np.clip(found.mu, -12, 0) / 2)
    change = weight * (
        logp - (weight**2 * logp).sum(axis=1, keepdims=True) / (weight**2).sum(axis=1, keepdims=True)
    )
    norm_M = np.sqrt(np.sum(change**2, axis=1))
    use_M = np.isfinite(norm_M) & (norm_M > 0)
    change = change[use_M] / norm_M[use_M][:, None]
    token_M = found.token_M[use_M]
    prompt_M = sample.evidence.prompt_S[sample.evidence.sequence_N[token_M]]
    order = np.lexsort((prompt_M, previous_N[token_M]))
    key, prompt = previous_N[token_M][order], prompt_M[order]
    same = np.flatnonzero((key[1:] == key[:-1]) & (prompt[1:] != prompt[:-1]))
    if len(same) < 20:
        return Stat(None, None, None, len(same))
    cosine = np.sum(change[order[same]] * change[order[same + 1]], axis=1)
    error = float(cosine.std() / np.sqrt(len(cosine)))
    value = float(cosine.mean())
    return Stat(value, value - 1.96 * error, value + 1.96 * error, len(same))
