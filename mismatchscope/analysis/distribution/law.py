"""Were the tokens drawn from the distribution whose log-probs are given, and is it the reference's at another
temperature or with ids cut off?"""

from __future__ import annotations

from ...comparison.law_alarms import ratio_alarm, temperature_alarm
from ...comparison.log_odds import LogOddsFit
from ...comparison.pair import PolicyPair
from ...measures.log_results import DistributionCheck
from ...reports.text import estimate, number, share

_ENOUGH = 200  # tokens, as for the alarm
_ONE_SIDED = 0.8
_Z = 1.959963984540054


def law_checks(pair: PolicyPair) -> list[DistributionCheck]:
    return [temperature_check(pair), *_ratio_checks(pair)]


def temperature_check(pair: PolicyPair) -> DistributionCheck:
    """The factor between both sides' log-odds, which is about the temperature that one of them alone applied."""
    fit = pair.statistics.log_odds
    if fit is None or fit.n < _ENOUGH:
        return DistributionCheck(
            code="temperature",
            status="unknown",
            sentence=f"Fewer than {_ENOUGH} tokens are uncertain enough to fit a temperature.",
            of=0 if fit is None else fit.n,
        )
    low, high = temperature_interval(fit)
    evidence = {"factor": fit.factor, "low": low, "high": high, "explained": fit.explained, "t": fit.t}
    for alarm in temperature_alarm(pair):
        return DistributionCheck(
            code="temperature",
            status="fail",
            sentence=f"The best-fit temperature is {estimate(fit.factor, low, high)}: {_lowered(alarm.message)}",
            of=fit.n,
            evidence=evidence,
            fix="log both sides at one temperature: the trainer divides its logits by the sampler's; other "
            "weights, sharpened by training, look alike",
        )
    return DistributionCheck(
        code="temperature",
        status="pass",
        sentence=f"The best-fit temperature is {estimate(fit.factor, low, high)}; it explains "
        f"{share(fit.explained)} of how the log-odds differ.",
        of=fit.n,
        evidence=evidence,
    )


def temperature_interval(fit: LogOddsFit) -> tuple[float, float]:
    """95 % interval of the factor, from that of the line's slope, with the prompt as the unit."""
    error = abs(fit.slope / fit.t) if fit.t else 0.0
    ends = (max(-1.99, min(1.99, fit.slope + sign * _Z * error)) for sign in (-1, 1))
    low, high = ((2 + slope) / (2 - slope) for slope in ends)
    return low, high


def _ratio_checks(pair: PolicyPair) -> list[DistributionCheck]:
    """The mean ratio against 1, and whether what it lacks or exceeds is all on one side."""
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
    alarm = next(iter(ratio_alarm(pair)), None)
    if alarm is None:
        return [
            DistributionCheck(
                code="mean_ratio",
                status="pass",
                sentence=f"The mean ratio is {shown}; 1 is expected of tokens drawn from μ.",
                of=mean.n,
                evidence=evidence,
            ),
            DistributionCheck(
                code="one_sided",
                status="pass",
                sentence="Ratios above 1 and below 1 balance each other.",
                of=mean.n,
                evidence=evidence,
            ),
        ]
    checks = [
        DistributionCheck(
            code="mean_ratio",
            status="fail",
            sentence=alarm.message,
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


def _lowered(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]
