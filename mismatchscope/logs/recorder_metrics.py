"""The metrics that a recorder returns for each batch: one flat dictionary for wandb or TensorBoard.

Shapes: B responses of a batch, N its tokens that count. Every figure is of one batch of one rank, before any
clipping or rejection: a point estimate without an interval, which a run's logs are analysed for.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ..measures.sampled import LOG_TOLERANCE, sampled_estimators, shortfall

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
    chosen_R = np.ones(len(logp_mu_R), dtype=bool) if mask_R is None else mask_R
    legal_R = (logp_mu_R <= LOG_TOLERANCE) & (logp_pi_R <= LOG_TOLERANCE) & ~np.isneginf(logp_mu_R)
    counts_R = chosen_R & legal_R
    found: dict[str, float] = {
        "tokens": int(counts_R.sum()),
        "responses": len(length_B),
        "rejected_tokens": int((chosen_R & ~legal_R).sum()),
    }
    if found["tokens"]:
        estimators = sampled_estimators(logp_mu_R[counts_R], logp_pi_R[counts_R])
        found |= {
            "token/tv": estimators.shortfall.mean(),
            "token/kl_k1": estimators.k1.mean(),
            "token/kl_k3": estimators.k3.mean(),
            "token/abs_logprob_diff": estimators.abs_logprob_diff.mean(),
            "token/abs_logprob_diff_max": estimators.abs_logprob_diff.max(),
            "token/prob_diff": estimators.binary_tv.mean(),
            "token/prob_diff_max": estimators.binary_tv.max(),
            "token/ratio": estimators.ratio.mean(),
            "token/ratio_max": estimators.ratio.max(),
        }
        response_R = np.repeat(np.arange(len(length_B)), length_B)
        found |= _of_responses(response_R, counts_R, chosen_R & ~legal_R, estimators.log_ratio)
    if logp_theta_R is not None:
        moved_R = np.abs(logp_theta_R.astype(np.float64) - logp_pi_R)[counts_R]
        found |= {"update/abs_logprob_diff": moved_R[~np.isnan(moved_R)].mean()} if (moved_R >= 0).any() else {}
    if lag_R is not None:
        known = lag_R[chosen_R & ~np.isnan(lag_R)]
        found |= {"lag/mean": known.mean(), "lag/max": known.max()} if len(known) else {}
    return {f"{PREFIX}{name}": float(value) for name, value in found.items()}


def _of_responses(
    response_R: np.ndarray, counts_R: np.ndarray, rejected_R: np.ndarray, log_ratio_N: np.ndarray
) -> dict[str, float]:
    """Figures of whole responses: those with a token that counts and none that was rejected."""
    count = int(response_R[-1]) + 1
    length_B = np.bincount(response_R[counts_R], minlength=count)
    whole_B = (length_B > 0) & (np.bincount(response_R[rejected_R], minlength=count) == 0)
    log_ratio_W = np.bincount(response_R[counts_R], weights=log_ratio_N, minlength=count)[whole_B]
    if not len(log_ratio_W):
        return {}
    with np.errstate(over="ignore"):
        ratio_W = np.exp(log_ratio_W)
    found = {
        "sequence/log_ratio": log_ratio_W.mean(),
        "sequence/log_ratio_std": log_ratio_W.std(),
        "sequence/ratio": ratio_W.mean(),
        "sequence/tv": shortfall(log_ratio_W).mean(),
    }
    largest = log_ratio_W.max()
    if np.isfinite(largest):  # scaled by the largest weight, so that none overflows; −inf in all has no ESS
        weight_W = np.exp(log_ratio_W - largest)
        found["sequence/ess_fraction"] = weight_W.sum() ** 2 / (len(weight_W) * (weight_W**2).sum())
    return found
