"""What scripts/draw_cause_plots.py draws of a case where no detector has a picture of it.

Shapes: N tokens, S sequences, P places, B bins.
"""

from __future__ import annotations

import numpy as np

from mismatchscope.diagnosis.detector import Picture
from mismatchscope.diagnosis.detectors.position import positions_picture
from mismatchscope.diagnosis.evidence import Array
from mismatchscope.diagnosis.sample import Sample

_POINTS = 350
"""At most so many of a series, evenly chosen: more are a blot, and large files."""
_FEWEST = 8
"""Tokens at a place, or of an id, that are enough for a figure."""


def along_the_sequence(sample: Sample) -> Picture:
    """R over positions, counted from the first token of the prompt."""
    return positions_picture(sample, "absolute")


def at_each_position(sample: Sample) -> Picture:
    """R at each of the first positions of the responses, one by one."""
    position_N = np.where(sample.scaled_N, sample.evidence.position_N, -1)
    places = [place for place in range(40) if np.count_nonzero(position_N == place) >= _FEWEST]
    r = [float(np.sqrt(np.mean(sample.gap_N[position_N == place] ** 2))) for place in places]
    x = tuple(float(place) for place in places)
    return Picture("positions", "position in the response", "R, in floors", (("R", x, tuple(r)),), (), (), 1.0)


def mean_at_each_position(sample: Sample) -> Picture:
    """Mean |Δ log p| at each position of the responses, one by one."""
    position_N, delta_N = sample.evidence.position_N, np.abs(sample.delta_N)
    places = [place for place in range(64) if np.count_nonzero(position_N == place) >= _FEWEST]
    y = tuple(float(np.nanmean(delta_N[position_N == place])) for place in places)
    series = (("mean |Δ log p|", tuple(float(place) for place in places), y),)
    return Picture("positions", "position in the response", "mean |Δ log p|", series)


def over_log_prob(sample: Sample) -> Picture:
    """|Δ log p| of each token over its log-prob; exact ties, which have no logarithm, are left out."""
    chosen = _some(sample.live_N & (np.abs(sample.delta_N) > 0))
    x = np.log(np.maximum(sample.p_N[chosen], 1e-30))
    return _points("log p, mean of both sides", "|Δ log p|", ("tokens", x, np.abs(sample.delta_N[chosen])))


def token_again(sample: Sample) -> Picture:
    """z of a token over the mean z of the same token in other prompts."""
    evidence, z_N = sample.evidence, sample.z_N
    assert evidence.token_N is not None
    prompt_N = evidence.prompt_S[evidence.sequence_N]
    places, elsewhere = [], []
    for place in np.flatnonzero(sample.scaled_N):
        same_N = sample.scaled_N & (evidence.token_N == evidence.token_N[place]) & (prompt_N != prompt_N[place])
        if np.count_nonzero(same_N) >= _FEWEST:
            places.append(place)
            elsewhere.append(float(z_N[same_N].mean()))
    chosen = _some(np.ones(len(places), dtype=bool))
    x, y = np.array(elsewhere)[chosen], z_N[np.array(places)[chosen]]
    return _points("mean z of the same token in other prompts", "z of the token", ("tokens", x, y))


def ids_by_gap(sample: Sample) -> Picture:
    """R of each id that occurs often enough, from the smallest to the largest."""
    token_N = sample.evidence.token_N
    assert token_N is not None
    ids = [i for i in np.unique(token_N[sample.scaled_N]) if np.count_nonzero(sample.scaled_N & (token_N == i)) > 3]
    r = np.sort([np.sqrt(np.mean(sample.gap_N[sample.scaled_N & (token_N == i)] ** 2)) for i in ids])
    picture = _points("ids of the vocabulary, by R", "R, in floors", ("ids", np.arange(len(r)), r))
    return Picture(picture.kind, picture.x_label, picture.y_label, picture.series, (), (), 1.0)


