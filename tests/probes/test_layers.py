"""The probe `layers` on the embedded models: what is rounding, what is not, and what it cannot tell."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import pytest
from in_process import run_here
from layers_runs import alter_mlp, change_weights, inside, permute_experts, planted, probed
from probe_runs import codes, settings
from tiny_models import save_model

from mismatchscope.collection.collector import Collector
from mismatchscope.demo import model_path
from mismatchscope.engines import registry
from mismatchscope.environments import find
from mismatchscope.errors import CapabilityError, ConfigError
from mismatchscope.probes import run_probe as running
from mismatchscope.probes.run_probe import plan_probe
from mismatchscope.reports.document import Report
from mismatchscope.reports.figure_paths import check_path, figure_at
from mismatchscope.reports.formats import render


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine `other`, and no process for any engine."""
    monkeypatch.setitem(registry.ENGINES, "other", "other_checkpoint:OtherCheckpoint")
    monkeypatch.setattr(running, "Collector", functools.partial(Collector, run=run_here))


@pytest.mark.slow
@pytest.mark.parametrize(("model", "dtype"), [("dense", "float32"), ("moe", "bfloat16")])
def test_a_fault_in_the_embedded_models(model: str, dtype: str, tmp_path: Path, other: None) -> None:
    shutil.copytree(model_path(model), tmp_path / "other")
    change_weights(tmp_path / "other", permute_experts if model == "moe" else alter_mlp)
    report = planted(tmp_path, dtype, model=f"demo:{model}")
    assert [stage.stage for stage in inside(report).stages if stage.stands_out] == ["layers.1.mlp"]
    assert inside(report).first_difference == "layers.1.mlp" and codes(report)[0] == "beyond_rounding"


@pytest.mark.slow
def test_a_head_in_bfloat16(tmp_path: Path, other: None) -> None:
    """Everything before it has the same bits."""
    report = probed(
        tmp_path / "run",
        model="demo:dense",
        behavior="transformers:dtype=bfloat16",
        reference="transformers:dtype=bfloat16,lm_head=float32",
    )
    found = inside(report)
    assert found.first_difference == "logits" and found.same_prefix == len(found.stages) - 1
    head = found.stage("logits")
    assert (head.stands_out, head.dtype, head.reference_dtype) == ("other_dtype", "bfloat16", "float32")
    assert codes(report)[:2] == ["other_dtype", "first_difference"]
    assert report.finding.sentence.startswith("logits computes in bfloat16 on the behaviour's side and in float32")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "behavior", "reference"),
    [
        ("moe", "dtype=bfloat16", "dtype=float32"),
        ("dense", "dtype=float16,attn=eager", "dtype=float32"),
        ("dense", "attn=eager", "attn=sdpa"),
    ],
)
def test_rounding_is_called_rounding(
    model: str, behavior: str, reference: str, tmp_path: Path, other: None
) -> None:
    sides = {"behavior": f"transformers:{behavior}", "reference": f"transformers:{reference}"}
    report = probed(tmp_path / "run", model=f"demo:{model}", **sides)
    assert not [stage for stage in inside(report).stages if stage.stands_out]
    assert codes(report)[:2] == ["first_difference", "rounding"]
    assert not list((tmp_path / "run" / "runs").glob("*/internals-*")), "what was reduced is deleted"


@pytest.mark.slow
def test_the_same_side_twice_is_identical(tmp_path: Path, other: None) -> None:
    spec = "transformers:dtype=float32"
    report = probed(tmp_path / "run", model="demo:dense", behavior=spec, reference=spec)
    assert codes(report) == ["identical"] and inside(report).first_difference is None
    assert "the same values" in report.finding.sentence and report.verdict == "none"


@pytest.mark.slow
def test_every_format_shows_it_and_a_gate_reads_it(tmp_path: Path, other: None) -> None:
    sides = {"behavior": "transformers:dtype=bfloat16", "reference": "transformers:dtype=float32"}
    gate = {"fail_on": ["probe.internals.stages.layers_0_mlp.created > 1e-6"]}
    report = probed(tmp_path / "run", ("sequences=3,tokens=16",), model="demo:moe", gate=gate, **sides)
    assert report.verdict == "fail"
    found = inside(report)
    assert (found.sequences, found.tokens) == (3, 48)
    path = "probe.internals.stages.logits.error.high"
    check_path(path)
    assert figure_at(report, path).value == found.stage("logits").error.high
    for name in ("json", "html", "markdown", "csv"):
        text = render(report, name)
        assert "layers.1.mlp" in text.replace("&#46;", "."), name
        assert name != "html" or 'aria-labelledby="internals-title' in text
    assert inside(Report.model_validate_json(report.to_json())) == found


def test_values_that_the_probe_does_not_know() -> None:
    asked = settings(behavior="transformers", reference="transformers")
    for value in ("tokens", "tokens=0", "tokens=-1", "layers=3", "sequences=x"):
        with pytest.raises(ConfigError, match="does not know the value"):
            plan_probe("layers", asked, (value,))
    plan = plan_probe("layers", asked, ("sequences=3,tokens=9",)).plan
    assert [look.extent for look in plan.looks] == [(3, 9)] * 3
    assert "at most 3 sequences of 9 tokens" in plan.factor


def test_an_engine_that_shows_no_inside_is_refused() -> None:
    for side in ("behavior", "reference"):
        with pytest.raises(CapabilityError, match="synthetic does not show what is inside the model"):
            plan_probe(
                "layers", settings(**{"behavior": "transformers", "reference": "transformers", side: "synthetic"})
            )


@pytest.mark.slow
def test_of_another_model_the_rest_is_compared(tmp_path: Path, other: None) -> None:
    save_model(tmp_path / "model")
    save_model(tmp_path / "other", hidden_size=48, num_hidden_layers=3)
    report = planted(tmp_path, "float32")
    found = inside(report)
    assert [stage.stage for stage in found.stages] == ["logits"]
    reasons = {each.stage: each.reason for each in found.unmatched}
    assert reasons["layers.0.mlp"] == "the behaviour's has 48 values, the reference's 32"
    assert reasons["layers.2.mlp"] == "only the behaviour has such a stage"
    assert codes(report) == ["first_difference", "cannot_tell", "not_compared"]


@pytest.mark.engines
@pytest.mark.slow
@pytest.mark.parametrize("spec", ["vllm==0.32.0", "sglang==0.5.23"])
def test_engines_against_transformers(spec: str, tmp_path: Path) -> None:
    name, _, version = spec.partition("==")
    if find(name, version) is None:
        pytest.skip(f"no environment: mismatchscope env create {spec}")
    report = probed(tmp_path / "run", model="demo:moe", behavior=f"{spec}:dtype=bfloat16", reference="transformers")
    found = inside(report)
    assert found.stages[0].stage == "embedding" and found.stages[0].same == 1
    assert found.first_difference is not None and found.first_difference.startswith("layers.0.attention")
    created = [stage.times_rounding for stage in found.stages if stage.times_rounding]
    assert 0.2 < max(created) < 4, "kernels of their own, and no fault"
    assert not [stage.stage for stage in found.stages if stage.stands_out == "beyond_rounding"]
    assert found.unmatched == []
