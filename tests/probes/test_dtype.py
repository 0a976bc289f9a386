"""Precision: every two values, their errors against a third party, and what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mismatchscope.api.comparing import open_trace
from mismatchscope.demo import model_path
from mismatchscope.engines.spec import parse_spec
from mismatchscope.errors import ConfigError
from mismatchscope.measures.results import Alpha, Interval, ThirdParty
from mismatchscope.probes import dtype, registry
from mismatchscope.probes.dtype import PROBE, THIRD, matrix
from mismatchscope.probes.options import changed, parse_value
from mismatchscope.probes.plan import Plan, Probe, Question, Setting
from mismatchscope.probes.run_probe import plan_probe
from mismatchscope.reports.document import Report
from mismatchscope.reports.pair_fields import ProbeCell
from tests.support.probe_runs import probed, settings

EPSILON = 0.02
ENOUGH: dict[str, Any] = {"limit": 16, "sampling": {"samples": 4, "max_new_tokens": 32}}


def found_in(report: Report) -> dict[tuple[str, str, str], ProbeCell]:
    assert report.probe is not None
    return {(cell.path, cell.setting, cell.against): cell for cell in report.probe.cells}


def said(report: Report) -> dict[str, str]:
    assert report.probe is not None
    return {each.code: each.sentence for each in report.probe.conclusion}


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Registers the matrix of some SPECs, of which `THIRD` is the exact policy."""

    def register(**specs: str) -> str:
        def plan(question: Question) -> Plan:
            third, *others = (
                Setting(label, "reference", parse_spec(text), "prefill")
                for label, text in {THIRD: "synthetic", **specs}.items()
            )
            return Plan("the error", list(matrix([third, *others], third)), keys=("epsilon",))

        monkeypatch.setattr(dtype, "PLANTED", Probe(plan, PROBE.conclude), raising=False)
        entry = registry.Entry("mismatchscope.probes.dtype:PLANTED", "planted?", "planted")
        monkeypatch.setitem(registry.PROBES, "planted", entry)
        return "planted"

    return register


@pytest.mark.slow
def test_planted_errors_are_sized_and_related(tmp_path: Path, planted: Any) -> None:
    name = planted(
        small=f"synthetic:epsilon={EPSILON},variant=1",
        other=f"synthetic:epsilon={EPSILON},variant=2",
        double=f"synthetic:epsilon={2 * EPSILON},variant=1",
    )
    report, _ = probed(name, tmp_path / "run", **ENOUGH)
    found = {(setting, against): cell.errors for (_, setting, against), cell in found_in(report).items()}
    independent, alike = found["other", "small"], found["double", "small"]
    assert independent is not None and alike is not None
    for interval, truth in (
        (independent.ratio, 1.0),
        (independent.correlation, 0.0),
        (independent.quadrature, 1.0),
    ):
        assert interval.low is not None and interval.high is not None
        assert interval.low < truth < interval.high and interval.high - interval.low < 0.5
    assert alike.ratio.value == pytest.approx(2, rel=0.01), "the same logit errors, twice as large"
    assert alike.correlation.value == pytest.approx(1, abs=0.01)
    assert alike.quadrature.value == pytest.approx(1 / 5, rel=0.05)
    farthest, nearest = said(report)["farthest_from_float32"], said(report)["nearest_to_float32"]
    assert "is double, " in farthest and "may be as well" not in farthest
    assert {"small", "other"} == {nearest.split(" is ")[1].split(",")[0], nearest.split("; ")[1].split()[0]}


@pytest.mark.slow
def test_a_policy_without_an_error_is_said_to_have_none(tmp_path: Path, planted: Any) -> None:
    name = planted(exact="synthetic:slow=0.0", far=f"synthetic:epsilon={EPSILON}")
    report, _ = probed(name, tmp_path / "run")
    assert said(report)["same_bits"] == f"synthetic prefill has the same bits with exact and {THIRD}."
    cell = found_in(report)["prefill", "far", "exact"]
    assert cell.errors is None and cell.third == THIRD and cell.pair is not None and not cell.pair.identical


@pytest.mark.slow
def test_root_mean_square_is_that_of_the_log_ratios(tmp_path: Path, planted: Any) -> None:
    name = planted(far=f"synthetic:epsilon={EPSILON}")
    report, _ = probed(name, tmp_path / "run")
    traces = [open_trace(path.parent) for path in (tmp_path / "run" / "runs").glob("*/manifest.json")]
    logprobs = {
        trace.manifest.settings["epsilon"]: trace.tokens()["logprob"].to_numpy()
        for trace in traces
        if trace.manifest.role == "reference"
    }
    [cell] = found_in(report).values()
    assert cell.pair is not None and cell.pair.rms_log_ratio is not None
    expected = np.sqrt(np.mean((logprobs[EPSILON] - logprobs[0.0]) ** 2))
    assert cell.pair.rms_log_ratio.value == pytest.approx(expected)
    assert cell.pair.rms_log_ratio.low <= expected <= cell.pair.rms_log_ratio.high


