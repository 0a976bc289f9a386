"""What stands in the columns that no policy has, or that was stored in few bits.

Shapes: N tokens.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from ...measures.rounding import SPARE_BITS, storage_error
from ..evidence import Array
from ..sample import Sample, statistic
from .size import FAR
from .stat import Stat, share

Side = Literal["behavior", "reference"]
SIDES: tuple[Side, Side] = ("behavior", "reference")

CLEARLY_BELOW = -0.35
"""What a token that a sampler kept alone seldom has: it has most of the mass."""
LOW = -20.0
TOLERANCE = 1e-3


def column(sample: Sample, side: Side) -> Array:
    """The log-probs of one side [N]."""
    return sample.evidence.logp_mu_N if side == "behavior" else sample.evidence.logp_pi_N


def other(side: Side) -> Side:
    return "reference" if side == "behavior" else "behavior"


@statistic
def not_finite(sample: Sample) -> dict[Side, Array]:
    """Tokens whose log-prob is NaN or infinite, by side [N]."""
    return {side: ~np.isfinite(column(sample, side)) & ~sample.out_N for side in SIDES}


@statistic
def above_zero(sample: Sample) -> dict[Side, Stat]:
    """Share of live tokens with a log-prob above 0, by side; none of a side where that may be rounding."""
    live = int(np.count_nonzero(sample.live_N))
    found = {}
    for side in SIDES:
        value_M = column(sample, side)[sample.live_N]
        illegal = bool((value_M > TOLERANCE).any())
        found[side] = share(int(np.count_nonzero(value_M > 0)) if illegal else 0, live)
    return found


class Fillers(NamedTuple):
    """Tokens of one side that hold an exact 0, or a whole number far below, in place of a log-prob [N]."""

    zero_N: Array
    clear_N: Array
    """Zeros where the other side is below `CLEARLY_BELOW`."""
    whole_N: Array
    explained: float
    """Of the tokens that are far apart, the share that a filler makes so."""
    in_runs: float
    """Of the clear zeros' runs of zeros, the share of zeros in runs of four and more."""
    below: float
    """Of zeros, the share where the other side is below `CLEARLY_BELOW`."""
    usual_below: float
    """The same of the other side's log-probs at all other tokens."""


@statistic
def fillers(sample: Sample) -> dict[Side, Fillers]:
    """By side."""
    found = {}
    far_N = sample.live_N & (np.abs(np.nan_to_num(sample.delta_N)) > FAR)
    for side in SIDES:
        value_N, other_N = column(sample, side), column(sample, other(side))
        zero_N = sample.live_N & (value_N == 0.0)
        clear_N = zero_N & (other_N < CLEARLY_BELOW)
        whole_N = sample.live_N & (value_N < LOW) & (value_N == np.rint(value_N))
        filled_N, rest_N = zero_N | whole_N, sample.live_N & ~zero_N
        found[side] = Fillers(
            zero_N,
            clear_N,
            whole_N,
            explained=_mean(filled_N[far_N]),
            in_runs=_in_runs(zero_N, sample.evidence.sequence_N),
            below=_mean(clear_N[zero_N]),
            usual_below=_mean(other_N[rest_N] < CLEARLY_BELOW),
        )
    return found


def _mean(value_N: Array) -> float:
    return float(value_N.mean()) if value_N.size else 0.0


def run_lengths(of_N: Array, sequence_N: Array) -> Array:
    """The length of the run within its sequence that each token is in, int64 [N]; 0 where `of_N` is false."""
    begins_N = of_N.copy()
    begins_N[1:] &= ~of_N[:-1] | (np.diff(sequence_N) != 0)
    run_N = np.cumsum(begins_N)
    return np.where(of_N, np.bincount(run_N[of_N], minlength=int(run_N[-1]) + 1 if len(run_N) else 1)[run_N], 0)


def _in_runs(zero_N: Array, sequence_N: Array) -> float:
    return float((run_lengths(zero_N, sequence_N)[zero_N] >= 4).mean()) if zero_N.any() else 0.0


class Bits(NamedTuple):
    """How a column was stored: the share of its values that `bits` significant bits hold, and of the other's."""

    side: Side
    bits: int
    share: float
    other: float
    within: float
    """Of the tokens with p < 0.9, the share whose gap is no larger than storing them so makes it, and rounding."""
    rest_N: Array
    """Log-probs of π that are nearer to μ by what storage may have moved them [N]."""


_SHORT, _LONG = 0.97, 0.6


@statistic
def stored_bits(sample: Sample) -> Bits | None:
    """The side whose values are short, where the other side's are not."""
    graded_N = sample.live_N & (sample.evidence.logp_mu_N < -1 / 64) & (sample.evidence.logp_pi_N < -1 / 64)
    if np.count_nonzero(graded_N) < 30:
        return None
    for bits in sorted(SPARE_BITS):
        held = {
            side: float(
                np.mean(np.ascontiguousarray(column(sample, side)[graded_N]).view(np.int64) & SPARE_BITS[bits] == 0)
            )
            for side in SIDES
        }
        for side in SIDES:
            if held[side] > _SHORT and held[other(side)] < _LONG:
                return _bits(sample, side, bits, held[side], held[other(side)])
    return None


def _bits(sample: Sample, side: Side, bits: int, held: float, of_other: float) -> Bits:
    error_N = storage_error(column(sample, side)) * 1.01
    delta_N = np.nan_to_num(sample.delta_N)
    rest_N = np.sign(delta_N) * np.maximum(np.abs(delta_N) - error_N, 0.0)
    rounding_N = 3 * sample.floor.value * (1 - sample.p_N)
    within = _mean((np.abs(rest_N) <= rounding_N)[sample.scaled_N])
    return Bits(
        side, bits, held, of_other, within, sample.evidence.logp_mu_N + np.where(sample.live_N, rest_N, np.nan)
    )
