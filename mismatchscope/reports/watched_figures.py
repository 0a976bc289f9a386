"""The figures that somebody watches while a run goes on: by their paths, with their meaning."""

from __future__ import annotations

from typing import Final

WATCHED: Final = {
    "counts.tokens": "Tokens that count.",
    "counts.sequences": "Responses that count.",
    "counts.prompts": "Prompts that they answer.",
    "counts.rejected": "Tokens that are in no figure for want of a legal log-prob.",
    "counts.rejected_responses": "Responses that are in no figure.",
    "token.tv": "Mean total variation of the two policies over sampled states.",
    "token.kl": "Mean KL of the sampler from the trainer over sampled states, in nats.",
    "token.abs_logprob_diff": "Mean absolute difference of the log-probs.",
    "token.ratio": "Mean ratio of the trainer's to the sampler's probability.",
    "alpha1.observed_max": "The largest total variation that a visited state shows.",
    "sequence.log_ratio": "Mean log-ratio of whole responses.",
    "sequence.ess_fraction": "Effective sample size of the responses' ratios, as a fraction.",
}
"""Of the whole log, and stable: a dashboard is built on them."""
