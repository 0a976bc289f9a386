"""What a `transformers` SPEC may say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ...composition import Order, Padding
from ...errors import SpecError
from ..base import Options, option
from ..common.options import ADAPTER_HELP, check_least


@dataclass(frozen=True)
class TransformersOptions(Options):
    """The keys of a `transformers` SPEC."""

    dtype: Literal["bfloat16", "float16", "float32", "autocast"] = option(
        "bfloat16", "precision of the forward; autocast: bfloat16 autocast over float32 master weights"
    )
    lm_head: Literal["model", "float32"] = option("model", "precision of the LM head: the model's, or float32")
    router: Literal["model", "float32"] = option(
        "model", "precision in which a mixture of experts routes, and weighs what its experts return"
    )
    matmul_precision: Literal["highest", "high", "medium"] = option(
        "highest", "of float32 matrix products: torch.set_float32_matmul_precision"
    )
    reduced_precision_reduction: bool = option(
        True, "let CUDA sum products of half precision in half precision, as torch does"
    )
    attn: str = option(
        "auto", "attention: eager, sdpa, flex, another name that transformers knows; auto: its choice for the model"
    )
    attention_scale: float = option(1.0, "factor on the scale of attention's scores, in every layer")
    kv_cache_dtype: Literal["auto", "fp8"] = option(
        "auto",
        "fp8: round keys and values to e4m3 under the scale 1, in a prefill as in decoding; auto: the model's",
    )
    weight_quantization: Literal["none", "fp8_per_tensor", "fp8_per_channel"] = option(
        "none",
        "round linear layers but the head to fp8 e4m3, under a scale for each matrix or each of its outputs, and "
        "compute in dtype",
    )
    hf_overrides: dict[str, Any] | None = option(
        None, "other values for keys of the model's configuration: a JSON table, merged into it"
    )
    adapter: str = option("", ADAPTER_HELP)
    padding: Padding = option(
        "right", "how a prefill micro-batch is laid out; packed: one row, positions restart at every sequence"
    )
    batch_size: int = option(32, "sequences in a batch, or in a micro-batch of the prefill")
    order: Order = option("given", "how batches are filled; length: the longest first")
    device: str = option("auto", "auto, cpu, cuda, cuda:0 …")
    device_map: str = option("", "auto: spread a model over all devices (needs accelerate)")
    fsdp: int = option(
        0,
        "processes over which FSDP2 shards float32 weights, cast to dtype when they are gathered; no decoding",
    )
    compile: bool = option(False, "torch.compile the backbone")
    train_mode: bool = option(False, "prefill in train mode with gradients, as the training forward runs")
    gradient_checkpointing: bool = option(False, "recompute activations as in training; needs train_mode")
    logprob_chunk: int = option(1024, "positions whose logits exist at the same time in a prefill; 0: all")
    threads: int = option(0, "CPU threads of torch; 0: one for a small model, else torch decides")
    deterministic: bool = option(False, "torch.use_deterministic_algorithms")
    trust_remote_code: bool = option(False, "run the Python code that a model brings along")

    def __post_init__(self) -> None:
        check_least("transformers", self, {"batch_size": 1, "logprob_chunk": 0, "threads": 0, "fsdp": 0})
        if self.gradient_checkpointing and not self.train_mode:
            raise SpecError(
                "transformers: gradient_checkpointing acts in train mode alone.",
                hint="gradient_checkpointing=true,train_mode=true",
            )
        if not 0 < self.attention_scale < float("inf"):
            raise SpecError(
                f"transformers: attention_scale={self.attention_scale} is no factor.", hint="attention_scale=1"
            )
        if self.kv_cache_dtype == "fp8" and (self.padding == "packed" or self.gradient_checkpointing):
            other = "padding=packed" if self.padding == "packed" else "gradient_checkpointing"
            raise SpecError(
                f"transformers: kv_cache_dtype=fp8 and {other} do not go together.", hint=f"leave {other} out"
            )
        for key in ("device_map", "compile"):
            if self.fsdp and getattr(self, key):
                raise SpecError(
                    f"transformers: fsdp and {key} do not go together.", hint=f"leave {key} out, or fsdp"
                )
