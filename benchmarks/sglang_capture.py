"""Claim: recording every distribution inside SGLang costs at most 15 % on top of generating without log-probs.

    python benchmarks/sglang_capture.py [--version 0.5.23] [--rounds 7]

In one process, round after round, on the same 16 prompts: SGLang's `generate` as it is, with its own sampler; the
engine's rollout at every level of evidence; `generate` with SGLang's own log-probs. A ratio is the median over the
rounds' ratios, of the wall time, and of the processor time of all of SGLang's processes together, which other
programs disturb least. Calls come in random order, each after a generate that is not counted.

The model has random weights and 32k words: 4 layers of 512 (a step is then mostly the head and the sampler, where
recording has the least to hide behind) and 8 layers of 1024. Needs `mismatchscope env create sglang`; runs itself
again in that environment. Prints the table and writes benchmarks/results/sglang_capture.md and .json.
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
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SHAPES = {"4 layers of 512": (4, 512), "8 layers of 1024": (8, 1024)}
VOCABULARY, BATCH, NEW_TOKENS = 32_768, 16, 32
CLAIM = 1.15
PLAIN, OWN_TOP, OWN_FULL = "generate", "generate, top_logprobs_num=64", "generate, every log-prob in base64"


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

    environment = find("sglang", arguments.version)
    if environment is None:
        sys.exit("no environment of SGLang: mismatchscope env create sglang")
    publish([start(str(environment.python), shape, arguments.rounds) for shape in SHAPES], arguments.rounds)


def start(python: str, shape: str, rounds: int) -> dict[str, Any]:
    """Measure one shape in the interpreter of SGLang."""
    command = [python, __file__, "--inside", shape, "--rounds", str(rounds)]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    output = subprocess.run(command, env=variables, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.rpartition("RESULT ")[2])


def measure(shape: str, rounds: int) -> dict[str, Any]:
    """Wall and processor seconds of every call in every round."""
    import numpy as np

    from mismatchscope.engines.sglang.engine import SglangEngine
    from mismatchscope.engines.sglang.options import SglangOptions
    from mismatchscope.records import Request

    with tempfile.TemporaryDirectory() as directory:
        save_model(Path(directory), *SHAPES[shape])
        engine = SglangEngine(directory, SglangOptions(dtype="bfloat16", batch_size=BATCH))
        engine.load()
    engine._stop_ids = []  # every call makes the same number of tokens
    rng = np.random.default_rng(0)
    lengths = rng.integers(24, 48, BATCH)
    requests = [Request(i, i, rng.integers(2, 1000, length).astype(np.int32)) for i, length in enumerate(lengths)]
    calls = the_calls(engine, requests)
    seconds: dict[str, dict[str, list[float]]] = {name: {"wall": [], "processor": []} for name in calls}
    for number in range(rounds + 1):
        names = rng.permutation([name for name in calls if name != OWN_FULL]).tolist()
        for name in [*names, OWN_FULL]:
            calls[PLAIN]()  # whatever the call before left behind, memory above all, is not this one's
            began = time.perf_counter(), processor_seconds()
            calls[name]()
            wall, processor = time.perf_counter() - began[0], processor_seconds() - began[1]
            if number:  # the first is to warm up
                seconds[name]["wall"].append(wall)
                seconds[name]["processor"].append(processor)
                print(f"{shape:18} {name:36} {wall:7.3f} s {processor:7.3f} s", file=sys.stderr, flush=True)
    facts = engine.facts()
    engine.close()
    return {
        "shape": shape,
        "seconds": seconds,
        "version": facts["engine_version"],
        "torch": facts["environment"]["torch"],
        "device": facts["environment"]["device_name"],
    }


def processor_seconds() -> float:
    """Of this process and all of SGLang's."""
    import psutil

    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def the_calls(engine: Any, requests: list[Any]) -> dict[str, Callable[[], object]]:
    from mismatchscope.records import Evidence, Sampling, Task, write_part

    prompts = [request.prompt_token_ids.tolist() for request in requests]
    levels = {"sampled": Evidence("sampled"), "top-64": Evidence("topk", k=64), "full": Evidence("full")}
    task = Task("rollout", "rollout", "", "", sampling=Sampling(NEW_TOKENS))

    def generate(**more: Any) -> Callable[[], object]:
        params = {"max_new_tokens": NEW_TOKENS, "ignore_eos": True, "temperature": 1.0}
        return lambda: list(engine._sglang.generate(input_ids=prompts, sampling_params=params, **more))

    def rollout(level: str) -> Callable[[], object]:
        return lambda: list(engine.rollout(requests, replace(task, evidence=levels[level])))

    def written() -> None:
        """As the worker does with every finished sequence."""
        with tempfile.TemporaryDirectory() as directory:
            for record in engine.rollout(requests, replace(task, evidence=levels["full"])):
                write_part(Path(directory), record)

    own = {"return_logprob": True, "logprob_start_len": -1}
    return {
        PLAIN: generate(),
        **{f"rollout, {level}": rollout(level) for level in levels},
        "rollout, full, written": written,
        OWN_TOP: generate(top_logprobs_num=64, **own),
        OWN_FULL: generate(
            top_logprobs_num=VOCABULARY,
            return_flat_raw_output_top_logprobs=True,
            return_flat_raw_top_logprobs_b64=True,
            **own,
        ),
    }


def save_model(directory: Path, layers: int, width: int) -> None:
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config

    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 128,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(directory)


def publish(results: list[dict[str, Any]], rounds: int) -> None:
    first, rows = results[0], []
    for result in results:
        plain = result["seconds"][PLAIN]
        for call, seconds in result["seconds"].items():
            ratios = {
                kind: [mine / bare for mine, bare in zip(seconds[kind], plain[kind], strict=True)] for kind in plain
            }
            rows.append((result["shape"], call, statistics.median(seconds["wall"]), ratios))
    recorded = [ratios for _, call, _, ratios in rows if call.startswith("rollout, full")]
    largest = {kind: max(statistics.median(ratios[kind]) for ratios in recorded) for kind in ("wall", "processor")}
    lines = [
        "# What recording inside SGLang costs",
        "",
        f"`python benchmarks/sglang_capture.py`, {date.today()}, {first['device']}, one thread; "
        f"SGLang {first['version']}, torch {first['torch']}, bfloat16, torch_native, {rounds} rounds. "
        f"{BATCH} sequences of {NEW_TOKENS} new tokens, {VOCABULARY} words.",
        "",
        f"Largest ratio of a rollout with full evidence to generate without log-probs: {largest['wall']:.2f} of "
        f"the wall time, {largest['processor']:.2f} of the processor time (claim: at most {CLAIM:.2f}).",
        "A rollout draws its tokens itself, in place of SGLang's sampler, which is why it can be faster.",
        "",
        "| model | call | seconds | ratio of wall time | range over rounds | ratio of processor time | range |",
        "|---|---|---:|---:|---:|---:|---:|",
        *(
            f"| {shape} | {call} | {seconds:.3f} | {shown(ratios['wall'])} | {shown(ratios['processor'])} |"
            for shape, call, seconds, ratios in rows
        ),
        "",
        "Written: each sequence as a file, as the worker does.",
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "sglang_capture.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (RESULTS / "sglang_capture.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines))


def shown(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} | {min(ratios):.2f} – {max(ratios):.2f}"


if __name__ == "__main__":
    main()
