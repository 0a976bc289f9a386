"""What a `vllm` SPEC may say, and what becomes of it: arguments of vLLM's engine, variables of its process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ...machine import hardware
from ..base import option
from ..common.adapter import CONFIG, NO_ADAPTER, Adapter
from ..common.options import ADAPTER_HELP, EngineArguments
from ..common.startup import set_default_variables


@dataclass(frozen=True)
class VllmOptions(EngineArguments):
    """The keys of a `vllm` SPEC; None leaves the choice to vLLM. Any other argument of its engine is a key too."""

    others: ClassVar[str | None] = "engine_args"
    engine: ClassVar[str] = "vllm"
    at_least_one: ClassVar[tuple[str, ...]] = (
        "batch_size",
        "tensor_parallel_size",
        "max_model_len",
        "max_num_seqs",
        "max_num_batched_tokens",
    )
    reserved: ClassVar[tuple[str, ...]] = (
        "model",
        "logits_processors",
        "async_scheduling",
        "worker_cls",
        "runner",
        "skip_tokenizer_init",
    )
    distributed: ClassVar[tuple[str, ...]] = ("pipeline_parallel_size", "data_parallel_size")
    speculative: ClassVar[tuple[str, ...]] = ("speculative_config", "spec_method", "spec_model")
    devices: ClassVar[str] = "tensor_parallel_size"

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = option("auto", "precision; auto: the checkpoint's")
    adapter: str = option("", ADAPTER_HELP)
    quantization: str | None = option(None, "how weights are quantised: fp8, awq, gptq …")
    kv_cache_dtype: str | None = option(None, "precision of the key-value cache: auto, fp8 …")
    enforce_eager: bool | None = option(None, "neither compile the model nor capture CUDA graphs")
    attention_backend: str | None = option(None, "FLASH_ATTN, FLASHINFER, TRITON_ATTN …")
    max_model_len: int | None = option(None, "most tokens of a sequence, the prompt included")
    max_num_seqs: int | None = option(None, "most sequences in a step")
    max_num_batched_tokens: int | None = option(None, "most tokens in a step")
    enable_prefix_caching: bool | None = option(None, "share the cache of common prompts, within one batch_size")
    enable_chunked_prefill: bool | None = option(None, "read long prompts in several steps")
    tensor_parallel_size: int = option(1, "devices that share every layer")
    gpu_memory_utilization: float | None = option(None, "share of the device's memory that vLLM takes")
    seed: int | None = option(None, "of the engine; draws depend on the sampling seed alone")
    trust_remote_code: bool = option(False, "run the Python code that a model brings along")
    batch_size: int = option(64, "sequences handed to the engine at a time; a killed run repeats at most these")
    engine_args: dict[str, Any] | None = option(
        None, "other arguments of vLLM's EngineArgs; each may be a key of its own as well"
    )

    @property
    def replays(self) -> bool:
        """Whether vLLM itself puts the tokens that are scored in the place of those it draws: from 0.32 on."""
        return bool(self.other_arguments.get("enable_trace_replay"))


_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM takes for the largest rank it must make room for."""


def lora_arguments(adapter: Adapter) -> dict[str, Any]:
    """What vLLM must know when it is built, to run an adapter; a rank that it has no room for is its to refuse."""
    room = next((rank for rank in _LORA_RANKS if rank >= adapter.rank), _LORA_RANKS[-1])
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": room}


def compiles(model: str, options: VllmOptions, *, gpu: bool) -> bool:
    """Whether vLLM will compile the model for sure: of a compilation that a SPEC describes itself, nobody knows."""
    arguments = options.arguments()
    if arguments.get("enforce_eager") or {"compilation_config", "optimization_level"} & arguments.keys():
        return False
    adapter = options.adapter not in ("", NO_ADAPTER) or Path(model, CONFIG).is_file()
    return gpu or not adapter  # without a GPU it runs adapters eagerly


def prepare_process(model: str, options: VllmOptions) -> None:
    """Set what torch and vLLM read when they are imported; what the user has set stays."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine must be in the process that records it
    variables = {"VLLM_NO_USAGE_STATS": "1"}
    facts = hardware()
    if not facts["gpus"]:
        if "kv_cache_memory_bytes" not in options.arguments():
            gibibytes = (facts["memory_bytes"] or 0) // 2**30
            variables["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, min(8, gibibytes // 8)))  # its own default is all
        if 1 < options.tensor_parallel_size <= facts["cores"]:
            cores = np.array_split(sorted(os.sched_getaffinity(0)), options.tensor_parallel_size)
            variables["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(",".join(map(str, part)) for part in cores)
    set_default_variables(model, variables)
