"""The probe `routing`: faults of routing that were planted in one side of a tiny mixture of experts."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import run_here
from probe_runs import codes, probed, settings
from tiny_models import save_architecture, save_model, save_tokenizer

from mismatchscope.collection.collector import Collector
from mismatchscope.engines import registry
from mismatchscope.environments import find
from mismatchscope.errors import CapabilityError, ConfigError
from mismatchscope.measures.results import Alpha, Interval
from mismatchscope.probes import routing_conclusions as said
from mismatchscope.probes import run_probe as running
from mismatchscope.probes.run_probe import plan_probe
from mismatchscope.reports.document import Report
from mismatchscope.reports.figure_paths import check_path, figure_at
from mismatchscope.reports.pair_fields import CellDifference, CellRatio, PairSummary, ProbeCell

MIXTURE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True}
SAMPLER, DRAWN = "sampler prefill", "sampler as drawn"


def cells(report: Report, against: str = SAMPLER) -> tuple[ProbeCell, ProbeCell, ProbeCell]:
    """The trainer's own forward, with the sampler's ids, and with its weights too."""
    assert report.probe is not None
    own, ids, both = (cell for cell in report.probe.cells if cell.against == against)
    assert [own.conditioned_on, ids.conditioned_on, both.conditioned_on] == [
        None,
        "expert_ids of the sampler",
        "expert_ids, expert_weights of the sampler",
    ]
    return own, ids, both


def mean(cell: ProbeCell) -> float:
    assert cell.pair is not None and cell.pair.alpha.mean.value is not None
    return cell.pair.alpha.mean.value


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine `other`, and no process for any engine."""
    monkeypatch.setitem(registry.ENGINES, "other", "other_checkpoint:OtherCheckpoint")
    monkeypatch.setattr(running, "Collector", functools.partial(Collector, run=run_here))


def change_weights(directory: Path, change: Callable[[Any], None]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory)
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in model.model.layers:
            change(layer.mlp)
    model.save_pretrained(directory)


def disturb_router(mlp: Any) -> None:
    import torch

    mlp.gate.weight.add_(0.3 * mlp.gate.weight.std() * torch.randn_like(mlp.gate.weight))


def renumber(mlp: Any) -> None:
    """The same function with other numbers of its experts."""
    order = [1, 0, 3, 2, 5, 4, 7, 6]
    for parameter in (mlp.gate.weight, mlp.experts.gate_up_proj, mlp.experts.down_proj):
        parameter.copy_(parameter[order])


def swap_experts(mlp: Any) -> None:
    """Their weights alone: the router sends tokens to the wrong ones."""
    for parameter in (mlp.experts.gate_up_proj, mlp.experts.down_proj):
        parameter.copy_(parameter[[1, 0, 2, 3, 4, 5, 6, 7]])


def change_attention(mlp: Any) -> None:
    mlp.experts.down_proj.mul_(1.2)


