"""What the synthetic engine samples and records: draws, transforms, evidence, and faults on request."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from synthetic_runs import PLAIN, rollout, rows, score, truth

from mismatchscope.engines.synthetic.engine import SyntheticEngine
from mismatchscope.engines.synthetic.policy import (
    END_OF_SEQUENCE,
    SyntheticOptions,
)
from mismatchscope.errors import ModelError, SpecError
from mismatchscope.records import Evidence, Request, Sampling, Task


@pytest.mark.slow
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


def test_all_that_a_chat_says_is_in_its_tokens() -> None:
    user, engine = {"role": "user", "content": "2 + 2?"}, SyntheticEngine("synthetic", SyntheticOptions())
    called = {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 2}}}]}
    in_parts = user | {"content": [{"type": "text", "text": "2 + 2?"}]}
    chats = [[user], [user, called], [in_parts], [user, user]]
    requests = [Request(i, i, prompt=chat) for i, chat in enumerate(chats)]
    requests.append(Request(4, 4, prompt=[user], template_arguments={"enable_thinking": False}))
    prompts = [
        record.prompt_token_ids.tobytes() for record in engine.rollout(requests, Task("r", "rollout", "", ""))
    ]
    assert len(set(prompts)) == 5


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
