"""Stages by the names of modules: of the three engines, of models with other norms, and of none that is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope.engines.common.stages import (
    IN_A_LAYER,
    LAYER,
    Architecture,
    Site,
    asked_for,
    in_order,
    kind_of,
    layer_of,
    match,
)

QWEN = ("input_layernorm", "self_attn", "self_attn.o_proj", "post_attention_layernorm", "mlp", "mlp.gate_proj")
MOE = {
    "transformers": (*QWEN[:-1], "mlp.gate", "mlp.experts"),
    "vllm": (*QWEN[:-1], "mlp.gate", "mlp.experts", "mlp.experts.router"),
    "sglang": (*QWEN[:-1], "mlp.gate", "mlp.topk", "mlp.experts"),
}
GEMMA = (*QWEN, "pre_feedforward_layernorm", "post_feedforward_layernorm")
OLMO = (*QWEN[1:], "post_feedforward_layernorm")


def modules(
    parts: tuple[str, ...], layers: int = 2, *, prefix: str = "model.layers", last: str = "norm"
) -> list[str]:
    backbone = prefix.rpartition(".")[0]
    inside = [f"{prefix}.{number}{part}" for number in range(layers) for part in ("", *(f".{p}" for p in parts))]
    return ["", backbone, f"{backbone}.embed_tokens", prefix, *inside, f"{backbone}.{last}", "lm_head"]


@pytest.mark.parametrize("architecture", MOE)
def test_a_mixture_of_experts_has_every_stage(architecture: Architecture) -> None:
    matched = match(modules(MOE[architecture]), architecture)
    in_layers = [f"layers.{n}.{kind}" if kind != LAYER else f"layers.{n}" for n in (0, 1) for kind in IN_A_LAYER]
    expected = ["embedding", *(name for name in in_layers if "post_norm" not in name), "norm"]
    assert list(matched.sites) == expected == in_order(reversed(expected))
    assert matched.unmatched == {}


def test_the_residual_of_an_engine_is_what_its_next_norm_sums() -> None:
    own, served = (match(modules(QWEN), engine).sites for engine in ("transformers", "vllm"))
    assert own["layers.0"] == Site("model.layers.0", "output")
    assert served["layers.0"] == Site("model.layers.1.input_layernorm", "stream")
    assert served["layers.1"] == Site("model.norm", "stream")
    assert served["embedding"] == Site("model.layers.0.input_layernorm", "stream")
    assert own["layers.1.mid_residual"] == Site("model.layers.1.post_attention_layernorm", "input")


def test_gemma_norms_what_attention_and_mlp_give() -> None:
    sites = match(modules(GEMMA), "transformers").sites
    assert sites["layers.0.attention_post_norm"].module.endswith("post_attention_layernorm")
    assert sites["layers.0.mlp_norm"].module.endswith("pre_feedforward_layernorm")
    assert sites["layers.0.mlp_post_norm"].module.endswith("post_feedforward_layernorm")


def test_a_model_that_norms_afterwards_lacks_the_norms_before() -> None:
    matched = match(modules(OLMO, 1), "transformers")
    assert matched.sites["layers.0.attention_post_norm"].module.endswith("post_attention_layernorm")
    assert set(matched.unmatched) == {"layers.0.attention_norm", "layers.0.mlp_norm"}
    assert "input_layernorm" in matched.unmatched["layers.0.attention_norm"]


def test_what_is_asked_for_and_not_there_is_named() -> None:
    wanted = ("layers.*.router", "layers.*.expert_ids")
    matched = match(modules(QWEN), "transformers", wanted)
    assert matched.sites == {}
    assert set(matched.unmatched) == {f"layers.{n}.{kind}" for n in (0, 1) for kind in ("router", "expert_ids")}
    assert match(["", "net", "net.blob"], "vllm").unmatched.keys() == {"embedding", "layers.*", "norm"}


def test_the_towers_of_images_are_no_layers() -> None:
    tower = modules(QWEN, 9, prefix="model.vision_tower.layers")
    text = modules(QWEN, 2, prefix="model.language_model.layers")
    assert match(tower + text, "transformers").sites["layers.1"].module == "model.language_model.layers.1"
    gpt2 = match(modules(("ln_1", "attn", "ln_2", "mlp"), prefix="transformer.h", last="ln_f"), "transformers")
    assert gpt2.sites["norm"].module == "transformer.ln_f" and not gpt2.unmatched


def test_patterns_name_a_stage_of_one_layer_or_of_all() -> None:
    assert asked_for("layers.3.mlp", ()) and asked_for("layers.3.mlp", ("layers.*.mlp",))
    assert asked_for("layers.3.mlp", ("layers.3.mlp",)) and not asked_for("layers.2.mlp", ("layers.3.mlp",))
    assert not asked_for("layers.3.mlp_norm", ("layers.*.mlp",)) and asked_for("norm", ("norm",))


@given(st.lists(st.tuples(st.integers(0, 200), st.sampled_from(IN_A_LAYER)), unique=True))
def test_the_order_is_that_of_the_computation(places: list[tuple[int, str]]) -> None:
    names = [f"layers.{layer}" if kind == LAYER else f"layers.{layer}.{kind}" for layer, kind in places]
    ordered = in_order(["logits", "norm", *names, "embedding"])
    assert ordered[0] == "embedding" and ordered[-2:] == ["norm", "logits"]
    found = [(layer_of(name), IN_A_LAYER.index(kind_of(name))) for name in ordered[1:-2]]
    assert found == sorted(found) and len(found) == len(places)
