"""The synthetic engine is an oracle of other tests, so it is held to closed forms and plain float64 loops."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.engines.synthetic.engine import SyntheticEngine
from mismatchscope.engines.synthetic.policy import (
    END_OF_SEQUENCE,
    Divergences,
    States,
    SyntheticOptions,
    raw_logprobs,
    true_divergences,
    tv_factors,
)
from mismatchscope.errors import ModelError, SpecError
from mismatchscope.records import Evidence, Request, Sampling, SequenceRecord, Task, request_to_score

PLAIN = Sampling(max_new_tokens=24)
FULL = Evidence("full")


def rollout(
    options: SyntheticOptions, count: int = 12, sampling: Sampling = PLAIN, evidence: Evidence = FULL
) -> list[SequenceRecord]:
    engine = SyntheticEngine("synthetic", options)
    task = Task("rollout", "rollout", "", "", evidence, sampling=sampling)
    requests = [Request(i, i // 2, prompt=f"prompt {i // 2}") for i in range(count)]
    return [record for start in range(0, count, 8) for record in engine.rollout(requests[start : start + 8], task)]


def score(options: SyntheticOptions, records: list[SequenceRecord], **task: Any) -> list[SequenceRecord]:
    asked = Task("score", "score", "", "", **task)
    requests = [request_to_score(record, asked.evidence, asked.policy) for record in records]
    return [*SyntheticEngine("synthetic", options).score(requests, asked)]


def rows(record: SequenceRecord) -> np.ndarray:
    return np.exp(record.observed.full_logprobs_RV.astype(np.float64))


def truth(mu: SyntheticOptions, pi: SyntheticOptions, record: SequenceRecord, **how: Any) -> Divergences:
    return true_divergences(mu, pi, record.prompt_token_ids, record.response_token_ids, **{"sampling": PLAIN} | how)


def along(options: SyntheticOptions, record: SequenceRecord) -> States:
    return States.along(options, record.prompt_token_ids, record.response_token_ids)


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


def test_noise_depends_on_the_company_alone() -> None:
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


def test_samples_follow_the_distribution_they_report() -> None:
    """Observed minus expected counts of the first token, in standard deviations; and E ρ = 1 − leak."""
    mu = SyntheticOptions(vocabulary=8, unreachable=1)
    engine = SyntheticEngine("synthetic", mu)
    task = Task("r", "rollout", "", "", sampling=Sampling(max_new_tokens=1))
    records = [*engine.rollout([Request(i, 0, prompt="the same") for i in range(20_000)], task)]
    p_V = rows(records[0])[0]
    counts_V = np.bincount([record.response_token_ids[0] for record in records], minlength=8)
    expected_V = len(records) * p_V
    assert counts_V[-1] == 0 == expected_V[-1]
    deviation_V = (counts_V - expected_V)[:-1] / np.sqrt(expected_V * (1 - p_V))[:-1]
    assert np.abs(deviation_V).max() < 4
    pi = replace(mu, tv=0.2, leak=0.1)
    ratio_S = np.exp([truth(mu, pi, record).log_ratio_T[0] for record in records[:4000]])
    assert abs(ratio_S.mean() - 0.9) < 4 * ratio_S.std() / math.sqrt(len(ratio_S))


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.8}, {"temperature": 0.0}])
def test_transforms_leave_what_the_definition_leaves(change: dict[str, Any]) -> None:
    sampling = replace(PLAIN, **change)
    for record in rollout(SyntheticOptions(), sampling=sampling):
        raw_RV = np.exp(record.raw.full_logprobs_RV.astype(np.float64))
        for seen_V, raw_V in zip(rows(record), raw_RV, strict=True):
            tempered = [p ** (1 / sampling.temperature) if sampling.temperature else p for p in raw_V]
            order = sorted(range(64), key=lambda token: -raw_V[token])
            kept, mass = [], 0.0
            for rank, token in enumerate(order):
                full = rank >= (sampling.top_k or 64) or mass >= sampling.top_p * math.fsum(tempered)
                if full or (sampling.temperature == 0 and rank > 0):
                    break
                kept.append(token)
                mass += tempered[token]
            assert set(np.flatnonzero(seen_V)) == set(kept)
            np.testing.assert_allclose(seen_V[kept], [tempered[token] / mass for token in kept], rtol=1e-5)
        assert np.isfinite(record.observed.logprob_T).all()


def test_raw_and_processed_truths_are_told_apart() -> None:
    mu, sampling = SyntheticOptions(), replace(PLAIN, top_p=0.8)
    record = rollout(mu, count=1, sampling=sampling)[0]
    truths = {p: truth(mu, mu, record, sampling=sampling, policy=p) for p in ("raw", "processed", "support")}
    assert truths["raw"].tv_T.max() == 0
    kept_T = np.where(rows(record) > 0, np.exp(record.raw.full_logprobs_RV.astype(np.float64)), 0).sum(axis=1)
    np.testing.assert_allclose(truths["processed"].tv_T, 1 - kept_T, atol=1e-6)
    np.testing.assert_allclose(truths["support"].tv_T, 0, atol=1e-12)


def test_topk_evidence_is_a_view_of_the_full_distribution() -> None:
    mu, k = SyntheticOptions(vocabulary=12), 3
    pi = replace(mu, tv=0.2)
    full, topk = rollout(mu), rollout(mu, evidence=Evidence("topk", k=k))
    pi_full, pi_topk = score(pi, full), score(pi, topk, evidence=Evidence("topk", k=k))
    for mu_f, mu_k, pi_f, pi_k in zip(full, topk, pi_full, pi_topk, strict=True):
        for t, token in enumerate(mu_k.response_token_ids.tolist()):
            mu_V, pi_V = rows(mu_f)[t], rows(pi_f)[t]
            ids = mu_k.observed.topk_ids_TK[t].tolist()
            assert ids == sorted(range(12), key=lambda a: -mu_V[a])[:k]
            np.testing.assert_allclose(np.exp(mu_k.observed.topk_logprobs_TK[t]), mu_V[ids], rtol=1e-6)
            assert pi_k.observed.topk_ids_TK[t].tolist() == ids
            np.testing.assert_allclose(np.exp(pi_k.observed.topk_logprobs_TK[t]), pi_V[ids], rtol=1e-6)
            rest = {*range(12)} - {*ids, token}
            overlap = math.fsum(min(pi_V[a], mu_V[ids[-1]]) for a in rest)
            assert pi_k.observed.tail_overlap_T[t] == pytest.approx(overlap, rel=1e-5)


def test_a_truncated_policy_shows_no_more_ids_than_it_has() -> None:
    sampling, evidence = replace(PLAIN, top_k=2), Evidence("topk", k=4)
    records = rollout(SyntheticOptions(), sampling=sampling, evidence=evidence)
    for record, scored in zip(records, score(SyntheticOptions(), records, evidence=evidence), strict=True):
        assert ((record.observed.topk_ids_TK >= 0).sum(axis=1) == 2).all()
        assert (np.isnan(record.observed.topk_logprobs_TK) == (record.observed.topk_ids_TK < 0)).all()
        np.testing.assert_array_equal(scored.observed.tail_overlap_T, 0.0)
        assert (record.raw.topk_ids_TK >= 0).all()


def test_a_fraction_of_states_is_the_same_on_both_sides() -> None:
    evidence = Evidence("full", fraction=0.3, seed=5)
    records = rollout(SyntheticOptions(), evidence=evidence)
    kept = sum(len(record.observed.full_row_R) for record in records)
    assert 0 < kept < 0.6 * sum(len(record.response_token_ids) for record in records)
    for record, scored in zip(records, score(SyntheticOptions(), records, evidence=evidence), strict=True):
        np.testing.assert_array_equal(record.observed.full_row_R, scored.observed.full_row_R)
        at_R = (range(len(record.observed.full_row_R)), record.response_token_ids[record.observed.full_row_R])
        np.testing.assert_allclose(
            record.observed.full_logprobs_RV[at_R], record.observed.logprob_T[record.observed.full_row_R], rtol=1e-6
        )


def test_responses_end_as_their_policy_says() -> None:
    records = rollout(SyntheticOptions(mean_length=8.0), count=600, sampling=Sampling(max_new_tokens=200))
    lengths = [len(record.response_token_ids) for record in records]
    assert np.mean(lengths) == pytest.approx(8, rel=0.15)
    for record in records:
        ends_T = record.response_token_ids == END_OF_SEQUENCE
        assert not ends_T[:-1].any() and ends_T[-1] == (record.finish_reason == "stop")
    endless = rollout(SyntheticOptions(mean_length=0))
    assert {(len(r.response_token_ids), r.finish_reason) for r in endless} == {(24, "length")}


def test_draws_depend_on_the_seed_and_the_sequence_not_on_the_batch() -> None:
    engine = SyntheticEngine("synthetic", SyntheticOptions())
    task = Task("r", "rollout", "", "", sampling=PLAIN)
    requests = [Request(i, 0, prompt="one prompt") for i in range(6)]
    together = [r.response_token_ids.tolist() for r in engine.rollout(requests, task)]
    alone = [next(engine.rollout([request], task)).response_token_ids.tolist() for request in requests]
    assert together == alone and len({*map(tuple, together)}) > 1
    reseeded = replace(task, sampling=replace(PLAIN, seed=1))
    assert [r.response_token_ids.tolist() for r in engine.rollout(requests, reseeded)] != together


def test_prompts_come_as_text_messages_or_ids() -> None:
    engine = SyntheticEngine("synthetic", SyntheticOptions(vocabulary=50))
    task = Task("r", "rollout", "", "", sampling=PLAIN)
    requests = [
        Request(0, 0, prompt="az"),
        Request(1, 1, prompt=[{"role": "user", "content": "z"}]),
        Request(2, 2, prompt_token_ids=np.array([47, 22], dtype=np.int32)),
    ]
    text, messages, ids = engine.rollout(requests, task)
    assert text.prompt_token_ids.tolist() == [ord("a") % 50, ord("z") % 50] == [47, 22]
    assert messages.prompt_text == "user: z"
    assert ids.prompt_text is None
    # The same tokens are the same state.
    np.testing.assert_array_equal(text.observed.full_logprobs_RV[0], ids.observed.full_logprobs_RV[0])


def test_faults_on_request() -> None:
    records = rollout(replace(SyntheticOptions(), nan_at=3))
    assert [np.isnan(record.observed.logprob_T).sum() for record in records[:5]] == [0, 0, 0, 1, 0]
    assert np.isnan(records[3].observed.full_logprobs_RV[0]).all()
    with pytest.raises(ModelError):
        score(SyntheticOptions(vocabulary=8), records)
    for wrong in ({"tv": 0.5}, {"leak": 0.1}, {"mean_length": 1.0}, {"vocabulary": 2}, {"cluster": 2.0}):
        with pytest.raises(SpecError):
            SyntheticOptions(**wrong)
