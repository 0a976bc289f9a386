"""Probes of the synthetic engine, run in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mismatchscope.collection.output import output_directory
from mismatchscope.config import AuditSettings
from mismatchscope.probes.run_probe import plan_probe, run_probe
from mismatchscope.reports.document import Report

NOISE = 0.02
SMALL: dict[str, Any] = {"limit": 6, "sampling": {"samples": 2, "max_new_tokens": 12}}
QUIET = {"behavior": "synthetic", "reference": "synthetic"}
NOISY = {"behavior": f"synthetic:noise={NOISE}", "reference": "synthetic"}


def settings(**changes: Any) -> AuditSettings:
    return AuditSettings(**SMALL | QUIET | changes)


def probed(
    name: str, directory: Path, *, values: tuple[str, ...] = (), store: Path | None = None, **changes: Any
) -> tuple[Report, list[str]]:
    """The report, and the engines that were started, by their SPEC's name."""
    started: list[str] = []

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "ready":
            started.append(event["side"])

    asked = settings(**changes)
    with output_directory(directory, resume=True):
        planned = plan_probe(name, asked, values)
        return run_probe(planned, asked, directory, store=store, command="", on_event=on_event), started


def codes(report: Report) -> list[str]:
    """Of what a probe says."""
    assert report.probe is not None
    return [each.code for each in report.probe.conclusion]