def planted(directory: Path, change: Callable[[Any], None] | None, reference: str = "", **asked: Any) -> Report:
    """The probe of two tiny mixtures, the trainer's one changed."""
    for each in ("model", "other"):
        save_architecture(directory / each, "Qwen3Moe", **MIXTURE)
        save_tokenizer(directory / each)
    if change is not None:
        change_weights(directory / "other", change)
    rng = np.random.default_rng(1)
    prompts = [{"prompt_token_ids": rng.integers(4, 60, rng.integers(6, 20)).tolist()} for _ in range(8)]
    (directory / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    sides = {
        "behavior": "transformers:dtype=float32",
        "reference": reference or f"other:dtype=float32,checkpoint={directory / 'other'}",
    }
    common = {"model": str(directory / "model"), "prompts": directory / "prompts.jsonl", "limit": 8}
    report, _ = probed(
        "routing", directory / "run", **common | sides | {"sampling": {"max_new_tokens": 16}} | asked
    )
    return report


@pytest.mark.slow
def test_routing_that_is_all_the_gap_is_closed_by_ids_with_weights_and_not_by_ids(
    tmp_path: Path, other: None
) -> None:
    report = planted(tmp_path, disturb_router)
    own, ids, both = cells(report)
    assert both.pair.identical and mean(both) == 0.0, "routing is the only difference"
    assert 0.0 < mean(ids) < mean(own)
    assert both.ratio.value.value == 0.0
    routing = report.probe.routing
    assert 0.1 < routing.decisions.value < 0.9 and routing.tv_flipped.value > routing.tv_same.value
    assert codes(report)[:2] == ["all_routing", "weights_matter"]
    assert {"flips", "routing_conditioned"} <= set(codes(report))
    assert report.verdict == "none" and report.alpha1.mean.value == mean(own), "the report is of the trainer's own"
    for path in ("probe.routing.flipped", "probe.routing.layers.layer_1.same_set", "probe.routing.tv_flipped"):
        check_path(path)
        assert figure_at(report, path).value > 0
    check_path("probe.cells.trainer_ids_replayed.pair.alpha.mean")


@pytest.mark.slow
def test_the_same_models_have_no_gap_and_no_flip(tmp_path: Path, other: None) -> None:
    report = planted(tmp_path, None)
    assert all(cell.pair.identical for cell in cells(report))
    assert codes(report)[0] == "no_gap" and "no_flips" in codes(report)
    assert all(layer.same_slots.value == 1.0 for layer in report.probe.routing.layers)


@pytest.mark.slow
def test_renumbered_experts_are_no_flips(tmp_path: Path, other: None) -> None:
    report = planted(tmp_path, renumber)
    own, ids, _ = cells(report)
    assert mean(own) < 1e-5 < mean(ids), "by their numbers the trainer gets other experts"
    assert "renumbered" in codes(report) and codes(report)[0] == "larger"
    assert all(layer.renumbered for layer in report.probe.routing.layers)


@pytest.mark.slow
@pytest.mark.parametrize("change", [swap_experts, change_attention])
def test_a_gap_that_is_not_of_routing_stays_with_the_samplers_experts(
    change: Callable[[Any], None], tmp_path: Path, other: None
) -> None:
    report = planted(tmp_path, change)
    own, _, both = cells(report)
    assert mean(both) > 0.5 * mean(own)
    assert codes(report)[0] != "all_routing" and not report.probe.routing.layers[0].renumbered
    assert report.probe.routing.layers[0].same_set.value == 1.0, "what is before the first router is the same"


@pytest.mark.slow
def test_with_less_evidence_the_share_is_told_of_what_was_seen(tmp_path: Path, other: None) -> None:
    report = planted(tmp_path, disturb_router, evidence="topk:4")
    _, _, both = cells(report)
    assert both.pair.identical and report.probe.routing.tv_flipped.value is not None


def cell(setting: str, ends: tuple[float, float, float], *less: tuple[float, float, float]) -> ProbeCell:
    """Against the sampler's prefill, with this mean TV and these differences."""
    mean_tv = Interval(*ends)
    pair = PairSummary(Alpha(max(ends), mean_tv), identical=max(ends) == 0.0)
    differences = tuple(CellDifference("another cell", Interval(*each)) for each in less)
    ratio = CellRatio("own", "tv", Interval(0.2, 0.1, 0.3))
    return ProbeCell(setting, SAMPLER, "transformers", "prefill", pair=pair, differences=differences, ratio=ratio)


OWN_CELL = cell(said.OWN, (0.02, 0.018, 0.022))
TOLD: dict[str, tuple[tuple[float, float, float], tuple[float, float, float], str]] = {
    "all_routing": ((0.0, 0.0, 0.0), (-0.02, -0.022, -0.018), "All of the gap between sampler prefill and trainer"),
    "routing": (
        (0.004, 0.003, 0.005),
        (-0.016, -0.018, -0.014),
        "routing is 80 % [70 %, 90 %]: with the sampler's",
    ),
    "larger": ((0.03, 0.02, 0.04), (0.01, 0.005, 0.015), "do not close the gap"),
    "little": ((0.02, 0.018, 0.022), (0.0, -0.0004, 0.0005), "Routing is at most 2 % of the gap"),
    "cannot_tell": ((0.015, 0.01, 0.02), (-0.005, -0.015, 0.004), "cannot be told"),
}


@pytest.mark.parametrize("code", TOLD)
def test_a_share_is_said_as_far_as_the_paired_difference_tells(code: str) -> None:
    ends, difference, sentence = TOLD[code]
    both = cell(said.BOTH, ends, difference, (0.0, -0.1, 0.1))
    first, *rest = said.conclusions([OWN_CELL, both], None, "nobody looked")
    assert first.code == code and sentence in first.sentence
    assert [each.code for each in rest] == ["no_routes"] and "nobody looked" in rest[0].sentence


@pytest.mark.parametrize(
    ("beyond", "alone", "code"),
    [
        ((-0.004, -0.005, -0.003), (-0.012, -0.013, -0.011), "weights_matter"),
        ((0.004, 0.003, 0.005), (-0.02, -0.03, -0.01), "weights_add"),
        ((0.0, -0.001, 0.001), (-0.016, -0.018, -0.014), "ids_matter"),
        ((0.0, -0.001, 0.001), (0.0, -0.001, 0.001), "ids_not_told"),
    ],
)
def test_what_weights_do_beyond_ids_is_said_as_far_as_it_is_told(
    beyond: tuple[float, float, float], alone: tuple[float, float, float], code: str
) -> None:
    ids = cell(said.IDS, (0.008, 0.007, 0.009), alone)
    both = cell(said.BOTH, (0.004, 0.003, 0.005), (-0.016, -0.018, -0.014), beyond)
    assert said.conclusions([OWN_CELL, ids, both], None, "")[1].code == code


def test_without_a_replay_or_a_gap_no_share_is_said() -> None:
    [alone, _] = said.conclusions([OWN_CELL], None, "")
    assert alone.code == "no_replay" and "not known without a replay" in alone.sentence
    [nothing, _] = said.conclusions([cell(said.OWN, (0.0, 0.0, 0.0))], None, "")
    assert nothing.code == "no_gap"
    failed = replace(OWN_CELL, pair=None, status="failed")
    assert said.conclusions([failed], None, "")[0].code == "cannot_tell"


def test_a_compiled_engine_reads_uncompiled_and_that_is_said() -> None:
    asked = settings(model="demo:moe", behavior="vllm:enforce_eager=false", reference="transformers:compile=true")
    plan = plan_probe("routing", asked).plan
    assert "sampler reads as vllm:enforce_eager=true" in plan.factor
    assert "trainer reads as transformers:compile=false" in plan.factor


@pytest.mark.slow
def test_bfloat16_flips_near_ties(tmp_path: Path) -> None:
    small = {"model": "demo:moe", "limit": 4, "sampling": {"max_new_tokens": 24}}
    sides = {"behavior": "transformers:dtype=float32", "reference": "transformers:dtype=bfloat16"}
    report, started = probed("routing", tmp_path / "run", **small, **sides)
    routing = report.probe.routing
    assert started == ["transformers", "transformers"], "each engine is loaded once"
    assert (routing.experts, routing.chosen, len(routing.layers)) == (8, 2, 4)
    assert routing.decisions.value < 0.1
    assert routing.margin_flipped is None or routing.margin_flipped < 0.1 * routing.margin_same
    assert mean(cells(report)[0]) > 0 and mean(cells(report, DRAWN)[0]) > 0


def test_a_trainer_that_cannot_replay_still_shows_its_experts() -> None:
    plan = plan_probe("routing", settings(model="demo:moe", behavior="sglang", reference="vllm")).plan
    assert [setting.label for setting in plan.settings if setting.side == "reference"] == [said.OWN]
    assert [look.spec.name for look in plan.looks] == ["sglang", "vllm"]


def test_a_dense_model_routes_nothing(tmp_path: Path) -> None:
    save_model(tmp_path / "dense")
    for model in (str(tmp_path / "dense"), "demo:dense"):
        with pytest.raises(ConfigError, match="The model is dense"):
            plan_probe("routing", settings(model=model, behavior="transformers", reference="transformers"))


def test_engines_that_show_no_experts_and_values_are_refused() -> None:
    sides = {"behavior": "transformers", "reference": "transformers", "model": "demo:moe"}
    with pytest.raises(CapabilityError, match="does not show which experts"):
        plan_probe("routing", settings(**sides | {"behavior": "synthetic"}))
    with pytest.raises(ConfigError, match="no values"):
        plan_probe("routing", settings(**sides), ("2",))


@pytest.mark.slow
@pytest.mark.engines
@pytest.mark.parametrize(
    ("spec", "options"), [("vllm", "enforce_eager=true,kv_cache_memory_bytes=268435456"), ("sglang", "")]
)
def test_in_float32_a_real_engine_chooses_as_the_trainer_does(tmp_path: Path, spec: str, options: str) -> None:
    if find(spec) is None:
        pytest.skip(f"no environment: mismatchscope env create {spec}")
    small = {"model": "demo:moe", "limit": 2, "sampling": {"samples": 1, "max_new_tokens": 12}}
    behavior = f"{spec}:dtype=float32" + (f",{options}" if options else "")
    report, _ = probed(
        "routing", tmp_path / "run", behavior=behavior, reference="transformers:dtype=float32", **small
    )
    routing = report.probe.routing
    assert routing.behavior == f"{spec} prefill" and (routing.experts, routing.chosen) == (8, 2)
    assert routing.flipped.value < 0.1, "float32 leaves few ties to break"
    for layer in routing.layers:
        assert layer.weight_difference.value < 1e-4 and layer.logit_difference < 1e-3 < layer.margin_same
    own, ids, both = cells(report)
    assert mean(own) < 1e-3 and mean(ids) < 1e-3 and mean(both) < 1e-3
    assert report.verdict == "none"
