"""A mask that has dropped what differs most is named; one that drops something else is not.

Shapes: S responses, T tokens.
"""

from __future__ import annotations

import numpy as np
import pytest
from log_rows import log_batch

from mismatchscope.analysis.distribution.selection import selection_check
from mismatchscope.analysis.settings import AnalysisSettings
from mismatchscope.analysis.statistics import LogStatistics
from mismatchscope.measures.log_results import DistributionCheck


def columns(seed: int, responses: int = 200, tokens: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mu_ST = -rng.exponential(1.0, (responses, tokens)) - 0.02
    noise_ST = rng.normal(0, 0.05, mu_ST.shape) * np.exp(rng.normal(0, 0.5, (responses, 1)))
    return mu_ST, np.minimum(mu_ST + noise_ST, -1e-3)


def checked(
    mask_ST: np.ndarray, mu_ST: np.ndarray, pi_ST: np.ndarray, stated: str | None = None
) -> DistributionCheck:
    statistics = LogStatistics(AnalysisSettings())
    statistics.add(
        log_batch(
            mask=list(mask_ST),
            behavior_logprobs=list(mu_ST),
            reference_logprobs=list(pi_ST),
            prompt=list(range(200)),
        )
    )
    return selection_check(statistics.distribution.sample.examined(), statistics.rejected.dropped, stated)


def test_responses_dropped_for_their_distance() -> None:
    mu_ST, pi_ST = columns(1)
    mean_S = np.abs(pi_ST - mu_ST).mean(axis=1)
    kept_S = mean_S < np.quantile(mean_S, 0.95)
    check = checked(np.broadcast_to(kept_S[:, None], mu_ST.shape), mu_ST, pi_ST)
    assert (check.status, check.count) == ("fail", 10)
    assert "Figures are of what is left" in check.sentence
    assert "--mask all" in (check.fix or "")


def test_tokens_dropped_for_their_ratio() -> None:
    mu_ST, pi_ST = columns(2)
    distance_ST = np.abs(pi_ST - mu_ST)
    check = checked(distance_ST < np.quantile(distance_ST, 0.98), mu_ST, pi_ST)
    assert check.status == "fail"
    assert check.evidence["tokens_above"] > 0.95


def test_responses_dropped_for_something_else() -> None:
    mu_ST, pi_ST = columns(3)
    kept_S = np.arange(200) % 10 != 0
    check = checked(np.broadcast_to(kept_S[:, None], mu_ST.shape), mu_ST, pi_ST)
    assert check.status == "pass"
    assert checked(np.broadcast_to(kept_S[:, None], mu_ST.shape), mu_ST, pi_ST, "a filter").status == "unknown"


def test_tokens_that_nobody_scored_say_nothing() -> None:
    mu_ST, pi_ST = columns(4)
    mask_ST = np.arange(40) % 4 != 0
    mask_ST = np.broadcast_to(mask_ST, mu_ST.shape)
    check = checked(mask_ST, np.where(mask_ST, mu_ST, 0.0), pi_ST, "sample_loss_mask")
    assert check.status == "unknown"
    assert check.sentence.endswith("In this format: sample_loss_mask.")


@pytest.mark.parametrize("kind", ["identical", "far apart", "fillers of μ", "fillers of π", "at the end"])
def test_tool_output_that_differs_most_is_no_selection(kind: str) -> None:
    mu_ST, pi_ST = columns(5)
    mask_ST = np.broadcast_to(np.arange(40) % 16 < 11, mu_ST.shape)
    if kind == "identical":
        pi_ST = np.where(mask_ST, mu_ST, pi_ST)
    if kind == "far apart":
        pi_ST = np.where(mask_ST, pi_ST, mu_ST - 3)
    if kind == "fillers of μ":
        mu_ST = np.where(mask_ST, mu_ST, -100.0)
    if kind == "fillers of π":
        pi_ST = np.where(mask_ST, pi_ST, -1e-8)
    if kind == "at the end":
        mask_ST = np.broadcast_to(np.arange(40) < 39, mu_ST.shape)
        pi_ST = np.where(mask_ST, pi_ST, mu_ST - 3)
    check = checked(mask_ST, mu_ST, pi_ST)
    assert check.status == ("unknown" if kind.startswith("fillers") else "pass")


def test_nearly_identical_tokens_are_not_selected() -> None:
    mu_ST, _ = columns(6)
    mask_ST = np.random.default_rng(6).random(mu_ST.shape) > 0.05
    check = checked(mask_ST, mu_ST, np.where(mask_ST, mu_ST, mu_ST - 1e-4))
    assert check.status == "pass"
