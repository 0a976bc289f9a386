"""Log-probs of the same tokens under two policies.

Shapes: S responses, W tokens.
"""

from __future__ import annotations

import numpy as np


def columns(rng: np.random.Generator, responses: int, tokens: int, error: float) -> tuple[np.ndarray, np.ndarray]:
    """log μ and log π of states of two tokens, three in five of them nearly certain."""
    certain_SW = rng.random((responses, tokens)) < 0.6
    logit_SW = np.where(certain_SW, rng.uniform(5, 14, certain_SW.shape), rng.normal(1, 2, certain_SW.shape))
    logit_SW *= np.where(rng.random(certain_SW.shape) < 1 / (1 + np.exp(-logit_SW)), 1, -1)
    error_SW = rng.normal(0, error, certain_SW.shape)
    return -np.logaddexp(0, -logit_SW), -np.logaddexp(0, -logit_SW - error_SW)
