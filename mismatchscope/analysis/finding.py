"""The one sentence that the report of a log begins with."""

from __future__ import annotations

from collections.abc import Sequence

from ..measures.log_results import DistributionCheck, Trend, Trends
from ..measures.results import Alpha
from ..reports.document import Counts, Finding
from ..reports.text import count, estimate, number


def log_finding(
    alpha: Alpha, counts: Counts, checks: Sequence[DistributionCheck], trends: Trends | None, *, identical: bool
) -> Finding:
    """Whether the columns are what they should be; then how far apart the policies are, and whether that moved.

    `identical` says that no recorded log-prob differs in a bit. Illegal values are in no figure, so they cast doubt
    on none. No level is called safe or unsafe. A policy that training has sharpened is said beside the rest: its
    columns are what they should be.
    """
    sample = f"({count(counts.tokens, 'token')} of {count(counts.prompts, 'prompt')})"
    mean = estimate(alpha.mean.value, alpha.mean.low, alpha.mean.high)
    measured = f"mean TV {mean}, α₁ ≥ {number(alpha.observed_max)}"
    failed = [check for check in checks if check.status == "fail" and check.code != "illegal_values"]
    if failed:
        more = f" {count(len(failed) - 1, 'other check')} failed too." if len(failed) > 1 else ""
        doubt = f"The figures are in doubt: {failed[0].sentence.rstrip('.')}.{more}"
        return Finding(code="log_in_doubt", sentence=f"{doubt} As they are, {measured} {sample}.")
    if identical:
        return Finding(code="identical", sentence=f"Bit-identical: no logged log-prob differs at all {sample}.")
    moved = None if trends is None else _moved(trends)
    sharpness = [check.sentence for check in checks if "sharpness" in check.evidence]
    if moved is not None:
        said = [f"{moved}; over the whole log {measured} {sample}.", *sharpness]
        return Finding(code="log_moved", sentence=" ".join(said))
    return Finding(code="log", sentence=" ".join([f"Over the whole log: {measured} {sample}.", *sharpness]))


def _moved(trends: Trends) -> str | None:
    """What became of the first of these figures that is worse than in its own first steps."""
    for label, trend, falls_to in (
        ("ESS / N", trends.sequence.ess_fraction, _ess_of_length(trends)),
        ("Mean TV", trends.token.tv, None),
        ("KL(μ‖π)", trends.token.kl, None),
    ):
        if trend is not None and _is_apart(trend, falls_to):
            (first, last), (late, latest) = trend.first_steps, trend.last_steps
            of_it = f"is {number(trend.relative.value)} of what it was in steps {first:,}–{last:,}"
            return f"{label} of steps {late:,}–{latest:,} {of_it}{_at_like_certainty(trends)}"
    return None


def _at_like_certainty(trends: Trends) -> str:
    """All three are worse of states that are less certain, with errors of the logits alike."""
    tv = trends.token.tv_of_impurity
    if tv is None or tv.relative.value is None:
        return ""
    return f" (TV at like certainty: {estimate(tv.relative.value, tv.relative.low, tv.relative.high)} times)"


def _is_apart(trend: Trend, falls_to: float | None) -> bool:
    """Whether the last steps are worse than the first ones, and the slope says so too: either alone is wrong more
    often. A figure that is worse when it falls has to fall below `falls_to` times its first level."""
    relative, slope = trend.relative, trend.slope
    if falls_to is not None:
        return relative.high is not None and relative.high < falls_to and slope.high is not None and slope.high < 0
    return relative.low is not None and relative.low > 1 and slope.low is not None and slope.low > 0


def _ess_of_length(trends: Trends) -> float:
    """How far longer responses alone may take ESS / N down, relative to its first level.

    Of log-normal weights −log ESS / N is the variance of log ρ(y), which grows with the length of a random walk, or
    with its square where the error of a response is of one sign.
    """
    ess, length = trends.sequence.ess_fraction, trends.run.response_length
    if ess is None or length is None:
        return 1.0
    times = max(length.relative.value or 1.0, length.relative.high or 1.0, 1.0)
    first = [
        value for step, value in zip(ess.steps, ess.values, strict=True) if step <= ess.first_steps[1] and value
    ]
    return float((sum(first) / len(first)) ** (times**2 - 1)) if first else 1.0
