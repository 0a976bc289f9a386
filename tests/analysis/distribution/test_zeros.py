"""Exact zeros: those that nobody scored are told from those of certain tokens, or it is said that they cannot be.

benchmarks/results/calibration_distribution.md has the rates over many more logs.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from log_rows import log_batch
from scipy.special import logsumexp

from mismatchscope.analysis.distribution.zeros import zero_checks
from mismatchscope.analysis.settings import AnalysisSettings
from mismatchscope.analysis.statistics import LogStatistics
from mismatchscope.measures.log_results import DistributionCheck

sys.path.append(str(Path(__file__).resolve().parents[3] / "benchmarks"))

from calibration_distribution import checks_of, simulate
from distribution_designs import Columns, Size, greedy_zeros, sound, surer
from distribution_faults import filled, padded, truncated


def zeros_of(columns: Columns) -> tuple[DistributionCheck, DistributionCheck]:
    checks = {check.code: check for check in checks_of(columns)}
    return checks["padding"], checks["zeros"]


@pytest.fixture(scope="module")
def responses() -> Columns:
    return sound(np.random.default_rng(1), Size(200))


@pytest.mark.parametrize("side", ["mu_R", "pi_R"])
def test_zeros_that_nobody_scored_are_seen(responses: Columns, side: str) -> None:
    padding, zeros = zeros_of(filled(responses, side, 0.0, 0.01))
    assert (padding.status, zeros.status) == ("pass", "fail")
    assert "Values that were filled in look like this" in zeros.sentence and zeros.fix


def test_padding_is_seen_and_its_share_said(responses: Columns) -> None:
    columns = padded(responses, 0)
    padding, zeros = zeros_of(columns)
    share = 1 - len(responses.mu_R) / len(columns.mu_R)
    assert (padding.status, zeros.status) == ("fail", "pass")
    assert padding.evidence["tokens"] == pytest.approx(share * len(columns.mu_R), rel=0.03)  # but for short ends
    assert padding.count is not None and 100 < padding.count < 150 and padding.of == 200


def test_without_token_ids_padding_cannot_be_told_from_certain_tokens(responses: Columns) -> None:
    columns = padded(responses, 0)
    padding, _ = zeros_of(replace(columns, token_id_R=np.full(len(columns.mu_R), -1)))
    assert padding.status == "unknown"
    assert "both sides are certain of look like this" in padding.sentence


def test_certain_tokens_are_no_fault(responses: Columns) -> None:
    padding, zeros = zeros_of(surer(responses, 0.03))
    assert (padding.status, zeros.status) == ("unknown", "pass")


def test_a_sampler_that_keeps_one_id_is_no_proof(responses: Columns) -> None:
    """Greedy with the log-probs of what it draws from, over states that are unsure."""
    columns = greedy_zeros(sound(np.random.default_rng(2), Size(200), certain=0.0))
    _, zeros = zeros_of(columns)
    assert zeros.status == "unknown"
    assert "A sampler that kept one id there" in zeros.sentence


def test_a_truncating_sampler_keeps_what_is_likeliest(responses: Columns) -> None:
    for top_p in (0.55, 0.7, 0.9):
        assert zeros_of(truncated(responses, top_p))[1].status != "fail"


def kept_and_scaled(logits_RV: np.ndarray, sampler: str, setting: float) -> np.ndarray:
    """The logits that a sampler draws from, −inf at ids that it cuts off."""
    if sampler == "temperature":
        return logits_RV / setting
    p_RV = np.exp(logits_RV - logsumexp(logits_RV, axis=1, keepdims=True))
    if sampler == "min-p":
        return np.where(p_RV >= setting * p_RV.max(axis=1, keepdims=True), logits_RV, -np.inf)
    falling_RV = -np.sort(-p_RV, axis=1)
    before_RV = falling_RV.cumsum(axis=1) - falling_RV
    least_R = np.where(before_RV < setting, falling_RV, 1.0).min(axis=1)
    return np.where(p_RV >= least_R[:, None], logits_RV, -np.inf)


@pytest.mark.parametrize(
    ("sampler", "setting"),
    [("min-p", 0.1), ("min-p", 0.5), ("top-p", 0.2), ("top-p", 0.5), ("temperature", 0.03), ("temperature", 0.1)],
)
def test_a_sampler_that_keeps_few_ids_fills_in_nothing(sampler: str, setting: float) -> None:
    """Its log-probs are of what it drew from, the trainer's are raw; many of its tokens have log-prob 0."""
    rng = np.random.default_rng(4)
    logits_RV = rng.normal(size=(2000, 120)) * rng.gamma(2, 1.2, (2000, 1))
    drawn_from_RV = kept_and_scaled(logits_RV, sampler, setting)
    token_R = (drawn_from_RV + rng.gumbel(size=logits_RV.shape)).argmax(axis=1)
    at_R = np.arange(2000), token_R
    noisy_RV = logits_RV + rng.normal(0, 0.03, logits_RV.shape)
    mu_ST = softmax32_of(drawn_from_RV)[at_R].reshape(40, 50)
    pi_ST = (noisy_RV - logsumexp(noisy_RV, axis=1, keepdims=True))[at_R].reshape(40, 50)
    statistics = LogStatistics(AnalysisSettings())
    token_ids = token_R.reshape(40, 50).tolist()
    statistics.add(log_batch(token_ids=token_ids, behavior_logprobs=list(mu_ST), reference_logprobs=list(pi_ST)))
    (zeros,) = [check for check in zero_checks(statistics.distribution.sample.examined()) if check.code == "zeros"]
    assert zeros.evidence["zeros"]["behaviour"] > 50
    assert zeros.status != "fail"


def softmax32_of(logits_RV: np.ndarray) -> np.ndarray:
    """log p in float32, as an engine has it: 0 where the other ids have less than 2⁻²⁴ of the mass."""
    from_top_RV = (logits_RV - logits_RV.max(axis=1, keepdims=True)).astype(np.float32)
    return (from_top_RV - np.log(np.exp(from_top_RV).sum(axis=1, keepdims=True))).astype(np.float64)


def test_heavy_tails_at_certain_tokens_are_no_fillers(responses: Columns) -> None:
    """One certain token in fifty is unlikely to the other side, whether its log-prob is 0 or next to it."""
    columns = surer(responses, 0.03)
    apart_R = (columns.mu_R > -0.05) & (np.random.default_rng(3).random(len(columns.mu_R)) < 0.02)
    _, zeros = zeros_of(replace(columns, pi_R=np.where(apart_R, -1.3, columns.pi_R)))
    assert zeros.status == "pass" and zeros.count


def test_few_unlikely_zeros_are_not_said_to_be_as_many_as_beside_them(responses: Columns) -> None:
    """Three of three zeros are unlikely to the other side: too few to tell, and more often than beside them."""
    zero_R = np.isin(np.arange(len(responses.mu_R)), np.flatnonzero(responses.pi_R < -1)[:3])
    _, zeros = zeros_of(replace(responses, mu_R=np.where(zero_R, 0.0, np.minimum(responses.mu_R, -1e-9))))
    assert (zeros.status, zeros.count) == ("pass", 3)
    assert zeros.sentence.endswith("at 3, not clearly more often than beside them.")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["certain tokens, stale weights", "certain tokens, heavy tails of experts"])
def test_false_alarms_are_rare(name: str) -> None:
    """A rate of 1 % makes more than 6 of 150 logs fail in one test of 500."""
    assert simulate(name, 150, seed=5).others <= 6 / 150
