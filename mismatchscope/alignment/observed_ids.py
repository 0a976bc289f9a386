"""Both policies at the ids that top-k evidence shows of each state.

Shapes: N states, K ids of the longest list and one more for the sampled token, F all list entries end to end,
M states with a full distribution of π, V its vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..traces.columns import flat, listed_at, pad

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class ObservedPair:
    """log μ and log π at the same distinct ids, [N, K], NaN where a row has fewer.

    `beyond_topk_N`: the sampled token is not among μ's top-k, and so is observed only because it was sampled.
    `whole_N`: π was observed at all of μ's top-k. `tail_overlap_N` is Σ over what is not observed of
    min(π_a, μ_(K)), +inf where it is not known; None where it is known nowhere.
    """

    logp_mu_NK: np.ndarray
    logp_pi_NK: np.ndarray
    tail_overlap_N: np.ndarray | None
    beyond_topk_N: np.ndarray
    whole_N: np.ndarray


def observed_pair(
    mu: pa.RecordBatch, pi: pa.RecordBatch, full: tuple[np.ndarray, np.ndarray] | None, *, k: int, same_ids: bool
) -> ObservedPair:
    """The union of μ's top-k and the sampled token, as far as π was observed there too.

    A list that is longer than `k` ends with the sampled token, as servers append it where it is not among the
    likeliest. `same_ids`: both sides are known to list the same ids.

    π's log-probs come from its own list, matched by id, or from `full`: the rows [M] that have a distribution, and
    the distributions [M, V]. An id that only μ shows is not observed: it belongs to the tail of both. The arrays
    may be views of the columns. The lists hold distinct ids of a vocabulary: `SideFigures` has seen to it.
    """
    id_F, k_N = flat(mu["topk_ids"])
    logp_mu_F, _ = flat(mu["topk_logprobs"])
    token_N = mu["token_id"].to_numpy()
    id_NK, logp_mu_NK = pad(id_F, k_N, fill=-1), pad(logp_mu_F, k_N, fill=np.nan)
    overlap_N = None
    if full is not None:
        index_M, logp_pi_MV = full
        logp_pi_NK = np.full(id_NK.shape, np.nan)
        overlap_N = np.full(len(token_N), np.inf)
        if len(index_M):
            # Beyond the k-th a list may hold the sampled token, which bounds nothing.
            kth_M = logp_mu_NK[index_M, np.clip(k_N[index_M], 1, k) - 1]
            logp_pi_NK[index_M] = _at(logp_pi_MV, id_NK[index_M], outside=-np.inf)
            overlap_N[index_M] = _tail_overlap(logp_pi_MV, id_NK[index_M], token_N[index_M], kth_M)
    else:
        logp_pi_F, same_ids_N = _matched(id_F, k_N, pi, same_ids)
        logp_pi_NK = pad(logp_pi_F, k_N, fill=np.nan)
        if "tail_overlap" in pi.schema.names:
            overlap_N = np.where(same_ids_N, pi["tail_overlap"].to_numpy(zero_copy_only=False), np.inf)
    at_N = listed_at(id_NK, token_N)
    beyond_topk_N = (at_N < 0) | (at_N >= k)
    sampled_N = at_N < 0
    whole_N = np.ones(len(token_N), dtype=bool)
    if not all(_is_whole(logp_NK) for logp_NK in (logp_mu_NK, logp_pi_NK)):
        unseen_NK = np.isnan(logp_mu_NK) | np.isnan(logp_pi_NK)
        sampled_N |= unseen_NK[np.arange(len(at_N)), at_N]
        whole_N = ~(unseen_NK & (id_NK >= 0)).any(axis=1)
        logp_mu_NK, logp_pi_NK = (np.where(unseen_NK, np.nan, logp_NK) for logp_NK in (logp_mu_NK, logp_pi_NK))
        if overlap_N is not None:
            # The overlap was summed over what lay outside the whole list; a hole in the list is not in it.
            overlap_N[~whole_N] = np.inf
    if overlap_N is not None:
        overlap_N[np.isnan(overlap_N)] = np.inf
    return ObservedPair(
        _with_sampled(logp_mu_NK, mu["logprob"].to_numpy(), sampled_N),
        _with_sampled(logp_pi_NK, pi["logprob"].to_numpy(), sampled_N),
        overlap_N if overlap_N is not None and np.isfinite(overlap_N).any() else None,
        beyond_topk_N,
        whole_N,
    )


def _is_whole(logp_NK: np.ndarray) -> bool:
    """Whether there is no NaN, which is the largest of whatever it is among."""
    return not np.isnan(logp_NK.max(initial=-np.inf))


def _with_sampled(logp_NK: np.ndarray, logp_N: np.ndarray, sampled_N: np.ndarray) -> np.ndarray:
    """One more column, for the sampled token where the list does not have it; none where all lists do."""
    if logp_NK.size and not sampled_N.any():
        return logp_NK
    both = np.empty((len(logp_NK), logp_NK.shape[1] + 1))
    both[:, :-1] = logp_NK
    both[:, -1] = np.where(sampled_N, logp_N, np.nan)
    return both


def _matched(
    id_F: np.ndarray, k_N: np.ndarray, pi: pa.RecordBatch, same_ids: bool
) -> tuple[np.ndarray, np.ndarray]:
    """log π at μ's ids [F], NaN where π does not list them, and which rows list the same ids [N]."""
    id_pi_F, k_pi_N = flat(pi["topk_ids"])
    logp_pi_F, _ = flat(pi["topk_logprobs"])
    if same_ids:
        return logp_pi_F, np.ones(len(k_N), dtype=bool)
    # Ids are below 2³¹, so (row, id) makes one sortable key.
    key_F, key_pi_F = _row_of(k_N) << 32 | id_F, _row_of(k_pi_N) << 32 | id_pi_F
    order = np.argsort(key_pi_F)
    at_F = np.minimum(np.searchsorted(key_pi_F, key_F, sorter=order), max(len(order) - 1, 0))
    found_F = key_pi_F[order[at_F]] == key_F if len(order) else np.zeros(len(key_F), dtype=bool)
    matched_F = np.full(len(id_F), np.nan)
    matched_F[found_F] = logp_pi_F[order[at_F[found_F]]]
    found_N = np.bincount(_row_of(k_N), weights=found_F, minlength=len(k_N))
    return matched_F, (found_N == k_N) & (k_N == k_pi_N)


