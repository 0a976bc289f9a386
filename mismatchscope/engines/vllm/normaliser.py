"""Log-probs of every step in memory that is taken once.

A step of vLLM's on a small model takes some milliseconds, and the page faults of fresh memory would be a tenth of
them.

Shapes: N rows of a step, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Normaliser:
    """Logits to log-probs, in memory of its own: what it gives out lasts until the next call."""

    def __init__(self) -> None:
        self._logp = self._powers = torch.empty(0, 0)

    def __call__(self, logits_NV: Tensor) -> Tensor:
        """Normalised natural log-probs [N, V] in float32; as accurate as `common.capture.log_softmax`."""
        if len(self._logp) < len(logits_NV):
            self._logp = torch.empty_like(logits_NV, dtype=torch.float32)
            self._powers = torch.empty_like(self._logp)
        logp_NV, powers_NV = self._logp[: len(logits_NV)], self._powers[: len(logits_NV)]
        logp_NV.copy_(logits_NV)
        largest_N1 = logp_NV.amax(dim=1, keepdim=True)
        torch.sub(logp_NV, largest_N1, out=powers_NV)
        if powers_NV.is_cpu:
            np.exp(powers_NV.numpy(), out=powers_NV.numpy())  # twice as fast as torch's
        else:
            powers_NV.exp_()
        logp_NV -= powers_NV.sum(dim=1, keepdim=True).log_() + largest_N1
        return logp_NV
