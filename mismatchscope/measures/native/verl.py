"""verl: `training/*` of its debug metrics, `rollout_corr/*` of its rollout correction at the default threshold 2.

Its means are over all tokens of the batch. It adds 1e-8 to every count that it divides by.
"""

from __future__ import annotations

import math

from .batch_sums import BatchSums, Definition, spread
from .verl_means import by_response, largest, mean, smallest
from .verl_weights import WEIGHTS


def _correlation(sums: BatchSums) -> float:
    n = sums.total["tokens"]
    mu, pi = sums.total["p_mu"] / n, sums.total["p_pi"] / n
    covariance = sums.total["p_mu_p_pi"] / n - mu * pi
    variances = (sums.total["square_p_mu"] / n - mu * mu) * (sums.total["square_p_pi"] / n - pi * pi)
    return covariance / math.sqrt(variances) if variances > 0 else math.nan


_PROBABILITIES = (
    Definition(
        "training/rollout_probs_diff_mean",
        "mean over tokens of |p_π − p_μ|",
        "E|Δp| of sampled tokens: a lower bound of the mean TV",
        lambda sums: sums.mean("abs_prob_diff"),
    ),
    Definition(
        "training/rollout_probs_diff_max",
        "largest |p_π − p_μ| of the batch's tokens",
        "a lower bound of α₁",
        largest("abs_prob_diff"),
    ),
    Definition(
        "training/rollout_probs_diff_std",
        "standard deviation over tokens of |p_π − p_μ|",
        "no divergence",
        lambda sums: spread(sums, "abs_prob_diff", "square_prob_diff"),
    ),
    Definition(
        "training/rollout_actor_probs_pearson_corr",
        "Pearson correlation over tokens of p_π and p_μ",
        "no divergence: it moves with how spread the probabilities are",
        _correlation,
    ),
)

_OFF_POLICY = (
    Definition(
        "rollout_corr/kl",
        "mean over tokens of log μ − log π",
        "k1: unbiased for KL(μ‖π)",
        lambda s: -mean("log_ratio")(s),
    ),
    Definition("rollout_corr/k3_kl", "mean over tokens of ρ − 1 − log ρ", "k3: KL(μ‖π) less leak", mean("k3")),
    Definition(
        "rollout_corr/chi2_token",
        "mean over tokens of ρ², log ρ clamped to ±20, less 1",
        "χ²(π‖μ) of tokens, as far as the sample has its tail",
        mean("square_safe_ratio", less=1.0),
    ),
    Definition(
        "rollout_corr/chi2_seq",
        "mean over responses of ρ(y)², log ρ(y) clamped to ±20, less 1",
        "χ² of responses; one response can be all of it",
        by_response("square_sequence_ratio", less=1.0),
    ),
    Definition(
        "rollout_corr/training_ppl",
        "mean over responses of exp(−mean log π)",
        "no divergence: the trainer's perplexity on μ's tokens",
        by_response("perplexity_pi"),
    ),
    Definition(
        "rollout_corr/rollout_ppl",
        "mean over responses of exp(−mean log μ)",
        "no divergence: the sampler's perplexity",
        by_response("perplexity_mu"),
    ),
    Definition(
        "rollout_corr/training_log_ppl",
        "mean over responses of −mean log π",
        "cross-entropy of μ against π, each response weighing the same",
        lambda sums: -sums.response_mean("mean_log_p_pi"),
    ),
    Definition(
        "rollout_corr/rollout_log_ppl",
        "mean over responses of −mean log μ",
        "μ's entropy a token, each response weighing the same",
        lambda sums: -sums.response_mean("mean_log_p_mu"),
    ),
    Definition(
        "rollout_corr/log_ppl_diff",
        "mean over responses of mean log μ − mean log π",
        "k1 a token, each response weighing the same",
        by_response("mean_k1"),
    ),
    Definition(
        "rollout_corr/log_ppl_abs_diff",
        "mean over responses of |mean log μ − mean log π|",
        "no divergence: E|log of the geometric ratio|",
        by_response("abs_mean_k1"),
    ),
    Definition(
        "rollout_corr/log_ppl_diff_max", "largest mean log μ − mean log π", "an extreme", largest("mean_k1")
    ),
    Definition(
        "rollout_corr/log_ppl_diff_min", "smallest mean log μ − mean log π", "an extreme", smallest("mean_k1")
    ),
    Definition(
        "rollout_corr/ppl_ratio",
        "mean over responses of exp(mean log μ − mean log π)",
        "no divergence: E of the inverse geometric ratio",
        by_response("perplexity_ratio"),
    ),
)

METRICS = (*_PROBABILITIES, *_OFF_POLICY, *WEIGHTS)
