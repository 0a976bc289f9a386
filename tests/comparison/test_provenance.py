"""The provenance difference: complete, and the likeliest cause first."""

from __future__ import annotations

from mismatchscope.comparison.provenance import differences

SIDE = {
    "engine": "transformers",
    "model": {"weights_sha256": "w", "path": "/a"},
    "effective": {"dtype": "bfloat16", "attn": "sdpa", "batch_size": 32},
    "settings": {"dtype": "bfloat16"},
    "environment": {"torch": "2.13", "variables": {}},
    "created": "now",
}


def changed(**groups: dict) -> dict:
    return {key: value | groups.get(key, {}) if isinstance(value, dict) else value for key, value in SIDE.items()}


def test_equal_sides_differ_in_nothing() -> None:
    assert differences(SIDE, changed()) == []


def test_known_causes_come_first_and_are_explained() -> None:
    other = changed(effective={"attn": "eager", "dtype": "float32", "batch_size": 8}, environment={"kernel": "6.1"})
    found = differences(SIDE, other)
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


def test_a_setting_of_one_engine_alone_differs_but_is_no_known_cause() -> None:
    found = differences(SIDE, changed(effective={"enforce_eager": False}))
    assert [(one.key, one.behavior, one.reference) for one in found] == [("effective.enforce_eager", None, False)]
    assert found[0].rank == 0


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
