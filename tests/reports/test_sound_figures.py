"""A report.json whose figures cannot be true is no report: no form of it is written, and no gate decides on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import example_reports
import pytest
from command import run

from mismatchscope import load_report
from mismatchscope.errors import TraceError
from mismatchscope.reports.document import Report
from mismatchscope.reports.sound_figures import check_figures

_NOT_FIGURES = ("provenance", "alarms")
"""What an engine said of itself, and what an alarm quotes, is text to a report."""


def numbers(document: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of all floats of a document."""
    if isinstance(document, float):
        yield path
    entries = (
        document if isinstance(document, dict) else dict(enumerate(document if isinstance(document, list) else []))
    )
    for key, value in entries.items():
        if path or key not in _NOT_FIGURES:
            yield from numbers(value, (*path, key))


def altered(report: Report, path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    document = json.loads(report.to_json())
    at = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return document


def test_every_example_is_sound(report: Report, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(report.to_json())
    assert load_report(tmp_path) == report


def test_nan_among_the_figures_is_no_report(report: Report, tmp_path: Path) -> None:
    paths = list(numbers(json.loads(report.to_json())))
    assert len(paths) > 10
    paths = paths[:: len(paths) // 40 + 1]
    file = tmp_path / "report.json"
    for number, path in enumerate(paths):
        file.write_text(json.dumps(altered(report, path, "NaN" if number % 2 else float("nan"))))
        with pytest.raises(TraceError, match="is not a report that this version reads"):
            load_report(file)


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("alpha1.mean.low", 0.9, "alpha1.mean.low is 0.9, above its high of"),
        ("alpha1.mean.high", -0.9, "above its high of -0.9"),
        ("alpha1.mean.value", 0.99, "alpha1.mean is 0.99, outside its interval"),
        ("alpha1.mean.value", "Infinity", "alpha1.mean is infinite"),
        ("alpha1.observed_max", 1.5, "alpha1.observed_max is 1.5, above its bound of"),
        ("token.tv.low", 0.9, "token.tv.low is 0.9, above its high of"),
        ("token.tv.high", "Infinity", "token.tv.high is infinite, of a mean of"),
        ("token.tv.mean", 0.99, "token.tv is 0.99, outside its interval"),
        ("token.tv.max", "Infinity", "token.tv.max is infinite"),
        ("token.tv.p50", 0.99, "token.tv.p50 is 0.99, above p90 of"),
        ("token.kl.mean", -5.0, "token.kl is -5, outside its interval"),
        ("token.leak.mean", -0.5, "token.leak is -0.5"),
        ("sequence.ess_fraction", 1.7, "sequence.ess_fraction is 1.7, which is no share"),
        ("corrections.0.kept_tokens", 1.2, "kept_tokens is 1.2, which is no share"),
    ],
)
def test_figures_that_contradict_each_other_are_named(
    full: Report, tmp_path: Path, path: str, value: Any, why: str
) -> None:
    keys = tuple(int(key) if key.isdigit() else key for key in path.split("."))
    file = tmp_path / "report.json"
    file.write_text(json.dumps(altered(full, keys, value)))
    with pytest.raises(TraceError) as raised:
        load_report(file)
    assert why in raised.value.message


def test_infinite_divergences_of_a_support_leak_are_sound(full: Report, tmp_path: Path) -> None:
    document = json.loads(full.to_json())
    for key in ("mean", "low", "high", "p999", "max"):
        document["token"]["kl"][key] = "Infinity"
    document["token"]["kl"]["quantile_limits"] = {}
    (tmp_path / "report.json").write_text(json.dumps(document))
    assert load_report(tmp_path).token.kl.mean == float("inf")


@pytest.mark.parametrize("command", [("gate", "--fail-on", "alpha1.mean.high > 0.9"), ("report",)])
def test_the_command_line_decides_nothing_on_it(full: Report, tmp_path: Path, command: tuple[str, ...]) -> None:
    file = tmp_path / "report.json"
    file.write_text(json.dumps(altered(full, ("alpha1", "mean", "high"), float("nan"))))
    name, *options = command
    done = run(name, file, *options)
    assert done.returncode == 3
    assert "alpha1.mean.high is NaN" in " ".join(done.stderr.split()) or "one is NaN" in done.stderr
    assert not done.stdout


def test_a_value_of_a_step_outside_its_interval_is_named() -> None:
    report = example_reports.log()
    assert report.trend is not None and report.trend.token.tv is not None
    for changes, said in (
        ({"high": (0.001, *report.trend.token.tv.high[1:])}, "trend.token.tv of step 0 is outside its interval"),
        ({"low": report.trend.token.tv.low[1:]}, "trend.token.tv has 20 steps and other numbers of values"),
    ):
        tv = replace(report.trend.token.tv, **changes)
        trend = replace(report.trend, token=replace(report.trend.token, tv=tv))
        with pytest.raises(ValueError, match=said):
            check_figures(report.model_copy(update={"trend": trend}))
