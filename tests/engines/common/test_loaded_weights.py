"""Tensors as engines lay them out, found again part by part."""

from __future__ import annotations

from functools import partial

import torch

from mismatchscope.engines.common.loaded_weights import compare_loaded, weight_of
from mismatchscope.measures.tensor_results import TensorRecord

LAYER = "model.layers.0"


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


PARTS = {
    f"{LAYER}.self_attn.q_proj.weight": random(16, 8, seed=1),
    f"{LAYER}.self_attn.k_proj.weight": random(8, 8, seed=2),
    f"{LAYER}.self_attn.v_proj.weight": random(8, 8, seed=3),
    f"{LAYER}.mlp.gate_proj.weight": random(12, 8, seed=4),
    f"{LAYER}.mlp.up_proj.weight": random(12, 8, seed=5),
}
EXPERTS = {
    f"{LAYER}.mlp.experts.{expert}.{part}.weight": random(*shape, seed=10 * expert + place)
    for expert in range(3)
    for place, (part, shape) in enumerate({"gate_proj": (4, 8), "up_proj": (4, 8), "down_proj": (8, 4)}.items())
}


def fused() -> dict[str, torch.Tensor]:
    q, k, v, gate, up = PARTS.values()
    return {
        f"{LAYER}.self_attn.qkv_proj.weight": torch.cat([q, k, v]),
        f"{LAYER}.mlp.gate_up_proj.weight": torch.cat([gate, up]),
    }


def experts(block: str, gate_up: str, down: str) -> dict[str, torch.Tensor]:
    def of(part: str) -> list[torch.Tensor]:
        return [EXPERTS[f"{LAYER}.mlp.experts.{expert}.{part}.weight"] for expert in range(3)]

    both = [torch.cat(pair) for pair in zip(of("gate_proj"), of("up_proj"), strict=True)]
    return {
        f"{LAYER}.mlp.{block}.{gate_up}": torch.stack(both),
        f"{LAYER}.mlp.{block}.{down}": torch.stack(of("down_proj")),
    }


def compared(stored: dict[str, torch.Tensor], loaded: dict[str, torch.Tensor]) -> dict[str, TensorRecord]:
    readers = {name: partial(weight_of, tensor) for name, tensor in loaded.items()}
    records = compare_loaded({name: weight_of(t) for name, t in stored.items()}, readers, set(loaded))
    assert len({record.name for record in records}) == len(records)
    return {record.name: record for record in records}


def kinds(records: dict[str, TensorRecord]) -> set[tuple[str, str | None]]:
    return {(record.status, record.kind) for record in records.values()}


def test_fused_projections() -> None:
    records = compared(PARTS, fused())
    assert records.keys() == PARTS.keys() and kinds(records) == {("same", None)}


def test_a_part_that_was_not_updated_is_named() -> None:
    loaded = fused()
    loaded[f"{LAYER}.self_attn.qkv_proj.weight"][16:24] *= 2
    records = compared(PARTS, loaded)
    differing = [record for record in records.values() if record.status == "differs"]
    assert [(record.name, record.kind, record.ratio) for record in differing] == [
        (f"{LAYER}.self_attn.k_proj.weight", "scaled", 2.0)
    ]


def test_parts_in_the_wrong_order_differ() -> None:
    gate, up = list(PARTS.values())[3:]
    records = compared(PARTS, fused() | {f"{LAYER}.mlp.gate_up_proj.weight": torch.cat([up, gate])})
    assert {name for name, record in records.items() if record.status == "differs"} == set(list(PARTS)[3:])


def test_experts_as_transformers_and_vllm_lay_them_out() -> None:
    for names in (
        ("experts", "gate_up_proj", "down_proj"),
        ("experts", "w13_weight", "w2_weight"),
        ("experts.routed_experts", "w13_weight", "w2_weight"),
    ):
        records = compared(EXPERTS, experts(*names))
        assert records.keys() == EXPERTS.keys() and kinds(records) == {("same", None)}


def test_a_packed_expert_has_the_same_values_or_is_named() -> None:
    loaded = experts("experts", "w13_weight", "w2_weight")
    name = f"{LAYER}.mlp.experts.w13_weight"
    loaded[name] = loaded[name].view(3, 4, 2, 8).transpose(2, 3).reshape(3, 8, 8).contiguous()
    packed = compared(EXPERTS, loaded)
    assert kinds(packed) == {("same", None), ("same", "reordered")}
    loaded[name][1, 0, 0] += 1
    differing = [name for name, record in compared(EXPERTS, loaded).items() if record.status == "differs"]
    assert differing == [f"{LAYER}.mlp.experts.1.{part}.weight" for part in ("gate_proj", "up_proj")]


def test_an_embedding_with_rows_added_and_a_head_tied_to_it() -> None:
    embedding = random(10, 8)
    stored = {"model.embed_tokens.weight": embedding, "lm_head.weight": random(10, 8, seed=7)}
    padded = torch.cat([embedding, torch.zeros(6, 8, dtype=torch.bfloat16)])
    records = compared(stored, {"model.embed_tokens.weight": padded, "lm_head.weight": padded})
    assert records["model.embed_tokens.weight"].status == "same"
    assert (records["lm_head.weight"].status, records["lm_head.weight"].kind) == ("differs", "tied")


def test_what_has_no_counterpart_and_another_layout() -> None:
    records = compared(PARTS | {"model.norm.weight": random(8)}, fused() | {"model.extra.weight": random(8)})
    assert records["model.norm.weight"].status == "missing"
    assert records["model.extra.weight"].status == "extra"
    half = {name: tensor[:12] for name, tensor in fused().items()}
    assert kinds(compared(PARTS, half)) == {("not_compared", None)}


def test_matrices_that_an_engine_keeps_transposed() -> None:
    stored = {f"{LAYER}.c_attn.weight": random(8, 24, seed=1), f"{LAYER}.c_proj.weight": random(8, 8, seed=2)}
    turned = {name: tensor.T.contiguous() for name, tensor in stored.items()}
    assert kinds(compared(stored, turned)) == {("same", "transposed")}
    one = stored | {f"{LAYER}.c_proj.weight": turned[f"{LAYER}.c_proj.weight"]}
    assert kinds(compared(stored, one)) == {("same", None), ("differs", "transposed")}
    padded = stored | {f"{LAYER}.c_attn.weight": random(8, 32)}
    assert kinds(compared(stored, padded)) == {("same", None), ("not_compared", None)}


def test_an_adapter_wraps_what_it_changes() -> None:
    name, prefix = f"{LAYER}.self_attn.o_proj", f"{LAYER}.self_attn.o_proj.lora_A"
    stored = {f"{name}.weight": random(8, 8), f"{prefix}.weight": random(2, 8)}
    loaded = {f"{name}.base_layer.weight": random(8, 8), f"{prefix}.default.weight": random(2, 8)}
    loaded[f"{name}.weight"] = loaded[f"{name}.base_layer.weight"]  # SGLang has it under both names
    assert kinds(compared(stored, loaded)) == {("same", None)}
