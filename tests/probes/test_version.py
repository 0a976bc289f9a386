"""The probe `version`: engines whose distance from the trainer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer
from probe_runs import probed, settings

from mismatchscope.environments import find
from mismatchscope.errors import ConfigError, SpecError
from mismatchscope.probes.run_probe import plan_probe
from mismatchscope.reports.document import Report
from mismatchscope.reports.figure_paths import figure_at
from mismatchscope.reports.pair_fields import ProbeCell

MANY: dict[str, Any] = {
    "behavior": "synthetic:tv=0.1",
    "reference": "synthetic",
    "limit": 12,
    "sampling": {"samples": 2, "max_new_tokens": 24},
}
CLOSER, FURTHER, SAME, LIKE = "tv=0.05", "tv=0.2,variant=3", "batch_size=5", "variant=2"


def spec(changes: str) -> str:
    return f"synthetic:{changes}" if "tv=" in changes else f"synthetic:tv=0.1,{changes}"


def cells(report: Report) -> dict[str, ProbeCell]:
    assert report.probe is not None
    return {cell.setting: cell for cell in report.probe.cells}


def sentences(report: Report) -> dict[str, str]:
    assert report.probe is not None
    return {each.code: each.sentence for each in report.probe.conclusion}


def mean(cell: ProbeCell) -> float:
    assert cell.pair is not None and cell.pair.alpha.mean.value is not None
    return cell.pair.alpha.mean.value


@pytest.mark.slow
def test_each_is_told_from_the_behaviour_as_far_as_it_can_be(tmp_path: Path) -> None:
    report, started = probed(
        "version", tmp_path / "run", values=tuple(map(spec, (FURTHER, SAME, LIKE, CLOSER))), **MANY
    )
    said = sentences(report)
    assert set(said) == {"behavior", "closer", "further", "same", "not_told"} and report.verdict == "none"
    assert said["behavior"].startswith("synthetic:tv=0.1 against the trainer: ") and said["behavior"] == (
        report.finding.sentence
    )
    assert said["closer"].startswith(f"{CLOSER} is closer") and said["further"].startswith(f"{FURTHER} is further")
    assert said["same"].endswith(f": {SAME}.") and said["not_told"].endswith(f": {LIKE}.")
    assert len(started) == 6, "each engine once, and the trainer"
    means = [mean(cell) for cell in cells(report).values()]
    assert means == sorted(means) and next(iter(cells(report))) == CLOSER
    usual = mean(cells(report)["synthetic"])
    assert mean(cells(report)[CLOSER]) == pytest.approx(usual / 2, rel=1e-5), "TV(s) is tv u_s"
    for setting, cell in cells(report).items():
        if setting != "synthetic":
            assert cell.differences[0].tv.value == pytest.approx(mean(cell) - usual, abs=1e-12)


@pytest.mark.slow
def test_what_is_missing_is_said_and_the_rest_is_measured(tmp_path: Path) -> None:
    report, _ = probed("version", tmp_path / "run", values=("9.9.9", "vllm==0.1.0", spec(CLOSER)), **MANY)
    found = cells(report)
    version, environment = found["synthetic==9.9.9"], found["vllm==0.1.0"]
    assert version.status == "failed" and "not 9.9.9" in str(version.reason)
    assert environment.status == "failed" and "no environment of vllm 0.1.0" in str(environment.reason)
    assert list(found)[-2:] == ["synthetic==9.9.9", "vllm==0.1.0"]
    assert found[CLOSER].status == "measured" and "closer" in sentences(report)
    assert report.verdict == "inconclusive"


@pytest.mark.slow
def test_where_the_behaviour_cannot_be_compared_nothing_is_held_against_it(tmp_path: Path) -> None:
    """Its vocabulary is not the trainer's."""
    asked = MANY | {"behavior": "synthetic:tv=0.1,vocabulary=32", "reference": "synthetic:vocabulary=64"}
    report, _ = probed("version", tmp_path / "run", values=("synthetic:tv=0.05,vocabulary=64",), **asked)
    assert set(sentences(report)) == {"no_behavior"} and report.verdict == "inconclusive"


