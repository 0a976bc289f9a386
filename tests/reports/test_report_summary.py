"""Rows and numbers that every format shows: nothing is claimed that the evidence leaves open."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mismatchscope.measures.results import Interval, TailExtrapolation
from mismatchscope.reports.document import Report
from mismatchscope.reports.single_numbers import scalars
from mismatchscope.reports.summary import alpha_rows, exceeding


@pytest.mark.parametrize(
    ("known", "lower", "text"),
    [
        (0.04948, 0.04948, "4.95 %"),
        (None, 0.04948, "≥ 4.94 %"),  # 4.95 % would be more than is known
        (None, 0.9375, "≥ 93.7 %"),
        (None, 0.000123456, "≥ 0.0123 %"),
        (None, 1.0, "≥ 100 %"),
        (None, 0.0, "≥ 0 %"),
    ],
)
def test_a_share_of_lower_ends_is_at_least_that_and_never_rounded_up(
    known: float | None, lower: float, text: str
) -> None:
    assert exceeding(known, lower) == text


def test_why_nothing_is_claimed_from_above_is_said(sampled: Report) -> None:
    alpha = replace(sampled.alpha1, tail=TailExtrapolation(reason="no upper ends"), unseen_share=0.3123)
    rows = {row.label: row for row in alpha_rows(sampled, alpha)}
    assert rows["95 % of prompts"].value == "–" and "bounded from above" in rows["95 % of prompts"].note
    assert (rows["tail model 99.9 %"].value, rows["tail model 99.9 %"].note) == ("–", "no upper ends")
    assert rows["cannot be seen"].value == "up to 31.2 % of prompts"


def test_the_mean_over_prompts_stands_under_its_own_name(full: Report) -> None:
    rows = {row.label: row for row in alpha_rows(full, full.alpha1)}
    assert (
        rows["mean TV"].value.startswith("0.00213")
        and "each prompt weighing the same" in rows["mean over prompts"].note
    )
    open_ended = replace(full.alpha1, prompt_mean=Interval(None, 0.001, None))
    assert "mean over prompts" not in {row.label for row in alpha_rows(full, open_ended)}


def test_what_ess_rests_on_is_shown_beside_it(full: Report, topk: Report) -> None:
    sound = {measure.label: text for measure, text in scalars(full.sequence)}
    assert sound["mean ρ(y)"] == "1.0012" and sound["ESS / N"] == "0.9917 [0.9893, 0.9936]"
    assert sound["Pareto k"] == "0.210 (limit 0.631)" and "ESS and χ² say nothing:" not in sound
    heavy = {measure.label: text for measure, text in scalars(topk.sequence)}
    assert heavy["ESS and χ² say nothing:"] == "Pareto k 0.81 of the weights is above 0.63"
