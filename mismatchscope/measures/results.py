"""What the measures say: frozen values that a report holds as they are, and nothing that needs numpy.

A field that was not or cannot be measured is None, never 0; infinities are legal (KL under a support leak). What
each figure is: docs/measures.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")

# For pydantic, which reads and writes these as parts of a report: a misspelt key is an error, an infinity a word.
_CONFIG: dict[str, Any] = {"extra": "forbid", "ser_json_inf_nan": "strings", "use_attribute_docstrings": True}


@dataclass_transform(frozen_default=True)
def result(cls: type[T]) -> type[T]:
    """A frozen dataclass that pydantic takes as a field."""
    made = dataclass(frozen=True)(cls)
    made.__pydantic_config__ = _CONFIG  # type: ignore[attr-defined]
    return made


@result
class Interval:
    """An estimate and its confidence interval; the prompt is the unit of independence.

    `low` and `high` are None where the data cannot bound the estimate. `n` counts observations, `clusters` the
    independent units among them.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    confidence: float = 0.95
    n: int = 0
    clusters: int = 0
    method: str | None = None
    """How the interval was made, or why it has no ends."""

    def excludes(self, value: float) -> bool:
        """Whether the figure is known to be on one side of this value."""
        return (self.low is not None and self.low > value) or (self.high is not None and self.high < value)

    def inverted(self) -> Interval:
        """Of one over a figure that is not negative; an end of 0 becomes none."""
        value, low, high = (1 / end if end else None for end in (self.value, self.high, self.low))
        return replace(self, value=value, low=low, high=high)


@result
class Statistic:
    """The distribution of one figure over tokens, or over responses. `low` and `high` bound the mean.

    A quantile is None where n is too small to show it: p99 needs 100 values, p999 a thousand. `quantile_limits` has
    the confidence limits of quantiles by name, {"p99": (low, high)}; None is an end that the sample does not bound.
    """

    mean: float | None
    low: float | None = None
    high: float | None = None
    confidence: float = 0.95
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    p999: float | None = None
    quantile_limits: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    max: float | None = None
    n: int = 0
    clusters: int = 0
    method: str | None = None
    """How the mean's interval was made, or why it has no ends."""
    estimator: str = ""
    """What the figure is, and from which evidence it was computed."""


@result
class Tolerance:
    """With `confidence`, at least a fraction `quantile` of prompts has max_t TV ≤ `value`.

    `value` is None when `n` prompts are too few, where `n_needed` would be enough, or for the `reason` given.
    """

    quantile: float
    confidence: float
    value: float | None
    n: int
    n_needed: int
    reason: str | None = None
    """Why there is no value whatever the number of prompts."""


@result
class Exceedance:
    """Shares above `tau`: of states, P(TV(s) > tau), and of prompts, P(max_t TV > tau).

    The lower ones are certain of what was visited. A share is None where the evidence leaves it open; it is then
    at least the lower one. The upper ones are one-sided confidence limits for states and prompts like these; None
    where not every visited state's TV is bounded from above.
    """

    tau: float
    tokens_lower: float
    prompts_lower: float
    tokens: float | None = None
    tokens_upper: float | None = None
    prompts: float | None = None
    prompts_upper: float | None = None


@result
class TailExtrapolation:
    """Model-based, made on request: the `quantile` of the prompts' maximal TV if the tail beyond `threshold` is
    generalised Pareto.

    `low` holds without the model (an order statistic of the maxima), `value` and `high` only under it;
    `exceedances` maxima were used to fit it. All are None for the `reason` given.
    """

    quantile: float = 0.999
    value: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float = 0.95
    threshold: float | None = None
    exceedances: int = 0
    shape: float | None = None
    scale: float | None = None
    reason: str | None = None


@result
class Alpha:
    """α = max_s TV as far as a sample can tell: a certified lower bound, tolerance bounds, exceedance, the mean."""

    observed_max: float | None
    mean: Interval
    observed_upper: float | None = None
    """Top-k and full evidence: bounds the maximum over the *visited* states from above."""
    prompt_mean: Interval | None = None
    """Mean over prompts of the prompt's mean TV, each prompt weighing the same, so not `mean`; its
    empirical-Bernstein interval holds for any distribution. Without a value where the evidence gives its ends
    alone."""
    tolerance: tuple[Tolerance, ...] = ()
    exceedance: tuple[Exceedance, ...] = ()
    unseen_share: float | None = None
    """What as many as this of all prompts do, a sample of this size may fail to show, at the mean's confidence."""
    tail: TailExtrapolation | None = None


@result
class TokenMeasures:
    """Figures of one state. `tv_lower` and `tv_upper` are the certified ends of TV."""

    tv: Statistic | None = None
    tv_lower: Statistic | None = None
    tv_upper: Statistic | None = None
    kl: Statistic | None = None
    kl_lower: Statistic | None = None
    """Of the observed ids and one tail: a lower bound of KL, as the other two are of theirs. Top-k alone."""
    reverse_kl: Statistic | None = None
    reverse_kl_lower: Statistic | None = None
    chi2: Statistic | None = None
    js: Statistic | None = None
    js_lower: Statistic | None = None
    leak: Statistic | None = None
    max_abs_dlogp: Statistic | None = None
    top1_agreement: Statistic | None = None
    entropy_behavior: Statistic | None = None
    entropy_reference: Statistic | None = None
    k1: Statistic | None = None
    k2: Statistic | None = None
    k3: Statistic | None = None
    ratio: Statistic | None = None
    shortfall: Statistic | None = None
    binary_tv: Statistic | None = None
    abs_logprob_diff: Statistic | None = None
    prob_diff: Statistic | None = None
    exp_abs_diff: Statistic | None = None
    prob_correlation: float | None = None
    ratio_outside_band: float | None = None
    """Share of tokens whose ratio is below 0.8 or above 1.2."""
    ratio_outside_band_low: float | None = None
    ratio_outside_band_high: float | None = None
    """Its clustered interval."""


