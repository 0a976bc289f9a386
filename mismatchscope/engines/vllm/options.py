"""What a `vllm` SPEC may say, and what becomes of it: arguments of vLLM's engine, variables of its process."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ...errors import CapabilityError, SpecError
from ...machine import hardware
from ..base import Options


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class VllmOptions(Options):
    """The keys of a `vllm` SPEC; None leaves the choice to vLLM. Any other argument of its engine is a key too."""

    others: ClassVar[str | None] = "engine_args"

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = _option("auto", "precision; auto: the checkpoint's")
    quantization: str | None = _option(None, "how weights are quantised: fp8, awq, gptq …")
    kv_cache_dtype: str | None = _option(None, "precision of the key-value cache: auto, fp8 …")
    enforce_eager: bool | None = _option(None, "neither compile the model nor capture CUDA graphs")
    attention_backend: str | None = _option(None, "FLASH_ATTN, FLASHINFER, TRITON_ATTN …")
    max_model_len: int | None = _option(None, "most tokens of a sequence, the prompt included")
    max_num_seqs: int | None = _option(None, "most sequences in a step")
    max_num_batched_tokens: int | None = _option(None, "most tokens in a step")
    enable_prefix_caching: bool | None = _option(None, "share the cache of common prompts, within one batch_size")
    enable_chunked_prefill: bool | None = _option(None, "read long prompts in several steps")
    tensor_parallel_size: int = _option(1, "devices that share every layer")
    gpu_memory_utilization: float | None = _option(None, "share of the device's memory that vLLM takes")
    seed: int | None = _option(None, "of the engine; draws depend on the sampling seed alone")
    trust_remote_code: bool = _option(False, "run the Python code that a model brings along")
    batch_size: int = _option(64, "sequences handed to the engine at a time; a killed run repeats at most these")
    engine_args: dict[str, Any] | None = field(
        default=None,
        metadata={"help": "other arguments of vLLM's EngineArgs; each may be a key of its own as well"},
    )

    def __post_init__(self) -> None:
        for key in (
            "batch_size",
            "tensor_parallel_size",
            "max_model_len",
            "max_num_seqs",
            "max_num_batched_tokens",
        ):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise SpecError(f"vllm: {key}={value} is below 1.", hint=f"{key}=1")
        others = self.engine_args or {}
        for key in ("pipeline_parallel_size", "data_parallel_size"):
            if others.get(key, 1) != 1:
                raise CapabilityError(
                    f"vllm: with {key}={others[key]} tokens are drawn where mismatchscope does not look.",
                    hint="tensor_parallel_size= spreads a model over devices too",
                )
        for key in ("speculative_config", "spec_method", "spec_model"):
            if others.get(key) is not None:
                raise CapabilityError(
                    f"vllm: {key} makes vLLM draw tokens that mismatchscope does not see the distributions of.",
                    hint=f"leave out {key}: speculative decoding keeps the distribution",
                )
        for key in _OURS:
            if key in others:
                raise SpecError(f"vllm: {key} is mismatchscope's to set.", hint=f"leave out {key}")

    def arguments(self) -> dict[str, Any]:
        """What was asked of vLLM, by the names of its own arguments."""
        asked = {key: value for key, value in asdict(self).items() if key not in ("batch_size", "engine_args")}
        return {key: value for key, value in asked.items() if value is not None} | (self.engine_args or {})


_OURS = ("model", "logits_processors", "async_scheduling", "worker_cls", "runner", "skip_tokenizer_init")


def check_arguments(options: VllmOptions, known: Collection[str], version: str) -> None:
    """Raise `SpecError` for a key that this vLLM has no argument for."""
    for key in options.arguments():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            raise SpecError(
                f"vLLM {version} has no engine argument '{key}'.",
                hint=f"did you mean {close[0]}?" if close else None,
            )


def prepare_process(model: str, options: VllmOptions) -> None:
    """Set what torch and vLLM read when they are imported; what the user has set stays."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine must be in the process that records it
    defaults = {"VLLM_NO_USAGE_STATS": "1"}
    if Path(model).is_dir():
        defaults["HF_HUB_OFFLINE"] = "1"
    facts = hardware()
    if not facts["gpus"]:
        # It takes one thread a core, and is twenty times slower when a core has something else to do.
        defaults["OMP_NUM_THREADS"] = "1"
        if "kv_cache_memory_bytes" not in options.arguments():
            gibibytes = (facts["memory_bytes"] or 0) // 2**30
            defaults["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, min(8, gibibytes // 8)))  # its own default is all
        if 1 < options.tensor_parallel_size <= facts["cores"]:
            cores = np.array_split(sorted(os.sched_getaffinity(0)), options.tensor_parallel_size)
            defaults["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(",".join(map(str, part)) for part in cores)
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
