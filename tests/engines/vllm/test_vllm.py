"""vLLM itself, in its own environments: its own log-probs, its settings, its refusals. See also test_offline.py."""

from __future__ import annotations

import json

import pytest
from offline import CUT, PLAIN, SAMPLED, VLLM, Engine, assert_reported

from mismatchscope.errors import EngineError, SpecError
from mismatchscope.records import Sampling

pytestmark = [pytest.mark.engines, pytest.mark.slow, pytest.mark.parametrize("spec", VLLM)]


@pytest.mark.parametrize(
    ("mode", "samplings"),
    [("raw", [PLAIN, CUT]), ("processed", [CUT, Sampling(max_new_tokens=24, temperature=0.7, top_p=0.9)])],
)
def test_vllm_reports_what_is_recorded(engine: Engine, mode: str, samplings: list[Sampling]) -> None:
    options = f"dtype=bfloat16,logprobs_mode={mode}_logprobs"
    tasks = {f"roll {i}": {"sampling": sampling} for i, sampling in enumerate(samplings)}
    run = engine.run(f"reported {mode}", "dense", options, tasks, reporting=True)
    for task, sampling in zip(tasks, samplings, strict=True):
        policy = "raw" if mode == "raw" and sampling.transforms else "observed"
        assert sum(assert_reported(record, policy, tolerance=2e-6) for record in run.of(task).values()) > 2000


def test_what_vllm_does_not_follow_shows(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    options = 'dtype=float32,attention_backend=FLASH_ATTN,block_size=64,compilation_config={"mode":3}'
    facts = engine.run("settings", "dense", options, {"roll": {"evidence": SAMPLED}}, fresh=True).facts
    settings, effective = facts["settings"], facts["effective"]
    assert (settings["attention_backend"], effective["attention_backend"]) == ("FLASH_ATTN", "CPU_ATTN")
    assert settings["engine_args"] == {"block_size": 64, "compilation_config": {"mode": 3}}
    assert effective["block_size"] == 64
    assert effective["compilation_config"] == {"mode": "NONE"}, "enforce_eager goes before it"
    assert (effective["dtype"], effective["kv_cache_dtype"], effective["parameters"]) == ("float32",) * 3
    assert effective["max_num_seqs"] > 0 and effective["enable_prefix_caching"] is True
    json.dumps(facts, allow_nan=False)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ("enforce_eagr=true", SpecError, "no engine argument 'enforce_eagr'"),
        ("kv_cache_dtype=fp99", SpecError, "refuses these settings: cache_dtype"),
        ("max_model_len=100000", SpecError, "max_model_len"),
    ],
)
def test_a_setting_that_vllm_does_not_have(engine: Engine, options: str, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        engine.run("refused", "dense", options, {"roll": {}})


def test_more_memory_than_there_is(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "100000")
    with pytest.raises(EngineError, match=r"(?i)memory") as caught:
        engine.run("memory", "dense", "dtype=auto", {"roll": {}})
    assert "VLLM_CPU_KVCACHE_SPACE" in caught.value.hint
