"""Trainers' metrics against formulas that are written from the definitions, response by response."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.measures.native.batch_sums import BatchSums, sums_by_batch
from mismatchscope.measures.native.registry import EVERY_METRIC, TRAINERS

B, T = 24, 40
EPSILON = 1e-8
TOKEN, SEQUENCE = "rollout_is=token, threshold 2", "rollout_is=sequence, threshold 2"
MASKED, TRUNCATED = "sequence_mask, cap 3", "token_truncate, cap 3"
Rows = list[np.ndarray]


def responses(seed: int, scale: float = 0.3) -> tuple[Rows, Rows]:
    """log μ and log π of the tokens of each response."""
    generator = np.random.default_rng(seed)
    mu = [-generator.exponential(1.5, length) - 0.05 for length in generator.integers(1, T + 1, B)]
    pi = [np.minimum(logp_T + generator.normal(0, scale, len(logp_T)), 0.0) for logp_T in mu]
    return mu, pi


def sums_of(mu: Rows, pi: Rows) -> BatchSums:
    offsets_S1 = np.append(0, np.cumsum([len(row) for row in mu]))
    return sums_by_batch(
        np.concatenate(mu), np.concatenate(pi), offsets_S1, np.zeros(len(mu), dtype=int), EVERY_METRIC
    )[0]


def k3(d: np.ndarray) -> np.ndarray:
    return np.exp(d) - d - 1


def over_tokens(mu: Rows, pi: Rows, value: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    return np.concatenate([value(a, b) for a, b in zip(mu, pi, strict=True)])


def oracle(mu: Rows, pi: Rows) -> dict[tuple[str, str], float]:
    """By name and variant."""
    d = over_tokens(mu, pi, lambda a, b: b - a)
    gap = over_tokens(mu, pi, lambda a, b: np.abs(np.exp(a) - np.exp(b)))
    safe, n = np.exp(np.clip(d, -20, 20)), len(d)
    half = np.log((np.exp(np.concatenate(mu)) + np.exp(np.concatenate(pi))) / 2)
    of_mu = np.array([row.sum() / (len(row) + EPSILON) for row in mu])
    of_pi = np.array([row.sum() / (len(row) + EPSILON) for row in pi])
    of_ratio = np.array([np.exp(b - a).sum() / (len(a) + EPSILON) for a, b in zip(mu, pi, strict=True)])
    total = np.array([(b - a).sum() for a, b in zip(mu, pi, strict=True)])
    length = np.array([len(row) for row in mu])
    whole = np.repeat(np.exp(np.clip(total, -20, 20)), length)
    capped = np.where(np.exp(total) <= 3, np.exp(total), 0.0)

    def mean(value: np.ndarray) -> float:
        return value.sum() / (n + EPSILON)

    def by_response(value: Callable[[np.ndarray], np.ndarray]) -> float:
        return float(np.mean([value(b - a).mean() for a, b in zip(mu, pi, strict=True)]))

    found: dict[tuple[str, str], float] = {
        ("training/rollout_probs_diff_mean", ""): gap.mean(),
        ("training/rollout_probs_diff_max", ""): gap.max(),
        ("training/rollout_probs_diff_std", ""): gap.std(ddof=1),
        ("training/rollout_actor_probs_pearson_corr", ""): np.corrcoef(
            np.exp(np.concatenate(mu)), np.exp(np.concatenate(pi))
        )[0, 1],
        ("rollout_corr/kl", ""): mean(-d),
        ("rollout_corr/k3_kl", ""): mean(k3(d)),
        ("rollout_corr/chi2_token", ""): mean(safe**2) - 1,
        ("rollout_corr/chi2_seq", ""): np.mean(np.exp(2 * np.clip(total, -20, 20))) - 1,
        ("rollout_corr/training_ppl", ""): np.exp(-of_pi).mean(),
        ("rollout_corr/rollout_ppl", ""): np.exp(-of_mu).mean(),
        ("rollout_corr/training_log_ppl", ""): -of_pi.mean(),
        ("rollout_corr/rollout_log_ppl", ""): -of_mu.mean(),
        ("rollout_corr/log_ppl_diff", ""): (of_mu - of_pi).mean(),
        ("rollout_corr/log_ppl_abs_diff", ""): np.abs(of_mu - of_pi).mean(),
        ("rollout_corr/log_ppl_diff_max", ""): (of_mu - of_pi).max(),
        ("rollout_corr/log_ppl_diff_min", ""): (of_mu - of_pi).min(),
        ("rollout_corr/ppl_ratio", ""): np.exp(of_mu - of_pi).mean(),
        ("rollout_corr/rollout_is_max", TOKEN): safe.max(),
        ("rollout_corr/rollout_is_min", TOKEN): safe.min(),
        ("rollout_corr/rollout_is_seq_mean", TOKEN): of_ratio.mean(),
        ("rollout_corr/rollout_is_seq_std", TOKEN): of_ratio.std(ddof=1),
        ("rollout_corr/rollout_is_seq_max", TOKEN): of_ratio.max(),
        ("rollout_corr/rollout_is_seq_min", TOKEN): of_ratio.min(),
        ("rollout_corr/rollout_is_seq_max_deviation", TOKEN): np.abs(of_ratio - 1).max(),
        ("rollout_corr/rollout_is_seq_fraction_high", TOKEN): (of_ratio > 2).mean(),
        ("rollout_corr/rollout_is_seq_fraction_low", TOKEN): (of_ratio < 0.5).mean(),
        ("rollout_corr/rollout_is_ratio_fraction_high", TOKEN): mean(safe > 2),
        ("rollout_corr/rollout_is_ratio_fraction_low", TOKEN): mean(safe < 0.5),
        ("rollout_corr/rollout_is_max", SEQUENCE): np.exp(min(total.max(), 20)),
        ("rollout_corr/rollout_is_min", SEQUENCE): np.exp(total.min()),
        ("rollout_corr/rollout_is_ratio_fraction_high", SEQUENCE): (total > np.log(2)).mean(),
        ("rollout_corr/rollout_is_ratio_fraction_low", SEQUENCE): (total < np.log(0.5)).mean(),
        ("sampling/sampling_logp_difference/mean", ""): np.abs(d).mean(),
        ("sampling/sampling_logp_difference/max", ""): np.abs(d).max(),
        ("sampling/importance_sampling_ratio/mean", MASKED): capped.mean(),
        ("sampling/importance_sampling_ratio/min", MASKED): capped.min(),
        ("sampling/importance_sampling_ratio/max", MASKED): capped.max(),
        ("sampling/importance_sampling_ratio/mean", TRUNCATED): np.minimum(np.exp(d), 3).mean(),
        ("sampling/importance_sampling_ratio/min", TRUNCATED): np.exp(d).min(),
        ("sampling/importance_sampling_ratio/max", TRUNCATED): min(np.exp(d).max(), 3),
        ("train/train_rollout_logprob_abs_diff", ""): by_response(np.abs),
        ("train/tis", ""): by_response(np.exp),
        ("train/tis_abs", ""): by_response(lambda d: np.abs(np.exp(d) - 1)),
        ("train/train_rollout_kl", ""): by_response(lambda d: np.clip(k3(np.clip(d, -20, 20)), -10, 10)),
        ("train/token_mult_prob_error", ""): np.exp(np.abs(d)).mean(),
        ("train/gen_kl_error", ""): k3(d).mean(),
        ("train/policy_kl_error", ""): k3(-d).mean(),
        ("train/js_divergence_error", ""): (
            k3(np.concatenate(pi) - half).mean() / 2 + k3(np.concatenate(mu) - half).mean() / 2
        ),
        ("train/sampling_importance_ratio", ""): np.exp(d).mean(),
        ("mismatch_kl/all/mean", ""): k3(d).mean(),
        ("policy/rollout_train_logprobs_abs_diff_mean", ""): np.abs(d).mean(),
        ("policy/rollout_train_logprobs_abs_diff_std", ""): np.abs(d).std(ddof=1),
        ("policy/rollout_train_logprobs_abs_diff_max", ""): np.abs(d).max(),
        ("policy/rollout_train_logprobs_abs_diff_min", ""): np.abs(d).min(),
        ("behave_approx_kl/avg", ""): d.mean(),
        ("behave_imp_weight/avg", ""): np.exp(d).mean(),
        ("vllm_kl", ""): -d.mean(),
        ("bit_wise/logprob_diff/mean", ""): d.mean(),
        ("bit_wise/logprob_diff/max", ""): np.abs(d).max(),
        ("bit_wise/ratio_tokens_different/mean", ""): (np.abs(d) > 1e-6).mean(),
    }
    for variant, weight in ((TOKEN, safe), (SEQUENCE, whole)):
        within = np.clip(weight, 0.5, 2)
        found["rollout_corr/rollout_is_mean", variant] = mean(weight)
        found["rollout_corr/rollout_is_std", variant] = np.sqrt(max(mean(within**2) - mean(within) ** 2, 0))
        normalised = within / (mean(within) + EPSILON)
        found["rollout_corr/rollout_is_eff_sample_size", variant] = 1 / mean(normalised**2)
    return found


@pytest.mark.parametrize("scale", [0.01, 0.3, 2.0])
@pytest.mark.parametrize("trainer", TRAINERS)
def test_each_is_what_the_trainer_computes(trainer: str, scale: float) -> None:
    mu, pi = responses(seed=1, scale=scale)
    sums, expected = sums_of(mu, pi), oracle(mu, pi)
    for definition in TRAINERS[trainer]:
        value = expected[definition.name, definition.variant]
        assert definition.value(sums) == pytest.approx(value, rel=1e-9, abs=1e-12), definition.name


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(1, B - 1), seed=st.integers(0, 50))
def test_batches_merge(cut: int, seed: int) -> None:
    mu, pi = responses(seed)
    merged = sums_of(mu[:cut], pi[:cut])
    merged.merge(sums_of(mu[cut:], pi[cut:]))
    for trainer, definitions in TRAINERS.items():
        for definition in definitions:
            whole = definition.value(sums_of(mu, pi))
            assert definition.value(merged) == pytest.approx(whole, rel=1e-9, abs=1e-12), (trainer, definition.name)


@pytest.mark.parametrize("step", [2.0, -2.0])
@pytest.mark.parametrize("trainer", TRAINERS)
def test_no_gap_is_too_large_for_a_value(trainer: str, step: float) -> None:
    """A column of zeros beside a thousand log-probs: ρ(y) passes any float."""
    mu, pi = ([np.full(1000, min(0.0, sign * step))] * 2 for sign in (-1, 1))
    for definition in TRAINERS[trainer]:
        definition.value(sums_of(mu, pi))


def test_batches_are_kept_apart() -> None:
    mu, pi = responses(seed=2)
    offsets_S1 = np.append(0, np.cumsum([len(row) for row in mu]))
    batch_S = np.arange(B) % 3
    found = sums_by_batch(np.concatenate(mu), np.concatenate(pi), offsets_S1, batch_S, EVERY_METRIC)
    for batch, sums in found.items():
        alone = sums_of(
            [row for row, which in zip(mu, batch_S, strict=True) if which == batch],
            [row for row, which in zip(pi, batch_S, strict=True) if which == batch],
        )
        assert sums.total == pytest.approx(alone.total)
        assert sums.largest == pytest.approx(alone.largest)
        assert sums.smallest == pytest.approx(alone.smallest)


def test_the_clamped_effective_size_is_never_below_what_its_text_says() -> None:
    mu = [np.full(1, -5.0)] * 5
    pi = [np.full(1, -5.0 + d) for d in (9.0, -9.0, -9.0, -9.0, -9.0)]
    size = next(each for each in TRAINERS["verl"] if each.name.endswith("eff_sample_size"))
    assert "0.64" in size.estimates
    assert size.value(sums_of(mu, [np.minimum(row, 0) for row in pi])) == pytest.approx(0.64)


def test_the_page_of_trainers_metrics_is_current() -> None:
    root = Path(__file__).resolve().parents[2]
    script = runpy.run_path(str(root / "scripts" / "generate_trainer_metrics.py"))
    written = (root / "docs" / "trainer-metrics.md").read_text(encoding="utf-8")
    assert written == script["page"](), "run scripts/generate_trainer_metrics.py"
