"""Thresholds over a finished report: fail, pass or inconclusive, decided on the ends between which a figure lies.

A gate is `PATH OP NUMBER`: the condition under which it *fails*.

    token.kl.mean > 0.001            fail when the whole interval is beyond the threshold, pass when the whole
                                     interval is within it, inconclusive between
    counts.rejected > 0              what is exact is compared as it stands
    alpha1.observed_max > 0.2        a bound decides on its own side: a lower one can fail this, never pass it
    alpha1.mean.high > 0.02          an end of an interval, named, is compared as it stands
    token.kl.mean > +10%             against a baseline report: 10 % more than there
    token.tv.mean > +0.002           against a baseline report: 0.002 more than there
    token.k1.mean < (-0.002)         a number below 0 that is no difference stands in brackets

What is known of a figure: `reports.figure_ends`. Of two reports: `reports.changes`.
"""

from __future__ import annotations

import math
import operator
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from .errors import ConfigError, EmptyComparisonError, NotComparableError
from .reports.changes import change
from .reports.figure_ends import Figure
from .reports.figure_paths import check_path, figure_at
from .reports.sampling_keys import sampling_differences

if TYPE_CHECKING:
    from .reports.document import GateResult, Report

GateVerdict = Literal["pass", "fail", "inconclusive"]

_OPERATORS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_GRAMMAR = re.compile(
    r"\s*(?P<path>[A-Za-z_][\w.-]*?)\s*(?P<op>>=|<=|>|<)\s*"
    rf"(?:\(\s*(?P<itself>[+-]?{_NUMBER})\s*\)|(?P<sign>[+-]?)(?P<number>{_NUMBER})(?P<percent>\s*%)?)\s*"
)

# What must be the same in a report and its baseline for their difference to mean anything.
_WEIGHTS = "the model's weights"
_COMPARABLE = (
    ("model.weights_sha256", _WEIGHTS),
    ("tokenizer_sha256", "the tokenizer"),
    ("prompts_sha256", "the prompts"),
    ("sampling.temperature", "the temperature"),
    ("sampling.top_p", "top-p"),
    ("sampling.top_k", "top-k"),
    ("sampling.max_new_tokens", "the number of new tokens"),
)


class Allowance(StrEnum):
    """A difference from the baseline that is meant. Everything else must agree."""

    OTHER_WEIGHTS = "other-weights"
    """Two checkpoints of one run: has the mismatch grown while the policy was trained?"""


_ALLOWED = {Allowance.OTHER_WEIGHTS: "model.weights_sha256"}
_HASH = re.compile(r"(sha256:)?[0-9a-f]{32,}")


@dataclass(frozen=True)
class Gate:
    """A parsed expression. `relative` is None, "absolute" (`+0.002`) or "percent" (`+10%`)."""

    expression: str
    path: str
    op: str
    number: float
    relative: Literal["absolute", "percent"] | None


def parse(expression: str, check: Callable[[str], None] = check_path) -> Gate:
    """Parse one gate expression. Raises `ConfigError` for bad grammar, and as `check` does for a path at which no
    report has a figure."""
    match = _GRAMMAR.fullmatch(unicodedata.normalize("NFC", expression))  # as the names of entries are
    if match is None:
        raise ConfigError(
            f"'{expression}' is not a gate: it must read PATH OP NUMBER, as in 'token.tv.p99 > 0.05'.",
            hint="OP is one of > >= < <=; +10% and +0.002 are relative to --baseline, (-0.002) is a number itself",
        )
    sign, percent = match["sign"], match["percent"]
    if percent and not sign:
        raise ConfigError(
            f"'{expression}' is ambiguous: a percentage is relative to a baseline and needs a sign.",
            hint=f"write it as '{match['path']} {match['op']} +{match['number']}%'",
        )
    number = float(match["itself"] or f"{sign}{match['number']}")
    if not math.isfinite(number):
        raise ConfigError(
            f"'{expression}' decides nothing: its number is beyond any figure.", hint="write a smaller number"
        )
    if percent and number < -100:
        raise ConfigError(f"'{expression}' asks for less than nothing.", hint="a fall is at most -100%")
    relative: Literal["absolute", "percent"] | None = "percent" if percent else "absolute" if sign else None
    check(match["path"])
    return Gate(expression.strip(), match["path"], match["op"], number, relative)


