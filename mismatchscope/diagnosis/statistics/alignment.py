"""Which value of one column stands beside which of the other.

Shapes: N tokens, S sequences, K shifts, C candidate sequences, H their first tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...measures.row_matching import matching_rows
from ..evidence import Array
from ..sample import Sample, statistic
from .size import FAR

SHIFTS = (-1, 1, -2, 2)
CUTS = 0.35
"""A shift is the right one of a sequence where it cuts the mean |Δ| of the sequence to less than this."""
SPLIT_CUTS = 0.4
_FEWEST = 12
_PART = 8
"""Tokens on either side of the place where a text was tokenised otherwise."""
_LARGEST = 5.0
"""A single |Δ| counts no more."""
_CANDIDATES, _HEAD = 384, 48


class Moved(NamedTuple):
    """Sequences that agree when π's column is read elsewhere.

    `shift_S` is by how many tokens further, 0 of sequences that fit best as they are; `from_S` is the first token
    of each sequence that is read so, counted within the response. `before` and `after` are the mean |Δ| of the
    sequences that moved; `reads_N` is the place among all tokens at which each token of π is read, −1 for none.
    """

    shift_S: Array
    from_S: Array
    before: float
    after: float
    reads_N: Array
    telling: int
    """How many sequences are long enough to tell."""


@statistic
def shifted(sample: Sample) -> Moved:
    """Sequences off by one or two tokens as a whole."""
    at_K, cost_KN, valid_KN = _costs(sample)
    zero_N = _distance(sample)
    shift_S = np.zeros(sample.evidence.sequences, dtype=np.int64)
    best_S, zero_S = np.full(len(shift_S), np.inf), np.full(len(shift_S), np.inf)
    for k, shift in enumerate(SHIFTS):
        count_S, here_S = sample.by_sequence(valid_KN[k]), sample.by_sequence(np.where(valid_KN[k], cost_KN[k], 0))
        at_zero_S = sample.by_sequence(np.where(valid_KN[k], zero_N, 0))
        wins_S = sample.by_sequence(valid_KN[k] & (cost_KN[k] < zero_N))
        better_S = (here_S < CUTS * at_zero_S) & (count_S >= _FEWEST) & (wins_S > 0.7 * count_S)
        better_S &= here_S < best_S
        shift_S[better_S] = shift
        best_S[better_S], zero_S[better_S] = (each[better_S] / count_S[better_S] for each in (here_S, at_zero_S))
    telling = int(np.count_nonzero(sample.live_S >= _FEWEST))
    return _moved(sample, at_K, shift_S, np.zeros_like(shift_S), zero_S, best_S, telling)


@statistic
def split(sample: Sample) -> Moved:
    """Sequences that fit as they are up to a token, and moved by one or two from there on."""
    offsets_S1, length_S = sample.evidence.offsets_S1, sample.evidence.length_S
    at_K, cost_KN, _ = _costs(sample)
    zero_N = _distance(sample)
    shift_S, from_S = np.zeros_like(length_S), np.zeros_like(length_S)
    zero_S, count_S = sample.by_sequence(zero_N), np.maximum(sample.live_S, 1)
    best_S = np.full(len(length_S), np.inf)
    long_S = length_S >= 2 * _PART + 4
    before_N1 = np.append(0.0, np.cumsum(zero_N))
    for k, shift in enumerate(SHIFTS):
        after_N1 = np.append(0.0, np.cumsum(cost_KN[k]))
        gain_N1 = before_N1 - after_N1
        for s in np.flatnonzero(long_S & (zero_S > 0.05 * count_S)):
            first, last = int(offsets_S1[s]), int(offsets_S1[s + 1])
            place = first + _PART + int(np.argmin(gain_N1[first + _PART : last - _PART]))
            cost = before_N1[place] - before_N1[first] + after_N1[last] - after_N1[place]
            # What was off at the place alone is no reason to move: both parts have to agree.
            own = before_N1[last] - before_N1[place]
            moved = after_N1[last] - after_N1[place]
            if cost < SPLIT_CUTS * zero_S[s] and moved < SPLIT_CUTS * own and cost < best_S[s]:
                # That it is moved is told by tokens on either side; where from, by all of them.
                place = first + int(np.argmin(gain_N1[first : last - _PART]))
                shift_S[s], from_S[s], best_S[s] = shift, place - first, cost
    found_S = shift_S != 0
    best_S[found_S] /= count_S[found_S]
    # Where the place is among the first tokens, a sequence looks moved as a whole.
    whole = shifted(sample)
    early_S = ~found_S & (whole.shift_S != 0)
    shift_S[early_S], best_S[early_S] = whole.shift_S[early_S], whole.after
    return _moved(sample, at_K, shift_S, from_S, zero_S / count_S, best_S, int(np.count_nonzero(long_S)))


def _moved(
    sample: Sample, at_K: list[Array], shift_S: Array, from_S: Array, zero_S: Array, best_S: Array, telling: int
) -> Moved:
    found_S = shift_S != 0
    reads_N, sequence_N = np.arange(sample.evidence.tokens), sample.evidence.sequence_N
    place_N = np.arange(sample.evidence.tokens) - sample.evidence.offsets_S1[sequence_N]
    for k, shift in enumerate(SHIFTS):
        here_N = (shift_S[sequence_N] == shift) & (place_N >= from_S[sequence_N])
        reads_N = np.where(here_N, at_K[k], reads_N)
    before, after = ((float(each[found_S].mean()) if found_S.any() else 0.0) for each in (zero_S, best_S))
    return Moved(shift_S, from_S, before, after, reads_N, telling)


def read_elsewhere(sample: Sample, reads_N: Array) -> Sample:
    """The sample with π's column read at these places."""
    moved = sample.mended(sample.evidence.logp_pi_N[np.maximum(reads_N, 0)])
    return moved.without(reads_N < 0)


