"""What each figure is called and what it means, in one place for every renderer.

Keys are the fields of `TokenMeasures`, `SequenceMeasures` and `Alpha`. Formulas: docs/measures.md.
"""

from __future__ import annotations

from typing import NamedTuple


class Measure(NamedTuple):
    key: str
    label: str
    definition: str


EVIDENCE = {
    "sampled": "Sampled evidence: only the log-probs of the sampled tokens, which bound TV from below",
    "topk": "Top-k evidence: the likeliest tokens of each state, which enclose TV from both sides",
    "full": "Full evidence: whole distributions, TV is exact at every state",
}

POLICY = {
    "raw": "Raw policy: both sides before temperature, top-k and top-p; the numerics alone",
    "processed": "Processed policy: what was really sampled from, against what the trainer scores",
    "support": "Support policy: π renormalised on the tokens that μ could sample",
}

ALPHA = {
    "alpha1": ("α₁", "max TV(μ, π_old): what samples against what trains"),
    "alpha0": ("α₀", "max TV(π_old, π_θ): before the update against after it"),
    "beta": ("β", "max TV(μ, π_θ): the whole distance, at most α₀ + α₁"),
}

BOUNDS = ("bounds", "on the cost of μ ≠ π, |reward| ≤ 1 (half for [0, 1]); no certificate of performance")

# In the order in which they are read. The first block is exact or certified, the second estimated from the
# sampled tokens, the third what trainers already log.
TOKEN = (
    Measure("tv", "TV", "½ Σ|μ − π| of one state, in [0, 1]: the largest difference in any event's probability."),
    Measure("tv_lower", "TV, lower end", "The certified least TV of a state, from the tokens that were observed."),
    Measure("tv_upper", "TV, upper end", "The certified largest TV of a state: all unobserved mass may disagree."),
    Measure("binary_tv", "TV, sampled token", "|μ(a) − π(a)| of the sampled token: a lower bound of TV."),
    Measure("kl", "KL(μ‖π)", "Nats lost per token when π stands in for μ."),
    Measure("kl_lower", "KL(μ‖π) ≥", "A certified lower bound: KL of the observed tokens and the rest as one."),
    Measure("reverse_kl", "KL(π‖μ)", "Infinite where π puts mass on tokens that μ excludes."),
    Measure("reverse_kl_lower", "KL(π‖μ) ≥", "A certified lower bound, likewise."),
    Measure("js", "JS", "Jensen–Shannon divergence, symmetric and at most ln 2 nats."),
    Measure("js_lower", "JS ≥", "A certified lower bound, likewise."),
    Measure("chi2", "χ²(π‖μ)", "Σ π²/μ − 1: the variance that importance weights have at this state."),
    Measure("leak", "support leak", "The mass π puts on tokens that μ can never sample."),
    Measure("max_abs_dlogp", "max |Δ log p|", "Largest difference of log-probs at a state."),
    Measure("top1_agreement", "top-1 agreement", "Share of states whose likeliest token is the same."),
    Measure("entropy_behavior", "entropy of μ", "In nats. Mismatch concentrates where it is high."),
    Measure("entropy_reference", "entropy of π", "In nats."),
    Measure("ratio", "ratio ρ", "π(a)/μ(a) of the sampled token. Its mean is 1 when both describe the same thing."),
    Measure("shortfall", "(1 − ρ)₊", "Unbiased for the mean TV, bounded in [0, 1], from sampled tokens alone."),
    Measure("k1", "k1", "−log ρ: unbiased for KL(μ‖π), and noisy."),
    Measure("k2", "k2", "(log ρ)²/2: biased for KL, low variance."),
    Measure("k3", "k3", "ρ − 1 − log ρ: never negative; unbiased for KL(μ‖π) less the leak."),
    Measure("abs_logprob_diff", "|Δ log p|", "Of the sampled token. Logged by many trainers; no divergence."),
    Measure("prob_diff", "Δ p", "π(a) − μ(a), signed, of the sampled token. Logged by many trainers."),
    Measure("exp_abs_diff", "exp |Δ log p|", "Logged by some trainers; large where either side is unlikely."),
)

SEQUENCE = (
    Measure("tv", "TV of responses", "E (1 − ρ(y))₊ over whole responses y: unbiased for the sequence TV."),
    Measure("tv_bound", "Σ TV, bounds it", "Sum of the token TVs of a response: never less than the sequence TV."),
    Measure("kl", "KL of responses", "KL(μ‖π) summed over a response: it adds up with length."),
    Measure("k1", "Σ k1", "−log ρ(y): estimates the KL of responses with more noise, and can be negative."),
    Measure("log_ratio", "log ρ(y)", "Sum of the token log ratios: the log of a response's importance weight."),
    Measure("ratio", "ρ(y)", "The importance weight of a whole response, before any clamp."),
    Measure("geometric_ratio", "ρ(y)^(1/T)", "Length-normalised weight, as GSPO uses it."),
    Measure("max_tv", "largest TV", "The largest token TV of each response."),
)

SCALARS = (
    Measure("prob_correlation", "correlation of p", "Pearson correlation of the sampled tokens' probabilities."),
    Measure("ratio_outside_band", "ρ outside band", "Share of tokens whose ratio leaves 0.8 – 1.2."),
    Measure(
        "ess_fraction", "ESS / N", "Effective share of the responses under their weights, unclamped; 1 is best."
    ),
    Measure("chi2", "χ² of responses", "Variance of the responses' importance weights."),
    Measure(
        "pareto_k", "Pareto k", "Tail index of the weights; above its limit neither ESS nor χ² can be trusted."
    ),
)

MEAN_WEIGHT = Measure(
    "ratio", "mean ρ(y)", "Mean weight of the responses: far below 1, ESS and χ² make a mismatch look mild."
)
UNTRUSTED = Measure("weights_reason", "ESS and χ² say nothing:", "Why neither may be concluded from.")

# What an engineer needs at first sight; the rest is one flag or one fold away.
SHORT_TOKEN = ("tv", "tv_lower", "tv_upper", "binary_tv", "kl", "k3", "ratio", "abs_logprob_diff")
SHORT_SEQUENCE = ("tv", "tv_bound", "kl", "log_ratio")
# Figures that say the same, or less, where the first is there.
SUPERSEDED = {"tv_lower": ("binary_tv",), "kl": ("k3",)}
EXACT = ("tv_lower", "tv_upper", "binary_tv", "k3")
