"""Were the tokens drawn from the distribution whose log-probs are given, and is it the reference's at another
temperature or with ids cut off?"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from ...comparison.law_alarms import RATIO_CONFIDENCE, RATIO_TOLERANCE, ratio_alarm, temperature_alarm
from ...comparison.log_odds import LogOddsFit
from ...comparison.pair import PolicyPair
from ...measures.log_results import DistributionCheck
from ...measures.results import Interval
from ...measures.temperature import temperature_at_equal_entropy
from ...reports.text import estimate, number, share
from .examined import ExaminedResponses
from .kept_set import KeptSet

_ENOUGH = 200  # tokens, as for the alarm
_ONE_SIDED = 0.8
_TEMPERATURES_SET = 0.05
"""Nobody sets two temperatures nearer to each other, and training sharpens or flattens a policy by as much."""


def law_checks(pair: PolicyPair, examined: ExaminedResponses, kept_set: KeptSet) -> list[DistributionCheck]:
    on_kept_sets = kept_set.ratio(tokens=pair.statistics.tokens, confidence=RATIO_CONFIDENCE)
    return [temperature_check(pair, examined), *_ratio_checks(pair, on_kept_sets)]


def temperature_check(pair: PolicyPair, examined: ExaminedResponses) -> DistributionCheck:
    """The factor between both sides' log-odds; where it is a temperature, that temperature.

    A factor is nearer to 1 than the temperature where several tokens share the rest of the mass, so that one is
    named where the log has entropies.
    """
    fit = pair.statistics.log_odds
    if fit is None or fit.n < _ENOUGH:
        return DistributionCheck(
            code="temperature",
            status="unknown",
            sentence=f"Fewer than {_ENOUGH} tokens are uncertain enough to fit a temperature.",
            of=0 if fit is None else fit.n,
        )
    low, high = factor_interval(fit, pair.context.confidence)
    evidence: dict[str, float | None] = {
        "factor": fit.factor,
        "low": low,
        "high": high,
        "explained": fit.explained,
        "t": fit.t,
    }
    line = (
        f"The log-odds of the reference are {estimate(fit.factor, low, high)} times the behaviour's, which "
        f"explains {share(fit.explained)} of how they differ"
    )
    for alarm in temperature_alarm(pair):
        if abs(fit.factor - 1) < _TEMPERATURES_SET:
            sharper = "sharpened" if fit.factor > 1 else "flattened"
            return DistributionCheck(
                code="temperature",
                status="pass",
                sentence=f"{line}: a policy that training {sharper} since the responses were sampled, or "
                "temperatures that differ by as much.",
                of=fit.n,
                evidence=evidence | {"sharpness": fit.factor},
            )
        best = best_temperature(examined, pair.context.confidence)
        if best is None:
            ending = "The quotient of both temperatures is that, or farther from 1."
        else:
            ending = (
                f"The best-fit temperature is {estimate(best.value, best.low, best.high)} times the reference's."
            )
            evidence |= {"temperature": best.value, "temperature_low": best.low, "temperature_high": best.high}
        return DistributionCheck(
            code="temperature",
            status="fail",
            sentence=f"{alarm.message} {ending}",
            of=fit.n,
            evidence=evidence,
            fix="log both sides at one temperature: the trainer divides its logits by the sampler's; other "
            "weights, sharpened by training, look alike",
        )
    return DistributionCheck(
        code="temperature",
        status="pass",
        sentence=f"{line}: no temperature.",
        of=fit.n,
        evidence=evidence,
    )


def best_temperature(examined: ExaminedResponses, confidence: float) -> Interval | None:
    """The behaviour's temperature over the reference's; None for a log without entropies."""
    of_CW = examined.counts_CW & np.isfinite(examined.entropy_CW)
    if not of_CW.any():
        return None
    cluster_CW = np.broadcast_to(examined.cluster_C[:, None], of_CW.shape)
    return temperature_at_equal_entropy(
        examined.scored_mu_CW[of_CW],
        examined.scored_pi_CW[of_CW],
        examined.entropy_CW[of_CW].astype(np.float64),
        cluster_CW[of_CW],
        confidence=confidence,
    )


def factor_interval(fit: LogOddsFit, confidence: float) -> tuple[float, float]:
    """The interval of the factor, from that of the line's slope, with the prompt as the unit."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    error = abs(fit.slope / fit.t) if fit.t else 0.0
    ends = (max(-1.99, min(1.99, fit.slope + sign * z * error)) for sign in (-1, 1))
    low, high = ((2 + slope) / (2 - slope) for slope in ends)
    return low, high


