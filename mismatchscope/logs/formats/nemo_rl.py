"""NeMo-RL's `train_data_step{N}.jsonl`: a row a sample, padded to the longest of its step, every value in a list.

`token_loss_mask` is 1 on the tokens that the policy generated; log-probs are of the token at their place, and 0.0
where nothing was generated. With dynamic sampling `rewards` are those of another batch, and `filtered_rewards` are
the samples' own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import jsonl
from ..json_lists import flags_of, floats_of, ints_of
from ..masks import first_kept, turns_of
from ..row_builder import RowBuilder, batches_of_lines
from ..source import ColumnOrigin, LogBatch, LogFormat, Part

_KEYS = {"generation_logprobs", "prev_logprobs"}
NO_MASK = (
    "no token_loss_mask, which NeMo-RL writes since February 2026: which tokens the policy generated is not known"
)
_LARGEST_INDEX = 2**40
_STEP = re.compile(r"step_?(\d{1,18})\.jsonl$")


def recognises(path: Path, head: bytes) -> bool:
    return jsonl.keys_of(path, head) >= _KEYS


def holds(path: Path) -> str | None:
    step = _step_of(path)
    return None if step is None else f"Step {step}"


def read(part: Part) -> Iterator[LogBatch]:
    """The samples of a range of lines."""
    return batches_of_lines(part, partial(_add, step=_step_of(part.path)))


def _step_of(path: Path) -> int | None:
    found = _STEP.search(path.name)
    return int(found[1]) if found else None


def _add(builder: RowBuilder, row: dict[str, Any], place: int, step: int | None) -> None:
    if "token_loss_mask" not in row:
        raise ValueError(NO_MASK)
    mask_T = flags_of(_only(row, "token_loss_mask"), "token_loss_mask")
    start = first_kept(mask_T)
    length = _only(row, "input_lengths") if "input_lengths" in row else len(mask_T)
    if not isinstance(length, int) or not start < length <= len(mask_T):
        raise ValueError("input_lengths is no length of the row")
    mask = mask_T[start:length]
    index = row.get("idx")
    values: dict[str, Any] = {
        "sequence_id": index if isinstance(index, int) and 0 <= index < _LARGEST_INDEX else place,
        "step": step,
        "environment": _environment(row.get("agent_ref")),
        "reward": _reward(row),
        "mask": mask if _is_kept(row) else np.zeros_like(mask),
        "turns": turns_of(mask),
    }
    for name, key in (("behavior_logprobs", "generation_logprobs"), ("reference_logprobs", "prev_logprobs")):
        values[name] = _response(row, key, start, length)
    if "advantages" in row:
        values["advantages"] = _response(row, "advantages", start, length)
    prompt = None
    if "token_ids" in row:
        tokens_T = ints_of(_only(row, "token_ids"), "token_ids")
        values["token_ids"], prompt = tokens_T[start:length], tokens_T[:start]
    builder.add(values, prompt)


def _only(row: dict[str, Any], key: str) -> Any:
    """The one element of a value's list."""
    value = row.get(key)
    if not isinstance(value, list) or len(value) != 1:
        raise ValueError(f"no {key}" if value is None else f"{key} is no list of one element")
    return value[0]


def _response(row: dict[str, Any], key: str, start: int, length: int) -> np.ndarray:
    values = _only(row, key)
    return floats_of(values[start:length] if isinstance(values, list) else values, key)


def _is_kept(row: dict[str, Any]) -> bool:
    return "sample_loss_mask" not in row or bool(_only(row, "sample_loss_mask"))


def _reward(row: dict[str, Any]) -> float | None:
    for key in ("filtered_rewards", "rewards"):
        value = row.get(key)
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], int | float):
            return float(value[0])
    return None


def _environment(value: Any) -> str | None:
    """The name of the agent that a sample of NeMo Gym is for."""
    agent = value[0] if isinstance(value, list) and value else value
    name = agent.get("name") if isinstance(agent, dict) else agent
    return name if isinstance(name, str) else None


FORMAT = LogFormat(
    name="nemo-rl",
    looks_for="train_data_stepN.jsonl with generation_logprobs and prev_logprobs",
    recognises=recognises,
    parts=jsonl.parts_of,
    read=read,
    grows=True,
    holds=holds,
    columns=(
        ColumnOrigin("behavior_logprobs", "generation_logprobs", "behavior"),
        ColumnOrigin(
            "reference_logprobs",
            "prev_logprobs",
            "reference",
            remark="all zeros where force_on_policy_ratio skipped the trainer's forward",
        ),
    ),
    selects="sample_loss_mask: samples over seq_logprob_error_threshold, and overlong ones, train on nothing",
)
