"""The probe `layers` finds faults that were planted in one side at the operation that has them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import run_here
from layers_runs import MIXTURE, WIDE, alter_mlp, change_weights, inside, permute_experts, planted, write_config
from probe_runs import codes
from tiny_models import save_architecture, save_model, save_tokenizer

from mismatchscope.collection.collector import Collector
from mismatchscope.comparison.layers import ShownBy, internals_of
from mismatchscope.composition import BatchComposition
from mismatchscope.engines import registry
from mismatchscope.engines.common.stages import kind_of
from mismatchscope.probes import run_probe as running
from mismatchscope.probes.layers_conclusions import conclusions
from mismatchscope.records import Request, Task

pytestmark = pytest.mark.slow


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine `other`, and no process for any engine."""
    monkeypatch.setitem(registry.ENGINES, "other", "other_checkpoint:OtherCheckpoint")
    monkeypatch.setattr(running, "Collector", functools.partial(Collector, run=run_here))


def alter_attention(model: Any) -> None:
    weight = model.layers[1].self_attn.o_proj.weight
    weight.add_(weight.roll(1, 0), alpha=0.05)


def scale_scores(model: Any) -> None:
    """The norm of the queries is what the scale of the softmax multiplies."""
    for layer in model.layers:
        layer.self_attn.q_norm.weight.mul_(1.2)


WINDOW = {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 0}
PLANTED: dict[str, tuple[Callable[[Path], None], str, bool | None]] = {
    "weights of a layer's MLP": (lambda path: change_weights(path, alter_mlp), "layers.1.mlp", None),
    "weights of a layer's attention": (
        lambda path: change_weights(path, alter_attention),
        "layers.1.attention",
        True,
    ),
    "epsilon": (lambda path: write_config(path, rms_norm_eps=0.05), "attention_norm", None),
    "rotary base": (
        lambda path: write_config(path, rope_parameters={"rope_theta": 100.0, "rope_type": "default"}),
        "attention",
        False,
    ),
    "softmax scale": (lambda path: change_weights(path, scale_scores), "attention", False),
    "sliding window": (
        lambda path: write_config(path, layer_types=["sliding_attention"] * 2, **WINDOW),
        "attention",
        False,
    ),
}
"""The fault, the stage or the kind of stage that stands out first, and whether it does at the first token."""


@pytest.mark.parametrize("name", PLANTED)
def test_a_fault_is_found_at_its_operation(name: str, tmp_path: Path, other: None) -> None:
    change, expected, at_first = PLANTED[name]
    for each in ("model", "other"):
        save_model(tmp_path / each, **WIDE)
    change(tmp_path / "other")
    report = planted(tmp_path, "float32" if name == "epsilon" else "bfloat16")
    odd = [stage for stage in inside(report).stages if stage.stands_out]
    assert {stage.stands_out for stage in odd} == {"beyond_rounding"}
    assert codes(report)[0] == "beyond_rounding"
    if expected.startswith("layers."):
        assert [stage.stage for stage in odd] == [expected] == [inside(report).first_difference]
        assert report.finding.sentence.startswith(f"{expected} creates")
    else:
        # The norms of queries and keys have the same epsilon, inside attention.
        with_it = {"attention", "mlp_norm", "norm"} if name == "epsilon" else set()
        assert expected in {kind_of(stage.stage) for stage in odd} <= {expected} | with_it
        assert kind_of(odd[0].stage) == expected and "every layer" in report.finding.sentence
    if at_first is not None:
        assert ("Not so at the first token" in report.finding.sentence) == (not at_first)


def test_sequences_that_see_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed in one row without a mask: the second one attends to the first."""
    import torch

    from mismatchscope.engines.transformers.engine import TransformersEngine, TransformersOptions

    save_model(tmp_path / "model", **WIDE)
    engine = TransformersEngine(str(tmp_path / "model"), TransformersOptions(dtype="bfloat16"))
    engine.load()
    rng = np.random.default_rng(0)
    drawn = [rng.integers(1, 60, 24).astype(np.int32) for _ in range(2)]
    requests = [Request(i, i, ids[:8], response_token_ids=ids[8:]) for i, ids in enumerate(drawn)]
    places = {name: tmp_path / name for name in ("behavior", "reference", "swapped")}
    for place in places.values():
        place.mkdir()
    task = Task("inside", "internals", "", str(places["reference"]))
    packed = BatchComposition(batch_size=2, padding="packed")
    hidden = engine._lm.hidden
    with monkeypatch.context() as patch:
        patch.setattr(engine._lm, "hidden", lambda ids, mask, place: hidden(ids, torch.ones_like(ids), place))
        engine.internals(requests, replace(task, parts=str(places["behavior"]), composition=packed))
    for request in requests:
        engine.internals([request], task)
        engine.internals([request], replace(task, parts=str(places["swapped"]), inputs=str(places["behavior"])))
    found = internals_of(ShownBy(**places), requests)
    assert [stage.stage for stage in found.stages if stage.stands_out] == [
        "layers.0.attention",
        "layers.1.attention",
    ]
    assert "whether it sees other sequences" in conclusions(found, None)[0].sentence


def test_exchanged_experts_are_found_in_their_layer(tmp_path: Path, other: None) -> None:
    for each in ("model", "other"):
        save_architecture(tmp_path / each, "Qwen3Moe", **WIDE | MIXTURE)
        save_tokenizer(tmp_path / each)
    change_weights(tmp_path / "other", permute_experts)
    report = planted(tmp_path, "bfloat16")
    assert [stage.stage for stage in inside(report).stages if stage.stands_out] == ["layers.1.mlp"]
    assert report.finding.sentence.startswith("layers.1.mlp creates")
    assert "experts" in report.finding.sentence
    carried = inside(report).stage("layers.1.mlp").carried
    assert carried is not None and carried.value == 0, "what is given to it is the same on both sides"
