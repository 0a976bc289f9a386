"""What vLLM and SGLang both must do: the numbers, the draws, and what becomes of a run that goes wrong.

Shapes: T response tokens, K observed ids, R states with a full distribution, V vocabulary.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from offline import (
    BOTH_PATHS,
    CUT,
    EXPLICIT,
    HAS_AMX,
    LONG,
    MODELS,
    PLAIN,
    SGLANG,
    SHARE,
    TOPK,
    VLLM,
    Engine,
    kill_after,
    p_RV,
    prompt_ids,
    prompts_cached,
    transformers_score,
    tv,
)
from safetensors.torch import load_file, save_file
from scipy.stats import chisquare

from mismatchscope.errors import EngineError, ModelError, PromptsError, WorkerError
from mismatchscope.records import Request

pytestmark = [
    pytest.mark.engines,
    pytest.mark.slow,
    pytest.mark.parametrize("spec", [*VLLM, *SGLANG]),
]

# Options with which the scheduler cuts prompts into pieces, and evicts sequences that have begun.
TIGHT = {
    "vllm": "max_model_len=160,max_num_batched_tokens=48,max_num_seqs=12,enable_chunked_prefill=true,"
    "block_size=32,num_gpu_blocks_override=9",
    "sglang": "chunked_prefill_size=16,max_total_tokens=192,max_running_requests=7,page_size=4,"
    "schedule_conservativeness=0.1",
}
TWO_PROCESSES = {"vllm": "tensor_parallel_size=2", "sglang": "tp_size=2"}
LENGTH = {"vllm": "max_model_len", "sglang": "context_length"}


# The numbers


@pytest.mark.parametrize("model", MODELS)
def test_float32_is_transformers_within_1e_4(
    engine: Engine, models: dict[str, Path], spec: str, model: str
) -> None:
    refused = HAS_AMX and (spec, model) == ("vllm==0.27.1", "moe")
    with pytest.raises(EngineError, match=r"does not start: .*AMX") if refused else nullcontext():
        run = engine.float32(model)
    if refused:
        return
    reference = transformers_score(models[model], run.of("roll"), dtype="float32", attn="eager")
    for task in ("roll", *BOTH_PATHS):
        assert tv(run.of(task), reference).max() <= 1e-4


@pytest.mark.parametrize("model", MODELS)
def test_bfloat16_is_as_near_as_transformers_to_itself(engine: Engine, models: dict[str, Path], model: str) -> None:
    run = engine.bfloat16(model)
    eager, sdpa = (
        transformers_score(models[model], run.of("roll"), dtype="bfloat16", attn=attn) for attn in ("eager", "sdpa")
    )
    allowed = 3 * tv(eager, sdpa).mean()
    for task in ("roll", *BOTH_PATHS):
        assert 0 < tv(run.of(task), sdpa).mean() <= allowed
    assert tv(run.of("decode"), run.of("roll")).max() == 0, "a forced token is as good as a drawn one"


def test_every_path_and_policy_sees_the_same(engine: Engine) -> None:
    run = engine.float32("dense")
    for rollout, scores in (("roll", ("decode", "prefill")), ("cut", ("cut decode", "cut prefill"))):
        for score in scores:
            left, right = run.of(rollout), run.of(score)
            assert tv(left, right).max() <= 1e-5
            for i, record in left.items():
                np.testing.assert_allclose(right[i].observed.logprob_T, record.observed.logprob_T, atol=1e-4)
    cut = run.of("cut")
    for i, record in run.of("cut raw").items():
        assert np.isfinite(record.observed.full_logprobs_RV).all()
        np.testing.assert_allclose(p_RV(record), p_RV(cut[i], "raw"), atol=1e-5)


def test_every_level_of_evidence_says_the_same(engine: Engine) -> None:
    run = engine.float32("dense")
    full, topk, sampled, share = (run.of(task) for task in ("roll", "topk", "sampled", "a share"))
    for i, record in full.items():
        rows_TV, tokens = record.observed.full_logprobs_RV, record.response_token_ids
        own_T = np.take_along_axis(rows_TV, tokens[:, None].astype(int), axis=1)[:, 0]
        for other in (record, topk[i], sampled[i], share[i]):
            np.testing.assert_array_equal(other.response_token_ids, tokens)
            np.testing.assert_array_equal(other.observed.logprob_T, own_T)
        best_TK = np.sort(rows_TV, axis=1)[:, ::-1][:, : TOPK.k]
        np.testing.assert_array_equal(topk[i].observed.topk_logprobs_TK, best_TK)
        kept = share[i].observed.full_row_R
        np.testing.assert_array_equal(kept, np.flatnonzero(SHARE.keeps_full(i, len(tokens))))
        np.testing.assert_array_equal(share[i].observed.full_logprobs_RV, rows_TV[kept] if len(kept) else None)


def test_a_scorer_sees_the_observed_ids_and_the_tail(engine: Engine) -> None:
    run = engine.float32("dense")
    prefill, topk = run.of("prefill"), run.of("topk")
    for i, record in run.of("prefill topk").items():
        mu = topk[i].observed
        np.testing.assert_array_equal(record.observed.topk_ids_TK, mu.topk_ids_TK)
        rows_TV = prefill[i].observed.full_logprobs_RV
        expected = np.take_along_axis(rows_TV, mu.topk_ids_TK.astype(int), axis=1)
        np.testing.assert_allclose(record.observed.topk_logprobs_TK, expected, atol=1e-5)
        for t, row_V in enumerate(np.exp(rows_TV.astype(float))):
            seen = {*mu.topk_ids_TK[t].tolist(), int(record.response_token_ids[t])}
            kth = np.exp(mu.topk_logprobs_TK[t, -1])
            tail = sum(min(p, kth) for token, p in enumerate(row_V.tolist()) if token not in seen)
            assert record.observed.tail_overlap_T[t] == pytest.approx(tail, abs=1e-6)
    for i, record in run.of("prefill sampled").items():
        np.testing.assert_allclose(record.observed.logprob_T, prefill[i].observed.logprob_T, atol=1e-5)


def test_a_scheduler_that_cuts_and_evicts_changes_nothing(engine: Engine, tmp_path: Path) -> None:
    """Nor does a prefix cache that has a prompt: of one that it should have had and had not, the engine tells."""
    usual = engine.float32("dense")
    tasks = {"roll": {}, "cut": {"sampling": CUT}, **BOTH_PATHS}
    tight = engine.run("tight", "dense", f"dtype=float32,{TIGHT[engine.name]}", tasks | prompts_cached(tmp_path))
    assert tv(tight.of("cold"), tight.of("warm")).max() <= 1e-5
    if engine.name == "sglang":
        assert "KV cache pool is full. Retract requests" in tight.log
    for task in tasks:
        left, right = tight.of(task), usual.of(task)
        for i in left:
            np.testing.assert_array_equal(left[i].response_token_ids, right[i].response_token_ids)
        assert tv(left, right).max() <= 1e-4


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_two_processes_share_a_model(
    engine: Engine, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *_ = sorted(os.sched_getaffinity(0))
    monkeypatch.setenv("SGLANG_CPU_OMP_THREADS_BIND", f"{first}|{second}")
    tasks = {"roll": {"sampling": CUT}} | {path: task | {"policy": "raw"} for path, task in BOTH_PATHS.items()}
    how = TWO_PROCESSES[engine.name]
    run = engine.run("two processes", "dense", f"dtype=float32,{how}", tasks)
    assert run.facts["effective"][how.partition("=")[0]] == 2
    reference = transformers_score(models["dense"], run.of("roll"), dtype="float32")
    for path in BOTH_PATHS:
        assert tv(run.of(path), reference).max() <= 1e-4


# The draws


def test_draws_do_not_depend_on_the_neighbours(engine: Engine) -> None:
    run = engine.float32("dense")
    together, other = run.of("roll"), run.of("other neighbours")
    for i, record in together.items():
        np.testing.assert_array_equal(record.response_token_ids, other[i].response_token_ids)
    responses = [record.response_token_ids.tolist() for record in together.values()]
    assert sum(left != right for left, right in zip(responses[::2], responses[1::2], strict=True)) > 3


def test_every_task_has_batches_of_its_own(engine: Engine) -> None:
    run = engine.float32("dense")
    alone, explicit = run.of("alone"), run.of("explicit")
    assert {i: record.batch for i, record in alone.items()} == {i: i for i in range(12)}
    assert [{i for i, record in explicit.items() if record.batch == n} for n in range(3)] == [*map(set, EXPLICIT)]
    assert {i: record.batch for i, record in run.of("roll").items()} == {i: i // 5 for i in range(12)}
    assert tv(alone, run.of("prefill")).max() <= 1e-4
    assert tv(explicit, run.of("roll")).max() <= 1e-4


def test_a_response_ends_where_it_says(engine: Engine) -> None:
    run, reasons = engine.float32("dense"), set()
    for task in ("roll", "cut", "greedy", "long"):
        longest = (LONG if task == "long" else PLAIN).max_new_tokens
        for record in run.of(task).values():
            stopped = record.response_token_ids == 0  # the end-of-sequence id
            reasons.add(record.finish_reason)
            assert not stopped[:-1].any()
            assert record.finish_reason == ("stop" if stopped[-1] else "length")
            assert stopped[-1] or len(record.response_token_ids) == longest
    assert reasons == {"stop", "length"}


def test_greedy_is_certain(engine: Engine) -> None:
    for record in engine.float32("dense").of("greedy").values():
        assert (record.observed.logprob_T == 0).all()
        np.testing.assert_array_equal(record.response_token_ids, record.raw.full_logprobs_RV.argmax(axis=1))


def test_draws_follow_what_is_recorded(engine: Engine) -> None:
    ids = prompt_ids("dense", 1)[0]
    tasks = {
        name: {"sampling": replace(sampling, max_new_tokens=1)}
        for name, sampling in (("plain", PLAIN), ("cut", replace(CUT, temperature=1.5)))
    }
    requests = [Request(i, 0, ids) for i in range(2000)]
    run = engine.run("draws", "dense", "dtype=float32,batch_size=500", tasks, requests=requests)
    for task in tasks:
        records = list(run.of(task).values())
        p_V = p_RV(records[0])[0]
        count_V = np.bincount([record.response_token_ids[0] for record in records], minlength=len(p_V))
        assert count_V[p_V == 0].sum() == 0
        often = p_V * len(records) >= 5
        observed, expected = [*count_V[often], count_V[~often].sum()], [*p_V[often], p_V[~often].sum()]
        kept = np.array(expected) > 0
        expected = np.array(expected)[kept] * len(records) / np.sum(expected)
        assert chisquare(np.array(observed)[kept], expected).pvalue > 1e-3


# Misuse and mishaps


def test_a_run_that_is_killed_twice_resumes_to_the_same_bytes(engine: Engine) -> None:
    calm = engine.bfloat16("wide")
    for task in ("cut", "again"):
        with pytest.raises(WorkerError, match="SIGKILL"):
            engine.bfloat16("wide", "killed", on_event=kill_after(6, task))
        assert 6 <= len(engine.left("killed wide").parts(task)) < 12
    killed = engine.bfloat16("wide", "killed", fresh=True)
    for task in ("roll", *BOTH_PATHS, "cut", "again"):
        contents = [{i: path.read_bytes() for i, path in run.parts(task).items()} for run in (calm, killed)]
        assert len(contents[0]) == 12 and contents[0] == contents[1]


def test_logits_that_are_no_numbers_do_not_pass_for_some(
    engine: Engine, models: dict[str, Path], tmp_path: Path
) -> None:
    """vLLM draws something from them, which is then recorded as it is; SGLang has its tokens drawn by us."""
    shutil.copytree(models["dense"], tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["model.norm.weight"].fill_(math.nan)
    save_file(weights, tmp_path / "model" / "model.safetensors")
    request, refused = Request(0, 0, np.full(3, 7, np.int32)), engine.name == "sglang"
    with pytest.raises(EngineError, match="not finite") if refused else nullcontext():
        engine.run("nan", str(tmp_path / "model"), "dtype=float32", {"roll": {}}, requests=[request])
    for record in engine.left("nan").of("roll").values():
        assert np.isnan(record.observed.logprob_T).all()
    assert len(engine.left("nan").of("roll")) == (0 if refused else 1)


def test_a_chat_becomes_the_tokens_and_the_remark_that_it_is_for_every_engine(engine: Engine) -> None:
    chat = [{"role": "user", "content": [{"type": "text", "text": "[INST] 1 + 1?"}]}]
    requests = [Request(0, 0, prompt=chat), Request(1, 1, prompt="Question: [INST] 1 + 1?\nAnswer:")]
    records = engine.run("chat", "dense", "dtype=float32", {"roll": {}}, requests=requests).of("roll")
    np.testing.assert_array_equal(records[0].prompt_token_ids, records[1].prompt_token_ids)
    assert [remark.partition(",")[0] for remark in records[0].prompt_remarks] == ["a message begins with [INST]"]
    assert records[1].prompt_remarks == []


def test_a_prompt_too_long_is_named_before_anything_is_sampled(engine: Engine) -> None:
    requests = [Request(i, i, np.full(4 if i < 5 else 40, 7, dtype=np.int32)) for i in range(6)]
    options = f"dtype=float32,{LENGTH[engine.name]}=32,batch_size=2"
    with pytest.raises(PromptsError, match="prompt 5 has 40 tokens"):
        engine.run("long", "dense", options, {"roll": {}}, requests=requests)
    assert engine.left("long").of("roll") == {}


def test_a_foreign_token_is_named_before_anything_is_sampled(engine: Engine) -> None:
    requests = [Request(i, i, np.full(4, 7 if i < 5 else 1024, dtype=np.int32)) for i in range(6)]
    with pytest.raises(PromptsError, match="prompt 5 has the token id 1024"):
        engine.run("foreign", "dense", "dtype=float32,batch_size=2", {"roll": {}}, requests=requests)
    assert engine.left("foreign").of("roll") == {}


def test_a_model_that_it_does_not_know(engine: Engine, models: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(models["dense"], tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config |= {"architectures": ["UnheardOfForCausalLM"], "model_type": "unheard_of"}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    request = Request(0, 0, np.ones(3, np.int32))
    with pytest.raises(ModelError, match="cannot run the model"):
        engine.run("unknown", str(tmp_path / "model"), "dtype=auto", {"roll": {}}, requests=[request])
