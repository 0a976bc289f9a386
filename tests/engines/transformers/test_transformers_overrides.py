"""A model that is told to compute otherwise than its checkpoint says: as a checkpoint that says so does.

Shapes: T response tokens, V vocabulary.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_engine import DECODE, PREFILL, Load, by_id, largest_tv, roll, to_score
from tiny_models import save_architecture, save_model

from mismatchscope.engines.spec import parse_spec, resolve_options
from mismatchscope.engines.transformers.engine import TransformersEngine
from mismatchscope.engines.transformers.fp8 import rounded
from mismatchscope.engines.transformers.loading import load_network
from mismatchscope.engines.transformers.options import TransformersOptions
from mismatchscope.errors import ModelError, SpecError
from mismatchscope.records import Request

FLOAT32: Any = {"dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def requests(load: Load) -> list[Request]:
    return to_score(roll(load()))


def scored(directory: Path, requests: list[Request], task: Any = PREFILL, **options: Any) -> Any:
    engine = TransformersEngine(str(directory), TransformersOptions(**FLOAT32, **options))
    engine.load()
    return by_id(engine.score(requests, task))


def with_config(models: Path, directory: Path, **changes: Any) -> Path:
    """The tiny checkpoint with other values in its config.json."""
    shutil.copytree(models / "tiny", directory)
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return directory


def with_weights(models: Path, directory: Path, change: Any) -> Path:
    """The tiny checkpoint with what `change` makes of each tensor, by name."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(models / "tiny", directory)
    file = directory / "model.safetensors"
    tensors = {name: change(name, tensor).contiguous() for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    return directory


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
        {"rms_norm_eps": 0.1},
    ],
    ids=["rope_theta", "rope scaling", "norm epsilon"],
)
def test_other_values_compute_as_a_checkpoint_that_has_them(
    models: Path, requests: list[Request], tmp_path: Path, changes: dict[str, Any]
) -> None:
    own = scored(models / "tiny", requests)
    told = scored(models / "tiny", requests, hf_overrides=changes)
    assert largest_tv(own, told) > 0.01
    assert largest_tv(told, scored(with_config(models, tmp_path / "model", **changes), requests)) == 0


def test_a_table_is_merged_and_a_window_is_one(models: Path, requests: list[Request], tmp_path: Path) -> None:
    """Of a table only what is named changes; layers that slide see no further than the window."""
    part = scored(models / "tiny", requests, hf_overrides={"rope_parameters": {"rope_theta": 50.0}})
    whole = {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}
    assert largest_tv(part, scored(with_config(models, tmp_path / "rope", **whole), requests)) == 0
    window = {"use_sliding_window": True, "sliding_window": 3, "layer_types": ["sliding_attention"] * 2}
    narrow = scored(models / "tiny", requests, hf_overrides=window)
    assert largest_tv(narrow, scored(with_config(models, tmp_path / "window", **window), requests)) == 0
    assert largest_tv(narrow, scored(models / "tiny", requests)) > 0.01


@pytest.mark.parametrize(
    ("overrides", "why", "helps"),
    [
        ({"rms_norm_epsilon": 0.1}, "no key rms_norm_epsilon", "rms_norm_eps"),
        ({"rope_theta": 50.0}, "reads rope_theta from rope_parameters", "rope_parameters: {'rope_theta': 50.0}"),
        ({"num_hidden_layers": "many"}, "does not take these values", ""),
    ],
)
def test_what_changes_nothing_is_refused(models: Path, overrides: Any, why: str, helps: str) -> None:
    with pytest.raises(ModelError, match=why) as caught:
        scored(models / "tiny", [], hf_overrides=overrides)
    assert helps in (caught.value.hint or "")


def test_attention_scale_multiplies_the_scores_of_every_layer(
    models: Path, requests: list[Request], tmp_path: Path
) -> None:
    """A Qwen3 normalises its queries last but for the rotary embedding: their norm's weight has the same effect."""
    double = with_weights(models, tmp_path / "m", lambda name, x: x * 2 if name.endswith("q_norm.weight") else x)
    told = scored(models / "tiny", requests, attention_scale=2.0)
    assert largest_tv(told, scored(double, requests)) < 1e-6
    assert largest_tv(told, scored(models / "tiny", requests)) > 0.01
    assert largest_tv(told, scored(models / "tiny", requests, DECODE, attention_scale=2.0)) < 1e-5


def test_attention_without_a_scale_that_shows_is_refused(tmp_path: Path) -> None:
    save_architecture(tmp_path, "Mamba")
    with pytest.raises(ModelError, match="no attention of MambaForCausalLM has a scale"):
        scored(tmp_path, [], attention_scale=2.0)
    with pytest.raises(ModelError, match="keeps no keys and values"):
        scored(tmp_path, [], kv_cache_dtype="fp8")


def nearest_fp8(value: np.ndarray) -> np.ndarray:
    """The nearest numbers of e4m3, ties to even, computed in float64: 3 bits after the first, exponents from −6."""
    exponent = np.maximum(np.floor(np.log2(np.maximum(np.abs(value), 2.0**-30))), -6)
    step = 2.0 ** (exponent - 3)
    return np.clip(np.round(value / step) * step, -448, 448)


