"""What the usual off-policy corrections keep, what they cost, and what mismatch remains on what they keep.

Legend: T = sampled tokens of all sequences; S = sequences; S1 = S + 1 boundaries; U = units that a rule weights,
tokens or sequences.

A correction decides which samples train and with which weight. It does not move mu or pi, so alpha_1 stays what
it was; the figures here are of the retained set and are named so. Rules that look at a third policy (PPO, GSPO,
CISPO, DPPO, M2PO) are not mismatch corrections and are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from mismatchscope.measures.sampled import k3, shortfall
from mismatchscope.measures.sequence import checked_offsets, checked_tokens, importance_weights

Array = np.ndarray


@dataclass(frozen=True)
class Correction:
    """One rule at one threshold. Fractions are of all tokens and all sequences; NaN: nothing was kept."""

    name: str
    parameters: dict[str, float]
    unit: Literal["token", "sequence"]
    """What the rule weights, and so what `clipped_mass` and `ess_fraction` average over."""
    kept_tokens: float
    kept_sequences: float
    """Fraction of sequences with at least one token kept."""
    clipped_mass: float
    """E(rho - w): the mass of pi that the weight w takes away. It bounds the bias, in units of TV."""
    ess_fraction: float
    """(sum w)^2 / (U sum w^2) of the weights after the rule."""
    ratio_retained: float
    """Mean token ratio over the retained tokens."""
    tv_retained: float
    """Mean TV over the retained tokens: of their states where TV is known, else mean (1 - rho)_+. The latter
    estimates TV only where the rule does not select by rho itself."""
    kl_retained: float
    """Mean KL(mu || pi) over the retained tokens: of their states where it is known, else mean k3."""


class RatioSample:
    """The log ratios of sampled sequences, prepared once for every rule.

    `tv_T` and `kl_T` are each state's TV and KL(mu || pi), from full distributions or as top-k bounds.
    Raises as `sequence_measures` does.
    """

    def __init__(
        self,
        log_ratio_T: ArrayLike,
        offsets_S1: ArrayLike,
        *,
        tv_T: ArrayLike | None = None,
        kl_T: ArrayLike | None = None,
    ) -> None:
        offsets_S1 = checked_offsets(offsets_S1)
        self.starts_S, self.length_S = offsets_S1[:-1], np.diff(offsets_S1)
        self.log_ratio_T = checked_tokens(log_ratio_T, offsets_S1, "log_ratio")
        self.log_ratio_S = np.add.reduceat(self.log_ratio_T, self.starts_S)
        self.state_kl_T = None if kl_T is None else checked_tokens(kl_T, offsets_S1, "kl")
        self.k3_T = k3(self.log_ratio_T)
        self.tv_T = shortfall(self.log_ratio_T) if tv_T is None else checked_tokens(tv_T, offsets_S1, "tv")
        self.kl_T = self.k3_T if self.state_kl_T is None else self.state_kl_T

    def sequence_mean(self, values_T: Array) -> Array:
        return np.add.reduceat(values_T, self.starts_S) / self.length_S


def token_tis(sample: RatioSample, *, cap: float = 2.0) -> Correction:
    """Truncated importance sampling, token level: w = min(rho_t, cap)."""
    keep_T = np.ones(sample.log_ratio_T.shape, dtype=bool)
    return _by_token("token_tis", {"cap": cap}, sample, keep_T, np.minimum(sample.log_ratio_T, np.log(cap)))


def icepop(sample: RatioSample, *, low: float = 0.5, high: float = 5.0) -> Correction:
    """IcePop: w = rho_t where rho_t is in [low, high], else the token is masked."""
    keep_T = _within(sample.log_ratio_T, low, high)
    log_weight_T = np.where(keep_T, sample.log_ratio_T, -np.inf)
    return _by_token("icepop", {"low": low, "high": high}, sample, keep_T, log_weight_T)


def sequence_tis(sample: RatioSample, *, cap: float = 2.0) -> Correction:
    """Truncated importance sampling, sequence level: w = min(rho(y), cap)."""
    keep_S = np.ones(sample.log_ratio_S.shape, dtype=bool)
    return _by_sequence("sequence_tis", {"cap": cap}, sample, keep_S, cap=cap)


def sequence_mis(sample: RatioSample, *, cap: float = 2.0) -> Correction:
    """Masked importance sampling: w = rho(y) where rho(y) <= cap, else the sequence is masked."""
    return _by_sequence("sequence_mis", {"cap": cap}, sample, sample.log_ratio_S <= np.log(cap))


def geometric_mask(sample: RatioSample, *, low: float = 0.999, high: float = 1.001) -> Correction:
    """Keep a sequence while its geometric mean ratio rho(y)^(1 / length) is in [low, high]."""
    keep_S = _within(sample.log_ratio_S / sample.length_S, low, high)
    return _by_sequence("geometric_mask", {"low": low, "high": high}, sample, keep_S)


def k3_rejection(sample: RatioSample, *, threshold: float = 0.001) -> Correction:
    """Keep a sequence while its mean k3 is at most `threshold`."""
    keep_S = sample.sequence_mean(sample.k3_T) <= threshold
    return _by_sequence("k3_rejection", {"threshold": threshold}, sample, keep_S)


def worst_token_rejection(sample: RatioSample, *, low: float = 1e-4) -> Correction:
    """Drop a sequence once one of its token ratios is below `low`."""
    keep_S = np.minimum.reduceat(sample.log_ratio_T, sample.starts_S) >= np.log(low)
    return _by_sequence("worst_token_rejection", {"low": low}, sample, keep_S)


def trust_region_mask_max(sample: RatioSample, *, threshold: float = 0.05) -> Correction:
    """Trust region masking (2512.23075): keep a sequence while KL(mu || pi) of all its states is <= threshold.

    Raises:
        ValueError: the states' KL is not known; the sampled ratio does not stand in for it.
    """
    keep_S = np.maximum.reduceat(_state_kl(sample), sample.starts_S) <= threshold
    return _by_sequence("trust_region_mask_max", {"threshold": threshold}, sample, keep_S)


def trust_region_mask_mean(sample: RatioSample, *, threshold: float = 0.001) -> Correction:
    """As `trust_region_mask_max`, by the mean over the sequence's states."""
    keep_S = sample.sequence_mean(_state_kl(sample)) <= threshold
    return _by_sequence("trust_region_mask_mean", {"threshold": threshold}, sample, keep_S)