@pytest.mark.slow
def test_a_refused_setting_costs_no_other(tmp_path: Path, planted: Any) -> None:
    name = planted(bad="synthetic:epsilon=-1", good=f"synthetic:epsilon={EPSILON}")
    report, _ = probed(name, tmp_path / "run")
    found = found_in(report)
    assert found["prefill", "bad", THIRD].status == "failed" and "epsilon" in str(
        found["prefill", "bad", THIRD].reason
    )
    between = found["prefill", "good", "bad"]
    assert between.status == "failed" and str(between.reason).startswith("bad: ")
    assert found["prefill", "good", THIRD].status == "measured" and report.verdict == "inconclusive"


def test_engines_without_a_precision_are_told_so() -> None:
    with pytest.raises(ConfigError, match="no precision"):
        plan_probe("dtype", settings())


def planned(behavior: str, reference: str, *values: str) -> Plan:
    return PROBE.plan(Question(parse_spec(behavior), parse_spec(reference), 8, values))


def pairs(plan: Plan) -> list[tuple[str, str, str, str]]:
    return [
        (each.setting.label, each.setting.path, each.against.label, each.against.path) for each in plan.comparisons
    ]


def test_every_two_values_and_each_against_the_third_party() -> None:
    plan = planned("transformers", "transformers", "bfloat16,float16")
    assert pairs(plan) == [
        ("bfloat16", "decode", "bfloat16", "prefill"),
        ("float16", "decode", "float16", "prefill"),
        ("bfloat16", "decode", THIRD, "prefill"),
        ("float32", "decode", THIRD, "prefill"),
        ("float16", "decode", THIRD, "prefill"),
        ("float32", "decode", "bfloat16", "decode"),
        ("float16", "decode", "bfloat16", "decode"),
        ("float16", "decode", "float32", "decode"),
        ("bfloat16", "prefill", THIRD, "prefill"),
        ("float16", "prefill", THIRD, "prefill"),
        ("float16", "prefill", "bfloat16", "prefill"),
    ]
    assert {str(setting.spec) for setting in plan.settings} == {
        "transformers",  # is bfloat16
        "transformers:dtype=float32",
        "transformers:dtype=float16",
    }
    assert all(each.third is None or each.third.label == THIRD for each in plan.comparisons)


@pytest.mark.parametrize("model", ["dense", "moe"])
def test_a_router_in_float32_is_tried_where_there_is_one(model: str) -> None:
    sides = parse_spec("transformers"), parse_spec("transformers")
    plan = PROBE.plan(Question(*sides, 8, model=str(model_path(model))))
    labels = {setting.label for setting in plan.settings}
    assert ("bfloat16+router=float32" in labels) == (model == "moe") and "router" in plan.keys


def test_a_side_that_is_float32_is_the_third_party_itself() -> None:
    plan = planned("vllm", "transformers:dtype=float32,lm_head=float32", "bfloat16")
    assert ("as given", "decode", THIRD, "prefill") in pairs(plan), "the two sides as they are"
    [third] = {each.third for each in plan.comparisons if each.third is not None}
    assert str(third.spec) == "transformers:dtype=float32,lm_head=float32"


def test_values_go_to_the_engines_that_have_such_options() -> None:
    plan = planned("vllm", "transformers", "quantization=fp8", "kv_cache_dtype=fp8", "bfloat16+lm_head=float32")
    labels = {(each.setting.spec.name, each.setting.label) for each in plan.comparisons}
    assert ("vllm", "quantization=fp8") in labels and ("transformers", "quantization=fp8") not in labels
    assert {("vllm", "kv_cache_dtype=fp8"), ("transformers", "kv_cache_dtype=fp8")} <= labels, "both have it"
    assert ("transformers", "bfloat16+lm_head=float32") in labels and "quantization" in plan.keys


def test_what_no_engine_has_is_for_the_engines_to_refuse() -> None:
    plan = planned("transformers", "transformers", "nonsense=1")
    assert "transformers:nonsense=1" in {str(setting.spec) for setting in plan.settings}


def test_an_argument_of_one_engine_goes_to_that_engine_alone() -> None:
    plan = planned("vllm", "transformers", 'compilation_config={"custom_ops":["-rms_norm"]}')
    changed_specs = {str(each.spec) for each in plan.settings if "compilation_config" in str(each.spec)}
    assert {spec.partition(":")[0] for spec in changed_specs} == {"vllm"}