@result
class LengthBin:
    """The figures of the responses with low ≤ length ≤ high tokens."""

    low: int
    high: int
    sequences: int
    tv: Interval | None = None
    kl: Interval | None = None
    log_ratio: Interval | None = None
    ess_fraction: float | None = None
    ess_fraction_low: float | None = None
    ess_fraction_high: float | None = None
    weights_reason: str | None = None
    """As in `SequenceMeasures`, for the responses of these lengths."""


@result
class SequenceMeasures:
    """Figures of whole responses."""

    tv: Statistic | None = None
    tv_bound: Statistic | None = None
    """E Σ_t TV(s_t), an upper bound of the sequence TV."""
    kl: Statistic | None = None
    """Of whole responses: Σ_t KL(s_t) where every state's is known, else Σ_t k3 of the sampled tokens."""
    k1: Statistic | None = None
    """Σ_t k1 = −log ρ(y): the mean of `kl` with more noise."""
    log_ratio: Statistic | None = None
    ratio: Statistic | None = None
    geometric_ratio: Statistic | None = None
    max_tv: Statistic | None = None
    ess_fraction: float | None = None
    """(Σ w)² / (S Σ w²) of the sequence ratios, in [1/S, 1], before any clamp."""
    ess_fraction_low: float | None = None
    ess_fraction_high: float | None = None
    """Delete-one-prompt jackknife interval of `ess_fraction`; None where `weights_reason` is given."""
    chi2: float | None = None
    """Mean of (ρ − 1)², unbiased for χ²(π‖μ) while π stays in μ's support."""
    pareto_k: float | None = None
    pareto_k_limit: float | None = None
    """min(1 − 1/log₁₀ S, 0.7): the largest `pareto_k` at which `ess_fraction` and `chi2` of S responses mean
    much."""
    weights_reason: str | None = None
    """Why nothing may be concluded from `ess_fraction` and `chi2`; None where they are sound."""
    by_length: tuple[LengthBin, ...] = ()


@result
class ThirdParty:
    """How far two policies are from a third one that both should be: errors of log p of the sampled tokens."""

    rms_setting: float
    rms_against: float
    ratio: Interval
    """`rms_setting` / `rms_against`: above 1 where the setting is farther from the third policy."""
    correlation: Interval
    """E[e_a e_b] / √(E[e_a²] E[e_b²]), of errors that are not centred."""
    quadrature: Interval
    """E[(e_a − e_b)²] / (E[e_a²] + E[e_b²]): 1 where the two errors add in quadrature."""


@result
class Bounds:
    """What the mismatch can cost the surrogate objective, for rewards with |R| ≤ 1: structural, no certificates.

    Each limits the error of the objective's first-order surrogate at μ, all on one scale; adding a constant to the
    reward changes none of them, so for rewards in [0, 1] half of each is enough. With e = max TV, k = max KL(μ‖π),
    D_t the mean TV at position t and T the horizon. The two max-free ones are means over responses and so have
    intervals; all others put the largest TV and KL of the visited states in the place of maxima over all states.
    The slacks, α₀ + α₁ − β, belong to three policies. None: what a bound needs was not given.
    """

    horizon: int | None = None
    """T, tokens of the longest response."""
    classical_tv: float | None = None
    """2 T (T − 1) e²"""
    classical_kl: float | None = None
    """T (T − 1) k"""
    pinsker_marginal_tv: float | None = None
    """4 min(1, e) Σ_t min(1, √((t − 1) k / 2))"""
    pinsker_marginal_kl: float | None = None
    """4 min(1, √(k / 2)) Σ_t min(1, √((t − 1) k / 2))"""
    mixed_tv: float | None = None
    """4 T min(1, e) min(1, TV of sequences)"""
    mixed_kl: float | None = None
    """4 T min(1, √(k / 2)) min(1, √(KL of sequences / 2))"""
    coupling: float | None = None
    """4 min(1, e) Σ_t min(1, (t − 1) e)"""
    adaptive: float | None = None
    """4 Σ_t D_t min(1, (T − t) e, √((T − t) k / 2)), over what is known of e and k"""
    max_free_linear: Interval | None = None
    """4 Σ_t D_t"""
    max_free_quadratic: Interval | None = None
    """2 E Σ_{t < j} |ρ_t − 1| (1 − ρ_j)₊"""
    slack_observed_max: float | None = None
    slack_mean: float | None = None
    discount: float | None = None
    advantage_max: float | None = None
    """γ and ε = max |A_μ|, as they were given: on the same scale of rewards."""
    factor: float | None = None
    """C = 2 ε γ / (1 − γ)²"""
    two_policies_lower: float | None = None
    """C β. The largest TV that was visited stands in for the maximum: the theorem's bound is no smaller."""
    three_policies_lower: float | None = None
    """C (α₀ + α₁), likewise."""
    vacuous: tuple[str, ...] = ()
    """Bounds of 2 or more, which is the whole range of J for |R| ≤ 1: they say nothing."""
