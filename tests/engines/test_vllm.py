"""vLLM itself, in its own environment, against transformers, against its own log-probs, and under misuse.

Shapes: T response tokens, K observed ids, R states with a full distribution, V vocabulary.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare
from tiny_models import save_model
from vllm_reporting import REPORTED

from mismatchscope.demo import model_path, prompts_path
from mismatchscope.engines.launcher import JobResult, job_for, run_job
from mismatchscope.engines.spec import parse_spec
from mismatchscope.engines.transformers import TransformersEngine, TransformersOptions
from mismatchscope.environments import installed
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

VERSIONS = ("0.27", "0.32")
MODELS = ("dense", "moe", "wide")
FULL, TOPK, SAMPLED = Evidence("full"), Evidence("topk", k=16), Evidence("sampled")
PLAIN = Sampling(max_new_tokens=24, seed=5)
CUT = Sampling(max_new_tokens=24, temperature=0.7, top_k=12, top_p=0.9, seed=5)
GREEDY = Sampling(max_new_tokens=24, temperature=0)

Records = dict[int, SequenceRecord]


@pytest.fixture(scope="module", params=VERSIONS)
def python(request: pytest.FixtureRequest) -> str:
    """The interpreter of an environment of this version."""
    for environment in installed():
        if environment.name == "vllm" and environment.version.startswith(f"{request.param}."):
            return str(environment.python)
    pytest.skip(f"no environment of vLLM {request.param}: mismatchscope env create vllm=={request.param}…")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The embedded models, and a wider one whose numbers depend on the shapes of its matrix products."""
    wide = tmp_path_factory.mktemp("models") / "wide"
    shape = {"hidden_size": 512, "intermediate_size": 1024, "num_attention_heads": 8, "head_dim": 64}
    save_model(wide, **shape, vocab_size=2048, max_position_embeddings=512, initializer_range=0.05)
    return {"dense": model_path("dense"), "moe": model_path("moe"), "wide": wide}


def prompt_ids(model: str, count: int) -> list[np.ndarray]:
    """Prompts as token ids: of the embedded models the shipped ones, of the random one random ones."""
    if model == "wide":
        rng = np.random.default_rng(0)
        return [rng.integers(1, 2048, rng.integers(1, 40)).astype(np.int32) for _ in range(count)]
    engine = TransformersEngine(str(model_path(model)), TransformersOptions(dtype="float32"))
    engine.load()
    prompts = load_prompts(prompts_path(), count)
    return [engine._tokenizer.encode(Request(0, 0, prompt=prompt.prompt)) for prompt in prompts]


