"""What vLLM ended up doing, whatever it was asked for: it accepts settings that it does not follow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import is_dataclass
from typing import Any

from ..common.json_values import dtype_names, to_json_value

_ALWAYS = (
    "dtype",
    "quantization",
    "enforce_eager",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "enable_chunked_prefill",
    "enable_prefix_caching",
    "block_size",
    "tensor_parallel_size",
    "enable_expert_parallel",
    "distributed_executor_backend",
    "seed",
)


def examine(worker: Any) -> dict[str, Any]:
    """In a process of vLLM's: what its model runner was built with. What it does not tell is None."""
    runner = worker.model_runner
    backends = [group.backend.get_name() for groups in getattr(runner, "attn_groups", []) for group in groups]
    # Formats below a byte a number are kept in bytes, of which the configuration alone knows the meaning.
    caches = [
        cache.dtype if cache.element_size() > 1 else runner.cache_config.cache_dtype
        for cache in _tensors(getattr(runner, "kv_caches", []))
    ]
    return {
        "model_runner": "V2" if hasattr(runner, "prompt_logprobs_worker") else "V1",
        "attention_backend": "+".join(sorted(set(backends))) or None,
        "kv_cache_dtype": dtype_names(caches),
        "parameters": dtype_names(parameter.dtype for parameter in runner.model.parameters()),
        "device": str(runner.device),
    }


def effective_settings(config: Any, examined: dict[str, Any], requested: dict[str, Any]) -> dict[str, Any]:
    """The arguments that change numbers, and all that were asked for, as `config` (a VllmConfig) has them.

    What was `examined` in the running engine goes before what its configuration says. An argument that became part
    of no configuration is None.
    """
    compilation = config.compilation_config
    settings = {key: _configured(config, key, requested.get(key)) for key in (*_ALWAYS, *requested)}
    return settings | {
        "compilation_mode": to_json_value(getattr(compilation, "mode", None)),
        "cudagraph_mode": to_json_value(getattr(compilation, "cudagraph_mode", None)),
        **examined,
    }


def _configured(config: Any, key: str, requested: Any) -> Any:
    """The value of an argument in whichever part of the configuration has it; of a table, the keys asked for."""
    parts = [part for part in vars(config).values() if is_dataclass(part)]
    for holder in (config, *parts):
        value = getattr(holder, key, None)
        if isinstance(requested, dict) and value is not None and not isinstance(value, dict):
            return {name: to_json_value(getattr(value, name, None)) for name in requested}
        if value is not None:
            return to_json_value(value)
    return None


def _tensors(nested: Iterable[Any]) -> Iterable[Any]:
    for entry in nested:
        if isinstance(entry, list | tuple):
            yield from _tensors(entry)
        else:
            yield entry
