"""Another side's experts in the forward of mixtures of many architectures.

Shapes: N tokens of a micro-batch, k chosen experts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mismatchscope.engines.transformers.prefilling import MicroBatch, lay_out
from mismatchscope.engines.transformers.replaying import GivenRoutes, replayed, routers
from mismatchscope.errors import EngineError

pytestmark = pytest.mark.slow

ARCHITECTURES = ("qwen3_moe", "mixtral", "olmoe", "gpt_oss", "glm4_moe", "qwen2_moe", "minimax_m2")
_SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "moe_intermediate_size": 16,
    "num_experts_per_tok": 2,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_GROUPS = {"n_group": 4, "topk_group": 2, "first_k_dense_replace": 1, "n_shared_experts": 1}


def network(architecture: str, dtype: torch.dtype = torch.bfloat16, **changes: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **_SIZES | _GROUPS | dict.fromkeys(_EXPERTS, 8) | changes)
    return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def laid_out(padding: str) -> MicroBatch:
    rng = np.random.default_rng(0)
    prompts, responses = ([rng.integers(1, 64, length) for length in lengths] for lengths in ((5, 9), (7, 3)))
    return lay_out(prompts, responses, padding)


def hidden(model: Any, batch: MicroBatch) -> tuple[Tensor, dict[int, tuple[Tensor, Tensor]]]:
    """The last hidden states, and weights and ids of each layer [N, k] as its router returned them."""
    seen: dict[int, tuple[Tensor, Tensor]] = {}

    def note(layer: int) -> Any:
        return lambda module, inputs, output: seen.update({layer: (output[1], output[2])})

    hooks = [module.register_forward_hook(note(layer)) for layer, module in routers(model).items()]
    mask = None if batch.mask_BT is None else torch.from_numpy(batch.mask_BT)
    arguments = {
        "input_ids": torch.from_numpy(batch.input_ids_BT),
        "position_ids": torch.from_numpy(batch.position_ids_BT),
    }
    with torch.inference_mode():
        found = model.base_model(**arguments, attention_mask=mask, use_cache=False).last_hidden_state
    for hook in hooks:
        hook.remove()
    return found, seen


def given(
    seen: dict[int, tuple[Tensor, Tensor]], batch: MicroBatch, *, weights: bool, turned: int = 0
) -> list[dict[int, GivenRoutes]]:
    return [
        {
            layer: GivenRoutes(
                ((ids_Nk[span] + turned) % 8).numpy(), weights_Nk[span].float().numpy() if weights else None
            )
            for layer, (weights_Nk, ids_Nk) in seen.items()
        }
        for span in batch.spans
    ]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_given_is_what_is_computed_with(architecture: str) -> None:
    model, batch = network(architecture), laid_out("left")
    own, seen = hidden(model, batch)
    assert seen, "the model routes"
    for weights in (False, True):
        with replayed(model, given(seen, batch, weights=weights), batch):
            again, _ = hidden(model, batch)
        assert torch.equal(own, again), "its own experts change nothing"
    with replayed(model, given(seen, batch, weights=False, turned=1), batch):
        other, used = hidden(model, batch)
    assert not torch.equal(own, other)
    for layer, (_, ids_Nk) in seen.items():
        for span in batch.spans:
            assert torch.equal(used[layer][1][span], (ids_Nk[span] + 1) % 8)
    assert torch.equal(hidden(model, batch)[0], own), "nothing of it stays"


def test_given_ids_are_weighed_as_the_router_weighs_its_own() -> None:
    """A softmax over the experts, renormalised over those that are given."""
    model, batch = network("qwen3_moe", torch.float32, norm_topk_prob=True), laid_out("right")
    _, seen = hidden(model, batch)
    [module, *_] = routers(model).values()
    routes = given(seen, batch, weights=False, turned=3)
    inputs: list[Tensor] = []
    with replayed(model, routes, batch):
        hook = module.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
        _, used = hidden(model, batch)
        hook.remove()
    probability_NE = (inputs[0].reshape(-1, 32).double() @ module.weight.detach().double().T).softmax(dim=-1)
    weights_Nk, ids_Nk = (each.clone() for each in used[0])
    expected_Nk = probability_NE.gather(1, ids_Nk)
    expected_Nk = expected_Nk / expected_Nk.sum(dim=1, keepdim=True)
    for span in batch.spans:
        torch.testing.assert_close(weights_Nk[span].double(), expected_Nk[span], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("padding", ["right", "left", "packed"])
def test_each_sequence_gets_its_own_routes_wherever_it_lies(padding: str) -> None:
    model, batch = network("qwen3_moe"), laid_out(padding)
    _, seen = hidden(model, batch)
    routes = given(seen, batch, weights=True)
    routes[1] = given(seen, batch, weights=True, turned=1)[1]
    with replayed(model, routes, batch):
        _, used = hidden(model, batch)
    for layer, (weights_Nk, ids_Nk) in seen.items():
        first, second = batch.spans
        assert torch.equal(used[layer][1][first], ids_Nk[first])
        assert torch.equal(used[layer][1][second], (ids_Nk[second] + 1) % 8)
        assert torch.equal(used[layer][0][second], weights_Nk[second])


def test_a_router_that_was_wrapped_before_stays_so() -> None:
    from mismatchscope.engines.transformers.routers import route_in_float32

    model, batch = network("qwen3_moe"), laid_out("right")
    plain, _ = hidden(model, batch)
    route_in_float32(model)
    own, seen = hidden(model, batch)
    assert not torch.equal(plain, own)
    for weights in (False, True):
        with replayed(model, given(seen, batch, weights=weights), batch):
            again, _ = hidden(model, batch)
        assert torch.equal(own, again)
    assert torch.equal(hidden(model, batch)[0], own)


def test_what_cannot_be_replayed_is_named() -> None:
    model, batch = network("qwen3_moe"), laid_out("right")
    _, seen = hidden(model, batch)
    routes = given(seen, batch, weights=False)
    one_layer = [{0: each[0]} for each in routes]
    with (
        pytest.raises(EngineError, match=r"layers \[0\], .* routes in \[0, 1\]"),
        replayed(model, one_layer, batch),
    ):
        pass
    shorter = [{layer: GivenRoutes(each.ids_Sk[1:]) for layer, each in given.items()} for given in routes]
    with (
        pytest.raises(EngineError, match="routes of 11 tokens for a sequence of 12"),
        replayed(model, shorter, batch),
    ):
        pass
    other = network("phimoe")
    _, seen = hidden(other, batch)
    routes = given(seen, batch, weights=False, turned=1)
    with replayed(other, routes, batch), pytest.raises(EngineError, match="PhimoeTopKRouter does not choose by"):
        hidden(other, batch)
