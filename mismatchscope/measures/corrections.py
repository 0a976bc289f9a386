"""What the usual off-policy corrections keep, what they cost, and what mismatch remains on what they keep.

Legend: T = sampled tokens of a block of whole sequences; S = its sequences; S1 = S + 1 boundaries; U = units that a
rule weights, tokens or sequences.

A correction decides which samples train and with which weight. It does not move mu or pi, so alpha_1 stays what
it was; the figures here are of the retained set and are named so. Rules that look at a third policy (PPO, GSPO,
CISPO, DPPO, M2PO) are not mismatch corrections and are left out.

A rule looks at one sequence at a time, so it is applied block by block, and what it keeps adds up (`RuleSums`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from .results import Correction
from .sampled import SampledEstimators, k3, shortfall
from .sequence_sums import checked_offsets, checked_tokens

Array = np.ndarray


class RatioBlock:
    """The log ratios of some whole sequences, prepared once for every rule.

    `tv_T` and `kl_T` are each state's TV and KL(mu || pi), from full distributions; None where not every state's is
    known. `tv_estimate_T` and `kl_estimate_T` are tokens' values that are unbiased for both, by default (1 - rho)_+
    and k3. `sampled` has what is otherwise computed from the log ratios. Raises as `SequenceSums.of` does.
    """

    def __init__(
        self,
        log_ratio_T: ArrayLike,
        offsets_S1: ArrayLike,
        *,
        tv_T: ArrayLike | None = None,
        kl_T: ArrayLike | None = None,
        tv_estimate_T: Array | None = None,
        kl_estimate_T: Array | None = None,
        sampled: SampledEstimators | None = None,
    ) -> None:
        offsets_S1 = checked_offsets(offsets_S1)
        self.starts_S, self.length_S = offsets_S1[:-1], np.diff(offsets_S1)
        self.log_ratio_T = checked_tokens(log_ratio_T, offsets_S1, "log_ratio")
        self.log_ratio_S = np.add.reduceat(self.log_ratio_T, self.starts_S)
        self.state_tv_T = None if tv_T is None else checked_tokens(tv_T, offsets_S1, "tv")
        self.state_kl_T = None if kl_T is None else checked_tokens(kl_T, offsets_S1, "kl")
        if sampled is not None:
            self.k3_T, shortfall_T, self.ratio_T = sampled.k3, sampled.shortfall, sampled.ratio
        else:
            self.k3_T, shortfall_T = k3(self.log_ratio_T), shortfall(self.log_ratio_T)
            with np.errstate(over="ignore"):
                self.ratio_T = np.exp(self.log_ratio_T)
        self.tv_estimate_T = shortfall_T if tv_estimate_T is None else tv_estimate_T
        self.kl_estimate_T = self.k3_T if kl_estimate_T is None else kl_estimate_T

    def sequence_mean(self, values_T: Array) -> Array:
        return np.add.reduceat(values_T, self.starts_S) / self.length_S


@dataclass
class RuleSums:
    """What one rule did to all blocks so far. Weights are summed as logarithms: whole responses overflow."""

    unit: Literal["token", "sequence"]
    tokens: int = 0
    sequences: int = 0
    units: int = 0
    kept_tokens: int = 0
    kept_sequences: int = 0
    removed: float = 0.0
    """Sum of rho - w."""
    log_weight: float = -math.inf
    log_square: float = -math.inf
    retained: dict[str, float | None] = field(
        default_factory=lambda: dict.fromkeys(("ratio", "tv_estimate", "kl_estimate", "tv", "kl"), 0.0)
    )
    """Sums over the retained tokens; None once a block did not know them."""

    def merge(self, other: RuleSums) -> None:
        for name in ("tokens", "sequences", "units", "kept_tokens", "kept_sequences", "removed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.log_weight = float(np.logaddexp(self.log_weight, other.log_weight))
        self.log_square = float(np.logaddexp(self.log_square, other.log_square))
        for name, value in other.retained.items():
            mine = self.retained[name]
            self.retained[name] = None if mine is None or value is None else mine + value

    def correction(self, name: str, parameters: dict[str, float]) -> Correction:
        kept = self.kept_tokens

        def mean(known: str, estimate: str) -> float | None:
            total = self.retained[known] if self.retained[known] is not None else self.retained[estimate]
            return total / kept if kept and total is not None else None

        mean_weight, ess_fraction = 0.0, None
        if self.log_weight > -math.inf:
            with np.errstate(over="ignore"):
                mean_weight = float(np.exp(self.log_weight - math.log(self.units)))
            ess_fraction = min(math.exp(2 * self.log_weight - self.log_square) / self.units, 1.0)
        return Correction(
            name=name,
            parameters=parameters,
            unit=self.unit,
            kept_tokens=kept / self.tokens,
            kept_sequences=self.kept_sequences / self.sequences,
            clipped_mass=self.removed / self.units,
            mean_weight=mean_weight,
            ess_fraction=ess_fraction,
            ratio_retained=mean("ratio", "ratio"),
            tv_retained=mean("tv", "tv_estimate"),
            kl_retained=mean("kl", "kl_estimate"),
        )


def token_tis(block: RatioBlock, *, cap: float = 2.0) -> RuleSums:
    """Truncated importance sampling, token level: w = min(rho_t, cap)."""
    return _by_token(block, None, np.minimum(block.ratio_T, cap))


def icepop(block: RatioBlock, *, low: float = 0.5, high: float = 5.0) -> RuleSums:
    """IcePop: w = rho_t where rho_t is in [low, high], else the token is masked."""
    keep_T = _within(block.log_ratio_T, low, high)
    return _by_token(block, keep_T, np.where(keep_T, block.ratio_T, 0.0))


def sequence_tis(block: RatioBlock, *, cap: float = 2.0) -> RuleSums:
    """Truncated importance sampling, sequence level: w = min(rho(y), cap)."""
    return _by_sequence(block, np.ones(block.log_ratio_S.shape, dtype=bool), cap=cap)


def sequence_mis(block: RatioBlock, *, cap: float = 2.0) -> RuleSums:
    """Masked importance sampling: w = rho(y) where rho(y) <= cap, else the sequence is masked."""
    return _by_sequence(block, block.log_ratio_S <= np.log(cap))


def geometric_mask(block: RatioBlock, *, low: float = 0.999, high: float = 1.001) -> RuleSums:
    """Keep a sequence while its geometric mean ratio rho(y)^(1 / length) is in [low, high]."""
    return _by_sequence(block, _within(block.log_ratio_S / block.length_S, low, high))


def k3_rejection(block: RatioBlock, *, threshold: float = 0.001) -> RuleSums:
    """Keep a sequence while its mean k3 is at most `threshold`."""
    return _by_sequence(block, block.sequence_mean(block.k3_T) <= threshold)


def worst_token_rejection(block: RatioBlock, *, low: float = 1e-4) -> RuleSums:
    """Drop a sequence once one of its token ratios is below `low`."""
    return _by_sequence(block, np.minimum.reduceat(block.log_ratio_T, block.starts_S) >= np.log(low))


def trust_region_mask_max(block: RatioBlock, *, threshold: float = 0.05) -> RuleSums:
    """Trust region masking (2512.23075): keep a sequence while KL(mu || pi) of all its states is <= threshold.

    Raises:
        ValueError: the states' KL is not known; the sampled ratio does not stand in for it.
    """
    return _by_sequence(block, np.maximum.reduceat(_state_kl(block), block.starts_S) <= threshold)


def trust_region_mask_mean(block: RatioBlock, *, threshold: float = 0.001) -> RuleSums:
    """As `trust_region_mask_max`, by the mean over the sequence's states."""
    return _by_sequence(block, block.sequence_mean(_state_kl(block)) <= threshold)


