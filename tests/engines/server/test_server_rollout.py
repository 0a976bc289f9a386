"""What a server samples, against distributions that are known exactly.

Shapes: T response tokens, K observed ids, V vocabulary.
"""

from __future__ import annotations

import pytest
from fake_server import FakeServer
from server_engine import (
    FULL,
    GREEDY,
    KINDS,
    REQUESTS,
    SAMPLED,
    TOPK,
    TRUNCATED,
    UNCHANGED,
    WARM,
    Connect,
    V,
    assert_sees,
    rollout,
    truth,
)

from mismatchscope.errors import CapabilityError
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
def test_what_is_sampled_from_is_recorded_as_it_is(kind: str, evidence: Evidence, connect: Connect) -> None:
    with FakeServer(kind, stage="tempered" if kind == "sglang" else "raw") as server:
        records = rollout(connect(server), evidence, UNCHANGED)
    assert [record.sequence_id for record in records] == [0, 1, 2, 3, 4]
    assert {record.finish_reason for record in records} == {"stop", "length"}
    for record in records:
        assert (record.response_token_ids[-1] == 0) == (record.finish_reason == "stop")
        assert record.raw is None, "there is no transform to tell it apart"
        assert_sees(record.observed, truth(kind, "raw", record, UNCHANGED), record.response_token_ids, evidence)


@pytest.mark.parametrize("evidence", [SAMPLED, TOPK, FULL], ids=lambda e: e.level)
@pytest.mark.parametrize("sampling", [WARM, TRUNCATED, GREEDY], ids=["warm", "cut", "greedy"])
@pytest.mark.parametrize(
    ("kind", "stage"),
    [("vllm", "raw"), ("vllm", "processed"), ("sglang", "tempered"), ("sglang", "raw")],
)
def test_raw_and_processed_mean_what_they_mean_everywhere(
    kind: str, stage: str, sampling: Sampling, evidence: Evidence, connect: Connect
) -> None:
    with FakeServer(kind, stage=stage) as server:
        engine = connect(server)
        assert engine.facts()["effective"]["logprobs_stage"] == stage
        records = rollout(engine, evidence, sampling)
    for record in records:
        token_T = record.response_token_ids
        assert_sees(record.observed, truth(kind, "processed", record, sampling), token_T, evidence)
        if record.raw is not None:
            assert_sees(record.raw, truth(kind, "raw", record, sampling), token_T, evidence)
    # What top-k and top-p excluded cannot be had back; what a temperature did can, from whole distributions.
    lost = (stage == "processed" and sampling is not WARM) or (
        stage != "raw" and sampling is not GREEDY and evidence is not FULL
    )
    assert all((record.raw is None) == lost for record in records)


@pytest.mark.parametrize(
    ("kind", "stage", "sampling", "hint"),
    [
        ("vllm", "raw", WARM, "--max-logprobs -1"),
        ("vllm", "raw", TRUNCATED, "--logprobs-mode processed_logprobs"),
        ("openai", "raw", WARM, "--temperature 1"),
        ("openai", "tempered", Sampling(top_p=0.9), "--top-p 1"),
        ("openai", "processed", TRUNCATED, "--top-k 0"),
    ],
)
def test_a_policy_that_cannot_be_had_is_refused_and_not_mislabelled(
    kind: str, stage: str, sampling: Sampling, hint: str, connect: Connect
) -> None:
    with FakeServer(kind, stage=stage, cap=20) as server:
        engine = connect(server)
        before = len(server.received)
        with pytest.raises(CapabilityError) as caught:
            rollout(engine, TOPK, sampling)
        assert hint in caught.value.hint
        if kind == "vllm":
            assert "before the temperature" in caught.value.message
            assert len(server.received) == before, "nothing was sampled"


def test_the_raw_policy_of_a_server_that_reports_processed_ones_is_refused_where_it_is_asked_for(
    connect: Connect,
) -> None:
    with FakeServer("vllm", stage="processed") as server:
        engine = connect(server)
        with pytest.raises(CapabilityError, match="no way leads back") as caught:
            rollout(engine, FULL, TRUNCATED, policy="raw")
    assert "--logprobs-mode raw_logprobs" in caught.value.hint


def test_more_evidence_than_the_server_gives_is_refused_with_its_cap(connect: Connect) -> None:
    with FakeServer("vllm", cap=20) as server:
        engine = connect(server)
        assert engine.facts()["effective"]["logprobs_cap"] == 20
        for evidence in (FULL, Evidence("topk", k=21)):
            with pytest.raises(CapabilityError, match="at most 20 log-probs") as caught:
                rollout(engine, evidence, UNCHANGED)
            assert "topk:20" in caught.value.hint
        assert rollout(engine, Evidence("topk", k=20), UNCHANGED)[0].observed.topk_ids_TK.shape[1] == 20


def test_draws_depend_on_the_seed_and_the_sequence_alone(connect: Connect) -> None:
    def responses(server: FakeServer, sampling: Sampling, batch: list[Request]) -> dict[int, list[int]]:
        records = connect(server).rollout(batch, Task("t", "rollout", "", "", SAMPLED, sampling=sampling))
        return {record.sequence_id: record.response_token_ids.tolist() for record in records}

    with FakeServer("vllm") as server:
        first = responses(server, UNCHANGED, REQUESTS)
        assert responses(server, UNCHANGED, REQUESTS[::-1]) == first
        assert responses(server, UNCHANGED, REQUESTS[2:3]) == {2: first[2]}
        assert responses(server, Sampling(max_new_tokens=6, seed=6), REQUESTS) != first
        seeds = [body["seed"] for body in server.generations if body["max_tokens"] == 6]
    assert len(set(seeds)) == 10
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_response_ends_where_the_server_has_no_more_room(connect: Connect) -> None:
    with FakeServer("vllm", max_model_len=5) as server:
        records = rollout(connect(server), SAMPLED, UNCHANGED)
    assert max(len(record.response_token_ids) for record in records) == 2


def test_no_more_log_probs_are_asked_for_than_there_are_ids(connect: Connect) -> None:
    with FakeServer("sglang") as server:
        record = rollout(connect(server), Evidence("topk", k=V + 10), UNCHANGED)[0]
        assert max(body.get("top_logprobs_num", 0) for body in server.received) == V
    assert (record.observed.topk_ids_TK[:, :V] >= 0).all()
    assert (record.observed.topk_ids_TK[:, V:] == -1).all()