def test_fp8_is_the_nearest_number_of_e4m3() -> None:
    value = np.random.default_rng(0).normal(0, 1, 4000) * 10.0 ** np.random.default_rng(1).uniform(-4, 3.5, 4000)
    value = value.astype(np.float32).astype(np.float64)
    found = rounded(torch.from_numpy(value).float()).double().numpy()
    np.testing.assert_array_equal(found, nearest_fp8(value))


@pytest.mark.parametrize("scales", ["fp8_per_tensor", "fp8_per_channel"])
def test_weights_are_rounded_but_the_head_and_the_norms(
    models: Path, requests: list[Request], tmp_path: Path, scales: str
) -> None:
    def change(name: str, weight: torch.Tensor) -> torch.Tensor:
        if "_proj." not in name:
            return weight
        matrix = weight.double().numpy()
        scale = np.abs(matrix).max(axis=1 if scales == "fp8_per_channel" else None, keepdims=True) / 448
        return torch.from_numpy(nearest_fp8(matrix / scale) * scale).float()

    told = scored(models / "tiny", requests, weight_quantization=scales)
    assert largest_tv(told, scored(with_weights(models, tmp_path / "m", change), requests)) < 1e-4
    assert largest_tv(told, scored(models / "tiny", requests)) > 0.01


def test_experts_are_matrices_of_their_own(tmp_path: Path) -> None:
    """All experts are in one tensor, and a large one does not set the scale of the others."""
    save_architecture(
        tmp_path, "Qwen3Moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, vocab_size=64
    )
    own, told = (
        dict(
            load_network(
                tmp_path, None, TransformersOptions(**FLOAT32, weight_quantization=weights)
            ).named_parameters()
        )
        for weights in ("none", "fp8_per_tensor")
    )
    (name,) = [name for name in own if name.endswith("0.mlp.experts.down_proj")]
    for before, after in zip(own[name].double(), told[name].double(), strict=True):
        scale = before.abs().max().item() / 448
        expected = nearest_fp8(before.detach().numpy() / scale) * scale
        np.testing.assert_allclose(after.detach().numpy(), expected, atol=1e-6)
    assert all(torch.equal(own[name], told[name]) for name in own if ".gate." in name or "norm" in name)


def test_keys_and_values_are_rounded_in_a_prefill_as_in_decoding(models: Path, requests: list[Request]) -> None:
    own = scored(models / "tiny", requests)
    prefill = scored(models / "tiny", requests, kv_cache_dtype="fp8")
    assert largest_tv(own, prefill) > 1e-3
    assert largest_tv(prefill, scored(models / "tiny", requests, DECODE, kv_cache_dtype="fp8")) < 0.2 * largest_tv(
        own, prefill
    )


def test_keys_and_values_are_those_of_fp8(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention is given numbers of e4m3, and otherwise what it is given without: the first layer shows it."""
    from transformers.models.qwen3 import modeling_qwen3

    seen: list[tuple[np.ndarray, np.ndarray]] = []
    attend = modeling_qwen3.eager_attention_forward

    def spy(module: Any, query: Any, key: Any, value: Any, *arguments: Any, **options: Any) -> Any:
        if module.layer_idx == 0:
            seen.append((key.double().numpy(), value.double().numpy()))
        return attend(module, query, key, value, *arguments, **options)

    monkeypatch.setattr(modeling_qwen3, "eager_attention_forward", spy)
    request = Request(0, 0, np.arange(1, 9, dtype=np.int32), None, np.arange(3, 12, dtype=np.int32))
    for dtype in ("auto", "fp8"):
        scored(models / "tiny", [request], attn="eager", kv_cache_dtype=dtype)
    # Each engine has looked at an example twice before.
    (own_key, own_value), (key, value) = seen[2], seen[5]
    np.testing.assert_array_equal(key, nearest_fp8(own_key))
    np.testing.assert_array_equal(value, nearest_fp8(own_value))


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("transformers:attention_scale=0", "attention_scale=0.0 is no factor"),
        ("transformers:kv_cache_dtype=fp8,padding=packed", "do not go together"),
        ("transformers:hf_overrides=rope_theta", "hf_overrides=rope_theta is not valid"),
        ("transformers:weight_quantization=int3", "weight_quantization=int3 is not valid"),
    ],
)
def test_what_a_spec_cannot_ask_for(spec: str, why: str) -> None:
    with pytest.raises(SpecError, match=why):
        resolve_options(parse_spec(spec))


def test_a_spec_names_them_and_facts_show_them(tmp_path: Path) -> None:
    spec = 'transformers:dtype=float32,attention_scale=1.5,hf_overrides={"rms_norm_eps":0.1}'
    options = resolve_options(parse_spec(spec))
    assert isinstance(options, TransformersOptions)
    engine = TransformersEngine(str(save_model(tmp_path)), options)
    engine.load()
    effective = engine.facts()["effective"]
    assert (effective["attention_scale"], effective["hf_overrides"]) == (1.5, {"rms_norm_eps": 0.1})
    # vLLM and SGLang say what their cache is of: "auto" would differ from that.
    assert effective["kv_cache_dtype"] is None
