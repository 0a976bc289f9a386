"""What a target policy adds to a pair: α₀, β, and how loose β ≤ α₀ + α₁ is."""

from __future__ import annotations

from typing import NamedTuple

from ..measures.results import Alpha


class OtherPairs(NamedTuple):
    """α₀ = TV(π_old, π_θ) and β = TV(μ, π_θ), measured directly; and the slack of β ≤ α₀ + α₁."""

    alpha0: Alpha | None = None
    beta: Alpha | None = None
    slack_observed_max: float | None = None
    slack_mean: float | None = None

    @classmethod
    def of(cls, alpha0: Alpha, alpha1: Alpha, beta: Alpha) -> OtherPairs:
        """All three are of the same tokens."""
        return cls(
            alpha0,
            beta,
            _slack(alpha0.observed_max, alpha1.observed_max, beta.observed_max),
            _slack(alpha0.mean.value, alpha1.mean.value, beta.mean.value),
        )


def _slack(alpha0: float | None, alpha1: float | None, beta: float | None) -> float | None:
    return None if alpha0 is None or alpha1 is None or beta is None else alpha0 + alpha1 - beta