def _ratio_checks(pair: PolicyPair, on_kept_sets: Interval | None) -> list[DistributionCheck]:
    """The mean ratio against 1, and whether what it lacks or exceeds is all on one side.

    Where the sampler's kept sets are known, what they leave out is no fault: the ratio on them is to be 1.
    """
    sums = pair.statistics.sums
    mean = sums["ratio"].interval(confidence=pair.context.confidence)
    if mean.value is None or mean.low is None or mean.high is None:
        said = "Too few prompts bound the mean ratio."
        return [
            DistributionCheck(code=code, status="unknown", sentence=said, of=mean.n)
            for code in ("mean_ratio", "one_sided")
        ]
    below = sums["shortfall"].mean
    distance = mean.value - 1 + 2 * below
    one_sided = (1 - mean.value) / distance if distance > 0 else 0.0
    evidence = {"mean": mean.value, "low": mean.low, "high": mean.high, "one_sided": one_sided}
    shown = estimate(mean.value, mean.low, mean.high)
    renormalised, is_one = "", False
    if on_kept_sets is not None and on_kept_sets.low is not None and on_kept_sets.high is not None:
        renormalised = "; with the reference renormalised on the sampler's kept sets it is "
        renormalised += estimate(on_kept_sets.value, on_kept_sets.low, on_kept_sets.high)
        is_one = on_kept_sets.low - RATIO_TOLERANCE <= 1 <= on_kept_sets.high + RATIO_TOLERANCE
    alarm = next(iter(ratio_alarm(pair)), None)
    if alarm is None or is_one:
        return [
            DistributionCheck(
                code="mean_ratio",
                status="pass",
                sentence=f"The mean ratio is {shown}{renormalised}; 1 is expected of tokens drawn from μ.",
                of=mean.n,
                evidence=evidence,
            ),
            DistributionCheck(
                code="one_sided",
                status="pass",
                sentence="What lies below 1 is what the sampler's kept sets leave out."
                if alarm is not None
                else "Ratios above 1 and below 1 balance each other.",
                of=mean.n,
                evidence=evidence,
            ),
        ]
    checks = [
        DistributionCheck(
            code="mean_ratio",
            status="fail",
            sentence=f"{alarm.message.rstrip('.')}{renormalised}.",
            of=mean.n,
            evidence=evidence | alarm.evidence,
            fix=alarm.remedy,
        )
    ]
    return [*checks, _one_sided(one_sided, shown, evidence, mean.n)]


def _one_sided(index: float, shown: str, evidence: dict[str, float], n: int) -> DistributionCheck:
    if index > _ONE_SIDED:
        sentence = (
            f"The reference is below the behaviour nearly everywhere: as if the sampler had cut ids off (top-p, "
            f"top-k, greedy) and the reference had not. The kept mass would be {shown}."
        )
        fix = "record the sampler's kept set and renormalise the reference on it; or use top-p 1 and no top-k"
    elif index < -_ONE_SIDED:
        sentence = (
            "The reference is above the behaviour nearly everywhere: as if the reference's log-probs were "
            f"renormalised on fewer ids, or the behaviour's were raw. The mean ratio is {shown}."
        )
        fix = "log the log-probs after the sampler's transforms, and the reference's over the whole vocabulary"
    else:
        return DistributionCheck(
            code="one_sided",
            status="pass",
            sentence=f"Ratios lie on both sides of 1 (imbalance {number(index)}; 1 where all lie below it).",
            of=n,
            evidence=evidence,
        )
    return DistributionCheck(code="one_sided", status="fail", sentence=sentence, of=n, evidence=evidence, fix=fix)
