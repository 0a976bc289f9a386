"""Claims: the default audit ends within 90 s on two cores, and capture and measuring together cost at most 25 % on
top of the bare generate and forward calls on the same batches.

    python benchmarks/audit_cost.py

Runs the installed command with no option and takes from its progress how long each engine pass took; then, in a
process of its own, the same batches bare: `generate(do_sample=True)` of transformers for the two passes that decode
(each batch as long as its longest response), and its plain forward for the two that prefill. What is on top is what
capture, writing and the worker add to those calls, and the comparison of all traces. Starting the interpreters,
loading the model and drawing the report are in the whole time, not in the cost. Writes
benchmarks/results/audit_cost.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from mismatchscope.comparison.compare_traces import Repeats, compare
from mismatchscope.composition import BatchComposition
from mismatchscope.engines.runtime.batching import plan_batches
from mismatchscope.records import Request
from mismatchscope.traces import Trace

RESULT = Path(__file__).parent / "results" / "audit_cost.md"
PASSES = ("behavior", "behavior-repeat", "reference", "reference-repeat")
SHUFFLED = 1  # the order of the repeats, as probes.audit chooses it
BATCH_SIZE = 32
ROUNDS = 5


def run_audit(directory: Path) -> tuple[float, dict[str, float]]:
    """Seconds of the whole command, and of each pass as its progress lines state them."""
    command = str(Path(sys.executable).with_name("mismatchscope"))
    began = time.perf_counter()
    done = subprocess.run([command, "audit", "-o", directory], check=True, capture_output=True, text=True)
    whole = time.perf_counter() - began
    seconds = {
        name: re.search(rf"^{name}: \d+ sequences in ([\d.]+) s", done.stderr, re.MULTILINE) for name in PASSES
    }
    return whole, {name: float(match[1]) for name, match in seconds.items()}


def measure(directory: Path) -> float:
    """Seconds that the comparison of the four traces takes, everything imported."""
    traces = {name: Trace.open(directory / name) for name in PASSES}
    repeats = Repeats(traces["behavior-repeat"], traces["reference-repeat"])
    compare(traces["behavior"], traces["reference"], repeats=repeats)  # imports
    began = time.perf_counter()
    compare(traces["behavior"], traces["reference"], repeats=repeats)
    return time.perf_counter() - began


def bare(directory: Path) -> dict[str, float]:
    """Seconds of transformers' own calls on the same batches."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from mismatchscope.demo import model_path

    model = AutoModelForCausalLM.from_pretrained(
        model_path("dense"), dtype=torch.bfloat16, attn_implementation="sdpa"
    )
    trace = Trace.open(directory / "behavior")
    torch.set_num_threads(trace.manifest.effective["threads"])
    requests = list(trace.requests())
    seconds = {}
    with torch.inference_mode():
        for name in PASSES:
            shuffle_seed = SHUFFLED if name.endswith("repeat") else None
            composition = BatchComposition(batch_size=BATCH_SIZE, shuffle_seed=shuffle_seed)
            batches = plan_batches(requests, composition)
            decodes = name.startswith("behavior")
            inputs = [_prompts(batch) if decodes else _sequences(batch) for batch in batches]
            model(input_ids=inputs[0][0], attention_mask=inputs[0][1])  # warm up
            began = time.perf_counter()
            for ids, mask, new_tokens in inputs:
                if decodes:
                    config = GenerationConfig(do_sample=True, top_k=0, max_new_tokens=new_tokens, pad_token_id=0)
                    model.generate(ids, attention_mask=mask, generation_config=config)
                else:
                    model(input_ids=ids, attention_mask=mask, use_cache=False)
            seconds[name] = time.perf_counter() - began
    return seconds


def _prompts(batch: list[Request]):
    """Left-padded prompts [B, P], their mask, and the longest response of the batch."""
    ids, mask = _padded([request.prompt_token_ids for request in batch], left=True)
    return ids, mask, max(len(request.response_token_ids) for request in batch)


def _sequences(batch: list[Request]):
    """Right-padded prompts and responses [B, T], and their mask."""
    whole = [np.concatenate([request.prompt_token_ids, request.response_token_ids]) for request in batch]
    return (*_padded(whole, left=False), 0)


def _padded(rows: list[np.ndarray], *, left: bool):
    import torch

    longest = max(map(len, rows))
    ids, mask = (
        torch.zeros(len(rows), longest, dtype=torch.int64),
        torch.zeros(len(rows), longest, dtype=torch.int64),
    )
    for row, tokens in enumerate(rows):
        span = slice(longest - len(tokens), None) if left else slice(0, len(tokens))
        ids[row, span], mask[row, span] = torch.from_numpy(tokens.astype(np.int64)), 1
    return ids, mask


def one_round() -> dict[str, Any]:
    """The audit and, right after it, the bare calls on its batches, so that both see the same machine."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch, "run")
        whole, ours = run_audit(directory)
        command = [sys.executable, __file__, "--bare", directory]
        plain = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        tokens = Trace.open(directory / "behavior").manifest.counts.tokens
        return {
            "whole": whole,
            "ours": ours,
            "plain": json.loads(plain),
            "comparing": measure(directory),
            "tokens": tokens,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        print(json.dumps(bare(arguments.bare)))
        return
    rounds = [one_round() for _ in range(ROUNDS)]
    ours = {name: statistics.median(one["ours"][name] for one in rounds) for name in PASSES}
    plain = {name: statistics.median(one["plain"][name] for one in rounds) for name in PASSES}
    whole, comparing, tokens = (
        statistics.median(one[key] for one in rounds) for key in ("whole", "comparing", "tokens")
    )
    total, plain_total = sum(ours.values()) + comparing, sum(plain.values())
    lines = [
        "# Cost of the default audit",
        "",
        f"Made by `python benchmarks/audit_cost.py` on {date.today()}: `mismatchscope audit`, {tokens:,} response "
        f"tokens, full evidence, four passes; medians of {ROUNDS} rounds; {platform.machine()}, "
        f"Python {platform.python_version()}.",
        "",
        "| pass | bare call, s | audit, s |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {plain[name]:.2f} | {ours[name]:.2f} |" for name in PASSES),
        f"| comparing four traces | | {comparing:.2f} |",
        f"| together | {plain_total:.2f} | {total:.2f} |",
        "",
        f"On top: {100 * (total / plain_total - 1):+.0f} % (claim: at most 25 %). The whole command took "
        f"{whole:.0f} s (claim: at most 90 s).",
    ]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
