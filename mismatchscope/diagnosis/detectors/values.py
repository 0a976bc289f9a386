"""Values that no policy has, and tokens that no policy sampled."""

from __future__ import annotations

import numpy as np

from ..detector import Finding, Picture, detector
from ..evidence import Array
from ..sample import Sample
from ..statistics.masses import likeliest_filed
from ..statistics.position import gap_of
from ..statistics.size import CLEAR, far_runs, gap
from ..statistics.stat import Stat, share
from ..statistics.values import SIDES, Side, above_zero, column, fillers, not_finite, other, run_lengths
from ..words import NAMES, number, percent, some_sequences, tokens

_FEWEST_FILLERS = 3
_FOREIGN = -3.0
"""Median log-prob of a text that no policy sampled; of one that was sampled it is above −1."""
_SHARED = 0.04
"""Share of states at which two tokens have all but 0.03 of the mass, at the least; the two probabilities of one
token, one of them multiplied by what a sampler kept, seldom add up to so much and never to more."""


@detector("not_finite", "truncation")
def no_numbers(sample: Sample) -> Finding | None:
    """NaN or an infinity."""
    found = not_finite(sample)
    bad_N = found["behavior"] | found["reference"]
    count = int(bad_N.sum())
    if not count:
        return None
    side: Side = "behavior" if found["behavior"].sum() >= found["reference"].sum() else "reference"
    kinds = {
        name: int(np.count_nonzero(of_N & bad_N))
        for name, of_N in (
            ("NaN", np.isnan(column(sample, side))),
            ("−∞", np.isneginf(column(sample, side))),
            ("+∞", np.isposinf(column(sample, side))),
        )
    }
    kind = max(kinds, key=lambda name: kinds[name])
    value = share(count, int(np.count_nonzero(~sample.out_N)))
    return Finding(
        causes=("not_finite",),
        why=f"{tokens(count)} of {sample.evidence.tokens:,} have a log-prob that is not finite, most of them "
        f"{kind} of {NAMES[side]}; a policy gives every token that it sampled a finite one.",
        statistic="share of log-probs that are not finite",
        value=value,
        null=0.0,
        explained_N=bad_N,
        rest=sample.without(bad_N),
        false_alarm=0.0,
        **some_sequences(sample, bad_N),
    )


@detector("probabilities", tokens=8)
def another_unit(sample: Sample) -> Finding | None:
    """A column above 0: probabilities, or log-probs with the other sign."""
    for side in SIDES:
        found = above_zero(sample)[side]
        if found.value is None or found.value < 0.5:
            continue
        values_N = column(sample, side)
        live_N = sample.live_N
        are_probabilities = bool((values_N[live_N] <= 1 + 1e-6).all()) and _nearer_as_probabilities(sample, side)
        with np.errstate(divide="ignore", invalid="ignore"):
            mended_N = np.log(values_N) if are_probabilities else -values_N
        both = {"logp_pi_N": sample.evidence.logp_pi_N, "logp_mu_N": sample.evidence.logp_mu_N}
        both["logp_mu_N" if side == "behavior" else "logp_pi_N"] = mended_N
        unit = "probabilities" if are_probabilities else "log-probs with the other sign"
        return Finding(
            causes=("probabilities",),
            why=f"{percent(found.value)} of the log-probs of {NAMES[side]} are above 0, where a log-prob is never: "
            f"they fit the other side's as {unit}.",
            statistic="share of log-probs above 0",
            value=found,
            null=0.0,
            explained_N=live_N,
            rest=sample.mended(**both),
            false_alarm=0.0,
        )
    return None


def _nearer_as_probabilities(sample: Sample, side: Side) -> bool:
    values_N, other_N = column(sample, side)[sample.live_N], column(sample, other(side))[sample.live_N]
    with np.errstate(divide="ignore"):
        logs_N = np.log(np.maximum(values_N, 1e-300))
    return float(np.median(np.abs(logs_N - other_N))) <= float(np.median(np.abs(values_N + other_N)))


@detector("filler", "mask", tokens=8)
def fill_values(sample: Sample) -> Finding | None:
    """Zeros, or whole numbers far below, in place of missing log-probs."""
    for side in SIDES:
        found = fillers(sample)[side]
        whole, zeros = int(found.whole_N.sum()), int(found.clear_N.sum())
        if whole:
            value = float(np.median(column(sample, side)[found.whole_N]))
            return _filled(sample, side, found.whole_N, f"exactly {value:g}", ("filler",))
        if zeros < _FEWEST_FILLERS or not _zeros_are_fillers(sample, side):
            continue
        foreign = found.in_runs > 0.5 and float(np.median(column(sample, other(side))[found.zero_N])) < _FOREIGN
        causes = ("mask",) if foreign else ("filler",)
        return _filled(sample, side, found.zero_N, "exactly 0", causes, in_runs=found.in_runs > 0.5)
    return None


def _zeros_are_fillers(sample: Sample, side: Side) -> bool:
    """A sampler that keeps one token alone writes 0 as well; but then the other side gives it most of the mass, and
    its other tokens are too likely as well."""
    found = fillers(sample)[side]
    rest = sample.without(found.zero_N)
    gap_rest, gap_all = gap(rest).value, gap(sample).value
    if gap_rest is None or gap_all is None:
        return False
    as_usual = found.below > 0.5 * found.usual_below and found.usual_below > 0.02 and gap_rest < 0.5 * gap_all
    return as_usual or gap_rest < 1.5 < 0.7 * gap_all


