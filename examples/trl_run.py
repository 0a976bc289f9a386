"""A GRPO run of the embedded model with TRL on a CPU, recorded: rollouts in bfloat16, a trainer in float32.

    python examples/trl_run.py run                     # sound
    python examples/trl_run.py stale --stale-from 20   # from step 20 on the sampler gets no new weights
    mismatchscope analyze run/log

It takes a minute or two, and needs TRL: pip install "trl>=1.16,<1.17". The four lines of a recorder are in `main`.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

import mismatchscope as ms
from mismatchscope.demo import model_path, prompts_path
from mismatchscope.integrations import trl


def rollouts_in_bfloat16(stale_from: int | None = None) -> Callable[[list[str], GRPOTrainer], dict[str, Any]]:
    """A `rollout_func`: the trainer's weights of this moment, rounded to bfloat16, sample and say their log-probs.

    From the step `stale_from` on the weights are those of that step: a broken synchronisation.
    """
    sampler: dict[str, Any] = {}

    def rollout(prompts: list[str], trainer: GRPOTrainer) -> dict[str, Any]:
        step, tokenizer, device = trainer.state.global_step, trainer.processing_class, trainer.accelerator.device
        if stale_from is None or step <= stale_from or not sampler:
            # A model of its own: the trainer's, copied, would go on to call the forward of the original.
            weights = trainer.accelerator.unwrap_model(trainer.model).state_dict()
            model = AutoModelForCausalLM.from_config(trainer.model.config)
            sampler["model"] = model.to(device, torch.bfloat16).eval()
            sampler["model"].load_state_dict(weights)
            sampler["version"] = step
        prompt_ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
        padded = tokenizer.pad({"input_ids": prompt_ids}, padding_side="left", return_tensors="pt").to(device)
        with torch.no_grad():
            found = sampler["model"].generate(
                **padded,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=trainer.args.max_completion_length,
                return_dict_in_generate=True,
                output_logits=True,
            )
        width = padded["input_ids"].shape[1]
        drawn = found.sequences[:, width:]
        logp = torch.stack(found.logits, dim=1).float().log_softmax(dim=-1).gather(2, drawn[..., None]).squeeze(2)
        ended = (drawn == tokenizer.eos_token_id).long().cumsum(dim=1)
        lengths = ((ended - (drawn == tokenizer.eos_token_id).long()) == 0).sum(dim=1).tolist()
        return {
            "prompt_ids": prompt_ids,
            "completion_ids": [row[:n].tolist() for row, n in zip(drawn, lengths, strict=True)],
            "logprobs": [row[:n].tolist() for row, n in zip(logp, lengths, strict=True)],
            "policy_version": [sampler["version"]] * len(prompts),
        }

    return rollout


def is_right(completions: list[str], answer: list[str], **others: Any) -> list[float]:
    """1 where the last number of a completion is the answer."""
    numbers = [
        [w.strip(".,!") for w in text.split() if w.strip(".,!").lstrip("-").isdigit()] for text in completions
    ]
    return [float(bool(found) and found[-1] == right) for found, right in zip(numbers, answer, strict=True)]


def grpo_trainer(
    directory: Path, rollout: Callable[..., Any] | None, *, prompts: int = 64, **options: Any
) -> GRPOTrainer:
    """A trainer of the embedded dense model, ready to run."""
    torch.manual_seed(0)
    path = str(model_path("dense"))
    lines = prompts_path().read_text(encoding="utf-8").splitlines()[:prompts]
    settings = {
        "per_device_train_batch_size": 16,
        "num_generations": 4,
        "max_completion_length": 64,
        "learning_rate": 1e-5,
        "max_steps": 2,
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "seed": 0,
    }
    return GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(path),
        reward_funcs=is_right,
        args=GRPOConfig(output_dir=str(directory), **(settings | options)),
        train_dataset=Dataset.from_list([json.loads(line) for line in lines]),
        rollout_func=rollout,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the embedded model with GRPO, and record it.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--stale-from", type=int, metavar="STEP")
    parser.add_argument("--learning-rate", type=float, default=3e-5)
    arguments = parser.parse_args()
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # rollout_func is said to be experimental
    torch.set_num_threads(1)  # the model is small: more threads wait for one another

    trainer = grpo_trainer(
        arguments.directory,
        rollouts_in_bfloat16(arguments.stale_from),
        prompts=256,
        max_steps=arguments.steps,
        learning_rate=arguments.learning_rate,
        lr_scheduler_type="constant",
        per_device_train_batch_size=32,
        logging_steps=8,
    )
    recorder = ms.Recorder(arguments.directory / "log", trainer="trl")
    trl.attach(trainer, recorder)
    trainer.train()
    recorder.close()
    print(f"{recorder.rows} completions in {recorder.path}, {recorder.errors} errors")


if __name__ == "__main__":
    main()