class Runs:
    """Jobs of one vLLM, each run once; `of` gives the records of a task."""

    def __init__(self, python: str, models: dict[str, Path], directory: Path) -> None:
        self._python, self._models, self.directory = python, models, directory
        self._done: dict[str, JobResult] = {}

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
            parse_spec(f"vllm:{options}"),
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
        "dtype=float32,enforce_eager=true,batch_size=5",
        {
            "full": {},
            "topk": {"evidence": TOPK},
            "sampled": {"evidence": SAMPLED},
            "other company": {"shuffle_seed": 1},
            "cut": {"sampling": CUT},
            "greedy": {"sampling": GREEDY},
            "long": {"sampling": replace(PLAIN, max_new_tokens=90), "evidence": SAMPLED},
            "decode": {"requests": "task:full", "path": "decode"},
            "prefill": {"requests": "task:full", "path": "prefill"},
            "cut decode": cut | {"path": "decode"},
            "cut prefill": cut | {"path": "prefill"},
            "cut raw": cut | {"path": "prefill", "policy": "raw"},
            "prefill topk": {"requests": "task:topk", "evidence": TOPK},
            "prefill sampled": {"requests": "task:sampled", "evidence": SAMPLED},
            "a share": {"evidence": Evidence("full", fraction=0.3, seed=2)},
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
    tasks = {"roll": {}} | {path: {"requests": "task:roll", "path": path} for path in ("decode", "prefill")}
    runs.run(name, model, "dtype=float32,enforce_eager=true", tasks)
    reference = transformers_score(models[model], runs.of(name, "roll"), dtype="float32", attn="eager")
    for task in tasks:
        assert tv(runs.of(name, task), reference).max() <= 1e-4


@pytest.mark.parametrize("model", MODELS)
def test_bfloat16_is_as_near_as_transformers_to_itself(runs: Runs, models: dict[str, Path], model: str) -> None:
    name = f"{model} bfloat16"
    tasks = {"roll": {}} | {path: {"requests": "task:roll", "path": path} for path in ("decode", "prefill")}
    runs.run(name, model, "dtype=bfloat16,enforce_eager=true", tasks)
    eager, sdpa = (
        transformers_score(models[model], runs.of(name, "roll"), dtype="bfloat16", attn=attn)
        for attn in ("eager", "sdpa")
    )
    allowed = 3 * tv(eager, sdpa).mean()
    for task in tasks:
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
        np.testing.assert_array_equal(
            kept, np.flatnonzero(Evidence("full", fraction=0.3, seed=2).keeps_full(i, len(tokens)))
        )
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
    for task, longest in (("full", 24), ("cut", 24), ("greedy", 24), ("long", 90)):
        for record in dense.of("dense", task).values():
            stopped = record.response_token_ids == 0  # the end-of-sequence id
            reasons.add(record.finish_reason)
            assert not stopped[:-1].any()
            assert record.finish_reason == ("stop" if stopped[-1] else "length")
            assert stopped[-1] or len(record.response_token_ids) == longest
    assert reasons == {"stop", "length"}


def test_greedy_is_certain(dense: Runs) -> None:
    for record in dense.of("dense", "greedy").values():
        assert (record.observed.logprob_T == 0).all()
        np.testing.assert_array_equal(record.response_token_ids, record.raw.full_logprobs_RV.argmax(axis=1))


def test_draws_follow_what_is_recorded(runs: Runs) -> None:
    ids = prompt_ids("dense", 1)[0]
    tasks = {
        name: {"sampling": replace(sampling, max_new_tokens=1), "evidence": FULL}
        for name, sampling in (("plain", PLAIN), ("cut", replace(CUT, temperature=1.5)))
    }
    options = "dtype=float32,enforce_eager=true,batch_size=500"
    runs.run("draws", "dense", options, tasks, requests=[Request(i, 0, ids) for i in range(2000)])
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


# Against vLLM's own log-probs


@pytest.mark.parametrize(
    ("mode", "sampling"), [("raw", PLAIN), ("raw", CUT), ("processed", CUT), ("processed", replace(CUT, top_k=0))]
)
def test_vllm_reports_what_is_recorded(runs: Runs, mode: str, sampling: Sampling) -> None:
    name = f"reported {mode} {sampling.temperature} {sampling.top_k}"
    options = f"dtype=bfloat16,enforce_eager=true,logprobs_mode={mode}_logprobs"
    runs.run(name, "dense", options, {"roll": {"sampling": sampling}}, engine="vllm_reporting:ReportingEngine")
    compared = 0
    for record in runs.of(name, "roll").values():
        seen = record.raw if mode == "raw" and record.raw is not None else record.observed
        for row_V, reported, token, own in zip(
            seen.full_logprobs_RV, record.extra["reported"], record.response_token_ids, seen.logprob_T, strict=True
        ):
            assert len(reported) in (REPORTED, REPORTED + 1) or mode == "processed"
            ids = np.array([int(token) for token in reported])
            np.testing.assert_allclose(row_V[ids], list(reported.values()), atol=2e-6)
            assert reported[str(token)] == pytest.approx(own, abs=2e-6)
            compared += len(ids)
    assert compared > 2000


# Settings


def test_what_vllm_does_not_follow_shows(runs: Runs) -> None:
    options = (
        'dtype=float32,enforce_eager=true,attention_backend=FLASH_ATTN,block_size=64,compilation_config={"mode":3}'
    )
    facts = runs.run("settings", "dense", options, {"roll": {"evidence": SAMPLED}}).facts
    settings, effective = facts["settings"], facts["effective"]
    assert (settings["attention_backend"], effective["attention_backend"]) == ("FLASH_ATTN", "CPU_ATTN")
    assert settings["engine_args"] == {"block_size": 64, "compilation_config": {"mode": 3}}
    assert effective["block_size"] == 64
    assert effective["compilation_config"] == {"mode": "NONE"}, "enforce_eager goes before it"
    assert (effective["dtype"], effective["kv_cache_dtype"], effective["parameters"]) == ("float32",) * 3
    assert effective["max_num_seqs"] > 0 and effective["enable_prefix_caching"] is True
    json.dumps(facts, allow_nan=False)


def test_a_scheduler_that_cuts_and_evicts_changes_nothing(runs: Runs, dense: Runs) -> None:
    options = (
        "dtype=float32,enforce_eager=true,max_model_len=160,max_num_batched_tokens=48,max_num_seqs=12,"
        "enable_chunked_prefill=true,block_size=32,num_gpu_blocks_override=9"
    )
    tasks = {"full": {}, "cut": {"sampling": CUT}}
    tasks |= {path: {"requests": "task:full", "path": path} for path in ("decode", "prefill")}
    runs.run("tight", "dense", options, tasks)
    for task in tasks:
        left, right = runs.of("tight", task), dense.of("dense", task)
        for i in left:
            np.testing.assert_array_equal(left[i].response_token_ids, right[i].response_token_ids)
        assert tv(left, right).max() <= 1e-4


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_two_processes_share_a_model(runs: Runs, models: dict[str, Path]) -> None:
    tasks = {"roll": {"sampling": CUT}} | {
        path: {"requests": "task:roll", "path": path, "policy": "raw"} for path in ("decode", "prefill")
    }
    facts = runs.run("parallel", "dense", "dtype=float32,enforce_eager=true,tensor_parallel_size=2", tasks).facts
    assert facts["effective"]["tensor_parallel_size"] == 2
    reference = transformers_score(models["dense"], runs.of("parallel", "roll"), dtype="float32")
    for path in ("decode", "prefill"):
        assert tv(runs.of("parallel", path), reference).max() <= 1e-4


# Misuse and mishaps


@pytest.mark.parametrize("killed_in", ["roll", "score"])
def test_a_killed_run_resumes_to_the_same_bytes(runs: Runs, killed_in: str) -> None:
    tasks = {"roll": {"sampling": CUT}, "score": {"requests": "task:roll", "path": "decode", "shuffle_seed": 1}}
    options = "dtype=bfloat16,enforce_eager=true,batch_size=4"
    if not runs.of("calm", "score"):
        runs.run("calm", "wide", options, tasks)
    pid, name = 0, f"killed in {killed_in}"

    def kill(event: dict[str, Any]) -> None:
        nonlocal pid
        pid = event.get("pid", pid)
        if event["event"] == "sequence" and event["task"] == killed_in and event["done"] == 6:
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(WorkerError, match="SIGKILL"):
        runs.run(name, "wide", options, tasks, on_event=kill)
    assert 6 <= len(runs.of(name, killed_in)) < 12
    runs.run(name, "wide", options, tasks)
    for task in tasks:
        contents = [
            {part: path.read_bytes() for part, path in finished_parts(runs.directory / run / task).items()}
            for run in ("calm", name)
        ]
        assert len(contents[0]) == 12 and contents[0] == contents[1]


def test_a_prompt_too_long_is_named_before_anything_is_sampled(runs: Runs) -> None:
    requests = [Request(i, i, np.full(4 if i < 5 else 40, 7, dtype=np.int32)) for i in range(6)]
    options = "dtype=float32,enforce_eager=true,max_model_len=32,batch_size=2"
    with pytest.raises(PromptsError, match="prompt 5 has 40 tokens"):
        runs.run("long", "dense", options, {"roll": {}}, requests=requests)
    assert runs.of("long", "roll") == {}


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ("enforce_eagr=true", SpecError, "no engine argument 'enforce_eagr'"),
        ("kv_cache_dtype=fp99", SpecError, "refuses these settings: cache_dtype"),
        ("max_model_len=100000", SpecError, "max_model_len"),
    ],
)
def test_a_setting_that_vllm_does_not_have(runs: Runs, options: str, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        runs.run("refused", "dense", options, {"roll": {}})


def test_a_model_that_vllm_does_not_know(runs: Runs, models: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(models["dense"], tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config |= {"architectures": ["UnheardOfForCausalLM"], "model_type": "unheard_of"}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="cannot run the model"):
        runs.run(
            "unknown",
            str(tmp_path / "model"),
            "dtype=auto",
            {"roll": {}},
            requests=[Request(0, 0, np.ones(3, np.int32))],
        )


def test_more_memory_than_there_is(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "100000")
    with pytest.raises(EngineError, match=r"(?i)memory") as caught:
        runs.run("memory", "dense", "enforce_eager=true", {"roll": {}})
    assert "VLLM_CPU_KVCACHE_SPACE" in caught.value.hint
