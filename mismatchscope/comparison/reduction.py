"""The statistics of one pair of policies -> the blocks of a report that say what it is.

Every figure says in `estimator` what it is and from which evidence; what the evidence cannot give is None.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..measures.accumulators import ClusterSums
from ..measures.alpha import alpha_of
from ..measures.bounds import finite_horizon_bounds
from ..measures.intervals import ANY, NONNEGATIVE, UNIT, clustered_mean
from ..measures.results import (
    Alpha,
    Bounds,
    Correction,
    Interval,
    SequenceMeasures,
    Statistic,
    TokenMeasures,
)
from ..measures.sequence import finite, mean_alone, sequence_measures
from ..measures.sketches import QuantileSketch
from ..measures.summary import LEVELS, statistic_of
from ..records import EvidenceLevel
from .context import Context
from .limits_of_quantiles import with_quantile_limits
from .statistics import PairStatistics

# A reward in [0, 1], centred: ξ = max |R|.
REWARD_BOUND = 0.5

_LOWER_END = {"full": "exact where whole, else |μ(a)−π(a)|", "topk": "top-k lower end", "sampled": "|μ(a)−π(a)|"}


@dataclass(frozen=True)
class PairFigures:
    """What is known of one pair of policies. `identical`: no recorded log-prob differs in a bit."""

    evidence: EvidenceLevel
    identical: bool
    alpha: Alpha
    token: TokenMeasures
    sequence: SequenceMeasures
    corrections: tuple[Correction, ...]
    bounds: Bounds


def reduce_pair(statistics: PairStatistics, context: Context) -> PairFigures:
    """All figures of a pair.

    Where the tokens were not drawn from the μ that is measured (`Context.on_policy`), sampled-token estimators of
    TV and KL say nothing and are left out, and so are expectations over μ's states.
    """
    evidence: EvidenceLevel = "full" if statistics.exact_states else "topk" if statistics.topk else "sampled"
    alpha = reduce_alpha(statistics, context)
    sums, sequence = statistics.sequences, SequenceMeasures()
    if sums.length.size:  # else no response is whole
        sequence = sequence_measures(
            sums, on_policy=context.on_policy, exact=statistics.all_exact, confidence=context.confidence
        )
    return PairFigures(
        evidence=evidence,
        identical=statistics.identical,
        alpha=alpha,
        token=with_quantile_limits(_tokens(statistics, evidence, context), statistics, context.confidence),
        sequence=sequence,
        corrections=statistics.corrections.results() if context.on_policy and sums.length.size else (),
        bounds=_bounds(statistics, alpha, sequence, context) if sums.length.size else Bounds(),
    )


def mean_tv(statistics: PairStatistics, context: Context) -> ClusterSums | None:
    """The values whose mean estimates E TV where no interval of every state's TV does; None where nothing does.

    Of a random subset of states that were seen whole the exact TV, which is less noisy than the sampled tokens'
    (1−ρ)₊.
    """
    if statistics.bounded:
        return None
    if statistics.exact_states:
        return statistics.sums["tv"]
    return statistics.sums["shortfall"] if context.on_policy else None


def reduce_alpha(statistics: PairStatistics, context: Context) -> Alpha:
    """The α block of one pair of policies (α₁ of μ and π_old; α₀ and β of the other pairs)."""
    upper = statistics.tv_upper if statistics.bounded else None
    values = mean_tv(statistics, context)
    found = alpha_of(statistics.tv_lower, upper, mean_of=values, confidence=context.confidence, tail=context.tail)
    if upper is None and values is None:
        # Binary TV bounds every state from below, so its mean is a lower bound and no estimate.
        return replace(found, mean=replace(found.mean, value=None, high=None))
    return found


def _tokens(statistics: PairStatistics, evidence: EvidenceLevel, context: Context) -> TokenMeasures:
    sums, sketches, confidence = statistics.sums, statistics.sketches, context.confidence

    def of(
        name: str,
        estimator: str,
        bounds: tuple[float, float] = ANY,
        sketch: QuantileSketch | None = None,
        transform: Callable[[float], float] = float,
    ) -> Statistic | None:
        """The statistic of a figure; its quantiles are those of `sketch`, a monotone `transform` of it."""
        if not sums[name].n:
            return None
        mean = sums[name].interval(confidence=confidence, bounds=bounds)
        quantiles = (sketch or sketches[name]).quantiles(LEVELS)
        mapped = tuple(None if value is None else float(transform(value)) for value in quantiles)
        return statistic_of(mean, mapped, sums[name].largest, estimator)

    def end(name: str, tv: ClusterSums, estimator: str) -> Statistic | None:
        mean = tv.interval(confidence=confidence, bounds=UNIT)
        return statistic_of(mean, sketches[name].quantiles(LEVELS), tv.largest, estimator)

    exact, bound = "exact, full distributions", "lower bound, top-k ids and tails"
    tv = of("tv", exact, UNIT)
    kl = of("kl", exact, NONNEGATIVE)
    reverse_kl = of("reverse_kl", exact, NONNEGATIVE)
    js = of("js", exact, NONNEGATIVE)
    log_ratio, prob_diff = sketches["log_ratio"], sketches["prob_diff"]
    falling, distance = log_ratio.negated(), log_ratio.absolute()
    shortfall = of("shortfall", "(1−ρ)₊, sampled tokens", UNIT, falling, lambda k1: -math.expm1(min(-k1, 0.0)))
    outside_band = statistics.outside_band.interval(confidence=confidence, bounds=UNIT)
    k3 = of("k3", "ρ−1−log ρ, sampled tokens", NONNEGATIVE)
    if not statistics.exact_states:
        kl = of("kl_lower", bound, NONNEGATIVE)
        reverse_kl = of("reverse_kl_lower", bound, NONNEGATIVE)
        js = of("js_lower", bound, NONNEGATIVE)
        if context.on_policy and shortfall is not None and k3 is not None:
            tv = replace(mean_alone(shortfall), estimator="E(1−ρ)₊ over sampled tokens, unbiased for the mean")
            kl = kl or replace(mean_alone(k3), estimator="E k3 over sampled tokens, KL less leak")
    return TokenMeasures(
        tv=tv,
        tv_lower=end("tv_lower", statistics.tv_lower.sums, f"certified lower end: {_LOWER_END[evidence]}"),
        tv_upper=end("tv_upper", statistics.tv_upper.sums, "certified upper end") if statistics.bounded else None,
        kl=kl,
        reverse_kl=reverse_kl,
        js=js,
        chi2=of("chi2", "exact, χ²(π‖μ)", NONNEGATIVE),
        leak=of("leak", "exact, π's mass outside μ's support", UNIT),
        max_abs_dlogp=of("max_abs_dlogp", "exact, over ids with μ or π ≥ 1e-4", NONNEGATIVE),
        top1_agreement=of("top1_agree", "exact, share of states", UNIT),
        entropy_behavior=of("entropy_mu", "exact, nats", NONNEGATIVE),
        entropy_reference=of("entropy_pi", "exact, nats", NONNEGATIVE),
        k1=of("k1", "−log ρ, sampled tokens", ANY, falling),
        k2=of("k2", "(log ρ)²/2, sampled tokens, biased", NONNEGATIVE, distance, lambda d: d * d / 2),
        k3=k3,
        ratio=of("ratio", "π(a)/μ(a), sampled tokens", NONNEGATIVE, log_ratio, _exp),
        shortfall=shortfall,
        binary_tv=of(
            "binary_tv", "|μ(a)−π(a)|, sampled tokens, a lower bound of TV(s)", UNIT, prob_diff.absolute()
        ),
        abs_logprob_diff=of(
            "abs_logprob_diff", "|Δ log p|, sampled tokens; not a divergence", NONNEGATIVE, distance
        ),
        prob_diff=of("prob_diff", "π(a)−μ(a), signed, sampled tokens; not a divergence"),
        exp_abs_diff=of(
            "exp_abs_diff", "exp|Δ log p|, sampled tokens; not a divergence", NONNEGATIVE, distance, _exp
        ),
        prob_correlation=finite(statistics.probabilities.correlation),
        ratio_outside_band=outside_band.value,
        ratio_outside_band_low=outside_band.low,
        ratio_outside_band_high=outside_band.high,
    )


def _exp(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(value))


def _bounds(statistics: PairStatistics, alpha: Alpha, sequence: SequenceMeasures, context: Context) -> Bounds:
    """The finite-horizon family, as far as the evidence goes, over responses as long as the longest one seen.

    Maxima over all states are not to be had: those over the visited states stand in for them. Expectations over μ's
    states are left out where the tokens are not μ's own.
    """
    sums = statistics.sequences
    horizon = int(sums.length.max())
    by_index = statistics.upper_tv_by_index if statistics.bounded else statistics.estimated_tv_by_index
    family = finite_horizon_bounds(
        horizon,
        max_tv=alpha.observed_upper,
        max_kl=statistics.sums["kl"].largest if statistics.all_exact else None,
        sequence_tv=_estimate(sequence.tv),
        sequence_kl=_estimate(sequence.kl),
        mean_tv_T=by_index.mean(horizon) if context.on_policy else None,
    )
    infinite = {
        name: None for name, value in vars(family).items() if isinstance(value, float) and math.isinf(value)
    }
    family = replace(family, **infinite)
    if not context.on_policy:
        return family
    tv_S = sums.sum_tv if statistics.bounded else sums.sum_shortfall

    def mean(value_S: np.ndarray) -> Interval:
        return clustered_mean(value_S, sums.prompt_id, confidence=context.confidence, bounds=NONNEGATIVE)

    return replace(
        family,
        max_free_linear=mean(4 * REWARD_BOUND * tv_S),
        max_free_quadratic=mean(2 * REWARD_BOUND * sums.ratio_pairs),
    )


def _estimate(statistic: Statistic | None) -> float | None:
    """The estimate of something that is not negative; one that noise has put below zero is none."""
    mean = None if statistic is None else statistic.mean
    return mean if mean is not None and mean >= 0 else None
