"""What is left when no value, place or label tells: the weights, attention, or what either computes with."""

from __future__ import annotations

import numpy as np

from ..detector import MOST_IN_A_SET, Finding, detector
from ..pictures import positions_picture
from ..sample import Sample
from ..statistics.distributions import beyond_head
from ..statistics.function import of_bigrams, of_previous, of_tokens
from ..statistics.grouping import of_sequences
from ..statistics.logit_errors import at_few_ids
from ..statistics.position import first_token, growth
from ..statistics.size import energy_below, gap, log_odds_line, rank_with_probability, robust_gap, tail
from ..statistics.stat import Stat
from ..words import number, percent

_BEYOND = 1.5
_RANKS = 0.3
_PURE = 0.78
"""Intraclass correlation of z over equal pairs of tokens, without the part of rounding: 0.77 to 0.96 of a head that
was planted, 0.5 to 0.75 of older weights, which change states as well."""
_OF_TOKENS, _OF_TOKENS_ALONE = 0.48, 0.7
"""Intraclass correlation from which on a gap is a function of the token: the second where it has a course along the
response too, as that of weights which changed within it, with up to 0.6."""
_COURSE = 0.7
"""Exponent of |z| over the position."""
_FEW_RESPONSES = 3
_FEWEST_FIRST, _TIMES_THE_FIRST = 12, 100
"""Responses with a first token that says something, and R of later tokens over that of the first ones, at the
least: 30,000 where float32 sides have one cache in eight bits, and up to 20 of what grows with the position."""
_GROWS, _FALLS = 0.6, 0.3
"""Exponents of |z| over the position that are a course."""
_ALIKE = 2.6
"""Root mean square over the robust scale: 2.75 and more of other angles and scores."""
_STEEP = 1.0
"""Other rotary angles and scores grow about in proportion to the position or faster, what a norm or weights do more
slowly."""
_OUTSIDE = 1.5
"""In floors: rounding leaves about 1 outside of what hidden states make, and more only beside far larger gaps,
whose share outside is then small."""


@detector("head", "vocabulary_rows", "head_precision", needs=("whole distributions",), tokens=32)
def beyond_the_body(sample: Sample) -> Finding | None:
    """A difference of the logits that no hidden state makes, through the head that both sides should have."""
    outside, size, few = beyond_head(sample), gap(sample), at_few_ids(sample)
    if outside is None or size.value is None or few is None:
        return None
    # Rounding lies outside as well, and a body that differs inside, where a stale head has most of it outside.
    robust = robust_gap(sample)
    throughout = outside.share > 0.4 and size.value > 2.5 and robust is not None and robust > 1.5
    if size.value < 1.5 or (not throughout and (outside.share < 0.25 or outside.floors < _OUTSIDE)):
        return None
    rows = few.share > 0.6
    causes = ("vocabulary_rows",) if rows else ("head",)
    where = f"a tenth of the ids holds {percent(few.share)} of it" if rows else "it is spread over the ids"
    return Finding(
        causes=causes,
        why=f"{percent(outside.share)} of the difference of the logits lies outside what hidden states can make "
        f"through the head, and none would where the head is the same; {where}.",
        statistic="share of the logit difference outside the head's column space",
        value=Stat(outside.share, None, None, few.rows),
        null=0.0,
        explained_N=sample.live_N,
    )


