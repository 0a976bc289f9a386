"""Any split of a log, in any order, gives the same figures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_rows import log_batch, sampled_rows

from mismatchscope.analysis.settings import AnalysisSettings
from mismatchscope.analysis.statistics import LogStatistics
from mismatchscope.comparison.alarms import leak_alarm
from mismatchscope.comparison.context import Context
from mismatchscope.comparison.pair import PolicyPair
from mismatchscope.comparison.reduction import reduce_pair
from mismatchscope.logs.source import LogBatch


def figures(statistics: LogStatistics) -> tuple[float, ...]:
    found = reduce_pair(statistics.pair, Context())
    return (
        found.alpha.observed_max,
        *(found.alpha.mean.value, found.alpha.mean.low, found.alpha.mean.high),
        *(found.token.kl.mean, found.token.kl.high, found.token.ratio.p90),
        *(found.sequence.ess_fraction, found.sequence.log_ratio.mean),
        *(statistics.rows, statistics.sequences, statistics.partial, statistics.pair.tokens),
    )


def piece(batch: LogBatch, rows: list[int]) -> LogBatch:
    return LogBatch(batch.rows.take(rows), batch.part)


@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(24)), cuts=st.sets(st.integers(1, 23), max_size=4))
def test_the_split_does_not_matter(order: list[int], cuts: set[int]) -> None:
    batch = log_batch(**sampled_rows(24, seed=3))
    whole = LogStatistics(AnalysisSettings())
    whole.add(batch)
    merged = LogStatistics(AnalysisSettings())
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 24], strict=True):
        part = LogStatistics(AnalysisSettings())
        part.add(piece(batch, order[start:stop]))
        merged.merge(part)
    assert figures(merged) == pytest.approx(figures(whole), rel=1e-12)


def test_remarks_are_said_once() -> None:
    batch = log_batch(behavior_logprobs=[[-1.0]], reference_logprobs=[[-1.0]])
    remarked = LogBatch(batch.rows, batch.part, remarks=("the last line is cut off",))
    first, second = LogStatistics(AnalysisSettings()), LogStatistics(AnalysisSettings())
    for statistics in (first, second):
        statistics.add(remarked)
        statistics.add(remarked)
    first.merge(second)
    assert first.remarks == ["the last line is cut off"]
    assert first.rows == 4


def test_unknown_prompts_are_counted() -> None:
    statistics = LogStatistics(AnalysisSettings())
    statistics.add(
        log_batch(behavior_logprobs=[[-1.0]] * 3, reference_logprobs=[[-1.0]] * 3, prompt=[1, None, None])
    )
    assert statistics.prompts_unknown == 2
    assert np.unique(statistics.pair.prompts).size == 3


def test_no_remedy_is_one_of_traces() -> None:
    """A log has log-probs of one policy each: none of it can be compared as another one."""
    statistics = LogStatistics(AnalysisSettings())
    statistics.add(log_batch(behavior_logprobs=[[-1.0, -1.0]] * 4, reference_logprobs=[[-1.0, -float("inf")]] * 4))
    (alarm,) = leak_alarm(PolicyPair(Context(), statistics.pair))
    assert alarm.code == "impossible_tokens" and "compare" not in (alarm.remedy or "")
