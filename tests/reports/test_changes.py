"""The change of a figure from one report to another: paired by prompt, or as of independent samples."""

from __future__ import annotations

from dataclasses import replace

import example_reports
import numpy as np
import pytest

from mismatchscope.measures.intervals import sums_interval
from mismatchscope.measures.results import TokenMeasures
from mismatchscope.measures.summary import statistic_of
from mismatchscope.reports.changes import change
from mismatchscope.reports.document import Report
from mismatchscope.reports.prompt_sums import FigureSums, PromptSums

PROMPTS = [f"{prompt:016x}" for prompt in range(24)]


def report_of(sum_C: np.ndarray, count_C: np.ndarray, prompts: list[str] = PROMPTS) -> Report:
    mean = sums_interval(sum_C, count_C, (0.0, 1.0))
    report = example_reports.full().model_copy(
        update={"token": TokenMeasures(tv=statistic_of(mean, (None,) * 4, 1.0, "exact"))}
    )
    sums = FigureSums(sums=sum_C.tolist(), counts=count_C.tolist())
    return report.with_prompt_sums(PromptSums(prompts=prompts, figures={"token.tv": sums}))


@pytest.fixture
def reports() -> tuple[Report, Report]:
    """Two audits of prompts that differ much more from each other than the audits do."""
    rng = np.random.default_rng(0)
    rate_C, count_C = rng.uniform(0.001, 0.1, 24), np.full(24, 100)
    first, second = (rate_C * count_C * rng.uniform(0.97, 1.03, 24) for _ in range(2))
    return report_of(first, count_C), report_of(second, count_C)


def test_prompts_that_both_have_are_paired(reports: tuple[Report, Report]) -> None:
    ours, base = reports
    paired = change(ours, base, "token.tv.mean", 1.1)
    apart = change(ours.with_prompt_sums(None), base, "token.tv.mean", 1.1)
    assert paired.value == pytest.approx(apart.value)
    assert paired.high < 0 < apart.high, "paired it is decided, apart it is not"
    assert change(ours, base, "token.tv", 1.1) == paired, "a group stands for its mean"


def test_other_prompts_are_not_paired(reports: tuple[Report, Report]) -> None:
    ours, base = reports
    sums = base.prompt_sums.model_copy(update={"prompts": [f"f{prompt[1:]}" for prompt in PROMPTS]})
    apart = change(ours.with_prompt_sums(None), base, "token.tv.mean", 1.1)
    assert change(ours, base.with_prompt_sums(sums), "token.tv.mean", 1.1) == apart


def test_sums_of_another_report_are_not_used(reports: tuple[Report, Report]) -> None:
    ours, base = reports
    figures = {"token.tv": FigureSums(sums=[1.0] * 24, counts=[100] * 24)}
    stale = base.with_prompt_sums(base.prompt_sums.model_copy(update={"figures": figures}))
    assert change(ours, stale, "token.tv.mean", 1.1) == change(
        ours.with_prompt_sums(None), base, "token.tv.mean", 1.1
    )


def test_what_has_no_interval_gets_none_from_its_sums(reports: tuple[Report, Report]) -> None:
    ours, base = reports
    bare = ours.model_copy(update={"token": TokenMeasures(tv=replace(ours.token.tv, low=None, high=None))})
    bare = bare.with_prompt_sums(ours.prompt_sums)
    found = change(bare, base, "token.tv.mean", 1.1)
    assert (found.low, found.high) == (None, None) and found.reason