Rule = Callable[..., Correction]
RuleTable = tuple[tuple[Rule, tuple[dict[str, float], ...]], ...]

# The thresholds in use, and around them the grid of the trade-off curve.
USUAL: RuleTable = (
    (token_tis, ({"cap": 2.0},)),
    (icepop, ({"low": 0.5, "high": 5.0},)),
    (sequence_tis, ({"cap": 2.0}, {"cap": 10.0})),
    (sequence_mis, ({"cap": 2.0}, {"cap": 3.0})),
    (geometric_mask, ({"low": 0.999, "high": 1.001},)),
    (k3_rejection, ({"threshold": 0.001}, {"threshold": 0.01})),
    (worst_token_rejection, ({"low": 1e-4}, {"low": 1e-5})),
    (trust_region_mask_max, ({"threshold": 0.05},)),
    (trust_region_mask_mean, ({"threshold": 0.001},)),
)
SWEEP: RuleTable = (
    (token_tis, tuple({"cap": c} for c in (1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0))),
    (icepop, tuple({"low": 1 / c, "high": c} for c in (1.01, 1.05, 1.1, 1.25, 1.5, 2.0, 5.0, 10.0))),
    (sequence_tis, tuple({"cap": c} for c in (1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 100.0))),
    (sequence_mis, tuple({"cap": c} for c in (1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 100.0))),
    (
        geometric_mask,
        tuple({"low": 1 - e, "high": 1 + e} for e in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)),
    ),
    (k3_rejection, tuple({"threshold": c} for c in (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1))),
    (worst_token_rejection, tuple({"low": t} for t in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 0.5))),
    (trust_region_mask_max, tuple({"threshold": c} for c in (1e-4, 1e-3, 1e-2, 0.05, 0.1, 0.5, 1.0))),
    (trust_region_mask_mean, tuple({"threshold": c} for c in (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1))),
)


def corrections(sample: RatioSample, table: RuleTable = USUAL) -> list[Correction]:
    """Every rule of `table` (`USUAL` or `SWEEP`) at each of its thresholds.

    Trust region masking is left out where the states' KL is not known.
    """
    by_state_kl = (trust_region_mask_max, trust_region_mask_mean)
    return [
        rule(sample, **parameters)
        for rule, settings in table
        if sample.state_kl_T is not None or rule not in by_state_kl
        for parameters in settings
    ]


def _within(log_ratio_U: Array, low: float, high: float) -> Array:
    """Bounds on the ratio itself: bounds on its negative logarithm swap their roles and are easily confused."""
    return (log_ratio_U >= np.log(low)) & (log_ratio_U <= np.log(high))


def _state_kl(sample: RatioSample) -> Array:
    if sample.state_kl_T is None:
        raise ValueError("trust region masking needs the KL of each state, from full or top-k evidence")
    return sample.state_kl_T


def _by_token(
    name: str, parameters: dict[str, float], sample: RatioSample, keep_T: Array, log_weight_T: Array
) -> Correction:
    kept_S = np.logical_or.reduceat(keep_T, sample.starts_S)
    return _correction(name, parameters, "token", sample, keep_T, kept_S, sample.log_ratio_T, log_weight_T)


def _by_sequence(
    name: str, parameters: dict[str, float], sample: RatioSample, keep_S: Array, cap: float = np.inf
) -> Correction:
    """A rule that keeps or drops whole sequences; those kept have weight min(rho(y), cap)."""
    log_weight_S = np.where(keep_S, np.minimum(sample.log_ratio_S, np.log(cap)), -np.inf)
    keep_T = np.repeat(keep_S, sample.length_S)
    return _correction(name, parameters, "sequence", sample, keep_T, keep_S, sample.log_ratio_S, log_weight_S)


def _correction(
    name: str,
    parameters: dict[str, float],
    unit: Literal["token", "sequence"],
    sample: RatioSample,
    keep_T: Array,
    keep_S: Array,
    log_ratio_U: Array,
    log_weight_U: Array,
) -> Correction:
    reduced_U = log_weight_U < log_ratio_U
    with np.errstate(over="ignore"):  # a ratio beyond 1e308 takes an infinite mass with it
        removed_U = np.exp(log_ratio_U[reduced_U]) - np.exp(log_weight_U[reduced_U])
        ratio_retained = _mean(np.exp(sample.log_ratio_T[keep_T]))
    return Correction(
        name=name,
        parameters=parameters,
        unit=unit,
        kept_tokens=float(keep_T.mean()),
        kept_sequences=float(keep_S.mean()),
        clipped_mass=float(removed_U.sum() / len(log_ratio_U)),
        ess_fraction=importance_weights(log_weight_U).ess_fraction,
        ratio_retained=ratio_retained,
        tv_retained=_mean(sample.tv_T[keep_T]),
        kl_retained=_mean(sample.kl_T[keep_T]),
    )


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else float("nan")
