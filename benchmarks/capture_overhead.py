"""Claim: recording the distributions costs at most 25 % on top of the bare generate and forward calls.

    python benchmarks/capture_overhead.py

On the same batches, in the same process, round after round: transformers' own `generate(do_sample=True)` against
the engine's rollout, and the model's plain forward against the engine's prefill, at every evidence level. A ratio
is the median of the rounds' ratios. Two models: the embedded one (small vocabulary), and random weights in the
shape of Qwen3-0.6B (152k words) with 4 of its 28 layers, where the capture has the least to hide behind. On a CPU
the processor time of one thread is taken, which other programs disturb least; on CUDA, where on_gpu.py runs it, the
wall time. Prints the table and writes benchmarks/results/capture_overhead.md and .json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, Qwen3Config

from mismatchscope.engines.common.capture import log_softmax
from mismatchscope.engines.common.sampling import draw, uniforms
from mismatchscope.engines.transformers.decoding import decode
from mismatchscope.engines.transformers.engine import TransformersEngine, TransformersOptions
from mismatchscope.engines.transformers.prefilling import lay_out, prefill
from mismatchscope.records import Evidence, Request, Sampling, SequenceRecord, Task, write_part

LEVELS = {"sampled": Evidence("sampled"), "top-64": Evidence("topk", k=64), "full": Evidence("full")}
CLAIM = 1.25

Calls = dict[str, Callable[[], object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    publish(measured("cpu", arguments.rounds), arguments.rounds)


def measured(device: str, rounds: int) -> list[dict[str, object]]:
    """The rows of the table, of both models."""
    embedded = Path(__file__).parents[1] / "mismatchscope" / "demo" / "dense"
    with tempfile.TemporaryDirectory() as directory:
        save_wide_model(Path(directory))
        return [
            *measure("embedded", embedded, device, rounds, batch_size=32, new_tokens=96),
            *measure("152k words", Path(directory), device, rounds, batch_size=16, new_tokens=16),
        ]


def measure(
    name: str, model: Path, device: str, rounds: int, batch_size: int, new_tokens: int
) -> list[dict[str, object]]:
    """Time every call on one batch of random prompts; rows of the table."""
    engine = TransformersEngine(str(model), TransformersOptions(device=device, batch_size=batch_size))
    engine.load()
    engine._stop_ids = []  # every call makes the same number of tokens
    rng = np.random.default_rng(0)
    requests = [
        Request(i, i, rng.integers(2, 1000, rng.integers(24, 48)).astype(np.int32)) for i in range(batch_size)
    ]
    task = Task("rollout", "rollout", "", "", sampling=Sampling(new_tokens))
    rollouts = {level: list(engine.rollout(requests, replace(task, evidence=LEVELS[level]))) for level in LEVELS}
    rows = []
    for kind, calls in (
        ("sample", sampling_calls(engine, requests, task)),
        ("score", scoring_calls(engine, rollouts)),
    ):
        seconds = time_rounds(calls, device, rounds)
        bare, *_ = seconds
        for call, samples in seconds.items():
            ratios = [mine / other for mine, other in zip(samples, seconds[bare], strict=True)]
            rows.append(
                {
                    "model": name,
                    "kind": kind,
                    "call": call,
                    "seconds": statistics.median(samples),
                    "ratio": statistics.median(ratios),
                    "ratio_low": min(ratios),
                    "ratio_high": max(ratios),
                    "tokens": batch_size * new_tokens,
                }
            )
            print(
                f"{name:12} {kind:7} {call:32} {rows[-1]['seconds']:7.3f} s   x{rows[-1]['ratio']:.2f}", flush=True
            )
    return rows


def sampling_calls(engine: TransformersEngine, requests: list[Request], task: Task) -> Calls:
    prompts = [request.prompt_token_ids for request in requests]
    longest, length = max(map(len, prompts)), task.sampling.max_new_tokens
    padded = torch.tensor([[0] * (longest - len(prompt)) + prompt.tolist() for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    padded, mask = padded.to(engine._lm.device), mask.to(engine._lm.device)
    config = GenerationConfig(do_sample=True, top_k=0, max_new_tokens=length, eos_token_id=None, pad_token_id=0)

    @torch.inference_mode()
    def generate() -> object:
        return engine._lm.network.generate(padded, attention_mask=mask, generation_config=config)

    def loop() -> object:
        uniform_BT = torch.from_numpy(uniforms(0, range(len(prompts)), length)).to(engine._lm.device)
        return list(
            decode(
                engine._lm,
                prompts,
                lambda rows, position, logits: (
                    draw(log_softmax(logits), uniform_BT[:, position]),
                    np.full(len(rows), position + 1 == length),
                ),
            )
        )

    captured = {
        f"rollout, {level}": lambda evidence=evidence: list(
            engine.rollout(requests, replace(task, evidence=evidence))
        )
        for level, evidence in LEVELS.items()
    }
    captured["rollout, full, written"] = lambda: write(captured["rollout, full"]())
    return {"generate(do_sample=True)": generate, "the engine's loop, no capture": loop} | captured


def scoring_calls(engine: TransformersEngine, rollouts: dict[str, list[SequenceRecord]]) -> Calls:
    records = rollouts["full"]
    layout = lay_out([r.prompt_token_ids for r in records], [r.response_token_ids for r in records], "right")
    input_ids = torch.from_numpy(layout.input_ids_BT).to(engine._lm.device)
    mask = torch.from_numpy(layout.mask_BT).to(engine._lm.device)

    @torch.inference_mode()
    def forward() -> torch.Tensor:
        return engine._lm.network(input_ids=input_ids, attention_mask=mask, use_cache=False).logits

    @torch.inference_mode()
    def gathered() -> torch.Tensor:
        return forward()[:, :-1].float().log_softmax(dim=-1).gather(-1, input_ids[:, 1:, None])

    def halves() -> object:
        return [logits for _, logits in prefill(engine._lm, layout, engine.options.logprob_chunk)]

    def score(level: str) -> Callable[[], object]:
        requests = [
            Request(
                record.sequence_id,
                record.prompt_id,
                record.prompt_token_ids,
                response_token_ids=record.response_token_ids,
                observed_ids_TK=record.observed.topk_ids_TK,
                kth_logprob_T=None if level != "top-64" else record.observed.topk_logprobs_TK[:, -1],
            )
            for record in rollouts[level]
        ]
        task = Task("score", "score", "", "", LEVELS[level])
        return lambda: list(engine.score(requests, task))

    captured = {f"score, {level}": score(level) for level in LEVELS}
    captured["score, full, written"] = lambda: write(captured["score, full"]())
    bare = {
        "forward": forward,
        "forward, log_softmax, gather": gathered,
        "the engine's forward, no capture": halves,
    }
    return bare | captured


def write(records: list[SequenceRecord]) -> None:
    """What the worker does with every finished sequence."""
    with tempfile.TemporaryDirectory() as directory:
        for record in records:
            write_part(Path(directory), record)


def time_rounds(calls: Calls, device: str, rounds: int) -> dict[str, list[float]]:
    def clock() -> float:
        if device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = clock()
            call()
            seconds[name].append(clock() - began)
    return seconds


def save_wide_model(directory: Path) -> None:
    config = Qwen3Config(
        vocab_size=151_936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=4,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(directory)


def table(rows: list[dict[str, object]]) -> list[str]:
    return [
        "A rollout records and draws; a score records every response token, at the behaviour policy's top-64 ids "
        "with the tail overlap where it is top-64. Prompts have 24 to 47 tokens; the plain forward computes logits "
        "for them too, the engine's for the response alone. Written: each sequence as a file, as the worker does.",
        "",
        "| model | call | seconds | ratio to the bare call | range over rounds | response tokens/s |",
        "|---|---|---:|---:|---:|---:|",
        *(
            f"| {row['model']} | {row['call']} | {row['seconds']:.3f} | {row['ratio']:.2f} "
            f"| {row['ratio_low']:.2f} – {row['ratio_high']:.2f} | {row['tokens'] / row['seconds']:,.0f} |"
            for row in rows
        ),
    ]


def publish(rows: list[dict[str, object]], rounds: int) -> None:
    import transformers

    from mismatchscope.machine import hardware

    largest = max(row["ratio"] for row in rows if row["call"].startswith(("rollout", "score")))
    lines = [
        "# What capturing the distributions costs",
        "",
        f"`python benchmarks/capture_overhead.py`, {date.today()}, {hardware()['cpu']}, one thread; "
        f"torch {torch.__version__}, transformers {transformers.__version__}, bfloat16, {rounds} rounds.",
        "",
        f"Largest ratio of a capturing call to the bare one: {largest:.2f} (claim: at most {CLAIM}).",
        *table(rows),
    ]
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "capture_overhead.md").write_text("\n".join(lines) + "\n")
    (results / "capture_overhead.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
