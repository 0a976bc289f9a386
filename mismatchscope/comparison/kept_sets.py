"""π on the ids that μ's sampler kept, where these were observed.

Shapes: N states, K observed ids.
"""

from __future__ import annotations

import numpy as np

from ..errors import NotComparableError

# A kept set this close to the whole of μ is the whole of μ: float32 log-probs cannot say more.
_WHOLE_MASS = 1e-5


def require_support(kept_logmass_N: np.ndarray) -> None:
    """Raise `NotComparableError` where log π(kept ids) is NaN: not known."""
    if np.isnan(kept_logmass_N).any():
        raise NotComparableError(
            "Policy 'support' needs μ's kept set at every state, and it was not recorded at all of them.",
            hint="--evidence full, or topk:K with K at least the sampler's top-k",
        )


def topk_support_logmass(logp_mu_NK: np.ndarray, logp_pi_NK: np.ndarray) -> np.ndarray:
    """log π(kept ids), NaN where the observed ids do not hold the whole of μ."""
    kept_NK = np.isfinite(logp_mu_NK)
    with np.errstate(divide="ignore"):
        mass_mu_N = np.where(kept_NK, np.exp(np.where(kept_NK, logp_mu_NK, -np.inf)), 0.0).sum(axis=1)
        mass_pi_N = np.where(kept_NK, np.exp(np.where(kept_NK, logp_pi_NK, -np.inf)), 0.0).sum(axis=1)
        return np.where(mass_mu_N >= 1.0 - _WHOLE_MASS, np.log(mass_pi_N), np.nan)


def on_support(logp_pi_NK: np.ndarray, logp_mu_NK: np.ndarray, kept_logmass_N1: np.ndarray) -> np.ndarray:
    """π renormalised on μ's kept ids; padding (NaN) stays padding."""
    return np.where(np.isneginf(logp_mu_NK), -np.inf, logp_pi_NK - kept_logmass_N1)
