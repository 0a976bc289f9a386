"""The temperature that one policy alone applied, from log-probs of sampled tokens and the entropy of their states.

With μ = π^β / Σ π^β, log μ(a) = β log π(a) − K, where K depends on the state and not on the token. States of equal
entropy have nearly equal K, so that among them the slope of log μ on log π is β. Log-odds need no entropy, but are
pulled towards 1 where several tokens share the rest of the mass.

Shapes: N tokens, B bins of entropy, C clusters.
"""

from __future__ import annotations

import math

import numpy as np

from .intervals import cluster_index
from .results import Interval

_BINS = 32
_OF_A_BIN = 8


def temperature_at_equal_entropy(
    logp_mu_N: np.ndarray,
    logp_pi_N: np.ndarray,
    entropy_N: np.ndarray,
    cluster_N: np.ndarray,
    *,
    confidence: float = 0.95,
) -> Interval | None:
    """How many times μ's logits π's are: μ's temperature over π's, with the cluster as the unit.

    None where there are too few tokens or clusters, or log π does not vary at equal entropy.
    """
    bins = min(_BINS, len(entropy_N) // _OF_A_BIN)
    if bins < 2:
        return None
    edges = np.quantile(entropy_N, np.linspace(0, 1, bins + 1)[1:-1])
    bin_N = np.searchsorted(edges, entropy_N)
    count_B = np.maximum(np.bincount(bin_N, minlength=bins), 1)
    mu_N, pi_N = (
        logp_N - (np.bincount(bin_N, logp_N, minlength=bins) / count_B)[bin_N] for logp_N in (logp_mu_N, logp_pi_N)
    )
    weight = float(pi_N @ pi_N)
    index_N = cluster_index(cluster_N)
    clusters = int(index_N.max()) + 1
    if weight <= 0 or clusters < 2:
        return None
    slope = float(pi_N @ mu_N) / weight
    if slope <= 0:
        return None
    score_C = np.bincount(index_N, pi_N * (mu_N - slope * pi_N))
    error = math.sqrt(float(score_C @ score_C) * clusters / (clusters - 1)) / weight
    from scipy.special import stdtrit

    t = float(stdtrit(clusters - 1, 0.5 + confidence / 2))
    low, high = slope - t * error, slope + t * error
    return Interval(
        1 / slope,
        1 / high,
        1 / low if low > 0 else math.inf,
        confidence,
        len(entropy_N),
        clusters,
        "slope-at-equal-entropy",
    )