def apply(
    report: Report,
    expressions: Sequence[str],
    baseline: Report | None = None,
    *,
    allowed: Collection[Allowance] = (),
) -> Report:
    """Decide every gate and return the report with `gates` and `verdict` filled in.

    `allowed` names what may be different in the baseline.

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
        check_comparable(report, baseline, allowed)
    results = [_decide(gate, report, baseline) for gate in gates]
    verdict = overall(results)
    incomplete = report.probe is not None and not report.probe.complete
    if verdict == "pass" and (incomplete or report.counts.too_many_rejected):
        verdict = "inconclusive"
    return report.model_copy(update={"gates": results, "verdict": verdict})


def check_without_baseline(expressions: Sequence[str]) -> None:
    """Raise `ConfigError`, before a long run, for a gate that could not be decided at its end."""
    for expression in expressions:
        gate = parse(expression)
        if gate.relative is not None:
            raise _no_baseline(gate)


def overall(results: Sequence[GateResult]) -> GateVerdict:
    """Fail if any fails, else inconclusive if any is, else pass."""
    verdicts = {result.verdict for result in results}
    return next(verdict for verdict in ("fail", "inconclusive", "pass") if verdict in verdicts)


def check_comparable(report: Report, baseline: Report, allowed: Collection[Allowance] = ()) -> None:
    """Raise `NotComparableError` naming everything that makes the two reports answers to different questions."""
    differences = [
        f"{what} ({_short(ours)} here, {_short(theirs)} in the baseline)"
        for what, ours, theirs in (
            ("the evidence level", report.evidence, baseline.evidence),
            ("the policy", report.policy, baseline.policy),
            *_provenance_pairs(report, baseline, allowed),
        )
        if ours != theirs
    ]
    if differences:
        only_weights = len(differences) == 1 and differences[0].startswith(_WEIGHTS)
        raise NotComparableError(
            f"The report and its baseline cannot be compared. What differs: {'; '.join(differences)}.",
            hint="of two checkpoints of one run, add --allow other-weights"
            if only_weights
            else "make the baseline again with the same model, prompts, sampling and evidence",
        )


def _short(value: Any) -> Any:
    """A hash by its first digits, anything else as it is."""
    return value[:12] if isinstance(value, str) and _HASH.fullmatch(value) else value


def _provenance_pairs(
    report: Report, baseline: Report, allowed: Collection[Allowance]
) -> Iterator[tuple[str, Any, Any]]:
    skipped = {_ALLOWED[allowance] for allowance in allowed}
    for key, what in _COMPARABLE:
        if key in skipped:
            continue
        ours, theirs = (_lookup(document.provenance.behavior, key) for document in (report, baseline))
        # What a side does not know (a log importer has no weights) cannot contradict the other.
        if ours is not None and theirs is not None:
            yield what, ours, theirs
    ours, theirs = (document.provenance.reference.get("temperature") for document in (report, baseline))
    if ours is not None and theirs is not None:
        yield "the temperature that the reference divides its logits by", ours, theirs
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
    ours = figure_at(report, gate.path)
    if gate.relative is None:
        tested, threshold = ours, gate.number
    elif baseline is None:
        raise _no_baseline(gate)
    else:
        factor = 1.0 + gate.number / 100.0 if gate.relative == "percent" else 1.0
        tested = change(report, baseline, gate.path, factor)
        threshold = gate.number if gate.relative == "absolute" else 0.0
    return decided(gate, ours, tested, threshold)


def decided(gate: Gate, ours: Figure, tested: Figure, threshold: float) -> GateResult:
    """What comes of a gate on a figure of ours, where `tested` is held against the threshold."""
    from .reports.document import GateResult

    verdict, reason = _verdict(tested, gate.op, threshold)
    if verdict == "inconclusive" and reason is None:
        more = "log more steps" if gate.path.startswith("trend.") else "measure more prompts"
        reason = f"the threshold lies inside the interval: {more}"
    return GateResult(
        expression=gate.expression,
        value=ours.value,
        low=ours.low,
        high=ours.high,
        verdict=verdict,
        reason=reason,
    )


def _no_baseline(gate: Gate) -> ConfigError:
    itself = f"; the number itself is written {gate.path} {gate.op} ({gate.number:g})"
    return ConfigError(
        f"'{gate.expression}' is relative to a baseline, and none was given.",
        hint="mismatchscope gate DIR --baseline report.json decides it on a finished report"
        + (itself if gate.relative == "absolute" else ""),
    )


def _verdict(figure: Figure, op: str, threshold: float) -> tuple[GateVerdict, str | None]:
    """Fail when even the end nearest to passing is beyond the threshold; pass when not even the furthest one is.

    Else why it is open, None where that is because the threshold lies inside the interval.
    """
    beyond = _OPERATORS[op]
    nearest, furthest = (figure.low, figure.high) if op in (">", ">=") else (figure.high, figure.low)
    if nearest is not None and beyond(nearest, threshold):
        return "fail", None
    if furthest is not None and not beyond(furthest, threshold):
        return "pass", None
    if nearest is not None and furthest is not None:
        return "inconclusive", figure.reason
    return "inconclusive", figure.reason or "not measured (null)"
