"""A report's figures as a pandas frame: one figure a row, with its interval and how much it rests on."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from ..errors import MissingDependencyError
from .csv import long_form

if TYPE_CHECKING:
    import pandas as pd

    from .document import Report

INTERVAL = ("low", "high", "confidence")
SIZES = ("n", "clusters")


def report_frame(report: Report) -> pd.DataFrame:
    """Columns `section`, `measure`, `statistic`, `value`; `low`, `high`, `confidence` where the figure has an
    interval; `n` and `clusters`, the tokens or responses and the prompts that it is computed from.

    The names are those of report.csv: `report.token.tv.p99` is ("token", "tv", "p99"). NaN and `<NA>` are unknown.
    Raises `MissingDependencyError` without pandas.
    """
    try:
        import pandas as pd
    except ImportError:
        raise MissingDependencyError("pandas", "frames", "Report.to_frame") from None
    rows = []
    for (section, measure), group in groupby(long_form(report), key=lambda row: row[:2]):
        numbers = {statistic: value for _, _, statistic, value in group}
        estimate = "mean" if "mean" in numbers else "value"
        sizes = {name: numbers.pop(name) for name in SIZES if name in numbers}
        has_interval = estimate in numbers and {"low", "high"} <= numbers.keys()
        interval = {name: numbers.pop(name) for name in INTERVAL if has_interval and name in numbers}
        quantiles = [name for name in numbers if f"{name}_low" in numbers]
        limits = {
            name: dict(
                zip(
                    INTERVAL,
                    (*(numbers.pop(f"{name}_{end}") for end in ("low", "high")), interval.get("confidence")),
                    strict=True,
                )
            )
            for name in quantiles
        }
        for statistic, value in numbers.items():
            row = {"section": section, "measure": measure, "statistic": statistic, "value": value}
            rows.append(row | sizes | (interval if statistic == estimate else limits.get(statistic, {})))
    columns = ["section", "measure", "statistic", "value", *INTERVAL, *SIZES]
    frame = pd.DataFrame(rows, columns=columns)
    floats = dict.fromkeys(("value", *INTERVAL), "float64")
    return frame.astype(floats | dict.fromkeys(SIZES, "Int64"))
