"""Upper limits of shares of tokens that prompts nobody has seen could raise.

Shape suffixes: C clusters (prompts), T thresholds, B random weightings, K clusters of one piece.
"""

from __future__ import annotations

import numpy as np

from ..errors import EmptyComparisonError
from .intervals import unseen_share

_WEIGHTINGS = 4000
_PIECE = 256  # clusters weighted at once: bounds the memory


def share_upper_limits(hits_CT: np.ndarray, count_C: np.ndarray, *, confidence: float = 0.95) -> np.ndarray:
    """One-sided upper limits [T] of the pooled shares E[hits] / E[count]; a cluster has `count_C` tokens.

    The bound of Gaffke (2005, "Three test statistics for a nonparametric one-sided hypothesis on the mean of a
    nonnegative variable") for values that have a known largest one; see Phan, Thomas & Learned-Miller 2021,
    "Towards practical mean bounds for small samples". Here it is the ratio of two sums: the `confidence` quantile
    of the share of hits under random Dirichlet weights of the clusters and of one more that is hit at every token.
    Where clusters are hit whole or not at all and are equally long it is Clopper–Pearson's limit, so with no hit
    it is 1 − δ^(1/C).

    That further cluster is as far above the longest seen as the longest is above the mean. The limit has no normal
    approximation in it and needs no hit cluster among the seen; that it holds is conjectured, not proven, and for
    random lengths it is measured (benchmarks/calibration.py). All thresholds share their weights, so more hits
    never have a lower limit. Clusters are put in order first and the weights are always the same ones, so the
    digits do not depend on how the clusters came. Raises EmptyComparisonError without clusters.
    """
    if not count_C.size:
        raise EmptyComparisonError("A share of no tokens is not defined.")
    order_C = np.lexsort((*hits_CT.T, count_C))
    hits_CT, count_C = hits_CT[order_C].astype(np.float64), count_C[order_C].astype(np.float64)
    unseen = 2 * count_C.max() - count_C.mean()
    rng = np.random.default_rng(0)
    # Dirichlet weights are exponentials over their sum, which cancels in a ratio.
    extra_B = unseen * rng.standard_exponential(_WEIGHTINGS)
    hits_BT, count_B = np.repeat(extra_B[:, None], hits_CT.shape[1], axis=1), extra_B
    for start in range(0, count_C.size, _PIECE):
        piece = slice(start, start + _PIECE)
        weight_BK = rng.standard_exponential((_WEIGHTINGS, count_C[piece].size))
        hits_BT += weight_BK @ hits_CT[piece]
        count_B = count_B + weight_BK @ count_C[piece]
    limit_T = np.quantile(hits_BT / count_B[:, None], confidence, axis=0, method="higher")
    limit_T = np.maximum(limit_T, unseen_share(count_C.size, confidence))
    return np.where((hits_CT == count_C[:, None]).all(axis=0), 1.0, limit_T)
