"""A report's main figures as a Prometheus text file, for the textfile collector of node_exporter.

Format: https://prometheus.io/docs/instrumenting/exposition_formats, version 0.0.4.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from .figure_paths import figure_at
from .watched_figures import WATCHED

if TYPE_CHECKING:
    from .document import Report

_PREFIX: Final = "mismatchscope"


def render(report: Report, read_at: float) -> str:
    """The text; `read_at` is the time of the last look at the log, in seconds since 1970.

    A figure that is unknown has no line. One with an interval has three, told apart by the label `end`.
    """
    lines: list[str] = []

    def metric(name: str, meaning: str, samples: list[tuple[str, float | None]]) -> None:
        known = [(labels, value) for labels, value in samples if value is not None and not math.isnan(value)]
        if known:
            lines.append(f"# HELP {_PREFIX}_{name} {meaning}")
            lines.append(f"# TYPE {_PREFIX}_{name} gauge")
            lines.extend(f"{_PREFIX}_{name}{labels} {_number(value)}" for labels, value in known)

    for path, meaning in WATCHED.items():
        figure = figure_at(report, path)
        if figure.low == figure.value == figure.high:
            metric(path.replace(".", "_"), meaning, [("", figure.value)])
        else:
            ends = [(_labels(end=end), getattr(figure, end)) for end in ("value", "low", "high")]
            metric(path.replace(".", "_"), meaning, ends)
    metric(
        "gate_failed",
        "Whether the gate fails: 1 or 0.",
        [(_labels(expression=gate.expression), float(gate.verdict == "fail")) for gate in report.gates],
    )
    if report.log is not None and report.log.steps is not None:
        metric("last_step", "The last step that was read.", [("", float(report.log.steps[1]))])
    metric("read_timestamp_seconds", "When the log was last looked at.", [("", read_at)])
    return "\n".join(lines) + "\n"


def _labels(**labels: str) -> str:
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inner}}}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))
