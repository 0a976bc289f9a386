"""What an `sglang` SPEC may say, and what becomes of it: arguments of SGLang's, variables of its processes."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from ...errors import CapabilityError, SpecError
from ...machine import hardware
from ..base import Options


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class SglangOptions(Options):
    """The keys of an `sglang` SPEC; `none` leaves the choice to SGLang. Any other argument of its is a key too."""

    others: ClassVar[str | None] = "server_args"

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = _option("auto", "precision; auto: the checkpoint's")
    quantization: str | None = _option(None, "how weights are quantised: fp8, awq, gptq …")
    kv_cache_dtype: str | None = _option(None, "precision of the key-value cache: auto, fp8_e5m2, fp8_e4m3 …")
    enable_fp32_lm_head: bool | None = _option(None, "LM head in float32")
    attention_backend: str | None = _option(None, "fa3, flashinfer, triton …; torch_native without a GPU")
    moe_runner_backend: str | None = _option(None, "kernels of the experts")
    chunked_prefill_size: int | None = _option(None, "most tokens of a prompt in a step; -1: prompts are not cut")
    max_prefill_tokens: int | None = _option(None, "most prompt tokens in a step")
    max_running_requests: int | None = _option(None, "most sequences in a step")
    max_total_tokens: int | None = _option(None, "tokens that the key-value cache holds")
    mem_fraction_static: float | None = _option(None, "share of the memory for weights and key-value cache")
    context_length: int | None = _option(None, "most tokens of a sequence, the prompt included")
    page_size: int | None = _option(None, "tokens in a page of the key-value cache")
    disable_radix_cache: bool | None = _option(None, "do not share the cache of common prefixes within a batch")
    disable_cuda_graph: bool | None = _option(None, "run every step eagerly")
    enable_torch_compile: bool | None = _option(None, "torch.compile the model")
    enable_deterministic_inference: bool | None = _option(None, "batch-invariant kernels; needs a GPU")
    tp_size: int = _option(1, "devices that share every layer")
    trust_remote_code: bool = _option(False, "run the Python code that a model brings along")
    batch_size: int = _option(64, "sequences handed to the engine at a time; a killed run repeats at most these")
    server_args: dict[str, Any] | None = field(
        default=None, metadata={"help": "any other argument of SGLang's (ServerArgs), each a key of its own"}
    )

    def __post_init__(self) -> None:
        for key in ("batch_size", "tp_size", "max_running_requests", "max_total_tokens", "context_length"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise SpecError(f"sglang: {key}={value} is below 1.", hint=f"{key}=1")
        others = self.server_args or {}
        for key in ("pp_size", "dp_size", "attn_dp_size", "nnodes"):
            if others.get(key, 1) != 1:
                raise CapabilityError(
                    f"sglang: {key}={others[key]} spreads a batch in a way that mismatchscope is not tested with.",
                    hint="tp_size, which it knows",
                )
        if others.get("speculative_algorithm") is not None:
            raise CapabilityError(
                "sglang: speculative_algorithm makes SGLang draw tokens that mismatchscope does not see the "
                "distributions of.",
                hint="leave it out: speculative decoding keeps the distribution",
            )
        for key in _OURS:
            if key in others:
                raise SpecError(f"sglang: {key} is mismatchscope's to set.", hint=f"leave out {key}")

    def arguments(self) -> dict[str, Any]:
        """What was asked of SGLang, by the names of its own arguments."""
        asked = {key: value for key, value in asdict(self).items() if key not in ("batch_size", "server_args")}
        return {key: value for key, value in asked.items() if value is not None} | (self.server_args or {})

    def engine_arguments(self) -> dict[str, Any]:
        """`arguments`, and on a CPU what SGLang does not find out for itself."""
        if hardware()["gpus"]:
            return self.arguments()
        return {
            "device": "cpu",
            "attention_backend": "torch_native",  # its kernels for a CPU are published nowhere
            "max_running_requests": self.batch_size,
            "max_total_tokens": 32768,
            "mem_fraction_static": 0.3,
        } | self.arguments()


_OURS = ("model_path", "skip_tokenizer_init", "custom_sigquit_handler", "stream_interval", "dllm_algorithm")


def check_arguments(options: SglangOptions, known: Collection[str], version: str) -> None:
    """Raise `SpecError` for a key that this SGLang has no argument for."""
    for key in options.arguments():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            raise SpecError(
                f"SGLang {version} has no argument '{key}'.", hint=f"did you mean {close[0]}?" if close else None
            )


def prepare_process(model: str) -> None:
    """Set what torch and SGLang read when they are imported, here and in its processes; the user's own stay."""
    defaults = {}
    if Path(model).is_dir():
        defaults["HF_HUB_OFFLINE"] = "1"
    if not hardware()["gpus"]:
        defaults["SGLANG_USE_CPU_ENGINE"] = "1"
        # It takes one thread a core, and is many times slower when a core has something else to do.
        defaults["OMP_NUM_THREADS"] = "1"
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
