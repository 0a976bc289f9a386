"""What becomes of a run when the server behind it goes wrong."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_server import POLICY
from misbehaving_server import MisbehavingServer, closed_port

from mismatchscope.engines.registry import engine_class
from mismatchscope.engines.runtime.launcher import job_for, run_job
from mismatchscope.engines.runtime.worker import GRACE_SECONDS
from mismatchscope.engines.server import client as server_http
from mismatchscope.engines.server.client import Client
from mismatchscope.engines.server.engine import ServerEngine
from mismatchscope.engines.spec import parse_spec, resolve_options
from mismatchscope.errors import CapabilityError, ConfigError, EngineError, ModelError, PromptsError, SpecError
from mismatchscope.records import (
    Evidence,
    Request,
    Sampling,
    SequenceRecord,
    Task,
    finished_parts,
    write_requests,
)

KEY = "sk-never-to-be-shown"
SAMPLED = Evidence("sampled")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_http, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setenv("MISMATCHSCOPE_API_KEY", KEY)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"vocab_size": POLICY.vocabulary, "eos_token_id": 0}))
    return directory


@pytest.fixture
def vllm() -> Iterator[MisbehavingServer]:
    with MisbehavingServer("vllm") as server:
        yield server


@pytest.fixture
def sglang() -> Iterator[MisbehavingServer]:
    with MisbehavingServer("sglang", stage="tempered") as server:
        yield server


def connect(server: MisbehavingServer, model: Path, **options: str) -> ServerEngine:
    pairs = ",".join(f"{key}={value}" for key, value in ({"retries": "2", "timeout": "5"} | options).items())
    spec = parse_spec(f"{server.kind}@{server.url}:{pairs}")
    engine = engine_class(spec.name, served=True)(str(model), resolve_options(spec))
    engine.load()
    server.attempts.clear()
    return engine


def rollout(engine: ServerEngine, count: int = 1, evidence: Evidence = SAMPLED) -> list[SequenceRecord]:
    requests = [Request(i, i, prompt_token_ids=np.array([3, 9], dtype=np.int32)) for i in range(count)]
    return list(
        engine.rollout(requests, Task("t", "rollout", "", "", evidence, sampling=Sampling(max_new_tokens=4)))
    )


@pytest.mark.parametrize(
    "fault", ["broken", "close", "close chunked", "close at once", "malformed", "noise", "stall"]
)
def test_a_passing_fault_is_passed_over(fault: str, vllm: MisbehavingServer, model: Path) -> None:
    engine = connect(vllm, model, timeout="0.3" if fault == "stall" else "5")
    expected = rollout(engine)[0].observed.logprob_T
    vllm.attempts.clear()
    vllm.faults = [fault]
    np.testing.assert_array_equal(rollout(engine)[0].observed.logprob_T, expected)
    assert len(vllm.attempts) == 2


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("busy", "answers 429: too many requests, 3 times in a row"),
        ("broken", "answers 500: engine is dead"),
        ("close", "closed the connection in the middle of an answer"),
        ("close chunked", "closed the connection in the middle of an answer"),
        ("close at once", "closed the connection in the middle of an answer"),
        ("malformed", "answered /v1/completions with what is not JSON"),
        ("noise", "does not speak HTTP"),
        ("stall", "did not answer in time"),
        ("drip", "did not answer in time"),
    ],
)
def test_a_lasting_fault_ends_the_run_with_its_reason(
    fault: str, says: str, vllm: MisbehavingServer, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = connect(vllm, model, timeout="0.3")
    vllm.always = fault
    with pytest.raises(EngineError) as caught:
        rollout(engine)
    assert says in caught.value.message
    assert "--resume" in caught.value.hint
    assert KEY not in caught.value.message
    assert len(vllm.attempts) == 3


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("redirect", "redirects elsewhere"),
        ("refuse", "answers 400: Bad Request"),
        ("other form", "answers in another form"),
        ("null", "answers in another form"),
        ("other model", "answers with the model another in place of served"),
        ("other prompt", "ran other tokens than the prompt"),
        ("foreign id", "serves another model"),
        ("nothing", "0 token ids"),
        ("abort", "broke a response off: abort"),
    ],
)
def test_what_no_retry_mends_ends_the_run_at_once(
    fault: str, says: str, vllm: MisbehavingServer, model: Path
) -> None:
    engine = connect(vllm, model)
    vllm.always = fault
    with pytest.raises(EngineError, match=says) as caught:
        rollout(engine)
    assert "[3, 9]" not in caught.value.message, "prompts may be confidential"
    assert len(vllm.attempts) == 1


def test_a_refused_connection_is_tried_again_and_then_named(model: Path) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    spec = parse_spec(f"vllm@{url}:retries=1")
    engine = engine_class("vllm", served=True)(str(model), resolve_options(spec))
    with pytest.raises(EngineError, match=f"{url} refuses connections, 2 times in a row") as caught:
        engine.load()
    assert f"curl {url}/v1/models" in caught.value.hint


def test_a_host_that_does_not_exist_is_named() -> None:
    client = Client("http://host.invalid", timeout=5, retries=0, key_env="NONE")
    with pytest.raises(EngineError, match="cannot be found"):
        client.get("/v1/models")


def test_a_refused_key_is_a_matter_of_configuration_and_never_shown(
    vllm: MisbehavingServer, model: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = connect(vllm, model)
    vllm.always = "unauthorized"
    with pytest.raises(ConfigError, match=r"refuses access \(401\)") as caught:
        rollout(engine)
    assert caught.value.exit_code == 2
    assert "export MISMATCHSCOPE_API_KEY=" in caught.value.hint
    assert len(vllm.attempts) == 1
    shown = caught.value.message + caught.value.hint + "".join(capfd.readouterr())
    assert KEY not in shown

    monkeypatch.delenv("MISMATCHSCOPE_API_KEY")
    vllm.always = ""
    engine = connect(vllm, model)
    assert vllm.authorizations[-1] is None
    vllm.always = "unauthorized"
    with pytest.raises(ConfigError, match=r"\$MISMATCHSCOPE_API_KEY is not set"):
        rollout(engine)


def test_a_key_that_no_header_can_carry_is_refused_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("two words", "line\nbreak", "schlüssel"):
        monkeypatch.setenv("MY_KEY", key)
        with pytest.raises(ConfigError) as caught:
            Client("http://127.0.0.1:1", timeout=1, retries=0, key_env="MY_KEY")
        assert key not in caught.value.message
    monkeypatch.setenv("MY_KEY", "from-a-file\n")
    Client("http://127.0.0.1:1", timeout=1, retries=0, key_env="MY_KEY")


def test_the_key_stays_out_of_everything_that_a_run_writes(
    vllm: MisbehavingServer, model: Path, tmp_path: Path
) -> None:
    write_requests(tmp_path / "requests", [Request(0, 0, prompt_token_ids=np.array([3, 9], dtype=np.int32))])
    task = Task("t", "rollout", str(tmp_path / "requests"), str(tmp_path / "parts"), SAMPLED)
    job = job_for(parse_spec(f"vllm@{vllm.url}:retries=1"), str(model), [task])
    vllm.faults = ["broken"]
    events: list[object] = []
    run_job(job, log_path=tmp_path / "log", on_event=events.append)
    assert f"Bearer {KEY}" in vllm.authorizations
    assert "retry 1 of 1" in (tmp_path / "log").read_text()
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in written + json.dumps(events).encode()


def test_a_busy_server_is_given_the_time_that_it_asks_for(vllm: MisbehavingServer, model: Path) -> None:
    engine = connect(vllm, model)
    vllm.faults = ["busy"]
    rollout(engine)
    first, second = vllm.attempts
    assert second - first >= 1.0, "Retry-After: 1"


def test_retries_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    client = Client(f"http://127.0.0.1:{closed_port()}", timeout=1, retries=9, key_env="NONE")
    monkeypatch.setattr(server_http, "FIRST_DELAY_SECONDS", 0.5)
    monkeypatch.setattr(client._closing, "wait", waits.append)
    with pytest.raises(EngineError, match="10 times in a row"):
        client.get("/v1/models")
    longest = [min(0.5 * 2**n, 30.0) for n in range(9)]
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True))


def test_the_first_failure_ends_all_that_is_under_way(vllm: MisbehavingServer, model: Path) -> None:
    engine = connect(vllm, model, timeout="60", concurrency="4")
    vllm.faults, vllm.always = ["stall", "stall", "stall", "other model"], "stall"
    began = time.monotonic()
    with pytest.raises(EngineError, match="the model another"):
        rollout(engine, count=8)
    assert time.monotonic() - began < 10
    assert len(vllm.attempts) <= 5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


def test_an_interrupt_does_not_wait_for_a_server_that_stalls(
    vllm: MisbehavingServer, model: Path, tmp_path: Path
) -> None:
    write_requests(tmp_path / "requests", [Request(0, 0, prompt_token_ids=np.array([3, 9], dtype=np.int32))])
    task = Task("t", "rollout", str(tmp_path / "requests"), str(tmp_path / "parts"), SAMPLED)
    pids, interrupted = [], []

    def on_event(event: dict[str, Any]) -> None:
        pids.extend([event["pid"]] if event["event"] == "loading" else [])
        if event["event"] == "ready":
            vllm.always = "stall"
        if event["event"] == "task":
            time.sleep(0.3)
            interrupted.append(time.monotonic())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(
            job_for(parse_spec(f"vllm@{vllm.url}"), str(model), [task]),
            log_path=tmp_path / "log",
            on_event=on_event,
        )
    assert time.monotonic() - interrupted[0] < GRACE_SECONDS
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_an_endless_answer_is_cut_off(
    vllm: MisbehavingServer, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = connect(vllm, model)
    monkeypatch.setattr(server_http, "LARGEST_ANSWER_BYTES", 100)
    with pytest.raises(EngineError, match="answers with more than") as caught:
        rollout(engine)
    assert "topk:20" in caught.value.hint


def test_what_was_finished_before_a_fault_is_kept(vllm: MisbehavingServer, model: Path, tmp_path: Path) -> None:
    requests = [Request(i, i, prompt_token_ids=np.array([3, 9], dtype=np.int32)) for i in range(4)]
    write_requests(tmp_path / "requests", requests)
    task = Task("t", "rollout", str(tmp_path / "requests"), str(tmp_path / "parts"), SAMPLED)
    job = job_for(parse_spec(f"vllm@{vllm.url}:retries=0,concurrency=1"), str(model), [task])
    seen: list[str] = []

    def on_event(event: dict[str, Any]) -> None:
        seen.append(event["event"])
        if event["event"] == "sequence" and seen.count("sequence") == 2:
            vllm.always = "broken"

    vllm.seconds = 0.1
    with pytest.raises(EngineError, match="answers 500"):
        run_job(job, log_path=tmp_path / "log", on_event=on_event)
    kept = finished_parts(tmp_path / "parts")
    assert 2 <= len(kept) < 4
    vllm.always = ""
    run_job(job, log_path=tmp_path / "log", on_event=on_event)
    assert len(finished_parts(tmp_path / "parts")) == 4


def test_nan_is_recorded_as_what_it_is(vllm: MisbehavingServer, sglang: MisbehavingServer, model: Path) -> None:
    engine = connect(vllm, model)
    vllm.always = "nan"
    observed = rollout(engine, evidence=Evidence("topk", k=3))[0].observed
    assert np.isnan(observed.logprob_T[0])
    assert not np.isnan(observed.logprob_T[1:]).any()
    assert observed.topk_ids_TK[0].tolist() == [-1, -1, -1], "no id was seen with a probability"
    assert (observed.topk_ids_TK[1:] >= 0).all()

    engine = connect(sglang, model)
    sglang.always = "null logprob"  # NaN, as JSON without NaN has it
    assert np.isnan(rollout(engine)[0].observed.logprob_T[0])


def test_a_whole_distribution_of_nan_ends_the_run(vllm: MisbehavingServer, model: Path) -> None:
    engine = connect(vllm, model)
    vllm.always = "nan"
    with pytest.raises(EngineError, match="hold NaN"):
        rollout(engine, evidence=Evidence("full"))


def test_logits_are_not_taken_for_log_probs(vllm: MisbehavingServer, model: Path) -> None:
    engine = connect(vllm, model)
    vllm.always = "logits"
    with pytest.raises(CapabilityError, match=r"12\.5 a log-probability: it reports logits") as caught:
        rollout(engine)
    assert "--logprobs-mode raw_logprobs" in caught.value.hint


def test_weights_that_change_under_way_end_the_run(sglang: MisbehavingServer, model: Path) -> None:
    engine = connect(sglang, model)
    sglang.always = "other weights"
    with pytest.raises(EngineError, match="from 'default' to 'another'"):
        rollout(engine)


def test_other_tokens_than_were_given_are_noticed(sglang: MisbehavingServer, model: Path) -> None:
    engine = connect(sglang, model)
    sglang.always = "other tokens"
    request = Request(
        0,
        0,
        prompt_token_ids=np.array([3, 9], dtype=np.int32),
        response_token_ids=np.array([4, 5, 6], dtype=np.int32),
    )
    with pytest.raises(EngineError, match="scored other tokens"):
        list(engine.score([request], Task("t", "score", "", "", SAMPLED)))


def test_another_tokenizer_is_another_model(vllm: MisbehavingServer, tmp_path: Path) -> None:
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
    write_requests(tmp_path / "requests", [Request(0, 0, prompt_token_ids=np.array([3, 9], dtype=np.int32))])
    task = Task("t", "rollout", str(tmp_path / "requests"), str(tmp_path / "parts"), SAMPLED)
    job = job_for(parse_spec(f"vllm==0.1.2@{vllm.url}"), str(model), [task])
    with pytest.raises(SpecError, match=rf"{vllm.url} has vllm 0\..*, not 0\.1\.2\.") as caught:
        run_job(job, log_path=tmp_path / "log", on_event=lambda event: None)
    assert caught.value.hint == "leave ==0.1.2 out"


def test_what_cannot_be_sent_is_named_before_anything_is_asked(
    vllm: MisbehavingServer, model: Path, tmp_path: Path
) -> None:
    prompts = [np.full(3 if i < 5 else 60, 7, dtype=np.int32) for i in range(6)]
    write_requests(tmp_path / "requests", [Request(i, i, prompt_token_ids=ids) for i, ids in enumerate(prompts)])
    task = Task("t", "rollout", str(tmp_path / "requests"), str(tmp_path / "parts"), SAMPLED)
    job = job_for(parse_spec(f"vllm@{vllm.url}:batch_size=1"), str(model), [task])
    with pytest.raises(PromptsError, match="prompt 5 has 60 tokens"):
        run_job(job, log_path=tmp_path / "log", on_event=lambda event: None)
    assert finished_parts(tmp_path / "parts") == {}


def test_a_response_that_fills_the_context_leaves_no_room_for_the_token_behind_it(
    vllm: MisbehavingServer, sglang: MisbehavingServer, model: Path
) -> None:
    prompt, response = np.array([3, 9], dtype=np.int32), np.full(vllm.max_model_len - 2, 4, dtype=np.int32)
    task = Task("t", "score", "", "", SAMPLED)
    full = Request(0, 0, prompt_token_ids=prompt, response_token_ids=response)
    with pytest.raises(ModelError, match="has 40 tokens, the server takes 39"):
        connect(vllm, model).check([full], task)
    connect(sglang, model).check([full], task)


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_a_server_that_is_still_starting_is_not_taken_for_another_kind(kind: str, model: Path) -> None:
    with (
        MisbehavingServer(kind, always="broken") as server,
        pytest.raises(EngineError, match="answers 500") as caught,
    ):
        connect(server, model, retries="0")
    assert "--resume" in caught.value.hint
