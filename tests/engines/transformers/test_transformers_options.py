"""What the transformers engine is told, what it ended up with, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_engine import (
    PREFILL,
    ROLLOUT,
    Load,
    prompts,
)
from tiny_models import EOS, VOCABULARY, save_model

from mismatchscope.engines.transformers.engine import TransformersEngine
from mismatchscope.engines.transformers.options import TransformersOptions
from mismatchscope.errors import EngineError, ModelError, PromptsError, SpecError
from mismatchscope.records import Request


def test_facts_tell_what_the_engine_ended_up_with(load: Load) -> None:
    facts = load("wide", dtype="autocast", attn="eager", lm_head="float32", train_mode=True).facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["settings"]["dtype"] == facts["effective"]["dtype"] == "autocast"
    assert facts["effective"]["attn"] == "eager" and facts["effective"]["lm_head"] == "float32"
    assert facts["model"]["vocabulary_size"] == VOCABULARY and facts["model"]["dtype_stored"] == "F32"
    assert facts["eos_token_ids"] == [EOS] and facts["max_length"] == 128
    assert facts["environment"]["torch"] == torch.__version__
    assert load().facts()["effective"]["dtype"] == "float32"
    checkpointing = load(train_mode=True, gradient_checkpointing=True).facts()["effective"]
    assert checkpointing["gradient_checkpointing"] and not facts["effective"]["gradient_checkpointing"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"logprob_chunk": -1}, "logprob_chunk=-1"),
        ({"gradient_checkpointing": True}, "train mode alone"),
    ],
)
def test_impossible_options(options: dict[str, object], why: str) -> None:
    with pytest.raises(SpecError, match=why) as caught:
        TransformersOptions(**options)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("options", "error"),
    [({"device": "abacus"}, SpecError), ({"device": "cuda:99"}, SpecError), ({"attn": "nonsense"}, ModelError)],
)
def test_options_that_this_machine_or_model_lacks(models: Path, options: dict[str, str], error: type) -> None:
    with pytest.raises(error, match=next(iter(options.values()))):
        TransformersEngine(str(models / "tiny"), TransformersOptions(**options)).load()


def load_from(directory: Path, **options: object) -> None:
    TransformersEngine(str(directory), TransformersOptions(**options)).load()


def test_broken_checkpoints(tmp_path: Path) -> None:
    from safetensors.torch import load as tensors_of
    from safetensors.torch import save as bytes_of

    directory = save_model(tmp_path / "model")
    weights = directory / "model.safetensors"
    whole = weights.read_bytes()
    tensors = tensors_of(whole)
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="not a readable safetensors"):
        load_from(directory)
    dropped = tensors.pop("model.layers.1.mlp.up_proj.weight")
    weights.write_bytes(bytes_of(tensors, metadata={"format": "pt"}))
    with pytest.raises(ModelError, match=r"lacks 1 of the model's tensors, model\.layers\.1\.mlp\.up_proj\.weight"):
        load_from(directory)
    tensors["model.layers.1.mlp.up_proj.weight"] = dropped[:3].clone()
    weights.write_bytes(bytes_of(tensors, metadata={"format": "pt"}))
    with pytest.raises(ModelError):
        load_from(directory)
    weights.write_bytes(whole)
    config = (directory / "config.json").read_text()
    (directory / "config.json").write_text(config.replace('"qwen3"', '"qwen99"'))
    with pytest.raises(ModelError, match="qwen99"):
        load_from(directory)


def test_a_tokenizer_with_more_ids_than_the_embedding_runs_unless_one_is_used(tmp_path: Path) -> None:
    """As gemma-3-1b is published: the text that one id stands for is in no prompt of a language model."""
    engine = TransformersEngine(str(save_model(tmp_path, vocab_size=59)), TransformersOptions(dtype="float32"))
    engine.load()
    [remark] = engine.facts()["notes"]
    assert "1 id from 59 upwards" in remark
    good = Request(3, 41, prompt="!")
    [record] = engine.rollout([good], ROLLOUT)
    assert record.response_token_ids.max() < 59
    with pytest.raises(PromptsError, match="prompt 41 has the token id 59") as caught:
        engine.check([replace(good, prompt="!" + chr(31 + 59))], ROLLOUT)
    assert "no embedding" in caught.value.hint


def test_a_model_that_changes_its_logits_or_mixes_packed_sequences(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Qwen3ForCausalLM, Qwen3Model

    forward = Qwen3ForCausalLM.forward

    def scaled(self: object, **inputs: object) -> object:
        output = forward(self, **inputs)
        output.logits = output.logits * 2
        return output

    with monkeypatch.context() as patch:
        patch.setattr(Qwen3ForCausalLM, "forward", scaled)
        with pytest.raises(ModelError, match="between its hidden states and its logits"):
            load_from(models / "tiny")

    backbone = Qwen3Model.forward

    def contiguous(self: object, position_ids: torch.Tensor, **inputs: object) -> object:
        in_one_row = torch.arange(position_ids.shape[1], device=position_ids.device)[None]
        return backbone(self, position_ids=in_one_row, **inputs)

    monkeypatch.setattr(Qwen3Model, "forward", contiguous)
    load_from(models / "tiny")
    with pytest.raises(ModelError, match="packed"):
        load_from(models / "tiny", padding="packed")


def test_impossible_requests(load: Load) -> None:
    engine, good = load(), prompts(1)[0]
    bad = replace(good, sequence_id=1, prompt_id=41, prompt_token_ids=np.array([VOCABULARY], dtype=np.int32))
    with pytest.raises(PromptsError, match="prompt 41"):
        next(iter(engine.rollout([good, bad], ROLLOUT)))
    with pytest.raises(EngineError, match="no response"):
        list(engine.score([good], PREFILL))
    for response, why in (([1, VOCABULARY], "outside the vocabulary"), ([1] * 128, "the model takes 128")):
        request = replace(good, response_token_ids=np.array(response, dtype=np.int32))
        with pytest.raises(ModelError, match=why):
            list(engine.score([request], PREFILL))


def test_out_of_memory_says_what_to_change(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine = load()
    monkeypatch.setattr(engine._lm, "hidden", fail)
    for size, says, helps in ((6, "batch_size=6", "batch_size=3"), (1, "batch_size=1", "shorter sequences")):
        with pytest.raises(EngineError, match=says) as caught:
            list(engine.rollout(prompts(size), ROLLOUT))
        assert helps in caught.value.hint


def test_a_bad_prompt_is_named_before_anything_runs(load: Load) -> None:
    """`check` sees all requests at once, however many batches they would fill."""
    engine, good = load(), prompts(3)
    engine.check(good, ROLLOUT)
    too_long = replace(good[0], prompt_id=41, prompt_token_ids=np.zeros(500, dtype=np.int32))
    with pytest.raises(PromptsError, match="prompt 41"):
        engine.check([*good, too_long], ROLLOUT)
    with pytest.raises(EngineError, match="no response"):
        engine.check(good, PREFILL)
