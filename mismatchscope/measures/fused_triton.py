"""The figures of `fused` for logits that lie on a GPU, by a Triton kernel: one program a row, no array between.

Legend: N = states, V = vocabulary, B = ids of one step of the kernel's loop, x = logits of mu, y = logits of pi.

Not known here: how fast it is. The kernel reads both rows twice; its results are tested in Triton's
interpreter and, where there is one, on a GPU (`pytest -m gpu`), and it has not been tuned.
"""

from __future__ import annotations

import numpy as np
import torch

from mismatchscope.errors import EmptyComparisonError, MissingDependencyError
from mismatchscope.measures.fused import FIELDS, FusedDivergences, checked_token_ids

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise MissingDependencyError("triton", "torch", "Measuring logits on a GPU") from error

_BLOCK = 4096
_WARPS = 8


@triton.jit
def _add_block(x_B, top, total, weighted):
    """Online softmax: the largest so far, sum exp(x - top) and sum exp(x - top) (x - top), with one more block."""
    new_top = tl.maximum(top, tl.max(x_B, 0))
    scale = tl.exp((top - new_top).to(tl.float64))
    e_B = tl.exp(x_B - new_top)
    weighted_B = tl.where(e_B == 0, 0.0, e_B * (x_B - new_top))
    weighted = (weighted + total * (top - new_top)) * scale + tl.sum(weighted_B, 0).to(tl.float64)
    total = total * scale + tl.sum(e_B, 0).to(tl.float64)
    return new_top, total, weighted


@triton.jit
def _divergences(mu_ptr, pi_ptr, out_ptr, mu_stride, pi_stride, V, BLOCK: tl.constexpr):
    """The same sums as `row_divergences` in fused.c, which says why they have this form."""
    row = tl.program_id(0).to(tl.int64)
    mu_ptr += row * mu_stride
    pi_ptr += row * pi_stride
    ids_B = tl.arange(0, BLOCK)
    zero = tl.full((), 0.0, tl.float64)

    top_mu, total_mu, weighted_mu = tl.full((), -3e38, tl.float32), zero, zero
    top_pi, total_pi, weighted_pi = tl.full((), -3e38, tl.float32), zero, zero
    for begin in range(0, V, BLOCK):
        inside_B = begin + ids_B < V
        x_B = tl.load(mu_ptr + begin + ids_B, inside_B, other=-float("inf")).to(tl.float32)
        y_B = tl.load(pi_ptr + begin + ids_B, inside_B, other=-float("inf")).to(tl.float32)
        top_mu, total_mu, weighted_mu = _add_block(x_B, top_mu, total_mu, weighted_mu)
        top_pi, total_pi, weighted_pi = _add_block(y_B, top_pi, total_pi, weighted_pi)
    logsumexp_mu = top_mu + tl.log(total_mu)
    logsumexp_pi = top_pi + tl.log(total_pi)

    whole = tl.floor(logsumexp_pi - logsumexp_mu + 0.5)
    mu_is_larger = tl.abs(logsumexp_mu) > tl.abs(logsumexp_pi)
    off_mu = tl.where(mu_is_larger, -whole, 0.0).to(tl.float32)
    off_pi = tl.where(mu_is_larger, 0.0, whole).to(tl.float32)
    rest = ((logsumexp_pi - off_pi) - (logsumexp_mu - off_mu)).to(tl.float32)
    dead_mu = (logsumexp_mu - 745.13).to(tl.float32)
    dead_pi = (logsumexp_pi - 745.13).to(tl.float32)
    inverse_mu = (1 / total_mu).to(tl.float32)
    inverse_pi = (1 / total_pi).to(tl.float32)

    l1, kl, reverse_kl, leak, outside_mu, outside_pi = zero, zero, zero, zero, 0, 0
    for begin in range(0, V, BLOCK):
        inside_B = begin + ids_B < V
        x_B = tl.load(mu_ptr + begin + ids_B, inside_B, other=-float("inf")).to(tl.float32)
        y_B = tl.load(pi_ptr + begin + ids_B, inside_B, other=-float("inf")).to(tl.float32)
        in_mu_B = x_B >= dead_mu
        in_pi_B = y_B >= dead_pi
        m_B = tl.where(in_mu_B, tl.exp(x_B - top_mu) * inverse_mu, 0.0)
        p_B = tl.where(in_pi_B, tl.exp(y_B - top_pi) * inverse_pi, 0.0)
        d_B = tl.where(in_mu_B & in_pi_B, (y_B - off_pi) - (x_B - off_mu) - rest, 0.0)
        near_B = (tl.abs(d_B) < 0.35) & in_mu_B & in_pi_B
        curve_B = ((0.0013926919 * d_B + 0.0083637666) * d_B + 0.0416665487) * d_B + 0.1666657329
        curve_B = d_B * d_B * (curve_B * d_B + 0.5)
        gap_B = tl.where(near_B, m_B * (d_B + curve_B), p_B - m_B)
        l1 += tl.sum(tl.abs(gap_B), 0).to(tl.float64)
        kl += tl.sum(tl.where(near_B, m_B * curve_B, gap_B - m_B * d_B), 0).to(tl.float64)
        reverse_B = tl.where(near_B, gap_B * d_B - m_B * curve_B, p_B * d_B - gap_B)
        reverse_kl += tl.sum(reverse_B, 0).to(tl.float64)
        leak += tl.sum(tl.where(in_mu_B, 0.0, p_B), 0).to(tl.float64)
        outside_mu += tl.sum((in_pi_B & (in_mu_B == 0)).to(tl.int32), 0)
        outside_pi += tl.sum((in_mu_B & (in_pi_B == 0)).to(tl.int32), 0)

    out_ptr += row * 8  # the order of `fused.FIELDS`
    has_divergence = (tl.abs(logsumexp_mu) < float("inf")) & (tl.abs(logsumexp_pi) < float("inf"))
    tl.store(out_ptr, tl.where(has_divergence, tl.minimum(l1 / 2, 1.0), float("nan")))
    tl.store(out_ptr + 1, tl.where(outside_pi > 0, float("inf"), kl))
    tl.store(out_ptr + 2, tl.where(outside_mu > 0, float("inf"), reverse_kl))
    tl.store(out_ptr + 3, tl.minimum(leak, 1.0))
    tl.store(out_ptr + 4, logsumexp_mu)
    tl.store(out_ptr + 5, logsumexp_pi)
    tl.store(out_ptr + 6, tl.log(total_mu) - weighted_mu / total_mu)
    tl.store(out_ptr + 7, tl.log(total_pi) - weighted_pi / total_pi)