@pytest.mark.parametrize(
    ("spec", "options", "expected"),
    [
        ("transformers", {"dtype": "bfloat16"}, "transformers"),
        ("transformers", {"dtype": "float16"}, "transformers:dtype=float16"),
        ("transformers:dtype=float16", {"dtype": "bfloat16"}, "transformers:dtype=bfloat16"),
        ("transformers:attn=eager", {"attn": "eager", "compile": "false"}, "transformers:attn=eager"),
        ("transformers", {"dtype": "float8"}, "transformers:dtype=float8"),
    ],
)
def test_a_value_that_changes_nothing_is_the_spec_as_given(
    spec: str, options: dict[str, str], expected: str
) -> None:
    assert str(changed(parse_spec(spec), options)) == expected


def test_a_word_is_a_value_of_the_probe_and_nothing_else_is() -> None:
    assert parse_value("bfloat16+lm_head=float32", "dtype") == {"dtype": "bfloat16", "lm_head": "float32"}
    with pytest.raises(ConfigError, match="eager"):
        parse_value("eager")


def errors(**changes: Interval) -> ThirdParty:
    figures = {name: Interval(1.0, 0.9, 1.1) for name in ("ratio", "correlation", "quadrature")}
    return ThirdParty(0.2, 0.1, **figures | changes)


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (Interval(2.0, 1.5, 2.5), "a is 2.00 [1.50, 2.50] times as far from float32 as b."),
        (Interval(0.5, 0.4, 0.625), "b is 2.00 [1.60, 2.50] times as far from float32 as a."),
        (Interval(1.2, 0.9, 1.5), "cannot be told"),
        (Interval(1.2), "cannot be told"),
    ],
)
def test_which_side_is_farther_is_said_where_it_is_known(ratio: Interval, expected: str) -> None:
    assert expected in dtype._which_is_farther("a", "b", errors(ratio=ratio))


@pytest.mark.parametrize(
    ("quadrature", "expected"),
    [
        (Interval(1.0, 0.9, 1.1), "add in quadrature"),
        (Interval(0.4, 0.3, 0.5), "partly the same"),
        (Interval(1.6, 1.4, 1.8), "partly opposed"),
        (Interval(0.9, 0.5, 1.3), "cannot be told"),
        (Interval(1.0), "cannot be told"),
    ],
)
def test_how_errors_add_is_said_where_it_is_known(quadrature: Interval, expected: str) -> None:
    assert expected in dtype._how_errors_add(errors(quadrature=quadrature))


@pytest.mark.parametrize(
    ("largest", "upper", "code"),
    [
        (0.02, 0.02, "beyond_rounded_logits"),
        (0.001, 0.001, "within_rounded_logits"),
        (0.001, 0.02, "rounded_logits_unknown"),
        (0.001, None, "rounded_logits_unknown"),
        (None, None, "rounded_logits_unknown"),
    ],
)
def test_whether_rounded_logits_can_do_it_is_said_of_a_known_maximum(
    largest: float | None, upper: float | None, code: str
) -> None:
    """Of top-k evidence the largest TV that was seen is a lower end."""
    found = dtype._against_rounding("it", 0.01, Alpha(largest, Interval(0.001, 0.0005, 0.002), upper))
    assert found.code == code
    assert ("none was larger" in found.sentence) == (code == "within_rounded_logits")


@pytest.mark.slow
def test_a_bfloat16_head_is_found(tmp_path: Path) -> None:
    """Two engines for real: in bfloat16 most of the error is the head's, and float32 agrees with itself."""
    report, _ = probed(
        "dtype",
        tmp_path / "run",
        values=("bfloat16", "bfloat16+lm_head=float32", "attn=flash_attention_2"),
        behavior="transformers",
        reference="transformers",
        model="demo:dense",
        limit=4,
        sampling={"samples": 1, "max_new_tokens": 16},
    )
    found = found_in(report)
    bfloat16, head, float32 = (
        found["decode", value, THIRD].pair for value in ("bfloat16", "bfloat16+lm_head=float32", "float32")
    )
    assert bfloat16 is not None and head is not None and float32 is not None
    assert 2 * head.alpha.mean.value < bfloat16.alpha.mean.value, "the head makes more than half of it"
    assert float32.alpha.observed_max < 1e-4 < bfloat16.alpha.observed_max
    assert found["decode", "bfloat16", THIRD].rounding_floor > bfloat16.alpha.observed_max
    assert found["decode", "bfloat16+lm_head=float32", THIRD].effective["lm_head"] == "float32"
    related = found["prefill", "bfloat16+lm_head=float32", "bfloat16"].errors
    assert related is not None and related.ratio.value < 0.5
    refused = found["decode", "attn=flash_attention_2", THIRD]
    assert (
        refused.status == "failed" and "FlashAttention2" in str(refused.reason) and report.verdict == "inconclusive"
    )
