from __future__ import annotations

import io
import sys

import numpy as np
import pandas as pd
import pytest

from mismatchscope.errors import MissingDependencyError
from mismatchscope.reports.document import Report
from mismatchscope.reports.formats import render

COLUMNS = ["section", "measure", "statistic", "value", "low", "high", "confidence", "n", "clusters"]


def row(frame: pd.DataFrame, *names: str) -> pd.Series:
    (found,) = [
        figure for _, figure in frame.iterrows() if (figure.section, figure.measure, figure.statistic) == names
    ]
    return found


def test_a_figure_has_its_interval_and_its_size(full: Report) -> None:
    frame = full.to_frame()
    assert list(frame) == COLUMNS
    tv = full.token.tv
    mean = row(frame, "token", "tv", "mean")
    assert (mean.value, mean.low, mean.high) == (tv.mean, tv.low, tv.high)
    assert (mean.confidence, mean.n, mean.clusters) == (tv.confidence, tv.n, tv.clusters)
    quantile = row(frame, "token", "tv", "p99")
    assert (quantile.value, quantile.n) == (tv.p99, tv.n)
    assert np.isnan([quantile.low, quantile.high, quantile.confidence]).all()
    alpha = full.alpha1.mean
    found = row(frame, "alpha1", "mean", "value")
    assert (found.value, found.low, found.high, found.n) == (alpha.value, alpha.low, alpha.high, alpha.n)


def test_every_number_of_the_csv_is_in_the_frame(report: Report) -> None:
    """Each once: in a row of its own, or in the columns of the figure that it belongs to."""
    csv = pd.read_csv(io.StringIO(render(report, "csv")), keep_default_na=False, na_values=[""])
    frame = report.to_frame()
    values = {tuple(one[:3]): one[3] for one in csv.itertuples(index=False)}
    for figure in frame.itertuples(index=False):
        own = (figure.section, figure.measure)
        assert values.pop((*own, figure.statistic)) == pytest.approx(figure.value, nan_ok=True)
        for name in COLUMNS[4:]:
            if not pd.isna(getattr(figure, name)):
                shown = csv[(csv.section == own[0]) & (csv.measure == own[1]) & (csv.statistic == name)]
                assert shown["value"].tolist() == pytest.approx([getattr(figure, name)])
                values.pop((*own, name), None)
    assert all(np.isnan(float(value)) for value in values.values())


def test_unknown_and_infinite_stay_apart(sampled: Report) -> None:
    frame = sampled.to_frame()
    csv = pd.read_csv(io.StringIO(render(sampled, "csv")))
    assert (
        np.isinf(frame["value"]).sum()
        == np.isinf(csv["value"]).sum() - np.isinf(frame[["low", "high"]]).sum().sum()
    )
    assert row(frame, "floor", "rounding_floor", "value").isna()["value"] == (sampled.rounding_floor is None)


def test_frames_of_several_reports_stack(full: Report, sampled: Report) -> None:
    stacked = pd.concat({"full": full.to_frame(), "sampled": sampled.to_frame()}, names=["run", None])
    assert len(stacked) == len(full.to_frame()) + len(sampled.to_frame())
    assert stacked["value"].dtype == "float64" and str(stacked["n"].dtype) == "Int64"


def test_without_pandas_the_extra_is_named(full: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError) as caught:
        full.to_frame()
    assert caught.value.hint == "pip install 'mismatchscope[frames]'"
