"""The transformers engine runs what transformers has: models of other attentions, of none, and with other heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_engine import DECODE, PREFILL, ROLLOUT, by_id, largest_tv, prompts, roll, to_score
from tiny_models import EOS, VOCABULARY

from mismatchscope.engines.transformers.engine import TransformersEngine
from mismatchscope.engines.transformers.options import TransformersOptions
from mismatchscope.errors import ModelError

pytestmark = pytest.mark.slow

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "eos_token_id": EOS,
    "pad_token_id": None,
    "initializer_range": 0.3,  # far from uniform, so that a wrong position or mask shows
}
TRANSFORMER = SIZES | {
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
}
HEADS = TRANSFORMER | {"head_dim": 16}
MIXTURE = {"num_experts": 4, "num_experts_per_tok": 2}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2": (
        "Gemma2",
        HEADS | {"final_logit_softcapping": 2.0, "attn_logit_softcapping": 5.0, "sliding_window": 4},
    ),
    "granite": ("Granite", HEADS | {"logits_scaling": 3.0}),
    "mixture": ("Qwen3Moe", HEADS | MIXTURE | {"moe_intermediate_size": 16}),
    "mamba": ("Mamba", SIZES | {"state_size": 8}),
    "mamba2": ("Mamba2", SIZES | {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 2, "chunk_size": 8}),
    "falcon mamba": ("FalconMamba", SIZES | {"state_size": 8}),
    "jamba": (
        "Jamba",
        TRANSFORMER | MIXTURE | {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8},
    ),
}
"""Tiny random models: the class that transformers has, and its configuration."""

ATTENTION = {"gemma2": "eager", "granite": "sdpa", "mixture": "sdpa", "jamba": "sdpa"}
"""What transformers chooses; a model of recurrent layers alone has none to choose."""

RECURRENT = ("mamba", "mamba2", "falcon mamba", "jamba")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import transformers

    directory = tmp_path_factory.mktemp("architectures")
    for name, (kind, settings) in CONFIGS.items():
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**settings)
        transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(directory / name)
    return directory


def loaded(directory: Path, **options: Any) -> TransformersEngine:
    engine = TransformersEngine(str(directory), TransformersOptions(**{"dtype": "float32"} | options))
    engine.load()
    engine.check(prompts(6), ROLLOUT)
    return engine


@pytest.mark.parametrize("name", CONFIGS)
def test_decoding_and_both_layouts_of_a_prefill_agree(checkpoints: Path, name: str) -> None:
    """With no option said: capped and scaled logits, routed experts, recurrent states, and both kinds of layers."""
    engine = loaded(checkpoints / name)
    assert engine.facts()["effective"]["attn"] == ATTENTION.get(name)
    rollout = roll(engine)
    assert next(iter(rollout.values())).response_pieces is None  # no tokenizer was saved
    requests = to_score(rollout)
    assert largest_tv(rollout, by_id(engine.score(requests, DECODE))) == 0
    for padding in ("right", "left"):
        scored = by_id(loaded(checkpoints / name, padding=padding).score(requests, PREFILL))
        assert largest_tv(rollout, scored) <= 1e-5
    if name in RECURRENT:
        with pytest.raises(ModelError, match="does not tell packed sequences apart") as caught:
            loaded(checkpoints / name, padding="packed")
        assert caught.value.hint == "transformers:padding=right"
    else:
        scored = by_id(loaded(checkpoints / name, padding="packed").score(requests, PREFILL))
        assert largest_tv(rollout, scored) <= 1e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "autocast"])
@pytest.mark.parametrize("name", ["gemma2", *RECURRENT])
def test_sixteen_bits_run_and_round(checkpoints: Path, name: str, dtype: str) -> None:
    """Mamba's residuals stay in float32 whatever its weights are, and its head takes them."""
    rollout = roll(loaded(checkpoints / name))
    engine = loaded(checkpoints / name, dtype=dtype)
    assert "bfloat16" in engine.facts()["effective"]["dtype"] or dtype == "autocast"
    assert 1e-5 < largest_tv(rollout, by_id(engine.score(to_score(rollout), PREFILL))) < 0.3
    own = roll(engine)
    assert largest_tv(own, by_id(engine.score(to_score(own), DECODE))) == 0


@pytest.mark.parametrize("name", ["gemma2", "mamba"])
def test_an_attention_that_a_model_does_not_have_names_the_way_out(checkpoints: Path, name: str) -> None:
    with pytest.raises(ModelError, match="attention") as caught:
        loaded(checkpoints / name, attn="sdpa")
    assert caught.value.hint.startswith("attn=auto in place of attn=sdpa")


@pytest.mark.parametrize("name", ["mamba", "gemma2"])
def test_a_cache_that_a_model_takes_no_notice_of_is_refused(checkpoints: Path, name: str) -> None:
    """As where transformers has given the cache a name that mismatchscope does not know."""
    engine = loaded(checkpoints / name)
    engine._lm._cache_argument, engine._decoding_checked = "memory", False
    engine.check(to_score(roll(loaded(checkpoints / name))), PREFILL)
    for task in (ROLLOUT, DECODE):
        with pytest.raises(ModelError, match="decodes other distributions than its own forward"):
            engine.check(to_score(roll(loaded(checkpoints / name))), task)
