"""The tensors of a LoRA, read from slots that are laid out as vLLM lays them out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mismatchscope.engines.common.adapter import Adapter
from mismatchscope.engines.common.loaded_weights import compare_loaded, weight_of
from mismatchscope.engines.vllm.adapter_weights import adapter_readers, scalings_unknown, times_scaling
from mismatchscope.measures.tensor_difference import Weight

ATTENTION = "model.layers.0.self_attn"
SIZES = {"q_proj": 6, "v_proj": 4}
RANK, INPUTS, WIDEST = 2, 8, 16


def stored() -> dict[str, Weight]:
    """float32 tensors whose values float16 does not have, of two of the three layers that vLLM fuses."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"A": lambda size: (RANK, INPUTS), "B": lambda size: (size, RANK)}
    return {
        f"{ATTENTION}.{part}.lora_{kind}.weight": weight_of(torch.randn(shape(size), generator=generator))
        for part, size in SIZES.items()
        for kind, shape in shapes.items()
    }


def adapter(**config: Any) -> Adapter:
    return Adapter(Path("unused"), {"r": RANK, "lora_alpha": 3} | config)


def manager(weights: dict[str, Weight], scaling: float) -> Any:
    """The second of three slots has the adapter; k_proj, which it leaves alone, is zeros."""
    a_slots = tuple(torch.zeros(3, 1, WIDEST, INPUTS, dtype=torch.float16) for _ in "qkv")
    b_slots = tuple(torch.zeros(3, 1, 6, WIDEST, dtype=torch.float16) for _ in "qkv")
    for place, part in ((0, "q_proj"), (2, "v_proj")):
        a, b = (torch.from_numpy(weights[f"{ATTENTION}.{part}.lora_{kind}.weight"].bits).half() for kind in "AB")
        a_slots[place][1, 0, : a.shape[0], : a.shape[1]] = a
        b_slots[place][1, 0, : b.shape[0], : b.shape[1]] = b * scaling
    layer = SimpleNamespace(lora_a_stacked=a_slots, lora_b_stacked=b_slots)
    fused = f"{ATTENTION}.qkv_proj"
    packed = {fused: [f"{ATTENTION}.{part}_proj" for part in "qkv"]}
    slots = SimpleNamespace(lora_index_to_id=[None, 1, None], modules={fused: layer}, packed_modules=packed)
    return SimpleNamespace(_adapter_manager=slots)


@pytest.mark.parametrize(("config", "scaling"), [({}, 1.5), ({"use_rslora": True}, 3 / 2**0.5)])
def test_a_slot_holds_the_adapter_with_its_scaling(config: dict[str, Any], scaling: float) -> None:
    weights = stored()
    expected = weights | times_scaling(weights, adapter(**config), torch.float16)
    records = compare_loaded(expected, adapter_readers(manager(weights, scaling), expected), set())
    assert {record.name for record in records} == set(weights)
    assert {record.status for record in records} == {"same"}


def test_another_scaling_is_told() -> None:
    weights = stored()
    expected = weights | times_scaling(weights, adapter(), torch.float16)
    records = compare_loaded(expected, adapter_readers(manager(weights, 1.0), expected), set())
    told = {record.name: record.ratio for record in records if record.kind == "scaled"}
    assert told.keys() == {name for name in weights if "lora_B" in name}
    assert list(told.values()) == pytest.approx([1 / 1.5] * 2, rel=1e-3)


def test_scalings_that_patterns_give_are_not_compared() -> None:
    weights = stored()
    unread = scalings_unknown(weights, adapter(rank_pattern={"q_proj": 2}))
    records = compare_loaded(weights, adapter_readers(manager(weights, 1.5), weights), set(), unread)
    assert {record.status for record in records if "lora_A" in record.name} == {"same"}
    assert {record.status for record in records if "lora_B" in record.name} == {"not_compared"}
    assert all("rank_pattern" in str(record.reason) for record in records if record.status == "not_compared")
