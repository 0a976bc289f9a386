"""prime-rl's `token_exports/step_{s}/rank_{r}.jsonl`: a row a sequence, or several packed into one.

`position_ids` begin anew where a packed row has another sequence. Log-probs are of the token at their place: the
trainer's first is a filler, −log of the vocabulary's size, and the sampler's are 0.0 on the prompt; null stands for
what is not finite. The trainer's are those of the update's own forward, which prime-rl makes before its one
optimizer step, so that they are of the weights before the update.

Versions from before 10 June 2026 write no `STABLE`; those to 27 June say which rows are another model's text by
`training_mode`, and have `rewards`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from .. import jsonl
from ..json_lists import flags_of, floats_of, ints_of
from ..masks import NOTHING_GENERATED, first_kept, turns_of
from ..row_builder import RowBuilder, batches_of_lines
from ..source import ColumnOrigin, LogBatch, LogFormat, Part

_KEYS = {"inference_logprobs", "trainer_logprobs", "loss_mask"}
_STEP = re.compile(r"step_(\d+)")
_RANK = re.compile(r"rank_(\d+)\.jsonl")
_OPTIONAL: Final = (
    ("token_ids", "token_ids", ints_of),
    ("advantages", "advantages", floats_of),
    ("entropy", "entropy", floats_of),
)


def recognises(path: Path, head: bytes) -> bool:
    return jsonl.keys_of(path, head) >= _KEYS


def unfinished(path: Path) -> str | None:
    """A step's directory holds `STABLE` when every rank has written all of it."""
    step = path.parent
    if not _STEP.fullmatch(step.name) or (step / "STABLE").exists() or _is_older_than_stable(path):
        return None
    return f"{step} has no file STABLE, so its ranks are not done"


def holds(path: Path) -> str | None:
    step, rank = _STEP.fullmatch(path.parent.name), _RANK.fullmatch(path.name)
    return f"Step {step[1]} of rank {rank[1]}" if step and rank else None


def _is_older_than_stable(path: Path) -> bool:
    """The version that wrote the first `STABLE` wrote the first `export_step`, and still a `training_mode`."""
    keys = jsonl.keys_in(path)
    return "training_mode" in keys and "export_step" not in keys


def read(part: Part) -> Iterator[LogBatch]:
    """The sequences of a range of lines."""
    return batches_of_lines(part, _add)


def _add(builder: RowBuilder, row: dict[str, Any], place: int) -> None:
    mask_T = _required(row, "loss_mask", flags_of)
    length = len(mask_T)
    arrays = {
        "mask": mask_T & _sampled(row, length),
        "behavior_logprobs": _required(row, "inference_logprobs", floats_of),
        "reference_logprobs": _required(row, "trainer_logprobs", floats_of),
    }
    for name, key, take in _OPTIONAL:
        if _is_given(row, key):
            arrays[name] = take(row[key], key)
    if _is_given(row, "rewards"):
        arrays["rewards"] = floats_of(row["rewards"], "rewards", "d")
    if _is_given(row, "is_masked") and _is_given(row, "importance_ratio"):
        # What the loss multiplies an advantage with: the ratio, or 0 beyond its trust region.
        outside_T, ratio_T = (
            flags_of(row["is_masked"], "is_masked"),
            floats_of(row["importance_ratio"], "importance_ratio"),
        )
        if len(outside_T) == len(ratio_T):
            arrays["weights"] = np.where(outside_T, np.float32(0), ratio_T)
    if any(len(array) != length for array in arrays.values()):
        raise ValueError("lists of other lengths")
    labels = {
        "step": _int(row.get("export_step", row.get("step"))),
        "rank": _int(row.get("rank")),
        "environment": row["env_name"] if isinstance(row.get("env_name"), str) else None,
    }
    sequences = [(begin, end) for begin, end in _sequences(row, length) if mask_T[begin:end].any()]
    if not sequences:
        raise ValueError(NOTHING_GENERATED)
    for index, (begin, end) in enumerate(sequences):
        start = begin + first_kept(mask_T[begin:end])
        values: dict[str, Any] = {name: array[start:end] for name, array in arrays.items()}
        values["reward"] = _reward(values.pop("rewards", None))
        values |= labels | {"sequence_id": place + index, "turns": turns_of(mask_T[start:end])}
        builder.add(values, arrays["token_ids"][begin:start] if "token_ids" in arrays else None)


def _required(row: dict[str, Any], key: str, take: Callable[[Any, str], np.ndarray]) -> np.ndarray:
    if key not in row:
        raise ValueError(f"no {key}")
    return take(row[key], key)


def _is_given(row: dict[str, Any], key: str) -> bool:
    """Whether a list is there and not all null, which is how a column is written that a step does not have."""
    values = row.get(key)
    return isinstance(values, list) and any(value is not None for value in values)


def _reward(reward_R: np.ndarray | None) -> float | None:
    """A response's reward, which each of its tokens has."""
    if reward_R is None or not np.isfinite(reward_R[0]) or (reward_R != reward_R[0]).any():
        return None
    return float(reward_R[0])


def _sampled(row: dict[str, Any], length: int) -> np.ndarray:
    """Where the sampler's log-probs mean anything, [T]: not on tokens that train by cross-entropy alone."""
    if row.get("training_mode") == "sft":
        return np.zeros(length, dtype=bool)
    if not _is_given(row, "rl_weights"):
        return np.ones(length, dtype=bool)
    sampled_T = floats_of(row["rl_weights"], "rl_weights") != 0
    if _is_given(row, "ref_kl_weights"):
        distilled_T = floats_of(row["ref_kl_weights"], "ref_kl_weights") != 0
        sampled_T = sampled_T | distilled_T if len(distilled_T) == len(sampled_T) else distilled_T
    if len(sampled_T) != length:
        raise ValueError("lists of other lengths")
    return sampled_T


def _sequences(row: dict[str, Any], length: int) -> list[tuple[int, int]]:
    """Where the sequences of a row begin and end."""
    if not _is_given(row, "position_ids"):
        return [(0, length)]
    first, last = row["position_ids"][0], row["position_ids"][-1]
    if isinstance(first, int) and isinstance(last, int) and last - first == length - 1:
        return [(0, length)]  # a restart would have left the last one smaller
    place_T = ints_of(row["position_ids"], "position_ids")
    if len(place_T) != length:
        raise ValueError("lists of other lengths")
    begins = [0, *(np.flatnonzero(place_T[1:] <= place_T[:-1]) + 1).tolist()]
    return list(zip(begins, [*begins[1:], length], strict=True))


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) and abs(value) < 2**31 else None


FORMAT = LogFormat(
    name="prime-rl",
    looks_for="token_exports/step_S/rank_R.jsonl with inference_logprobs and trainer_logprobs",
    recognises=recognises,
    parts=jsonl.parts_of,
    read=read,
    grows=True,
    holds=holds,
    columns=(
        ColumnOrigin("behavior_logprobs", "inference_logprobs", "behavior"),
        ColumnOrigin(
            "reference_logprobs",
            "trainer_logprobs",
            "target",
            settled=False,
            remark="of the update's own forward, before the one optimizer step of a batch",
        ),
    ),
    unfinished=unfinished,
)
