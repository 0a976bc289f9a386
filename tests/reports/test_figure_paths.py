"""Paths to figures: which there are in a type, what they find in a report, and what is no figure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Optional

import example_reports
import numpy as np
import pytest
from pydantic import BaseModel, Field

from mismatchscope import gate
from mismatchscope.errors import ConfigError
from mismatchscope.measures import alpha, results
from mismatchscope.measures.correction_results import Correction
from mismatchscope.measures.corrections.catalogue import EVERY
from mismatchscope.measures.corrections.presets import PRESETS, TRAINERS
from mismatchscope.measures.log_results import Groups
from mismatchscope.reports.document import Report
from mismatchscope.reports.entry_names import ENTRY_NAMES
from mismatchscope.reports.figure_ends import NO_INTERVAL, Figure
from mismatchscope.reports.figure_paths import check_path, figure_at, known_paths, paths_below


@dataclass(frozen=True)
class Interval:
    value: float | None
    low: float | None
    high: float | None
    confidence: float = 0.95


@dataclass(frozen=True)
class Point:
    tau: float
    tokens: float


class Block(BaseModel):
    mean: Annotated[float, Field(ge=0)]
    low: Optional[float] = None  # noqa: UP045 - written in either way
    high: float | None = None
    share: Annotated[Interval | None, "documented"] = None
    exceedance: tuple[Point, ...] = ()
    edges: list[float] = []
    parameters: dict[str, float] = {}
    name: str = ""


@dataclass(frozen=True)
class Outer:
    block: Block
    identical: bool
    extra: dict[str, Any]


def test_paths_lead_through_models_and_dataclasses_alike() -> None:
    found = set(paths_below(Outer))
    assert {path for path in found if "exceedance" not in path} == {
        "identical",
        "block",
        "block.mean",
        "block.low",
        "block.high",
        "block.share",
        "block.share.value",
        "block.share.low",
        "block.share.high",
    }
    assert "block.exceedance.tau_0_01.tokens" in found
    assert not any(path.endswith(".tau") for path in found), "what names an entry is no figure of it"


def test_figures_are_found_in_models_and_dataclasses_alike() -> None:
    share = Interval(0.2, 0.1, 0.3)
    points = (Point(0.01, 0.5), Point(0.02, 0.4))
    outer = Outer(Block(mean=1.0, low=0.9, high=1.1, share=share, exceedance=points), True, {})
    assert figure_at(outer, "block") == figure_at(outer, "block.mean") == Figure(1.0, 0.9, 1.1)
    assert figure_at(outer, "block.share") == Figure(0.2, 0.1, 0.3)
    assert figure_at(outer, "block.share.low") == Figure(0.1, 0.1, 0.1, of_this_run=True)
    assert figure_at(outer, "block.exceedance.tau_0_02.tokens") == Figure(0.4, reason=NO_INTERVAL)
    assert figure_at(outer, "identical") == Figure(1.0, 1.0, 1.0)
    assert figure_at(Outer(Block(mean=1.0), False, {}), "block.share.low") == Figure(None)


def test_usual_names_are_those_of_the_measures() -> None:
    taus = [ENTRY_NAMES["exceedance"].name(Point(tau, 0.0))[0] for tau in alpha.TAUS]
    assert tuple(taus) == ENTRY_NAMES["exceedance"].usual
    assert taus[0] == "tau_1e-6" and taus[-1] == "tau_0_5"
    bounds = [alpha.tolerance_bound(np.zeros(4), quantile) for quantile in alpha.TOLERANCE_QUANTILES]
    assert ENTRY_NAMES["tolerance"].usual == tuple(ENTRY_NAMES["tolerance"].names(bounds))
    rules = [
        Correction(name=name, parameters=parameters, unit="token", kept_tokens=1.0, kept_sequences=1.0)
        for name, settings in (*EVERY, ("m2po", ({"threshold": 0.04},)))
        for parameters in settings
    ]
    assert ENTRY_NAMES["corrections"].usual == tuple(ENTRY_NAMES["corrections"].names(rules))
    for preset in PRESETS:
        named = ENTRY_NAMES["corrections"].name(
            Correction(name=preset.key, parameters={}, unit="token", kept_tokens=1.0, kept_sequences=1.0)
        )[0]
        assert ENTRY_NAMES["corrections"].generic(named) == "token_tis", (named, TRAINERS)


class TestCorrectionsByName:
    def report(self, *rules: tuple[str, dict[str, float]]) -> Report:
        rows = [
            Correction(name=name, parameters=parameters, unit="token", kept_tokens=index / 10, kept_sequences=1.0)
            for index, (name, parameters) in enumerate(rules)
        ]
        return example_reports.full().model_copy(update={"corrections": rows})

    def test_the_usual_name_is_the_first_threshold_and_a_longer_one_tells_them_apart(self) -> None:
        report = self.report(
            ("token_tis", {"cap": 2.0}), ("sequence_tis", {"cap": 2.0}), ("sequence_tis", {"cap": 10.0})
        )
        kept = {
            name: figure_at(report, f"corrections.{name}.kept_tokens").value
            for name in ("sequence_tis", "sequence_tis_cap_2", "sequence_tis_cap_10")
        }
        assert kept == {"sequence_tis": 0.1, "sequence_tis_cap_2": 0.1, "sequence_tis_cap_10": 0.2}

    def test_every_parameter_is_in_the_longer_name(self) -> None:
        report = self.report(("icepop", {"low": 0.5, "high": 5.0}), ("icepop", {"low": 0.2, "high": 5.0}))
        assert figure_at(report, "corrections.icepop_low_0_2_high_5.kept_tokens").value == 0.1

    def test_two_entries_of_one_name_are_refused(self) -> None:
        report = self.report(("icepop", {"low": 0.5}), ("icepop", {"low": 0.5}))
        with pytest.raises(ConfigError, match="ambiguous") as caught:
            figure_at(report, "corrections.icepop_low_0_5.kept_tokens")
        assert "icepop" in caught.value.hint

    def test_an_entry_that_the_report_lacks_is_unknown_and_says_what_there_is(self) -> None:
        found = figure_at(self.report(("icepop", {"low": 0.5})), "corrections.trust_region_mask_max.kept_tokens")
        assert found.value is None
        assert "icepop" in found.reason


def test_bins_by_length_go_by_their_edges_and_their_ends() -> None:
    report = example_reports.full()
    first, last = report.sequence.by_length
    for name, entry in {
        "shortest": first,
        "tokens_1_to_31": first,
        "longest": last,
        "tokens_32_to_96": last,
    }.items():
        path = f"sequence.by_length.{name}.ess_fraction"
        check_path(path)
        assert figure_at(report, path).value == entry.ess_fraction


def test_an_open_trend_asks_for_steps() -> None:
    """Its interval is one over the steps: more prompts in each narrow it less."""
    asked = ["trend.sequence.ess_fraction.relative < 0.48", "prompt_effect.intraclass > 0.12"]
    report = example_reports.log()
    prompts = replace(report.prompt_effect, intraclass=replace(report.prompt_effect.intraclass, low=0.1, high=0.2))
    trend, effect = gate.apply(report.model_copy(update={"prompt_effect": prompts}), asked).gates
    assert (trend.verdict, effect.verdict) == ("inconclusive", "inconclusive")
    assert (trend.reason or "").endswith("log more steps") and (effect.reason or "").endswith(
        "measure more prompts"
    )


@pytest.mark.parametrize(
    ("expression", "verdict"),
    [
        ("trend.token.kl.slope > 0", "fail"),
        ("trend.token.kl.slope.low > 0", "fail"),
        ("trend.sequence.ess_fraction.relative < 0.5", "inconclusive"),  # from 0.454 to 0.502
        ("trend.sequence.ess_fraction.relative < 0.51", "fail"),
        ("trend.token.abs_logprob_diff.slope > 0", "inconclusive"),  # the log has no such trend
        ("groups.worker.rows.w0.differs > 0", "inconclusive"),
        ("groups.worker.rows.w1_script_alert_1_script_x1b_31m_u202e.differs > 0", "inconclusive"),  # no such label
        ("groups.lag.rows.2.tv > 0.02", "fail"),
        ("groups.lag.rows.9.tv > 0.02", "inconclusive"),
        ("distribution.shift.count > 0", "fail"),
        ("distribution.temperature.count > 0", "inconclusive"),
        ("staleness.excess < 0.02", "fail"),
        ("length_scaling.exponent > 0.4", "fail"),
        ("prompt_effect.intraclass > 0.5", "pass"),
        ("native_metrics.slime_train_tis.value > 1.0002", "fail"),
        ("native_metrics.slime_train_tis.value > 1.0004", "pass"),
        ("kept_support.truncation > 0.03", "pass"),
    ],
)
def test_what_a_log_says_is_gated_by_name(expression: str, verdict: str) -> None:
    assert gate.apply(example_reports.log(), [expression]).verdict == verdict


def test_a_ratio_that_a_few_extreme_steps_make_decides_nothing() -> None:
    report = example_reports.log()
    assert report.trend is not None and report.trend.token.tv is not None
    spiked = replace(report.trend.token.tv, relative=results.Interval(9.0, method="noise-hides-the-ratio"))
    trend = replace(report.trend, token=replace(report.trend.token, tv=spiked))
    found = gate.apply(report.model_copy(update={"trend": trend}), ["trend.token.tv.relative > 1.5"])
    assert found.verdict == "inconclusive"
    assert "extreme steps" in str(found)


def test_the_label_that_differs_fails_by_its_letters_and_digits() -> None:
    (_, bad) = ENTRY_NAMES["rows"].names(example_reports.log().groups[0].rows)
    assert bad.startswith("w1_script_alert_1_script")
    assert gate.apply(example_reports.log(), [f"groups.worker.rows.{bad}.differs > 0"]).verdict == "fail"


class TestLabelsOfALog:
    def report(self, *labels: str) -> Report:
        """Row i has i tokens."""
        report = example_reports.log()
        row = report.groups[0].rows[0]
        rows = tuple(replace(row, label=label, tokens=tokens) for tokens, label in enumerate(labels))
        return report.model_copy(update={"groups": [Groups("worker", rows)]})

    def tokens(self, report: Report, name: str) -> float | None:
        check_path(path := f"groups.worker.rows.{name}.tokens")
        return figure_at(report, path).value

    def test_letters_of_every_script_are_kept(self) -> None:
        report = self.report("数学", "кодирование", "schöne-Welt", "math v2")
        names = ENTRY_NAMES["rows"].names(report.groups[0].rows)
        assert names == ["数学", "кодирование", "schöne-Welt", "math_v2"]
        assert [self.tokens(report, name) for name in names] == [0, 1, 2, 3]
        assert gate.apply(report, ["groups.worker.rows.数学.tokens > 0"]).verdict == "pass"
        decomposed = "groups.worker.rows.scho\u0308ne-Welt.tokens > 1"
        assert gate.apply(report, [decomposed]).verdict == "fail"

    def test_labels_that_become_one_name_have_longer_ones(self) -> None:
        report = self.report("a/b", "a b", "c")
        with pytest.raises(ConfigError, match="ambiguous") as caught:
            self.tokens(report, "a_b")
        first, second, third = ENTRY_NAMES["rows"].names(report.groups[0].rows)
        assert first != second and third == "c"
        assert first in caught.value.hint and second in caught.value.hint
        assert [self.tokens(report, name) for name in (first, second)] == [0, 1]
        assert self.tokens(self.report("x", "a b"), second) == 1  # whatever else a log has

    def test_a_label_that_is_a_name_itself_has_it(self) -> None:
        report = self.report("a/b", "a_b")
        assert self.tokens(report, "a_b") == 1
        first, second = ENTRY_NAMES["rows"].names(report.groups[0].rows)
        assert (self.tokens(report, first), self.tokens(report, second)) == (0, 1)


@pytest.mark.parametrize(
    "path", ["trend.token.kl.passed_at", "staleness.tolerance", "trend.token.kl.steps", "groups.colour.rows.a.tv"]
)
def test_what_a_log_was_asked_is_no_figure(path: str) -> None:
    with pytest.raises(ConfigError, match="no figure"):
        check_path(path)


@pytest.mark.parametrize(
    ("path", "suggested"),
    [
        ("alpha1.tolerance.2.value", "alpha1.tolerance.p95.value"),
        ("alpha1.exceedance.12.prompts_upper", "alpha1.exceedance.tau_0_01.prompts_upper"),
        ("corrections.3.kept_tokens", "corrections.sequence_tis_cap_10.kept_tokens"),
        ("sequence.by_length.0.kl", "sequence.by_length.shortest.kl"),
        ("corrections.0.parameters", "corrections.token_tis."),
        ("corrections.icpop.kept_tokens", "corrections.icepop.kept_tokens"),
        ("corrections.icepop", "corrections.icepop.kept_tokens"),
        ("alpha1.exceedance.tau_0_03.tokens", "alpha1.exceedance.tau_0_05.tokens"),
        ("alpha1", "alpha1.mean"),
        ("token.tv.confidence", "token.tv"),
        ("figures.tv_by_position.0.mean", "the figures of a report are in counts"),
        ("worst.0.tv", "the figures of a report are in counts"),
        ("provenance.duration_s", "the figures of a report are in counts"),
        ("schema_version", "the figures of a report are in counts"),
    ],
)
def test_what_is_no_figure_is_refused_with_what_is_one(path: str, suggested: str) -> None:
    with pytest.raises(ConfigError, match="no figure") as caught:
        check_path(path)
    assert suggested in caught.value.hint


def test_known_paths_are_accepted_and_found() -> None:
    report = example_reports.versions()
    assert len(known_paths()) == len(set(known_paths())) > 500
    for path in known_paths():
        check_path(path)
        assert isinstance(figure_at(report, path), Figure)
