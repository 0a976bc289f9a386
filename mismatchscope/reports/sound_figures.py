"""Can the figures of a report be true? A file that says NaN, or an interval whose ends are crossed, is no report.

What no comparison writes is refused, so that no gate decides on it: `low > high`, a mean outside its interval, an
infinite end of a finite mean, a share below 0 or above 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import pairwise
from typing import Any

from pydantic import BaseModel

from ..measures.log_results import Trend
from ..measures.results import Alpha, Exceedance, Interval, Statistic, Tolerance
from .chart_fields import PositionBin

_FINITE = {
    *("tv", "tv_lower", "tv_upper", "max_tv", "js", "js_lower", "leak", "shortfall", "binary_tv", "prob_diff"),
    *("top1_agreement", "entropy_behavior", "entropy_reference", "excess", "change", "tv_difference"),
    *("prompt_mean", "observed_max", "observed_upper", "unseen_share"),
}
"""Figures that no support leak makes infinite, whatever it does to KL."""

_SHARES = {
    *("tv_lower", "tv_upper", "leak", "shortfall", "binary_tv", "top1_agreement", "observed_max", "observed_upper"),
    *(
        "kept_tokens",
        "kept_sequences",
        "ess_fraction",
        "ess_fraction_low",
        "ess_fraction_high",
        "ratio_outside_band",
    ),
    *("ratio_outside_band_low", "ratio_outside_band_high", "unseen_share", "confidence", "quantile"),
}

_SLACK = 1e-6  # of sums that were added up in another order


def check_figures(report: BaseModel) -> None:
    """Raise `ValueError` for a report that cannot be true: where and why, as a clause."""
    for contradiction in _contradictions(report, ""):
        raise ValueError(contradiction)


def _contradictions(value: Any, path: str) -> Iterator[str]:
    name = path.rpartition(".")[2]
    if isinstance(value, float | int) and not isinstance(value, bool):
        yield from _of_number(float(value), name, path)
        return
    if isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _contradictions(each, f"{path}[{index}]")
        return
    if isinstance(value, dict) and name == "parameters":
        for key, each in value.items():
            yield from _contradictions(each, f"{path}.{key}")
    if isinstance(value, BaseModel):
        names = list(type(value).model_fields)
    elif is_dataclass(value):
        names = [field.name for field in fields(value)]
    else:
        return  # a text, nothing at all, or what an engine said of itself
    yield from _of_ends(value, name, path)
    for each in names:
        yield from _contradictions(getattr(value, each), f"{path}.{each}" if path else each)


def _of_number(value: float, name: str, path: str) -> Iterator[str]:
    if math.isnan(value):
        yield f"{path} is NaN"
    elif math.isinf(value) and name in _FINITE:
        yield f"{path} is infinite"
    elif name in _SHARES and not -_SLACK <= value <= 1 + _SLACK:
        yield f"{path} is {value:g}, which is no share"


def _of_ends(value: Any, name: str, path: str) -> Iterator[str]:
    """What the ends of intervals say of each other and of what lies between them."""
    low, high = getattr(value, "low", None), getattr(value, "high", None)
    if isinstance(value, Trend):
        yield from _of_steps(value, path)
        return
    pairs = [(f"{path}.", low, high)]
    for stem in ("ess_fraction", "ratio_outside_band"):
        ends = getattr(value, f"{stem}_low", None), getattr(value, f"{stem}_high", None)
        pairs.append((f"{path}.{stem}_", *ends))
    for what, ends in getattr(value, "quantile_limits", {}).items():
        if name in _FINITE and any(end is not None and math.isinf(end) for end in ends):
            yield f"{path}.quantile_limits.{what} is infinite"
        pairs.append((f"{path}.quantile_limits.{what}: ", *ends))
    for where, lower, upper in pairs:
        if any(end is not None and math.isnan(end) for end in (lower, upper)):
            yield f"{where}low and high: one is NaN"
        elif lower is not None and upper is not None and lower > upper:
            yield f"{where}low is {lower:g}, above its high of {upper:g}"
    if isinstance(value, Statistic | Interval):
        yield from _of_mean(value, name, path)
    if isinstance(value, Statistic):
        yield from _of_quantiles(value, name, path)
    if isinstance(value, Exceedance):
        for unit in ("tokens", "prompts"):
            share, at_least = getattr(value, unit), getattr(value, f"{unit}_lower")
            if not 0 <= at_least <= 1 or (share is not None and not at_least - _SLACK <= share <= 1 + _SLACK):
                yield f"{path}.{unit} is {share}, at least {at_least:g}"
    if isinstance(value, Tolerance) and value.value is not None and not -_SLACK <= value.value <= 1 + _SLACK:
        yield f"{path}.value is {value.value:g}, which is no total variation"
    if isinstance(value, PositionBin) and not -_SLACK <= value.mean <= value.max + _SLACK:
        yield f"{path}.mean is {value.mean:g}, of values from 0 to {value.max:g}"
    if isinstance(value, Alpha) and value.mean.value is not None and math.isinf(value.mean.value):
        yield f"{path}.mean is infinite"
    if isinstance(value, Alpha) and None not in (value.observed_max, value.observed_upper):
        assert value.observed_max is not None and value.observed_upper is not None
        if value.observed_max > value.observed_upper + _SLACK:
            yield f"{path}.observed_max is {value.observed_max:g}, above its bound of {value.observed_upper:g}"


def _of_steps(value: Trend, path: str) -> Iterator[str]:
    columns = (value.values, value.low, value.high)
    if any(len(column) != len(value.steps) for column in columns):
        yield f"{path} has {len(value.steps)} steps and other numbers of values"
        return
    for step, at, low, high in zip(value.steps, *columns, strict=True):
        known = [each for each in (low, at, high) if each is not None and not math.isnan(each)]
        if any(a > b + _SLACK * max(1e-6, abs(b)) for a, b in pairwise(known)):
            yield f"{path} of step {step} is outside its interval"


def _of_mean(value: Statistic | Interval, name: str, path: str) -> Iterator[str]:
    mean = value.mean if isinstance(value, Statistic) else value.value
    if mean is None or math.isnan(mean):
        return
    if name in _FINITE and math.isinf(mean):
        yield f"{path} is infinite"
    for what, end, beyond in (("low", value.low, -1), ("high", value.high, 1)):
        if end is None:
            continue
        if math.isinf(end) and math.isfinite(mean):
            yield f"{path}.{what} is infinite, of a mean of {mean:g}"
        if beyond * (mean - end) > _SLACK * max(1e-6, abs(mean)):
            yield f"{path} is {mean:g}, outside its interval ({what} {end:g})"
    if name in _SHARES and not -_SLACK <= mean <= 1 + _SLACK:
        yield f"{path} is {mean:g}, which is no share"


def _of_quantiles(value: Statistic, name: str, path: str) -> Iterator[str]:
    known = [(each, getattr(value, each)) for each in ("p50", "p90", "p99", "p999", "max")]
    known = [(each, at) for each, at in known if at is not None and not math.isnan(at)]
    for (lower, low), (upper, high) in pairwise(known):
        if low > high + _SLACK * abs(high):
            yield f"{path}.{lower} is {low:g}, above {upper} of {high:g}"
    for each, at in known:
        if name in _SHARES and not -_SLACK <= at <= 1 + _SLACK:
            yield f"{path}.{each} is {at:g}, which is no share"
        if name in _FINITE and math.isinf(at):
            yield f"{path}.{each} is infinite"
