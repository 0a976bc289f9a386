"""What an `sglang` SPEC may say, and what becomes of it: arguments of SGLang's, variables of its processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ...machine import hardware
from ..base import option
from ..common.adapter import Adapter
from ..common.options import ADAPTER_HELP, EngineArguments
from ..common.startup import set_default_variables

LORA_NAME = "adapter"
"""What requests call the adapter."""


@dataclass(frozen=True)
class SglangOptions(EngineArguments):
    """The keys of an `sglang` SPEC; `none` leaves the choice to SGLang. Any other argument of its is a key too."""

    others: ClassVar[str | None] = "server_args"
    engine: ClassVar[str] = "sglang"
    at_least_one: ClassVar[tuple[str, ...]] = (
        "batch_size",
        "tp_size",
        "max_running_requests",
        "max_total_tokens",
        "context_length",
    )
    reserved: ClassVar[tuple[str, ...]] = (
        "model_path",
        "skip_tokenizer_init",
        "custom_sigquit_handler",
        "stream_interval",
        "dllm_algorithm",
    )
    distributed: ClassVar[tuple[str, ...]] = ("pp_size", "dp_size", "attn_dp_size", "nnodes")
    speculative: ClassVar[tuple[str, ...]] = ("speculative_algorithm",)
    devices: ClassVar[str] = "tp_size"

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = option("auto", "precision; auto: the checkpoint's")
    adapter: str = option("", ADAPTER_HELP)
    quantization: str | None = option(None, "how weights are quantised: fp8, awq, gptq …")
    kv_cache_dtype: str | None = option(None, "precision of the key-value cache: auto, fp8_e5m2, fp8_e4m3 …")
    enable_fp32_lm_head: bool | None = option(None, "LM head in float32")
    attention_backend: str | None = option(None, "fa3, flashinfer, triton …; torch_native without a GPU")
    moe_runner_backend: str | None = option(None, "kernels of the experts")
    chunked_prefill_size: int | None = option(None, "most tokens of a prompt in a step; -1: prompts are not cut")
    max_prefill_tokens: int | None = option(None, "most prompt tokens in a step")
    max_running_requests: int | None = option(None, "most sequences in a step")
    max_total_tokens: int | None = option(None, "tokens that the key-value cache holds")
    mem_fraction_static: float | None = option(None, "share of the memory for weights and key-value cache")
    context_length: int | None = option(None, "most tokens of a sequence, the prompt included")
    page_size: int | None = option(None, "tokens in a page of the key-value cache")
    disable_radix_cache: bool | None = option(None, "do not share the cache of common prefixes within a batch")
    disable_cuda_graph: bool | None = option(None, "run every step eagerly")
    enable_torch_compile: bool | None = option(None, "torch.compile the model")
    enable_deterministic_inference: bool | None = option(None, "batch-invariant kernels; needs a GPU")
    tp_size: int = option(1, "devices that share every layer")
    trust_remote_code: bool = option(False, "run the Python code that a model brings along")
    batch_size: int = option(64, "sequences handed to the engine at a time; a killed run repeats at most these")
    server_args: dict[str, Any] | None = option(
        None, "any other argument of SGLang's (ServerArgs), each a key of its own"
    )

    @property
    def compiles(self) -> bool:
        """Whether SGLang will compile the model: it compiles what it captures as a graph, and nothing else."""
        arguments = self.arguments()
        return bool(arguments.get("enable_torch_compile")) and not arguments.get("disable_cuda_graph")

    def engine_arguments(self, adapter: Adapter | None = None) -> dict[str, Any]:
        """`arguments`, the adapter to load, and on a CPU what SGLang does not find out for itself."""
        lora: dict[str, Any] = {}
        if adapter is not None:
            path = {"lora_name": LORA_NAME, "lora_path": str(adapter.directory.resolve()), "pinned": False}
            lora = {"lora_paths": [path], "max_loras_per_batch": 1}
        if hardware()["gpus"]:
            return lora | self.arguments()
        if lora:
            lora["lora_backend"] = "torch_native"
        return (
            lora
            | {
                "device": "cpu",
                "attention_backend": "torch_native",  # its kernels for a CPU are published nowhere
                "max_running_requests": self.batch_size,
                "max_total_tokens": 32768,
                "mem_fraction_static": 0.3,
            }
            | self.arguments()
        )


def prepare_process(model: str) -> None:
    """Set what torch and SGLang read when they are imported, here and in its processes; the user's own stay."""
    set_default_variables(model, {} if hardware()["gpus"] else {"SGLANG_USE_CPU_ENGINE": "1"})
