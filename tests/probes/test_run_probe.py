"""Probes from their question to their report, on an engine whose every divergence is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from probe_runs import NOISE, NOISY, codes, probed, settings

from mismatchscope.composition import BatchComposition
from mismatchscope.engines.spec import parse_spec
from mismatchscope.errors import ConfigError, MismatchScopeError, SpecError, WorkerError
from mismatchscope.probes import registry
from mismatchscope.probes.completions import first_divergence
from mismatchscope.probes.dry_run import plan_text
from mismatchscope.probes.effective import what_was_ignored
from mismatchscope.probes.plan import Comparison, Plan, Probe, Question, Setting
from mismatchscope.probes.run_probe import plan_probe
from mismatchscope.reports.document import Report
from mismatchscope.reports.pair_fields import ProbeCell, ProbeConclusion
from mismatchscope.traces.schema import Manifest


def cells(report: Report) -> dict[tuple[str, str], ProbeCell]:
    assert report.probe is not None
    return {(cell.path, cell.setting): cell for cell in report.probe.cells}


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Registers a probe of the settings that it is called with, each against the first."""

    def register(*specs: str) -> str:
        def plan(question: Question) -> Plan:
            made = [Setting(text, "reference", parse_spec(text), "prefill") for text in specs]
            return Plan("the SPEC", [Comparison(made[0], setting) for setting in made[1:]], keys=("noise",))

        def conclude(cells: Sequence[ProbeCell], completions: Any) -> list[ProbeConclusion]:
            return [ProbeConclusion("counted", f"{len(cells)} cells.")]

        module = registry.importlib.import_module("mismatchscope.probes.plan")
        monkeypatch.setattr(module, "PLANTED", Probe(plan, conclude), raising=False)
        monkeypatch.setitem(
            registry.PROBES, "planted", registry.Entry("mismatchscope.probes.plan:PLANTED", "planted?", "planted")
        )
        return "planted"

    return register


def test_values_are_parted_at_commas_outside_brackets() -> None:
    spec = parse_spec("synthetic")
    asked = Question(spec, spec, 1, ("attn=eager, buckets=[1,2]", 'overrides={"a": 1, "b": [2,3]}', ""))
    assert asked.words == ["attn=eager", "buckets=[1,2]", 'overrides={"a": 1, "b": [2,3]}']
    with pytest.raises(SpecError, match="lacks a closing"):
        _ = Question(spec, spec, 1, ("buckets=[1,2",)).words


@pytest.mark.slow
def test_a_path_without_noise_is_invariant(tmp_path: Path) -> None:
    report, started = probed("batch", tmp_path / "batch", values=("2,4",))
    assert set(codes(report)) == {"batch_invariant", "one_completion"} and report.verdict == "none"
    assert all(cell.pair is not None and cell.pair.identical for cell in cells(report).values())
    assert report.finding.code == "probe" and report.alpha1.observed_max == 0.0
    assert started == ["synthetic"], "one engine, loaded once, for every composition of both paths"


@pytest.mark.slow
def test_noise_of_the_batch_is_found_and_measured(tmp_path: Path) -> None:
    report, _ = probed("batch", tmp_path / "batch", values=("2", "4"), **NOISY)
    found = cells(report)
    for (path, setting), cell in found.items():
        assert cell.pair is not None and cell.pair.identical == (path == "prefill"), (path, setting)
        if path == "decode":
            assert 0 < cell.pair.alpha.observed_max <= math.tanh(NOISE) + 1e-9
            assert cell.pair.same_tokens is not None and cell.pair.same_tokens < 0.05 * cell.pair.tokens
    assert codes(report)[:2] == ["depends_on_batch", "members"]
    assert report.probe is not None and report.probe.pair_shown.endswith("synthetic decode")
    farthest = max(cell.pair.alpha.mean.value for cell in found.values())
    assert report.alpha1.mean.value == farthest, "the report is of the pair that is farthest apart"


@pytest.mark.slow
def test_a_repeat_is_the_same_bits_in_every_process(tmp_path: Path) -> None:
    report, started = probed("repeat", tmp_path / "repeat", **NOISY)
    assert codes(report) == ["identical"]
    assert {setting for _, setting in cells(report)} == {"same process", "new process"}
    assert started == ["synthetic"] * 4, "two engines, each twice"


@pytest.mark.slow
def test_a_finished_probe_starts_nothing_and_says_the_same(tmp_path: Path) -> None:
    first, _ = probed("batch", tmp_path / "batch", values=("3",), **NOISY)
    again, started = probed("batch", tmp_path / "batch", values=("3",), **NOISY)
    assert started == []
    whole = [each.model_dump(exclude={"provenance"}) for each in (first, again)]
    assert whole[0] == whole[1]


