"""What every format says, in words and in order; the formats themselves only decide how it looks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..measures.results import Alpha, Exceedance, Interval, SequenceMeasures, Statistic, TokenMeasures
from .difference_fields import Difference, RoundingSize
from .document import Floor, GateResult, Report
from .glossary import ALPHA, EXACT, SEQUENCE, SHORT_SEQUENCE, SHORT_TOKEN, SUPERSEDED, TOKEN, Measure
from .sides import compared
from .text import UNKNOWN, count, estimate, number, share


class Headline(NamedTuple):
    """`tone` is good, bad, caution or neutral; a renderer gives it a colour."""

    badge: str
    tone: str
    sentence: str
    compared: str
    scope: str


class Row(NamedTuple):
    label: str
    value: str
    note: str = ""


# Below so many prompts the coverage of the intervals falls short: benchmarks/results/calibration.md.
_FEW_PROMPTS = 32
_GATE_TONE = {"pass": "good", "fail": "bad", "inconclusive": "caution"}
_FINDING = {
    "identical": ("equal", "good"),
    "within_floor": ("within floor", "good"),
    "above_floor": ("mismatch", "caution"),
    "unresolved": ("unresolved", "caution"),
    "no_floor": ("measured", "neutral"),
    "probe": ("probed", "neutral"),
    "log": ("measured", "neutral"),
    "log_moved": ("moved", "caution"),
    "log_in_doubt": ("in doubt", "bad"),
}
# Above the floor and no larger than others have seen with such dtypes: real, and no reason for alarm by its size.
_SMALL = ("difference", "neutral")
_SMALL_TV, _SMALL_SHARE = 1e-3, 1e-3


def headline(report: Report) -> Headline:
    """The gate's verdict where there are gates, else the finding; then how much was looked at, and how."""
    badge, tone = _FINDING[report.finding.code]
    if report.finding.code == "above_floor" and is_small(report):
        badge, tone = _SMALL
    if report.verdict != "none":
        badge, tone = report.verdict, _GATE_TONE[report.verdict]
    if report.verdict == "pass" and report.finding.code == "log_in_doubt":
        tone = "caution"
    counts = report.counts
    partial = f" at {counts.full_states:,} of them" if 0 < counts.full_states < counts.tokens else ""
    scope = (
        f"{count(counts.prompts, 'prompt')}, {count(counts.sequences, 'response')}, {count(counts.tokens, 'token')}"
        f" · {report.evidence} evidence{partial}{_why_evidence(report)} · {report.policy} policy"
    )
    sentence = " ".join(filter(None, [_on_the_verdict(report), report.finding.sentence]))
    return Headline(badge.upper(), tone, sentence, compared(report), scope)


def _on_the_verdict(report: Report) -> str | None:
    """What a person must know who reads the verdict alone."""
    counts = report.counts
    if report.verdict == "inconclusive" and counts.too_many_rejected:
        rows = counts.rejected / (counts.tokens + counts.rejected)
        responses = counts.rejected_responses / (counts.sequences + counts.rejected_responses)
        lost, what = max((rows, "rows"), (responses, "responses"))
        return f"Nothing passes: {share(lost)} of the {what} are rejected, more than {share(counts.max_rejected)}."
    if report.verdict in ("pass", "fail") and report.finding.code == "log_in_doubt":
        return "By the gates alone."
    return None


def _why_evidence(report: Report) -> str:
    choice = report.evidence_choice
    if choice is None:
        return ""
    return f" ({choice.why}; {choice.restore} would record them)" if choice.restore else f" ({choice.why})"


def is_small(report: Report) -> bool:
    """Whether the gap is no larger than public figures of such a pair of dtypes or, where none is known, whether
    mean TV and the share of ratios outside 0.8 – 1.2 are both below 0.001. An infinite KL is never small."""
    reading, mean = report.reading, report.alpha1.mean.value
    if any(alarm.code == "impossible_tokens" for alarm in report.alarms):
        return False
    if reading.place is not None:
        return reading.place.position != "above"
    return mean is not None and mean < _SMALL_TV and (reading.outside_band or 0.0) < _SMALL_SHARE


