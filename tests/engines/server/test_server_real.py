"""The servers of vLLM and SGLang themselves, on loopback, against the same weights in transformers.

Shapes: T response tokens, K observed ids, R states with a full distribution, V vocabulary.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from misbehaving_server import closed_port

from mismatchscope.demo import model_path
from mismatchscope.engines.registry import engine_class
from mismatchscope.engines.server.engine import ServerEngine
from mismatchscope.engines.spec import parse_spec, resolve_options
from mismatchscope.environments import find
from mismatchscope.errors import CapabilityError, ConfigError
from mismatchscope.records import Evidence, Policy, Request, Sampling, SequenceRecord, Task, request_to_score

pytestmark = [pytest.mark.engines, pytest.mark.slow]

START_SECONDS = 600
TOLERANCE = 1e-4
KEY = "sk-loopback"
PROMPTS = ["2 + 2 =", "Tom has 3 apples.", "7 * 8 =", "She buys 12 eggs and"]
FULL, TOPK = Evidence("full"), Evidence("topk", k=5)
UNCHANGED = Sampling(max_new_tokens=10, seed=1)
WARM = Sampling(max_new_tokens=10, temperature=0.7, seed=1)
NUCLEUS = Sampling(max_new_tokens=10, temperature=0.7, top_p=0.9, seed=1)
CUT = Sampling(max_new_tokens=10, temperature=0.7, top_k=12, seed=1)
BOTH = Sampling(max_new_tokens=10, temperature=0.7, top_p=0.9, top_k=12, seed=1)

COMMANDS = {
    "vllm": "-m vllm.entrypoints.cli.main serve {model} --served-model-name dense alias --dtype float32 "
    "--enforce-eager --max-model-len 256 --max-logprobs -1",
    "vllm processed": "-m vllm.entrypoints.cli.main serve {model} --dtype float32 --enforce-eager "
    "--max-model-len 256 --logprobs-mode processed_logprobs --api-key " + KEY,
    "sglang": "-m sglang.launch_server --model-path {model} --dtype float32 --device cpu --attention-backend "
    "torch_native --max-total-tokens 8192 --max-running-requests 16 --mem-fraction-static 0.3 "
    "--skip-server-warmup --sleep-on-idle",
}
VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "SGLANG_USE_CPU_ENGINE": "1",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(model_path("dense"), tmp_path_factory.mktemp("model") / "dense"))


@contextmanager
def running(command: str, model: Path, log: Path) -> Iterator[str]:
    """A server of its own session until the end; its URL once it answers /health."""
    environment = find(command.split()[0])
    if environment is None:
        pytest.skip(f"mismatchscope env create {command.split()[0]}")
    port = closed_port()
    arguments = COMMANDS[command].format(model=model).split()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [environment.python, *arguments, "--host", "127.0.0.1", "--port", str(port)],
            env=os.environ | VARIABLES,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _await_health(url, process, log)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _await_health(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(1)
    pytest.fail(f"no answer in {START_SECONDS} s: {log.read_text(errors='replace')[-3000:]}")


def connect(spec: str, model: Path) -> ServerEngine:
    engine = engine_class(spec.partition("@")[0], served=True)(str(model), resolve_options(parse_spec(spec)))
    engine.load()
    return engine


@pytest.fixture(scope="module", params=["vllm", "sglang"])
def server(request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A SPEC of each kind of server."""
    with running(request.param, model, tmp_path_factory.mktemp("log") / "log") as url:
        yield f"{request.param}@{url}"


@pytest.fixture(scope="module")
def engine(server: str, model: Path) -> Iterator[ServerEngine]:
    engine = connect(server, model)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def reference(model: Path):
    spec = parse_spec("transformers:dtype=float32,attn=eager,threads=1,device=cpu")
    engine = engine_class("transformers")(str(model), resolve_options(spec))
    engine.load()
    return engine


def sample(
    engine, evidence: Evidence, sampling: Sampling, prompts: Sequence[str] = PROMPTS
) -> list[SequenceRecord]:
    requests = [Request(i, i, prompt=text) for i, text in enumerate(prompts)]
    return sorted(
        engine.rollout(requests, Task("t", "rollout", "", "", evidence, sampling=sampling)),
        key=lambda record: record.sequence_id,
    )


def rescore(
    engine, records: Sequence[SequenceRecord], evidence: Evidence, policy: Policy, sampling: Sampling
) -> list[SequenceRecord]:
    task = Task("t", "score", "", "", evidence, policy, sampling)
    requests = [request_to_score(record, task.evidence, task.policy) for record in records]
    return sorted(engine.score(requests, task), key=lambda record: record.sequence_id)


def assert_agree(a, b) -> None:
    assert np.abs(a.logprob_T - b.logprob_T).max() <= TOLERANCE
    if a.full_logprobs_RV is not None:
        tv_R = 0.5 * np.abs(np.exp(a.full_logprobs_RV) - np.exp(b.full_logprobs_RV)).sum(axis=1)
        assert tv_R.max() <= TOLERANCE
    if a.topk_ids_TK is not None:
        np.testing.assert_array_equal(a.topk_ids_TK, b.topk_ids_TK)
        # Rounding moves log p by a share of its size: a candidate at e^-14 is farther off than a likely one.
        np.testing.assert_allclose(a.topk_logprobs_TK, b.topk_logprobs_TK, rtol=2e-5, atol=TOLERANCE)


