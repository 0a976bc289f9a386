"""Files as slime's `save_debug_rollout_data` and `save_debug_train_data` leave them, of format 2 and before it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .samples import Sample

LAYERS, TOP_K = 2, 2


def index_of(rollout_id: int, place: int) -> int:
    """Samples are numbered through all of a run."""
    return 1000 * rollout_id + place


def kept_sets(sample: Sample) -> tuple[list[int], list[int]]:
    """Ids end to end and offsets: three ids where the token was sampled, none elsewhere."""
    own = sample.response
    ids: list[int] = []
    offsets = [0]
    for token, generated in zip(sample.tokens_T[own].tolist(), sample.generated_T[own], strict=True):
        ids += [token, token + 1, token + 2] if generated else []
        offsets.append(len(ids))
    return ids, offsets


def experts(sample: Sample) -> np.ndarray:
    """A row for each token that was read, which the last was not: numbered by its place."""
    rows = len(sample.tokens_T) - 1
    return np.arange(rows * LAYERS * TOP_K, dtype=np.int32).reshape(rows, LAYERS, TOP_K) % 60


def rollout_sample(sample: Sample, rollout_id: int, place: int, **changes: Any) -> dict[str, Any]:
    """`Sample.to_dict`, of the fields that matter and some that do not."""
    own = sample.response
    values: dict[str, Any] = {
        "group_index": place // 2,
        "index": index_of(rollout_id, place),
        "rollout_id": None,
        "prompt": "",
        "tokens": sample.tokens_T.tolist(),
        "multimodal_inputs": None,
        "response": "",
        "response_length": len(sample.tokens_T) - sample.prompt,
        "label": None,
        "reward": sample.reward,
        "loss_mask": None if sample.generated_T[own].all() else sample.generated_T[own].astype(int).tolist(),
        "weight_versions": [str(rollout_id)],
        "rollout_log_probs": sample.mu_T[own].astype(float).tolist(),
        "rollout_top_p_token_ids": None,
        "rollout_top_p_token_offsets": None,
        "rollout_routed_experts": None,
        "remove_sample": False,
        "metadata": {"source_name": sample.environment},
        "spec_info": {"spec_accept_token_num": 0},
        "status": "completed",
    }
    return values | changes


def write_rollout(path: Path, rollout_id: int, samples: Sequence[Sample], **changes: Any) -> Path:
    """`changes` are made to every sample; a function is called with the sample."""
    import torch

    rows = [
        rollout_sample(
            sample, rollout_id, place, **{k: v(sample) if callable(v) else v for k, v in changes.items()}
        )
        for place, sample in enumerate(samples)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"rollout_id": rollout_id, "samples": rows}, path)
    return path


def columns_of(samples: Sequence[Sample], rollout_id: int, places: Sequence[int]) -> dict[str, Any]:
    """What a data-parallel rank holds of a rollout: columns, of its samples or of all."""
    import torch

    own = [samples[place] for place in places]
    return {
        "partition": list(places),
        "tokens": [torch.tensor(sample.tokens_T, dtype=torch.long) for sample in own],
        "response_lengths": [len(sample.tokens_T) - sample.prompt for sample in own],
        "rewards": [sample.advantage for sample in own],
        "truncated": [0 for _ in own],
        "loss_masks": [torch.tensor(sample.generated_T[sample.response], dtype=torch.int) for sample in own],
        "sample_indices": [index_of(rollout_id, place) for place in places],
        "rollout_log_probs": [torch.tensor(sample.mu_T[sample.response]) for sample in own],
        "raw_reward": [sample.reward for sample in samples],
        "total_lengths": [len(sample.tokens_T) for sample in own],
        "micro_batch_indices": [[0]],
        "num_microbatches": [1],
        "log_probs": [torch.tensor(sample.pi_T[sample.response]) for sample in own],
        "advantages": [torch.full((len(sample.tokens_T) - sample.prompt,), sample.advantage) for sample in own],
        "entropy": [torch.full((len(sample.tokens_T) - sample.prompt,), 0.5) for sample in own],
    }


def write_train(path: Path, rollout_id: int, samples: Sequence[Sample], *, ranks: int = 2, **changes: Any) -> Path:
    """Format 2: all samples of all ranks in the rollout's order. `changes` as of `write_rollout`."""
    import torch

    rows: list[dict[str, Any]] = []
    shards = []
    for rank in range(ranks):
        places = list(range(rank, len(samples), ranks))
        columns = columns_of(samples, rollout_id, places)
        shards.append({"rank": rank, "data_parallel_rank": rank, "partition": places, "num_microbatches": [1]})
        whole = ("partition", "raw_reward", "sample_indices", "micro_batch_indices", "num_microbatches")
        for at, place in enumerate(places):
            row: dict[str, Any] = {"data_parallel_rank": rank, "sample_index": columns["sample_indices"][at]}
            row |= {"rollout_position": place}
            row |= {name: values[at] for name, values in columns.items() if name not in whole}
            row |= {name: value(samples[place]) if callable(value) else value for name, value in changes.items()}
            rows.append({name: value for name, value in row.items() if value is not None})
    rows.sort(key=lambda row: row["rollout_position"])
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"format_version": 2, "rollout_id": rollout_id, "rank": 0, "samples": rows, "dp_shards": shards}
    torch.save(document | {"raw_reward": [sample.reward for sample in samples]}, path)
    return path


def write_old_train(
    directory: Path, rollout_id: int, samples: Sequence[Sample], *, tensor_parallel: int = 2, **changes: Any
) -> list[Path]:
    """Before format 2: a file a rank, here two data-parallel ranks of `tensor_parallel` each, and for each a first
    pipeline stage, which has no log-probs. `changes` replace columns, or take them away."""
    import torch

    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for stage in (0, 1):
        for rank in range(2 * tensor_parallel):
            columns = columns_of(samples, rollout_id, range(rank // tensor_parallel, len(samples), 2))
            del columns["partition"]
            if stage == 0:
                columns = {k: v for k, v in columns.items() if k not in ("log_probs", "advantages", "entropy")}
            number = stage * 2 * tensor_parallel + rank
            paths.append(directory / f"{rollout_id}_{number}.pt")
            document = {"rollout_id": rollout_id, "rank": number, "rollout_data": columns | changes}
            torch.save(document, paths[-1])
    return paths
