"""Pairs of random policies with faults planted in them: μ draws from its own logits, π has the same ones but for
rounding and what a test plants.

Shapes: N tokens, S sequences, V vocabulary, H hidden.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mismatchscope.diagnosis.evidence import Floor, FullRows, TokenEvidence, TopK

SEQUENCES, LENGTH, VOCABULARY, HIDDEN = 40, 50, 64, 8
ROUNDING = 0.02
"""Standard deviation of what either side adds to a logit: about that of bfloat16."""
FINE = 0.002
"""The same of more precise sides, to which a small fault shows."""


def log_softmax(logits_NV: np.ndarray) -> np.ndarray:
    shifted = logits_NV - logits_NV.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


class Pair:
    """`head_VH` makes the logits, so that a fault of the head can be told from one of the states."""

    def __init__(self, seed: int, rounding: float = ROUNDING) -> None:
        self.rng = np.random.default_rng(seed)
        self.rounding = rounding
        tokens = SEQUENCES * LENGTH
        self.head_VH = self.rng.normal(size=(VOCABULARY, HIDDEN))
        scale_N1 = self.rng.uniform(0.5, 4, size=(tokens, 1)) / np.sqrt(HIDDEN)
        self.state_NH = self.rng.normal(size=(tokens, HIDDEN)) * scale_N1
        self.logits_NV = self.state_NH @ self.head_VH.T
        self.mu_NV = log_softmax(self.rounded())
        self.draw()

    def draw(self) -> None:
        """Draw again, from μ as it is now."""
        gumbel_NV = self.rng.gumbel(size=self.mu_NV.shape)
        self.token_N = np.where(np.isfinite(self.mu_NV), self.mu_NV + gumbel_NV, -np.inf).argmax(1)

    @property
    def sequence_N(self) -> np.ndarray:
        return np.repeat(np.arange(SEQUENCES), LENGTH)

    @property
    def position_N(self) -> np.ndarray:
        return np.tile(np.arange(LENGTH), SEQUENCES)

    def rounded(self, logits_NV: np.ndarray | None = None) -> np.ndarray:
        logits_NV = self.logits_NV if logits_NV is None else logits_NV
        return logits_NV + self.rng.normal(scale=self.rounding, size=logits_NV.shape)

    def of_sampled(self, logp_NV: np.ndarray) -> np.ndarray:
        return logp_NV[np.arange(len(logp_NV)), self.token_N]

    def scored(self, temperature: float = 1.0) -> np.ndarray:
        """Log-probs of the sampled tokens under π [N]."""
        return self.of_sampled(log_softmax(self.rounded() / temperature))

    def off(self, size_N: np.ndarray | float) -> np.ndarray:
        """The same with a z of this standard deviation added to that of rounding."""
        pi_N = self.scored()
        z_N = self.rng.normal(size=len(pi_N)) * size_N
        return np.minimum(pi_N + z_N * (1 - np.exp(pi_N)), 0.0)

    def evidence(self, pi_N: np.ndarray, mu_N: np.ndarray | None = None, **others: Any) -> TokenEvidence:
        """Sampled tokens. The floor is what `rounding` makes of such a pair, unless another one is given."""
        previous_N = np.where(self.position_N > 0, np.roll(self.token_N, 1), -1)
        facts: dict[str, Any] = {"floor": Floor(1.4 * self.rounding, "third party")}
        return TokenEvidence(
            self.of_sampled(self.mu_NV) if mu_N is None else mu_N,
            pi_N,
            self.sequence_N,
            self.position_N,
            np.arange(SEQUENCES),
            token_N=self.token_N,
            previous_N=previous_N,
            **facts | others,
        )

    def whole(self, pi_NV: np.ndarray, **others: Any) -> TokenEvidence:
        """With the whole distributions of every tenth token."""
        row_M = np.arange(0, len(pi_NV), 10)
        full = FullRows(row_M, self.mu_NV[row_M].astype(np.float32), pi_NV[row_M].astype(np.float32))
        return self.evidence(self.of_sampled(pi_NV), full=full, head_VH=self.head_VH, **others)

    def top(self, pi_NV: np.ndarray, k: int = 16) -> TokenEvidence:
        """With both sides' log-probs at the ids that μ finds likeliest."""
        ids_NK = np.argsort(-self.mu_NV, axis=1)[:, :k]
        mu_NK, pi_NK = (np.take_along_axis(logp_NV, ids_NK, 1) for logp_NV in (self.mu_NV, pi_NV))
        return self.evidence(self.of_sampled(pi_NV), top=TopK(ids_NK, mu_NK, ids_NK, pi_NK))
