"""TV, KL both ways and the ratio from two blocks of logits, in one pass over memory.

Legend: N = states, V = vocabulary.

The figures are those of `divergences`, for blocks that nobody has normalised yet: the log-softmax of both
sides is part of the work, and nothing of size [N, V] or [V] is allocated. `fused.c` does it; without a C
compiler numpy does the same row by row, slower. Tensors on a GPU go to `fused_triton`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mismatchscope.errors import EmptyComparisonError
from mismatchscope.measures import kernel
from mismatchscope.measures.cells import Cells

if TYPE_CHECKING:
    import torch

Array = np.ndarray

# One row of results, in the order of the C struct.
FIELDS = ("tv", "kl", "reverse_kl", "leak", "logsumexp_mu", "logsumexp_pi", "entropy_mu", "entropy_pi")
_RESULT = np.dtype([(name, np.float64) for name in FIELDS])

_NUMPY_THREADS = 4  # each holds about 13 MB at V = 150k


@dataclass(frozen=True, eq=False)
class FusedDivergences:
    """One value per state, [N], float64 in nats."""

    tv: Array
    """Total variation, half the L1 distance, in [0, 1]."""
    kl: Array
    """KL(mu || pi); infinite when an id of mu's support is outside pi's."""
    reverse_kl: Array
    """KL(pi || mu); infinite when an id of pi's support is outside mu's."""
    leak: Array
    """pi's mass outside mu's support: what sampling from mu can never show."""
    logsumexp_mu: Array
    logsumexp_pi: Array
    """The softmax normalisers: a log-probability is a logit less this. Zero for input that is normalised."""
    entropy_mu: Array
    entropy_pi: Array
    log_ratio: Array | None
    """log pi(a) - log mu(a) of the given token ids. NaN where the id has a logit of -inf on both sides. None
    when no ids were given."""


def fused_divergences(
    logits_mu_NV: Array | torch.Tensor,
    logits_pi_NV: Array | torch.Tensor,
    token_id_N: Array | torch.Tensor | None = None,
    *,
    threads: int | None = None,
) -> FusedDivergences:
    """Divergences of behaviour policy mu and reference policy pi at every state, from logits.

    Logits need not be normalised; log-probabilities are a special case. Each side is numpy float32 or a torch
    tensor of float32 or bfloat16, and is read in place: rows may be strided (a slice of a padded vocabulary,
    say), the ids within a row may not. An id of probability zero, by -inf or by the large negative number that
    engines mask with, is outside the support.

    TV is within 1e-6 of the float64 formula. `KL(mu || pi) = leak + sum mu (exp(d) - 1 - d)`, with
    d = log pi - log mu, does not cancel. `threads` defaults to the cores this process may use.

    Raises:
        EmptyComparisonError: there are no states or no ids.
        TypeError: a side is of another type.
        ValueError: the shapes or devices differ, a row's ids are not adjacent in memory, a token id is outside
            the vocabulary, or a row holds NaN, +inf, or nothing but -inf. The row is named.
    """
    if _is_cuda(logits_mu_NV) or _is_cuda(logits_pi_NV):
        from mismatchscope.measures import fused_triton

        return fused_triton.fused_divergences(logits_mu_NV, logits_pi_NV, token_id_N)

    mu = _Block.of(logits_mu_NV, "behaviour")
    pi = _Block.of(logits_pi_NV, "reference")
    if mu.array.shape != pi.array.shape:
        raise ValueError(f"logits of mu are {mu.array.shape}, of pi {pi.array.shape}: the shapes must be the same")
    n_rows, n_ids = mu.array.shape
    if n_rows == 0 or n_ids == 0:
        raise EmptyComparisonError(f"logits of shape {mu.array.shape} hold nothing to compare")
    if threads is None:
        threads = kernel.available_cores()
    elif threads < 1:
        raise ValueError(f"threads is {threads}, must be at least 1")
    token_id = None if token_id_N is None else checked_token_ids(token_id_N, n_rows, n_ids)

    result_N = np.empty(n_rows, _RESULT)
    if kernel.backend() == "c":
        measure = partial(_measure_c, mu, pi, result_N)
    else:
        measure, threads = partial(_measure_numpy, mu, pi, result_N), min(threads, _NUMPY_THREADS)
    kernel.in_pieces(measure, n_rows, threads)
    _raise_for_bad_row(result_N, mu, pi)

    log_ratio_N = None
    if token_id is not None:
        with np.errstate(invalid="ignore"):  # -inf on both sides
            log_ratio_N = (pi.logits_at(token_id) - result_N["logsumexp_pi"]) - (
                mu.logits_at(token_id) - result_N["logsumexp_mu"]
            )
    return FusedDivergences(**{name: result_N[name].copy() for name in FIELDS}, log_ratio=log_ratio_N)


@dataclass(frozen=True, eq=False)
class _Block:
    """One side's logits where they lie: float32, or bfloat16 as the bits that numpy has no type for."""

    array: Array
    is_bfloat16: bool

    @classmethod
    def of(cls, logits_NV: Array | torch.Tensor, side: str) -> _Block:
        torch = sys.modules.get("torch")  # a tensor cannot come from a module that nobody has imported
        is_bfloat16 = False
        if torch is not None and isinstance(logits_NV, torch.Tensor):
            tensor = logits_NV.detach()
            is_bfloat16 = tensor.dtype == torch.bfloat16
            array = tensor.view(torch.uint16).numpy() if is_bfloat16 else tensor.numpy()
        else:
            array = np.asarray(logits_NV)
        if array.dtype != np.float32 and not is_bfloat16:
            raise TypeError(f"{side} logits are {array.dtype}; float32 and bfloat16 can be measured")
        if array.ndim != 2:
            raise ValueError(f"{side} logits have shape {array.shape}, not [states, vocabulary]")
        if array.size and not kernel.has_adjacent_ids(array):
            raise ValueError(f"the ids of a row of {side} logits are not adjacent in memory: make a copy that is")
        return cls(array, is_bfloat16)

    def float32(self, index: int | tuple[Array, Array]) -> Array:
        values = self.array[index]
        return (values.astype(np.uint32) << 16).view(np.float32) if self.is_bfloat16 else values

    def logits_at(self, token_id_N: Array) -> Array:
        return self.float32((np.arange(len(token_id_N)), token_id_N)).astype(np.float64)


