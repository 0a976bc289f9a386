"""Which figures of a log have a trend, what they are called, and in which order they are read."""

from __future__ import annotations

from collections.abc import Iterator

from ...measures.log_results import Trend, Trends

_LABELS = {
    "token": {
        "tv": "TV",
        "tv_of_impurity": "TV / impurity",
        "kl": "KL(μ‖π)",
        "k1": "k1",
        "abs_logprob_diff": "|Δ log p|",
        "ratio": "mean ρ",
    },
    "sequence": {
        "ess_fraction": "ESS / N",
        "log_ratio": "log ρ(y)",
        "tv": "TV of responses",
        "ratio": "mean ρ(y)",
    },
    "run": {
        "reward": "reward",
        "entropy": "entropy",
        "grad_norm": "gradient norm",
        "response_length": "tokens",
        "lag": "lag",
    },
}


def known_trends(trends: Trends | None) -> Iterator[tuple[str, str, Trend]]:
    """Part of `Trends`, label and steps of every figure that has a trend."""
    for part, labels in _LABELS.items() if trends is not None else ():
        for name, label in labels.items():
            trend = getattr(getattr(trends, part), name)
            if trend is not None:
                yield part, label, trend
