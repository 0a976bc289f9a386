"""Engines behind a URL, against honest servers whose distributions are known exactly.

Shapes: T response tokens, K observed ids, V vocabulary.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_server import POLICY, FakeServer, distributions

from mismatchscope.engines.registry import engine_class
from mismatchscope.engines.runtime.launcher import job_for, run_job
from mismatchscope.engines.server.checks import find_stage
from mismatchscope.engines.server.engine import ServerEngine
from mismatchscope.engines.server.listed import Listed, listing
from mismatchscope.engines.server.visibility import Sight
from mismatchscope.engines.spec import parse_spec, resolve_options
from mismatchscope.errors import CapabilityError, EngineError, ModelError, PromptsError, SpecError
from mismatchscope.records import (
    Evidence,
    Request,
    Sampling,
    SequenceRecord,
    Task,
    finished_parts,
    read_part,
    write_requests,
)

V = POLICY.vocabulary
KINDS = ("vllm", "sglang", "openai")
SAMPLED, TOPK, FULL = Evidence("sampled"), Evidence("topk", k=4), Evidence("full")
PLAIN = Sampling(max_new_tokens=6, seed=5)
WARM = Sampling(max_new_tokens=6, temperature=0.7, seed=5)
CUT = Sampling(max_new_tokens=6, temperature=0.7, top_k=7, top_p=0.9, seed=5)
GREEDY = Sampling(max_new_tokens=6, temperature=0.0)
REQUESTS = [Request(i, i, prompt_token_ids=np.array([3 + i, 9, 20], dtype=np.int32)) for i in range(5)]

Connect = Callable[..., ServerEngine]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model directory without a tokenizer and without weights."""
    directory = tmp_path / "model"
    directory.mkdir()
    config = {"vocab_size": V, "max_position_embeddings": 64, "eos_token_id": 0, "architectures": ["Fake"]}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture
def connect(model: Path) -> Iterator[Connect]:
    engines = []

    def connect(server: FakeServer, **options: str) -> ServerEngine:
        pairs = ",".join(f"{key}={value}" for key, value in ({"retries": "0"} | options).items())
        spec = parse_spec(f"{server.kind}@{server.url}:{pairs}")
        engine = engine_class(spec.name, served=True)(str(model), resolve_options(spec))
        engines.append(engine)
        engine.load()
        return engine

    yield connect
    for engine in engines:
        if hasattr(engine, "client"):
            engine.close()


def rollout(engine: ServerEngine, evidence: Evidence, sampling: Sampling, **task: Any) -> list[SequenceRecord]:
    records = engine.rollout(REQUESTS, Task("t", "rollout", "", "", evidence, sampling=sampling, **task))
    return sorted(records, key=lambda record: record.sequence_id)


def rescored(record: SequenceRecord, ids_TK: np.ndarray | None = None) -> Request:
    kth_T = None if ids_TK is None else np.full(len(ids_TK), -3.0)
    return Request(
        record.sequence_id,
        record.prompt_id,
        record.prompt_token_ids,
        response_token_ids=record.response_token_ids,
        finish_reason=record.finish_reason,
        observed_ids_TK=ids_TK,
        kth_logprob_T=kth_T,
    )


def truth(kind: str, stage: str, record: SequenceRecord, sampling: Sampling) -> np.ndarray:
    tokens = [*record.prompt_token_ids.tolist(), *record.response_token_ids.tolist()]
    return distributions(kind, stage, tokens, len(record.prompt_token_ids), sampling)


