"""What vLLM has loaded, held against the checkpoint in the process that has it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...measures.tensor_difference import Weight
from ...measures.tensor_results import TensorRecord
from ..common.adapter import Adapter
from ..common.loaded_weights import compare_loaded, readers, weight_of
from ..common.stored_weights import stored_weights
from .adapter_weights import adapter_readers, scalings_unknown, times_scaling

_ROWS = 1024
"""Of the identity, that a layer is given at a time."""


def compare_weights(worker: Any, directory: Path, adapter: Adapter | None) -> list[TensorRecord]:
    """In a process of vLLM's (`LLM.collective_rpc`): a record of every tensor."""
    runner = worker.model_runner
    model, stored = runner.model, stored_weights(directory, adapter)
    learned = {name for name, parameter in model.named_parameters() if parameter.numel()}
    loaded = readers(model) | _packed(model)
    unread: dict[str, str] = {}
    if adapter is not None:
        unread = scalings_unknown(stored, adapter)
        stored |= times_scaling(stored, adapter, worker.vllm_config.lora_config.lora_dtype)
        loaded |= adapter_readers(runner.lora_manager, stored)
    return compare_loaded(stored, loaded, learned, unread)


def _packed(model: torch.nn.Module) -> dict[str, Callable[[], Weight]]:
    """How the weights are read of layers that have packed them, and left an empty tensor in their place."""
    return {
        f"{name}.weight": partial(_unpacked, layer)
        for name, layer in model.named_modules()
        if hasattr(layer, "quant_method") and hasattr(layer, "input_size") and not layer.weight.numel()
    }


@torch.inference_mode()
def _unpacked(layer: Any) -> Weight:
    """A layer's weight [outputs, inputs]: what it makes of the unit vectors, a weight and zeros, so exact."""
    weight = layer.weight
    units = torch.eye(layer.input_size, dtype=weight.dtype, device=weight.device)
    answers = [layer.quant_method.apply(layer, rows, None) for rows in units.split(_ROWS)]
    return weight_of(torch.cat(answers).T)
