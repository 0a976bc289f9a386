"""Figures a state -> the blocks of the report: tokens, sequences, α and the repeat floors.

Every figure says in `estimator` what it is and from which evidence; what the evidence cannot give is None.
"""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np

from ..measures.alpha import alpha1, cluster_max
from ..measures.intervals import Interval, paired_difference
from ..measures.sampled import pearson_probability_correlation
from ..measures.summary import summarise
from ..measures.tail import tail_extrapolation
from ..reports.document import (
    Alpha,
    Exceedance,
    Floor,
    Mean,
    Statistic,
    TailExtrapolation,
    TokenMeasures,
    Tolerance,
)
from .states import StateMeasures

UNIT = (0.0, 1.0)
NONNEGATIVE = (0.0, math.inf)
# The band outside which the share of ratios is reported: one clipping step of PPO's usual ε.
RATIO_BAND = (0.8, 1.2)


def statistic(
    value_N: np.ndarray,
    cluster_N: np.ndarray,
    estimator: str,
    *,
    confidence: float,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    mean_only: bool = False,
) -> Statistic | None:
    """The statistic of the values that are not NaN; None when there are none.

    `mean_only` is for estimators whose single values are not the figure of a state (k3 is no KL of one state).
    """
    seen_N = ~np.isnan(value_N)
    if not seen_N.any():
        return None
    summary = summarise(
        value_N[seen_N], cluster_N[seen_N], estimator=estimator, confidence=confidence, bounds=bounds
    )
    fields = {key: value for key, value in asdict(summary).items() if key in Statistic.model_fields}
    if mean_only:
        fields |= dict.fromkeys(("p50", "p90", "p99", "p999", "max"))
    return Statistic(**fields)


def mean_of(interval: Interval) -> Mean:
    return Mean(**asdict(interval))


def token_measures(measures: StateMeasures, *, on_policy: bool, confidence: float) -> TokenMeasures:
    """The token block. Sampled-token estimators of TV and KL are left out where the tokens are not μ's own."""
    cluster_N, columns, sampled = measures.prompt_id_N, measures.columns, measures.sampled

    def of(values: np.ndarray, estimator: str, bounds=(-math.inf, math.inf), mean_only=False) -> Statistic | None:
        return statistic(values, cluster_N, estimator, confidence=confidence, bounds=bounds, mean_only=mean_only)

    exact = measures.exact_N.any()
    tv = of(columns["tv"], "exact, full distributions", UNIT)
    kl = of(columns["kl"], "exact, full distributions", NONNEGATIVE)
    reverse_kl = of(columns["reverse_kl"], "exact, full distributions", NONNEGATIVE)
    js = of(columns["js"], "exact, full distributions", NONNEGATIVE)
    if not exact:
        kl = of(columns["kl_lower"], "lower bound, top-k ids and tails", NONNEGATIVE)
        reverse_kl = of(columns["reverse_kl_lower"], "lower bound, top-k ids and tails", NONNEGATIVE)
        js = of(columns["js_lower"], "lower bound, top-k ids and tails", NONNEGATIVE)
        if on_policy:
            tv = of(sampled.shortfall, "E(1−ρ)₊ over sampled tokens, unbiased for the mean", UNIT, mean_only=True)
            kl = kl or of(sampled.k3, "E k3 over sampled tokens, KL less leak", NONNEGATIVE, mean_only=True)
    lower_label = {
        "full": "exact where whole, else |μ(a)−π(a)|",
        "topk": "top-k lower end",
        "sampled": "|μ(a)−π(a)|",
    }
    low, high = RATIO_BAND
    return TokenMeasures(
        tv=tv,
        tv_lower=of(measures.tv_lower_N, f"certified lower end: {lower_label[measures.evidence]}", UNIT),
        tv_upper=of(measures.tv_upper_N, "certified upper end", UNIT) if measures.bounded else None,
        kl=kl,
        reverse_kl=reverse_kl,
        js=js,
        chi2=of(columns["chi2"], "exact, χ²(π‖μ)", NONNEGATIVE),
        leak=of(columns["leak"], "exact, π's mass outside μ's support", UNIT),
        max_abs_dlogp=of(columns["max_abs_dlogp"], "exact, over ids with μ or π ≥ 1e-4", NONNEGATIVE),
        top1_agreement=of(columns["top1_agree"], "exact, share of states", UNIT),
        entropy_behavior=of(columns["entropy_mu"], "exact, nats", NONNEGATIVE),
        entropy_reference=of(columns["entropy_pi"], "exact, nats", NONNEGATIVE),
        k1=of(sampled.k1, "−log ρ, sampled tokens"),
        k2=of(sampled.k2, "(log ρ)²/2, sampled tokens, biased", NONNEGATIVE),
        k3=of(sampled.k3, "ρ−1−log ρ, sampled tokens", NONNEGATIVE),
        ratio=of(sampled.ratio, "π(a)/μ(a), sampled tokens", NONNEGATIVE),
        shortfall=of(sampled.shortfall, "(1−ρ)₊, sampled tokens", UNIT),
        binary_tv=of(sampled.binary_tv, "|μ(a)−π(a)|, sampled tokens, a lower bound of TV(s)", UNIT),
        abs_logprob_diff=of(sampled.abs_logprob_diff, "|Δ log p|, sampled tokens; not a divergence", NONNEGATIVE),
        prob_diff=of(sampled.prob_diff, "π(a)−μ(a), signed, sampled tokens; not a divergence"),
        exp_abs_diff=of(sampled.exp_abs_diff, "exp|Δ log p|, sampled tokens; not a divergence", NONNEGATIVE),
        prob_correlation=_finite(pearson_probability_correlation(measures.logp_mu_N, measures.logp_pi_N)),
        ratio_outside_band=float(((sampled.ratio < low) | (sampled.ratio > high)).mean()),
    )


