"""Claim: recording every distribution, or the top 64, inside vLLM costs at most 10 % of generating without.

    python benchmarks/vllm_capture.py [--version 0.32.0] [--rounds 7]

In one process, round after round, on the same 16 prompts with the same seeds: `LLM.generate` as it is, the engine's
rollout at every level of evidence, and `LLM.generate` with vLLM's own log-probs. Also claimed: full evidence is at
least five times faster than vLLM's own `logprobs=-1, flat_logprobs=True`; and what a rollout holds in memory is
bounded by the byte budget, however many tokens it has. A ratio is the median over rounds, of the processor time
of one thread, which other programs disturb least.

Random weights in the shape of SmolLM2-135M (49k words), about the smallest model in use; and, outside the claim,
four layers with 32k words, nearly all head and sampler: recording has nothing to hide behind there. Needs
`mismatchscope env create vllm==VERSION`; runs itself again in that environment. Prints the table and writes
benchmarks/results/vllm_capture.md and .json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

CLAIMED, FOUR_LAYERS = "SmolLM2-135M", "four layers"
SHAPES = {
    CLAIMED: {"vocab_size": 49_152, "num_hidden_layers": 30, "hidden_size": 576, "num_attention_heads": 9}
    | {"num_key_value_heads": 3, "intermediate_size": 1536},
    FOUR_LAYERS: {"vocab_size": 32_768, "num_hidden_layers": 4, "hidden_size": 512, "num_attention_heads": 8}
    | {"num_key_value_heads": 4, "intermediate_size": 1536},
}
BATCH, NEW_TOKENS = 16, 32
CLAIM_CAPTURE, CLAIM_OWN = 1.10, 5.0
BUDGET = 64 * 2**20
BUDGET_TOKENS = (128, 512, 1024)
PLAIN, OWN_FULL = "generate", "generate, logprobs=-1, flat"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--version", default=None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--inside", default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside is not None:
        print("RESULT", json.dumps(measure(arguments.inside, arguments.rounds)))
        return
    from mismatchscope.environments import find

    environment = find("vllm", arguments.version)
    if environment is None:
        sys.exit("no environment of vLLM: mismatchscope env create vllm==0.32.0")
    publish([start(str(environment.python), shape, arguments.rounds) for shape in SHAPES], arguments.rounds)


def start(python: str, shape: str, rounds: int) -> dict[str, Any]:
    """Measure one shape in the interpreter of vLLM."""
    variables = os.environ | {"PYTHONPATH": str(ROOT), "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_KVCACHE_SPACE": "1"}
    command = [python, __file__, "--inside", shape, "--rounds", str(rounds)]
    output = subprocess.run(command, env=variables, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.rpartition("RESULT ")[2])


def measure(shape: str, rounds: int) -> dict[str, Any]:
    """Seconds of processor time of every call in every round, and the memory of rollouts within a budget."""
    import numpy as np

    from mismatchscope.engines.vllm.engine import VllmEngine
    from mismatchscope.engines.vllm.options import VllmOptions, prepare_process
    from mismatchscope.records import Request

    prepare_process(".", VllmOptions())
    with tempfile.TemporaryDirectory() as directory:
        save_model(Path(directory), SHAPES[shape])
        options = VllmOptions(
            dtype="bfloat16",
            enforce_eager=True,
            batch_size=BATCH,
            max_model_len=2048,
            engine_args={"max_logprobs": -1},
        )
        engine = VllmEngine(directory, options)
        engine.load()
    engine._stop_ids = []  # every call makes the same number of tokens
    rng = np.random.default_rng(0)
    lengths = rng.integers(24, 48, BATCH)
    requests = [Request(i, i, rng.integers(2, 1000, length).astype(np.int32)) for i, length in enumerate(lengths)]
    calls = the_calls(engine, requests)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            began = time.process_time()
            call()
            if number:  # the first is to warm up
                seconds[name].append(time.process_time() - began)
                print(f"{shape:18} {name:32} {seconds[name][-1]:7.3f} s", file=sys.stderr, flush=True)
    facts = engine.facts()
    return {
        "shape": shape,
        "seconds": seconds,
        "memory": memory_within_budget(engine, requests) if shape == FOUR_LAYERS else [],
        "version": facts["engine_version"],
        "torch": facts["environment"]["torch"],
        "device": facts["environment"]["device_name"],
    }


def the_calls(engine: Any, requests: list[Any]) -> dict[str, Callable[[], object]]:
    from vllm import SamplingParams

    from mismatchscope.engines.vllm.engine import _seed
    from mismatchscope.records import Evidence, Sampling, Task, write_part

    prompts = [{"prompt_token_ids": request.prompt_token_ids.tolist()} for request in requests]
    levels = {"sampled": Evidence("sampled"), "top-64": Evidence("topk", k=64), "full": Evidence("full")}
    task = Task("rollout", "rollout", "", "", sampling=Sampling(NEW_TOKENS))

    def generate(**more: Any) -> Callable[[], object]:
        params = [
            SamplingParams(
                max_tokens=NEW_TOKENS, seed=_seed(0, request.sequence_id), ignore_eos=True, detokenize=False, **more
            )
            for request in requests
        ]
        return lambda: engine._llm.generate(prompts, params, use_tqdm=False)

    def rollout(level: str) -> Callable[[], object]:
        return lambda: list(engine.rollout(requests, replace(task, evidence=levels[level])))

    def written() -> None:
        """As the worker does with every finished sequence."""
        with tempfile.TemporaryDirectory() as directory:
            for record in engine.rollout(requests, replace(task, evidence=levels["full"])):
                write_part(Path(directory), record)

    return {
        PLAIN: generate(),
        **{f"rollout, {level}": rollout(level) for level in levels},
        "rollout, full, written": written,
        "generate, logprobs=64, flat": generate(logprobs=64, flat_logprobs=True),
        OWN_FULL: generate(logprobs=-1, flat_logprobs=True),
    }


def memory_within_budget(engine: Any, requests: list[Any]) -> list[dict[str, int]]:
    """Peak memory of one batch, above what the process had before, with the states that fit into the budget."""
    from mismatchscope.records import Evidence, Sampling, Task

    rows = []
    for tokens in BUDGET_TOKENS:
        fraction = min(1.0, BUDGET / (BATCH * tokens * SHAPES[FOUR_LAYERS]["vocab_size"] * 4))
        row = {"tokens": BATCH * tokens}
        for name, evidence in (("sampled", Evidence("sampled")), ("full", Evidence("full", fraction=fraction))):
            task = Task("rollout", "rollout", "", "", evidence, sampling=Sampling(tokens))
            with peak_memory(row, name):  # a record is let go once it is written
                kept = [record.observed.full_row_R for record in engine.rollout(requests, task)]
            row[f"{name} states"] = sum(len(positions) for positions in kept if positions is not None)
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    return rows


@contextmanager
def peak_memory(row: dict[str, int], name: str) -> Iterator[None]:
    """Bytes that the resident memory rose to above its level at the start."""

    def status(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

    Path("/proc/self/clear_refs").write_text("5")  # the peak starts at the present level
    before = status("VmRSS")
    yield
    row[name] = status("VmHWM") - before


def save_model(directory: Path, shape: dict[str, int]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config

    fixed = {"head_dim": 64, "max_position_embeddings": 2048, "tie_word_embeddings": True, "eos_token_id": 0}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(Qwen3Config(**shape | fixed), dtype=torch.bfloat16)
    model.save_pretrained(directory)


def publish(results: list[dict[str, Any]], rounds: int) -> None:
    first, rows = results[0], []
    for result in results:
        for call, samples in result["seconds"].items():
            plain = ratios(samples, result["seconds"][PLAIN])
            own = ratios(result["seconds"][OWN_FULL], samples)
            rows.append((result["shape"], call, statistics.median(samples), plain, statistics.median(own)))
    recorded = [row for row in rows if row[0] == CLAIMED and row[1] in ("rollout, top-64", "rollout, full")]
    largest = max(statistics.median(row[3]) for row in recorded)
    fastest = next(row[4] for row in recorded if row[1] == "rollout, full")
    row_bytes = SHAPES[FOUR_LAYERS]["vocab_size"] * 4
    lines = [
        "# What recording inside vLLM costs",
        "",
        f"`python benchmarks/vllm_capture.py`, {date.today()}, {first['device']}, one thread; "
        f"vLLM {first['version']}, torch {first['torch']}, bfloat16, eager, {rounds} rounds. "
        f"{BATCH} sequences of {NEW_TOKENS} new tokens; processor time.",
        "",
        f"{CLAIMED}: largest ratio of a rollout with top-64 or full evidence to plain generation {largest:.2f} "
        f"(claim: at most {CLAIM_CAPTURE:.2f}); full evidence {fastest:.1f} times faster than vLLM's own full "
        f"log-probs (claim: at least {CLAIM_OWN:.0f}).",
        "",
        "| model | call | seconds | ratio to generate | range over rounds | times faster than logprobs=-1, flat |",
        "|---|---|---:|---:|---:|---:|",
        *(
            f"| {shape} | {call} | {seconds:.3f} | {statistics.median(plain):.2f} | "
            f"{min(plain):.2f} – {max(plain):.2f} | {own:.1f} |"
            for shape, call, seconds, plain, own in rows
        ),
        "",
        "Written: each sequence as a file, as the worker does. Peak memory of one batch above the loaded engine, "
        f"{FOUR_LAYERS}, with the states that fit into {BUDGET / 2**20:.0f} MiB:",
        "",
        "| response tokens | full states | their size (MiB) | peak, full (MiB) | peak, sampled (MiB) |",
        "|---:|---:|---:|---:|---:|",
        *(
            f"| {row['tokens']} | {row['full states']} | {row['full states'] * row_bytes / 2**20:.0f} | "
            f"{row['full'] / 2**20:.0f} | {max(0, row['sampled']) / 2**20:.0f} |"
            for result in results
            for row in result["memory"]
        ),
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "vllm_capture.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (RESULTS / "vllm_capture.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines))


def ratios(samples: list[float], others: list[float]) -> list[float]:
    return [sample / other for sample, other in zip(samples, others, strict=True)]


if __name__ == "__main__":
    main()
