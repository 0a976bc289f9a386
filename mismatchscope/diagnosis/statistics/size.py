"""How large a gap is and how it is spread over tokens: nothing of where they are.

Shapes: N tokens, C clusters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..sample import Sample, statistic
from .stat import NOTHING, Stat, correlation, ratio_of_sums, root, share

FAR = 0.3
"""|Δ log p| of a token that rounding does not explain on its own."""
_FEWEST_OF_A_LINE = 60
CLEAR = 3.0
"""|z| in floors beyond which single tokens of a sound pair are rare."""


@statistic
def gap(sample: Sample) -> Stat:
    """R: the root mean square of z over tokens with p < 0.9, in floors."""
    squares = ratio_of_sums(sample.by_prompt(sample.z_N**2), sample.by_prompt(sample.scaled_N))
    return root(squares, 1 / sample.floor.value)


@statistic
def tail(sample: Sample) -> float | None:
    """Root mean square of z over its robust scale, the median of |z| over 0.6745: 1 of normal errors, more where a
    few tokens hold the gap."""
    z_M = sample.z_N[sample.scaled_N]
    if len(z_M) < 32:
        return None
    scale = float(np.median(np.abs(z_M))) / 0.6745
    rms = float(np.sqrt(np.mean(z_M**2)))
    return rms / scale if scale > 0 else np.inf if rms > 0 else None


@statistic
def robust_gap(sample: Sample) -> float | None:
    """The median of |z| over 0.6745, in floors: half of the tokens are no farther."""
    z_M = sample.z_N[sample.scaled_N]
    return float(np.median(np.abs(z_M))) / 0.6745 / sample.floor.value if len(z_M) >= 32 else None


@statistic
def at_floor(sample: Sample) -> Stat:
    """Share of tokens whose |z| is within two floors."""
    return share(int(np.count_nonzero(sample.gap_N < 2)), int(np.count_nonzero(sample.scaled_N)))


@statistic
def mean_ratio(sample: Sample) -> Stat:
    """Mean of ρ over live tokens: 1 for every π where the tokens were drawn from the μ that is given."""
    with np.errstate(over="ignore"):
        ratio_N = np.exp(np.where(sample.live_N, sample.delta_N, -np.inf))
    return ratio_of_sums(sample.by_prompt(np.where(sample.live_N, ratio_N, 0.0)), sample.by_prompt(sample.live_N))


@statistic
def one_sided(sample: Sample) -> Stat:
    """Of the tokens beyond three floors, the share where π is below μ."""
    clear_N = sample.gap_N > CLEAR
    return share(int(np.count_nonzero(clear_N & (sample.z_N < 0))), int(np.count_nonzero(clear_N)))


@statistic
def energy_below(sample: Sample) -> float | None:
    """Share of Σ z² at tokens where π is below μ."""
    z_M = sample.z_N[sample.scaled_N]
    total = float(z_M @ z_M)
    return float(np.sum(z_M[z_M < 0] ** 2)) / total if total > 0 else None


@statistic
def share_below(sample: Sample) -> Stat:
    """Share of tokens with p < 0.9 where π is below μ, however little: about a half where only rounding differs,
    whatever its size."""
    return share(int(np.count_nonzero(sample.z_N < 0)), int(np.count_nonzero(sample.scaled_N)))


@statistic
def upper_tail(sample: Sample) -> float | None:
    """The 0.99-quantile of z in floors: how far above μ a π gets."""
    z_M = sample.z_N[sample.scaled_N]
    return float(np.quantile(z_M, 0.99)) / sample.floor.value if len(z_M) >= 100 else None


class Line(NamedTuple):
    """The least-squares line of the difference D of the log-odds on their mean. `t` is the slope over its standard
    error by prompts, `explained` its R² and `correlation` that of the two log-odds."""

    factor: Stat
    """How many times μ's log-odds π's are."""
    slope: float
    t: float
    explained: float
    correlation: float


@statistic
def rank_with_probability(sample: Sample) -> float | None:
    """Rank correlation of z with the mean log-prob: a temperature moves likely tokens one way and others the other,
    whatever a few of them weigh in a line."""
    if np.count_nonzero(sample.scaled_N) < _FEWEST_OF_A_LINE:
        return None
    mean_N = (sample.evidence.logp_mu_N + sample.evidence.logp_pi_N)[sample.scaled_N]
    return correlation(_ranks(sample.z_N[sample.scaled_N]), _ranks(mean_N))


def _ranks(value_M: np.ndarray) -> np.ndarray:
    """From 1; ties have the mean of theirs. scipy's would take longer to import than a diagnosis."""
    _, index_M, count_U = np.unique(value_M, return_inverse=True, return_counts=True)
    return (np.cumsum(count_U) - (count_U - 1) / 2)[index_M]


class Lines(NamedTuple):
    """Of all tokens, and of those that came before in their response over the others; None without their ids."""

    all: Line
    times_as_steep: float | None
    again_t: float


