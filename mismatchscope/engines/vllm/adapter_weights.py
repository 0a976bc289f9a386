"""The tensors of a LoRA that vLLM holds beside the model, by the names that peft gives them.

vLLM copies an adapter into slots that its kernels read. A slot is as wide as the largest rank, has a part for each
of the layers that vLLM fuses, and holds B times the adapter's scaling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch

from ...measures.tensor_difference import Weight
from ..common.adapter import Adapter
from ..common.loaded_weights import weight_of

_A, _B = "lora_A.weight", "lora_B.weight"
_OWN_SCALINGS = ("rank_pattern", "alpha_pattern")


def scalings_unknown(stored: Mapping[str, Weight], adapter: Adapter) -> dict[str, str]:
    """Why the Bs of an adapter cannot be compared whose modules have scalings of their own, which peft's patterns
    give them."""
    patterns = [key for key in _OWN_SCALINGS if adapter.config.get(key)]
    why = f"vLLM has multiplied it by a scaling that the adapter's {' and '.join(patterns)} give"
    return {name: why for name in stored if patterns and name.endswith(_B)}


def times_scaling(stored: Mapping[str, Weight], adapter: Adapter, dtype: torch.dtype) -> dict[str, Weight]:
    """Every B of the checkpoint as a slot should hold it: in the adapter's dtype, times its one scaling."""
    rank = adapter.config["r"]
    scaling = adapter.config["lora_alpha"] / (math.sqrt(rank) if adapter.config.get("use_rslora") else rank)
    return {
        name: weight_of(torch.from_numpy(weight.floats()).to(dtype) * scaling)
        for name, weight in stored.items()
        if name.endswith(_B)
    }


def adapter_readers(manager: Any, stored: Mapping[str, Weight]) -> dict[str, Callable[[], Weight]]:
    """How each tensor of the one adapter is read from its slot; none of a layer that vLLM does not run it on."""
    slots = manager._adapter_manager
    number = next(index for index, adapter in enumerate(slots.lora_index_to_id) if adapter is not None)
    return {
        name: partial(_in_slot, slot[number, 0], stored[name].shape)
        for name, slot in _slots(slots)
        if name in stored
    }


def _slots(manager: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Each slot [slots, 1, rows, columns] with the name of the tensor that it is for."""
    for module, layer in manager.modules.items():
        for part, name in enumerate(manager.packed_modules.get(module) or [module]):
            for tensor, stacked in ((_A, "lora_a_stacked"), (_B, "lora_b_stacked")):
                slots = getattr(layer, stacked, ())
                if part < len(slots):
                    yield f"{name}.{tensor}", slots[part]


def _in_slot(slot: torch.Tensor, shape: tuple[int, ...]) -> Weight:
    return weight_of(slot[tuple(map(slice, shape))])
