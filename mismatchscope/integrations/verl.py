"""Records what verl's PPO trainers compare in `calculate_debug_metrics`, once a training step, for the whole batch.

    from mismatchscope.integrations import verl

    verl.attach(ms.Recorder("logs/run-7"))    # before the trainer is made, in its process

verl calls that function where it has both log-probs: with `rollout.calculate_log_probs` and without bypass mode, in
which it takes the sampler's for its own. `rollout_log_probs` is μ and `old_log_probs` π_old, float32 [B, R], padded
with 0.0 on the right; value [t] is of response token t. Its newer trainer (`trainer/ppo/v1`) passes neither prompts
nor their ids, and then the prompts are unknown.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from ..logs.recorder import Recorder
from .process_setup import recorder_from_environment, when_imported
from .signatures import required

WRITTEN_AGAINST = "verl at commit 1dda039b (August 2026)"
_MODULE, _FUNCTION = "verl.utils.debug.metrics", "calculate_debug_metrics"


def setup() -> None:
    """For Ray's `worker_process_setup_hook`: attach in the process that imports verl's trainer."""
    when_imported(_MODULE, lambda: attach(recorder_from_environment("verl")))


def attach(recorder: Recorder) -> None:
    """Record every batch from now on, and add the recorder's metrics to verl's own.

    Raises:
        UsageError: this version of verl does not have what the hook needs.
    """
    import importlib

    original = required(importlib.import_module(_MODULE), _FUNCTION, ("data",), "verl", WRITTEN_AGAINST)
    calls = 0

    @functools.wraps(original)
    def calculate_debug_metrics(data: Any) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        found = dict(original(data))
        with recorder.guarded("A batch of verl was not recorded"):
            found |= recorder.log(**_batch(data, calls))
        return found

    for module in list(sys.modules.values()):  # trainers that were imported before have it under their own name
        if getattr(module, "__name__", "").startswith("verl.") and getattr(module, _FUNCTION, None) is original:
            setattr(module, _FUNCTION, calculate_debug_metrics)


def _batch(data: Any, calls: int) -> dict[str, Any]:
    """The arguments of `Recorder.log` for a `DataProto`; `calls` counts the steps where verl does not say."""
    tensors, others, meta = data.batch, data.non_tensor_batch or {}, data.meta_info or {}
    responses = tensors["responses"]
    width = responses.shape[1]
    whole = tensors.get("attention_mask", None)
    mask = tensors.get("response_mask", whole)
    if mask is None:
        raise ValueError("verl passed neither response_mask nor attention_mask")
    batch = {
        "step": meta.get("global_steps", calls),
        "token_ids": responses,
        "mask": mask[:, -width:],
        "behavior_logprobs": tensors["rollout_log_probs"],
        "reference_logprobs": tensors["old_log_probs"],
        "environment": others.get("data_source"),
        "versions": others.get("min_global_steps"),
    }
    if whole is not None:  # a mask that a rejection has emptied does not say where the response ends
        batch["lengths"] = whole[:, -width:].sum(dim=1)
    for name in ("entropy", "entropys"):
        if name in tensors:
            batch["entropy"] = tensors[name]
    if "prompts" in tensors and whole is not None:
        batch |= {"prompt_token_ids": tensors["prompts"], "prompt_mask": whole[:, :-width]}
    elif "uid" in others:
        batch["prompts"] = others["uid"]
    if "rm_scores" in tensors:
        batch["rewards"] = tensors["rm_scores"].sum(dim=-1)
    if "routed_experts" in tensors:  # [B, prompt + response, layers, K]
        batch["experts"] = tensors["routed_experts"][:, -width:]
    return batch
