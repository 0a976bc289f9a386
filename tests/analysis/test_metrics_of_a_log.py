"""Trainers' metrics of a log, step by step, and held against what the run logged."""

from __future__ import annotations

import numpy as np
import pytest
from log_rows import log_batch, sampled_rows

from mismatchscope.analysis.native_metrics import NativeMetrics, at_steps_of_log, trainers_of, why_not_compared
from mismatchscope.analysis.rows import Rejected, blocks_of
from mismatchscope.analysis.settings import AnalysisSettings
from mismatchscope.errors import UsageError
from mismatchscope.measures.log_results import NativeMetric


def metrics_of(*batches: dict[str, list]) -> NativeMetrics:
    found = NativeMetrics(AnalysisSettings())
    for columns in batches:
        for block in blocks_of(log_batch(**columns), Rejected()):
            found.add(block)
    return found


def named(metrics: list[NativeMetric], name: str) -> NativeMetric:
    (found,) = [metric for metric in metrics if metric.name.startswith(name)]
    return found


def abs_diff_at(columns: dict[str, list], step: int) -> float:
    rows = [row for row, at in enumerate(columns["step"]) if at == step]
    gaps = [np.abs(columns["behavior_logprobs"][row] - columns["reference_logprobs"][row]) for row in rows]
    return float(np.concatenate(gaps).mean())


COLUMNS = sampled_rows(40, seed=5)
NAME = "policy/rollout_train_logprobs_abs_diff_mean"


def test_each_step_is_a_batch() -> None:
    metric = named(metrics_of(COLUMNS).results(["skyrl"]), NAME)
    assert metric.steps == (0, 1, 2, 3, 4)
    assert metric.values == pytest.approx([abs_diff_at(COLUMNS, step) for step in range(5)])
    assert metric.logged is None and metric.reproduces is None


def test_what_the_run_logged_reproduces_or_does_not() -> None:
    right = {step: abs_diff_at(COLUMNS, step) for step in range(5)}
    metrics = metrics_of(COLUMNS)
    same = named(metrics.results(["skyrl"], {f"train/{NAME}": right}), NAME)
    assert same.reproduces is True and same.step_offset == 0
    assert same.largest_difference == pytest.approx(0.0, abs=1e-12)
    other = named(metrics.results(["skyrl"], {NAME: right | {3: right[3] * 1.01}}), NAME)
    assert other.reproduces is False
    assert other.largest_difference == pytest.approx(right[3] * 0.01)
    assert named(metrics.results(["skyrl"], {NAME: {99: 1.0}}), NAME).reproduces is None


def test_a_tracker_that_counts_from_one_is_found() -> None:
    logged = {step + 1: abs_diff_at(COLUMNS, step) for step in range(5)}
    metric = named(metrics_of(COLUMNS).results(["skyrl"], {NAME: logged}), NAME)
    assert metric.reproduces is True
    assert metric.step_offset == 1


def test_what_does_not_reproduce_is_held_against_the_steps_of_what_does() -> None:
    metrics, other = metrics_of(COLUMNS), NAME.replace("mean", "max")
    values = named(metrics.results(["skyrl"]), other).values
    logged = {
        NAME: {step + 1: abs_diff_at(COLUMNS, step) for step in range(5)},
        other: {step + 1: value + 0.25 for step, value in enumerate(values)},
    }
    metric = named(metrics.results(["skyrl"], logged), other)
    assert metric.reproduces is False and metric.step_offset == 1
    assert metric.largest_difference == pytest.approx(0.25)


def test_the_other_figures_of_that_tracker_move_with_its_steps() -> None:
    logged = {NAME: {step + 1: abs_diff_at(COLUMNS, step) for step in range(5)}, "grad_norm": {1: 0.5, 2: 0.7}}
    metrics = metrics_of(COLUMNS).results(["skyrl"], logged)
    assert at_steps_of_log(logged, metrics)["grad_norm"] == {0: 0.5, 1: 0.7}
    assert why_not_compared(logged, metrics) is None
    wrong = {NAME: {step + 1: 9.0 for step in range(5)}, "grad_norm": {1: 0.5}}
    assert at_steps_of_log(wrong, metrics_of(COLUMNS).results(["skyrl"], wrong)) == wrong