@pytest.mark.slow
def test_probes_share_what_they_have_in_common(tmp_path: Path) -> None:
    store = tmp_path / "runs"
    probed("batch", tmp_path / "one", values=("2",), store=store)
    before = {path.name: (path / "manifest.json").stat().st_mtime_ns for path in store.iterdir() if path.is_dir()}
    _, started = probed("batch", tmp_path / "two", values=("2", "4"), store=store)
    after = {path.name: (path / "manifest.json").stat().st_mtime_ns for path in store.iterdir() if path.is_dir()}
    assert before.items() <= after.items() and started == ["synthetic"]
    assert len(after) - len(before) == 2 * 3 + 2 * 2, "each path three times; two greedy rollouts with raw views"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("synthetic:nonsense=1", "has no option"),
        ("synthetic:fail_at=3", "SIGKILL"),
        ("synthetic:vocabulary=2", "3"),
    ],
)
def test_a_setting_that_fails_costs_no_other(tmp_path: Path, planted: Any, bad: str, reason: str) -> None:
    name = planted("synthetic:variant=1", bad, f"synthetic:variant=1,noise={NOISE}")
    report, _ = probed(name, tmp_path / "run")
    failed, sound = (cells(report)["prefill", setting] for setting in (bad, f"synthetic:variant=1,noise={NOISE}"))
    assert failed.status == "failed" and reason in str(failed.reason) and failed.pair is None
    assert sound.status == "measured" and sound.pair is not None and sound.pair.alpha.observed_max > 0
    assert sound.effective == {"noise": NOISE}
    assert report.verdict == "inconclusive", "something is missing"


@pytest.mark.slow
def test_where_nothing_could_be_compared_the_reason_is_raised(tmp_path: Path, planted: Any) -> None:
    name = planted("synthetic:variant=1", "synthetic:nonsense=1", "synthetic:noise=-1")
    with pytest.raises(SpecError, match="nonsense"):
        probed(name, tmp_path / "run")


@pytest.mark.slow
def test_tokens_that_cannot_be_drawn_end_the_probe(tmp_path: Path) -> None:
    with pytest.raises(WorkerError):
        probed("repeat", tmp_path / "run", behavior="synthetic:fail_at=2")


@pytest.mark.slow
def test_what_was_killed_goes_on_where_it_was(tmp_path: Path, planted: Any) -> None:
    """The engine dies in one of several runs of one start; the others are made, and not made again."""
    name = planted("synthetic:variant=1", "synthetic:fail_at=3")
    with pytest.raises(MismatchScopeError, match="SIGKILL"):
        probed(name, tmp_path / "run")
    name = planted("synthetic:variant=1", "synthetic:variant=2")
    report, started = probed(name, tmp_path / "run")
    assert len(started) == 1 and codes(report) == ["counted"]


@pytest.mark.slow
def test_gates_see_the_cells(tmp_path: Path) -> None:
    beyond = "probe.cells.batch_of_2_synthetic_decode.pair.alpha.observed_max > 1e-6"
    report, _ = probed("batch", tmp_path / "batch", values=("2",), gate={"fail_on": [beyond]}, **NOISY)
    assert report.verdict == "fail"
    within = "probe.cells.batch_of_2_synthetic_prefill.pair.identical < 1"
    report, _ = probed("batch", tmp_path / "batch", values=("2",), gate={"fail_on": [within]}, **NOISY)
    assert report.verdict == "pass"


@pytest.mark.slow
def test_a_gate_on_a_probe_with_a_failed_cell_does_not_pass(tmp_path: Path, planted: Any) -> None:
    name = planted("synthetic:variant=1", "synthetic:nonsense=1", "synthetic:variant=1,epsilon=0")
    report, _ = probed(name, tmp_path / "run", gate={"fail_on": ["counts.tokens < 1"]})
    assert report.gates[0].verdict == "pass" and report.verdict == "inconclusive"


@pytest.mark.parametrize("values", [("1",), ("two",), ("2,99",)])
def test_sizes_that_are_none_are_refused(values: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        plan_probe("batch", settings(), values)


def test_an_unknown_probe_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError) as raised:
        plan_probe("bacth", settings())
    assert "batch" in str(raised.value.hint)


def test_the_plan_names_every_run_once() -> None:
    text = plan_text(plan_probe("batch", settings(), ("2",)), settings())
    assert "1 engine start, 12 runs" in text and text.count("decode, alone\n") == 1
    assert "synthetic decode: batch of 2 against alone" in text


@pytest.mark.parametrize(
    ("requested", "effective", "ignored"),
    [
        ({"threads": 2}, {"threads": 2}, None),
        ({"threads": 2}, {"threads": 1}, "asked for threads=2, the engine has 1"),
        ({"threads": 0}, {"threads": 1}, None),
        ({"dtype": "auto"}, {"dtype": "bfloat16"}, None),
        ({"threads": 2}, {}, None),
    ],
)
def test_requested_against_effective(requested: Any, effective: Any, ignored: str | None) -> None:
    manifest = Manifest.model_construct(settings=requested, effective=effective)
    assert what_was_ignored(manifest, tuple(requested)) == ignored


def test_settings_that_ask_for_the_same_are_one_run() -> None:
    one, same, other = (
        Setting(label, "behavior", parse_spec("synthetic"), "decode", BatchComposition(batch_size=size))
        for label, size in (("a", 1), ("b", 1), ("c", 2))
    )
    assert one.asks == same.asks != other.asks


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=4))
def test_the_first_divergence_is_where_a_reader_would_see_it(responses: list[list[int]]) -> None:
    padded = [[*response, *[-1] * 7] for response in responses]  # an end is a token of its own
    expected = next((place for place in range(7) if len({response[place] for response in padded}) > 1), None)
    assert first_divergence([np.array(response, dtype=np.int64) for response in responses]) == expected
