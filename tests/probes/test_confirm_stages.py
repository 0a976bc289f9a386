"""The experiment `layers`: which kind of stage creates the gap, told by the probe on real forwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from probe_runs import settings
from tiny_models import save_model

from mismatchscope.diagnosis.decisions import decision
from mismatchscope.measures.layer_results import Internals, StageDifference
from mismatchscope.measures.results import Interval
from mismatchscope.measures.tensor_results import TensorRecord
from mismatchscope.probes.confirm.case import Case
from mismatchscope.probes.confirm.experiments import EXPERIMENTS, kind_of
from mismatchscope.probes.confirm.found import UNCLEAR
from mismatchscope.probes.confirm.stages import result_of

ENGINE = "transformers:dtype=float32,device=cpu"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "result", "left"),
    [
        ("attention_scale=1.5", "pattern", {"rope", "attention_scale"}),
        ('hf_overrides={"rms_norm_eps":0.1}', "norm", {"norm", "stale_weights"}),
        (
            'train_mode=true,hf_overrides={"attention_dropout":0.3}',
            "attention",
            {"attention_scale", "dropout", "stale_weights"},
        ),
    ],
)
def test_the_stage_that_was_planted_is_found(tmp_path: Path, fault: str, result: str, left: set[str]) -> None:
    model = save_model(tmp_path / "model", max_position_embeddings=512)
    asked = settings(behavior=f"{ENGINE},{fault}", reference=ENGINE, limit=3).model_copy(
        update={"model": str(model)}
    )
    case = Case(asked, tmp_path / "confirm", Interval(0.01, 0.009, 0.011), None, lambda event: None)
    found = EXPERIMENTS["layers"](case)
    assert found.result == result
    suspected = ["rope", "norm", "attention_scale", "head", "dropout", "stale_weights"]
    assert set(decision("layers", result).over(suspected)) == left


def stage(name: str, *, first: float = 1.0, odd: bool = True) -> StageDifference:
    return StageDifference(
        name,
        "float32",
        "float32",
        8,
        Interval(0.1),
        cosine=1.0,
        max_abs=0.1,
        same=0.0,
        created=Interval(1.0),
        created_first=first,
        times_rounding=100.0,
        limit=10.0,
        stands_out="beyond_rounding" if odd else None,
    )


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([stage("layers.0.attention", first=0.0), stage("layers.0.mlp", odd=False)], "pattern"),
        ([stage("layers.0.attention"), stage("layers.1.attention", first=0.0)], "attention"),
        ([stage("layers.0.mlp_norm"), stage("norm")], "norm"),
        ([stage("layers.0.attention_norm"), stage("layers.0.attention", first=0.0)], "norm"),
        ([stage("layers.0.mlp"), stage("layers.0.attention")], UNCLEAR),
        ([stage("logits")], "head"),
        ([stage("layers.0.mlp", odd=False)], UNCLEAR),
    ],
)
def test_one_kind_of_stage_is_a_result_and_several_are_none(stages: list[StageDifference], expected: str) -> None:
    assert (
        result_of(Internals(stages, sequences=3, tokens=30, same_prefix=0, first_difference="embedding"))
        == expected
    )


def test_nothing_that_was_shown_is_no_result() -> None:
    assert result_of(None) == UNCLEAR


@pytest.mark.parametrize(
    ("names", "rows", "expected"),
    [
        (["lm_head.weight"], 1.0, "head"),
        (["model.embed_tokens.weight", "lm_head.weight"], 1.0, "head"),
        (["model.embed_tokens.weight"], 1.0, "embedding"),
        (["model.embed_tokens.weight"], 0.1, "rows"),
        (["model.layers.0.mlp.experts.3.up_proj.weight"], 1.0, "expert"),
        (
            ["model.layers.0.mlp.experts.3.up_proj.weight", "model.layers.0.mlp.experts.4.up_proj.weight"],
            1.0,
            "experts",
        ),
        (["model.layers.0.self_attn.q_proj.weight"], 1.0, "projections"),
        (["model.layers.0.self_attn.q_proj.weight", "model.norm.weight"], 1.0, "values"),
    ],
)
def test_what_tensors_that_differ_have_in_common(names: list[str], rows: float, expected: str) -> None:
    shapes = {True: (8,), False: (8, 8)}
    tensors = [
        TensorRecord(name, "differs", shapes[name.endswith("norm.weight")], kind="values", differing_rows=rows)
        for name in names
    ]
    assert kind_of(tensors) == expected
