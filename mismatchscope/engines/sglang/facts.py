"""What SGLang ended up doing, whatever it was asked for: it accepts settings that it does not follow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..common.json_values import dtype_names, to_json_value

_ALWAYS = (
    "dtype",
    "quantization",
    "kv_cache_dtype",
    "attention_backend",
    "prefill_attention_backend",
    "decode_attention_backend",
    "moe_runner_backend",
    "enable_fp32_lm_head",
    "enable_deterministic_inference",
    "enable_torch_compile",
    "chunked_prefill_size",
    "max_prefill_tokens",
    "schedule_policy",
    "tp_size",
    "ep_size",
)

SAMPLING_BACKEND = "mismatchscope"
"""Tokens are not drawn by a sampler of SGLang's: see `capture`."""


def examine(scheduler: Any) -> dict[str, Any]:
    """In a scheduler process: what it was built with. What it does not tell is None."""
    import torch

    runner = scheduler.tp_worker.model_runner
    logits_processor = getattr(runner.model, "logits_processor", None)
    head = getattr(getattr(runner.model, "lm_head", None), "weight", None)
    graph_runner = type(runner.decode_cuda_graph_runner).__name__
    float32_head = getattr(logits_processor, "use_fp32_lm_head", None)
    return {
        "parameters": dtype_names(parameter.dtype for parameter in runner.model.parameters()),
        "lm_head": "float32" if float32_head else to_json_value(getattr(head, "dtype", None)),
        "enable_fp32_lm_head": float32_head,
        "adapter_dtype": to_json_value(getattr(getattr(runner, "lora_manager", None), "dtype", None)),
        "attention_implementation": type(runner.attn_backend).__name__,
        "kv_cache_dtype": to_json_value(runner.kv_cache_dtype),
        "graph_runner": None if graph_runner in ("NoneType", "EagerRunner") else graph_runner,
        "disable_radix_cache": getattr(scheduler.tree_cache, "disable", None),
        "disable_overlap_schedule": not scheduler.enable_overlap,
        "chunked_prefill_size": scheduler.chunked_prefill_size,
        "max_running_requests": scheduler.max_running_requests,
        "max_req_len": scheduler.max_req_len,
        "max_req_input_len": scheduler.max_req_input_len,
        "max_total_tokens": scheduler.max_total_num_tokens,
        "page_size": scheduler.page_size,
        "device": str(runner.device),
        "threads": torch.get_num_threads(),
    }


def effective_settings(
    resolved: dict[str, Any], examined: dict[str, Any], requested: Iterable[str]
) -> dict[str, Any]:
    """The arguments that change numbers, and all that were asked for, as SGLang has `resolved` them.

    What was `examined` in the running scheduler goes before what its arguments say.
    """
    graphs = resolved.get("cuda_graph_config") or {}
    settings = {key: to_json_value(resolved.get(key)) for key in (*_ALWAYS, *requested)}
    eager = examined["graph_runner"] is None
    return settings | {
        "disable_cuda_graph": eager,
        "enable_torch_compile": bool(resolved.get("enable_torch_compile")) and not eager,
        "decode_cuda_graph": to_json_value(graphs.get("decode", {}).get("backend")),
        "prefill_cuda_graph": to_json_value(graphs.get("prefill", {}).get("backend")),
        "sampling_backend": SAMPLING_BACKEND,
        **examined,
    }
