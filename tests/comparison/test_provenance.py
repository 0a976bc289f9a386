"""What differs between two sides: complete, by name, and with a reason only where it can explain the size."""

from __future__ import annotations

from typing import Any

import pytest

from mismatchscope.comparison.provenance import differences
from mismatchscope.reports.difference_fields import Difference, RoundingSize

CONFIG: dict[str, Any] = {
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "rms_norm_eps": 1e-6,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.57.0",
}
SIDE: dict[str, Any] = {
    "engine": "transformers",
    "model": {"weights_sha256": "w", "path": "/a", "config": CONFIG, "files": {"tokenizer.json": "t"}},
    "effective": {"dtype": "bfloat16", "attn": "sdpa", "batch_size": 32},
    "settings": {"dtype": "bfloat16"},
    "environment": {"torch": "2.13", "variables": {}},
    "created": "now",
}
BEYOND = RoundingSize(value=3.0, usual=0.03, times=100.0, beyond=True, n=500)
USUAL = RoundingSize(value=0.03, usual=0.03, times=1.0, beyond=False, n=500)


def changed(**groups: dict[str, Any]) -> dict[str, Any]:
    return {key: value | groups.get(key, {}) if isinstance(value, dict) else value for key, value in SIDE.items()}


def with_config(**keys: Any) -> dict[str, Any]:
    return changed(model={"config": CONFIG | keys})


def ranked(found: list[Difference]) -> list[str]:
    return [one.key for one in found if one.rank]


def test_equal_sides_differ_in_nothing() -> None:
    assert differences(SIDE, changed()) == []


def test_the_largest_possible_effect_comes_first_and_is_explained() -> None:
    other = changed(effective={"attn": "eager", "dtype": "float32", "batch_size": 8}, environment={"kernel": "6.1"})
    found = differences(SIDE, other, USUAL)
    assert [one.key for one in found] == [
        "effective.dtype",
        "effective.attn",
        "effective.batch_size",
        "environment.kernel",
    ]
    assert [one.rank for one in found] == [1, 2, 3, 0]
    assert all(one.why for one in found[:3])
    assert (found[0].behavior, found[0].reference) == ("bfloat16", "float32")


def test_what_moves_nothing_is_left_out() -> None:
    other = changed(settings={"dtype": "auto"}, model={"path": "/b"}) | {"created": "later"}
    assert differences(SIDE, other) == []


def test_kernels_explain_nothing_that_is_beyond_rounding() -> None:
    other = changed(effective={"attn": "eager"}, environment={"torch": "2.14"}) | {"engine": "vllm"}
    assert ranked(differences(SIDE, other, USUAL)) == ["engine", "effective.attn", "environment.torch"]
    found = differences(SIDE, other, BEYOND)
    assert {one.key for one in found} == {"engine", "effective.attn", "environment.torch"}
    assert ranked(found) == [] and all(one.why is None for one in found)


@pytest.mark.parametrize(
    ("group", "change", "key"),
    [
        ("model", {"weights_sha256": "v"}, "model.weights_sha256"),
        ("model", {"files": {"tokenizer.json": "u"}}, "model.files.tokenizer.json"),
        ("model", {"config": CONFIG | {"rms_norm_eps": 1e-5}}, "model.config.rms_norm_eps"),
        ("effective", {"quantization": "fp8"}, "effective.quantization"),
    ],
)
def test_what_can_explain_any_size_has_its_reason_at_any(group: str, change: dict[str, Any], key: str) -> None:
    for size in (None, USUAL, BEYOND):
        found = differences(SIDE, changed(**{group: change}), size)
        assert ranked(found) == [key]
        assert found[0].why is not None


def test_another_rope_theta_is_named_by_its_key() -> None:
    found = differences(SIDE, with_config(rope_theta=5e5), BEYOND)
    assert [(one.key, one.behavior, one.reference) for one in found] == [("model.config.rope_theta", 1e4, 5e5)]
    assert found[0].rank == 1


def test_the_two_spellings_of_the_rotary_embedding_are_one() -> None:
    rest = {key: value for key, value in CONFIG.items() if not key.startswith("rope")}
    newer = rest | {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}
    assert differences(SIDE, changed(model={"config": newer})) == []
    newer["rope_parameters"]["rope_theta"] = 5e5
    assert ranked(differences(SIDE, changed(model={"config": newer}))) == [
        "model.config.rope_parameters.rope_theta"
    ]


def test_keys_that_no_log_prob_depends_on_are_listed_without_rank() -> None:
    found = differences(SIDE, with_config(transformers_version="5.1", torch_dtype="float32", _name_or_path="x"))
    assert len(found) == 3 and ranked(found) == []


def test_a_side_that_states_no_configuration_contradicts_none() -> None:
    assert differences(SIDE, changed(model={"config": None, "files": None})) == []


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("kv_cache_dtype", "fp8", True),
        ("kv_cache_dtype", "auto", False),
        ("kv_cache_dtype", "bfloat16", False),
        ("kv_cache_dtype", "float32", True),
        ("quantization", "awq", True),
        ("weight_quantization", "fp8_per_tensor", True),
        ("weight_quantization", "none", False),
        ("attention_scale", 1.3, True),
        ("attention_scale", 1.0, False),
        ("tensor_parallel_size", 4, True),
        ("tensor_parallel_size", 1, False),
        ("tp_size", 2, True),
        ("enforce_eager", False, True),
        ("enforce_eager", True, False),
        ("max_num_seqs", 64, False),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_setting_of_one_side_alone_ranks_where_it_says_something(
    setting: str, value: Any, says: bool, first: bool
) -> None:
    sides = [changed(effective={setting: value}), SIDE]
    found = differences(*(sides if first else sides[::-1]), USUAL)
    assert [one.key for one in found] == [f"effective.{setting}"]
    assert bool(found[0].rank) == says


def test_no_reason_claims_more_than_that_a_setting_can_do_something() -> None:
    from mismatchscope.comparison.known_effects import EFFECTS

    for effect in EFFECTS:
        assert "the two sides ran" not in effect.why and "the two sides read" not in effect.why


def test_another_adapter_or_another_scaling_of_it_is_named_and_its_place_is_not() -> None:
    def with_adapter(sha256: str, alpha: int, path: str) -> dict:
        adapter = {"name": path, "path": path, "weights_sha256": sha256, "config": {"r": 4, "lora_alpha": alpha}}
        return changed(model={"adapter": adapter})

    ours = with_adapter("a", 8, "/one")
    assert differences(ours, with_adapter("a", 8, "/two")) == []
    cases = {
        "model.adapter.weights_sha256": with_adapter("b", 8, "/one"),
        "model.adapter.config.lora_alpha": with_adapter("a", 16, "/one"),
    }
    for key, other in cases.items():
        [one] = differences(ours, other)
        assert (one.key, one.rank) == (key, 1) and "adapter" in one.why
    found = differences(changed(model={"adapter": None}), ours)
    assert (found[0].key, found[0].behavior, found[0].reference) == ("model.adapter.weights_sha256", None, "a")
