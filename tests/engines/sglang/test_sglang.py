"""SGLang itself, in its own environment: its own log-probs, its settings, its limits. See also test_offline.py."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from offline import CUT, PLAIN, SAMPLED, SGLANG, Engine, assert_reported, kill_after
from safetensors.torch import load_file, save_file

from mismatchscope.errors import EngineError, ModelError, SpecError
from mismatchscope.records import Request, write_requests

pytestmark = [pytest.mark.engines, pytest.mark.slow, pytest.mark.parametrize("spec", SGLANG)]


def test_sglang_reports_what_is_recorded(engine: Engine) -> None:
    tasks = {"roll": {"sampling": PLAIN}, "cut": {"sampling": CUT}}
    run = engine.run("reported", "dense", "dtype=float32", tasks, reporting=True)
    for task, policy in (("roll", "observed"), ("cut", "raw")):
        assert sum(assert_reported(record, policy, tolerance=1e-4) for record in run.of(task).values()) > 2000


def test_what_sglang_does_not_follow_shows(engine: Engine) -> None:
    options = (
        "dtype=float32,sampling_backend=flashinfer,max_total_tokens=100000000,schedule_policy=lpm,"
        "disable_cuda_graph=false,disable_radix_cache=true,chunked_prefill_size=-1"
    )
    facts = engine.run("settings", "dense", options, {"roll": {"evidence": SAMPLED}}, fresh=True).facts
    settings, effective = facts["settings"], facts["effective"]
    assert settings["server_args"] == {"sampling_backend": "flashinfer", "schedule_policy": "lpm"}
    assert effective["sampling_backend"] == "mismatchscope"
    assert effective["max_total_tokens"] < settings["max_total_tokens"] == 100_000_000, "there is less memory"
    assert (settings["disable_cuda_graph"], effective["disable_cuda_graph"]) == (False, True), "this is a CPU"
    assert effective["attention_implementation"] == "TorchNativeAttnBackend"
    assert effective["disable_radix_cache"] is True and effective["chunked_prefill_size"] is None
    assert effective["schedule_policy"] == "lpm"
    assert {effective[key] for key in ("dtype", "kv_cache_dtype", "parameters", "lm_head")} == {"float32"}
    json.dumps(facts, allow_nan=False)


def test_a_scheduler_that_is_killed_is_an_error_and_keeps_what_was_finished(engine: Engine) -> None:
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"process of SGLang's has ended") as caught:
        listen = kill_after(4, "roll", scheduler_of)
        engine.run("headless", "dense", "batch_size=4", {"roll": {}}, fresh=True, on_event=listen)
    assert "--resume" in caught.value.hint and time.monotonic() - began < 300
    assert 4 <= len(engine.left("headless").of("roll")) < 12


def scheduler_of(worker: int) -> int:
    """The child that SGLang has named its scheduler."""
    children = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    [scheduler] = [pid for pid in children if b"scheduler" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return int(scheduler)


@pytest.mark.parametrize(("path", "longest"), [("decode", 30), ("prefill", 26)])
def test_the_longest_sequence_that_sglang_takes(engine: Engine, path: str, longest: int, tmp_path: Path) -> None:
    """It is run, and one token more is refused before anything is."""
    tasks = {}
    for length in (longest, longest + 1):
        tokens = np.full(length - 20, 7, dtype=np.int32)
        requests = [
            Request(i, i, np.full(20, 9, dtype=np.int32), response_token_ids=tokens[:i]) for i in (2, len(tokens))
        ]
        write_requests(tmp_path / f"requests {length}", requests)
        tasks[f"{length}"] = {"requests": str(tmp_path / f"requests {length}"), "path": path}
    with pytest.raises(ModelError, match=f"has {longest + 1} tokens, SGLang takes {longest}"):
        engine.run(path, "dense", "context_length=32,batch_size=1", tasks)
    run = engine.left(path)
    assert {len(record.observed.logprob_T) for record in run.of(f"{longest}").values()} == {2, longest - 20}
    assert run.of(f"{longest + 1}") == {}


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ("chunked_prefil_size=4", SpecError, "no engine argument 'chunked_prefil_size'"),
        ("enable_deterministic_inference=true", SpecError, "refuses these settings: .*deterministic"),
        ("kv_cache_dtype=fp8_e4m3", EngineError, "does not start: .*FP8 KV cache"),
    ],
)
def test_a_setting_that_sglang_refuses(engine: Engine, options: str, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        engine.run("refused", "dense", options, {"roll": {}})


def test_a_head_that_would_be_random_is_refused(engine: Engine, models: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(models["moe"], tmp_path / "tied")
    config = json.loads((tmp_path / "tied" / "config.json").read_text())
    (tmp_path / "tied" / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    weights = load_file(tmp_path / "tied" / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "tied" / "model.safetensors")
    request = Request(0, 0, np.ones(3, np.int32))
    with pytest.raises(ModelError, match="ignores tie_word_embeddings") as caught:
        engine.run("tied", str(tmp_path / "tied"), "dtype=auto", {"roll": {}}, requests=[request])
    assert "lm_head.weight" in caught.value.hint