def _filled(
    sample: Sample, side: Side, filled_N: Array, what: str, causes: tuple[str, ...], *, in_runs: bool = False
) -> Finding:
    count = int(filled_N.sum())
    theirs = float(np.median(column(sample, other(side))[filled_N]))
    where = ", most of them in runs of four and more, as tool output is" if in_runs else ""
    return Finding(
        causes=causes,
        why=f"{tokens(count)} of {NAMES[side]} are {what}{where}, where the other side's median is "
        f"{number(theirs)}.",
        statistic="share of tokens that hold a fixed number",
        value=share(count, int(np.count_nonzero(sample.live_N))),
        null=0.0,
        explained_N=filled_N,
        rest=sample.without(filled_N),
        picture=_by_value(sample, filled_N),
        **some_sequences(sample, filled_N),
    )


def _by_value(sample: Sample, marked_N: Array) -> Picture:
    def points(of_N: Array) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
        at = np.flatnonzero(of_N)
        at = at[:: max(1, len(at) // 400)]
        mu, pi = sample.evidence.logp_mu_N[at], sample.evidence.logp_pi_N[at]
        return tuple(np.maximum(mu, -40).tolist()), tuple(np.maximum(pi, -40).tolist())

    series = tuple(
        (name, *points(of_N)) for name, of_N in (("others", sample.live_N & ~marked_N), ("these tokens", marked_N))
    )
    return Picture("values", "log μ", "log π", series)


@detector("mask", tokens=64)
def tool_text(sample: Sample) -> Finding | None:
    """Runs of tokens that no policy sampled."""
    runs = far_runs(sample)
    if runs is None or runs.share > 0.6:
        return None
    evidence = sample.evidence
    far_N = sample.live_N & (np.abs(np.nan_to_num(sample.delta_N)) > 0.3)
    unlikely_N = far_N & (np.minimum(evidence.logp_mu_N, evidence.logp_pi_N) < -3)
    bridged_N = unlikely_N.copy()
    bridged_N[1:-1] |= unlikely_N[:-2] & unlikely_N[2:] & sample.live_N[1:-1]
    text_N = run_lengths(bridged_N, evidence.sequence_N) >= 3
    count = int(text_N.sum())
    if count < 6:
        return None
    rest = sample.without(text_N)
    before, after = gap(sample).value, gap(rest).value
    of_far = float(text_N[far_N].mean())
    below = float(np.median(evidence.logp_pi_N[text_N]))
    if before is None or after is None or below > -3.5 or of_far < 0.5 or after > 0.35 * before:
        return None
    if float(np.mean(sample.delta_N[text_N] < 0)) < 0.65:
        return None
    return Finding(
        causes=("mask",),
        why=f"{tokens(count)} stand in runs that π finds all but impossible (median log-prob {number(below)}); "
        f"without them the gap is {number(after)} floors, with them {number(before)}.",
        statistic="mean length of runs of tokens far apart",
        value=Stat(runs.mean_length, None, None, runs.runs),
        null=1.0,
        explained_N=text_N,
        rest=rest,
        picture=_by_value(sample, text_N),
        **some_sequences(sample, text_N),
    )


@detector("top1_logprob", tokens=64)
def likeliest(sample: Sample) -> Finding | None:
    """The log-prob of the likeliest token in place of the sampled one's: where the two differ their probabilities
    add up to at most 1, and where they are one token nothing is off."""
    filed, exclusive_N = likeliest_filed(sample), np.zeros(sample.evidence.tokens, dtype=bool)
    live_N = sample.live_N
    sum_N = np.exp(sample.evidence.logp_mu_N[live_N]) + np.exp(sample.evidence.logp_pi_N[live_N])
    exclusive_N[live_N] = sum_N <= 1 + min(sample.floor.value, 0.1)  # up to rounding
    apart, same = gap_of(sample, exclusive_N & sample.scaled_N), gap_of(sample, ~exclusive_N & sample.scaled_N)
    if apart.value is None or apart.n < 20:
        return None
    for side, sign in (("behavior", -1), ("reference", 1)):
        clear_N = exclusive_N & (sample.gap_N > CLEAR)
        if np.count_nonzero(clear_N) < 15:
            continue
        one_way = float(np.mean(sign * sample.delta_N[clear_N] > 0))
        seen = filed is not None and filed[_SIDE[side]] > 0.99 > filed[other(_SIDE[side])]
        floor = max(1.5, 0.15 * apart.value)
        inferred = filed is None and same.n >= 20 and one_way > 0.97 and same.value is not None
        inferred = inferred and same.value < floor and apart.value > 5  # type: ignore[operator]
        inferred = inferred and _sharing(sample, clear_N) > _SHARED
        if seen or inferred:
            return Finding(
                causes=("top1_logprob",),
                why=f"R is {number(apart.value)} floors at the {tokens(apart.n)} whose two probabilities add up to "
                f"at most 1, as those of two different tokens do, {percent(one_way)} of them in one direction, and "
                f"{number(same.value)} at the others.",
                statistic="R where the two probabilities add up to at most 1, in floors",
                value=apart,
                null=same.value,
                explained_N=exclusive_N,
                rest=sample.without(exclusive_N),
                picture=_by_value(sample, exclusive_N),
            )
    return None


def _sharing(sample: Sample, of_N: Array) -> float:
    """Share of these tokens whose two probabilities add up to all but 0.03."""
    sum_M = np.exp(sample.evidence.logp_mu_N[of_N]) + np.exp(sample.evidence.logp_pi_N[of_N])
    return float(np.mean(sum_M > 0.97))


_SIDE: dict[str, Side] = {"behavior": "behavior", "reference": "reference"}
