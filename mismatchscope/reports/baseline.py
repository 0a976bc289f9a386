"""What every format says of a version audit: the new engine, the old one and the trainer, on the same tokens.

`baseline` is the report's, of a report that has one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..measures.results import Statistic
from .document import BaselineComparison, Report
from .pair_fields import PairSummary
from .text import UNKNOWN, estimate, number

VERDICT_TONE = {
    "unchanged": "good",
    "better": "good",
    "changed": "caution",
    "worse": "bad",
    "inconclusive": "caution",
}

PAIRED_MEANING = "New less old, paired by state: negative is closer to the trainer"


class PairRow(NamedTuple):
    """One pair of policies, in words."""

    label: str
    mean_tv: str
    observed_max: str
    kl: str
    abs_logprob_diff: str
    identical: str


def compared_engines(report: Report, baseline: BaselineComparison) -> str:
    """Who is new, who is old and who trains, on one line."""
    sides = {
        "new": report.provenance.behavior,
        "old": baseline.provenance,
        "trainer": report.provenance.reference,
    }
    return ", ".join(f"{name} {_engine(side)}" for name, side in sides.items())


def _engine(provenance: dict[str, Any]) -> str:
    known = [provenance[key] for key in ("engine", "engine_version") if provenance.get(key)]
    return " ".join(map(str, known)) or "unknown"


def pair_rows(report: Report, baseline: BaselineComparison, intervals: bool = True) -> list[PairRow]:
    """The three pairs; `intervals`: of KL and |Δ log p| too, where there is room for them."""
    new_reference = PairSummary(
        alpha=report.alpha1,
        tv=report.token.tv,
        kl=report.token.kl,
        kl_lower=report.token.kl_lower,
        abs_logprob_diff=report.token.abs_logprob_diff,
        identical=report.finding.code == "identical",
    )
    pairs = {
        "new – trainer": new_reference,
        "old – trainer": baseline.old_reference,
        "new – old": baseline.new_old,
    }
    return [
        PairRow(
            label=label,
            mean_tv=estimate(pair.alpha.mean.value, pair.alpha.mean.low, pair.alpha.mean.high),
            observed_max=number(pair.alpha.observed_max),
            kl=f"≥ {number(pair.kl_lower.mean)}"
            if pair.kl is None and pair.kl_lower
            else _mean(pair.kl, intervals),
            abs_logprob_diff=_mean(pair.abs_logprob_diff, intervals),
            identical="yes" if pair.identical else "no",
        )
        for label, pair in pairs.items()
    ]


def _mean(statistic: Statistic | None, interval: bool) -> str:
    if statistic is None:
        return UNKNOWN
    return estimate(statistic.mean, *((statistic.low, statistic.high) if interval else ()))


def paired_rows(baseline: BaselineComparison) -> list[tuple[str, str]]:
    """(figure, its paired difference with its interval), of the figures that both pairs have; of equals, none."""
    if baseline.new_old.identical:
        return []
    differences = {
        "TV": baseline.tv_difference,
        "KL": baseline.kl_difference,
        "|Δ log p|": baseline.abs_logprob_difference,
    }
    return [(name, estimate(mean.value, mean.low, mean.high)) for name, mean in differences.items() if mean]
