"""How the answer is shown. Every renderer sees a finished `Report` and nothing else.

To add a format, write one file here with `render(report) -> str` and add one line to `FORMATS`.
The terminal is no format but a conversation: see `reports.console.show`.
"""

from __future__ import annotations

from pkgutil import resolve_name

from ..errors import UsageError
from ..report import Report

FORMATS = {
    "html": "mismatchscope.reports.html:render",
    "markdown": "mismatchscope.reports.markdown:render",
    "json": "mismatchscope.report:Report.to_json",
    "junit": "mismatchscope.reports.junit:render",
    "csv": "mismatchscope.reports.csv:render",
}


def render(report: Report, format: str) -> str:
    """The whole report as one text document.

    Raises `UsageError` for an unknown format and `MissingDependencyError` where an optional package is needed.
    """
    if format not in FORMATS:
        raise UsageError(f"There is no report format {format!r}.", hint=f"--format takes {', '.join(FORMATS)}")
    return resolve_name(FORMATS[format])(report)
