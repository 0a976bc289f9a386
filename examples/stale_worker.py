"""A log of four workers, one of which missed an update of the weights: what `diagnose` says of it, and proves.

The embedded model is step 20. Step 10 is a copy with random changes, and one worker still samples with it. Trainers
write such a log with `ms.Recorder`, as is done here.

    python examples/stale_worker.py stale-worker
    cd stale-worker
    mismatchscope diagnose log
    mismatchscope diagnose log --confirm --model checkpoints/step-20 --candidate checkpoints/step-10 -o diagnosis
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import mismatchscope as ms

WORKERS = ("step-20", "step-20", "step-10", "step-20")
ENGINE = "transformers:dtype=bfloat16"


def save_checkpoints(directory: Path) -> None:
    embedded = Path(ms.__file__).parent / "demo" / "dense"
    model = AutoModelForCausalLM.from_pretrained(embedded)
    tokenizer = AutoTokenizer.from_pretrained(embedded)
    torch.manual_seed(1)
    for step in ("step-20", "step-10"):
        model.save_pretrained(directory / step)
        tokenizer.save_pretrained(directory / step)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "proj" in name:
                    weight.add_(torch.randn_like(weight) * weight.std() * 0.3)


def run(*arguments: object) -> None:
    subprocess.run([Path(sys.executable).with_name("mismatchscope"), *map(str, arguments)], check=True)


def log_worker(recorder: ms.Recorder, directory: Path, number: int, sampler: Sequence, trainer: Sequence) -> None:
    """Have a worker sample, have what it sampled scored as the trainer would, and record both."""
    mu, pi = directory / f"sampled-{number}", directory / f"scored-{number}"
    tokens = ("--limit", 24, "--samples", 1, "--max-new-tokens", 48, "--seed", number, "--evidence", "sampled")
    run("rollout", *sampler, *tokens, "-o", mu)
    run("score", mu, *trainer, "-o", pi)
    responses = ms.open_trace(mu).sequences()
    columns = (ms.open_trace(trace).tokens().groupby("sequence_id")["logprob"].agg(list) for trace in (mu, pi))
    behavior, reference = (column.loc[responses["sequence_id"]].tolist() for column in columns)
    recorder.log(
        token_ids=[ids.tolist() for ids in responses["response_token_ids"]],
        prompt_token_ids=[ids.tolist() for ids in responses["prompt_token_ids"]],
        behavior_logprobs=behavior,
        reference_logprobs=reference,
        worker=[f"worker-{number}"] * len(responses),
        step=20,
    )


def main(directory: Path) -> None:
    checkpoints = directory / "checkpoints"
    save_checkpoints(checkpoints)
    recorder = ms.Recorder(directory / "log", trainer="an example", flush_seconds=3600)
    trainer = ("--engine", ENGINE, "--model", checkpoints / "step-20")
    for number, step in enumerate(WORKERS):
        log_worker(recorder, directory, number, ("--engine", ENGINE, "--model", checkpoints / step), trainer)
    recorder.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
