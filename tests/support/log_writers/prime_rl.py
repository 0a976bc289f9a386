"""Files as prime-rl's token exporter leaves them: a rank a file, a sequence a line, `STABLE` when all is there."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .samples import Sample

VOCABULARY = 1000
MASK_HIGH = MASK_LOW = 0.2


def write_rank(
    directory: Path,
    step: int,
    rank: int,
    samples: Sequence[Sample],
    *,
    packed: int = 1,
    stable: bool = True,
    ratios: bool = True,
    cross_entropy: Sequence[int] = (),
    rl_weights: bool = False,
    **changes: Any,
) -> Path:
    """Write what one rank exports of a step.

    packed: so many sequences share a line, and their `position_ids` begin anew.
    stable: whether the step's directory gets its `STABLE`.
    ratios: without them the columns that the loss derives are all null.
    cross_entropy: samples that train by cross-entropy, whose `rl_weights` are 0; of the others they are null
        unless `rl_weights`.
    changes: keys of every line that are another value, or None where a version does not write them.
    """
    rows = []
    for begin in range(0, len(samples), packed):
        share = samples[begin : begin + packed]
        indices = range(begin, begin + len(share))
        streams = rl_weights or any(index in cross_entropy for index in indices)
        columns = [
            _columns(sample, index in cross_entropy, streams, ratios)
            for index, sample in zip(indices, share, strict=True)
        ]
        joined = {key: [value for column in columns for value in column[key]] for key in columns[0]}
        rows.append(
            {
                "schema_version": 1,
                "step": step,
                "rank": rank,
                "micro_step": 0,
                "micro_sequence_idx": begin,
                "export_sequence_idx": len(rows),
                "env_name": share[0].environment,
                **joined,
                **{key: value(share) if callable(value) else value for key, value in changes.items()},
            }
        )
    folder = directory / "token_exports" / f"step_{step}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"rank_{rank}.jsonl"
    rows = [{key: value for key, value in row.items() if value is not None} for row in rows]
    lines = [json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    if stable:
        (folder / "STABLE").touch()
    return path


def write_first_version(directory: Path, step: int, rank: int, samples: Sequence[Sample], **changes: Any) -> Path:
    """As of 21 May 2026: without `STABLE` and weights of components, with a mode and rewards."""
    absent = dict.fromkeys(("rl_weights", "ce_weights", "ref_kl_weights"))

    def rewards(share: Sequence[Sample]) -> list[float]:
        return [sample.reward for sample in share for _ in sample.tokens_T]

    own: dict[str, Any] = {"training_mode": "rl", "rewards": rewards, **absent}
    return write_rank(directory, step, rank, samples, stable=False, **(own | changes))


def _columns(sample: Sample, distilled: bool, streams: bool, ratios: bool) -> dict[str, list[Any]]:
    length = len(sample.tokens_T)
    trainer_T = sample.pi_T.copy()
    trainer_T[0] = -math.log(VOCABULARY)
    advantage_T = np.full(length, sample.advantage, np.float32)
    log_ratio_T = trainer_T - sample.mu_T
    ratio_T = np.exp(log_ratio_T)
    difference_T = np.exp(trainer_T) - np.exp(sample.mu_T)
    high_T, low_T = difference_T > MASK_HIGH, difference_T < -MASK_LOW
    outside_T = sample.generated_T & np.where(advantage_T > 0, high_T, low_T)
    null = [None] * length

    def derived(values_T: np.ndarray) -> list[Any]:
        return _finite(values_T) if ratios else null

    return {
        "token_ids": sample.tokens_T.tolist(),
        "position_ids": list(range(length)),
        "loss_mask": sample.generated_T.tolist(),
        "advantages": _finite(advantage_T),
        "inference_logprobs": _finite(sample.mu_T),
        "trainer_logprobs": _finite(trainer_T),
        "entropy": _finite(np.full(length, 0.5, np.float32)),
        "mismatch_kl": derived(ratio_T - log_ratio_T - 1),
        "log_importance_ratio": derived(log_ratio_T),
        "importance_ratio": derived(ratio_T),
        "prob_delta": derived(difference_T),
        "is_masked": outside_T.tolist() if ratios else null,
        "is_masked_high": (outside_T & high_T).tolist() if ratios else null,
        "is_masked_low": (outside_T & low_T).tolist() if ratios else null,
        "rl_weights": [0.0 if distilled else 1.0] * length if streams else null,
        "ce_weights": [1.0 if distilled else 0.0] * length if streams else null,
        "ref_kl_weights": null,
    }


def _finite(values_T: np.ndarray) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values_T.astype(np.float32).tolist()]
