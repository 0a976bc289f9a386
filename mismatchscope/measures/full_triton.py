"""What `full.c` does, for blocks that lie on a GPU, by a Triton kernel: one program a row, no array between.

Legend: N = states, V = vocabulary, B = lanes, one for each id of a step of the kernel's loop, x = logits of mu,
y = logits of pi.

The kernel reads both rows twice. Each lane keeps float32 sums of its own, which are added up in float64 at the end,
and what only ids far apart need is left out of a step without any: benchmarks/results/gpu.md says what that gains.
Its results are tested in Triton's interpreter and, where there is one, on a GPU (`pytest -m gpu`).
"""

from __future__ import annotations

import numpy as np
import torch

from ..errors import MissingDependencyError
from .kernel import FULL_RESULT

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise MissingDependencyError("triton", "torch", "Measuring logits on a GPU") from error

_BLOCK = 1024
_WARPS = 4


def measure(mu_NV: torch.Tensor, pi_NV: torch.Tensor, normalised: bool, log_floor: float) -> np.ndarray:
    """`kernel.FULL_RESULT` [N] of two blocks of float32 or bfloat16 on one GPU, the ids of a row adjacent.

    The softmax is taken either way; with `normalised` the masses tell how far the rows were from it. `mass_mu` is
    NaN for a row that has no divergence. Raises ValueError when the blocks are not on the same GPU.
    """
    if not isinstance(mu_NV, torch.Tensor) or not isinstance(pi_NV, torch.Tensor) or mu_NV.device != pi_NV.device:
        raise ValueError("the behaviour and the reference must be tensors on the same device")
    n_rows, n_ids = mu_NV.shape
    out_NF = torch.empty(n_rows, len(FULL_RESULT.fields or ()), dtype=torch.float64, device=mu_NV.device)
    _divergences[(n_rows,)](
        mu_NV, pi_NV, out_NF, mu_NV.stride(0), pi_NV.stride(0), n_ids, log_floor, BLOCK=_BLOCK, num_warps=_WARPS
    )
    result_N = out_NF.cpu().numpy().view(FULL_RESULT)[:, 0]
    if normalised:
        for side in ("mu", "pi"):
            with np.errstate(over="ignore"):
                result_N[f"mass_{side}"] *= np.exp(result_N[f"logsumexp_{side}"])
            result_N[f"logsumexp_{side}"] = 0.0
    return result_N


