"""What is known of a figure, by where it stands."""

from __future__ import annotations

from dataclasses import replace

import example_reports
import pytest

from mismatchscope.measures.results import Interval, Statistic, TokenMeasures
from mismatchscope.reports.document import Report
from mismatchscope.reports.figure_ends import (
    CERTIFIED_ENDS,
    LARGEST_SEEN,
    LOWER_BOUND,
    NO_INTERVAL,
    UPPER_LIMIT,
    Figure,
)
from mismatchscope.reports.figure_paths import figure_at

BOUND = Statistic(mean=0.02, low=0.018, high=0.022, max=0.3, n=100, clusters=8, estimator="bound")
LIMITED = replace(BOUND, p99=0.1, p999=0.2, quantile_limits={"p99": (0.08, 0.13), "p999": (0.1, None)})


@pytest.fixture
def report() -> Report:
    token = TokenMeasures(tv=LIMITED, tv_lower=BOUND, tv_upper=BOUND, ratio_outside_band=0.01, prob_correlation=0.9)
    token = replace(token, ratio_outside_band_low=0.005, ratio_outside_band_high=0.02)
    return example_reports.topk().model_copy(update={"token": token})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("token.tv.mean", Figure(0.02, 0.018, 0.022)),
        ("token.tv.n", Figure(100, 100, 100)),
        ("token.tv.high", Figure(0.022, 0.022, 0.022, of_this_run=True)),
        ("token.tv.p99", Figure(0.1, 0.08, 0.13)),
        ("token.tv.p999", Figure(0.2, 0.1, None, NO_INTERVAL)),
        ("token.tv.max", Figure(0.3, 0.3, None, LARGEST_SEEN)),
        ("token.tv_lower.mean", Figure(0.02, 0.018, None, LOWER_BOUND)),
        ("token.tv_lower.n", Figure(100, 100, 100)),
        ("token.tv_lower.max", Figure(0.3, 0.3, None, LOWER_BOUND)),
        ("token.tv_upper.mean", Figure(0.02, None, 0.022, UPPER_LIMIT)),
        ("token.tv_upper.max", Figure(0.3, None, None, UPPER_LIMIT)),
        ("token.ratio_outside_band", Figure(0.01, 0.005, 0.02)),
        ("token.prob_correlation", Figure(0.9, None, None, NO_INTERVAL)),
        ("counts.tokens", Figure(24576, 24576, 24576)),
        ("alpha1.observed_max", Figure(0.171, 0.171, None, LARGEST_SEEN)),
        ("alpha1.observed_upper", Figure(0.232, 0.171, 0.232, CERTIFIED_ENDS, of_this_run=True)),
        ("alpha1.tolerance.p95.value", Figure(0.12, None, 0.12, UPPER_LIMIT)),
        ("truncation_floor", Figure(0.05, None, None, NO_INTERVAL)),
    ],
)
def test_what_is_known_follows_from_what_a_figure_is(report: Report, path: str, expected: Figure) -> None:
    assert figure_at(report, path) == expected


def test_a_limit_beside_a_share_bounds_it_from_above(report: Report) -> None:
    (point, *_) = [point for point in report.alpha1.exceedance if point.tau == 0.01]
    found = figure_at(report, "alpha1.exceedance.tau_0_01.prompts")
    assert (found.low, found.high) == (None, point.prompts_upper)


def test_a_named_end_of_a_lower_bound_that_is_no_end_of_the_figure_shows_nothing(report: Report) -> None:
    found = figure_at(report, "token.tv_lower.high")
    assert (found.low, found.high) == (None, None)


def test_one_prompt_has_no_interval_and_says_so(report: Report) -> None:
    one = Interval(0.02, None, None, n=50, clusters=1, method="too-few-clusters")
    alone = report.model_copy(update={"alpha1": replace(report.alpha1, mean=one)})
    assert "one prompt" in figure_at(alone, "alpha1.mean").reason


def test_an_interval_without_a_value_still_bounds_it(report: Report) -> None:
    ends = Interval(None, 0.01, None, n=50, clusters=9, method="lower-ends-only")
    found = figure_at(report.model_copy(update={"alpha1": replace(report.alpha1, mean=ends)}), "alpha1.mean")
    assert found == Figure(None, 0.01, None, LOWER_BOUND)