def assert_sees(observed: Any, logp_TV: np.ndarray, token_T: np.ndarray, evidence: Evidence) -> None:
    row_T = np.arange(len(token_T))
    np.testing.assert_allclose(observed.logprob_T, logp_TV[row_T, token_T], atol=1e-5)
    if evidence.level == "full":
        assert observed.full_row_R.tolist() == row_T.tolist()
        np.testing.assert_allclose(observed.full_logprobs_RV, logp_TV, atol=1e-5)
    if evidence.level == "topk":
        best_TK = np.argsort(-logp_TV, axis=1, kind="stable")[:, : evidence.k]
        logp_TK = np.take_along_axis(logp_TV, best_TK, axis=1)
        seen_TK = np.isfinite(logp_TK)
        np.testing.assert_array_equal(observed.topk_ids_TK, np.where(seen_TK, best_TK, -1))
        np.testing.assert_allclose(observed.topk_logprobs_TK, np.where(seen_TK, logp_TK, np.nan), atol=1e-5)


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
        records = rollout(connect(server), evidence, PLAIN)
    assert [record.sequence_id for record in records] == [0, 1, 2, 3, 4]
    assert {record.finish_reason for record in records} == {"stop", "length"}
    for record in records:
        assert (record.response_token_ids[-1] == 0) == (record.finish_reason == "stop")
        assert record.raw is None, "there is no transform to tell it apart"
        assert_sees(record.observed, truth(kind, "raw", record, PLAIN), record.response_token_ids, evidence)


@pytest.mark.parametrize("evidence", [SAMPLED, TOPK, FULL], ids=lambda e: e.level)
@pytest.mark.parametrize("sampling", [WARM, CUT, GREEDY], ids=["warm", "cut", "greedy"])
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
        ("vllm", "raw", CUT, "--logprobs-mode processed_logprobs"),
        ("openai", "raw", WARM, "--temperature 1"),
        ("openai", "tempered", Sampling(top_p=0.9), "--top-p 1"),
        ("openai", "processed", CUT, "--top-k 0"),
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
            rollout(engine, FULL, CUT, policy="raw")
    assert "--logprobs-mode raw_logprobs" in caught.value.hint


def test_more_evidence_than_the_server_gives_is_refused_with_its_cap(connect: Connect) -> None:
    with FakeServer("vllm", cap=20) as server:
        engine = connect(server)
        assert engine.facts()["effective"]["logprobs_cap"] == 20
        for evidence in (FULL, Evidence("topk", k=21)):
            with pytest.raises(CapabilityError, match="at most 20 log-probs") as caught:
                rollout(engine, evidence, PLAIN)
            assert "topk:20" in caught.value.hint
        assert rollout(engine, Evidence("topk", k=20), PLAIN)[0].observed.topk_ids_TK.shape[1] == 20