def alpha(measures: StateMeasures, *, on_policy: bool, confidence: float, tail: bool = False) -> Alpha:
    """The α block of one pair of policies (α₁ of μ and π_old; α₀ and β of the other pairs)."""
    upper_N = measures.tv_upper_N if measures.bounded else None
    found = alpha1(
        measures.tv_lower_N,
        upper_N,
        measures.prompt_id_N,
        unbiased_N=measures.sampled.shortfall if upper_N is None and on_policy else None,
        confidence=confidence,
    )
    mean, certified = mean_of(found.mean), found.certified_mean_high
    if upper_N is None and measures.exact_N.any():
        # A random subset of states was seen whole: its mean is unbiased and less noisy than the sampled tokens'.
        exact_N = measures.exact_N
        subset = alpha1(
            measures.columns["tv"][exact_N],
            measures.columns["tv"][exact_N],
            measures.prompt_id_N[exact_N],
            confidence=confidence,
        )
        mean, certified = mean_of(subset.mean), subset.certified_mean_high
    elif upper_N is None and not on_policy:
        # Binary TV bounds every state from below, so its mean is a lower bound and no estimate.
        mean = mean.model_copy(update={"value": None, "high": None})
    return Alpha(
        observed_max=found.observed_max,
        observed_upper=found.observed_upper,
        mean=mean,
        certified_mean_high=certified,
        tolerance=[Tolerance(**asdict(bound)) for bound in found.tolerance],
        exceedance=[Exceedance(**asdict(point)) for point in found.exceedance],
        tail=_tail(measures, confidence) if tail else None,
    )


def _tail(measures: StateMeasures, confidence: float) -> TailExtrapolation | None:
    highest_N = measures.tv_upper_N if measures.bounded else measures.tv_lower_N
    fit = tail_extrapolation(cluster_max(highest_N, measures.prompt_id_N), confidence=confidence)
    if fit is None:
        return None
    return TailExtrapolation(**{k: v for k, v in asdict(fit).items() if k in TailExtrapolation.model_fields})


def floor(repeat: StateMeasures, *, composition: str, on_policy: bool, confidence: float) -> Floor:
    """Repeat noise of one side: the same measures of a policy against itself."""
    block = alpha(repeat, on_policy=on_policy, confidence=confidence)
    exact_kl = repeat.columns["kl"] if repeat.exact_N.any() else repeat.columns["kl_lower"]
    kl_N = repeat.sampled.k3 if np.isnan(exact_kl).all() else exact_kl[~np.isnan(exact_kl)]
    return Floor(
        observed_max=block.observed_max,
        mean=block.mean,
        kl=float(kl_N.mean()),
        identical=repeat.identical,
        composition=composition,
    )


def excess_over_floor(
    measures: StateMeasures, repeats: list[StateMeasures], *, on_policy: bool, confidence: float
) -> tuple[Mean | None, StateMeasures | None]:
    """Mean TV less the larger floor's, paired by prompt, and the repeat that is that floor.

    Both means use the same per-state figure: the exact TV where every side has it, else (1−ρ)₊, which says
    something of tokens that are μ's own alone.
    """
    if not repeats:
        return None, None
    exact = all(side.exact_N.all() for side in (measures, *repeats))

    def tv_of(side: StateMeasures) -> np.ndarray:
        return side.columns["tv"] if exact else side.sampled.shortfall

    largest = max(repeats, key=lambda repeat: float(tv_of(repeat).mean()))
    ours, noise = tv_of(measures), tv_of(largest)
    if not np.array_equal(measures.sequence_id_N, largest.sequence_id_N):
        return None, largest  # other sequences cannot be paired
    if not exact and not on_policy:
        return None, largest
    return mean_of(paired_difference(ours, noise, measures.prompt_id_N, confidence=confidence)), largest


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