def test_the_server_is_found_to_be_what_it_is(engine: ServerEngine, model: Path) -> None:
    facts = engine.facts()
    assert facts["engine_version"] == find(engine.name).version
    assert facts["effective"]["logprobs_stage"] == {"vllm": "raw", "sglang": "tempered"}[engine.name]
    assert facts["effective"]["logprobs_cap"] == facts["model"]["vocabulary_size"]
    assert facts["effective"]["vocabulary_checked"] and facts["effective"]["tokenizer_checked"]
    assert facts["model"]["weights_sha256"] is not None, "it read the directory that we see"
    assert facts["max_length"] == (256 if engine.name == "vllm" else 1024)


@pytest.mark.parametrize("sampling", [UNCHANGED, WARM, NUCLEUS, CUT], ids=["unchanged", "warm", "nucleus", "cut"])
@pytest.mark.parametrize("evidence", [FULL, TOPK], ids=lambda evidence: evidence.level)
def test_what_a_server_samples_from_is_what_transformers_computes(
    engine: ServerEngine, reference, evidence: Evidence, sampling: Sampling
) -> None:
    records = sample(engine, evidence, sampling)
    scored = rescore(reference, records, evidence, "processed", sampling)
    for record, other in zip(records, scored, strict=True):
        assert record.finish_reason == ("stop" if record.response_token_ids[-1] == 0 else "length")
        assert_agree(record.observed, other.observed)
    if records[0].raw is not None:
        raw = rescore(reference, records, evidence, "raw", sampling)
        for record, other in zip(records, raw, strict=True):
            assert_agree(record.raw, other.observed)
    # SGLang lists whole distributions where the nucleus is computed from them; raw ones come with those.
    whole = evidence is FULL or sampling is NUCLEUS
    assert (records[0].raw is not None) == (sampling is not UNCHANGED and (engine.name == "vllm" or whole))


def test_each_server_joins_top_k_and_top_p_in_its_own_way(engine: ServerEngine, reference) -> None:
    """After top-k, vLLM and transformers count top-p over what is left; SGLang over all ids."""
    records = sample(engine, FULL, BOTH)
    raw = rescore(reference, records, FULL, "raw", BOTH)
    for record, other in zip(records, raw, strict=True):
        logits_TV = other.observed.full_logprobs_RV.astype(np.float64) / BOTH.temperature
        order_TV = np.argsort(-logits_TV, axis=1, kind="stable")
        p_TV = np.exp(np.take_along_axis(logits_TV, order_TV, axis=1))
        kept_TV = np.broadcast_to(np.arange(p_TV.shape[1]) < BOTH.top_k, p_TV.shape)
        counted_TV = p_TV if engine.name == "sglang" else np.where(kept_TV, p_TV, 0.0)
        share_TV = counted_TV / counted_TV.sum(axis=1, keepdims=True)
        kept_TV = kept_TV & (share_TV.cumsum(axis=1) - share_TV < BOTH.top_p)
        expected_TV = np.zeros_like(p_TV)
        np.put_along_axis(expected_TV, order_TV, np.where(kept_TV, p_TV, 0.0), axis=1)
        expected_TV /= expected_TV.sum(axis=1, keepdims=True)
        seen_TV = np.exp(record.observed.full_logprobs_RV)
        assert 0.5 * np.abs(seen_TV - expected_TV).sum(axis=1).max() <= TOLERANCE


@pytest.mark.parametrize("sampling", [UNCHANGED, NUCLEUS], ids=["unchanged", "nucleus"])
@pytest.mark.parametrize("evidence", [FULL, TOPK], ids=lambda evidence: evidence.level)
def test_given_tokens_are_scored_as_transformers_scores_them(
    engine: ServerEngine, reference, evidence: Evidence, sampling: Sampling
) -> None:
    records = sample(reference, evidence, sampling)
    policy: Policy = "raw" if sampling is UNCHANGED else "processed"
    ours = rescore(engine, records, evidence, policy, sampling)
    theirs = rescore(reference, records, evidence, policy, sampling)
    for a, b in zip(ours, theirs, strict=True):
        assert_agree(a.observed, b.observed)


def test_a_draw_repeats_with_its_seed(engine: ServerEngine) -> None:
    if engine.name == "sglang":
        pytest.skip("SGLang draws from seeds in its deterministic mode alone, which no CPU has")
    first, second = (
        [record.response_token_ids.tolist() for record in sample(engine, TOPK, WARM)] for _ in range(2)
    )
    assert first == second


def test_every_name_of_a_model_is_the_model(server: str, model: Path) -> None:
    kind, _, url = server.partition("@")
    if kind == "sglang":
        pytest.skip("SGLang serves a model under one name")
    for name in ("vllm", "openai"):
        engine = connect(f"{name}@{url}:model=alias", model)
        assert len(sample(engine, TOPK, UNCHANGED)) == len(PROMPTS)
        engine.close()


def test_a_server_of_processed_log_probs(model: Path, reference, tmp_path: Path, monkeypatch) -> None:
    with running("vllm processed", model, tmp_path / "log") as url:
        with pytest.raises(ConfigError, match="refuses access"):
            connect(f"vllm@{url}", model)
        monkeypatch.setenv("MISMATCHSCOPE_API_KEY", KEY)
        engine = connect(f"vllm@{url}", model)
        assert engine.facts()["effective"]["logprobs_stage"] == "processed"
        assert engine.facts()["effective"]["logprobs_cap"] == 20
        for sampling in (WARM, BOTH):
            records = sample(engine, TOPK, sampling)
            assert all(record.raw is None for record in records)
            scored = rescore(reference, records, TOPK, "processed", sampling)
            for record, other in zip(records, scored, strict=True):
                assert_agree(record.observed, other.observed)
        with pytest.raises(CapabilityError, match="at most 20"):
            sample(engine, FULL, UNCHANGED)
        engine.close()
