from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from example_reports import HOSTILE
from rich.cells import cell_len
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from mismatchscope.measures.results import Alpha, Interval, SequenceMeasures, Statistic, TokenMeasures
from mismatchscope.reports.console import show
from mismatchscope.reports.difference_fields import Difference, RoundingSize
from mismatchscope.reports.document import Counts, Finding, Provenance, Report


def _shown(report: Report, width: int = 80, verbose: bool = False, terminal: bool = False) -> str:
    out = io.StringIO()
    color = "truecolor" if terminal else None
    console = Console(file=out, width=width, force_terminal=terminal, color_system=color)
    show(report, console, verbose=verbose)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def test_console(report: Report, snapshot: SnapshotAssertion) -> None:
    assert _shown(report) == snapshot


def test_console_verbose(full: Report, snapshot: SnapshotAssertion) -> None:
    assert _shown(full, width=120, verbose=True) == snapshot


@pytest.mark.parametrize("width", [60, 80, 100, 160])
@pytest.mark.parametrize("verbose", [False, True])
def test_no_line_is_wider_than_the_terminal(report: Report, width: int, verbose: bool) -> None:
    lines = _shown(report, width, verbose).split("reproduce")[0].splitlines()
    assert max(cell_len(line) for line in lines) <= width


def test_the_verdict_is_the_first_line(full: Report, topk: Report) -> None:
    assert _shown(full).startswith("DIFFERENCE  Above the repeat floor of 0.000209")
    assert _shown(topk).startswith("FAIL  No repeat floor was measured: mean TV 0.00203 [0.00180, 0.00227]")


def test_the_baseline_sentence_is_the_second(versions: Report) -> None:
    text = _shown(versions, width=240)
    headline, baseline, _, scope = text.splitlines()[:4]
    assert headline.startswith("FAIL ")
    assert baseline.startswith("WORSE  Further from the trainer than the baseline")
    assert scope.startswith("128 prompts")
    assert text.index("old – trainer") < text.index("baseline.tv_difference > 0") < text.index("observed maximum")


def test_of_equal_engines_no_difference_is_shown(versions: Report) -> None:
    same = replace(versions.baseline.new_old, identical=True)
    baseline = versions.baseline.model_copy(update={"verdict": "unchanged", "new_old": same})
    shown = _shown(versions.model_copy(update={"baseline": baseline}))
    assert re.search(r"new – old .* yes\n", shown)
    assert "paired by state" not in shown


def test_a_mean_that_is_known_from_below_only_says_so(versions: Report) -> None:
    old = versions.baseline.old_reference
    below = replace(old.alpha, mean=Interval(value=None, low=0.00366))
    pair = replace(old, alpha=below, kl=None)
    baseline = versions.baseline.model_copy(update={"old_reference": pair, "tv_difference": None})
    shown = _shown(versions.model_copy(update={"baseline": baseline}))
    assert re.search(r"old – trainer +≥ 0.00366 +0.0911 +– ", shown)


@pytest.mark.parametrize("width", [50, 60, 80, 100])
def test_a_number_never_loses_its_end(versions: Report, width: int) -> None:
    """Columns give way instead, those that say least first."""
    long = Statistic(
        mean=1.042e-13, low=4.94e-14, high=3.32e-13, p50=-1.17e-15, p99=9.39e-13, max=3.85e-11, estimator="exact"
    )
    token = TokenMeasures(tv=long, kl=long, abs_logprob_diff=long)
    shown = _shown(versions.model_copy(update={"token": token}), width=width).partition("per token")
    for part, row in ((shown[0], "new – trainer"), (shown[2], "KL")):
        [line] = re.findall(rf"^  {row}.*$", part, re.MULTILINE)
        assert "…" not in line
        assert all(re.fullmatch(r"[\[]?-?[\d.]+(e-\d+)?[\],]*|–|no", word) for word in line.split()[-3:])
    assert ("3.85e-11" in shown[2]) == (width >= 60)


def test_the_command_can_be_copied_whole(full: Report) -> None:
    assert full.provenance.command in _shown(full, width=60)


def test_alarms_come_before_the_figures_with_their_remedy(sampled: Report) -> None:
    text = _shown(sampled, width=120)
    assert text.index("describe different") < text.index("→ Score with") < text.index("observed maximum")


def test_text_of_the_model_never_acts(full: Report) -> None:
    text = _shown(full, width=200, terminal=True)
    assert "\x1b[31m \u202e" not in text
    assert "\u202e" not in text
    assert "<script>alert(1)</script> ]]> `|` \\x1b[31m \\u202e" in re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert HOSTILE not in text


def test_markup_in_foreign_text_is_printed_as_it_is(topk: Report) -> None:
    sentence = "[bold]x[/bold] [/oops]"
    shown = _shown(topk.model_copy(update={"finding": Finding(code="no_floor", sentence=sentence)}))
    assert sentence in shown


def test_no_color_is_honoured(full: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", _shown(full, terminal=True))


def test_a_mean_without_interval_says_why(full: Report) -> None:
    mean = Interval(value=0.002, n=96, clusters=1, method="too-few-clusters")
    shown = _shown(full.model_copy(update={"alpha1": replace(full.alpha1, mean=mean)}), width=120)
    assert "no interval: too few prompts" in shown


def test_an_interval_without_width_is_not_called_one(full: Report) -> None:
    mean = Interval(value=0.0, low=0.0, high=0.0, n=96, clusters=8, method="all-zero")
    shown = _shown(full.model_copy(update={"alpha1": replace(full.alpha1, mean=mean)}))
    assert "all zero, 8 prompts" in shown


@pytest.mark.parametrize("beyond", [True, False])
@pytest.mark.parametrize("rank", [0, 1])
def test_what_differs_is_a_fact_and_what_its_size_says_stands_above_it(
    full: Report, beyond: bool, rank: int
) -> None:
    size = RoundingSize(value=3.0, usual=0.03, times=100.0 if beyond else 1.0, beyond=beyond, n=500)
    update = {"difference": [Difference(key="engine", behavior="a", reference="b", rank=rank)], "size": size}
    shown = " ".join(
        _shown(full.model_copy(update={"provenance": full.provenance.model_copy(update=update)})).split()
    )
    assert "causes" not in shown
    assert "what differs between the two sides" in shown
    assert ("rounding can explain that" in shown) == (not beyond)
    assert ("rounding is no explanation" in shown) == (beyond and bool(rank))
    assert ("None of these differences is known to move the log-probs this far" in shown) == (beyond and not rank)


def test_evidence_that_is_whole_only_in_part_says_so(full: Report) -> None:
    counts = full.counts.model_copy(update={"full_states": 1024})
    assert "full evidence at 1,024 of them" in _shown(full.model_copy(update={"counts": counts}))


def test_a_report_with_nothing_but_counts_is_shown() -> None:
    report = Report(
        finding=Finding(code="unresolved", sentence="Nothing is known."),
        evidence="sampled",
        policy="raw",
        counts=Counts(prompts=1, sequences=1, tokens=1),
        alpha1=Alpha(observed_max=None, mean=Interval(value=None)),
        token=TokenMeasures(),
        sequence=SequenceMeasures(),
        provenance=Provenance(behavior={}, reference={}, command="mismatchscope analyze x"),
    )
    assert "1 prompt, 1 response, 1 token" in _shown(report, verbose=True)