@detector("head", "vocabulary_rows", "stale_weights", needs=("token ids",), tokens=200)
def function_of_the_token(sample: Sample) -> Finding | None:
    """A gap that is the same wherever a token comes again, and that the token before has no part in."""
    found = _functions(sample)
    size, spread, mixed = gap(sample), tail(sample), of_sequences(sample)
    if found is None or size.value is None or spread is None or mixed.value is None or _of_the_body(sample):
        return None
    bigrams, tokens, previous = found
    assert bigrams.value is not None and tokens.value is not None and previous.value is not None
    # Rounding repeats with no token: where no floor was measured, what repeats says more than a size.
    if sample.floor.measured and size.value < _BEYOND:
        return None
    if (
        min(bigrams.value, tokens.value) < (_OF_TOKENS if _has_no_course(sample) else _OF_TOKENS_ALONE)
        or not (bigrams.above(0.2) and tokens.above(0.2))
        or previous.value > 0.25
        or mixed.value > 0.09
    ):
        return None
    ranks = rank_with_probability(sample)
    if ranks is None or abs(ranks) > _RANKS:
        return None  # a temperature is a function of the probability, and so in part of the token
    causes: tuple[str, ...]
    causes = ("head",) if spread < 1.25 else ("vocabulary_rows",) if spread > 1.45 else ("head", "vocabulary_rows")
    shape = "of all tokens alike" if causes == ("head",) else "of some tokens more than of others"
    # Rounding has its part of z², and no part in what equal tokens have in common.
    rounding = 1 / size.value**2 if sample.floor.measured else 0.0
    if bigrams.value / (1 - rounding) < _PURE and _may_be_stale(sample):
        causes += ("stale_weights",)
    return Finding(
        causes=causes,
        why=f"z of equal tokens in other prompts has a correlation of {number(tokens.value)}, {shape}, and after "
        f"equal tokens one of {number(previous.value)}; noise and attention have none.",
        statistic="intraclass correlation of z over equal tokens",
        value=tokens,
        null=0.0,
        explained_N=sample.live_N,
    )


def _has_no_course(sample: Sample) -> bool:
    """Whether |z| neither grows nor falls steadily along the response: what the token alone makes does not."""
    course = growth(sample)
    return course is None or abs(course[0]) < _COURSE or abs(course[1]) < 4


def _may_be_stale(sample: Sample) -> bool:
    """Whether older weights of all responses are an answer: not where responses of step 0 are off like the others,
    whose weights nothing had changed."""
    steps = (value_S for name, value_S in sample.evidence.metadata.items() if "step" in name.lower())
    for value_S in steps:
        if np.issubdtype(value_S.dtype, np.number):
            return int(np.count_nonzero((value_S == 0) & (sample.live_S > 0))) < _FEW_RESPONSES
    return True


def _of_the_body(sample: Sample) -> bool:
    """Whether whole distributions show a difference that is all within what the head can make of states."""
    outside = beyond_head(sample)
    return outside is not None and outside.share < 0.15


def _functions(sample: Sample) -> tuple[Stat, Stat, Stat] | None:
    found = of_bigrams(sample), of_tokens(sample), of_previous(sample)
    return None if any(each.value is None for each in found) else found


@detector("head_precision", "dropout", needs=("token ids",), tokens=200)
def noise(sample: Sample) -> Finding | None:
    """A gap that is a function of nothing that repeats: of the size of a rounding error, or as dropout makes it."""
    found, size, spread, mixed = _functions(sample), gap(sample), tail(sample), of_sequences(sample)
    if found is None or size.value is None or spread is None or mixed.value is None or size.value < 3:
        return None
    (first, _) = first_token(sample)
    largest = max(abs(each.value) for each in found[:2] if each.value is not None)
    if mixed.value > 0.08:
        return None
    if spread < 1.12 and largest < 0.15:
        if size.value * sample.floor.value > 0.08:
            return None
        causes: tuple[str, ...] = ("head_precision",)
        shape = "as where all logits are rounded alike"
    elif _looks_dropped(size.value, spread, largest, first) and not _grows(growth(sample)):
        # What attention does wrong begins with little, and what weights do is a function of the tokens.
        causes, shape = ("dropout",), "and some tokens are farther than others"
    else:
        return None
    return Finding(
        causes=causes,
        why=f"z of equal tokens has a correlation of {number(found[1].value)}, and one of 0.2 to 0.9 where weights "
        f"differ; its root mean square is {number(spread)} times its median scale, {shape}.",
        statistic="root mean square of z over its robust scale",
        value=Stat(spread, None, None, size.n),
        null=1.0,
        explained_N=sample.live_N,
    )


def _looks_dropped(size: float, spread: float, largest: float, first: Stat) -> bool:
    return size > 5 and 1.3 < spread < 2.6 and largest < 0.14 and first.value is not None and first.value > 2


def _grows(course: tuple[float, float] | None) -> bool:
    return course is not None and course[0] > _GROWS and course[1] > 4


