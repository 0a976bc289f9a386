"""SGLang itself, in its own environment, against transformers, against its own log-probs, and under misuse.

Shapes: T response tokens, K observed ids, R states with a full distribution, V vocabulary.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from scipy.stats import chisquare
from sglang_reporting import REPORTED
from tiny_models import save_model

from mismatchscope.demo import model_path, prompts_path
from mismatchscope.engines.launcher import JobResult, job_for, run_job
from mismatchscope.engines.spec import parse_spec
from mismatchscope.engines.transformers import TransformersEngine, TransformersOptions
from mismatchscope.environments import find
from mismatchscope.errors import EngineError, ModelError, PromptsError, SpecError, WorkerError
from mismatchscope.prompts import load_prompts
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

pytestmark = [pytest.mark.engines, pytest.mark.slow, pytest.mark.long]

MODELS = ("dense", "moe", "wide")
FULL, TOPK, SAMPLED = Evidence("full"), Evidence("topk", k=16), Evidence("sampled")
SHARE = Evidence("full", fraction=0.3, seed=2)
PLAIN = Sampling(max_new_tokens=48, seed=5)
CUT = Sampling(max_new_tokens=48, temperature=0.7, top_k=12, top_p=0.9, seed=5)
GREEDY = Sampling(max_new_tokens=48, temperature=0)
BOTH_PATHS = {path: {"requests": "task:roll", "path": path} for path in ("decode", "prefill")}

Records = dict[int, SequenceRecord]


@pytest.fixture(scope="module")
def python() -> str:
    """The interpreter of an environment of SGLang."""
    environment = find("sglang")
    if environment is None:
        pytest.skip("no environment of SGLang: mismatchscope env create sglang")
    return str(environment.python)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The embedded models, and a wider one whose numbers depend on the shapes of its matrix products."""
    wide = tmp_path_factory.mktemp("models") / "wide"
    shape = {"hidden_size": 512, "intermediate_size": 1024, "num_attention_heads": 8, "head_dim": 64}
    save_model(wide, **shape, vocab_size=2048, max_position_embeddings=512, initializer_range=0.05)
    return {"dense": model_path("dense"), "moe": model_path("moe"), "wide": wide}


def change_config(model: Path, **changes: Any) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def prompt_ids(model: str, count: int) -> list[np.ndarray]:
    """Prompts as token ids: of the embedded models the shipped ones, of the random one random ones."""
    if model == "wide":
        rng = np.random.default_rng(0)
        return [rng.integers(1, 2048, rng.integers(1, 40)).astype(np.int32) for _ in range(count)]
    engine = TransformersEngine(str(model_path("dense")), TransformersOptions(dtype="float32"))
    engine.load()
    prompts = load_prompts(prompts_path(), count)
    return [engine._tokenizer.encode(Request(0, 0, prompt=prompt.prompt)) for prompt in prompts]


class Runs:
    """Jobs of SGLang; `of` gives the records of a task."""

    def __init__(self, python: str, models: dict[str, Path], directory: Path) -> None:
        self._python, self._models, self.directory = python, models, directory

    def run(
        self,
        name: str,
        model: str,
        options: str,
        tasks: dict[str, dict[str, Any]],
        *,
        engine: str | None = None,
        requests: list[Request] | None = None,
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    ) -> JobResult:
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        if requests is None:
            requests = [Request(2 * i + s, i, ids) for i, ids in enumerate(prompt_ids(model, 6)) for s in (0, 1)]
        write_requests(directory / "requests", requests)
        job = job_for(
            parse_spec(f"sglang:{options}" if options else "sglang"),
            str(self._models.get(model, model)),
            [
                Task(
                    task,
                    **{
                        "kind": "rollout" if "requests" not in wanted else "score",
                        "requests": str(directory / "requests"),
                        "parts": str(directory / task),
                        "evidence": FULL,
                        "sampling": PLAIN,
                    }
                    | wanted,
                )
                for task, wanted in tasks.items()
            ],
        )
        if engine is not None:
            job = replace(job, engine=engine)
        return run_job(job, python=self._python, log_path=directory / "log", on_event=on_event)

    def of(self, name: str, task: str) -> Records:
        return {i: read_part(path) for i, path in finished_parts(self.directory / name / task).items()}


