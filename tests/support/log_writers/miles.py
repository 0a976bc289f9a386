"""Files as miles writes them with --dump-details."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .samples import Sample
from .slime import columns_of, index_of, rollout_sample

SLICED = ("log_probs", "rollout_log_probs", "advantages", "entropy")


def theta_of(sample: Sample) -> np.ndarray:
    """π_θ's log-probs of the response: π_old's, a little lower."""
    return (sample.pi_T[sample.response] - np.float32(0.125)).astype(np.float32)


def write_rollout(
    run: Path, rollout_id: int, samples: Sequence[Sample], *, parquet: bool = True, **changes: Any
) -> None:
    """`rollout_data/ID.pt`, and the dashboard's copy of it. `changes` are made to every sample."""
    import torch

    rows = [rollout_sample(sample, rollout_id, place, **changes) for place, sample in enumerate(samples)]
    for directory in ("rollout_data", "dashboard_columns"):
        (run / directory).mkdir(parents=True, exist_ok=True)
    torch.save({"rollout_id": rollout_id, "metadata": {}, "samples": rows}, run / f"rollout_data/{rollout_id}.pt")
    if parquet:
        write_dashboard(run / f"dashboard_columns/rollout_{rollout_id}.parquet", rows)


def write_dashboard(path: Path, rows: list[dict[str, Any]]) -> Path:
    """As polars writes it: large lists, eight rows a group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lists = {"tokens": pa.int32(), "loss_mask": pa.int8(), "rollout_log_probs": pa.float32()}
    columns = {
        "sample_index": pa.array([row["index"] for row in rows], pa.int32()),
        "response_length": pa.array([row["response_length"] for row in rows], pa.int32()),
        "total_length": pa.array([len(row["tokens"]) for row in rows], pa.int32()),
        **{name: pa.array([row[name] for row in rows], pa.large_list(kind)) for name, kind in lists.items()},
    }
    pq.write_table(pa.table(columns), path, row_group_size=8, compression="zstd")
    return path


def slices(values_R: Any, total: int, ranks: int, rank: int, padded: int | None = None) -> Any:
    """What a context-parallel rank holds of a response: `slice_log_prob_with_cp`, written down in full."""
    prompt = total - len(values_R)
    length = -(-(padded or total) // (2 * ranks))
    held = []
    for chunk in (rank, 2 * ranks - 1 - rank):
        states = range(max(chunk * length, prompt - 1), min((chunk + 1) * length, total - 1))
        held += [state - (prompt - 1) for state in states]
    return values_R[held]


def write_train(
    run: Path,
    rollout_id: int,
    samples: Sequence[Sample],
    *,
    context_parallel: int = 1,
    record_ranks: bool = True,
    padded: int | None = None,
    swapped: bool = False,
    **changes: Any,
) -> None:
    """`train_data/ID_RANK.pt`: two data-parallel ranks, each of `context_parallel`. `changes` replace columns.

    record_ranks: earlier versions recorded no cp_rank and cp_size.
    padded: what sequences were padded to, with the bshd layout.
    swapped: the slices lie the other way round than the recorded ranks say.
    """
    import torch

    (run / "train_data").mkdir(parents=True, exist_ok=True)
    for rank in range(2 * context_parallel):
        data, part = divmod(rank, context_parallel)
        columns = columns_of(samples, rollout_id, range(data, len(samples), 2)) | changes
        del columns["partition"]
        if context_parallel > 1:
            held = context_parallel - 1 - part if swapped else part
            for name in SLICED:
                columns[name] = [
                    slices(values, total, context_parallel, held, padded)
                    for values, total in zip(columns[name], columns["total_lengths"], strict=True)
                ]
        if padded is not None:
            columns["max_seq_lens"] = [padded] * len(columns["tokens"])
        document: dict[str, Any] = {"rollout_id": rollout_id, "rank": rank, "rollout_data": columns}
        if record_ranks:
            document |= {"cp_rank": part, "cp_size": context_parallel}
            document |= {"qkv_format": "thd" if padded is None else "bshd"}
        torch.save(document, run / f"train_data/{rollout_id}_{rank}.pt")


def write_losses(
    run: Path,
    samples: Sequence[Sample],
    *,
    rank: int = 0,
    first_call: int = 0,
    micro_batch: int = 2,
    order: Sequence[int] | None = None,
    sliced: bool = False,
    old: Any = lambda sample: sample.pi_T[sample.response],
) -> None:
    """`policy_loss_debug/rank_R_call_N.pt` of a rank's samples, in the order of its micro-batches.

    sliced: of a context-parallel rank. old: what stands for the old policy's log-probs.
    """
    import torch

    (run / "policy_loss_debug").mkdir(parents=True, exist_ok=True)
    ordered = [samples[place] for place in (range(len(samples)) if order is None else order)]
    for number, start in enumerate(range(0, len(ordered), micro_batch)):
        rows = []
        for index, sample in enumerate(ordered[start : start + micro_batch]):
            length = len(sample.tokens_T) - sample.prompt
            held = slice(0, length // 2) if sliced else slice(None)
            values = {
                "train_log_probs": theta_of(sample),
                "old_log_probs": old(sample),
                "advantages": np.full(length, sample.advantage, np.float32),
                "local_loss_mask": sample.generated_T[sample.response].astype(np.float32),
                "rollout_log_probs": sample.mu_T[sample.response],
            }
            tensors = {name: torch.tensor(value)[held] for name, value in values.items()}
            rows.append({"index": index, "total_length": len(sample.tokens_T), "response_length": length} | tensors)
        call = first_call + number
        document = {
            "rank": rank,
            "call": call,
            "samples": rows,
            "ppo_kl": torch.zeros(1),
            "pg_loss": torch.zeros(1),
        }
        torch.save(document | {"finite": {"ppo_kl": True}}, run / f"policy_loss_debug/rank_{rank}_call_{call}.pt")


__all__ = ["index_of"]
