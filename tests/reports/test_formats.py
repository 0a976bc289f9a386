from __future__ import annotations

import io
import json
import math
from pathlib import Path
from xml.etree import ElementTree

import example_reports
import jsonschema
import pandas
import pytest
from junitparser import Error, Failure, JUnitXml, Skipped
from syrupy.assertion import SnapshotAssertion

from mismatchscope import reports
from mismatchscope.errors import UsageError
from mismatchscope.reports.document import Alarm, Finding, Report
from mismatchscope.reports.formats import FORMATS, render
from mismatchscope.reports.schema import report_schema

SCHEMA = Path(reports.__file__).with_name("report.schema.json")


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_renders_every_report(report: Report, format: str) -> None:
    text = render(report, format)
    assert text.endswith("\n")
    text.encode("utf-8")


def test_an_unknown_format_names_the_known_ones(full: Report) -> None:
    with pytest.raises(UsageError) as caught:
        render(full, "pdf")
    assert "markdown" in (caught.value.hint or "")


def test_markdown(report: Report, snapshot: SnapshotAssertion) -> None:
    assert render(report, "markdown") == snapshot


def test_markdown_of_hostile_text_has_no_markup(full: Report) -> None:
    text = render(full, "markdown")
    assert "<script>" not in text
    assert "\x1b" not in text
    rows = [line for line in text.splitlines() if line.startswith("|") and "once more" in line]
    assert [row.count("|") for row in rows] == [5]


def test_markdown_fits_a_comment(full: Report) -> None:
    assert len(render(full, "markdown")) < 65536


def test_junit_has_one_case_a_gate(topk: Report) -> None:
    (suite,) = JUnitXml.fromstring(render(topk, "junit").encode())
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (3, 1, 1, 0)
    results = {case.name: [type(result) for result in case.result] for case in suite}
    assert results == {
        "alpha1.mean.high > 0.002": [Failure],
        "token.ratio.p999 > 1.5": [],
        "token.tv.mean > 0.002": [Error],
    }


def test_junit_without_gates_passes_nothing(full: Report) -> None:
    (suite,) = JUnitXml.fromstring(render(full, "junit").encode())
    (case,) = suite
    assert isinstance(case.result[0], Skipped)
    assert full.finding.sentence in case.result[0].message


def test_junit_of_a_version_audit_states_it(versions: Report) -> None:
    (suite,) = JUnitXml.fromstring(render(versions, "junit").encode())
    assert {each.name: each.value for each in suite.properties()} == {"baseline": "worse"}
    assert f"WORSE: {versions.baseline.sentence}" in render(versions, "junit")
    assert suite.failures == 1  # by its gate


def test_junit_survives_characters_that_xml_cannot_carry(full: Report) -> None:
    alarm = Alarm(code="x", message="nul \x00, escape \x1b, <&> ]]>")
    finding = Finding(code="no_floor", sentence="bell \x07")
    text = render(full.model_copy(update={"alarms": [alarm], "finding": finding}), "junit")
    output = ElementTree.fromstring(text.encode()).findtext(".//system-out")
    assert output is not None
    assert "nul \\x00, escape \\x1b, <&> ]]>" in output


def test_csv_is_a_long_table_of_every_figure(report: Report) -> None:
    table = pandas.read_csv(io.StringIO(render(report, "csv")))
    assert list(table.columns) == ["section", "measure", "statistic", "value"]
    assert table["value"].dtype == float
    keys = table[["section", "measure", "statistic"]]
    assert not keys.isna().any(axis=None)
    assert not keys.duplicated().any()
    values = table.set_index(["section", "measure", "statistic"])["value"]
    assert values["counts", "tokens", "value"] == report.counts.tokens
    assert values["alpha1", "mean", "high"] == report.alpha1.mean.high
    assert values["alpha1", "observed_max", "value"] == report.alpha1.observed_max


def test_csv_has_the_pairs_of_a_version_audit(versions: Report) -> None:
    table = pandas.read_csv(io.StringIO(render(versions, "csv")))
    values = table.set_index(["section", "measure", "statistic"])["value"]
    assert values["baseline", "old_reference alpha mean", "high"] == 0.001391
    assert values["baseline", "new_old", "identical"] == 0
    assert values["baseline", "tv_difference", "low"] == 0.000771


def test_csv_keeps_unknown_and_infinite_apart(sampled: Report) -> None:
    table = pandas.read_csv(io.StringIO(render(sampled, "csv")))
    values = table.set_index(["section", "measure", "statistic"])["value"]
    assert math.isinf(values["token", "kl", "mean"])
    assert math.isnan(values["alpha1", "observed_upper", "value"])
    assert "alpha0" not in set(table["section"])


def test_csv_names_the_entries_of_a_list(full: Report) -> None:
    table = pandas.read_csv(io.StringIO(render(full, "csv")))
    values = table.set_index(["section", "measure", "statistic"])["value"]
    assert values["alpha1", "tolerance quantile=0.95 confidence=0.95", "value"] == 0.131
    assert values["corrections", "token TIS C=2", "kept_tokens"] == 1.0
    assert values["sequence", "by_length low=1 high=31 tv", "value"] == 0.0121


def test_csv_has_the_steps_of_trends_and_of_metrics_that_the_run_logged() -> None:
    log = example_reports.log()
    csv = pandas.read_csv(io.StringIO(render(log, "csv")))
    by_step = csv[csv.measure.str.contains(" step=", regex=False)]
    assert log.trend is not None and log.trend.token.tv is not None
    tv = by_step[(by_step.section == "trend") & by_step.measure.str.startswith("token tv ")]
    for name, values in (("value", log.trend.token.tv.values), ("high", log.trend.token.tv.high)):
        assert tv[tv.statistic == name].value.tolist() == pytest.approx(list(values))
    metrics = by_step[by_step.section == "native_metrics"]
    compared = metrics.measure.str.startswith("slime train/train_rollout_logprob_abs_diff step=")
    assert compared.all() and metrics[metrics.statistic == "logged"].value.tolist() == [0.02, 0.031]


def test_json_is_the_report(report: Report) -> None:
    assert Report.model_validate_json(render(report, "json")) == report


def test_json_meets_the_schema(report: Report) -> None:
    jsonschema.validate(json.loads(render(report, "json")), json.loads(SCHEMA.read_text(encoding="utf-8")))


def test_the_committed_schema_is_current() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == report_schema(), (
        "run: python -m mismatchscope.reports.schema > mismatchscope/reports/report.schema.json"
    )