Rule = Callable[..., RuleSums]

# The thresholds in use.
USUAL: tuple[tuple[Rule, tuple[dict[str, float], ...]], ...] = (
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
_NEED_STATE_KL = (trust_region_mask_max, trust_region_mask_mean)


class Corrections:
    """Every usual rule at each of its thresholds, over all blocks."""

    def __init__(self) -> None:
        self._rules = [(rule, parameters) for rule, settings in USUAL for parameters in settings]
        self._sums: list[RuleSums | None] = []

    def add(self, block: RatioBlock) -> None:
        self._take(
            [
                None if rule in _NEED_STATE_KL and block.state_kl_T is None else rule(block, **parameters)
                for rule, parameters in self._rules
            ]
        )

    def merge(self, other: Corrections) -> None:
        self._take(other._sums)

    def _take(self, theirs: list[RuleSums | None]) -> None:
        if not self._sums:
            self._sums = [None if sums is None else RuleSums(sums.unit) for sums in theirs]
        for place, sums in enumerate(theirs):
            mine = self._sums[place]
            if mine is None or sums is None:  # a rule must see every sequence
                self._sums[place] = None
            else:
                mine.merge(sums)

    def results(self) -> tuple[Correction, ...]:
        """One a rule and threshold; trust region masking is left out where the states' KL is not known."""
        pairs = zip(self._rules, self._sums, strict=True)
        return tuple(
            sums.correction(rule.__name__, parameters) for (rule, parameters), sums in pairs if sums is not None
        )


def _within(log_ratio_U: Array, low: float, high: float) -> Array:
    """Bounds on the ratio itself: bounds on its negative logarithm swap their roles and are easily confused."""
    return (log_ratio_U >= np.log(low)) & (log_ratio_U <= np.log(high))


def _state_kl(block: RatioBlock) -> Array:
    if block.state_kl_T is None:
        raise ValueError("trust region masking needs the KL of each state, from full evidence")
    return block.state_kl_T


def _by_token(block: RatioBlock, keep_T: Array | None, weight_T: Array) -> RuleSums:
    """A rule that weights tokens; `keep_T` None keeps them all."""
    kept_S = None if keep_T is None or keep_T.all() else np.logical_or.reduceat(keep_T, block.starts_S)
    with np.errstate(divide="ignore"):
        log_weight, log_square = float(np.log(weight_T.sum())), float(np.log((weight_T * weight_T).sum()))
    reduced_T = weight_T < block.ratio_T
    removed = float((block.ratio_T[reduced_T] - weight_T[reduced_T]).sum()) if reduced_T.any() else 0.0
    return _sums(block, "token", None if kept_S is None else keep_T, kept_S, removed, log_weight, log_square)


def _by_sequence(block: RatioBlock, keep_S: Array, cap: float = np.inf) -> RuleSums:
    """A rule that keeps or drops whole sequences; those kept have weight min(rho(y), cap)."""
    log_weight_S = np.where(keep_S, np.minimum(block.log_ratio_S, np.log(cap)), -np.inf)
    reduced_S = log_weight_S < block.log_ratio_S
    with np.errstate(over="ignore"):  # a ratio beyond 1e308 takes an infinite mass with it
        removed = float((np.exp(block.log_ratio_S[reduced_S]) - np.exp(log_weight_S[reduced_S])).sum())
    weights = (float(np.logaddexp.reduce(log_weight_S)), float(np.logaddexp.reduce(2 * log_weight_S)))
    keep_T = None if keep_S.all() else np.repeat(keep_S, block.length_S)
    return _sums(block, "sequence", keep_T, keep_S, removed, *weights)


def _sums(
    block: RatioBlock,
    unit: Literal["token", "sequence"],
    keep_T: Array | None,
    kept_S: Array | None,
    removed: float,
    log_weight: float,
    log_square: float,
) -> RuleSums:
    def total(values_T: Array | None) -> float | None:
        return None if values_T is None else float((values_T if keep_T is None else values_T[keep_T]).sum())

    tokens, sequences = len(block.log_ratio_T), len(block.log_ratio_S)
    return RuleSums(
        unit=unit,
        tokens=tokens,
        sequences=sequences,
        units=tokens if unit == "token" else sequences,
        kept_tokens=tokens if keep_T is None else int(keep_T.sum()),
        kept_sequences=sequences if kept_S is None else int(kept_S.sum()),
        removed=removed,
        log_weight=log_weight,
        log_square=log_square,
        retained={
            "ratio": total(block.ratio_T),
            "tv_estimate": total(block.tv_estimate_T),
            "kl_estimate": total(block.kl_estimate_T),
            "tv": total(block.state_tv_T),
            "kl": total(block.state_kl_T),
        },
    )
