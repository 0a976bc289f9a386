"""What is found out about a server before anything runs on it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from fake_server import POLICY, FakeServer
from misbehaving_server import MisbehavingServer
from server_engine import SAMPLED, UNCHANGED, Connect, V, job_of, rollout, short_requests

from mismatchscope.engines.runtime.launcher import run_job
from mismatchscope.engines.server.checks import find_stage
from mismatchscope.engines.server.logprobs import TokenLogprobs
from mismatchscope.errors import CapabilityError, EngineError, ModelError, PromptsError, SpecError
from mismatchscope.records import Request, Sampling, Task, finished_parts


def test_a_server_that_answers_in_text_alone_is_refused(connect: Connect) -> None:
    with FakeServer("openai", text_only=True) as server, pytest.raises(CapabilityError, match="by their text"):
        connect(server)


def test_the_model_is_the_one_named_or_the_only_one(connect: Connect, model: Path) -> None:
    with FakeServer("vllm", names=["one", "two"]) as server:
        assert connect(server).served_name == "one", "both are names of one model"
        engine = connect(server, model="two")
        assert engine.served_name == "two"
        assert rollout(engine, SAMPLED, UNCHANGED), "vLLM answers with the first name"
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
        "config": None,
        "generation_config": None,
        "files": None,
        "chat_template_sha256": None,
    }
    assert facts["max_length"] == 40
    assert facts["effective"]["dtype"] == "float32"
    assert (facts["effective"]["vocabulary_checked"], facts["effective"]["tokenizer_checked"]) == (True, False)
    text = json.dumps(facts)
    assert "sk-do-not-show" not in text
    assert "never to be written" not in text, "a server's own settings hold its keys"


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


@pytest.mark.parametrize(
    ("raw", "hot", "cut"),
    [
        ([-1.0, -1.1, -1.2], [-1.0, -1.05, -1.1], [0.0]),  # too even
        ([-0.001, -7.0, -8.0], [-0.03, -3.5, -4.0], [0.0]),  # too sure
        ([-0.5, -1.5, -2.5], [-0.5, -1.5, -2.5], [0.0]),  # truncated, and yet not tempered
        ([-0.5, -1.5, -2.5], [-0.9], [0.0]),  # no two log-probs to compare
    ],
)
def test_an_unclear_stage_stays_unknown(raw: list[float], hot: list[float], cut: list[float]) -> None:
    async def sample_first(prompt: np.ndarray, sampling: Sampling) -> TokenLogprobs:
        values = hot if sampling.temperature == 2 else cut if sampling.top_p < 1 else raw
        return TokenLogprobs.from_rows(values[:1], [(list(range(len(values))), values)])

    assert asyncio.run(find_stage(sample_first, [np.array([1]), np.array([2])])) is None


def test_another_kind_of_server_is_named(connect: Connect) -> None:
    with FakeServer("openai") as server:
        server.kind = "vllm"
        server.respond = lambda path, body: FakeServer.respond(server, path, body) if path == "/v1/models" else None
        with pytest.raises(EngineError, match="does not tell its version") as caught:
            connect(server)
    assert "openai@URL" in caught.value.hint


def test_another_tokenizer_is_another_model(vllm: MisbehavingServer, connect: Connect, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    pytest.importorskip("transformers")
    words = {"[UNK]": 0} | {f"w{n}": n for n in range(1, POLICY.vocabulary)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": POLICY.vocabulary, "eos_token_id": 0}))
    vllm.tokenized = [1, 2, 3]
    with pytest.raises(EngineError.__base__, match="tokenises otherwise"):
        connect(vllm, tmp_path)

    vllm.tokenized = None
    engine = connect(vllm, tmp_path)
    assert engine.facts()["effective"]["tokenizer_checked"] is False
    request = Request(0, 0, prompt="w5 w6 w7")
    record = next(engine.rollout([request], Task("t", "rollout", "", "", SAMPLED)))
    assert record.prompt_token_ids.tolist() == [5, 6, 7]
    assert vllm.generations[-1]["prompt"] == [5, 6, 7], "text stays here"
    assert len(record.response_pieces) == len(record.response_token_ids)


def test_another_version_than_asked_for_is_refused(vllm: MisbehavingServer, model: Path, tmp_path: Path) -> None:
    job = job_of(f"vllm==0.1.2@{vllm.url}", model, tmp_path, short_requests(1))
    with pytest.raises(SpecError, match=rf"{vllm.url} has vllm 0\..*, not 0\.1\.2\.") as caught:
        run_job(job, log_path=tmp_path / "log", on_event=lambda event: None)
    assert caught.value.hint == "leave ==0.1.2 out"


def test_what_cannot_be_sent_is_named_before_anything_is_asked(
    vllm: MisbehavingServer, model: Path, tmp_path: Path
) -> None:
    prompts = [np.full(3 if i < 5 else 60, 7, dtype=np.int32) for i in range(6)]
    requests = [Request(i, i, prompt_token_ids=ids) for i, ids in enumerate(prompts)]
    job = job_of(f"vllm@{vllm.url}:batch_size=1", model, tmp_path, requests)
    with pytest.raises(PromptsError, match="prompt 5 has 60 tokens"):
        run_job(job, log_path=tmp_path / "log", on_event=lambda event: None)
    assert finished_parts(tmp_path / "parts") == {}


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_a_server_that_is_still_starting_is_not_taken_for_another_kind(
    kind: str, hurry: None, connect: Connect
) -> None:
    with (
        MisbehavingServer(kind, always="broken") as server,
        pytest.raises(EngineError, match="answers 500") as caught,
    ):
        connect(server)
    assert "--resume" in caught.value.hint