def _measure_c(mu: _Block, pi: _Block, result_N: Array, begin: int, end: int) -> None:
    sides = [(*kernel.rows_at(block.array, begin), block.is_bfloat16) for block in (mu, pi)]
    out, _ = kernel.rows_at(result_N, begin)
    kernel.library().fused_divergences(*sides[0], *sides[1], end - begin, mu.array.shape[1], out)


def _measure_numpy(mu: _Block, pi: _Block, result_N: Array, begin: int, end: int) -> None:
    for row in range(begin, end):
        logp_mu_V, logsumexp_mu = _log_softmax(mu.float32(row))
        logp_pi_V, logsumexp_pi = _log_softmax(pi.float32(row))
        if not np.isfinite(logsumexp_mu + logsumexp_pi):
            result_N[row] = (np.nan,) * len(FIELDS)
            continue
        cells = Cells(logp_mu_V[None], logp_pi_V[None])
        result_N[row] = (
            cells.tv()[0],
            cells.kl()[0],
            cells.reverse_kl()[0],
            cells.leak[0],
            logsumexp_mu,
            logsumexp_pi,
            _entropy(logp_mu_V),
            _entropy(logp_pi_V),
        )


def _log_softmax(logits_V: Array) -> tuple[Array, float]:
    top = float(logits_V.max())
    if not np.isfinite(top):
        return logits_V, np.nan
    logsumexp = top + np.log(np.exp(logits_V.astype(np.float64) - top).sum())
    return logits_V - logsumexp, logsumexp


def _entropy(logp_V: Array) -> float:
    p_V = np.exp(logp_V)
    support_V = p_V > 0
    return -np.sum(p_V[support_V] * logp_V[support_V])


def _raise_for_bad_row(result_N: Array, mu: _Block, pi: _Block) -> None:
    bad = np.flatnonzero(np.isnan(result_N["tv"]))
    if len(bad) == 0:
        return
    row = bad[0]
    for block, side in ((mu, "behaviour"), (pi, "reference")):
        logits_V = block.float32(row)
        wrong = np.flatnonzero(np.isnan(logits_V) | np.isposinf(logits_V))
        if len(wrong):
            raise ValueError(f"{side} logits: row {row} holds {logits_V[wrong[0]]} at id {wrong[0]}")
        if np.isneginf(logits_V).all():
            raise ValueError(f"{side} logits: row {row} holds nothing but -inf")
    raise AssertionError(f"row {row} has no divergence although its logits are in order")


def checked_token_ids(token_id_N: Array | torch.Tensor, n_rows: int, n_ids: int) -> Array:
    ids = np.asarray(token_id_N)
    if ids.shape != (n_rows,) or ids.dtype.kind not in "iu":
        raise ValueError(f"token ids are {ids.dtype} {ids.shape}, must be integers, one for each of {n_rows} rows")
    outside = np.flatnonzero((ids < 0) | (ids >= n_ids))
    if len(outside):
        raise ValueError(f"row {outside[0]}: token id {ids[outside[0]]} is outside the vocabulary of {n_ids}")
    return ids


def _is_cuda(logits_NV: Array | torch.Tensor) -> bool:
    return bool(getattr(logits_NV, "is_cuda", False))