def not_compared(report: Report) -> str | None:
    """What was seen and could not be compared, or None when that is nothing."""
    row = "row" if report.log is None else "token"
    parts = [
        (report.counts.unmatched_behavior, "response", "only in μ"),
        (report.counts.unmatched_reference, "response", "only in π"),
        (report.counts.masked, row, "masked"),
        (report.counts.rejected, row, "rejected"),
        (report.counts.partial_sequences, "response", "in part"),
    ]
    named = [f"{count(n, thing)} {what}" for n, thing, what in parts if n]
    return f"not compared: {', '.join(named)}" if named else None


def alpha_rows(report: Report, alpha: Alpha) -> list[Row]:
    """One α: the certified lower bound, the upper bound over visited states, the mean, the tolerance bounds."""
    rows = [Row("observed maximum", number(alpha.observed_max), "certified lower bound")]
    if alpha.observed_upper is not None:
        left_out = report.counts.rejected or report.counts.unmatched_behavior or report.counts.masked
        which = "compared" if left_out else "visited"
        rows.append(Row("upper, visited", number(alpha.observed_upper), f"no {which} state exceeds this"))
    elif report.evidence == "sampled":
        rows.append(Row("upper, visited", UNKNOWN, "needs top-k or full evidence"))
    mean = alpha.mean
    rows.append(Row("mean TV", estimate(mean.value, mean.low, mean.high), interval_note(mean)))
    if alpha is report.alpha1:
        rows += _ends_of_mean(report)
    if alpha is report.alpha1 and report.counts.prompts < _FEW_PROMPTS:
        few = f"fewer than {_FEW_PROMPTS}: an interval can miss what a rare prompt does"
        rows.append(Row("few prompts", str(report.counts.prompts), few))
    if (by_prompt := alpha.prompt_mean) is not None and by_prompt.high is not None:
        value = estimate(by_prompt.value, by_prompt.low, by_prompt.high)
        vacuous = by_prompt.low == 0 and by_prompt.high == 1
        note = "too few prompts to bound it" if vacuous else "for any distribution, each prompt weighing the same"
        rows.append(Row("mean over prompts", value, note))
    # Once n is too small for one fraction of the prompts it is for every larger one.
    unresolved = [bound for bound in alpha.tolerance if bound.value is None]
    for bound in [bound for bound in alpha.tolerance if bound.value is not None] + unresolved[:1]:
        value, note = UNKNOWN, bound.reason or f"needs {count(bound.n_needed, 'prompt')}"
        if bound.value is not None:
            value, note = f"≤ {number(bound.value)}", f"with {share(bound.confidence)} confidence"
        rows.append(Row(f"{share(bound.quantile)} of prompts", value, note))
    if alpha.unseen_share is not None:
        note = f"may differ without one in this sample, {share(alpha.mean.confidence)} confidence"
        rows.append(Row("cannot be seen", f"up to {share(alpha.unseen_share)} of prompts", note))
    if tail := alpha.tail:
        note = tail.reason or f"Pareto fit, {count(tail.exceedances, 'exceedance')}"
        rows.append(Row(f"tail model {share(tail.quantile)}", estimate(tail.value, tail.low, tail.high), note))
    return rows


def _ends_of_mean(report: Report) -> Iterable[Row]:
    """What top-k evidence certifies of the visited states' mean TV, around the estimate of it."""
    lower, upper = report.token.tv_lower, report.token.tv_upper
    if report.evidence == "topk" and lower is not None and upper is not None:
        yield Row("mean TV, ends", estimate(None, lower.mean, upper.mean), "certified of the visited states")


def exceeding(known: float | None, lower: float) -> str:
    """A share beyond a threshold: as it is, or what it is at least where the evidence has lower ends alone."""
    if known is not None:
        return share(known)
    digits = 2 - math.floor(math.log10(lower)) if lower > 0 else 0
    return f"≥ {share(math.floor(lower * 10**digits) / 10**digits)}"  # rounded up it would claim too much


def interval_note(mean: Interval) -> str:
    """What the interval of a mean is, or why there is none."""
    if mean.value is None and mean.low is not None:
        return f"no estimate, {share(mean.confidence)} limits of the certified ends"
    method = (mean.method or "").replace("-", " ").replace("cluster", "prompt")
    if mean.low is None and mean.high is None:
        return f"no interval: {method}" if method else "no interval"
    if mean.low == mean.high and method:  # an interval without width says how the values were, not how sure
        return f"{method}, {count(mean.clusters, 'prompt')}"
    return f"{share(mean.confidence)} interval, {count(mean.clusters, 'prompt')}"


