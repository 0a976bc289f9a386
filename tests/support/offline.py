"""Jobs of the real vLLM and SGLang, each in its own environment, and what they recorded.

Shapes: T response tokens, R states with a full distribution, V vocabulary.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import fork_server
import numpy as np
import pytest

from mismatchscope.composition import BatchComposition
from mismatchscope.demo import model_path, prompts_path
from mismatchscope.engines.runtime.launcher import job_for, run_job
from mismatchscope.engines.spec import parse_spec
from mismatchscope.engines.transformers.engine import TransformersEngine, TransformersOptions
from mismatchscope.environments import find
from mismatchscope.prompts.files import load_prompts
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

VLLM = ("vllm==0.27.1", "vllm==0.32.0")
SGLANG = ("sglang==0.5.23",)
MODELS = ("dense", "moe", "wide")

FULL, TOPK, SAMPLED = Evidence("full"), Evidence("topk", k=16), Evidence("sampled")
SHARE = Evidence("full", fraction=0.3, seed=2)
PLAIN = Sampling(max_new_tokens=48, seed=5)
CUT = Sampling(max_new_tokens=48, temperature=0.7, top_k=12, top_p=0.9, seed=5)
GREEDY = Sampling(max_new_tokens=48, temperature=0)
LONG = Sampling(max_new_tokens=96, seed=5)

# On a CPU with AMX, vLLM 0.27 has no kernel for experts in float32, and says so.
HAS_AMX = "amx_tile" in Path("/proc/cpuinfo").read_text()

BOTH_PATHS = {path: {"requests": "task:roll", "path": path} for path in ("decode", "prefill")}

EXPLICIT = ((11,), (3, 0, 7), (1, 2, 4, 5, 6, 8, 9, 10))
"""Batches of the twelve sequences of a job, the last one larger than its `batch_size`."""

SILENCE_SECONDS = 300
"""A job without an event for so long hangs, as the fork of a process with threads may."""

Records = dict[int, SequenceRecord]


@dataclass(frozen=True)
class Run:
    """A job that was done: the provenance that it gave, and what it recorded, by task."""

    directory: Path
    facts: dict[str, Any]

    def of(self, task: str) -> Records:
        return {i: read_part(path) for i, path in self.parts(task).items()}

    def parts(self, task: str) -> dict[int, Path]:
        """The file of each finished sequence."""
        return finished_parts(self.directory / task)

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()


class HangingJob(Exception):
    """A job that was ended, since it had said nothing for `SILENCE_SECONDS`."""


_DONE: dict[Path, Run] = {}
"""The jobs of one run of the tests by their directory."""


class Engine:
    """One engine version. A job of the same name is done once, for whichever tests ask; one that failed goes on.

    A job that hangs is ended and begun once more, with a warning. Each job has a worker of its own, forked from a
    process that has imported the engine, or `fresh` as a user's is.
    """

    def __init__(self, spec: str, models: dict[str, Path], directory: Path) -> None:
        name, _, version = spec.partition("==")
        environment = find(name, version)
        if environment is None:
            pytest.skip(f"no environment: mismatchscope env create {spec}")
        self.name = name
        self._python, self._models, self._directory = environment.python, models, directory

    def run(
        self,
        name: str,
        model: str,
        options: str,
        tasks: dict[str, dict[str, Any]],
        *,
        reporting: bool = False,
        fresh: bool = False,
        requests: list[Request] | None = None,
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    ) -> Run:
        """`tasks` has what differs from a rollout of PLAIN with full evidence; one with `requests` is a score.

        `reporting`: the engine's own log-probs are in `extra["reported"]` of every record.
        """
        directory = self._directory / name
        if directory in _DONE:
            return _DONE[directory]
        directory.mkdir(parents=True, exist_ok=True)
        if requests is None:
            requests = [Request(2 * i + s, i, ids) for i, ids in enumerate(prompt_ids(model, 6)) for s in (0, 1)]
        write_requests(directory / "requests", requests)
        common = {"requests": str(directory / "requests"), "evidence": FULL, "sampling": PLAIN}
        kinds = {task: "score" if "requests" in wanted else "rollout" for task, wanted in tasks.items()}
        job = job_for(
            parse_spec(f"{self.name}:{self._always(options)}"),
            str(self._models.get(model, model)),
            [
                Task(task, **{"kind": kinds[task], "parts": str(directory / task)} | common | wanted)
                for task, wanted in tasks.items()
            ],
        )
        if reporting:
            job = replace(job, engine=f"{self.name}_reporting:ReportingEngine")
        python = self._python if fresh else forking(self._python, self.name)
        start = partial(run_job, job, python=str(python), log_path=directory / "log")
        try:
            result = start(on_event=_unless_silent(on_event))
        except HangingJob as error:
            warnings.warn(f"{self._directory.name}, {name}: {error}; once more", stacklevel=2)
            result = start(on_event=_unless_silent(on_event))
        _DONE[directory] = Run(directory, result.facts)
        return _DONE[directory]

    def left(self, name: str) -> Run:
        """What a job that failed has left."""
        return Run(self._directory / name, {})

    def float32(self, model: str) -> Run:
        """Everything that one start in float32 answers."""
        cut = {"requests": "task:cut", "sampling": CUT}
        tasks = {"roll": {}, **BOTH_PATHS, "inside": {"kind": "internals", "requests": "task:roll"}}
        if model == "dense":
            tasks |= {
                "topk": {"evidence": TOPK},
                "sampled": {"evidence": SAMPLED},
                "a share": {"evidence": SHARE},
                "other neighbours": {"composition": BatchComposition(shuffle_seed=1)},
                "alone": BOTH_PATHS["prefill"] | {"composition": BatchComposition(1)},
                "explicit": BOTH_PATHS["decode"] | {"composition": BatchComposition(batches=EXPLICIT)},
                "cut": {"sampling": CUT},
                "greedy": {"sampling": GREEDY},
                "long": {"sampling": LONG, "evidence": SAMPLED},
                "cut decode": cut | {"path": "decode"},
                "cut prefill": cut | {"path": "prefill"},
                "cut raw": cut | {"path": "prefill", "policy": "raw"},
                "prefill topk": {"requests": "task:topk", "evidence": TOPK},
                "prefill sampled": {"requests": "task:sampled", "evidence": SAMPLED},
            }
        return self.run(f"float32 {model}", model, "dtype=float32,batch_size=5", tasks)

    def bfloat16(self, model: str, name: str = "bfloat16", **how: Any) -> Run:
        tasks = {"roll": {}, **BOTH_PATHS, "cut": {"sampling": CUT}}
        tasks |= {
            "again": {
                "requests": "task:cut",
                "path": "decode",
                "sampling": CUT,
                "composition": BatchComposition(shuffle_seed=1),
            }
        }
        return self.run(f"{name} {model}", model, "dtype=bfloat16,batch_size=4", tasks, **how)

    def _always(self, options: str) -> str:
        """Without compiling, and with no more cache than it takes: a CPU writes to all of it at the start."""
        if self.name != "vllm":
            return options
        cache = "" if "VLLM_CPU_KVCACHE_SPACE" in os.environ else f"kv_cache_memory_bytes={2**28},"
        return f"enforce_eager=true,{cache}{options}"


def _unless_silent(on_event: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "waiting" and event["seconds"] > SILENCE_SECONDS:
            raise HangingJob(f"no event for {event['seconds']:.0f} s")
        on_event(event)

    return listen


@cache
def forking(python: Path, engine: str) -> Path:
    return fork_server.interpreter(python, engine)


@cache
def prompt_ids(model: str, count: int) -> list[np.ndarray]:
    """Prompts as token ids: of the embedded models, which share a tokenizer, the shipped ones; else random ones."""
    if model == "wide":
        rng = np.random.default_rng(0)
        return [rng.integers(1, 2048, rng.integers(1, 40)).astype(np.int32) for _ in range(count)]
    engine = TransformersEngine(str(model_path("dense")), TransformersOptions(dtype="float32"))
    engine.load()
    prompts = load_prompts(prompts_path(), count)
    return [engine._tokenizer.encode(Request(0, 0, prompt=prompt.prompt)) for prompt in prompts]


def prompts_cached(directory: Path) -> dict[str, dict[str, Any]]:
    """Tasks that decode prompts of 40 tokens, each alone, with a prefix cache that is empty or has the prompt."""
    ids = np.random.default_rng(0).integers(4, 1000, 64).astype(np.int32)
    requests = [Request(i, i, ids[i : i + 40], response_token_ids=ids[i + 40 : i + 48]) for i in range(3)]
    write_requests(directory / "long", requests)
    common = {"requests": str(directory / "long"), "path": "decode"}
    return {cache: common | {"composition": BatchComposition(1, prefix_cache=cache)} for cache in ("cold", "warm")}


def transformers_score(model: Path, records: Records, **options: Any) -> Records:
    """The same tokens, teacher-forced by transformers."""
    engine = TransformersEngine(str(model), TransformersOptions(**options))
    engine.load()
    requests = [
        Request(r.sequence_id, r.prompt_id, r.prompt_token_ids, response_token_ids=r.response_token_ids)
        for r in records.values()
    ]
    return {r.sequence_id: r for r in engine.score(requests, Task("t", "score", "", "", FULL, policy="raw"))}


def p_RV(record: SequenceRecord, policy: str = "observed") -> np.ndarray:
    return np.exp(getattr(record, policy).full_logprobs_RV.astype(float))


def tv(left: Records, right: Records) -> np.ndarray:
    """TV of every state that both have, over all sequences."""
    assert left.keys() == right.keys() and left
    return np.concatenate([np.abs(p_RV(left[i]) - p_RV(right[i])).sum(axis=1) / 2 for i in left])


def assert_reported(record: SequenceRecord, policy: str, *, tolerance: float) -> int:
    """A recorded policy is what the engine itself reported; returns the number of log-probs compared."""
    seen, compared = getattr(record, policy), 0
    for row_V, reported, token, own in zip(
        seen.full_logprobs_RV, record.extra["reported"], record.response_token_ids, seen.logprob_T, strict=True
    ):
        ids = np.array([int(token) for token in reported])
        np.testing.assert_allclose(row_V[ids], list(reported.values()), atol=tolerance)
        assert reported[str(token)] == pytest.approx(own, abs=tolerance)
        compared += len(ids)
    return compared


def kill_after(
    count: int, task: str, victim: Callable[[int], int] = lambda worker: worker
) -> Callable[[dict[str, Any]], None]:
    """A listener that kills the worker, or a process found from it, once a task has finished so many sequences."""
    worker = 0

    def listen(event: dict[str, Any]) -> None:
        nonlocal worker
        worker = event.get("pid", worker)
        if event["event"] == "sequence" and event["task"] == task and event["done"] == count:
            os.kill(victim(worker), signal.SIGKILL)

    return listen
