"""Rows of a log in the form of `logs.columns`, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mismatchscope.logs.columns import BY_TOKEN, column_type
from mismatchscope.logs.source import LogBatch, Part


def log_batch(path: str = "log.parquet", **columns: Sequence[Any]) -> LogBatch:
    """A batch with these columns; lists by token may be arrays."""
    arrays = {
        name: pa.array(
            [value.tolist() if isinstance(value, np.ndarray) else value for value in values],
            type=column_type(name, double=name in BY_TOKEN),
        )
        for name, values in columns.items()
    }
    if "sequence_id" not in arrays:
        rows = len(next(iter(arrays.values())))
        arrays["sequence_id"] = pa.array(range(rows), type=column_type("sequence_id"))
    return LogBatch(pa.RecordBatch.from_pydict(arrays), Part(Path(path)))


def sampled_rows(
    rows: int, *, prompts: int = 4, scale: float = 0.05, seed: int = 0, longest: int = 12
) -> dict[str, list[Any]]:
    """Columns of responses whose log ratio is normal with mean −scale²/2, so that E ρ = 1."""
    generator = np.random.default_rng(seed)
    length_S = generator.integers(1, longest + 1, rows)
    behavior = [-generator.exponential(1.0, length) - scale**2 - 5 * scale for length in length_S]
    reference = [
        np.minimum(logp_T + generator.normal(-(scale**2) / 2, scale, len(logp_T)), 0.0) for logp_T in behavior
    ]
    return {
        "sequence_id": list(range(rows)),
        "prompt": (np.arange(rows) % prompts).tolist(),
        "step": (np.arange(rows) // max(rows // 5, 1)).tolist(),
        "token_ids": [generator.integers(0, 1000, length) for length in length_S],
        "behavior_logprobs": behavior,
        "reference_logprobs": reference,
    }
