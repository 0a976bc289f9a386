"""Records what slime trains on, through slime's own hook:

    export MISMATCHSCOPE_RECORD=/logs/run-7
    … --rollout-data-postprocess-path mismatchscope.integrations.slime.record --get-mismatch-metrics

slime calls it in each training process, before the update. `rollout_log_probs` is μ and `log_probs` π_old, one
tensor a response, [response length]; value [t] is of response token t. Where slime can, it takes the log-probs of
the update's own forward instead, and has none yet: `--get-mismatch-metrics` makes it compute them.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

from ..logs.recorder import Recorder
from .process_setup import recorder_from_environment

WRITTEN_AGAINST = "slime at commit 624b824a (August 2026)"
_recorders: list[Recorder] = []


def record(args: Any, rollout_id: int, rollout_data: dict[str, Any]) -> None:
    """Record the responses of this rank; of ranks that share them, the last pipeline stage's first alone."""
    if not _recorders:
        _recorders.append(recorder_from_environment("slime"))
    with _recorders[0].guarded("A rollout of slime was not recorded"):
        if _has_the_responses():
            _recorders[0].log(**_batch(args, rollout_id, rollout_data))


def _has_the_responses() -> bool:
    parallel = sys.modules.get("megatron.core.parallel_state")
    if parallel is None or not parallel.model_parallel_is_initialized():
        return True
    if parallel.get_context_parallel_world_size() > 1:
        raise ValueError("context parallelism cuts responses into pieces, which the hook does not put together")
    return bool(parallel.is_pipeline_last_stage()) and parallel.get_tensor_model_parallel_rank() == 0


def _batch(args: Any, rollout_id: int, data: dict[str, Any]) -> dict[str, Any]:
    for name, remedy in (
        ("rollout_log_probs", "let the rollout return log-probs (--use-tis, or another use of them)"),
        ("log_probs", "--get-mismatch-metrics makes slime compute them before the update"),
    ):
        if not data.get(name):
            raise ValueError(f"slime holds no {name}: {remedy}")
    lengths = [int(length) for length in data["response_lengths"]]
    pairs = list(zip(data["tokens"], lengths, strict=True))
    own = data.get("partition")
    rewards = data.get("raw_reward")  # of all ranks, and before normalization
    return {
        "step": rollout_id,
        "token_ids": [tokens[len(tokens) - length :] for tokens, length in pairs],
        "prompt_token_ids": [tokens[: len(tokens) - length] for tokens, length in pairs],
        "mask": data["loss_masks"],
        "lengths": lengths,
        "behavior_logprobs": data["rollout_log_probs"],
        "reference_logprobs": data["log_probs"],
        "entropy": data.get("entropy"),
        "advantages": data.get("advantages"),
        "rewards": [rewards[place] for place in own]
        if rewards is not None and own is not None
        else data.get("rewards"),
        "truncated": [bool(value) for value in data["truncated"]] if data.get("truncated") is not None else None,
        "environment": data.get("source_names"),
        "kept_set": _kept_sets(data),
    }


def _kept_sets(data: dict[str, Any]) -> list[list[Any]] | None:
    """The sampler's kept ids of each token, out of slime's flat lists and their offsets."""
    ids, offsets = data.get("rollout_top_p_token_ids"), data.get("rollout_top_p_token_offsets")
    if ids is None or offsets is None:
        return None
    bounds = [[int(bound) for bound in each] for each in offsets]
    return [[row[start:stop] for start, stop in pairwise(bound)] for row, bound in zip(ids, bounds, strict=True)]
