"""Reduce logits to the evidence a task asks for, on the device that made them, and move it to the host in blocks.

Shapes: N rows (states) of one block, V vocabulary, K observed ids, S sequences of a batch, T response tokens,
R states whose full distribution is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...errors import EngineError
from ...records import Evidence, Observed, Request


def log_softmax(logits_NV: Tensor) -> Tensor:
    """Normalised natural log-probabilities [N, V] in float32.

    `torch.log_softmax` adds up the denominator lane by lane on a CPU: 7e-6 off on 152k words. `logsumexp` adds
    pairwise, which leaves the rounding of the result alone (1e-6), at the same cost.
    """
    logits_NV = logits_NV.float()
    return logits_NV - torch.logsumexp(logits_NV, dim=-1, keepdim=True)


def top_k(logp_NV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k most probable ids [N, K] in falling order, and their log-probs.

    Where fewer than k ids have any probability (top-p, greedy) the rest is padded: id -1, log-prob NaN.
    """
    logp_NK, ids_NK = logp_NV.topk(min(k, logp_NV.shape[1]), dim=1)
    excluded_NK = logp_NK == -torch.inf
    ids_NK, logp_NK = ids_NK.masked_fill(excluded_NK, -1), logp_NK.masked_fill(excluded_NK, torch.nan)
    missing = k - ids_NK.shape[1]
    if missing:
        ids_NK = torch.nn.functional.pad(ids_NK, (0, missing), value=-1)
        logp_NK = torch.nn.functional.pad(logp_NK, (0, missing), value=torch.nan)
    return ids_NK, logp_NK


def logprobs_at(logp_NV: Tensor, ids_NK: Tensor) -> Tensor:
    """Log-probs [N, K] at given ids; NaN where the id is padding (-1)."""
    return logp_NV.gather(1, ids_NK.clamp(min=0)).masked_fill(ids_NK < 0, torch.nan)


def tail_overlap(logp_NV: Tensor, ids_NK: Tensor, token_N: Tensor, kth_logprob_N: Tensor) -> Tensor:
    """Σ_{a∉K} min(π_a, μ_(K)) per row, with K = the observed ids and the sampled token.

    Every id that μ did not show has μ_a ≤ μ_(K), its k-th largest probability, so this bounds how much of the two
    unobserved tails can overlap. NaN where `kth_logprob_N` is.
    """
    capped_NV = torch.minimum(logp_NV, kth_logprob_N[:, None].to(logp_NV.dtype)).exp_()
    seen_NK = torch.cat([torch.where(ids_NK < 0, token_N[:, None], ids_NK), token_N[:, None]], dim=1)
    # Zeroed before the sum, not subtracted from it: the tail may be far smaller than what was seen.
    return capped_NV.scatter_(1, seen_NK, 0.0).sum(dim=1).double()


class LogitRange:
    """The largest |logit| of each sequence of a batch: times the dtype's precision, what rounding can cost."""

    def __init__(self, sequences: int) -> None:
        self.largest_S = np.zeros(sequences)

    def add(self, sequence_N: np.ndarray, logits_NV: Tensor) -> None:
        low_N, high_N = torch.aminmax(logits_NV, dim=1)
        largest_N = torch.maximum(-low_N, high_N).float().cpu().numpy()
        np.maximum.at(self.largest_S, sequence_N, largest_N)


