"""The Prometheus text: every line in the format that is specified, with the report's own figures."""

from __future__ import annotations

import re
from dataclasses import replace

from example_reports import sampled

from mismatchscope import gate
from mismatchscope.measures.log_results import LogFacts
from mismatchscope.reports.prometheus import render
from mismatchscope.reports.watched_figures import WATCHED

SAMPLE = re.compile(r'mismatchscope_(\w+)(\{\w+="((?:[^"\\\n]|\\[\\"n])*)"\})? (\S+)')


def samples(text: str) -> dict[tuple[str, str | None], float]:
    """Every sample by name and label; fails on a line of another form."""
    found: dict[tuple[str, str | None], float] = {}
    declared: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# HELP mismatchscope_"):
            name = line.split()[2]
            assert name not in declared, "the lines of a metric stand together"
            declared.add(name)
        elif not line.startswith("# TYPE"):
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            assert f"mismatchscope_{match[1]}" in declared
            found[match[1], match[3]] = float(match[4])
    assert text.endswith("\n")
    return found


def test_figures_have_their_intervals() -> None:
    report = sampled()
    found = samples(render(report, 1000.0))
    assert found["token_ratio", "value"] == report.token.ratio.mean
    assert found["token_ratio", "low"] == report.token.ratio.low
    assert found["token_ratio", "high"] == report.token.ratio.high
    assert found["counts_tokens", None] == report.counts.tokens
    assert found["read_timestamp_seconds", None] == 1000.0
    assert {name for name, _ in found} <= {path.replace(".", "_") for path in WATCHED} | {"read_timestamp_seconds"}


def test_what_is_unknown_has_no_line() -> None:
    report = sampled()
    sequence = replace(report.sequence, ess_fraction=None, log_ratio=None)
    names = {name for name, _ in samples(render(report.model_copy(update={"sequence": sequence}), 1.0))}
    assert "token_ratio" in names
    assert not {"sequence_ess_fraction", "sequence_log_ratio"} & names


def test_gates_and_the_last_step_are_there() -> None:
    report = sampled().model_copy(
        update={"log": LogFacts(format="nemo-rl", files=1, rows=2, columns=(), rejected={}, steps=(3, 9))}
    )
    judged = gate.apply(report, ["token.ratio < 0.99", "token.ratio > 1.5"])
    found = samples(render(judged, 1.0))
    assert found["gate_failed", "token.ratio < 0.99"] == 1
    assert found["gate_failed", "token.ratio > 1.5"] == 0
    assert found["last_step", None] == 9
