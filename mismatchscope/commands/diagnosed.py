"""What `diagnose` is about: a finished report, two traces, or the logs of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import UsageError
from .terminal import command_line, progress

if TYPE_CHECKING:
    from ..config import AuditSettings
    from ..reports.document import Alarm, Report

_FORMS = "give a report (DIR or report.json), two traces (TRACE_MU TRACE_PI), or the logs of a run"

Kind = Literal["report", "traces", "logs"]


@dataclass(frozen=True)
class LogReading:
    """How a log is read, where its content does not say."""

    format: str | None = None
    column_map: Path | None = None


def kind_of(paths: Sequence[Path]) -> Kind:
    """What the paths are. Raises `UsageError` for none, for one trace alone, and for what does not go together."""
    from ..reports.prompt_sums import report_file
    from ..traces.schema import MANIFEST

    missing = [path for path in paths if not path.exists()]
    if missing:
        raise UsageError(f"{missing[0]} does not exist.", hint=_FORMS)
    traces = [path for path in paths if (path / MANIFEST).is_file()]
    reports = [path for path in paths if report_file(path).is_file() and _is_json(report_file(path))]
    if len(paths) == 1 and reports:
        return "report"
    if len(traces) == len(paths) == 2:
        return "traces"
    if traces:
        raise UsageError("A diagnosis takes two traces of the same tokens, μ's and π's.", hint=_FORMS)
    if reports:
        raise UsageError("A diagnosis is of one report.", hint=_FORMS)
    return "logs"


def _is_json(path: Path) -> bool:
    return path.suffix == ".json"


def diagnosed(paths: Sequence[Path], kind: Kind, settings: AuditSettings, reading: LogReading) -> Report:
    """The report with its diagnosis. Raises what `compare` and `analyze` do, and `UsageError` for a report that has
    none."""
    if kind == "report":
        return _loaded(paths[0])
    with progress() as on_event:

        def on_rows(rows: int) -> None:
            on_event({"event": "measured", "rows": rows})

        if kind == "traces":
            from ..comparison.compare_traces import compare
            from ..traces.reader import Trace

            mu, pi = map(Trace.open, paths)
            return compare(mu, pi, confidence=settings.confidence, command=command_line(), on_rows=on_rows)
        from ..analysis.analyze import analyze
        from ..analysis.settings import AnalysisSettings

        return analyze(
            paths,
            AnalysisSettings(confidence=settings.confidence),
            format=reading.format,
            column_map=reading.column_map,
            command=command_line(),
            on_tokens=on_rows,
        )


def failed(report: Report) -> Alarm | None:
    """The alarm that says why a report has no diagnosis, where making it failed."""
    from ..reports.document import NO_DIAGNOSIS

    return next((alarm for alarm in report.alarms if alarm.code == NO_DIAGNOSIS), None)


def _loaded(path: Path) -> Report:
    from ..reports.document import Report

    report = Report.load(path)
    if report.diagnosis_answer is None and failed(report) is None:
        what = "a probe, which has conclusions instead" if report.probe is not None else "an earlier version"
        raise UsageError(
            f"{path} has no diagnosis: it is of {what}.",
            hint="mismatchscope diagnose TRACE_MU TRACE_PI makes one of two traces",
        )
    return report
