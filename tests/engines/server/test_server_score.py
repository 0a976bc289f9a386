"""What a server says of given tokens, against distributions that are known exactly.

Shapes: T response tokens, K observed ids, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import pytest
from fake_server import FakeServer
from misbehaving_server import MisbehavingServer
from server_engine import (
    FULL,
    GREEDY,
    KINDS,
    SAMPLED,
    TOPK,
    TRUNCATED,
    UNCHANGED,
    WARM,
    Connect,
    V,
    assert_sees,
    rollout,
    to_score,
    truth,
)

from mismatchscope.errors import CapabilityError, EngineError, ModelError
from mismatchscope.records import Evidence, Request, Sampling, Task


@pytest.mark.parametrize(
    ("kind", "evidence"),
    [
        (kind, evidence)
        for kind in KINDS
        for evidence in (SAMPLED, TOPK, FULL)
        if (kind, evidence) != ("openai", FULL)
    ],
)
def test_given_tokens_are_scored_raw(kind: str, evidence: Evidence, connect: Connect) -> None:
    with FakeServer(kind, stage="processed" if kind == "vllm" else "raw") as server:
        engine = connect(server)
        requests = [to_score(record) for record in rollout(engine, SAMPLED, UNCHANGED)]
        scored = list(
            engine.score(requests, Task("t", "score", "", "", evidence, policy="raw", sampling=TRUNCATED))
        )
    assert len(scored) == 5
    for record in scored:
        assert_sees(record.observed, truth(kind, "raw", record, UNCHANGED), record.response_token_ids, evidence)


@pytest.mark.parametrize("sampling", [WARM, TRUNCATED, GREEDY], ids=["warm", "cut", "greedy"])
@pytest.mark.parametrize("evidence", [SAMPLED, TOPK, FULL], ids=lambda e: e.level)
@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_a_scored_policy_goes_through_all_transforms(
    kind: str, evidence: Evidence, sampling: Sampling, connect: Connect
) -> None:
    with FakeServer(kind) as server:
        engine = connect(server)
        requests = [to_score(record) for record in rollout(engine, SAMPLED, sampling)]
        scored = list(engine.score(requests, Task("t", "score", "", "", evidence, sampling=sampling)))
    for record in scored:
        logp_TV = truth(kind, "processed", record, sampling)
        assert_sees(record.observed, logp_TV, record.response_token_ids, evidence)


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_top_k_is_scored_at_the_ids_that_the_behaviour_listed(kind: str, connect: Connect) -> None:
    with FakeServer(kind) as server:
        engine = connect(server)
        requests = []
        for record in rollout(engine, SAMPLED, UNCHANGED):
            length = len(record.response_token_ids)
            ids_TK = np.random.default_rng(record.sequence_id).permuted(np.tile(np.arange(V), (length, 1)), axis=1)
            ids_TK = np.where(np.arange(4) < 3, ids_TK[:, :4], -1).astype(np.int32)
            requests.append(to_score(record, ids_TK))
        server.received.clear()
        scored = list(engine.score(requests, Task("t", "score", "", "", TOPK, policy="raw")))
        asked = server.received
    for record in scored:
        logp_TV = truth(kind, "raw", record, UNCHANGED)
        ids_TK = requests[record.sequence_id].observed_ids_TK
        np.testing.assert_array_equal(record.observed.topk_ids_TK, ids_TK)
        expected_TK = np.where(ids_TK < 0, np.nan, np.take_along_axis(logp_TV, np.maximum(ids_TK, 0), axis=1))
        np.testing.assert_allclose(record.observed.topk_logprobs_TK, expected_TK, atol=1e-5)
        if kind == "vllm":  # which sees whole distributions here, and so the tails that overlap
            assert np.isfinite(record.observed.tail_overlap_T).all()
    if kind == "sglang":
        assert {body["top_logprobs_num"] for body in asked} == {0}
        assert all(len(body["token_ids_logprob"]) <= 3 * 6 for body in asked)


def test_given_ids_need_whole_distributions_of_vllm(connect: Connect) -> None:
    with FakeServer("vllm", cap=20) as server:
        engine = connect(server)
        record = rollout(engine, TOPK, UNCHANGED)[0]
        request = to_score(record, record.observed.topk_ids_TK)
        with pytest.raises(CapabilityError, match="ids that the behaviour listed") as caught:
            list(engine.score([request], Task("t", "score", "", "", TOPK, policy="raw")))
        assert "--max-logprobs -1" in caught.value.hint


def test_other_tokens_than_were_given_are_noticed(sglang: MisbehavingServer, connect: Connect) -> None:
    engine = connect(sglang)
    sglang.always = "other tokens"
    request = Request(
        0,
        0,
        prompt_token_ids=np.array([3, 9], dtype=np.int32),
        response_token_ids=np.array([4, 5, 6], dtype=np.int32),
    )
    with pytest.raises(EngineError, match="scored other tokens"):
        list(engine.score([request], Task("t", "score", "", "", SAMPLED)))


def test_a_response_that_fills_the_context_leaves_no_room_for_the_token_behind_it(
    vllm: MisbehavingServer, sglang: MisbehavingServer, connect: Connect
) -> None:
    prompt, response = np.array([3, 9], dtype=np.int32), np.full(vllm.max_model_len - 2, 4, dtype=np.int32)
    task = Task("t", "score", "", "", SAMPLED)
    full = Request(0, 0, prompt_token_ids=prompt, response_token_ids=response)
    with pytest.raises(ModelError, match="has 40 tokens, the server takes 39"):
        connect(vllm).check([full], task)
    connect(sglang).check([full], task)
