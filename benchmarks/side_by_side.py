"""Asked, at a vocabulary of 151,936 words, for float32 against bfloat16: scoring the two side by side takes at
most 1.15 times as long as the two bare forwards, and a pair is measured at least 5 times as fast side by side as by
storing whole distributions and comparing them.

    python benchmarks/side_by_side.py

Two random models made here: one of the shape of the smallest model that is used with such a vocabulary, and the
worst case, one that is little but a head. All contenders score the same tokens along prefill in this process, with
models that are loaded already, one after the other, in turn, so that whatever else the machine does falls on all of
them:

- the forwards: both models compute the logits of every response token, head included, and nothing is done with
  them;
- side by side: scoring alone; and the whole way to a measured pair, with the traces on disk;
- stored: whole distributions of either model scored, written, packed, and measured: the product's own way.

Prints the table and writes it to benchmarks/results/side_by_side.md and .json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from calibration_tables import processor
from side_by_side_tables import PROMPT, SHAPES, SIDES, WORDS, to_markdown

from mismatchscope.collection.collector import Collector
from mismatchscope.collection.passes import Beside, Pass, scoring
from mismatchscope.comparison.context import Context
from mismatchscope.comparison.pair import Pair, measure_pair
from mismatchscope.engines.registry import load_class
from mismatchscope.engines.runtime.job import Job
from mismatchscope.engines.runtime.tasks import run_task
from mismatchscope.engines.spec import parse_spec
from mismatchscope.prompts.rows import Prompt
from mismatchscope.records import Evidence, Request, Sampling, Task
from mismatchscope.traces.store import beside_path_of

RESULTS = Path(__file__).parent / "results"


def save_model(directory: Path, shape: dict[str, int | float]) -> Path:
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config

    torch.manual_seed(0)
    config = Qwen3Config(vocab_size=WORDS, max_position_embeddings=512, tie_word_embeddings=True, **shape)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(directory)
    return directory


class LoadedEngines:
    """`run_job` in this process, every engine loaded once."""

    def __init__(self) -> None:
        self._engines: dict[str, Any] = {}

    def engine(self, job: Job) -> Any:
        key = json.dumps([job.engine, job.options], sort_keys=True)
        if key not in self._engines:
            kind = load_class(job.engine)
            self._engines[key] = kind(job.model, kind.options_type(**job.options))
            self._engines[key].load()
        return self._engines[key]

    def __call__(self, job: Job, *, on_event: Callable[[dict[str, Any]], None], **_: Any) -> None:
        engine = self.engine(job)
        on_event({"event": "ready", "facts": engine.facts(), "seconds": 0.0})
        for task in job.tasks:
            run_task(engine, job, task, lambda event, **fields: on_event({"event": event, **fields}))


class Contenders:
    def __init__(self, scratch: Path, shape: dict[str, int | float], sequences: int, tokens: int) -> None:
        rng = np.random.default_rng(0)
        prompts = [
            Prompt(i, None, token_ids=tuple(rng.integers(WORDS, size=PROMPT).tolist())) for i in range(sequences)
        ]
        self.scratch, self.loaded = scratch, LoadedEngines()
        self.collector = Collector(str(save_model(scratch / "model", shape)), prompts, run=self.loaded)
        self.specs = [parse_spec(f"transformers:device=cpu,dtype={dtype}") for dtype in SIDES]
        sampling = Sampling(max_new_tokens=tokens)
        self.tokens = Pass(scratch / "tokens", "behavior", Evidence("sampled"), "processed", sampling)
        self._collect(0, self.tokens)
        self.source = self.collector.trace(self.tokens.trace)
        self.states = self.source.manifest.counts.tokens
        common: dict[str, Any] = {"source": self.tokens.trace}
        reference = scoring(sampling, "reference", None)
        self.passes = [
            Pass(scratch / dtype, "reference", Evidence("full"), "processed", reference, **common)
            for dtype in SIDES
        ]
        beside = Beside(str(self.specs[0]), "reference", reference)
        self.together = replace(
            self.passes[1], trace=scratch / "together", evidence=Evidence("sampled"), beside=beside
        )
        self.measured: dict[str, Pair] = {"stored": self.store(), "together": self.measure_side_by_side()}
        *_, first, second, both = self.loaded._engines.values()
        self.engines, self.both = (first, second), both

    def _collect(self, side: int, pass_: Pass) -> None:
        self.collector.collect(
            self.specs[side], [pass_], log_path=self.scratch / "log", on_event=lambda event: None
        )

    def _again(self, *passes: Pass) -> None:
        for pass_ in passes:
            for path in (pass_.trace, beside_path_of(pass_.trace)):
                shutil.rmtree(path, ignore_errors=True)
                self.collector.traces.pop(path, None)

    def _pair(self, mu: Path, pi: Path) -> Pair:
        first, second = self.collector.trace(mu), self.collector.trace(pi)
        context = Context.of(self.source, self.source, None).of_repeat(first, self.source)
        pair = measure_pair(first, second, context)
        _ = pair.figures
        return pair

    @property
    def task(self) -> Task:
        return Task("score", "score", "", "", Evidence("sampled"), sampling=self.passes[1].sampling)

    @property
    def batches(self) -> Sequence[Sequence[Request]]:
        requests = list(self.source.requests(Evidence("sampled")))
        size = self.engines[0].batch_size
        return [requests[start : start + size] for start in range(0, len(requests), size)]

    def forwards(self) -> None:
        for batch in self.batches:
            for engine in self.engines:
                requests = engine.to_score(batch, self.task)
                for _ in engine.scored_logits(requests, self.task):
                    pass

    def score_side_by_side(self) -> None:
        for batch in self.batches:
            for _ in self.both.score(batch, self.task):
                pass

    def measure_side_by_side(self) -> Pair:
        self._again(self.together)
        self._collect(1, self.together)
        return self._pair(beside_path_of(self.together.trace), self.together.trace)

    def store(self) -> Pair:
        self._again(*self.passes)
        for side, pass_ in enumerate(self.passes):
            self._collect(side, pass_)
        return self._pair(*(pass_.trace for pass_ in self.passes))


def stored_bytes(*paths: Path) -> int:
    return sum(file.stat().st_size for path in paths for file in path.rglob("*") if file.is_file())


def measure(contenders: Contenders, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of each call: on the clock, and of processor time over all threads."""
    calls: dict[str, Callable[[], object]] = {
        "two bare forwards": contenders.forwards,
        "scored side by side": contenders.score_side_by_side,
        "side by side to a measured pair": contenders.measure_side_by_side,
        "stored whole to a measured pair": contenders.store,
    }
    times: dict[str, dict[str, list[float]]] = {name: {"wall": [], "processor": []} for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            wall, processor = time.perf_counter(), time.process_time()
            call()
            times[name]["processor"].append(time.process_time() - processor)
            times[name]["wall"].append(time.perf_counter() - wall)
            print(f"{name}: {times[name]['wall'][-1]:.2f} s", file=sys.stderr, flush=True)
    return times


def ratios(times: dict[str, dict[str, list[float]]], clock: str) -> dict[str, float]:
    """Of the fastest call of each contender: what else the machine does only adds to one."""
    forwards, scored, together, stored = (min(each[clock]) for each in times.values())
    return {
        "scored side by side / forwards": scored / forwards,
        "stored / side by side, in all": stored / together,
        "seconds that side by side adds to the forwards": together - forwards,
        "seconds that storing adds to them": stored - forwards,
    }


def measure_model(shape: dict[str, int | float], options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        contenders = Contenders(Path(scratch), shape, options.sequences, options.tokens)
        times = measure(contenders, options.repeats)
        together, pairs = contenders.together.trace, contenders.measured
        return {
            "states": contenders.states,
            "times": times,
            "ratios": {clock: ratios(times, clock) for clock in ("wall", "processor")},
            "stored_bytes": stored_bytes(*(pass_.trace for pass_ in contenders.passes)),
            "side_by_side_bytes": stored_bytes(together, beside_path_of(together)),
            "same_figures": pairs["stored"].figures == pairs["together"].figures,
        }


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    models = {name: measure_model(shape, options) for name, shape in SHAPES.items()}
    about = {
        "date": date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "repeats": options.repeats,
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
    }
    results = {"about": about, "models": models}
    (RESULTS / "side_by_side.json").write_text(json.dumps(results, indent=2) + "\n")
    (RESULTS / "side_by_side.md").write_text(to_markdown(results))
    print(to_markdown(results))


if __name__ == "__main__":
    main()
