"""TensorBoard's scalars: of each step at its step, once, and as TensorBoard itself reads them back."""

from __future__ import annotations

from pathlib import Path

import pytest
from example_reports import sampled

from mismatchscope.measures.log_results import TokenTrends, Trend, Trends
from mismatchscope.measures.results import Interval
from mismatchscope.reports.document import Report
from mismatchscope.reports.tensorboard import Scalars, scalars_of


def report_of_steps(values: tuple[float | None, ...]) -> Report:
    unknown = Interval(None, None, None, 0.95, 0, 0, "none")
    steps = tuple(range(5, 5 + len(values)))
    trend = Trend(steps, values, values, values, unknown, unknown, (5, 5), (6, 6))
    return sampled().model_copy(update={"trend": Trends(token=TokenTrends(tv=trend))})


def test_steps_and_the_whole_log_are_apart() -> None:
    report = report_of_steps((0.1, None, 0.3))
    found = {(name, step): value for name, step, value in scalars_of(report)}
    assert found["step/token/tv", 5] == 0.1
    assert found["step/token/tv", 7] == 0.3
    assert ("step/token/tv", 6) not in found
    assert found["run/token.ratio", 0] == report.token.ratio.mean


@pytest.mark.slow
def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("torch.utils.tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scalars = Scalars(tmp_path)
    for values in ((0.1,), (0.1, 0.2), (0.1, 0.25)):
        scalars.write(report_of_steps(values))
    scalars.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    written = [(event.step, round(event.value, 6)) for event in events.Scalars("step/token/tv")]
    assert written == [(5, 0.1), (6, 0.2), (6, 0.25)]
