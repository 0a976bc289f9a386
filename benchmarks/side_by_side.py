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
from statistics import median
from typing import Any

import numpy as np

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
WORDS = 151_936
SHAPES: dict[str, dict[str, int | float]] = {
    "the shape of Qwen3-0.6B": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "initializer_range": 0.03,
    },
    "little but a head": {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "initializer_range": 0.05,
    },
}
"""The smallest model that is used with such a vocabulary, and the worst case."""
PROMPT = 32
SIDES = ("float32", "bfloat16")
MOST_OF_FORWARDS, LEAST_OF_STORING = 1.15, 5.0


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


def to_markdown(results: dict[str, Any]) -> str:
    about = results["about"]
    lines = [
        "# Two settings side by side",
        "",
        f"{about['date']} · {about['processor']}, {about['cores']} cores · Python {about['python']}, torch "
        f"{about['torch']} · load average {about['load_before']:.1f} before, {about['load_after']:.1f} after",
        "",
        f"Made by `python benchmarks/side_by_side.py`: random Qwen3 models of {WORDS:,} words, "
        f"{' against '.join(SIDES)}, prefill after prompts of {PROMPT} tokens; {about['repeats']} calls each, in "
        "turn, and ratios of the fastest. The forwards are the same in all four rows of a model: on a CPU they "
        "bound what storing can be slower by in all.",
    ]
    for name, measured in results["models"].items():
        lines += ["", *_model_lines(name, measured)]
    return "\n".join(lines) + "\n"


def _model_lines(name: str, measured: dict[str, Any]) -> list[str]:
    states = measured["states"]
    shape = ", ".join(f"{key} {value:,}" for key, value in SHAPES[name].items() if isinstance(value, int))
    lines = [
        f"## {name[0].upper()}{name[1:]}",
        "",
        f"{shape}; {states} response tokens.",
        "",
        "| | s, median (fastest) | ms a token | processor s |",
        "| --- | --- | --- | --- |",
    ]
    for contender, each in measured["times"].items():
        wall, processor = median(each["wall"]), median(each["processor"])
        lines.append(
            f"| {contender} | {wall:.2f} ({min(each['wall']):.2f}) | {1e3 * wall / states:.1f} | {processor:.2f} |"
        )
    lines += ["", "| | on the clock | of processor time | asked |", "| --- | --- | --- | --- |"]
    claims = (f"≤ {MOST_OF_FORWARDS}", f"≥ {LEAST_OF_STORING:g}", "", "")
    wall, processor = measured["ratios"]["wall"], measured["ratios"]["processor"]
    for figure, claim in zip(wall, claims, strict=True):
        lines.append(f"| {figure} | {wall[figure]:.2f} | {processor[figure]:.2f} | {claim} |")
    return [
        *lines,
        "",
        f"On disk: {measured['stored_bytes'] / 2**20:,.1f} MiB stored whole (twice that while they are packed), "
        f"{measured['side_by_side_bytes'] / 2**10:,.1f} KiB side by side. All figures of the two pairs are the "
        f"same: {'yes' if measured['same_figures'] else 'NO'}.",
    ]


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


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
