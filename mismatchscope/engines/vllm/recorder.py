"""The evidence of a batch, recorded step by step in memory that is taken once.

A step of vLLM's on a small model takes some milliseconds, and the page faults of fresh memory would be a tenth of
them: so log-probs are computed in place, and full distributions are copied once, to where they stay.

Shapes: N rows of a step, B requests, T response tokens, R states with a full distribution, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...records import Evidence, Observed, Request
from ..common.capture import Recorder


class Normaliser:
    """Logits to log-probs, in memory of its own: what it gives out lasts until the next call."""

    def __init__(self) -> None:
        self._logp = self._powers = torch.empty(0, 0)

    def __call__(self, logits_NV: Tensor) -> Tensor:
        """Normalised natural log-probs [N, V] in float32; as accurate as `capture.log_softmax`."""
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


class StepRecorder:
    """`capture.Recorder` for log-probs that are overwritten after every step; it copies what it keeps."""

    def __init__(self, evidence: Evidence, requests: Sequence[Request], longest: int) -> None:
        self._full = FullRows(evidence, requests, longest) if evidence.level == "full" else None
        self._rest = Recorder(Evidence("sampled") if self._full else evidence, requests, longest)

    def add(self, row_N: np.ndarray, position_N: np.ndarray, logp_NV: Tensor, token_N: Tensor) -> None:
        """Record the rows that belong to (request, response position)."""
        self._rest.add(row_N, position_N, logp_NV, token_N)
        if self._full:
            self._full.add(row_N, position_N, logp_NV)

    def finish(self, row: int, length: int) -> Observed:
        """What was seen of the first `length` tokens of a request."""
        observed = self._rest.finish(row, length)
        if self._full:
            observed.full_row_R, observed.full_logprobs_RV = self._full.of(row, length)
        return observed


class FullRows:
    """Full distributions of a batch, in one block that uses memory as it fills: a row a state, by request."""

    def __init__(self, evidence: Evidence, requests: Sequence[Request], longest: int) -> None:
        keep_BT = np.stack([evidence.keeps_full(request.sequence_id, longest) for request in requests])
        self._place_BT = np.full(keep_BT.shape, -1)
        self._place_BT[keep_BT] = np.arange(keep_BT.sum())
        self._size = int(keep_BT.sum())
        self._block: np.ndarray | None = None

    def add(self, row_N: np.ndarray, position_N: np.ndarray, logp_NV: Tensor) -> None:
        if self._block is None:
            # Not torch's, which does not ask the system for huge pages.
            self._block = np.empty((self._size, logp_NV.shape[1]), dtype=np.float32)
        place_N = self._place_BT[row_N, position_N]
        kept_N = np.flatnonzero(place_N >= 0)
        if len(kept_N) < len(place_N):
            logp_NV = logp_NV[torch.from_numpy(kept_N).to(logp_NV.device)]
        self._block[place_N[kept_N]] = logp_NV.cpu().numpy()

    def of(self, row: int, length: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The positions of one request that have a full distribution, and those; None where there is none."""
        place_T = self._place_BT[row, :length]
        position_R = np.flatnonzero(place_T >= 0)
        if not len(position_R):
            return position_R, None
        first = place_T[position_R[0]]
        return position_R, self._block[first : first + len(position_R)]