@pytest.fixture(scope="module")
def runs(python: str, models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(python, models, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def dense(runs: Runs) -> Runs:
    """Everything that one start in float32 answers."""
    cut = {"requests": "task:cut", "sampling": CUT}
    runs.run(
        "dense",
        "dense",
        "dtype=float32,batch_size=5",
        {
            "full": {},
            "topk": {"evidence": TOPK},
            "sampled": {"evidence": SAMPLED},
            "a share": {"evidence": SHARE},
            "other company": {"shuffle_seed": 1},
            "cut": {"sampling": CUT},
            "greedy": {"sampling": GREEDY},
            "decode": {"requests": "task:full", "path": "decode"},
            "prefill": {"requests": "task:full", "path": "prefill"},
            "cut decode": cut | {"path": "decode"},
            "cut prefill": cut | {"path": "prefill"},
            "cut raw": cut | {"path": "prefill", "policy": "raw"},
            "prefill topk": {"requests": "task:topk", "evidence": TOPK},
            "prefill sampled": {"requests": "task:sampled", "evidence": SAMPLED},
        },
    )
    return runs


def p_RV(record: SequenceRecord, policy: str = "observed") -> np.ndarray:
    return np.exp(getattr(record, policy).full_logprobs_RV.astype(float))


def tv(left: Records, right: Records) -> np.ndarray:
    """TV of every state that both have, over all sequences."""
    assert left.keys() == right.keys() and left
    return np.concatenate([np.abs(p_RV(left[i]) - p_RV(right[i])).sum(axis=1) / 2 for i in left])


def transformers_score(model: Path, records: Records, **options: Any) -> Records:
    """The same tokens, teacher-forced by transformers."""
    engine = TransformersEngine(str(model), TransformersOptions(**options))
    engine.load()
    requests = [
        Request(r.sequence_id, r.prompt_id, r.prompt_token_ids, response_token_ids=r.response_token_ids)
        for r in records.values()
    ]
    return {r.sequence_id: r for r in engine.score(requests, Task("t", "score", "", "", FULL, policy="raw"))}


# The numbers


@pytest.mark.parametrize("model", MODELS)
def test_float32_is_transformers_within_1e_4(runs: Runs, models: dict[str, Path], model: str) -> None:
    name = f"{model} float32"
    runs.run(name, model, "dtype=float32", {"roll": {}, **BOTH_PATHS})
    reference = transformers_score(models[model], runs.of(name, "roll"), dtype="float32", attn="eager")
    for task in ("roll", *BOTH_PATHS):
        assert tv(runs.of(name, task), reference).max() <= 1e-4


@pytest.mark.parametrize("model", MODELS)
def test_bfloat16_is_as_near_as_transformers_to_itself(runs: Runs, models: dict[str, Path], model: str) -> None:
    name = f"{model} bfloat16"
    runs.run(name, model, "dtype=bfloat16", {"roll": {}, **BOTH_PATHS})
    eager, sdpa = (
        transformers_score(models[model], runs.of(name, "roll"), dtype="bfloat16", attn=attn)
        for attn in ("eager", "sdpa")
    )
    allowed = 3 * tv(eager, sdpa).mean()
    for task in ("roll", *BOTH_PATHS):
        assert 0 < tv(runs.of(name, task), sdpa).mean() <= allowed
    assert tv(runs.of(name, "decode"), runs.of(name, "roll")).max() == 0, "a forced token is as good as a drawn one"


def test_every_path_and_policy_sees_the_same(dense: Runs) -> None:
    for rollout, scores in (("full", ("decode", "prefill")), ("cut", ("cut decode", "cut prefill"))):
        for score in scores:
            left, right = dense.of("dense", rollout), dense.of("dense", score)
            assert tv(left, right).max() <= 1e-5
            for i, record in left.items():
                np.testing.assert_allclose(right[i].observed.logprob_T, record.observed.logprob_T, atol=1e-4)
    for i, record in dense.of("dense", "cut raw").items():
        assert np.isfinite(record.observed.full_logprobs_RV).all()
        raw = dense.of("dense", "cut")[i]
        np.testing.assert_allclose(p_RV(record), p_RV(raw, "raw"), atol=1e-5)


def test_every_level_of_evidence_says_the_same(dense: Runs) -> None:
    full, topk, sampled = (dense.of("dense", task) for task in ("full", "topk", "sampled"))
    share = dense.of("dense", "a share")
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


def test_a_scorer_sees_the_observed_ids_and_the_tail(dense: Runs) -> None:
    prefill = dense.of("dense", "prefill")
    for i, record in dense.of("dense", "prefill topk").items():
        mu = dense.of("dense", "topk")[i].observed
        np.testing.assert_array_equal(record.observed.topk_ids_TK, mu.topk_ids_TK)
        rows_TV = prefill[i].observed.full_logprobs_RV
        expected = np.take_along_axis(rows_TV, mu.topk_ids_TK.astype(int), axis=1)
        np.testing.assert_allclose(record.observed.topk_logprobs_TK, expected, atol=1e-5)
        for t, row_V in enumerate(np.exp(rows_TV.astype(float))):
            seen = {*mu.topk_ids_TK[t].tolist(), int(record.response_token_ids[t])}
            kth = np.exp(mu.topk_logprobs_TK[t, -1])
            tail = sum(min(p, kth) for token, p in enumerate(row_V.tolist()) if token not in seen)
            assert record.observed.tail_overlap_T[t] == pytest.approx(tail, abs=1e-6)
    for i, record in dense.of("dense", "prefill sampled").items():
        np.testing.assert_allclose(record.observed.logprob_T, prefill[i].observed.logprob_T, atol=1e-5)


# The draws


def test_draws_do_not_depend_on_the_company(dense: Runs) -> None:
    together, other = dense.of("dense", "full"), dense.of("dense", "other company")
    for i, record in together.items():
        np.testing.assert_array_equal(record.response_token_ids, other[i].response_token_ids)
    responses = [record.response_token_ids.tolist() for record in together.values()]
    assert sum(left != right for left, right in zip(responses[::2], responses[1::2], strict=True)) > 3


def test_a_response_ends_where_it_says(dense: Runs) -> None:
    reasons = set()
    for task in ("full", "cut", "greedy"):
        for record in dense.of("dense", task).values():
            stopped = record.response_token_ids == 0  # the end-of-sequence id
            reasons.add(record.finish_reason)
            assert not stopped[:-1].any()
            assert record.finish_reason == ("stop" if stopped[-1] else "length")
            assert stopped[-1] or len(record.response_token_ids) == 48
    assert reasons == {"stop", "length"}


def test_greedy_is_certain(dense: Runs) -> None:
    for record in dense.of("dense", "greedy").values():
        assert (record.observed.logprob_T == 0).all()
        np.testing.assert_array_equal(record.response_token_ids, record.raw.full_logprobs_RV.argmax(axis=1))


def test_draws_follow_what_is_recorded(runs: Runs) -> None:
    ids = prompt_ids("dense", 1)[0]
    tasks = {
        name: {"sampling": replace(sampling, max_new_tokens=1)}
        for name, sampling in (("plain", PLAIN), ("cut", replace(CUT, temperature=1.5)))
    }
    requests = [Request(i, 0, ids) for i in range(2000)]
    runs.run("draws", "dense", "dtype=float32,batch_size=500", tasks, requests=requests)
    for task in tasks:
        records = list(runs.of("draws", task).values())
        p_V = p_RV(records[0])[0]
        count_V = np.bincount([record.response_token_ids[0] for record in records], minlength=len(p_V))
        assert count_V[p_V == 0].sum() == 0
        often = p_V * len(records) >= 5
        observed, expected = [*count_V[often], count_V[~often].sum()], [*p_V[often], p_V[~often].sum()]
        kept = np.array(expected) > 0
        expected = np.array(expected)[kept] * len(records) / np.sum(expected)
        assert chisquare(np.array(observed)[kept], expected).pvalue > 1e-3


# Against SGLang's own log-probs


@pytest.mark.parametrize("sampling", [PLAIN, CUT])
def test_sglang_reports_what_is_recorded(runs: Runs, sampling: Sampling) -> None:
    name = f"reported {sampling.temperature}"
    tasks = {"roll": {"sampling": sampling}}
    runs.run(name, "dense", "dtype=float32", tasks, engine="sglang_reporting:ReportingEngine")
    compared = 0
    for record in runs.of(name, "roll").values():
        seen = record.raw if sampling.transforms else record.observed
        for row_V, reported, token, own in zip(
            seen.full_logprobs_RV, record.extra["reported"], record.response_token_ids, seen.logprob_T, strict=True
        ):
            assert len(reported) in (REPORTED, REPORTED + 1)
            ids = np.array([int(token) for token in reported])
            np.testing.assert_allclose(row_V[ids], list(reported.values()), atol=1e-4)
            assert reported[str(token)] == pytest.approx(own, abs=1e-4)
            compared += len(ids)
    assert compared > 2000


# Settings


def test_what_sglang_does_not_follow_shows(runs: Runs) -> None:
    options = (
        "dtype=float32,sampling_backend=flashinfer,max_total_tokens=100000000,schedule_policy=lpm,"
        "disable_cuda_graph=false,disable_radix_cache=true,chunked_prefill_size=-1"
    )
    facts = runs.run("settings", "dense", options, {"roll": {"evidence": SAMPLED}}).facts
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


def test_a_scheduler_that_cuts_and_evicts_changes_nothing(runs: Runs, dense: Runs) -> None:
    options = (
        "dtype=float32,chunked_prefill_size=16,max_total_tokens=192,max_running_requests=7,page_size=4,"
        "schedule_conservativeness=0.1"
    )
    tasks = {"full": {}, "cut": {"sampling": CUT}}
    tasks |= {path: {"requests": "task:full", "path": path} for path in ("decode", "prefill")}
    runs.run("tight", "dense", options, tasks)
    assert "KV cache pool is full. Retract requests" in (runs.directory / "tight" / "log").read_text()
    for task in tasks:
        left, right = runs.of("tight", task), dense.of("dense", task)
        for i in left:
            np.testing.assert_array_equal(left[i].response_token_ids, right[i].response_token_ids)
        assert tv(left, right).max() <= 1e-4


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_two_processes_share_a_model(runs: Runs, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *_ = sorted(os.sched_getaffinity(0))
    monkeypatch.setenv("SGLANG_CPU_OMP_THREADS_BIND", f"{first}|{second}")
    tasks = {"roll": {"sampling": CUT}} | {path: task | {"policy": "raw"} for path, task in BOTH_PATHS.items()}
    facts = runs.run("parallel", "dense", "dtype=float32,tp_size=2", tasks).facts
    assert facts["effective"]["tp_size"] == 2
    reference = transformers_score(models["dense"], runs.of("parallel", "roll"), dtype="float32")
    for path in BOTH_PATHS:
        assert tv(runs.of("parallel", path), reference).max() <= 1e-4


# Misuse and mishaps


def kill_after(count: int, task: str, victim: Callable[[int], int]) -> Callable[[dict[str, Any]], None]:
    """A listener that kills a process, found from the worker's, when a task has finished so many sequences."""
    worker = 0

    def listen(event: dict[str, Any]) -> None:
        nonlocal worker
        worker = event.get("pid", worker)
        if event["event"] == "sequence" and event["task"] == task and event["done"] == count:
            os.kill(victim(worker), signal.SIGKILL)

    return listen


def scheduler_of(worker: int) -> int:
    """The child that SGLang has named its scheduler."""
    children = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    [scheduler] = [pid for pid in children if b"scheduler" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return int(scheduler)


@pytest.mark.parametrize("killed_in", ["roll", "score"])
def test_a_killed_run_resumes_to_the_same_bytes(runs: Runs, killed_in: str) -> None:
    tasks = {"roll": {"sampling": CUT}, "score": {"requests": "task:roll", "path": "decode", "shuffle_seed": 1}}
    options = "dtype=bfloat16,batch_size=4"
    if not runs.of("calm", "score"):
        runs.run("calm", "wide", options, tasks)
    name = f"killed in {killed_in}"
    with pytest.raises(WorkerError, match="SIGKILL"):
        runs.run(name, "wide", options, tasks, on_event=kill_after(6, killed_in, lambda worker: worker))
    assert 6 <= len(runs.of(name, killed_in)) < 12
    runs.run(name, "wide", options, tasks)
    for task in tasks:
        contents = [
            {part: path.read_bytes() for part, path in finished_parts(runs.directory / run / task).items()}
            for run in ("calm", name)
        ]
        assert len(contents[0]) == 12 and contents[0] == contents[1]


def test_a_scheduler_that_is_killed_is_an_error_and_keeps_what_was_finished(runs: Runs) -> None:
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"process of SGLang's has ended") as caught:
        runs.run("headless", "dense", "batch_size=4", {"roll": {}}, on_event=kill_after(4, "roll", scheduler_of))
    assert "--resume" in caught.value.hint and time.monotonic() - began < 300
    assert 4 <= len(runs.of("headless", "roll")) < 12


def test_logits_that_are_not_finite_are_named(runs: Runs, models: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(models["dense"], tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["model.norm.weight"].fill_(math.nan)
    save_file(weights, tmp_path / "model" / "model.safetensors")
    with pytest.raises(EngineError, match="not finite"):
        runs.run(
            "nan", str(tmp_path / "model"), "", {"roll": {}}, requests=[Request(0, 0, np.full(3, 7, np.int32))]
        )


def test_what_is_too_long_or_foreign_is_named_before_anything_is_sampled(runs: Runs) -> None:
    long = [Request(i, i, np.full(4 if i < 5 else 40, 7, dtype=np.int32)) for i in range(6)]
    with pytest.raises(PromptsError, match="prompt 5 has 40 tokens"):
        runs.run("long", "dense", "context_length=32,batch_size=2", {"roll": {}}, requests=long)
    foreign = [Request(i, i, np.full(4, 7 if i < 5 else 1024, dtype=np.int32)) for i in range(6)]
    with pytest.raises(PromptsError, match="prompt 5 has the token id 1024"):
        runs.run("foreign", "dense", "batch_size=2", {"roll": {}}, requests=foreign)
    assert runs.of("long", "roll") == runs.of("foreign", "roll") == {}


@pytest.mark.parametrize(("path", "longest"), [("decode", 30), ("prefill", 26)])
def test_the_longest_sequence_that_sglang_takes(runs: Runs, path: str, longest: int) -> None:
    """The engine runs it, and refuses one token more before it runs anything."""
    for length in (longest, longest + 1):
        name = f"{path} {length}"
        tokens = np.full(length - 20, 7, dtype=np.int32)
        requests = [
            Request(i, i, np.full(20, 9, dtype=np.int32), response_token_ids=tokens[:i]) for i in (2, len(tokens))
        ]
        tasks = {"score": {"kind": "score", "path": path, "requests": str(runs.directory / name / "requests")}}
        if length == longest:
            runs.run(name, "dense", "context_length=32,batch_size=1", tasks, requests=requests)
            assert {len(record.observed.logprob_T) for record in runs.of(name, "score").values()} == {
                2,
                length - 20,
            }
        else:
            with pytest.raises(ModelError, match=f"has {length} tokens, SGLang takes {longest}"):
                runs.run(name, "dense", "context_length=32,batch_size=1", tasks, requests=requests)
            assert runs.of(name, "score") == {}


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ("chunked_prefil_size=4", SpecError, "no argument 'chunked_prefil_size'"),
        ("enable_deterministic_inference=true", SpecError, "refuses these settings: .*deterministic"),
        ("kv_cache_dtype=fp8_e4m3", EngineError, "does not start: .*FP8 KV cache"),
    ],
)
def test_a_setting_that_sglang_refuses(runs: Runs, options: str, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        runs.run("refused", "dense", options, {"roll": {}})


def test_a_model_that_sglang_does_not_know(runs: Runs, models: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(models["dense"], tmp_path / "model")
    change_config(tmp_path / "model", architectures=["UnheardOfForCausalLM"], model_type="unheard_of")
    with pytest.raises(ModelError, match="cannot run the model"):
        runs.run(
            "unknown", str(tmp_path / "model"), "", {"roll": {}}, requests=[Request(0, 0, np.ones(3, np.int32))]
        )


def test_a_head_that_would_be_random_is_refused(runs: Runs, models: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(models["moe"], tmp_path / "tied")
    change_config(tmp_path / "tied", tie_word_embeddings=True)
    weights = load_file(tmp_path / "tied" / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "tied" / "model.safetensors")
    with pytest.raises(ModelError, match="ignores tie_word_embeddings") as caught:
        runs.run("tied", str(tmp_path / "tied"), "", {"roll": {}}, requests=[Request(0, 0, np.ones(3, np.int32))])
    assert "lm_head.weight" in caught.value.hint
