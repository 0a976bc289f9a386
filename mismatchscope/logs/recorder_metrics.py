"""The metrics that a recorder returns for each batch: one flat dictionary for wandb or TensorBoard.

Every figure is of one batch of one rank, before any clipping or rejection: a point estimate without an interval,
which a run's logs are analysed for.

Shapes: B responses of a batch, R their recorded tokens, W of the responses those that are whole.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ..measures.sampled import shortfall
from ..measures.token_sums import token_sums

PREFIX: Final = "mismatchscope/"

METRICS: Final = {
    "tokens": "tokens that count: the mask keeps them and both log-probs are legal",
    "responses": "responses that were recorded",
    "rejected_tokens": "tokens that the mask keeps and that have a NaN, a positive or, for μ, a −inf log-prob",
    "token/tv": "mean of (1 − ρ)₊ over tokens: estimates the mean TV(μ, π_old) of the visited states",
    "token/kl_k1": "mean of −d, d = log π_old − log μ: unbiased for KL(μ‖π_old), and may be negative",
    "token/kl_k3": "mean of ρ − 1 − d: estimates the same KL less the leak, never negative",
    "token/abs_logprob_diff": "mean of |d|",
    "token/abs_logprob_diff_max": "largest |d|",
    "token/prob_diff": "mean of |π_old(a) − μ(a)|",
    "token/prob_diff_max": "largest |π_old(a) − μ(a)|: a lower bound of the largest TV of a visited state",
    "token/ratio": "mean of ρ = π_old / μ, not clipped: 1 less the leak where the tokens are μ's own",
    "token/ratio_max": "largest ρ, not clipped",
    "sequence/log_ratio": "mean over responses of log ρ(y) = Σ d",
    "sequence/log_ratio_std": "its standard deviation over responses",
    "sequence/ratio": "mean of ρ(y)",
    "sequence/tv": "mean of (1 − ρ(y))₊: estimates the TV of whole responses",
    "sequence/ess_fraction": "(Σ ρ(y))² / (B Σ ρ(y)²), before any clamp, B the whole responses of the batch",
    "update/abs_logprob_diff": "mean of |log π_θ − log π_old|, where π_θ was given",
    "lag/mean": "mean over tokens of trainer_version − version, where both were given",
    "lag/max": "largest such lag",
}
"""Name without the prefix -> definition. A metric is left out where the batch has nothing to compute it from."""


def batch_metrics(
    length_B: np.ndarray,
    mask_R: np.ndarray | None,
    logp_mu_R: np.ndarray,
    logp_pi_R: np.ndarray,
    logp_theta_R: np.ndarray | None = None,
    lag_R: np.ndarray | None = None,
) -> dict[str, float]:
    """The metrics of a batch, under their full names.

    Args:
        length_B: how many of the R recorded tokens each response has, in order.
        mask_R: which tokens the trainer counts; None where it counts all.
        logp_mu_R, logp_pi_R, logp_theta_R: log-probs under μ, π_old and π_θ, in nats.
        lag_R: versions between sampling and training, of each token; NaN where it is not known.
    """
    sums = token_sums(logp_mu_R, logp_pi_R, np.append(0, np.cumsum(length_B)), counts_N=mask_R)
    tokens = sums.tokens.sum()
    found: dict[str, float] = {
        "tokens": tokens,
        "responses": len(length_B),
        "rejected_tokens": sums.rejected.sum(),
    }
    if tokens:
        found |= {
            "token/tv": sums.shortfall.sum() / tokens,
            "token/kl_k1": -sums.log_ratio.sum() / tokens,
            "token/kl_k3": sums.k3.sum() / tokens,
            "token/abs_logprob_diff": sums.abs_logprob_diff.sum() / tokens,
            "token/abs_logprob_diff_max": sums.largest_abs_logprob_diff.max(),
            "token/prob_diff": sums.abs_prob_diff.sum() / tokens,
            "token/prob_diff_max": sums.largest_abs_prob_diff.max(),
            "token/ratio": sums.ratio.sum() / tokens,
            "token/ratio_max": sums.largest_ratio.max(),
        }
        found |= _of_responses(sums.log_ratio[(sums.tokens > 0) & (sums.rejected == 0)])
    if logp_theta_R is not None:
        moved_R = np.abs(logp_theta_R - logp_pi_R)
        known_R = ~np.isnan(moved_R) if mask_R is None else mask_R & ~np.isnan(moved_R)
        found |= {"update/abs_logprob_diff": moved_R[known_R].mean(dtype=np.float64)} if known_R.any() else {}
    if lag_R is not None:
        known_R = ~np.isnan(lag_R) if mask_R is None else mask_R & ~np.isnan(lag_R)
        found |= {"lag/mean": lag_R[known_R].mean(), "lag/max": lag_R[known_R].max()} if known_R.any() else {}
    return {f"{PREFIX}{name}": float(value) for name, value in found.items()}


def _of_responses(log_ratio_W: np.ndarray) -> dict[str, float]:
    """Figures of whole responses: those with a token that counts and none that was rejected."""
    if not len(log_ratio_W):
        return {}
    with np.errstate(over="ignore"):
        ratio_W = np.exp(log_ratio_W)
    found = {
        "sequence/log_ratio": log_ratio_W.mean(),
        "sequence/ratio": ratio_W.mean(),
        "sequence/tv": shortfall(log_ratio_W).mean(),
    }
    largest = log_ratio_W.max()
    if np.isfinite(log_ratio_W).all():
        found["sequence/log_ratio_std"] = log_ratio_W.std()
    if np.isfinite(largest):  # scaled by the largest weight, so that none overflows; −inf in all has no ESS
        weight_W = np.exp(log_ratio_W - largest)
        found["sequence/ess_fraction"] = weight_W.sum() ** 2 / (len(weight_W) * (weight_W**2).sum())
    return found