@triton.jit
def _add_block(
    x_B: tl.tensor, top_B: tl.tensor, total_B: tl.tensor, weighted_B: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Online softmax of each lane, one x more: the largest, sum exp(x - top) and sum exp(x - top) (x - top)."""
    new_top_B = tl.maximum(top_B, x_B)
    scale_B = tl.exp(top_B - new_top_B)
    e_B = tl.exp(x_B - new_top_B)
    down_B = tl.where(scale_B == 0, 0.0, scale_B * (weighted_B + total_B * (top_B - new_top_B)))
    weighted_B = down_B + tl.where(e_B == 0, 0.0, e_B * (x_B - new_top_B))
    return new_top_B, total_B * scale_B + e_B, weighted_B


@triton.jit
def _joined(top_B: tl.tensor, total_B: tl.tensor, weighted_B: tl.tensor) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """The lanes' softmaxes as one."""
    top = tl.max(top_B, 0)
    scale_B = tl.exp((top_B - top).to(tl.float64))
    weighted_B = tl.where(scale_B == 0, 0.0, scale_B * (weighted_B + total_B * (top_B - top)))
    return top, tl.sum(total_B * scale_B, 0), tl.sum(weighted_B, 0)


@triton.jit
def _divergences(
    mu_ptr: tl.tensor,
    pi_ptr: tl.tensor,
    out_ptr: tl.tensor,
    mu_stride: int,
    pi_stride: int,
    V: int,
    log_floor: float,
    BLOCK: tl.constexpr,
) -> None:
    """The same sums as full.c, which says why they have this form."""
    row = tl.program_id(0).to(tl.int64)
    mu_ptr += row * mu_stride
    pi_ptr += row * pi_stride
    ids_B = tl.arange(0, BLOCK)
    zero = tl.full((), 0.0, tl.float64)
    zero_B = tl.zeros((BLOCK,), tl.float32)

    top_mu_B, total_mu_B, weighted_mu_B = zero_B - 3e38, zero_B, zero_B
    top_pi_B, total_pi_B, weighted_pi_B = zero_B - 3e38, zero_B, zero_B
    for begin in range(0, V, BLOCK):
        inside_B = begin + ids_B < V
        x_B = tl.load(mu_ptr + begin + ids_B, inside_B, other=-float("inf")).to(tl.float32)
        y_B = tl.load(pi_ptr + begin + ids_B, inside_B, other=-float("inf")).to(tl.float32)
        top_mu_B, total_mu_B, weighted_mu_B = _add_block(x_B, top_mu_B, total_mu_B, weighted_mu_B)
        top_pi_B, total_pi_B, weighted_pi_B = _add_block(y_B, top_pi_B, total_pi_B, weighted_pi_B)
    top_mu, total_mu, weighted_mu = _joined(top_mu_B, total_mu_B, weighted_mu_B)
    top_pi, total_pi, weighted_pi = _joined(top_pi_B, total_pi_B, weighted_pi_B)
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

    floor_mu = (logsumexp_mu + log_floor).to(tl.float32)
    floor_pi = (logsumexp_pi + log_floor).to(tl.float32)

    l1_B, kl_B, reverse_kl_B, near_chi2_B, near_js_B = zero_B, zero_B, zero_B, zero_B, zero_B
    chi2, js, leak, reverse_leak, outside_mu, outside_pi = zero, zero, zero, zero, 0, 0
    widest_B, looked_at_B = zero_B - 1, zero_B  # max |d| and the mass of the ids that it looked at
    first_mu_B = tl.full((BLOCK,), 0, tl.int32) + V  # the most probable ids
    first_pi_B = first_mu_B
    for begin in range(0, V, BLOCK):
        inside_B = begin + ids_B < V
        x_B = tl.load(mu_ptr + begin + ids_B, inside_B, other=-float("inf")).to(tl.float32)
        y_B = tl.load(pi_ptr + begin + ids_B, inside_B, other=-float("inf")).to(tl.float32)
        in_mu_B = x_B >= dead_mu
        in_pi_B = y_B >= dead_pi
        m_B = tl.where(in_mu_B, tl.exp(x_B - top_mu) * inverse_mu, 0.0)
        p_B = tl.where(in_pi_B, tl.exp(y_B - top_pi) * inverse_pi, 0.0)
        both_B = in_mu_B & in_pi_B
        d_B = tl.where(both_B, (y_B - off_pi) - (x_B - off_mu) - rest, 0.0)
        size_B = tl.abs(d_B)
        near_B = (size_B < 0.35) & both_B
        curve_B = ((0.0013926919 * d_B + 0.0083637666) * d_B + 0.0416665487) * d_B + 0.1666657329
        curve_B = d_B * d_B * (curve_B * d_B + 0.5)
        gap_B = tl.where(near_B, m_B * (d_B + curve_B), p_B - m_B)
        l1_B += tl.abs(gap_B)
        kl_B += tl.where(near_B, m_B * curve_B, gap_B - m_B * d_B)
        reverse_kl_B += tl.where(near_B, gap_B * d_B - m_B * curve_B, p_B * d_B - gap_B)
        near_chi2_B += tl.where(near_B, gap_B * (d_B + curve_B), 0.0)
        d2_B = d_B * d_B
        near_weight_B = d2_B * ((0.00085135927 * d2_B - 0.0078117259) * d2_B + 0.062499996)
        near_js_B += tl.where(near_B, (m_B + p_B) * near_weight_B, 0.0)

        if tl.min((near_B | (inside_B == 0)).to(tl.int32), 0) == 0:  # of close policies no block, or few
            leak += tl.sum(tl.where(in_mu_B, 0.0, p_B), 0).to(tl.float64)
            reverse_leak += tl.sum(tl.where(in_pi_B, 0.0, m_B), 0).to(tl.float64)
            outside_mu += tl.sum((in_pi_B & (in_mu_B == 0)).to(tl.int32), 0)
            outside_pi += tl.sum((in_mu_B & (in_pi_B == 0)).to(tl.int32), 0)
            # Far apart, mu (exp(d) - 1)^2 can be outside float's range.
            far_B = both_B & (near_B == 0)
            e_B = tl.exp(-size_B)
            shrink_B = 1 - e_B
            logp_B = tl.where(far_B, x_B, 0.0).to(tl.float64) - logsumexp_mu
            square_B = tl.exp(logp_B + tl.where(d_B > 0, 2 * d_B, 0.0).to(tl.float64)) * shrink_B * shrink_B
            chi2 += tl.sum(tl.where(far_B, square_B, 0.0), 0)
            weight_B = 0.34657359 - (tl.log(1 + e_B) + size_B * e_B / (1 + e_B)) / 2
            js += tl.sum(tl.where(far_B, (m_B + p_B) * weight_B, 0.0), 0).to(tl.float64)

        likely_B = inside_B & ((x_B >= floor_mu) | (y_B >= floor_pi))
        reach_B = tl.where(likely_B, tl.where(both_B, size_B, float("inf")), -1.0)
        widest_B = tl.maximum(widest_B, reach_B)
        looked_at_B += tl.where(likely_B, m_B, 0.0)
        first_mu_B = tl.minimum(first_mu_B, tl.where((x_B == top_mu) & inside_B, begin + ids_B, V))
        first_pi_B = tl.minimum(first_pi_B, tl.where((y_B == top_pi) & inside_B, begin + ids_B, V))
    l1, kl = tl.sum(l1_B.to(tl.float64), 0), tl.sum(kl_B.to(tl.float64), 0)
    reverse_kl, looked_at = tl.sum(reverse_kl_B.to(tl.float64), 0), tl.sum(looked_at_B.to(tl.float64), 0)
    chi2 += tl.sum(near_chi2_B.to(tl.float64), 0)
    js += tl.sum(near_js_B.to(tl.float64), 0)
    widest = tl.max(widest_B, 0)
    first_mu, first_pi = tl.min(first_mu_B, 0), tl.min(first_pi_B, 0)

    out_ptr += row * 16  # the order of `kernel.FULL_RESULT`
    legal = (tl.abs(logsumexp_mu) < float("inf")) & (tl.abs(logsumexp_pi) < float("inf"))
    leaks = leak + reverse_leak
    tl.store(out_ptr, tl.where(legal, 1.0, float("nan")))
    tl.store(out_ptr + 1, zero + 1)
    # Where one side is dead, |m - p| is already in l1.
    tl.store(out_ptr + 2, tl.minimum(l1 / 2, 1.0))
    tl.store(out_ptr + 3, tl.where(outside_pi > 0, float("inf"), kl))
    tl.store(out_ptr + 4, tl.where(outside_mu > 0, float("inf"), reverse_kl))
    tl.store(out_ptr + 5, tl.where(outside_mu > 0, float("inf"), chi2 + reverse_leak))
    tl.store(out_ptr + 6, js + 0.34657359027997264 * leaks)
    tl.store(out_ptr + 7, tl.minimum(leak, 1.0))
    tl.store(out_ptr + 8, tl.minimum(reverse_leak, 1.0))
    tl.store(out_ptr + 9, tl.log(total_mu) - weighted_mu / total_mu)
    tl.store(out_ptr + 10, tl.log(total_pi) - weighted_pi / total_pi)
    tl.store(out_ptr + 11, tl.where(widest >= 0, widest, float("nan")))
    tl.store(out_ptr + 12, looked_at)
    tl.store(out_ptr + 13, (first_mu == first_pi).to(tl.float64))
    tl.store(out_ptr + 14, logsumexp_mu)
    tl.store(out_ptr + 15, logsumexp_pi)
