"""What corrections would do, and what the log's own ones did: frozen values that a report holds as they are."""

from __future__ import annotations

from typing import Literal

from .results import result


@result
class Correction:
    """One rule at one threshold. Fractions are of all tokens and all sequences; None: nothing was kept."""

    name: str
    parameters: dict[str, float]
    unit: Literal["token", "sequence"]
    """What the rule weights, and so what `clipped_mass` and `ess_fraction` average over."""
    kept_tokens: float
    kept_sequences: float
    """Fraction of sequences with at least one token kept."""
    clipped_mass: float | None = None
    """E(ρ − w)₊: the mass of π that the weight w takes away. With `added_mass` it bounds the bias, in TV units."""
    added_mass: float | None = None
    """E(w − ρ)₊: the mass that the weight adds, where it is larger than the ratio it stands in for."""
    mean_ratio: float | None = None
    """Mean over the units of the ratio that w stands in for, before the rule: 1 − leak in expectation, whatever the
    distance. Far below 1 where nearly every ρ(y) of the sample vanishes; ESS and χ² then mean little."""
    mean_weight: float | None = None
    """Mean of w over the units: how much of the gradient is left. Near 1 where the rule corrects and removes
    little."""
    mean_weight_low: float | None = None
    mean_weight_high: float | None = None
    """Clustered interval of `mean_weight`; None where none was made."""
    kept_tokens_low: float | None = None
    kept_tokens_high: float | None = None
    """Clustered interval of `kept_tokens`."""
    weight_variance: float | None = None
    """Variance of w over the units. None where a weight is beyond 1e308."""
    chi2: float | None = None
    """Mean of (w − 1)² over the units."""
    ess_fraction: float | None = None
    """(Σ w)² / (U Σ w²) of the weights after the rule, U units."""
    ratio_retained: float | None = None
    """Mean token ratio over the retained tokens."""
    tv_retained: float | None = None
    """Mean TV over the retained tokens: of their states where every state's TV is known, else of the values that
    `token.tv` averages, which estimate it only where the rule does not select by ρ itself."""
    kl_retained: float | None = None
    """Mean KL(μ‖π) over the retained tokens: of their states where every state's is known, else of the values
    that `token.kl` averages."""
    remark: str | None = None
    """What stands in for something that the rule looks at and the data lack."""


@result
class CorrectionSweep:
    """One rule at rising thresholds: what it keeps against what it leaves."""

    name: str
    parameter: str
    points: tuple[Correction, ...]


@result
class CorrectionSeries:
    """What one rule did at each step, or at each lag: entry i of every tuple is of `labels[i]`."""

    name: str
    parameters: dict[str, float]
    by: Literal["step", "lag"]
    labels: tuple[int, ...]
    kept_tokens: tuple[float, ...]
    kept_sequences: tuple[float, ...]
    clipped_mass: tuple[float, ...]
    mean_weight: tuple[float, ...]
    ess_fraction: tuple[float | None, ...]
    omitted: int = 0
    """Labels beyond those shown, the last ones."""


@result
class CorrectionAudit:
    """A column of weights or a mask of the log, held against the ratios of the same log."""

    column: str
    code: str
    status: Literal["pass", "fail", "unknown"]
    sentence: str
    rule: str | None = None
    count: int | None = None
    of: int | None = None
    fix: str | None = None
