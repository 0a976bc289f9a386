"""The figures as long-form CSV: `section,measure,statistic,value`, one number a line.

`alpha1,mean,high,0.0024` is `report.alpha1.mean.high`; a figure that is one number has the statistic `value`.
`trend,token tv step=12,high` is the upper end of mean TV at step 12.
`token,tv,p99_high` is the upper confidence limit of `token,tv,p99`.
An entry of a list is named by what tells it apart: `alpha1,tolerance quantile=0.95 confidence=0.95,value,0.13`.
An empty value is unknown; `inf` is infinite, as pandas reads it.
Numbers are numbers, negative ones too. A name that a spreadsheet would take for a formula begins with `'`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..foreign_text import printable
from .entry_names import ENTRY_NAMES
from .fields import SECTIONS, field_types, is_record
from .text import setting

if TYPE_CHECKING:
    from .document import Report

_FLOORS = ("truncation_floor", "rounding_floor")
_SECTIONS = (*(section for section in SECTIONS if section not in _FLOORS), "gates")
_NAMED_BY = {name: naming.fields for name, naming in ENTRY_NAMES.items()} | {
    "gates": ("expression",),
    "change_points": ("step",),
}
_ENDS = ("low", "high")
_BY_STEP = {"values": "value", "low": "low", "high": "high", "logged": "logged"}
"""Fields with a value a step, and the statistic that it is."""
# Where a cell begins, in a country whose spreadsheets part cells by semicolons too.
_FORMULA = re.compile(r"(?:^|(?<=;))(?=\s*[=+\-@＝＋－＠])")
# Words, and what is no figure of the comparison.
_LEFT_OUT = {"reason", "weights_reason", "method", "provenance", "difference", "remark"}
_LEFT_OUT |= {"fix", "rule", "sentence", "evidence", "first_steps", "last_steps", "steps"}
_LEFT_OUT |= {"conclusion", "effective", "heat", "pictures", "positions", "unmatched"}


def render(report: Report) -> str:
    """The report's figures as CSV with a header line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("section", "measure", "statistic", "value"))
    for section, measure, statistic, value in long_form(report):
        writer.writerow((section, _text(measure), _text(statistic), _cell(value)))
    return out.getvalue()


def long_form(report: Report) -> Iterator[tuple[str, str, str, float | None]]:
    """Section, measure, statistic and value of every figure; None is unknown."""
    for section in _SECTIONS:
        for path, value in _numbers(getattr(report, section), section):
            if not path:  # the whole section is unknown
                continue
            *measure, statistic = path if len(path) > 1 else (*path, "value")
            yield section, " ".join(measure), statistic, value
    for name in _FLOORS:
        yield "floor", name, "value", getattr(report, name)


def _numbers(node: Any, name: str) -> Iterator[tuple[tuple[str, ...], float | None]]:
    """Every number or unknown below `node`, with the names that lead to it."""
    if node is None or isinstance(node, int | float):
        yield (), node
    elif isinstance(node, list | tuple):
        for entry in node:
            if isinstance(entry, str):
                continue  # names of other rows
            named_by = {field: getattr(entry, field) for field in _NAMED_BY[name]}
            key = " ".join(_key(field, value) for field, value in named_by.items() if value is not None)
            for path, value in _numbers(entry, key):
                if path[0] not in _NAMED_BY[name]:
                    yield (key, *path), value
    elif isinstance(node, dict) or is_record(type(node)):
        children = (
            node if isinstance(node, dict) else {key: getattr(node, key) for key in field_types(node.__class__)}
        )
        by_step = [field for field in _BY_STEP if isinstance(children.get(field), tuple)]
        # A trainer's metric by step is of use beside what the run logged; all of them are in report.json.
        compared = bool(by_step) and children.get("logged", by_step) is not None
        for at, step in enumerate(children["steps"] if compared else ()):
            for field in by_step:
                yield (f"step={step}", _BY_STEP[field]), children[field][at]
        for field, child in children.items():
            if field in by_step:
                continue
            if field == "quantile_limits":  # the ends of `p99` are `p99_low` and `p99_high`
                for quantile, ends in child.items():
                    yield from (((f"{quantile}_{end}",), value) for end, value in zip(_ENDS, ends, strict=True))
            elif field not in _LEFT_OUT:
                for path, value in _numbers(child, field):
                    yield (field, *path), value


def _key(field: str, value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={setting(number)}" for name, number in value.items())
    return printable(value) if isinstance(value, str) else f"{field}={setting(value)}"


def _text(name: str) -> str:
    """Foreign text that a spreadsheet must not take for a formula; a blank before it would be dropped by some."""
    return _FORMULA.sub("'", printable(name))


def _cell(value: float | None) -> str:
    return "" if value is None else repr(int(value) if isinstance(value, bool) else value)