@detector("fp8_cache", tokens=200)
def decoded_tokens(sample: Sample) -> Finding | None:
    """The first token of the responses, which no cache has touched, at the floor, and all others far from it."""
    first, later = first_token(sample)
    if first.value is None or first.high is None or later.value is None or first.n < _FEWEST_FIRST:
        return None
    # Against the first token, so that no floor is needed: nothing else leaves that one sound and hardly any other.
    after_N = sample.scaled_N & (sample.evidence.position_N > 0)
    near = float(np.mean(sample.gap_N[after_N] < 3 * first.high))
    if later.value < _TIMES_THE_FIRST * first.high or near > 0.1:
        return None
    after_N = sample.live_N & (sample.evidence.position_N > 0)
    return Finding(
        causes=("fp8_cache",),
        why=f"R is {number(first.value)} floors at the first token of the responses, which prefill gives, and "
        f"{number(later.value)} at those that were decoded after it.",
        statistic="R of tokens after the first one, in floors",
        value=later,
        null=first.value,
        explained_N=after_N,
        rest=sample.without(after_N),
        picture=positions_picture(sample, "relative"),
    )


@detector(
    *("rope", "attention_scale", "fp8_cache", "norm", "fp8_weights", "dropout", "stale_weights"),
    *("context", "padding", "weights_changed_in_response"),
    tokens=600,
)
def along_the_sequence(sample: Sample) -> Finding | None:
    """A gap that grows smoothly with the position, or falls with it."""
    course, size, mixed = growth(sample), gap(sample), of_sequences(sample)
    if course is None or size.value is None or mixed.value is None or size.value < 2 or mixed.value > 0.12:
        return None
    if _of_a_sampler(sample, size.value) or _sparse(sample, size.value):
        return None
    exponent, t = course
    (first, _), absolute = first_token(sample), sample.evidence.prompt_length_S is not None
    if _grows(course):
        causes, way = _growing(exponent, first, sample), "grows"
    elif exponent < -_FALLS and t < -3 and first.value is not None and first.value > 1.5:
        # A beginning that differs, and a sink, which counts less the more keys there are, weigh less and less.
        # So do, on average, responses that new weights went on with at places of their own.
        causes, way = ("context", "attention_scale"), "falls"
        if sample.evidence.version_N is None:
            causes += ("weights_changed_in_response",)
        if not any("padding" in name.lower() for name in sample.evidence.metadata):
            causes += ("padding",)
    else:
        return None
    return Finding(
        causes=causes,
        why=f"|z| {way} with the position to the power of {number(exponent)} (t = {number(t)}); what "
        "rounding makes hardly depends on it.",
        statistic="exponent of |z| over the position",
        value=Stat(exponent, exponent * (1 - 1.96 / abs(t)), exponent * (1 + 1.96 / abs(t)), size.n),
        null=0.0,
        explained_N=sample.live_N,
        picture=positions_picture(sample, "absolute" if absolute else "relative"),
    )


def _of_a_sampler(sample: Sample, size: float) -> bool:
    """Whether π is below μ nearly everywhere, or the log-odds are scaled: then the course is that of the states."""
    below, lines = energy_below(sample), log_odds_line(sample)
    one_way = below is not None and size < 50 and below > 0.9
    if lines is None or lines.all.correlation < 0.8:
        return one_way
    return one_way or (lines.all.explained > 0.1 and abs(lines.all.t) > 3)


def _sparse(sample: Sample, size: float) -> bool:
    """Whether a few tokens hold a gross gap: what attention or weights do wrong, they do at most tokens."""
    spread = tail(sample)
    return size > 50 and spread is not None and spread > 60


def _growing(exponent: float, first: Stat, sample: Sample) -> tuple[str, ...]:
    """A cache that rounds leaves the first token of a response alone; weights that differ grow slowly, and what
    dropout does is alike at all tokens."""
    untouched = first.value is not None and first.value < 1.3
    bigrams, spread = of_bigrams(sample).value, tail(sample)
    stale = ("stale_weights",) if exponent < 1.3 and _may_be_stale(sample) else ()
    if exponent < _STEEP and not untouched and spread is not None and spread < _ALIKE:
        return ("dropout", "norm", "fp8_weights", *stale)
    causes: tuple[str, ...] = ("rope", "attention_scale", *(("fp8_cache",) if untouched else ()), *stale)
    if exponent < _STEEP or (bigrams is not None and bigrams > 0.3):
        causes += ("norm",) if untouched else ("norm", "fp8_weights")
    return causes[:MOST_IN_A_SET]
