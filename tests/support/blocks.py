"""Random blocks of logits and log-probabilities, float32 as engines record them."""

from __future__ import annotations

import numpy as np


def normal(*shape: int, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def log_probabilities(*logits: np.ndarray) -> tuple[np.ndarray, ...]:
    """Normalised in float64, rounded to float32."""
    wide = [side.astype(np.float64) for side in logits]
    wide = [side - side.max(axis=1, keepdims=True) for side in wide]
    return tuple((side - np.log(np.exp(side).sum(axis=1, keepdims=True))).astype(np.float32) for side in wide)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
