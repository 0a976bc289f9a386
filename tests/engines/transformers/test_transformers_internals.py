"""What the transformers engine shows of its inside, against transformers' own outputs and modules called alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import save_architecture
from torch import Tensor

from mismatchscope.engines.common.stage_files import read_internals, write_internals
from mismatchscope.engines.transformers.engine import TransformersEngine
from mismatchscope.engines.transformers.options import TransformersOptions
from mismatchscope.errors import CapabilityError, TraceError
from mismatchscope.records import Request, Task

INSIDE = Task("inside", "internals", "", "")
Stages = dict[str, Tensor]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("internals")
    for kind, more in (
        ("Llama", {}),
        ("Mistral", {"sliding_window": 4}),
        ("Gemma2", {"sliding_window": 4, "final_logit_softcapping": 2.0}),
        (
            "Qwen3Moe",
            {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1},
        ),
    ):
        save_architecture(directory / kind, kind, **more)
    return directory


def load(directory: Path, **options: object) -> TransformersEngine:
    engine = TransformersEngine(
        str(directory), TransformersOptions(**{"dtype": "float32", "attn": "eager"} | options)
    )
    engine.load()
    return engine


def requests(lengths: tuple[int, ...] = (11, 7)) -> list[Request]:
    rng = np.random.default_rng(3)
    drawn = [rng.integers(1, 60, length).astype(np.int32) for length in lengths]
    return [Request(i, i, ids[:4], response_token_ids=ids[4:]) for i, ids in enumerate(drawn)]


def inside(engine: TransformersEngine, parts: Path, asked: list[Request], **how: object) -> list[Stages]:
    parts.mkdir(exist_ok=True)
    task = replace(INSIDE, parts=str(parts), **how)
    for each in [asked] if task.composition.padding else [[request] for request in asked]:
        engine.internals(each, task)
    return [load_file(parts / f"internals-{request.sequence_id}.safetensors") for request in asked]


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Gemma2", "Qwen3Moe"])
def test_it_shows_what_transformers_returns(checkpoints: Path, tmp_path: Path, kind: str) -> None:
    engine = load(checkpoints / kind)
    for request, stages in zip(requests(), inside(engine, tmp_path, requests()), strict=True):
        ids = np.concatenate([request.prompt_token_ids, request.response_token_ids])
        with torch.inference_mode():
            own = engine._lm.network(torch.from_numpy(ids)[None].long(), output_hidden_states=True)
        assert torch.equal(stages["embedding"], own.hidden_states[0][0])
        assert torch.equal(stages["layers.0"], own.hidden_states[1][0])
        assert torch.equal(stages["norm"], own.hidden_states[-1][0])  # transformers norms the last one
        torch.testing.assert_close(stages["logits"], own.logits[0])
        for layer, before in ((0, "embedding"), (1, "layers.0")):
            name, last = f"layers.{layer}", "_post_norm" if kind == "Gemma2" else ""
            added = stages[f"{name}.attention{last}"], stages[f"{name}.mlp{last}"]
            torch.testing.assert_close(stages[f"{name}.mid_residual"], stages[before] + added[0])
            torch.testing.assert_close(stages[name], stages[f"{name}.mid_residual"] + added[1])
    assert read_internals(tmp_path / "internals-0.safetensors").unmatched == {}


def test_routers_show_what_the_experts_are_given(checkpoints: Path, tmp_path: Path) -> None:
    [stages, _] = inside(load(checkpoints / "Qwen3Moe"), tmp_path, requests())
    for layer in ("layers.0", "layers.1"):
        probability_TE = stages[f"{layer}.router"].softmax(-1)
        weight_TK, id_TK = probability_TE.topk(2)
        assert torch.equal(stages[f"{layer}.expert_ids"], id_TK)
        torch.testing.assert_close(stages[f"{layer}.expert_weights"], weight_TK)


def test_a_batch_shows_each_sequence_without_its_padding(checkpoints: Path, tmp_path: Path) -> None:
    from mismatchscope.composition import BatchComposition

    engine = load(checkpoints / "Llama")
    alone = inside(engine, tmp_path / "alone", requests())
    for padding in ("right", "left", "packed"):
        composition = BatchComposition(batch_size=2, padding=padding)
        together = inside(engine, tmp_path / padding, requests(), composition=composition)
        for one, other in zip(alone, together, strict=True):
            torch.testing.assert_close(one, other)


def test_only_what_is_asked_for_is_kept(checkpoints: Path, tmp_path: Path) -> None:
    [stages, _] = inside(load(checkpoints / "Llama"), tmp_path, requests(), stages=("layers.*.mlp", "logits"))
    assert set(stages) == {"layers.0.mlp", "layers.1.mlp", "logits"}
    [stages, _] = inside(load(checkpoints / "Llama"), tmp_path, requests(), stages=("layers.*.router", "norm"))
    found = read_internals(tmp_path / "internals-0.safetensors")
    assert set(stages) == {"norm"} and set(found.unmatched) == {"layers.0.router", "layers.1.router"}


@pytest.mark.parametrize("kind", ["Llama", "Gemma2", "Qwen3Moe"])
def test_its_own_values_put_in_change_nothing(checkpoints: Path, tmp_path: Path, kind: str) -> None:
    engine = load(checkpoints / kind)
    own = inside(engine, tmp_path / "own", requests())
    again = inside(engine, tmp_path / "again", requests(), inputs=str(tmp_path / "own"))
    for one, other in zip(own, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_each_stage_computes_on_the_values_that_are_put_in(checkpoints: Path, tmp_path: Path) -> None:
    engine = load(checkpoints / "Llama")
    [own, _] = inside(engine, tmp_path / "own", requests())
    generator = torch.Generator().manual_seed(1)
    other = {name: torch.randn(value.shape, generator=generator) for name, value in own.items()}
    (tmp_path / "other").mkdir()
    write_internals(tmp_path / "other", 0, other, {})
    [swapped] = inside(engine, tmp_path / "swapped", requests()[:1], inputs=str(tmp_path / "other"))
    layers = engine._lm.network.model.layers
    with torch.inference_mode():
        assert torch.equal(swapped["layers.1.attention_norm"], layers[1].input_layernorm(other["layers.0"]))
        assert torch.equal(swapped["layers.1.mlp"], layers[1].mlp(other["layers.1.mlp_norm"][None])[0])
        assert torch.equal(swapped["norm"], engine._lm.network.model.norm(other["layers.1"]))
        torch.testing.assert_close(swapped["logits"], engine._lm.network.lm_head(other["norm"]))
    assert torch.equal(swapped["embedding"], own["embedding"])
    torch.testing.assert_close(swapped["layers.0.mid_residual"], other["embedding"] + other["layers.0.attention"])


def test_chosen_experts_put_in_are_those_that_compute(checkpoints: Path, tmp_path: Path) -> None:
    engine = load(checkpoints / "Qwen3Moe")
    [own, _] = inside(engine, tmp_path / "own", requests())
    (tmp_path / "other").mkdir()
    ids_TK = (own["layers.0.expert_ids"] + 1) % 4
    write_internals(tmp_path / "other", 0, {"layers.0.expert_ids": ids_TK}, {})
    [replayed] = inside(engine, tmp_path / "replayed", requests()[:1], inputs=str(tmp_path / "other"))
    moe, states = engine._lm.network.model.layers[0].mlp, own["layers.0.mlp_norm"]
    with torch.inference_mode():
        expected = moe.experts(states, ids_TK, own["layers.0.expert_weights"])
    torch.testing.assert_close(replayed["layers.0.mlp"], expected)
    assert torch.equal(replayed["layers.0.expert_ids"], own["layers.0.expert_ids"]), (
        "what the router chose is shown"
    )


def test_a_compiled_model_is_refused(checkpoints: Path, tmp_path: Path) -> None:
    engine = load(checkpoints / "Llama")
    engine._lm._backbone._compiled_call_impl = lambda *args: None
    with pytest.raises(CapabilityError, match="compiled") as caught:
        inside(engine, tmp_path, requests())
    assert caught.value.hint == "transformers:compile=false"


def test_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "internals-0.safetensors"
    path.write_bytes(b"not safetensors")
    with pytest.raises(TraceError, match="cannot be read"):
        read_internals(path)
