"""A model off the disk: in the precision, with the attention and on the device that the options say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...errors import ModelError, SpecError
from .fp8 import round_weights
from .overrides import overridden, scale_attention
from .routers import route_in_float32

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..common.adapter import Adapter
    from .options import TransformersOptions

DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "autocast": torch.float32,  # the master weights
}

_SMALL_MODEL = 50_000_000
"""Parameters below which threads wait for each other longer than they compute, the more so on a busy machine."""

_ATTENTION = {"auto": None, "flex": "flex_attention"}
"""Names of ours for what transformers calls otherwise; None is its own choice."""


def attention_name(asked: str, implementation: str) -> str:
    """What the attention that runs is called: as it was asked for where it is that one, else by transformers."""
    return asked if _ATTENTION.get(asked, asked) == implementation else implementation


def load_network(path: Path, adapter: Adapter | None, options: TransformersOptions) -> PreTrainedModel:
    """The model on its device, with its adapter, no tensor of it random. Raises `ModelError`, `SpecError`."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    device = choose_device(options.device)
    changed = {}
    if options.hf_overrides:
        changed["config"] = overridden(path, options.hf_overrides, trust_remote_code=options.trust_remote_code)
    try:
        network, report = transformers.AutoModelForCausalLM.from_pretrained(
            path,
            dtype=torch.float32 if options.fsdp else DTYPES[options.dtype],
            attn_implementation=_ATTENTION.get(options.attn, options.attn),
            device_map=options.device_map or None,
            trust_remote_code=options.trust_remote_code,
            use_safetensors=True,  # a pickle is never loaded
            output_loading_info=True,
            **changed,
        )
    except (torch.OutOfMemoryError, MemoryError):
        raise
    # What it does with a configuration that it does not expect may fail in any way.
    except Exception as error:
        raise ModelError(
            f"transformers cannot load the model in {path}: {type(error).__name__}: {error}",
            hint=_load_hint(options, error),
        ) from error
    missing = [str(key) for kind in ("missing_keys", "mismatched_keys") for key in sorted(report[kind])]
    if missing:
        raise ModelError(
            f"the checkpoint in {path} lacks {len(missing)} of the model's tensors, {missing[0]} among them; "
            "they would be random",
            hint="download the checkpoint again, or export it with save_pretrained",
        )
    if network.get_output_embeddings() is None:
        raise ModelError(f"{type(network).__name__} in {path} has no language-model head")
    if options.weight_quantization != "none":
        round_weights(network, options.weight_quantization)  # before the adapter, which engines keep as it is
    if options.attention_scale != 1:
        scale_attention(network, options.attention_scale)
    if adapter is not None:
        _add_adapter(network, adapter, options)
    if options.router == "float32":
        route_in_float32(network)
    if not options.device_map:
        network.to(device)
    elif any(parameter.is_meta for parameter in network.parameters()):
        raise ModelError(
            f"device_map={options.device_map} leaves part of the model in {path} outside the devices' memory",
            hint="use a machine with more device memory",
        )
    return network


def _load_hint(options: TransformersOptions, error: Exception) -> str:
    if options.attn != "auto" and re.search(r"attn_implementation|attention implementation", str(error)):
        return f"attn=auto in place of attn={options.attn}: the one that transformers chooses for this model"
    return "check that config.json and the safetensors files are complete and belong together"


def _add_adapter(network: PreTrainedModel, adapter: Adapter, options: TransformersOptions) -> None:
    """Put an adapter's modules into the model, not merged, as a trainer runs them. Raises `ModelError`."""
    import peft  # named here, so that where it is missing the error says which package is

    where = f"the adapter in {adapter.directory}"
    try:
        report = network.load_adapter(str(adapter.directory), is_trainable=options.train_mode)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise ModelError(
            f"peft {peft.__version__} cannot run {where}: {type(error).__name__}: {error}", hint=adapter.merge_hint
        ) from error
    unused = [
        str(key)
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        for key in sorted(getattr(report, kind))
    ]
    if unused:
        raise ModelError(
            f"{where} does not fit this model: {len(unused)} tensors find no counterpart, {unused[0]} among them",
            hint="pass the base model that it was trained on",
        )


def choose_device(name: str) -> torch.device:
    """The device an option names; `auto` is the accelerator where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SpecError(f"transformers: device={name} is no device of torch.", hint="device=cpu") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SpecError(
            f"transformers: device={name}, but torch sees {torch.cuda.device_count()} CUDA devices.",
            hint="device=cpu",
        )
    return device


def set_matmul_precision(options: TransformersOptions) -> None:
    """Of matrix products in this process. Raises `SpecError` for what acts on CUDA alone."""
    torch.set_float32_matmul_precision(options.matmul_precision)
    if choose_device(options.device).type == "cuda":
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = options.reduced_precision_reduction
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = options.reduced_precision_reduction
    elif not options.reduced_precision_reduction:
        raise SpecError(
            "transformers: reduced_precision_reduction acts on CUDA alone, and this is another device.",
            hint="leave it out",
        )


def choose_threads(options: TransformersOptions, parameters: int) -> None:
    """Set torch's CPU threads as the options say, else one for a model of few parameters."""
    if options.threads or parameters < _SMALL_MODEL:
        torch.set_num_threads(options.threads or 1)
