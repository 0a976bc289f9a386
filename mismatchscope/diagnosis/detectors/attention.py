"""What attention sees and how, and weights in eight bits: told by the course of the gap along the sequence."""

from __future__ import annotations

from ..detector import Finding, detector
from ..pictures import positions_picture
from ..sample import Sample
from ..statistics.function import of_bigrams, of_previous
from ..statistics.grouping import of_sequences
from ..statistics.levels import Levels, levels
from ..statistics.position import course_in_response, first_token, growth
from ..statistics.size import energy_below, gap, tail
from ..statistics.stat import Stat
from ..words import number

_OF_TOKENS = 0.35
"""Intraclass correlation of z over equal pairs of tokens: what attention does is hardly a function of them."""
_ALIKE = 0.06
"""Intraclass correlation of log |z| by response, of a gap that is alike in all of them."""
_LOWER = 0.55
"""Share of the gap where π is below μ: what μ drew from its own context is less likely in another one, where noise
moves it either way."""
_GROSS = 0.08, 0.95
"""Root mean square of z where what is before a response differs. Rounding makes less; of policies that have little
to do with each other, it is above 3."""


_GROSS_IN_ALL, _HARDLY = 0.45, 0.36
"""Root mean square of z from which on a gap may grow a little, and the exponent of |z| over the position up to
which it does: -0.13 to 0.31 of other templates; other scales of attention have 0.45 and more where they make as
much."""


@detector("context", needs=("token ids",), tokens=400)
def before_the_response(sample: Sample) -> Finding | None:
    """A gross gap of all responses that is there at their first token and does not grow."""
    size, spread, (first, _) = gap(sample), tail(sample), first_token(sample)
    course, below = growth(sample), energy_below(sample)
    if course is None or below is None or spread is None or None in (size.value, first.value):
        return None
    assert size.value is not None and first.value is not None
    floor = sample.floor.value
    # What is missing or foreign is far back for all tokens, and is seen by all of them. A sink falls as well, but
    # seldom makes as much; more heat, other angles and windows grow; weights and heads are functions of the tokens.
    if not _GROSS[0] < size.value * floor < _GROSS[1] or first.value * floor < 0.03 or spread < 2.6:
        return None
    hardly_grows = course[0] < 0.1 and course_in_response(sample)[1] <= 1.6
    if size.value * floor > _GROSS_IN_ALL:
        hardly_grows = course[0] < _HARDLY
    if not hardly_grows or course[0] < -1.3 or below < _LOWER:
        return None
    if not _alike(sample) or not _no_function(sample):
        return None
    return Finding(
        causes=("context",),
        why=f"The root mean square of z is {number(size.value * floor)} in all responses alike, and "
        f"{number(first.value * floor)} at their first token: it is there from the beginning, does not grow, and "
        "is no function of the tokens.",
        statistic="root mean square of z",
        value=Stat(size.value * floor, None, None, size.n),
        null=floor,
        explained_N=sample.live_N,
        picture=positions_picture(sample, "absolute"),
    )


def _alike(sample: Sample) -> bool:
    mixed = of_sequences(sample).value
    return mixed is not None and mixed < _ALIKE


def _no_function(sample: Sample) -> bool:
    found = of_bigrams(sample).value, of_previous(sample).value
    return all(each is not None and each < _OF_TOKENS for each in found)


@detector(
    "rope", "context", "attention_scale", "fp8_weights", needs=("distributions", "prompt lengths"), tokens=400
)
def course_of_the_levels(sample: Sample) -> Finding | None:
    """How the distance of the distributions depends on the position, and how it is spread over tokens."""
    size, found = gap(sample), levels(sample)
    if found is None or size.value is None or size.value < 2 or not _alike(sample):
        return None
    bigrams = of_bigrams(sample).value
    if bigrams is not None and bigrams > 0.48:
        return None
    told = _told(found, size.value * sample.floor.value)
    if told is None:
        return None
    cause, meaning = told
    return Finding(
        causes=(cause,),
        why=f"The distributions are {number(found.median)} nats apart in the median, and it goes with the position "
        f"to the power of {number(found.exponent)}, where rounding hardly depends on it: {meaning}.",
        statistic="exponent of the distance of the distributions over the position",
        value=Stat(found.exponent, None, None, found.tokens),
        null=0.0,
        explained_N=sample.live_N,
        picture=positions_picture(sample, "absolute"),
    )


def _told(found: Levels, size: float) -> tuple[str, str] | None:
    """The cause, and what it has to do with the course. Numbers beside the bounds are those of four fifths of the
    planted cases."""
    if _grows_in_proportion(found):
        return "rope", "other angles turn keys in proportion to their distance"
    if -1.3 < found.exponent < -0.25 and found.spread < 1.7 and found.wide > 2:
        if _is_foreign(found, size):
            return "context", "what is before the response differs, and is ever farther back"
        if _is_a_sink(found, size):
            return "attention_scale", "a sink takes less from many keys than from few"
    if _is_alike(found):
        return "fp8_weights", "eight bits move all states alike, and by this much"
    return None


def _grows_in_proportion(found: Levels) -> bool:
    """Other rotary angles: exponents of 0.83 to 1.29, a correlation of 0.25 to 0.47 and a 0.9-quantile of 2.9 to
    3.8 medians. Another scale has exponents of 0.25 to 0.73, a cache in eight bits a rise of 4 to 10, and what
    begins at a place a longer tail."""
    return 0.87 < found.exponent < 1.4 and found.correlation > 0.25 and found.wide < 4.4 and found.rise < 3


def _is_foreign(found: Levels, size: float) -> bool:
    """Another beginning of the prompt: medians of 0.03 to 0.23 nats from the first token on, 0.1 to 0.65 of z."""
    return _GROSS[0] < size < _GROSS[1] and found.median > 0.02 and found.rise < 1.05


def _is_a_sink(found: Levels, size: float) -> bool:
    """A sink of faint effect: a rise of 0.15 to 1.1, where a BOS on one side mostly has none, and less spread than
    weights that changed within a response (1.1 to 4.2) or padding (1.5 to 4.3)."""
    return size < 0.05 and found.rise > 0.05 and found.correlation > -0.5 and found.spread < 1.25


def _is_alike(found: Levels) -> bool:
    """Weights in eight bits: medians of 0.013 to 0.027 nats and a 0.9-quantile of 1.95 to 2.5 of them, where a head
    has 1.4 to 1.9, a temperature 1.1 to 1.2, and rounding to bfloat16 half the level."""
    of_weights = found.spread < 1.0 and 1.85 < found.wide < 2.5
    return abs(found.exponent) < 0.3 and of_weights and 0.006 < found.median < 0.1