def test_a_file_of_other_metrics_says_so() -> None:
    metrics = metrics_of(COLUMNS)
    logged = {"loss": {0: 1.0}, f"train/{NAME}": {0: 1.0}}
    why = why_not_compared(logged, metrics.results(["trl"], logged))
    assert why is not None and "(loss, train/policy" in why and why.endswith("--trainer skyrl knows some of them")
    assert "knows" not in (why_not_compared({"loss": {0: 1.0}}, metrics.results(["trl"])) or "knows")
    late = {NAME: {90: 1.0, 99: 1.0}}
    why = why_not_compared(late, metrics.results(["skyrl"], late))
    assert why is not None and why.endswith("its steps are 90–99, those of the log 0–4")


def test_the_setting_that_reproduces_is_shown() -> None:
    name = "rollout_corr/rollout_is_mean"
    metrics = metrics_of(COLUMNS)
    by_setting = {metric.name: metric for metric in metrics.results(["verl"]) if metric.name.startswith(name)}
    assert len(by_setting) == 2
    for shown, metric in by_setting.items():
        logged = {name: dict(zip(metric.steps, metric.values, strict=True))}
        assert named(metrics.results(["verl"], logged), name).name == shown


def test_trl_averages_what_its_ranks_have() -> None:
    columns = {
        "behavior_logprobs": [[-1.0], [-1.0, -1.0, -1.0]],
        "reference_logprobs": [[-1.4], [-1.1, -1.1, -1.1]],
        "step": [0, 0],
    }
    name = "sampling/sampling_logp_difference/mean"
    apart = metrics_of(columns | {"rank": [0, 1]}).results(["trl"])
    together = metrics_of(columns).results(["trl"])
    assert named(apart, name).values == pytest.approx([0.25])
    assert named(together, name).values == pytest.approx([0.175])


def test_what_is_recomputed_of_the_old_policy_says_so() -> None:
    """Where prime-rl would have taken π_θ."""
    columns = {"behavior_logprobs": [[-1.0]], "reference_logprobs": [[-1.5]], "target_logprobs": [[-3.0]]}
    metric = named(metrics_of(columns).results(["prime-rl"]), "mismatch_kl/all/mean")
    assert metric.value == pytest.approx(np.exp(-0.5) - 1 + 0.5)
    assert "π_old" in metric.estimates


def test_without_steps_there_is_one_value() -> None:
    columns = {name: values for name, values in COLUMNS.items() if name != "step"}
    metric = named(metrics_of(columns).results(["skyrl"]), NAME)
    assert metric.steps == ()
    assert metric.value == pytest.approx(
        np.abs(np.concatenate(columns["behavior_logprobs"]) - np.concatenate(columns["reference_logprobs"])).mean()
    )


def test_the_steps_of_a_log_are_known_where_there_is_one() -> None:
    assert metrics_of(COLUMNS).steps == (0, 4)
    assert metrics_of({**sampled_rows(4), "step": [7] * 4}).steps == (7, 7)
    assert metrics_of({name: column for name, column in COLUMNS.items() if name != "step"}).steps is None


def test_parts_merge() -> None:
    pieces = [{name: values[rows] for name, values in COLUMNS.items()} for rows in (slice(0, 13), slice(13, None))]
    merged = metrics_of(pieces[0])
    merged.merge(metrics_of(pieces[1]))
    whole = metrics_of(COLUMNS).results(["verl"])
    for ours, theirs in zip(merged.results(["verl"]), whole, strict=True):
        assert ours.values == pytest.approx(theirs.values, rel=1e-9)


def test_a_leak_leaves_the_means_that_it_makes_infinite_unknown() -> None:
    columns = {"behavior_logprobs": [[-1.0, -2.0]], "reference_logprobs": [[-1.0, float("-inf")]]}
    metrics = metrics_of(columns).results(["nemo-rl"])
    assert named(metrics, "train/gen_kl_error").value is None
    assert named(metrics, "train/sampling_importance_ratio").value == pytest.approx(0.5)


def test_a_format_of_nobodys_shows_all() -> None:
    assert trainers_of("slime") == ["slime"]
    assert len(trainers_of("recorder")) == 10
    with pytest.raises(UsageError, match="no trainer whose metrics are known"):
        AnalysisSettings(trainer="nobody")
