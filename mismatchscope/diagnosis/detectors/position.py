"""Gaps that begin or end at a place along the sequence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..detector import Finding, detector, of_sequences
from ..pictures import places, positions_picture
from ..sample import Sample
from ..statistics.position import Break, Flips, breaks, flips, gap_of, log_gap, step_t
from ..statistics.stat import Stat
from ..words import number, some_sequences

_FEWEST_OF_A_VERSION, _TIMES_OLDER, _OLDER_T = 32, 1.6, 4.5
"""Tokens of either version, R of the older ones over R of the newer ones, and its step over the standard error."""
_STEP = 0.12
"""Share of the variance of log |z| that a step explains: 0.17 and more of windows and chunks, at most 0.07 of gaps
that grow with the position."""
_UNSURE = 12
"""Positions before a break that may be behind it: few tokens are off in the first ones."""
_FLOOR = 1.7
"""R of a part that counts as being at the floor."""
_TIMES, _TIMES_OF_QUIET = 4, 10
"""R after a break over R before it, at the least: more where the floor is that of the quieter responses, which may
be off as well. What grows with the position has up to 9 then."""


@detector("weights_changed_in_response", needs=("versions",), tokens=64)
def versions_in_response(sample: Sample) -> Finding | None:
    """Within responses that two versions of the weights sampled, the older one's tokens are off."""
    version_N, sequence_N = sample.evidence.version_N, sample.evidence.sequence_N
    assert version_N is not None
    newest_S = np.full(sample.evidence.sequences, -1)
    oldest_S = np.full(sample.evidence.sequences, np.iinfo(np.int64).max)
    np.maximum.at(newest_S, sequence_N, version_N)
    np.minimum.at(oldest_S, sequence_N, version_N)
    both_N = sample.scaled_N & ((newest_S > oldest_S) & (oldest_S >= 0))[sequence_N]
    older_N = both_N & (version_N < newest_S[sequence_N])
    newer_N = both_N & ~older_N
    if min(np.count_nonzero(older_N), np.count_nonzero(newer_N)) < _FEWEST_OF_A_VERSION:
        return None
    older, newer = gap_of(sample, older_N), gap_of(sample, newer_N)
    t = -step_t(sample, log_gap(sample), older_N, newer_N)
    if older.value is None or newer.value is None or older.value < _TIMES_OLDER * newer.value or t < _OLDER_T:
        return None
    explained_N = of_sequences(sample, newest_S > oldest_S) & (version_N < newest_S[sequence_N])
    return Finding(
        causes=("weights_changed_in_response",),
        why=f"Of responses that two versions of weights sampled, R is {number(older.value)} floors at the tokens "
        f"of the older one, and {number(newer.value)} at those of the newest.",
        statistic="R of tokens of an older version than their response's newest, in floors",
        value=older,
        null=newer.value,
        explained_N=explained_N,
        rest=sample.without(explained_N),
        picture=positions_picture(sample, "relative"),
        **some_sequences(sample, explained_N),
    )


@detector("window", "chunked_prefill", tokens=200)
def boundary(sample: Sample) -> Finding | None:
    """At the floor up to a place in the sequence, and above it from there on."""
    found = breaks(sample)
    place = found.get("absolute") or found.get("relative")
    own_floor = sample.floor.source == "quiet part"
    if place is None or not _rises_from_the_floor(place, _TIMES_OF_QUIET if own_floor else _TIMES):
        return None
    if _rises_at_own_places(sample).any():
        return None
    other = found.get("relative") if place.axis == "absolute" else None
    if other is not None and other.explained > 1.3 * place.explained:
        return None
    at_N = places(sample, place.axis)
    explained_N = sample.live_N & (at_N >= place.at)
    near_N = sample.live_N & (at_N >= place.at - _UNSURE)
    slope, t = place.onward
    causes: tuple[str, ...] = ("window", "chunked_prefill") if slope > 0 else ("chunked_prefill", "window")
    course = ""
    if abs(t) > 1.25 and abs(slope) > 0.2:
        causes = causes[:1]
        course = (
            ", and goes on growing: a window leaves more and more out"
            if slope > 0
            else ", and falls again: what was lost at a boundary matters less and less"
        )
    return Finding(
        causes=causes,
        why=f"R is {number(place.before.value)} floors before position {place.at:,} of the sequence and "
        f"{number(place.after.value)} from there on{course}.",
        statistic="R from the break on, in floors",
        value=place.after,
        null=place.before.value,
        explained_N=explained_N,
        rest=sample.without(near_N),
        scope=f"from position {place.at:,} of the sequence on",
        picture=positions_picture(sample, place.axis, (("break", float(place.at)),)),
        settings=("window", "chunk"),
    )