def test_an_answer_that_does_not_fit_into_memory_is_not_asked_for(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mismatchscope.engines.server import visibility

    with FakeServer("vllm", seconds=0.02) as server:
        engine = connect(server)
        monkeypatch.setattr(visibility, "LARGEST_ANSWERS_BYTES", 2 * 80 * V * PLAIN.max_new_tokens)
        rollout(engine, SAMPLED, PLAIN)
        assert server.most_at_once > 2
        server.most_at_once = 0
        rollout(engine, FULL, PLAIN)
        assert server.most_at_once <= 2
        with pytest.raises(CapabilityError, match="MiB"):
            rollout(engine, FULL, Sampling(max_new_tokens=20))


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
        requests = [rescored(record) for record in rollout(engine, SAMPLED, PLAIN)]
        scored = list(engine.score(requests, Task("t", "score", "", "", evidence, policy="raw", sampling=CUT)))
    assert len(scored) == 5
    for record in scored:
        assert_sees(record.observed, truth(kind, "raw", record, PLAIN), record.response_token_ids, evidence)


@pytest.mark.parametrize("sampling", [WARM, CUT, GREEDY], ids=["warm", "cut", "greedy"])
@pytest.mark.parametrize("evidence", [SAMPLED, TOPK, FULL], ids=lambda e: e.level)
@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_a_scored_policy_goes_through_all_transforms(
    kind: str, evidence: Evidence, sampling: Sampling, connect: Connect
) -> None:
    with FakeServer(kind) as server:
        engine = connect(server)
        requests = [rescored(record) for record in rollout(engine, SAMPLED, sampling)]
        scored = list(engine.score(requests, Task("t", "score", "", "", evidence, sampling=sampling)))
    for record in scored:
        logp_TV = truth(kind, "processed", record, sampling)
        assert_sees(record.observed, logp_TV, record.response_token_ids, evidence)


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_top_k_is_scored_at_the_ids_that_the_behaviour_listed(kind: str, connect: Connect) -> None:
    with FakeServer(kind) as server:
        engine = connect(server)
        requests = []
        for record in rollout(engine, SAMPLED, PLAIN):
            length = len(record.response_token_ids)
            ids_TK = np.random.default_rng(record.sequence_id).permuted(np.tile(np.arange(V), (length, 1)), axis=1)
            ids_TK = np.where(np.arange(4) < 3, ids_TK[:, :4], -1).astype(np.int32)
            requests.append(rescored(record, ids_TK))
        server.received.clear()
        scored = list(engine.score(requests, Task("t", "score", "", "", TOPK, policy="raw")))
        asked = server.received
    for record in scored:
        logp_TV = truth(kind, "raw", record, PLAIN)
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
        record = rollout(engine, TOPK, PLAIN)[0]
        request = rescored(record, record.observed.topk_ids_TK)
        with pytest.raises(CapabilityError, match="ids that the behaviour listed") as caught:
            list(engine.score([request], Task("t", "score", "", "", TOPK, policy="raw")))
        assert "--max-logprobs -1" in caught.value.hint


def test_draws_depend_on_the_seed_and_the_sequence_alone(connect: Connect) -> None:
    def responses(server: FakeServer, sampling: Sampling, batch: list[Request]) -> dict[int, list[int]]:
        records = connect(server).rollout(batch, Task("t", "rollout", "", "", SAMPLED, sampling=sampling))
        return {record.sequence_id: record.response_token_ids.tolist() for record in records}

    with FakeServer("vllm") as server:
        first = responses(server, PLAIN, REQUESTS)
        assert responses(server, PLAIN, REQUESTS[::-1]) == first
        assert responses(server, PLAIN, REQUESTS[2:3]) == {2: first[2]}
        assert responses(server, Sampling(max_new_tokens=6, seed=6), REQUESTS) != first
        seeds = [body["seed"] for body in server.generations if body["max_tokens"] == 6]
    assert len(set(seeds)) == 10
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_as_many_requests_are_under_way_as_allowed(connect: Connect) -> None:
    with FakeServer("vllm", seconds=0.03) as server:
        rollout(connect(server, concurrency="3"), SAMPLED, PLAIN)
        assert server.most_at_once == 3


def test_a_response_ends_where_the_server_has_no_more_room(connect: Connect) -> None:
    with FakeServer("vllm", max_model_len=5) as server:
        records = rollout(connect(server), SAMPLED, PLAIN)
    assert max(len(record.response_token_ids) for record in records) == 2


def test_ids_outside_the_vocabulary_never_leave(connect: Connect) -> None:
    with FakeServer("sglang") as server:
        engine = connect(server)
        before = len(server.received)
        bad = Request(0, 7, prompt_token_ids=np.array([1, V], dtype=np.int32))
        with pytest.raises(PromptsError, match=f"prompt 7 has the token id {V}"):
            list(engine.rollout([bad], Task("t", "rollout", "", "", SAMPLED)))
        with pytest.raises(PromptsError, match="takes 40"):
            too_long = Request(0, 8, prompt_token_ids=np.ones(40, dtype=np.int32))
            list(engine.rollout([too_long], Task("t", "rollout", "", "", SAMPLED)))
        response = Request(
            3, 3, prompt_token_ids=np.array([1], dtype=np.int32), response_token_ids=np.array([V], dtype=np.int32)
        )
        with pytest.raises(ModelError, match="sequence 3"):
            list(engine.score([response], Task("t", "score", "", "", SAMPLED)))
        assert len(server.received) == before


def test_a_server_that_answers_in_text_alone_is_refused(connect: Connect) -> None:
    with FakeServer("openai", text_only=True) as server, pytest.raises(CapabilityError, match="by their text"):
        connect(server)


def test_the_model_is_the_one_named_or_the_only_one(connect: Connect, model: Path) -> None:
    with FakeServer("vllm", names=["one", "two"]) as server:
        assert connect(server).served_name == "one", "both are names of one model"
        engine = connect(server, model="two")
        assert engine.served_name == "two"
        assert rollout(engine, SAMPLED, PLAIN), "vLLM answers with the first name"
        with pytest.raises(ModelError, match="does not serve the model tow; it has one, two") as caught:
            connect(server, model="tow")
        assert caught.value.hint == "did you mean model=two?"
        server.root = None
        with pytest.raises(ModelError, match="several models"):
            connect(server)
        server.names = [str(model), "other"]
        assert connect(server).served_name == str(model)
        server.names = []
        with pytest.raises(ModelError, match="no model"):
            connect(server)


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_another_vocabulary_is_another_model(kind: str, connect: Connect, model: Path) -> None:
    (model / "config.json").write_text(json.dumps({"vocab_size": V + 16}))
    with FakeServer(kind) as server, pytest.raises(ModelError, match=f"{V} token ids, --model has {V + 16}"):
        connect(server)


def test_the_vocabulary_is_found_out_below_a_cap_too(connect: Connect, model: Path) -> None:
    (model / "config.json").write_text(json.dumps({"vocab_size": V + 16}))
    with FakeServer("vllm", cap=5) as server, pytest.raises(ModelError, match=f"{V} token ids"):
        connect(server)


def test_facts_say_what_was_checked_and_hold_no_key(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-do-not-show")
    with FakeServer("sglang") as server:
        facts = connect(server, key_env="MY_KEY").facts()
        assert server.authorizations.count("Bearer sk-do-not-show") == len(server.authorizations)
    assert facts["engine_version"] == "0.5.23"
    assert facts["model"] == {
        "name": "served",
        "path": "/models/served",
        "architecture": "Fake",
        "weights_sha256": None,
        "vocabulary_size": V,
        "dtype_stored": None,
    }
    assert facts["max_length"] == 40
    assert facts["effective"]["dtype"] == "float32"
    assert (facts["effective"]["vocabulary_checked"], facts["effective"]["tokenizer_checked"]) == (True, False)
    text = json.dumps(facts)
    assert "sk-do-not-show" not in text
    assert "never to be written" not in text, "a server's own settings hold its keys"


def test_a_killed_run_goes_on_without_asking_again(model: Path, tmp_path: Path) -> None:
    write_requests(tmp_path / "requests", REQUESTS)
    with FakeServer("vllm") as server:
        spec = parse_spec(f"vllm@{server.url}:batch_size=2")
        task = Task("t", "rollout", str(tmp_path / "requests"), str(tmp_path / "parts"), TOPK, sampling=PLAIN)
        job = job_for(spec, str(model), [task])
        run_job(job, log_path=tmp_path / "log", on_event=lambda _: None)
        parts = finished_parts(tmp_path / "parts")
        kept = {key: path.read_bytes() for key, path in parts.items()}
        assert sorted(kept) == [0, 1, 2, 3, 4]
        assert [read_part(parts[key]).batch for key in sorted(kept)] == [0, 0, 1, 1, 2]

        parts[3].unlink()
        server.received.clear()
        run_job(job, log_path=tmp_path / "log", on_event=lambda _: None)
        assert {key: path.read_bytes() for key, path in finished_parts(tmp_path / "parts").items()} == kept
        prompts = sorted(body["prompt"][0] for body in server.generations if body["max_tokens"] == 6)
        assert prompts == [5, 6], "the batch of sequences 2 and 3, and nothing else"


def test_a_spec_with_a_url_is_the_server() -> None:
    spec = parse_spec("vllm@http://127.0.0.1:8000/v1/:concurrency=2")
    assert engine_class("vllm", served=True).__name__ == "VllmServer"
    assert resolve_options(spec).url == "http://127.0.0.1:8000"
    with pytest.raises(SpecError, match="needs the URL") as caught:
        resolve_options(parse_spec("openai"))
    assert caught.value.hint == "openai@http://127.0.0.1:8000"
    with pytest.raises(SpecError, match="has no URL"):
        resolve_options(parse_spec("transformers@http://127.0.0.1:8000"))
    with pytest.raises(SpecError) as caught:
        resolve_options(parse_spec("vlm@http://127.0.0.1:8000"))
    assert caught.value.hint == "did you mean vllm?"
    with pytest.raises(SpecError, match="concurrency=0"):
        resolve_options(parse_spec("vllm@http://127.0.0.1:8000:concurrency=0"))


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(SpecError) as caught:
        resolve_options(parse_spec("vllm@http://me:hunter2@127.0.0.1:8000"))
    assert "hunter2" not in caught.value.message + caught.value.hint
    with pytest.raises(SpecError, match="goes on behind its path") as caught:
        resolve_options(parse_spec("vllm@http://127.0.0.1:8000?api_key=hunter2"))
    assert "hunter2" not in caught.value.message + caught.value.hint
    for url in ("http://127.0.0.1:80000", "http://127.0.0.1:eighty"):
        with pytest.raises(SpecError, match="not the URL"):
            resolve_options(parse_spec(f"vllm@{url}"))


@pytest.mark.parametrize("kind", KINDS)
def test_servers_answer_to_their_names_and_import_no_framework(kind: str) -> None:
    engine = engine_class(kind, served=True)
    assert (engine.name, engine.capabilities.paths) == (kind, ("prefill",))
    heavy = ("torch", "transformers", "vllm", "sglang", "pandas", "pyarrow", "scipy", "pydantic")
    program = (
        f"import sys; from mismatchscope.engines.registry import engine_class; "
        f"engine_class({kind!r}, served=True); print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("plain", "hot", "cut"),
    [
        ([-1.0, -1.1, -1.2], [-1.0, -1.05, -1.1], [0.0]),  # too even
        ([-0.001, -7.0, -8.0], [-0.03, -3.5, -4.0], [0.0]),  # too sure
        ([-0.5, -1.5, -2.5], [-0.5, -1.5, -2.5], [0.0]),  # truncated, and yet not tempered
        ([-0.5, -1.5, -2.5], [-0.9], [0.0]),  # no two log-probs to compare
    ],
)
def test_an_unclear_stage_stays_unknown(plain: list[float], hot: list[float], cut: list[float]) -> None:
    def first_token(prompt: np.ndarray, sampling: Sampling) -> Listed:
        values = hot if sampling.temperature == 2 else cut if sampling.top_p < 1 else plain
        return listing(values[:1], [(range(len(values)), values)])

    assert find_stage(first_token, [np.array([1]), np.array([2])]) is None


def test_without_a_known_stage_only_plain_sampling_is_left() -> None:
    sight = Sight("URL", V, None, V, 40, "whole", "draw")
    task = Task("t", "rollout", "", "", SAMPLED, sampling=PLAIN)
    assert sight.for_rollout(task).policies == ("processed",)
    with pytest.raises(CapabilityError, match="does not show") as caught:
        sight.for_rollout(Task("t", "rollout", "", "", SAMPLED, sampling=WARM))
    assert "--temperature 1" in caught.value.hint


def test_no_more_log_probs_are_asked_for_than_there_are_ids(connect: Connect) -> None:
    with FakeServer("sglang") as server:
        record = rollout(connect(server), Evidence("topk", k=V + 10), PLAIN)[0]
        assert max(body.get("top_logprobs_num", 0) for body in server.received) == V
    assert (record.observed.topk_ids_TK[:, :V] >= 0).all()
    assert (record.observed.topk_ids_TK[:, V:] == -1).all()


def test_another_kind_of_server_is_named(connect: Connect) -> None:
    with FakeServer("openai") as server:
        server.kind = "vllm"
        server.answer = lambda path, body: FakeServer.answer(server, path, body) if path == "/v1/models" else None
        with pytest.raises(EngineError, match="does not tell its version") as caught:
            connect(server)
    assert "openai@URL" in caught.value.hint
