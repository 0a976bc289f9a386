"""The plots in which one sees what a detector has found.

Shapes: N tokens.
"""

from __future__ import annotations

import numpy as np

from .detector import Picture
from .evidence import Array
from .sample import Sample
from .statistics.position import Axis


def places(sample: Sample, axis: Axis) -> Array:
    """Of each token, in its response or in its sequence [N]."""
    length_S = sample.evidence.prompt_length_S
    if axis == "relative" or length_S is None:
        return sample.evidence.position_N
    return sample.evidence.position_N + length_S[sample.evidence.sequence_N]


def positions_picture(sample: Sample, axis: Axis, marks: tuple[tuple[str, float], ...] = ()) -> Picture:
    """R over positions, in up to thirty bins of as many tokens each."""
    at = places(sample, axis)[sample.scaled_N].astype(np.float64)
    square = sample.gap_N[sample.scaled_N] ** 2
    label = "position in the sequence" if axis == "absolute" else "position in the response"
    if not len(at):
        return Picture("positions", label, "R, in floors", (), (), marks, 1.0)
    edges = np.unique(np.quantile(at, np.linspace(0, 1, min(31, 2 + len(at) // 20))))
    index = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, max(len(edges) - 2, 0))
    count = np.bincount(index)
    kept = count > 0
    x = (np.bincount(index, at) / np.maximum(count, 1))[kept]
    y = np.sqrt(np.bincount(index, square) / np.maximum(count, 1))[kept]
    series = (("R", tuple(x.tolist()), tuple(y.tolist())),)
    return Picture("positions", label, "R, in floors", series, (), marks, 1.0)


def log_odds_picture(sample: Sample) -> Picture:
    """The difference of the log-odds over their mean, in twenty bins."""
    use_N = sample.live_N & (sample.p_N < 0.999) & (sample.p_N > 1e-8)
    odds = []
    for logp_N in (sample.evidence.logp_mu_N, sample.evidence.logp_pi_N):
        logp = np.minimum(logp_N[use_N], -1e-4)
        odds.append(logp - np.log(-np.expm1(logp)))
    mean, difference = (odds[0] + odds[1]) / 2, odds[1] - odds[0]
    if len(mean) < 40:
        return Picture("log_odds", "mean log-odds", "difference of the log-odds, π − μ", ())
    edges = np.unique(np.quantile(mean, np.linspace(0, 1, 21)))
    index = np.clip(np.searchsorted(edges, mean, side="right") - 1, 0, len(edges) - 2)
    count = np.bincount(index, minlength=len(edges) - 1)
    x, y = (np.bincount(index, each, minlength=len(count)) / np.maximum(count, 1) for each in (mean, difference))
    kept = count > 0
    series = (("mean of a bin", tuple(x[kept].tolist()), tuple(y[kept].tolist())),)
    return Picture("log_odds", "mean log-odds", "difference of the log-odds, π − μ", series)
