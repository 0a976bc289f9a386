"""The statistics of one pair of policies -> the blocks of a report that say what it is.

Every figure says in `estimator` what it is and from which evidence; what the evidence cannot give is None.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ..measures.accumulators import ClusterSums
from ..measures.alpha import alpha_of
from ..measures.bounds import finite_horizon_bounds
from ..measures.correction_results import Correction
from ..measures.intervals import ANY, NONNEGATIVE, UNIT, clustered_mean
from ..measures.results import (
    Alpha,
    Bounds,
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

_ESTIMATOR = {
    "shortfall": "E(1−ρ)₊ over sampled tokens, unbiased for the mean",
    "tv_estimate": "partly Rao–Blackwellised: Σ(μ−π)₊ over the top-k, (1−ρ)₊ of sampled tokens beyond, unbiased",
    "k3": "E k3 over sampled tokens, KL less leak",
    "kl_estimate": "partly Rao–Blackwellised: Σ μ k3 over the top-k, k3 of sampled tokens beyond, KL less leak",
}
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
    TV and KL say nothing and are left out; where another policy drew them, TV and KL are weighted, and what is of
    whole responses is left out.
    """
    own_tokens = context.on_policy and not context.weighted
    evidence: EvidenceLevel = "full" if statistics.exact_states else "topk" if statistics.topk else "sampled"
    alpha = reduce_alpha(statistics, context)
    sums, sequence = statistics.sequences, SequenceMeasures()
    if sums.length.size:  # else no response is whole
        sequence = sequence_measures(
            sums, on_policy=own_tokens, exact=statistics.all_exact, confidence=context.confidence
        )
    return PairFigures(
        evidence=evidence,
        identical=statistics.identical,
        alpha=alpha,
        token=with_quantile_limits(_tokens(statistics, evidence, context), statistics, context.confidence),
        sequence=sequence,
        corrections=statistics.corrections.results() if own_tokens and sums.length.size else (),
        bounds=_bounds(statistics, alpha, sequence, context, own_tokens=own_tokens)
        if sums.length.size
        else Bounds(),
    )


def mean_of(statistics: PairStatistics, context: Context, figure: Literal["tv", "kl"]) -> ClusterSums | None:
    """The values whose mean is that of TV, or of KL(μ‖π), or is unbiased for it; None where there are none."""
    name = statistics.mean_of(figure)
    return statistics.sums[name] if name == figure or context.on_policy else None


def mean_interval(statistics: PairStatistics, context: Context, figure: Literal["tv", "kl"]) -> Interval | None:
    """The mean that `mean_of` estimates, kept within the certified ends where top-k evidence has some.

    A rare token that was not drawn leaves an estimate too small, and what was observed of the others may show that:
    so its interval reaches as far as that of the lower end, too. Of KL, the lower end has the leak, and is no bound
    of what is less it where a sampler cuts ids off.
    """
    values = mean_of(statistics, context, figure)
    if values is None:
        return None
    bounds = UNIT if figure == "tv" else NONNEGATIVE
    mean = values.interval(confidence=context.confidence, bounds=bounds)
    least = {"tv": statistics.tv_lower.sums, "kl": statistics.sums["kl_lower"]}[figure]
    sampled = statistics.topk and values is not statistics.sums[figure]
    if not sampled or (figure == "kl" and context.truncated):
        return mean
    lower = least.interval(confidence=context.confidence, bounds=bounds)
    most = statistics.tv_upper.sums.mean if figure == "tv" and statistics.bounded else math.inf
    value = min(max(mean.value or 0.0, lower.value or 0.0), most)
    if mean.low is None or mean.high is None:
        return replace(mean, value=value)
    return replace(mean, value=value, low=min(mean.low, value), high=max(mean.high, lower.high or 0.0, value))