def test_each_is_named_by_what_differs_from_the_behaviour() -> None:
    sides = {"behavior": "vllm==0.32.0:dtype=bfloat16,enforce_eager=true"}
    values = (
        "v0.27.1",
        "vllm==0.32.0:enforce_eager=true,dtype=float32",
        "vllm==0.32.0:enforce_eager=true,dtype=bfloat16",
        "vllm==0.27.1:enforce_eager=true",
        "sglang:dtype=bfloat16",
    )
    plan = plan_probe("version", settings(**sides), values).plan
    settings_of = [comparison.setting for comparison in plan.comparisons]
    assert [each.label for each in settings_of] == [
        "vllm==0.32.0",
        "vllm==0.27.1",
        "dtype=float32",
        "vllm==0.27.1:default dtype",
        "sglang",
    ]
    assert str(settings_of[1].spec) == "vllm==0.27.1:dtype=bfloat16,enforce_eager=true"


def test_one_path_for_all_that_all_have(tmp_path: Path) -> None:
    with FakeServer("vllm") as server:
        plan = plan_probe("version", settings(), (spec(CLOSER), f"vllm@{server.url}")).plan
    assert {comparison.setting.path for comparison in plan.comparisons} == {"prefill"}
    assert {each.setting.path for each in plan_probe("version", settings(), (spec(CLOSER),)).plan.comparisons} == {
        "decode"
    }


@pytest.mark.slow
def test_differences_can_be_gated(tmp_path: Path) -> None:
    gate = {"fail_on": ["probe.cells.tv_0_2_variant_3.differences.synthetic_against_trainer.tv > 0"]}
    report, _ = probed("version", tmp_path / "run", values=(spec(FURTHER),), gate=gate, **MANY)
    assert report.verdict == "fail"
    assert figure_at(report, gate["fail_on"][0].split(" ")[0]).low > 0


@pytest.mark.parametrize(
    ("values", "behavior", "error"),
    [
        ((), "synthetic", ConfigError),
        (("synthetic",), "synthetic", ConfigError),
        (("0.27.1",), "vllm@http://127.0.0.1:1", ConfigError),
        (("nothing==1",), "synthetic", SpecError),
        (("a b",), "synthetic", SpecError),
    ],
)
def test_values_that_name_no_other_engine_are_refused(
    values: tuple[str, ...], behavior: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        plan_probe("version", settings(behavior=behavior), values)


@pytest.mark.slow
def test_a_real_model_in_two_precisions(tmp_path: Path) -> None:
    asked = {
        "model": "demo:dense",
        "behavior": "transformers:dtype=bfloat16",
        "reference": "transformers:dtype=float32",
    }
    small = {"limit": 4, "sampling": {"samples": 1, "max_new_tokens": 16}}
    report, _ = probed("version", tmp_path / "run", values=("transformers:dtype=float32",), **asked, **small)
    assert list(cells(report)) == ["dtype=float32", "transformers"]
    assert "closer" in sentences(report)


@pytest.mark.slow
@pytest.mark.engines
@pytest.mark.usefixtures("forked_engines")
def test_two_versions_of_vllm(tmp_path: Path) -> None:
    for version in ("0.32.0", "0.27.1"):
        if find("vllm", version) is None:
            pytest.skip(f"no environment: mismatchscope env create vllm=={version}")
    behavior = "vllm==0.32.0:dtype=bfloat16,enforce_eager=true,kv_cache_memory_bytes=268435456"
    asked = {"model": "demo:dense", "behavior": behavior, "reference": "transformers:dtype=bfloat16"}
    small = {"limit": 4, "sampling": {"samples": 1, "max_new_tokens": 16}}
    report, _ = probed("version", tmp_path / "run", values=("0.27.1",), **asked, **small)
    assert set(cells(report)) == {"vllm==0.32.0", "vllm==0.27.1"} and report.verdict == "none"
    assert all(mean(cell) > 0 for cell in cells(report).values())