def fused_divergences(
    logits_mu_NV: torch.Tensor,
    logits_pi_NV: torch.Tensor,
    token_id_N: np.ndarray | torch.Tensor | None = None,
) -> FusedDivergences:
    """`fused.fused_divergences` for two tensors on one GPU; only the results leave it.

    Raises the errors that it raises, and MissingDependencyError at import without Triton.
    """
    for logits_NV in (logits_mu_NV, logits_pi_NV):
        if not isinstance(logits_NV, torch.Tensor) or logits_NV.device != logits_mu_NV.device:
            raise ValueError("logits of mu and pi must be tensors on the same device")
        if logits_NV.dtype not in (torch.float32, torch.bfloat16):
            raise TypeError(f"logits are {logits_NV.dtype}; float32 and bfloat16 can be measured")
        if logits_NV.ndim != 2 or logits_NV.shape != logits_mu_NV.shape:
            raise ValueError("logits of mu and pi must be [states, vocabulary] of the same shape")
        if logits_NV.numel() == 0:
            raise EmptyComparisonError(f"logits of shape {tuple(logits_NV.shape)} hold nothing to compare")
        if logits_NV.stride(1) != 1:
            raise ValueError("the ids of a row of logits are not adjacent in memory: call .contiguous()")

    n_rows, n_ids = logits_mu_NV.shape
    token_id = None
    if token_id_N is not None:
        on_host = token_id_N.cpu() if isinstance(token_id_N, torch.Tensor) else token_id_N
        token_id = torch.as_tensor(checked_token_ids(on_host, n_rows, n_ids)).to(logits_mu_NV.device)

    mu_NV, pi_NV = logits_mu_NV.detach(), logits_pi_NV.detach()
    out_NF = torch.empty(n_rows, len(FIELDS), dtype=torch.float64, device=mu_NV.device)
    _divergences[(n_rows,)](
        mu_NV, pi_NV, out_NF, mu_NV.stride(0), pi_NV.stride(0), n_ids, BLOCK=_BLOCK, num_warps=_WARPS
    )
    values = dict(zip(FIELDS, out_NF.cpu().numpy().T.copy(), strict=True))
    bad = np.flatnonzero(np.isnan(values["tv"]))
    if len(bad):
        raise ValueError(f"logits: row {bad[0]} holds NaN, +inf, or nothing but -inf")

    log_ratio_N = None
    if token_id is not None:
        chosen_pi_N, chosen_mu_N = (
            logits_NV.gather(1, token_id[:, None].long())[:, 0].double().cpu().numpy()
            for logits_NV in (pi_NV, mu_NV)
        )
        with np.errstate(invalid="ignore"):  # -inf on both sides
            log_ratio_N = (chosen_pi_N - values["logsumexp_pi"]) - (chosen_mu_N - values["logsumexp_mu"])
    return FusedDivergences(**values, log_ratio=log_ratio_N)