@statistic
def log_odds_line(sample: Sample) -> Lines | None:
    """A temperature on one side multiplies all log-odds by about one factor, a penalty those of repeated tokens."""
    evidence = sample.evidence
    use_N = sample.live_N & (sample.p_N < 0.999) & (sample.p_N > 0)
    use_N &= (evidence.logp_mu_N < -1e-3) & (evidence.logp_pi_N < -1e-3)
    odds = []
    for logp_N in (evidence.logp_mu_N, evidence.logp_pi_N):
        kept_N = np.where(use_N, logp_N, -1.0)
        odds.append(kept_N - np.log(-np.expm1(kept_N)))
    whole = _line(sample, odds, use_N)
    if whole is None or evidence.token_N is None:
        return None if whole is None else Lines(whole, None, 0.0)
    again_N = repeated(sample)
    parts = [_line(sample, odds, use_N & of_N) for of_N in (again_N, ~again_N)]
    if parts[0] is None or parts[1] is None or parts[1].slope == 0:
        return Lines(whole, None, 0.0)
    times = parts[0].slope / parts[1].slope
    return Lines(whole, times if times > 0 else None, parts[0].t)


def repeated(sample: Sample) -> np.ndarray:
    """Which tokens came before in their response, bool [N]."""
    token_N = sample.evidence.token_N
    assert token_N is not None
    key_N = sample.evidence.sequence_N.astype(np.int64) * (1 + int(token_N.max(initial=0))) + token_N
    again_N = np.ones(len(key_N), dtype=bool)
    again_N[np.unique(key_N, return_index=True)[1]] = False
    return again_N


def _line(sample: Sample, odds: list[np.ndarray], use_N: np.ndarray) -> Line | None:
    count = int(np.count_nonzero(use_N))
    if count < _FEWEST_OF_A_LINE:
        return None
    mean_N = np.where(use_N, (odds[0] + odds[1]) / 2, 0.0)
    difference_N = np.where(use_N, odds[1] - odds[0], 0.0)
    mean_N = np.where(use_N, mean_N - mean_N.sum() / count, 0.0)
    difference_N = np.where(use_N, difference_N - difference_N.sum() / count, 0.0)
    xx, dd = float(mean_N @ mean_N), float(difference_N @ difference_N)
    if xx <= 0 or dd <= 0:
        return None
    slope = float(mean_N @ difference_N) / xx
    score_C = sample.by_prompt(mean_N * (difference_N - slope * mean_N))
    error = float(np.sqrt(score_C @ score_C * len(score_C) / max(len(score_C) - 1, 1))) / xx
    related = correlation(odds[0][use_N], odds[1][use_N])
    if error <= 0 or related is None:
        return None
    ends = [(2 + each) / (2 - each) for each in (slope, slope - 1.96 * error, slope + 1.96 * error)]
    factor = Stat(ends[0], ends[1], ends[2], count)
    return Line(factor, slope, slope / error, slope**2 * xx / dd, related)


class Runs(NamedTuple):
    """Tokens that are far, as they stand beside one another in a response."""

    mean_length: float
    runs: int
    share: float
    negative: float
    """Of far tokens, the share where π is below μ."""
    below: float
    """Median of log π at far tokens."""


@statistic
def far_runs(sample: Sample) -> Runs | None:
    """Runs of tokens with |Δ| above `FAR`."""
    far_N = sample.live_N & (np.abs(np.nan_to_num(sample.delta_N)) > FAR)
    count = int(np.count_nonzero(far_N))
    if not count:
        return None
    begins_N = far_N.copy()
    begins_N[1:] &= ~far_N[:-1] | (np.diff(sample.evidence.sequence_N) != 0)
    runs = int(np.count_nonzero(begins_N))
    return Runs(
        mean_length=count / runs,
        runs=runs,
        share=count / max(1, int(np.count_nonzero(sample.live_N))),
        negative=float(np.mean(sample.delta_N[far_N] < 0)),
        below=float(np.median(sample.evidence.logp_pi_N[far_N])),
    )


@statistic
def neighbours(sample: Sample) -> Stat:
    """Correlation of log |z| of a token with that of the one before it in its response, less what sequences have in
    common: bursts, which have one, are of states that carry an error on."""
    log_N = np.log(np.maximum(sample.gap_N, 1e-3))
    count_S, sum_S = sample.by_sequence(sample.scaled_N), sample.by_sequence(np.where(sample.scaled_N, log_N, 0.0))
    centred_N = log_N - (sum_S / np.maximum(count_S, 1))[sample.evidence.sequence_N]
    pair_N = sample.scaled_N.copy()
    pair_N[1:] &= sample.scaled_N[:-1] & (np.diff(sample.evidence.sequence_N) == 0)
    pair_N[:1] = False
    at = np.flatnonzero(pair_N)
    value = correlation(centred_N[at], centred_N[at - 1]) if len(at) >= 100 else None
    return NOTHING if value is None else Stat(value, None, None, len(at))