def _rises_from_the_floor(place: Break, times: float) -> bool:
    before, after = place.before.value, place.after.value
    if before is None or after is None or place.t < 4.5:
        return False
    if before < _FLOOR:
        # A gap that grows from nothing is better told by a straight line.
        return after > times * before and place.explained > max(_STEP, 0.9 * place.ramp)
    # A few tokens may be off before; what counts is that most are not.
    return place.explained > 0.25 and place.t > 8 and place.calm_before > 0.6


@detector("weights_changed_in_response", "routing", tokens=200)
def change_in_response(sample: Sample) -> Finding | None:
    """Farther from the floor on one side of a place within the responses than on the other."""
    found, own = breaks(sample).get("relative"), flips(sample)
    rising, falling = _rises_at_own_places(sample), (own.at_S >= 0) & ~own.rises_S
    if np.count_nonzero(falling) >= _needed(own) and not rising.any():
        return _at_places_of_their_own(sample, own, falling, ("weights_changed_in_response",), "falls")
    if rising.any():
        return _at_places_of_their_own(sample, own, rising, ("weights_changed_in_response", "routing"), "rises")
    if found is None or found.before.value is None or found.after.value is None:
        return None
    absolute = breaks(sample).get("absolute")
    if absolute is not None and absolute.explained > found.explained:
        return None
    if found.before.value < _FLOOR or found.before.value < 1.35 * found.after.value:
        return None
    clear = found.explained >= 0.115 or (found.explained >= 0.08 and found.t < -8)
    if found.t > -5.5 or not clear or found.at < 8:
        return None
    explained_N = sample.live_N & (sample.evidence.position_N < found.at)
    # The place differs by response, so what is left of it cannot be taken out.
    return replace(
        _changed(sample, explained_N, found.before, found.after, f"about position {found.at:,}"), rest=None
    )


def _at_places_of_their_own(
    sample: Sample, own: Flips, chosen_S: np.ndarray, causes: tuple[str, ...], way: str
) -> Finding:
    after_N = sample.evidence.position_N >= own.at_S[sample.evidence.sequence_N]
    # A response in which no place is found may be too short to tell, or be off as a whole.
    unclear_N = ~of_sequences(sample, chosen_S)
    explained_N = sample.live_N & (unclear_N | (after_N if way == "rises" else ~after_N))
    count = int(np.count_nonzero(chosen_S))
    return _changed(sample, explained_N, own.inside, own.outside, f"{count:,} responses have one each", causes, way)


def _needed(own: Flips) -> float:
    """How many responses make a find."""
    return max(3.0, 0.15 * own.telling)


def _rises_at_own_places(sample: Sample) -> np.ndarray:
    """Responses that leave the floor at places of their own [S], none where there are few, where the places are
    about one position of the sequence, as a window's, or where the gap grows from nothing, as a position's does."""
    own = flips(sample)
    rising_S = (own.at_S >= 0) & own.rises_S
    none_S = np.zeros_like(rising_S)
    count, found = int(np.count_nonzero(rising_S)), int(np.count_nonzero(own.at_S >= 0))
    if count < _needed(own) or 2 * count < found or own.edge.value is None or own.inside.value is None:
        return none_S
    abrupt = own.edge.value > 0.5 * own.inside.value
    length_S = sample.evidence.prompt_length_S
    places = [own.at_S[rising_S]] + ([] if length_S is None else [(own.at_S + length_S)[rising_S]])
    return rising_S if abrupt and all(_spread(at_M) for at_M in places) else none_S


def _spread(at_M: np.ndarray) -> bool:
    """Whether places are as different as those of an accident: an eighth of the median between the quartiles."""
    low, middle, high = np.quantile(at_M, [0.25, 0.5, 0.75])
    return bool(high - low > max(8, middle / 8))


def _changed(
    sample: Sample,
    explained_N: np.ndarray,
    high: Stat,
    low: Stat,
    where: str,
    causes: tuple[str, ...] = ("weights_changed_in_response",),
    way: str = "falls",
) -> Finding:
    first, second = (low, high) if way == "rises" else (high, low)
    return Finding(
        causes=causes,
        why=f"Within the responses R {way} from {number(first.value)} floors to {number(second.value)} ({where}).",
        statistic="R on the far side of the place within the response, in floors",
        value=high,
        null=low.value,
        explained_N=explained_N,
        rest=sample.without(explained_N),
        picture=positions_picture(sample, "relative"),
        **some_sequences(sample, explained_N),
    )
