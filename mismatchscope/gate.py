"""Thresholds over a finished report: fail, pass or inconclusive, decided on the confidence bounds.

A gate is `PATH OP NUMBER`: the condition under which it *fails*.

    token.tv.p99 > 0.05              a figure without an interval is compared as it stands
    token.kl.mean > 0.001            a figure with an interval: fail when all of it is beyond the threshold,
                                     pass when all of it is within, inconclusive between
    alpha1.mean.high > 0.02          an end of an interval, named, is compared as it stands
    token.kl.mean > +10%             against a baseline report: 10 % more than there
    token.tv.mean > +0.002           against a baseline report: 0.002 more than there

Two independent intervals are combined by MOVER (Zou and Donner 2008, "Construction of confidence limits about
effect measures"), so that a change smaller than the noise of either report is inconclusive, not a failure.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .errors import ConfigError, EmptyComparisonError, NotComparableError
from .reports.figure_paths import Figure, check_path, figure_at
from .reports.sampling_keys import sampling_differences

if TYPE_CHECKING:
    from .reports.document import GateResult, Report

GateVerdict = Literal["pass", "fail", "inconclusive"]

_OPERATORS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
_GRAMMAR = re.compile(
    r"\s*(?P<path>[A-Za-z_][\w.-]*?)\s*(?P<op>>=|<=|>|<)\s*"
    r"(?P<sign>[+-]?)(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?P<percent>\s*%)?\s*"
)

# What must be the same in a report and its baseline for their difference to mean anything.
_COMPARABLE = (
    ("model.weights_sha256", "the model's weights"),
    ("tokenizer_sha256", "the tokenizer"),
    ("prompts_sha256", "the prompts"),
    ("sampling.temperature", "the temperature"),
    ("sampling.top_p", "top-p"),
    ("sampling.top_k", "top-k"),
    ("sampling.max_new_tokens", "the number of new tokens"),
)


@dataclass(frozen=True)
class Gate:
    """A parsed expression. `relative` is None, "absolute" (`+0.002`) or "percent" (`+10%`)."""

    expression: str
    path: str
    op: str
    number: float
    relative: Literal["absolute", "percent"] | None


def parse(expression: str) -> Gate:
    """Parse one gate expression. Raises `ConfigError` for bad grammar and for a path that no report can have."""
    match = _GRAMMAR.fullmatch(expression)
    if match is None:
        raise ConfigError(
            f"'{expression}' is not a gate: it must read PATH OP NUMBER, as in 'token.tv.p99 > 0.05'.",
            hint="OP is one of > >= < <=; +10% and +0.002 are relative to --baseline",
        )
    sign, percent = match["sign"], match["percent"]
    if percent and not sign:
        raise ConfigError(
            f"'{expression}' is ambiguous: a percentage is relative to a baseline and needs a sign.",
            hint=f"write it as '{match['path']} {match['op']} +{match['number']}%'",
        )
    number = float(match["number"]) * (-1.0 if sign == "-" else 1.0)
    relative: Literal["absolute", "percent"] | None = "percent" if percent else "absolute" if sign else None
    check_path(match["path"])
    return Gate(expression.strip(), match["path"], match["op"], number, relative)


def apply(report: Report, expressions: Sequence[str], baseline: Report | None = None) -> Report:
    """Decide every gate and return the report with `gates` and `verdict` filled in.

    Raises `ConfigError` for a bad expression or path, `EmptyComparisonError` for a report of no tokens, and
    `NotComparableError` when the baseline measured something else.
    """
    if report.counts.tokens == 0:
        raise EmptyComparisonError(
            "The report compares no tokens, so there is nothing to pass.", hint="mismatchscope audit"
        )
    gates = [parse(expression) for expression in expressions]
    if not gates:
        raise ConfigError("No gate was given.", hint="mismatchscope gate DIR --fail-on 'token.tv.p99 > 0.05'")
    if baseline is not None:
        check_comparable(report, baseline)
    results = [_decide(gate, report, baseline) for gate in gates]
    verdict = overall(results)
    if verdict == "pass" and report.counts.too_many_rejected:
        verdict = "inconclusive"
    return report.model_copy(update={"gates": results, "verdict": verdict})


def check_without_baseline(expressions: Sequence[str]) -> None:
    """Raise `ConfigError`, before a long run, for a gate that could not be decided at its end."""
    for expression in expressions:
        if parse(expression).relative is not None:
            raise _no_baseline(expression)


def overall(results: Sequence[GateResult]) -> GateVerdict:
    """Fail if any fails, else inconclusive if any is, else pass."""
    verdicts = {result.verdict for result in results}
    return next(verdict for verdict in ("fail", "inconclusive", "pass") if verdict in verdicts)


def check_comparable(report: Report, baseline: Report) -> None:
    """Raise `NotComparableError` naming everything that makes the two reports answers to different questions."""
    differences = [
        f"{what} ({ours} here, {theirs} in the baseline)"
        for what, ours, theirs in (
            ("the evidence level", report.evidence, baseline.evidence),
            ("the policy", report.policy, baseline.policy),
            *_provenance_pairs(report, baseline),
        )
        if ours != theirs
    ]
    if differences:
        raise NotComparableError(
            f"The report and its baseline cannot be compared: {'; '.join(differences)} differ.",
            hint="make the baseline again with the same model, prompts, sampling and evidence",
        )


def _provenance_pairs(report: Report, baseline: Report) -> Iterator[tuple[str, Any, Any]]:
    for key, what in _COMPARABLE:
        ours, theirs = (_lookup(document.provenance.behavior, key) for document in (report, baseline))
        # What a side does not know (a log importer has no weights) cannot contradict the other.
        if ours is not None and theirs is not None:
            yield what, ours, theirs
    samplings = (document.provenance.behavior.get("sampling") for document in (report, baseline))
    # Other draws of one law are no other question: their intervals say how far apart such samples are.
    named = {key.rpartition(".")[2] for key, _ in _COMPARABLE} | {"seed"}
    for key, (ours, theirs) in sampling_differences(*samplings).items():
        if key not in named:
            yield f"the sampler's {key}", ours, theirs


def _lookup(document: Any, path: str) -> Any:
    for key in path.split("."):
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _decide(gate: Gate, report: Report, baseline: Report | None) -> GateResult:
    from .reports.document import GateResult

    ours = figure_at(report, gate.path)
    if gate.relative is None:
        tested, threshold = ours, gate.number
    elif baseline is None:
        raise _no_baseline(gate.expression)
    else:
        factor = 1.0 + gate.number / 100.0 if gate.relative == "percent" else 1.0
        tested = _excess(ours, figure_at(baseline, gate.path), factor)
        threshold = gate.number if gate.relative == "absolute" else 0.0
    verdict, reason = _verdict(tested, gate.op, threshold)
    return GateResult(
        expression=gate.expression,
        value=ours.value,
        low=ours.low,
        high=ours.high,
        verdict=verdict,
        reason=reason,
    )


def _no_baseline(expression: str) -> ConfigError:
    return ConfigError(
        f"'{expression}' is relative to a baseline, and none was given.",
        hint="mismatchscope gate DIR --baseline report.json decides it on a finished report",
    )


def _verdict(figure: Figure, op: str, threshold: float) -> tuple[GateVerdict, str | None]:
    if figure.value is None or math.isnan(figure.value):
        return "inconclusive", figure.reason or "not measured (null)"
    beyond = _OPERATORS[op]
    if figure.low is None or figure.high is None:
        return ("fail" if beyond(figure.value, threshold) else "pass"), None
    ends = (beyond(figure.low, threshold), beyond(figure.high, threshold))
    if all(ends):
        return "fail", None
    if not any(ends):
        return "pass", None
    return "inconclusive", "the threshold lies inside the interval: measure more prompts"


def _excess(ours: Figure, base: Figure, factor: float) -> Figure:
    """ours − factor · base, with its MOVER interval where both sides have one."""
    if ours.value is None or base.value is None:
        return Figure(None, reason=ours.reason or base.reason)
    value = ours.value - factor * base.value
    if ours.low is None or ours.high is None or base.low is None or base.high is None:
        return Figure(value)
    below = math.hypot(ours.value - ours.low, factor * (base.high - base.value))
    above = math.hypot(ours.high - ours.value, factor * (base.value - base.low))
    return Figure(value, value - below, value + above)
