"""Do the log-probs describe the law that the tokens were drawn from, and does one side divide its logits further?

E_μ ρ = 1 − leak for every π, as long as the tokens were drawn from the μ whose log-probs are given. A
temperature in π, older weights or other kernels leave it there.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..measures.accumulators import paired
from ..measures.intervals import ratio_interval
from ..reports.document import Alarm
from .pair import PolicyPair
from .statistics import PairStatistics

RATIO_CONFIDENCE = 0.9999
"""At 95 % one sound run in twenty would be alarmed."""

RATIO_TOLERANCE = 1e-5
"""The log-probs of an engine are off by as much: float32 softmax, and their own last digit."""

_UNSEEN = 30
"""A mean of heavy-tailed ratios is below 1 in most samples: rare tokens hold the rest. It is called low where the
missing sum is more than so many tokens of the largest ratio that was seen."""

_HOW = {True: "", False: " (--reference-temperature), or compare --policy raw"}
"""By whether the policies are raw already."""

_TEMPERATURE_CONFIDENCE = 0.95
_TEMPERATURE_TOKENS = 200
_TEMPERATURE_FACTOR = 0.005  # nobody sets a temperature nearer to 1
_TEMPERATURE_T = 6.0
_TEMPERATURE_EXPLAINS = 0.3
_TEMPERATURE_CORRELATION = 0.9
"""A temperature keeps the two log-odds in step, and its line explains most of how they differ. In the audits of
benchmarks/calibration_alarms.py: an R² of 0.7 and more at τ = 0.95 and beyond, below 0.1 for rounding, and below
0.25 for other weights, whose correlation is below 0.9 by then."""


def ratio_alarm(pair: PolicyPair) -> Iterator[Alarm]:
    """The mean ratio is not 1 − leak, so the tokens were not drawn from the stated μ, or a leak was not seen."""
    ratio, expected = pair.statistics.sums["ratio"], _expected_ratio(pair.statistics)
    mean = ratio.interval(confidence=RATIO_CONFIDENCE)
    if mean.value is None or mean.low is None or mean.high is None:
        return
    not_drawn = "the tokens were not drawn from the stated μ, or a column does not hold their log-probs"
    if mean.low > expected + RATIO_TOLERANCE:
        says = f"more than any π can give on tokens drawn from μ, so {not_drawn}"
    elif not _is_low(pair.statistics, RATIO_CONFIDENCE):
        return
    elif pair.statistics.all_exact:
        says = f"less than π can give on tokens drawn from μ, so {not_drawn}"
    else:
        says = f"π has mass where μ has none or next to none, or {not_drawn}"
    value, target = _told_apart(mean.value, expected)
    yield Alarm(
        code="mean_ratio",
        message=f"The mean ratio is {value}, not {target}: {says}.",
        evidence={"mean": mean.value, "low": mean.low, "high": mean.high, "expected": expected},
        remedy="look for raw log-probs of a tempered sampler, top-p, top-k, min-p or a penalty, zeros or tool "
        "tokens in a column, or the likeliest token's log-prob in place of the drawn one's",
    )


def temperature_alarm(pair: PolicyPair) -> Iterator[Alarm]:
    """One side's log-odds are a multiple of the other's, in either direction.

    Ids cut off on one side tilt the log-odds as well, but lower the mean ratio, which a temperature does not.
    """
    fit = pair.statistics.log_odds
    if fit is None or fit.n < _TEMPERATURE_TOKENS or abs(fit.t) < _TEMPERATURE_T:
        return
    if fit.explained < _TEMPERATURE_EXPLAINS or fit.correlation < _TEMPERATURE_CORRELATION:
        return
    if abs(fit.factor - 1) < _TEMPERATURE_FACTOR:
        return
    if pair.context.on_policy and _is_low(pair.statistics, _TEMPERATURE_CONFIDENCE):
        return
    sharper = "reference" if fit.factor > 1 else "behaviour"
    yield Alarm(
        code="temperature",
        message=f"The log-odds of the reference are about {fit.factor:.3g} times the behaviour's, which explains "
        f"{fit.explained:.0%} of how they differ: as if the {sharper} divided its logits by a lower temperature.",
        evidence={"factor": fit.factor, "explained": fit.explained, "t": fit.t, "correlation": fit.correlation},
        remedy=f"give both sides one temperature{_HOW[pair.context.policy == 'raw']}; other weights, sharpened by "
        "training, look alike",
    )


def _expected_ratio(statistics: PairStatistics) -> float:
    """1 − leak, as far as a leak was seen."""
    leak = statistics.sums["leak"]
    return 1.0 - leak.mean if leak.n else 1.0


def _is_low(statistics: PairStatistics, confidence: float) -> bool:
    """Whether the mean ratio is below 1 − leak for another reason than a few rare tokens that hold the rest.

    Where every distribution was seen, that is whether the drawn tokens' (1 − ρ)₊, which is bounded, misses the
    exact TV that it estimates.
    """
    ratio, expected = statistics.sums["ratio"], _expected_ratio(statistics)
    high = ratio.interval(confidence=confidence).high
    if high is None or high >= expected - RATIO_TOLERANCE:
        return False
    if statistics.all_exact:
        shortfall_C, tv_C, count_C = paired(statistics.sums["shortfall"], statistics.sums["tv"])
        drawn = ratio_interval(shortfall_C - tv_C, count_C, confidence=confidence)
        return drawn.low is not None and drawn.high is not None and not drawn.low <= 0 <= drawn.high
    return (expected - ratio.mean) * ratio.n > _UNSEEN * ratio.largest


def _told_apart(value: float, other: float) -> tuple[str, str]:
    """Both numbers with so many digits that they read differently."""
    for digits in range(4, 18):
        shown = f"{value:.{digits}g}", f"{other:.{digits}g}"
        if shown[0] != shown[1]:
            return shown
    raise ValueError(f"{value} and {other} are the same number")
