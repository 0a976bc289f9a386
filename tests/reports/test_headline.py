"""The first lines of every report: what was found and how large it is, who was compared, and with what evidence."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mismatchscope.measures.results import Interval
from mismatchscope.reports.document import Alarm, Finding, Report
from mismatchscope.reports.moved_token import moved_most
from mismatchscope.reports.reading import reading_rows, sources
from mismatchscope.reports.reading_fields import EvidenceChoice, PerResponse, Reading
from mismatchscope.reports.summary import alpha_rows, headline


def with_size(report: Report, mean_tv: float, outside: float, position: str | None = None) -> Report:
    place = None if position is None else replace(report.reading.place, position=position)
    alpha = replace(report.alpha1, mean=Interval(value=mean_tv))
    reading = replace(report.reading, place=place, outside_band=outside)
    return report.model_copy(update={"alpha1": alpha, "reading": reading})


@pytest.mark.parametrize(
    ("mean_tv", "outside", "position", "badge"),
    [
        (7e-8, 0.0, None, "DIFFERENCE"),
        (7e-8, 0.02, None, "MISMATCH"),
        (0.05, 0.0, None, "MISMATCH"),
        (0.002, 0.001, "below", "DIFFERENCE"),
        (0.002, 0.001, "among", "DIFFERENCE"),
        (7e-8, 0.0, "above", "MISMATCH"),
    ],
)
def test_a_gap_above_the_floor_is_named_by_its_size(
    full: Report, mean_tv: float, outside: float, position: str | None, badge: str
) -> None:
    assert headline(with_size(full, mean_tv, outside, position)).badge == badge


@pytest.mark.parametrize(
    ("code", "badge"),
    [
        ("identical", "EQUAL"),
        ("within_floor", "WITHIN FLOOR"),
        ("unresolved", "UNRESOLVED"),
        ("no_floor", "MEASURED"),
    ],
)
def test_size_changes_no_other_badge(full: Report, code: str, badge: str) -> None:
    small = with_size(full, 7e-8, 0.0)
    assert headline(small.model_copy(update={"finding": Finding(code=code, sentence="")})).badge == badge


def test_a_gate_decides_whatever_the_size(full: Report) -> None:
    assert headline(with_size(full, 7e-8, 0.0).model_copy(update={"verdict": "fail"})).badge == "FAIL"


def test_too_many_rejected_rows_are_the_reason_of_an_open_verdict(full: Report) -> None:
    counts = full.counts.model_copy(update={"rejected": full.counts.tokens // 9, "max_rejected": 0.01})
    left_open = full.model_copy(update={"counts": counts, "verdict": "inconclusive"})
    assert headline(left_open).sentence.startswith("Nothing passes: 10 % of the rows are rejected, more than 1 %. ")
    counts = counts.model_copy(update={"rejected": 0, "rejected_responses": counts.sequences})
    left_open = left_open.model_copy(update={"counts": counts})
    assert "50 % of the responses are rejected" in headline(left_open).sentence


@pytest.mark.parametrize(("verdict", "tone"), [("pass", "caution"), ("fail", "bad")])
def test_a_verdict_on_figures_in_doubt_says_so(full: Report, verdict: str, tone: str) -> None:
    finding = Finding(code="log_in_doubt", sentence="The figures are in doubt.")
    head = headline(full.model_copy(update={"verdict": verdict, "finding": finding}))
    assert (head.badge, head.tone) == (verdict.upper(), tone)
    assert head.sentence == f"By the gates alone. {finding.sentence}"


def test_it_names_the_model_and_both_engines(full: Report) -> None:
    side = {
        "model": {"name": "Qwen3-1.7B", "weights_sha256": "69a6d7bf9cb1f76a8bc9"},
        "engine": "vllm",
        "engine_version": "0.32.0",
        "effective": {"dtype": "bfloat16"},
        "path": "rollout",
    }
    other = side | {"engine": "transformers", "engine_version": "5.24.0", "path": "prefill"}
    provenance = full.provenance.model_copy(update={"behavior": side, "reference": other})
    assert headline(full.model_copy(update={"provenance": provenance})).compared == (
        "Qwen3-1.7B (69a6d7bf) · μ vllm 0.32.0 bfloat16 rollout · π transformers 5.24.0 bfloat16 prefill"
    )
    stale = other | {"model": {"name": "Qwen3-1.7B", "weights_sha256": "0011223344"}}
    provenance = full.provenance.model_copy(update={"behavior": side, "reference": stale})
    compared = headline(full.model_copy(update={"provenance": provenance})).compared
    assert compared.startswith("Qwen3-1.7B (69a6d7bf) against Qwen3-1.7B (00112233) · ")


def test_what_is_not_known_is_said_to_be_unknown(full: Report) -> None:
    provenance = full.provenance.model_copy(update={"behavior": {}, "reference": {"format": "verl"}})
    assert headline(full.model_copy(update={"provenance": provenance})).compared == (
        "model of unknown name · μ unknown engine · π verl"
    )


def test_a_step_down_of_the_evidence_says_what_restores_it(full: Report) -> None:
    choice = EvidenceChoice(requested="auto", why="auto: more than the budget of 1GiB", restore="--budget 4GiB")
    scope = headline(full.model_copy(update={"evidence": "topk", "evidence_choice": choice})).scope
    assert "topk evidence (auto: more than the budget of 1GiB; --budget 4GiB would record them) · " in scope


def test_the_page_is_titled_by_what_was_compared(pages: dict[str, str], full: Report) -> None:
    title = pages["full"].partition("<title>")[2].partition("</title>")[0]
    assert title.startswith(f"{headline(full).badge} · ")
    assert "μ vllm" in title


def test_a_place_says_of_what_it_is_and_who_said_so(full: Report) -> None:
    rows = {row.label: row for row in reading_rows(full)}
    assert rows["mean |Δ log p|"].value == "0.00361, below 0.011 – 0.036"
    assert rows["mean |Δ log p|"].note == "2 public reports"
    assert rows["ρ(y)"].value == "0.871 to 1.14"
    assert rows["ρ(y)"].note == "90 % of 512 responses"
    assert sources(full)[1] == "0.014: a 1.7B model (a public report)"


def test_without_anything_to_place_there_are_no_rows(sampled: Report) -> None:
    assert reading_rows(sampled) == []
    assert sources(sampled.model_copy(update={"reading": Reading(outside_band=0.5)})) == []


def test_a_token_that_moved_in_later_digits_says_by_how_much(full: Report) -> None:
    token = replace(full.worst[0], logprob_behavior=math.log(0.5), logprob_reference=math.log(0.500001))
    assert moved_most(token) == "p(' 19') 0.500 + 1.0e-06"
    assert moved_most(full.worst[0]) == "p(' 19') 0.768 → 0.585"


def test_where_kl_is_infinite_no_gap_is_small(full: Report) -> None:
    impossible = Alarm(code="impossible_tokens", message="1 sampled token with probability 0 under the reference.")
    small = with_size(full, 7e-8, 0.0)
    assert headline(small.model_copy(update={"alarms": [impossible]})).badge == "MISMATCH"


def test_one_long_response_is_said_in_the_singular_and_in_digits(full: Report) -> None:
    only = PerResponse(responses=1, mean_length=1234.0, sum_tv=0.1, ratio_low=0.9, ratio_high=0.9)
    report = full.model_copy(update={"reading": replace(full.reading, per_response=only)})
    notes = [row.note for row in reading_rows(report)]
    assert notes[-2:] == ["responses of 1,234 tokens", "the only response"]


def test_of_states_that_were_left_out_no_upper_end_is_claimed(full: Report) -> None:
    def note(**counts: int) -> str:
        report = full.model_copy(update={"counts": full.counts.model_copy(update=counts)})
        return next(row.note for row in alpha_rows(report, report.alpha1) if row.label == "upper, visited")

    assert note() == "no visited state exceeds this"
    assert note(rejected=1) == note(masked=1) == note(unmatched_behavior=1) == "no compared state exceeds this"
