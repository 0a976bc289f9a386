"""Which rules are swept, over which thresholds, and by which statistic of a sequence where they mask sequences."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from .bins import Key, TokenBins
from .block import RatioBlock
from .catalogue import RULES
from .effect import Effect
from .policy_rules import kept_by_dppo, kept_by_ppo
from .weighting import by_sequence, sequence_effect

Array = np.ndarray
Parameters = dict[str, float]


@dataclass(frozen=True)
class SequenceMask:
    """A sequence is kept while its statistic is at most the limit of the threshold."""

    statistic: Callable[[RatioBlock], Array]
    limit: Callable[[float], float] = float
    everything: Callable[[RatioBlock], Effect] = by_sequence
    """The rule's weights when it keeps every sequence."""


@dataclass(frozen=True)
class TokenBand:
    """A token is kept or clamped by the bin of a quantity; `kept` None keeps every token."""

    key: Key
    kept: Callable[[TokenBins, Parameters], Array] | None = None


@dataclass(frozen=True)
class Sweep:
    """`points` are the values of `parameter`, of which `others` makes the rule's further parameters. How the rule
    works is None where it is applied as it is."""

    rule: str
    parameter: str
    points: tuple[float, ...]
    how: SequenceMask | TokenBand | None
    others: Callable[[float], Parameters] = lambda point: {}

    def parameters(self, point: float) -> Parameters:
        found = {**self.others(point), self.parameter: point}
        return {name: found[name] for name in RULES[self.rule].usual[0]}


def _one_sided(block: RatioBlock) -> Array:
    assert block.advantage_S is not None
    return np.where(block.advantage_S < 0, block.mean_k1_S, -np.inf)


def _outward(block: RatioBlock) -> Array:
    """How far the geometric mean ratio is from 1 in the direction in which the advantage pushes."""
    moved_S = np.expm1(block.mean_target_log_ratio_S)
    advantage_S = block.advantage_S
    assert advantage_S is not None
    return np.where(advantage_S > 0, moved_S, np.where(advantage_S < 0, -moved_S, -np.inf))


def _gspo_weights(block: RatioBlock) -> Effect:
    log_ratio_S = block.mean_target_log_ratio_S
    return sequence_effect(block, np.ones(len(log_ratio_S), dtype=bool), log_ratio_S, log_ratio_S)


def _icepop_kept(bins: TokenBins, given: Parameters) -> Array:
    return bins.within(float(np.log(given["low"])), float(np.log(given["high"])))


_LARGEST = 700.0
"""The logarithm of about the largest float."""
_RATIOS = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
_SMALL = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
_SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
_CLIPS = (0.05, 0.1, 0.2, 0.3, 0.5)


def _same_low(high: float) -> Parameters:
    return {"low": high}


SWEEPS: tuple[Sweep, ...] = (
    Sweep("token_tis", "cap", _RATIOS, TokenBand("ratio")),  # a cap of 1 would cut the bin of zero in two
    Sweep("icepop", "high", _RATIOS, TokenBand("ratio", _icepop_kept), lambda high: {"low": 1 / high}),
    Sweep("sequence_tis", "cap", (1.0, *_RATIOS, 20.0), None),
    Sweep("sequence_mis", "cap", (*_RATIOS, 20.0), SequenceMask(lambda block: block.log_ratio_S, math.log)),
    Sweep(
        "geometric_mask",
        "high",
        tuple(1 + each for each in _SMALL),
        SequenceMask(
            lambda block: np.abs(np.expm1(np.minimum(block.log_ratio_S / block.length_S, _LARGEST))),
            lambda high: (high - 1) * (1 + 1e-12),  # 1 + 1e-4 - 1 is not 1e-4
        ),
        lambda high: {"low": 2 - high},
    ),
    Sweep("k3_rejection", "threshold", _SMALL, SequenceMask(lambda block: block.mean_k3_S)),
    Sweep(
        "largest_k3_rejection",
        "threshold",
        (0.005, 0.02, 0.05, 0.2, 0.5, 2.0),
        SequenceMask(lambda block: block.largest_k3_S),
    ),
    Sweep(
        "worst_token_rejection",
        "low",
        (0.5, 0.3, 0.1, 1e-2, 1e-3, 1e-4, 1e-5),
        SequenceMask(lambda block: -block.smallest_log_ratio_S, lambda low: -math.log(low)),
    ),
    Sweep(
        "error_rejection",
        "threshold",
        (1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0),
        SequenceMask(lambda block: block.mean_error_S),
    ),
    Sweep(
        "one_sided_sequence_mask",
        "threshold",
        (0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 1.0),
        SequenceMask(_one_sided, everything=partial(by_sequence, clamp=None)),
    ),
    Sweep(
        "dppo_tv_mask",
        "high",
        _SHARES,
        TokenBand("change", lambda bins, given: kept_by_dppo(bins, **given)),
        _same_low,
    ),
    Sweep(
        "ipo_mask",
        "threshold",
        _SHARES,
        TokenBand("change", lambda bins, given: bins.within(-given["threshold"], given["threshold"])),
    ),
    Sweep(
        "one_sided_reference_kl",
        "threshold",
        _SHARES,
        TokenBand("change", lambda bins, given: bins.within(low=-given["threshold"])),
    ),
    Sweep(
        "ppo_clip", "high", _CLIPS, TokenBand("target", lambda bins, given: kept_by_ppo(bins, **given)), _same_low
    ),
    Sweep(
        "gspo_clip",
        "high",
        (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
        SequenceMask(_outward, everything=_gspo_weights),
        _same_low,
    ),
    Sweep("cispo", "high", (1.2, 1.5, 2.0, 5.0, 10.0), TokenBand("target"), lambda high: {"low": 0.0}),
    Sweep("decoupled_ppo", "high", _CLIPS, TokenBand("target"), _same_low),
)
"""Masks of the worst token go from strict to loose like all others, so their thresholds fall."""
