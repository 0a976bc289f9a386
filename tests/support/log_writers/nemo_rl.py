"""Files as NeMo-RL's `Logger.log_batched_dict_as_jsonl` leaves them: a step a file, a sample a line, every value
the slice of a batch, so a list of one element."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .samples import Sample


def write_step(
    directory: Path,
    step: int,
    samples: Sequence[Sample],
    *,
    multiple_of: int = 8,
    placeholder: bool = False,
    dropped: Sequence[int] = (),
    other_rewards: Sequence[float] | None = None,
    agents: bool = False,
) -> Path:
    """Write one step.

    multiple_of: the padded length is a multiple of it.
    placeholder: `prev_logprobs` are all zero, as with force_on_policy_ratio.
    dropped: samples whose `sample_loss_mask` is 0.
    other_rewards: with dynamic sampling, `rewards` are these, of the batch before it was filtered.
    agents: with the `agent_ref` of NeMo Gym.
    """
    longest = -(-max(len(sample.tokens_T) for sample in samples) // multiple_of) * multiple_of
    rows = []
    for index, sample in enumerate(samples):
        row: dict[str, Any] = {}
        if agents:
            row["agent_ref"] = [{"type": "responses_api_agents", "name": sample.environment}]
        row["content"] = ['a text with "generation_logprobs": and \u2028']
        row["rewards"] = [sample.reward]
        if other_rewards is not None:
            row["filtered_rewards"] = [sample.reward]
            row["rewards"] = list(other_rewards[index : index + 1])
        row["input_lengths"] = [len(sample.tokens_T)]
        row["token_ids"] = [_padded(sample.tokens_T, longest)]
        row["token_loss_mask"] = [_padded(sample.generated_T.astype(np.int64), longest)]
        row["sample_loss_mask"] = [0.0 if index in dropped else 1.0]
        row["advantages"] = [[float(np.float32(sample.advantage))] * longest]
        row["generation_logprobs"] = [_padded(sample.mu_T, longest)]
        row["prev_logprobs"] = [_padded(0 * sample.pi_T if placeholder else sample.pi_T, longest)]
        rows.append({**row, "idx": index})
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"train_data_step{step}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _padded(values_T: np.ndarray, length: int) -> list[Any]:
    return np.concatenate([values_T, np.zeros(length - len(values_T), values_T.dtype)]).tolist()
