"""The synthetic engine is an oracle of other tests: its divergences are those of closed forms and float64 loops."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_runs import PLAIN, along, rollout, rows, score, truth

from mismatchscope.engines.synthetic.engine import SyntheticEngine
from mismatchscope.engines.synthetic.policy import (
    SyntheticOptions,
    raw_logprobs,
    tv_factors,
)
from mismatchscope.records import Task, request_to_score

options = st.builds(
    SyntheticOptions,
    seed=st.integers(0, 99),
    vocabulary=st.integers(5, 40),
    sharpness=st.floats(0, 4),
    mean_length=st.sampled_from([0.0, 4.0, 50.0]),
    unreachable=st.integers(1, 2),
)
perturbed = st.fixed_dictionaries(
    {
        "tv": st.floats(0, 0.3),
        "leak": st.sampled_from([0.0, 0.1]),
        "tail": st.sampled_from([1.0, 8.0]),
        "cluster": st.sampled_from([0.0, 0.5, 1.0]),
        "variant": st.integers(0, 3),
    }
)


@settings(max_examples=40, deadline=None)
@given(options, perturbed, st.sampled_from([1.0, 0.7, 2.0]))
def test_tv_and_leak_are_exactly_what_was_asked_for(
    mu: SyntheticOptions, change: dict[str, Any], temperature: float
) -> None:
    pi = replace(mu, **change)
    sampling = replace(PLAIN, temperature=temperature)
    for record in rollout(mu, count=3, sampling=sampling):
        expected_T = pi.tv * tv_factors(pi, along(pi, record)) + pi.leak
        exact = truth(mu, pi, record, sampling=sampling)
        np.testing.assert_allclose(exact.tv_T, expected_T, atol=1e-12)
        np.testing.assert_allclose(exact.leak_T, pi.leak, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(options, perturbed)
def test_true_divergences_agree_with_plain_sums(mu: SyntheticOptions, change: dict[str, Any]) -> None:
    pi = replace(mu, **change)
    record = rollout(mu, count=1, sampling=replace(PLAIN, max_new_tokens=5))[0]
    exact = truth(mu, pi, record)
    mu_TV, pi_TV = (np.exp(raw_logprobs(side, along(side, record))) for side in (mu, pi))
    for t, (p_V, q_V) in enumerate(zip(mu_TV.tolist(), pi_TV.tolist(), strict=True)):
        assert math.fsum(p_V) == pytest.approx(1, abs=1e-12) and math.fsum(q_V) == pytest.approx(1, abs=1e-12)
        pairs = [*zip(p_V, q_V, strict=True)]
        assert exact.tv_T[t] == pytest.approx(math.fsum(abs(p - q) for p, q in pairs) / 2, abs=1e-12)
        kl = math.fsum(p * math.log(p / q) for p, q in pairs if p > 0)
        assert exact.kl_T[t] == pytest.approx(kl, abs=1e-12)
        if pi.leak:
            assert exact.reverse_kl_T[t] == math.inf
        else:
            reverse = math.fsum(q * math.log(q / p) for p, q in pairs if q > 0)
            assert exact.reverse_kl_T[t] == pytest.approx(reverse, abs=1e-12)
        token = record.response_token_ids[t]
        assert exact.log_ratio_T[t] == pytest.approx(math.log(q_V[token] / p_V[token]), abs=1e-12)


def test_two_engines_report_the_divergences_that_are_true() -> None:
    mu = SyntheticOptions(unreachable=1)
    pi = replace(mu, tv=0.1, tail=3.0, leak=0.01)
    records = rollout(mu)
    for seen_mu, seen_pi in zip(records, score(pi, records), strict=True):
        exact = truth(mu, pi, seen_mu)
        np.testing.assert_allclose(np.abs(rows(seen_mu) - rows(seen_pi)).sum(axis=1) / 2, exact.tv_T, atol=1e-6)
        log_ratio_T = seen_pi.observed.logprob_T - seen_mu.observed.logprob_T
        np.testing.assert_allclose(log_ratio_T, exact.log_ratio_T, atol=1e-12)


def test_the_same_policy_differs_by_nothing_at_all() -> None:
    records = rollout(SyntheticOptions())
    for path in ("decode", "prefill"):
        for before, after in zip(records, score(SyntheticOptions(), records, path=path), strict=True):
            np.testing.assert_array_equal(before.observed.logprob_T, after.observed.logprob_T)
            np.testing.assert_array_equal(before.observed.full_logprobs_RV, after.observed.full_logprobs_RV)


@pytest.mark.parametrize("change", [{"seed": 1}, {"vocabulary": 32}, {"sharpness": 1.0}, {"mean_length": 9.0}])
def test_other_weights_have_another_fingerprint(change: dict[str, Any]) -> None:
    plain, other = SyntheticOptions(), replace(SyntheticOptions(), **change)
    fingerprints = [SyntheticEngine("m", o).facts()["model"]["weights_sha256"] for o in (plain, other)]
    assert fingerprints[0] != fingerprints[1]
    same = SyntheticEngine("m", replace(plain, tv=0.1, noise=0.1, batch_size=2))
    assert same.facts()["model"]["weights_sha256"] == fingerprints[0]


def test_epsilon_bounds_tv() -> None:
    mu = SyntheticOptions()
    for epsilon in (0.01, 1.0):
        tv_T = np.concatenate([truth(mu, replace(mu, epsilon=epsilon), r).tv_T for r in rollout(mu)])
        assert 0.1 * math.tanh(epsilon / 2) < tv_T.max() <= math.tanh(epsilon / 2)


def test_noise_depends_on_the_batch_alone() -> None:
    noisy = SyntheticOptions(noise=0.05)
    engine = SyntheticEngine("synthetic", noisy)
    records = rollout(noisy, count=8)
    task = Task("floor", "score", "", "", path="decode")
    requests = [request_to_score(record, task.evidence, task.policy) for record in records]
    same = [*engine.score(requests, task)]
    other = [record for half in (requests[:4], requests[4:]) for record in engine.score(half, task)]
    prefill = score(noisy, records, path="prefill")
    for record, again, alone, elsewhere in zip(records, same, other, prefill, strict=True):
        np.testing.assert_array_equal(rows(record), rows(again))
        for changed in (alone, elsewhere):
            tv_T = np.abs(rows(record) - rows(changed)).sum(axis=1) / 2
            assert 0 < tv_T.max() <= math.tanh(0.05) + 1e-6


def test_factors_are_shared_within_a_prompt_as_asked() -> None:
    records = rollout(SyntheticOptions(mean_length=0), count=400)
    uniform = math.sqrt(1 / 12)  # the standard deviation of U(0, 1)
    for cluster, between, within in ((0.0, uniform / math.sqrt(24), uniform), (1.0, uniform, 0.0)):
        options = SyntheticOptions(mean_length=0, cluster=cluster)
        factors_ST = np.stack([tv_factors(options, along(options, record)) for record in records])
        assert factors_ST.mean(axis=1).std() == pytest.approx(between, rel=0.15)
        assert factors_ST.std(axis=1).mean() == pytest.approx(within, rel=0.15, abs=1e-12)


def test_raw_and_processed_truths_are_told_apart() -> None:
    mu, sampling = SyntheticOptions(), replace(PLAIN, top_p=0.8)
    record = rollout(mu, count=1, sampling=sampling)[0]
    truths = {p: truth(mu, mu, record, sampling=sampling, policy=p) for p in ("raw", "processed", "support")}
    assert truths["raw"].tv_T.max() == 0
    kept_T = np.where(rows(record) > 0, np.exp(record.raw.full_logprobs_RV.astype(np.float64)), 0).sum(axis=1)
    np.testing.assert_allclose(truths["processed"].tv_T, 1 - kept_T, atol=1e-6)
    np.testing.assert_allclose(truths["support"].tv_T, 0, atol=1e-12)
