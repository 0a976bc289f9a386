"""The first sentence of a log's report: doubt before figures, change before level, nothing called safe."""

from __future__ import annotations

import numpy as np
import pytest
from confounded_logs import lag_grows_as_prompts_get_harder
from simulated_runs import RunDesign, SimulatedRun, simulated_run

from mismatchscope.analysis.finding import log_finding
from mismatchscope.analysis.groups import GroupSums
from mismatchscope.analysis.trend import trends_of
from mismatchscope.measures.log_results import DistributionCheck, RunTrends, SequenceTrends, Trend, Trends
from mismatchscope.measures.results import Alpha, Interval
from mismatchscope.reports.document import Counts

ALPHA = Alpha(observed_max=0.2, mean=Interval(0.01, 0.009, 0.011))
COUNTS = Counts(prompts=64, sequences=128, tokens=4096)


def trends(run: SimulatedRun) -> Trends | None:
    sums = GroupSums()
    for block in run.blocks():
        sums.add(block)
    return trends_of(sums, tolerances={}, confidence=0.95)


def test_a_failed_check_comes_first() -> None:
    checks = [
        DistributionCheck("shift", "fail", "9 of 64 responses fit better at shift +1."),
        DistributionCheck("mean_ratio", "fail", "The mean ratio is 1.2, not 1."),
        DistributionCheck("copy", "pass", "Neither column is a copy."),
    ]
    found = log_finding(ALPHA, COUNTS, checks, None, identical=False)
    assert found.code == "log_in_doubt"
    assert "fit better at shift +1. 1 other check failed too. As they are, mean TV 0.0100" in found.sentence


def test_what_was_left_out_casts_no_doubt_on_the_rest() -> None:
    illegal = DistributionCheck("illegal_values", "fail", "3 of 4,099 tokens are in no figure.")
    assert log_finding(ALPHA, COUNTS, [illegal], None, identical=False).code == "log"


def test_without_doubt_or_change_the_level_is_said() -> None:
    found = log_finding(ALPHA, COUNTS, [], None, identical=False)
    assert found.code == "log"
    assert (
        found.sentence
        == "Over the whole log: mean TV 0.0100 [0.0090, 0.0110], α₁ ≥ 0.200 (4,096 tokens of 64 prompts)."
    )
    assert log_finding(ALPHA, COUNTS, [], None, identical=True).code == "identical"


def test_what_has_changed_is_said_before_the_level() -> None:
    run = simulated_run(RunDesign(steps=30, prompts=24, change_at=15), seed=3)
    found = log_finding(ALPHA, COUNTS, [], trends(run), identical=False)
    assert found.code == "log_moved"
    assert "of what it was in steps 0–5 (TV at like certainty: " in found.sentence
    assert "; over the whole log mean TV 0.0100" in found.sentence


def test_a_sharpened_policy_is_said_beside_what_has_moved() -> None:
    said = "The log-odds of the reference are 1.02 times the behaviour's."
    sharper = DistributionCheck("temperature", "pass", said, evidence={"sharpness": 1.02})
    still = log_finding(ALPHA, COUNTS, [sharper], None, identical=False)
    assert still.code == "log"
    assert still.sentence.endswith(f"of 64 prompts). {said}")
    run = simulated_run(RunDesign(steps=30, prompts=24, change_at=15), seed=3)
    moved = log_finding(ALPHA, COUNTS, [sharper], trends(run), identical=False)
    assert moved.code == "log_moved"
    assert moved.sentence.endswith(said)


def test_of_harder_prompts_tv_rises_and_not_that_at_like_certainty() -> None:
    found = trends_of(lag_grows_as_prompts_get_harder(np.random.default_rng(0)))
    assert found is not None and found.token.tv is not None and found.token.tv_of_impurity is not None
    rise, alike = found.token.tv.relative, found.token.tv_of_impurity.relative
    assert rise.low is not None and rise.low > 1
    assert alike.low is not None and alike.high is not None and alike.low < 1 < alike.high
    sentence = log_finding(ALPHA, COUNTS, [], found, identical=False).sentence
    assert f"(TV at like certainty: {alike.value:.2f}" in sentence


@pytest.mark.parametrize(("times", "code"), [(1.0, "log_moved"), (1.3, "log_moved"), (3.0, "log")])
def test_ess_that_longer_responses_lower_has_not_moved(times: float, code: str) -> None:
    """From 0.9 a constant error of one sign takes ESS to 0.43 where responses are three times as long."""
    ess, length = (
        Trend(
            steps=tuple(range(10)),
            values=(first,) * 5 + (last,) * 5,
            low=(None,) * 10,
            high=(None,) * 10,
            slope=Interval(last - first, -0.1, -0.01),
            relative=Interval(last / first, last / first, last / first),
            first_steps=(0, 2),
            last_steps=(7, 9),
        )
        for first, last in ((0.9, 0.6), (100.0, 100.0 * times))
    )
    moved = Trends(sequence=SequenceTrends(ess_fraction=ess), run=RunTrends(response_length=length))
    assert log_finding(ALPHA, COUNTS, [], moved, identical=False).code == code


@pytest.mark.slow
def test_of_runs_in_which_nothing_changes_few_are_said_to_have_moved() -> None:
    moved = 0
    for seed in range(100):
        run = simulated_run(RunDesign(steps=20, prompts=16, step_spread=0.1, step_correlation=0.5), seed=seed)
        moved += log_finding(ALPHA, COUNTS, [], trends(run), identical=False).code == "log_moved"
    assert moved <= 10  # 5 % are expected at most