def ragged_ends(sample: Sample, moved: Moved) -> Array:
    """Tokens of sequences that seem unmoved, from the place on where their last few are far off: these are too few
    to tell that they are moved, and beside sequences that are it is what they may be [N]."""
    sequence_N, place_N = sample.evidence.sequence_N, np.arange(sample.evidence.tokens)
    last_N = sample.evidence.offsets_S1[1:][sequence_N] - place_N <= _PART + 1
    off_N = (_distance(sample) > FAR) & last_N & (moved.shift_S == 0)[sequence_N]
    first_S = np.full(sample.evidence.sequences, sample.evidence.tokens)
    np.minimum.at(first_S, sequence_N[off_N], place_N[off_N])
    return place_N >= first_S[sequence_N]


def _distance(sample: Sample) -> Array:
    """|Δ| of live tokens, 0 of others [N]."""
    return np.minimum(np.abs(np.nan_to_num(sample.delta_N)), _LARGEST)


def _costs(sample: Sample) -> tuple[list[Array], list[Array], list[Array]]:
    """For each shift where π is read (−1: nowhere), |Δ| there (that at shift 0 where there is none), and whether
    both values are there."""
    mu_N, pi_N, sequence_N = sample.evidence.logp_mu_N, sample.evidence.logp_pi_N, sample.evidence.sequence_N
    tokens, zero_N = len(mu_N), _distance(sample)
    places, costs, valid = [], [], []
    for shift in SHIFTS:
        at_N = np.arange(tokens) + shift
        inside_N = (at_N >= 0) & (at_N < tokens)
        at_N = np.where(inside_N, at_N, 0)
        inside_N &= sequence_N[at_N] == sequence_N
        valid_N = inside_N & sample.live_N & sample.live_N[at_N]
        with np.errstate(invalid="ignore"):
            moved_N = np.minimum(np.abs(mu_N - pi_N[at_N]), _LARGEST)
        places.append(np.where(inside_N, at_N, -1))
        costs.append(np.where(valid_N, moved_N, zero_N))
        valid.append(valid_N)
    return places, costs, valid


class Matched(NamedTuple):
    """Sequences whose columns are unrelated, and for each the sequence whose π fits its μ; −1 where none does."""

    unsound_C: Array
    partner_C: Array
    of: int
    before: float
    after: float


@statistic
def other_rows(sample: Sample) -> Matched:
    """Whether unsound rows fit other rows; at most `_CANDIDATES` of them are tried."""
    distance_S = sample.by_sequence(_distance(sample)) / np.maximum(sample.live_S, 1)
    unsound_S = (distance_S > FAR) & (sample.live_S >= 16)
    chosen_C = np.flatnonzero(unsound_S)[:_CANDIDATES]
    if len(chosen_C) < 3:
        return Matched(chosen_C, np.full(len(chosen_C), -1), int(unsound_S.sum()), 0.0, 0.0)
    heads = [
        np.stack([_head(column_N, sample, int(s)) for s in chosen_C])
        for column_N in (sample.evidence.logp_mu_N, sample.evidence.logp_pi_N)
    ]
    index_C = matching_rows(*heads)
    matched_C = index_C >= 0
    before = float(distance_S[chosen_C[matched_C]].mean()) if matched_C.any() else 0.0
    after = (
        float(np.nanmean(np.abs(heads[0][matched_C] - heads[1][index_C[matched_C]]))) if matched_C.any() else 0.0
    )
    partner_C = np.where(matched_C, chosen_C[np.maximum(index_C, 0)], -1)
    return Matched(chosen_C, partner_C, int(unsound_S.sum()), before, after)


def _head(column_N: Array, sample: Sample, s: int) -> Array:
    first, last = sample.evidence.offsets_S1[s], sample.evidence.offsets_S1[s + 1]
    found = np.full(_HEAD, np.nan)
    part_N = np.where(sample.live_N[first:last], column_N[first:last], np.nan)[:_HEAD]
    found[: len(part_N)] = part_N
    return found
