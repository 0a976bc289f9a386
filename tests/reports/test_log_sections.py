"""What a report of a log says, on a terminal and in Markdown."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from example_reports import HOSTILE
from log_report import group, interval, log_report, trend
from rich.cells import cell_len
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from mismatchscope.measures.log_results import Groups, LengthScaling, PromptEffect, Trends
from mismatchscope.measures.results import Interval
from mismatchscope.reports.console import show
from mismatchscope.reports.console_log import show_log
from mismatchscope.reports.document import Alarm, Report
from mismatchscope.reports.log_sections import log_sections, other_alarms
from mismatchscope.reports.logs.origins import origins_of
from mismatchscope.reports.logs.section import Section
from mismatchscope.reports.markdown import render


@pytest.fixture(scope="module")
def report() -> Report:
    return log_report()


def shown(report: Report, *, width: int = 100, verbose: bool = False) -> str:
    out = io.StringIO()
    show_log(report, Console(file=out, width=width, color_system=None), verbose=verbose)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def section(report: Report, title: str, *, short: bool = True) -> Section:
    (found,) = [each for each in log_sections(report, short=short) if each.title == title]
    return found


def said(found: Section) -> str:
    return "\n".join(line.text for line in found.lines)


@pytest.mark.parametrize("verbose", [False, True])
def test_console(report: Report, verbose: bool, snapshot: SnapshotAssertion) -> None:
    assert shown(report, width=140, verbose=verbose) == snapshot


def test_markdown(report: Report, snapshot: SnapshotAssertion) -> None:
    text = render(report)
    assert text[: text.index("**α₁")] == snapshot


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_no_line_is_wider_than_the_terminal(report: Report, width: int) -> None:
    assert max(cell_len(line) for line in shown(report, width=width, verbose=True).splitlines()) <= width


def test_foreign_text_reaches_no_terminal_raw(report: Report) -> None:
    assert "\x1b" in HOSTILE
    assert "\x1b" not in shown(report, verbose=True)
    assert "\x1b" not in render(report)


def test_of_traces_nothing_of_this_is_said(report: Report) -> None:
    assert log_sections(report.model_copy(update={"log": None}), short=False) == []


def test_what_fails_is_said_first_with_its_remedy(report: Report) -> None:
    first = log_sections(report, short=True)[0]
    assert first.title == "same distribution?"
    assert first.lines[0].tone == "bad"
    assert first.lines[0].remedy == "--shift 1, where all of them do"
    assert "1 check passed; 1 cannot be told" in said(first)


def test_a_figure_is_said_to_have_moved_where_its_interval_says_so(report: Report) -> None:
    moved = said(section(report, "trend"))
    assert "ESS / N goes from 0.863 to 0.467, 0.478 [0.454, 0.502] times as much." in moved
    assert "each of 4 figures is named by chance in 5 % of runs" in moved
    still = replace(trend(0.9, 0.43), relative=interval(0.98, 0.05))
    quiet = Trends(sequence=replace(report.trend.sequence, ess_fraction=still))
    assert said(section(report.model_copy(update={"trend": quiet}), "trend")) == ""


def test_an_end_above_one_does_not_read_one(report: Report) -> None:
    wide = replace(trend(0.01, 0.03), relative=Interval(6.02, 1.04, 34.8))
    moved = Trends(token=replace(report.trend.token, tv=wide))
    assert "6.02 [1.04, 34.80] times as much" in said(section(report.model_copy(update={"trend": moved}), "trend"))


def test_whether_a_tolerance_was_passed_is_a_sentence(report: Report) -> None:
    """A narrow terminal has no room for the last columns of the table."""
    found = trend(0.01, 0.03, change_at=9)
    tv = Trends(token=replace(report.trend.token, tv=found, kl=None, k1=None, abs_logprob_diff=None, ratio=None))
    assert "TV passes 0.0100 at step 9, the first of a few in a row" in said(
        section(report.model_copy(update={"trend": tv}), "trend")
    )
    tv = Trends(token=replace(tv.token, tv=replace(found, passed_at=None)))
    assert "TV is not shown to pass 0.0100" in said(section(report.model_copy(update={"trend": tv}), "trend"))


def test_what_reproduces_is_a_sentence_too(report: Report) -> None:
    metrics = [
        replace(metric, reproduces=None if metric.logged is None else True) for metric in report.native_metrics
    ]
    found = section(report.model_copy(update={"native_metrics": metrics}), "what slime logs")
    assert said(found).startswith("as the run logged it: ")


def test_the_bounds_that_were_asked_for_are_shown(report: Report) -> None:
    assert "discounted" not in shown_whole(report) + render(report)
    bounds = replace(
        report.bounds, discount=0.9, advantage_max=0.01, two_policies_lower=0.36, three_policies_lower=2.5
    )
    asked = report.model_copy(update={"bounds": bounds})
    for text in (shown_whole(asked), render(asked)):
        assert "≥ 0.360" in text and "γ 0.9, ε 0.01" in text
        assert "no less than the range of rewards; γ 0.9" in text


@pytest.mark.parametrize(("steps", "said_"), [((7, 7), "step 7"), ((0, 19), "steps 0–19"), (None, "rows")])
def test_the_steps_of_a_log_are_said(report: Report, steps: tuple[int, int] | None, said_: str) -> None:
    facts = replace(report.log, steps=steps)
    assert section(report.model_copy(update={"log": facts}), "the log").note.endswith(said_)


def test_a_column_whose_policy_is_not_known_says_so(report: Report) -> None:
    rows = section(report, "the log").rows
    assert rows[1][0] == "π_old or π_θ, cannot tell"
    assert "selection" in said(section(report, "the log"))


def test_long_tables_are_cut_to_the_largest(report: Report) -> None:
    rows = tuple(group(str(label), 0.001 * (label + 1)) for label in range(30))
    many = report.model_copy(update={"groups": [Groups("version", rows, omitted=5)]})
    found = section(many, "by version")
    assert [row[0] for row in found.rows] == [str(label) for label in range(22, 30)]
    assert "22 more: those shown have the largest mean TV\n5 more, with the fewest tokens" in said(found)
    assert len(section(many, "by version", short=False).rows) == 30


def test_what_cannot_be_told_is_said_to_be_so(report: Report) -> None:
    unknown = Interval(value=None)
    open_ = report.model_copy(
        update={
            "prompt_effect": PromptEffect(unknown, 3, 3),
            "length_scaling": LengthScaling(unknown, "cannot_tell", 3),
        }
    )
    text = said(section(open_, "where it comes from"))
    assert "Whether it is always the same prompts cannot be told" in text
    assert "How log ρ(y) spreads with length cannot be told" in text


def test_an_exponent_without_an_interval_is_not_said(report: Report) -> None:
    alone = LengthScaling(Interval(value=-0.235), "cannot_tell", 300)
    text = said(section(report.model_copy(update={"length_scaling": alone}), "where it comes from"))
    assert "How log ρ(y) spreads with length cannot be told" in text and "-0.235" not in text


def test_only_what_the_run_logged_is_shown_in_short(report: Report) -> None:
    assert [row[2] for row in section(report, "what slime logs").rows] == ["other"]
    assert len(section(report, "what slime logs", short=False).rows) == 2


def test_what_a_check_says_is_no_alarm_once_more(report: Report) -> None:
    sentence = report.distribution[0].sentence
    other = Alarm(code="rejected_tokens", message="3 tokens of the log are in no figure.")
    doubled = report.model_copy(update={"alarms": [Alarm(code="shift", message=sentence), other]})
    assert other_alarms(doubled) == [other]
    for text in (shown_whole(doubled), render(doubled)):
        assert text.count("fit better at shift") == 1
        assert text.index("fit better at shift") < text.index("3 tokens of the log")


def shown_whole(report: Report) -> str:
    out = io.StringIO()
    show(report, Console(file=out, width=200, color_system=None))
    return out.getvalue()


def test_a_preset_is_shown_as_it_is_asked_for(report: Report) -> None:
    preset = replace(report.corrections[0], name="verl.decoupled_token_is", parameters={})
    line = next(
        line
        for line in shown_whole(report.model_copy(update={"corrections": [preset]})).splitlines()
        if "verl" in line
    )
    assert line.startswith("  verl.decoupled_token_is  ") and "()" not in line


def test_of_a_single_lag_no_others_are_said_to_be_above(report: Report) -> None:
    for lags, ending in ((("0", "1"), "."), (("0", "1", "2"), " and above.")):
        groups = [Groups("lag", tuple(group(lag, 0.01) for lag in lags))]
        lines = [line.text for line in origins_of(report.model_copy(update={"groups": groups}))]
        assert f"Mean TV is above 0.0150 at lag 1{ending}" in lines