class Recorder:
    """Evidence of one policy along the sequences of one batch.

    `add` takes log-probs as they are computed, one block of rows at a time, whatever the order of the rows: all
    sequences at one position (decode), or many positions of each sequence (prefill). What it keeps is on the host;
    the device holds one block. `finish` gives what was seen of one sequence and forgets it.
    """

    def __init__(self, evidence: Evidence, requests: Sequence[Request], max_length: int) -> None:
        self._evidence = evidence
        shape_ST = (len(requests), max_length)
        self._logprob_ST = np.full(shape_ST, np.nan)
        if evidence.level == "full":
            self._keeps_full_ST = np.stack([evidence.keeps_full(r.sequence_id, max_length) for r in requests])
            self._full: list[list[np.ndarray]] = [[] for _ in requests]
        if evidence.level == "topk":
            self._asked_STK = _stack([r.observed_ids_TK for r in requests], shape_ST, padding=-1)
            self._kth_ST = _stack([r.kth_logprob_T for r in requests], shape_ST, padding=np.nan)
            k = evidence.k if self._asked_STK is None else self._asked_STK.shape[2]
            self._ids_STK = np.full((*shape_ST, k), -1, dtype=np.int32)
            self._logprobs_STK = np.full((*shape_ST, k), np.nan)
            self._tail_ST = np.full(shape_ST, np.nan)

    def add(self, sequence_N: np.ndarray, position_N: np.ndarray, logp_NV: Tensor, token_N: Tensor) -> None:
        """Record the rows that belong to (sequence, response position); `logp_NV` must not change afterwards."""
        at = (sequence_N, position_N)
        self._logprob_ST[at] = logp_NV.gather(1, token_N[:, None]).squeeze(1).cpu().numpy()
        if self._evidence.level == "topk":
            self._add_top_k(at, logp_NV, token_N)
        elif self._evidence.level == "full":
            keep_N = self._keeps_full_ST[at]
            if not keep_N.all():
                sequence_N = sequence_N[keep_N]
                logp_NV = logp_NV[torch.from_numpy(np.flatnonzero(keep_N)).to(logp_NV.device)]
            for sequence, row_V in zip(sequence_N.tolist(), logp_NV.cpu().numpy(), strict=True):
                self._full[sequence].append(row_V)

    def _add_top_k(self, at: tuple[np.ndarray, np.ndarray], logp_NV: Tensor, token_N: Tensor) -> None:
        if self._asked_STK is None:
            ids_NK, logp_NK = top_k(logp_NV, self._evidence.k)
        else:
            ids_NK = torch.from_numpy(self._asked_STK[at]).to(logp_NV.device, torch.int64)
            logp_NK = logprobs_at(logp_NV, ids_NK)
        if self._kth_ST is not None:
            kth_N = torch.from_numpy(self._kth_ST[at]).to(logp_NV.device)
            self._tail_ST[at] = tail_overlap(logp_NV, ids_NK, token_N, kth_N).cpu().numpy()
        self._ids_STK[at] = ids_NK.cpu().numpy()
        self._logprobs_STK[at] = logp_NK.cpu().numpy()

    def finish(self, sequence: int, length: int) -> Observed:
        """What was seen of the first `length` tokens of a sequence."""
        observed = Observed(self._logprob_ST[sequence, :length].copy())
        if self._evidence.level == "topk":
            observed.topk_ids_TK = self._ids_STK[sequence, :length].copy()
            observed.topk_logprobs_TK = self._logprobs_STK[sequence, :length].copy()
            if self._kth_ST is not None:
                observed.tail_overlap_T = self._tail_ST[sequence, :length].copy()
        elif self._evidence.level == "full":
            observed.full_row_R = np.flatnonzero(self._keeps_full_ST[sequence, :length])
            rows = self._full[sequence]
            if len(rows) != len(observed.full_row_R):
                raise EngineError(
                    f"{len(rows)} distributions were seen where {len(observed.full_row_R)} were asked"
                )
            if rows:
                observed.full_logprobs_RV = np.stack(rows)
            self._full[sequence] = []
        return observed


def _stack(values: list[np.ndarray | None], shape_ST: tuple[int, int], padding: float) -> np.ndarray | None:
    """Ragged arrays [T] or [T, K] of the sequences as one padded array; None where none of them has one."""
    given = [value for value in values if value is not None]
    if not given:
        return None
    if len(given) != len(values):
        raise EngineError("some sequences of a batch ask for given token ids and some do not")
    trailing = (max(value.shape[1] for value in given),) if given[0].ndim == 2 else ()
    stacked = np.full((*shape_ST, *trailing), padding, dtype=given[0].dtype)
    for row, value in zip(stacked, given, strict=True):
        row[tuple(slice(0, size) for size in value.shape)] = value
    return stacked
