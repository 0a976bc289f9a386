"""Files of two sides' insides held together: what is common, and what cannot be compared and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mismatchscope.comparison.layers import ShownBy, internals_of
from mismatchscope.engines.common.stage_files import write_internals
from mismatchscope.errors import NotComparableError
from mismatchscope.records import Request

REQUESTS = [
    Request(i, i, np.array([i, 5], dtype=np.int32), response_token_ids=np.arange(3, dtype=np.int32)) for i in (0, 1)
]
Stages = dict[str, torch.Tensor]


def stages(seed: int = 0, *, layers: int = 2, width: int = 8, vocabulary: int = 16) -> Stages:
    generator = torch.Generator().manual_seed(seed)
    names = [f"layers.{n}{part}" for n in range(layers) for part in ("", ".attention", ".mlp")]
    found = {name: torch.randn(5, width, generator=generator) for name in ["embedding", *names, "norm"]}
    return found | {"logits": torch.randn(5, vocabulary, generator=generator)}


def shown(directory: Path, name: str, own: Stages, unmatched: dict[str, str] | None = None) -> Path:
    (directory / name).mkdir()
    for request in REQUESTS:
        write_internals(directory / name, request.sequence_id, own, unmatched or {})
    return directory / name


def test_stages_of_both_sides_are_compared_in_order(tmp_path: Path) -> None:
    one = stages()
    other = one | {"layers.1.mlp": one["layers.1.mlp"] + 1}
    places = ShownBy(shown(tmp_path, "b", other), shown(tmp_path, "r", one), shown(tmp_path, "s", one))
    found = internals_of(places, REQUESTS)
    assert [stage.stage for stage in found.stages][:4] == [
        "embedding",
        "layers.0.attention",
        "layers.0.mlp",
        "layers.0",
    ]
    assert (found.sequences, found.tokens, found.first_difference) == (2, 10, "layers.1.mlp")
    assert found.stage("layers.1.mlp").created.value == pytest.approx(
        float((torch.ones(5, 8).norm(dim=1) / other["layers.1.mlp"].norm(dim=1)).mean())
    )
    assert [row.stage for row in found.heat] == ["embedding", "layers.0", "layers.1", "norm", "logits"]
    assert found.unmatched == []


def test_what_only_one_side_has_is_named_and_the_rest_compared(tmp_path: Path) -> None:
    deeper = stages(layers=3, vocabulary=20)
    mine = {"layers.0.attention_norm": "no module of layer 0 is named input_layernorm", "layers.*": "not this one"}
    places = ShownBy(shown(tmp_path, "b", deeper), shown(tmp_path, "r", stages(), mine))
    found = internals_of(places, REQUESTS)
    reasons = {each.stage: each.reason for each in found.unmatched}
    assert reasons["layers.2.mlp"] == "only the behaviour has such a stage"
    assert reasons["layers.0.attention_norm"].startswith("the reference: no module of layer 0")
    assert reasons["logits"] == "20 and 16 ids: the first 16 are compared"
    assert found.stage("logits").width == 16 and found.stage("logits").created is None


def test_models_of_other_widths_are_not_comparable(tmp_path: Path) -> None:
    wide = stages(width=12)
    places = ShownBy(shown(tmp_path, "b", wide), shown(tmp_path, "r", {"embedding": stages()["embedding"]}))
    with pytest.raises(NotComparableError, match="the behaviour's has 12 values, the reference's 8") as caught:
        internals_of(places, REQUESTS)
    assert "one architecture and size" in caught.value.hint


def test_no_common_sequence_is_not_comparable(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotComparableError, match="No sequence"):
        internals_of(ShownBy(tmp_path / "empty", shown(tmp_path, "r", stages())), REQUESTS)


def test_weights_of_experts_are_compared_where_both_chose_the_same(tmp_path: Path) -> None:
    ids = torch.tensor([[0, 1], [1, 2], [2, 3], [0, 3], [1, 3]])
    weights = torch.tensor([[0.75, 0.25]] * 5)
    router = torch.randn(5, 4)
    one = {"layers.0.router": router, "layers.0.expert_ids": ids, "layers.0.expert_weights": weights}
    swapped_slots = one | {"layers.0.expert_ids": ids.flip(1), "layers.0.expert_weights": weights.flip(1)}
    swapped_slots["layers.0.expert_ids"][4] = torch.tensor([0, 2])
    found = internals_of(ShownBy(shown(tmp_path, "b", swapped_slots), shown(tmp_path, "r", one)), REQUESTS)
    assert [stage.stage for stage in found.stages] == ["layers.0.router", "layers.0.expert_weights"]
    assert found.stage("layers.0.expert_weights").error.n == 8
    assert found.stage("layers.0.expert_weights").error.value == 0