def _row_of(k_N: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(k_N), dtype=np.int64), k_N)


def _at(value_MV: np.ndarray, id_MK: np.ndarray, outside: float) -> np.ndarray:
    """Values [M, K] at given ids, in float64; `outside` where the vocabulary has no such id, NaN at padding."""
    inside_MK = (id_MK >= 0) & (id_MK < value_MV.shape[1])
    value_MK = np.take_along_axis(value_MV, np.where(inside_MK, id_MK, 0), axis=1).astype(np.float64)
    return np.where(inside_MK, value_MK, np.where(id_MK < 0, np.nan, outside))


def _tail_overlap(logp_MV: np.ndarray, id_MK: np.ndarray, token_M: np.ndarray, kth_M: np.ndarray) -> np.ndarray:
    """Σ over all but the observed ids and the sampled token of min(π_a, μ_(K)); NaN where μ_(K) is not known."""
    capped_MV = np.exp(np.minimum(logp_MV, kth_M[:, None].astype(logp_MV.dtype)))
    listed_M = (id_MK == token_M[:, None]).any(axis=1)
    seen_MK = _at(capped_MV, np.column_stack([id_MK, np.where(listed_M, -1, token_M)]), outside=0.0)
    tail_M = capped_MV.sum(axis=1, dtype=np.float64) - np.nansum(seen_MK, axis=1)
    return np.maximum(tail_M, 0.0)  # the difference of equal sums can miss zero by an ulp
