"""The forms of a report.

To add one, write one file here with `render(report) -> str` and add one line to `FORMATS`: the command line then
offers it, and `audit` and `compare` write it. The terminal is no format but a conversation: see `console.show`.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, NamedTuple

from ..errors import UsageError

if TYPE_CHECKING:
    from .document import Report


class Format(NamedTuple):
    """`renderer` is the "module:function" that makes the text, `file` the name it gets beside its trace."""

    renderer: str
    file: str


FORMATS = {
    "json": Format("mismatchscope.reports.document:Report.to_json", "report.json"),
    "markdown": Format("mismatchscope.reports.markdown:render", "report.md"),
    "html": Format("mismatchscope.reports.html:render", "report.html"),
    "junit": Format("mismatchscope.reports.junit:render", "junit.xml"),
    "csv": Format("mismatchscope.reports.csv:render", "report.csv"),
}


def render(report: Report, format: str) -> str:
    """The whole report as one text document.

    Raises `UsageError` for an unknown format and `MissingDependencyError` where an optional package is needed.
    """
    if format not in FORMATS:
        raise UsageError(f"There is no report format {format!r}.", hint=f"--format takes {', '.join(FORMATS)}")
    return resolve_name(FORMATS[format].renderer)(report)