def floor_rows(report: Report) -> list[Row]:
    """What the same measure shows with nothing changed, and what is left above it."""
    floors = report.floor
    rows = [
        _floor_row(f"repeat floor of {side}", floor)
        for side, floor in (("μ", floors.behavior), ("π", floors.reference))
        if floor is not None
    ] or [Row("repeat floor", UNKNOWN, "no repeat was compared")]
    if excess := floors.excess:
        rows.append(
            Row("above the floor", estimate(excess.value, excess.low, excess.high), "mean TV less the larger floor")
        )
    if report.truncation_floor:
        rows.append(
            Row(
                "truncation floor",
                number(report.truncation_floor),
                "cut-off ids alone make this",
            )
        )
    if report.rounding_floor is not None:
        rows.append(Row("rounding floor", number(report.rounding_floor), "rounded logits can make this"))
    return rows


def _floor_row(label: str, floor: Floor) -> Row:
    batches = f", {floor.composition} batches" if floor.composition else ""
    if floor.identical:
        return Row(label, "0", f"bit-identical{batches}")
    mean = floor.mean
    return Row(label, estimate(mean.value, mean.low, mean.high), f"max {number(floor.observed_max)}{batches}")


def gate_value(gate: GateResult) -> str:
    """The figure a gate was decided on, with its interval where it has one."""
    if gate.low == gate.high == gate.value:
        return number(gate.value)
    if gate.value is None and gate.low is not None:
        return f"[{number(gate.low)}, {number(gate.high)}]"
    return estimate(gate.value, gate.low, gate.high)


def decades(curve: Sequence[Exceedance], limit: int = 4) -> list[Exceedance]:
    """The few points of an exceedance curve that a small table shows: powers of ten, ending in the tail."""
    round_taus = [p for p in curve if 0 < p.tau < 1 and abs(math.log10(p.tau) - round(math.log10(p.tau))) < 0.01]
    return round_taus[-limit:]


def token_statistics(report: Report, short: bool = False) -> list[tuple[Measure, Statistic]]:
    """The token measures that are known, in reading order; `short`: the few that an engineer needs first."""
    found = _known(report.token, TOKEN)
    if not short:
        return found
    # What full evidence makes redundant, or else what is said better by another figure that is there.
    redundant = set(EXACT) if report.evidence == "full" else set()
    redundant |= {worse for measure, _ in found for worse in SUPERSEDED.get(measure.key, ())}
    return [(m, statistic) for m, statistic in found if m.key in SHORT_TOKEN and m.key not in redundant]


def sequence_statistics(report: Report, short: bool = False) -> list[tuple[Measure, Statistic]]:
    """The measures of whole responses that are known, in reading order."""
    return [(m, s) for m, s in _known(report.sequence, SEQUENCE) if not short or m.key in SHORT_SEQUENCE]


def _known(values: TokenMeasures | SequenceMeasures, order: tuple[Measure, ...]) -> list[tuple[Measure, Statistic]]:
    return [(m, getattr(values, m.key)) for m in order if getattr(values, m.key) is not None]


def three_policies(report: Report) -> list[tuple[str, str, Alpha]]:
    """(symbol, meaning, figures) of α₁, α₀ and β; empty where there is no target policy."""
    if report.alpha0 is None and report.beta is None:
        return []
    return [
        (*ALPHA[name], alpha)
        for name, alpha in (("alpha1", report.alpha1), ("alpha0", report.alpha0), ("beta", report.beta))
        if alpha is not None
    ]


DIFFERENCES = "what differs between the two sides"


def causes(differences: Iterable[Difference]) -> list[Difference]:
    """Provenance differences, the largest possible effect first, the ones with no known effect last."""
    return sorted(differences, key=lambda d: (d.rank == 0, d.rank, d.key))


def size_remark(size: RoundingSize | None, differences: Sequence[Difference]) -> str | None:
    """What the size of the mismatch says of what differs; None where it is not known."""
    if size is None:
        return None
    times = f"{number(size.times)} times what rounding usually does"
    if not size.beyond:
        return f"The log-probs differ by {times}: rounding can explain that. Another cause is not excluded."
    if any(difference.rank for difference in differences):
        return f"The log-probs differ by {times}: rounding is no explanation; what has a reason here can be one."
    named = "None of these differences" if differences else "Nothing that was recorded"
    return (
        f"{named} is known to move the log-probs this far, {times}: look for another weight, adapter, "
        "configuration or template, and for log-probs of other tokens."
    )
