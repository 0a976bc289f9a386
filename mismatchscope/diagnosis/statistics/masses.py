"""Mass that one side has and the other has not, and whose log-prob was filed for the sampled token.

Shapes: M tokens whose distributions are known, V vocabulary, K ids of each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..sample import Sample, statistic
from .distributions import NO_MASS, rows
from .values import SIDES, Side


class Mass(NamedTuple):
    """Means over whole distributions of one side."""

    missing: float
    """1 − Σ p: mass at ids that are not shown."""
    excluded: float
    """Share of ids with no mass at all, or none that float32 shows."""
    beyond: float
    """Mass that the other side has where this one has none."""


@statistic
def masses(sample: Sample) -> dict[Side, Mass] | None:
    """By side; None without whole distributions."""
    found = rows(sample)
    if found is None or found.ids is not None:
        return None
    p = {side: np.exp(logp) for side, logp in zip(SIDES, (found.mu, found.pi), strict=True)}
    none = {side: logp < NO_MASS for side, logp in zip(SIDES, (found.mu, found.pi), strict=True)}
    result = {}
    for side, theirs in zip(SIDES, reversed(SIDES), strict=True):
        result[side] = Mass(
            float(np.mean(1 - p[side].sum(axis=1))),
            float(none[side].mean()),
            float(np.mean(np.where(none[side], p[theirs], 0.0).sum(axis=1))),
        )
    return result


class KeptSets(NamedTuple):
    """What μ's own distributions keep, of rows where something is left out: how many ids, and of the other side the
    mass of the set, the mass without its last id, and the least kept over the largest probability."""

    cut_rows: int
    of_rows: int
    size: tuple[float, float]
    """Smallest and largest."""
    constant_shift: float
    """Root mean square over kept ids of what is left of log π − log μ without the row's mean."""


@statistic
def kept_sets(sample: Sample) -> KeptSets | None:
    """None without whole distributions."""
    found = rows(sample)
    if found is None or found.ids is not None:
        return None
    kept = found.mu > NO_MASS
    size_M = kept.sum(axis=1)
    cut_M = size_M < found.mu.shape[1]
    if not cut_M.any():
        return KeptSets(0, len(cut_M), (0.0, 0.0), 0.0)
    with np.errstate(invalid="ignore"):
        shift = np.where(kept, found.pi - found.mu, 0.0)[cut_M]
    mean_M1 = shift.sum(axis=1, keepdims=True) / size_M[cut_M][:, None]
    rest = np.where(kept[cut_M], shift - mean_M1, 0.0)
    weight = np.exp(np.where(kept[cut_M], found.mu[cut_M], -np.inf))
    return KeptSets(
        int(cut_M.sum()),
        len(cut_M),
        (float(size_M[cut_M].min()), float(size_M[cut_M].max())),
        float(np.sqrt(np.sum(weight * rest**2) / weight.sum())),
    )


@statistic
def likeliest_filed(sample: Sample) -> dict[Side, float] | None:
    """By side, the share of tokens that are not the likeliest whose recorded log-prob is the likeliest one's."""
    found = rows(sample)
    if found is None or sample.evidence.token_N is None:
        return None
    token_M = sample.evidence.token_N[found.token_M]
    result: dict[Side, float] = {}
    columns = (sample.evidence.logp_mu_N, sample.evidence.logp_pi_N)
    for side, logp, column_N in zip(SIDES, (found.mu, found.pi), columns, strict=True):
        known = np.where(np.isfinite(logp), logp, -np.inf)
        best_M = known.argmax(axis=1)
        best_id_M = best_M if found.ids is None else found.ids[np.arange(len(best_M)), best_M]
        other_M = best_id_M != token_M
        if np.count_nonzero(other_M) < 20:
            return None
        result[side] = float(np.mean(np.abs(column_N[found.token_M] - known.max(axis=1))[other_M] < 1e-6))
    return result