def gap_of_tokens(sample: Sample) -> Picture:
    """|z| of tokens in floors, response by response."""
    chosen = _some(sample.scaled_N & (sample.gap_N > 0))
    found = _points("response", "|z|, in floors", ("tokens", _spread(sample)[chosen], sample.gap_N[chosen]))
    return Picture(found.kind, found.x_label, found.y_label, found.series, (), (), 1.0)


def one_response_each(sample: Sample) -> Picture:
    """R of each response."""
    scaled_S, square_S = sample.by_sequence(sample.scaled_N), sample.by_sequence(sample.gap_N**2)
    r_S = np.sqrt(square_S / np.maximum(scaled_S, 1))
    found = _points("response", "R, in floors", ("R", np.arange(len(r_S)), r_S))
    return Picture(found.kind, found.x_label, found.y_label, found.series, (), (), 1.0)


def without_a_number(sample: Sample) -> Picture:
    """How many log-probs of each response are not finite, by side."""
    series = []
    for name, logp_N in (("π", sample.evidence.logp_pi_N), ("μ", sample.evidence.logp_mu_N)):
        count_S = sample.by_sequence(~np.isfinite(logp_N))
        if count_S.any():
            series.append((name, *_pair(np.arange(len(count_S)), count_S)))
    return Picture("sequences", "response", "log-probs that are not finite", tuple(series))


def two_columns(sample: Sample) -> Picture:
    """The two columns as they were found."""
    chosen = _some(sample.live_N)
    pair = _pair(sample.evidence.logp_mu_N[chosen], sample.evidence.logp_pi_N[chosen])
    return Picture("values", "value of μ", "value of π", (("tokens", *pair),))


def over_the_response(sample: Sample) -> Picture:
    """R over the part of its response that a token is at."""
    evidence = sample.evidence
    part_N = evidence.position_N / np.maximum(evidence.length_S[evidence.sequence_N], 1)
    bin_N = np.where(sample.scaled_N, np.minimum((part_N * 20).astype(int), 19), -1)
    kept = [b for b in range(20) if np.count_nonzero(bin_N == b) >= _FEWEST]
    r = tuple(float(np.sqrt(np.mean(sample.gap_N[bin_N == b] ** 2))) for b in kept)
    x = tuple((b + 0.5) / 20 for b in kept)
    return Picture("positions", "part of the response", "R, in floors", (("R", x, r),), (), (), 1.0)


def before_and_again(sample: Sample) -> Picture:
    """Δ log p over log p of tokens that came before in their response, and of others."""
    evidence = sample.evidence
    assert evidence.token_N is not None
    again_N = np.zeros(evidence.tokens, dtype=bool)
    for first, last in zip(evidence.offsets_S1[:-1], evidence.offsets_S1[1:], strict=True):
        seen: set[int] = set()
        for place in range(first, last):
            again_N[place] = int(evidence.token_N[place]) in seen
            seen.add(int(evidence.token_N[place]))
    x_N = np.log(np.maximum(sample.p_N, 1e-30))
    series = []
    for name, of_N in (("came before in the response", again_N), ("others", ~again_N)):
        at = _some(of_N & sample.live_N)
        series.append((name, *_pair(x_N[at], 1000 * sample.delta_N[at])))
    return Picture("sequences", "log p, mean of both sides", "Δ log p, in thousandths", tuple(series))


def _spread(sample: Sample) -> Array:
    """The number of the response of each token, and how far in it is."""
    evidence = sample.evidence
    return evidence.sequence_N + 0.8 * evidence.position_N / np.maximum(evidence.length_S[evidence.sequence_N], 1)


def _some(of_N: Array) -> Array:
    at = np.flatnonzero(of_N)
    return at[:: max(1, -(-len(at) // _POINTS))]


def _points(x_label: str, y_label: str, *series: tuple[str, Array, Array]) -> Picture:
    return Picture("sequences", x_label, y_label, tuple((name, *_pair(x, y)) for name, x, y in series))


def _pair(x: Array, y: Array) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
    return tuple(float(value) for value in x), tuple(float(value) for value in y)
