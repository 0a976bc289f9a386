"""Reduce logits to the evidence a task asks for, on the device that made them, and move it to the host in blocks.

Shapes: N rows (states) of one block, V vocabulary, K observed ids, S sequences of a batch, T response tokens,
R states whose full distribution is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ...errors import EngineError
from ...records import Evidence, Observed, Request, Sampling, Task
from .sampling import process_logits

Normalise = Callable[[Tensor], Tensor]
"""Logits [N, V] of any float type to normalised natural log-probabilities [N, V] in float32."""


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


def recorded_policies(
    task: Task, process: Callable[[Tensor, Sampling], Tensor] = process_logits
) -> list[Callable[[Tensor], Tensor]]:
    """Functions from the model's logits to the logits of each policy that a task records.

    Of a rollout the one sampled from, then the raw one where that is another; of a score the one it asks for.
    `process` is temperature, top-k and top-p.
    """
    raw = [lambda logits_NV: logits_NV]
    processed = [lambda logits_NV: process(logits_NV, task.sampling)] if task.sampling.transforms else []
    if task.kind == "rollout":
        return processed + raw
    return raw if task.policy == "raw" else processed or raw


class TaskRecorder:
    """Evidence of every policy that a task records, along the sequences of one batch."""

    def __init__(
        self,
        task: Task,
        requests: Sequence[Request],
        max_length: int,
        *,
        process: Callable[[Tensor, Sampling], Tensor] = process_logits,
        normaliser: Callable[[], Normalise] = lambda: log_softmax,
    ) -> None:
        """`normaliser` makes what turns the logits of one policy into log-probs."""
        self._policies = [(policy, normaliser()) for policy in recorded_policies(task, process)]
        self._recorders = [Recorder(task.evidence, requests, max_length) for _ in self._policies]

    def logprobs(self, logits_NV: Tensor) -> list[Tensor]:
        """The log-probs [N, V] of every recorded policy, first the one that a rollout is sampled from."""
        return [normalise(policy(logits_NV)) for policy, normalise in self._policies]

    def add(
        self, sequence_N: np.ndarray, position_N: np.ndarray, logprobs: Sequence[Tensor], token_N: Tensor
    ) -> None:
        """Record what `logprobs` gave for the rows that belong to (sequence, response position)."""
        for recorder, logp_NV in zip(self._recorders, logprobs, strict=True):
            recorder.add(sequence_N, position_N, logp_NV, token_N.to(logp_NV.device, torch.int64))

    def finish(self, sequence: int, length: int) -> list[Observed]:
        """What was seen of one sequence under every recorded policy."""
        return [recorder.finish(sequence, length) for recorder in self._recorders]


class Recorder:
    """Evidence of one policy along the sequences of one batch.

    `add` takes log-probs as they are computed, one block of rows at a time, whatever the order of the rows: all
    sequences at one position (decode), or many positions of each sequence (prefill). What it keeps is copied to the
    host, into memory that is taken once: the page faults of fresh memory cost more than the copy.
    """

    def __init__(self, evidence: Evidence, requests: Sequence[Request], max_length: int) -> None:
        self._evidence = evidence
        shape_ST = (len(requests), max_length)
        self._logprob_ST = np.full(shape_ST, np.nan)
        if evidence.level == "full":
            keeps_ST = np.stack([evidence.keeps_full(request.sequence_id, max_length) for request in requests])
            self._full_row_ST = np.full(shape_ST, -1)  # the row of `_full_RV` where each state goes
            self._full_row_ST[keeps_ST] = np.arange(keeps_ST.sum())
            self._kept_S = np.zeros(len(requests), dtype=np.int64)
            self._full_RV: np.ndarray | None = None
        if evidence.level == "topk":
            self._asked_STK = _stack([r.observed_ids_TK for r in requests], shape_ST, padding=-1)
            self._kth_ST = _stack([r.kth_logprob_T for r in requests], shape_ST, padding=np.nan)
            k = evidence.k if self._asked_STK is None else self._asked_STK.shape[2]
            self._ids_STK = np.full((*shape_ST, k), -1, dtype=np.int32)
            self._logprobs_STK = np.full((*shape_ST, k), np.nan)
            self._tail_ST = np.full(shape_ST, np.nan)

    def add(self, sequence_N: np.ndarray, position_N: np.ndarray, logp_NV: Tensor, token_N: Tensor) -> None:
        """Record the rows that belong to (sequence, response position); `logp_NV` may be overwritten afterwards."""
        at = (sequence_N, position_N)
        self._logprob_ST[at] = logp_NV.gather(1, token_N[:, None]).squeeze(1).cpu().numpy()
        if self._evidence.level == "topk":
            self._add_top_k(at, logp_NV, token_N)
        elif self._evidence.level == "full":
            self._add_full(at, logp_NV)

    def _add_full(self, at: tuple[np.ndarray, np.ndarray], logp_NV: Tensor) -> None:
        if self._full_RV is None:
            # It uses memory as it fills. Not torch's, which does not ask the system for huge pages.
            self._full_RV = np.empty((self._full_row_ST.max() + 1, logp_NV.shape[1]), dtype=np.float32)
        row_N = self._full_row_ST[at]
        kept_N = np.flatnonzero(row_N >= 0)
        if len(kept_N) < len(row_N):
            logp_NV = logp_NV[torch.from_numpy(kept_N).to(logp_NV.device)]
        self._full_RV[row_N[kept_N]] = logp_NV.cpu().numpy()
        np.add.at(self._kept_S, at[0][kept_N], 1)

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
            row_T = self._full_row_ST[sequence, :length]
            observed.full_row_R = np.flatnonzero(row_T >= 0)
            kept, asked = self._kept_S[sequence], len(observed.full_row_R)
            if kept != asked:
                raise EngineError(f"{kept} distributions were seen where {asked} were asked")
            if asked and self._full_RV is not None:
                first = row_T[observed.full_row_R[0]]
                observed.full_logprobs_RV = self._full_RV[first : first + asked]
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