def reduce_alpha(statistics: PairStatistics, context: Context) -> Alpha:
    """The α block of one pair of policies (α₁ of μ and π_old; α₀ and β of the other pairs)."""
    upper = statistics.tv_upper if statistics.bounded else None
    values, mean = mean_of(statistics, context, "tv"), mean_interval(statistics, context, "tv")
    # Weights are not bounded, as the distribution-free interval of the prompts' mean needs it.
    bounded = None if upper is None and context.weighted else values
    found = alpha_of(statistics.tv_lower, upper, mean_of=bounded, confidence=context.confidence, tail=context.tail)
    if mean is None:
        # No estimate: the certified ends of the mean, the upper one as far as there is one.
        return replace(found, mean=replace(found.mean, value=None))
    return replace(found, mean=mean)


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

    def headline(figure: Literal["tv", "kl"], bounds: tuple[float, float]) -> Statistic | None:
        """Exact with its distribution, or an unbiased mean alone."""
        name = statistics.mean_of(figure)
        if name == figure:
            return of(figure, "exact, full distributions", bounds)
        mean = mean_interval(statistics, context, figure)
        if mean is None:
            return None
        estimator = _ESTIMATOR[name] if not context.weighted else f"{_ESTIMATOR[name]}, importance-weighted"
        return mean_alone(statistic_of(mean, (None,) * len(LEVELS), None, estimator))

    exact, bound = "exact, full distributions", "lower bound, top-k ids and tails"
    log_ratio, prob_diff = sketches["log_ratio"], sketches["prob_diff"]
    falling, distance = log_ratio.negated(), log_ratio.absolute()
    outside_band = statistics.outside_band.interval(confidence=confidence, bounds=UNIT)
    return TokenMeasures(
        tv=headline("tv", UNIT),
        tv_lower=end("tv_lower", statistics.tv_lower.sums, f"certified lower end: {_LOWER_END[evidence]}"),
        tv_upper=end("tv_upper", statistics.tv_upper.sums, "certified upper end") if statistics.bounded else None,
        kl=headline("kl", NONNEGATIVE),
        kl_lower=of("kl_lower", bound, NONNEGATIVE),
        reverse_kl=of("reverse_kl", exact, NONNEGATIVE),
        reverse_kl_lower=of("reverse_kl_lower", bound, NONNEGATIVE),
        js=of("js", exact, NONNEGATIVE),
        js_lower=of("js_lower", bound, NONNEGATIVE),
        chi2=of("chi2", "exact, χ²(π‖μ)", NONNEGATIVE),
        leak=of("leak", "exact, π's mass outside μ's support", UNIT),
        max_abs_dlogp=of("max_abs_dlogp", "exact, over ids with μ or π ≥ 1e-4", NONNEGATIVE),
        top1_agreement=of("top1_agree", "exact, share of states", UNIT),
        entropy_behavior=of("entropy_mu", "exact, nats", NONNEGATIVE),
        entropy_reference=of("entropy_pi", "exact, nats", NONNEGATIVE),
        k1=of("k1", "−log ρ, sampled tokens", ANY, falling),
        k2=of("k2", "(log ρ)²/2, sampled tokens, biased", NONNEGATIVE, distance, lambda d: d * d / 2),
        k3=of("k3", "ρ−1−log ρ, sampled tokens", NONNEGATIVE),
        ratio=of("ratio", "π(a)/μ(a), sampled tokens", NONNEGATIVE, log_ratio, _exp),
        shortfall=of("shortfall", "(1−ρ)₊, sampled tokens", UNIT, falling, lambda k1: -math.expm1(min(-k1, 0.0))),
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


def _bounds(
    statistics: PairStatistics, alpha: Alpha, sequence: SequenceMeasures, context: Context, *, own_tokens: bool
) -> Bounds:
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
        mean_tv_T=by_index.mean(horizon) if own_tokens else None,
    )
    infinite: dict[str, Any] = {
        name: None for name, value in vars(family).items() if isinstance(value, float) and math.isinf(value)
    }
    family = replace(family, **infinite)
    if not own_tokens:
        return family
    tv_S = sums.sum_tv if statistics.bounded else sums.sum_tv_estimate

    def mean(value_S: np.ndarray) -> Interval:
        return clustered_mean(value_S, sums.prompt_id, confidence=context.confidence, bounds=NONNEGATIVE)

    return replace(
        family,
        max_free_linear=mean(4 * tv_S),
        max_free_quadratic=mean(2 * sums.ratio_pairs),
    )


def _estimate(statistic: Statistic | None) -> float | None:
    """The estimate of something that is not negative; one that noise has put below zero is none."""
    mean = None if statistic is None else statistic.mean
    return mean if mean is not None and mean >= 0 else None
