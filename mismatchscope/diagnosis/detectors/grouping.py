"""Sequences that are off, and others that are not: what a log says of them tells why."""

from __future__ import annotations

import numpy as np

from ..detector import Finding, Picture, detector, of_sequences
from ..sample import Sample
from ..statistics.grouping import Groups, by_metadata, gap_S
from ..statistics.order import onset
from ..statistics.size import gap
from ..words import name_of, number, some_sequences

_CHANCE = 5e-4
_EXPLAINED = 0.2
_TIMES = 1.6
"""R of the sequences that are off over R of the others, at the least."""
_GROWS_T, _GROWS = 3.7, 0.1
"""The slope of a level on the logarithm of an amount over its standard error, and the slope: of very many responses
one is clear that means nothing."""
_MOSTLY, _RISES_T = 0.6, 2.5
"""Share of the variance of the responses' levels that having some padding or none explains, and the slope on how
much, over its standard error, that go with few responses without any."""
_SPARED = 0.25
"""Share of the sequences of the steps that are off which are sound themselves: old weights spare none."""
_JUMP, _IN_PROPORTION = 0.45, 0.22
"""Slopes of a level on the logarithm of a step: 0 of weights that were left behind once, 1 of an adapter that
grows. A slope that is below the one by its standard error is a jump, and one above the other by its own is growth.
Where both hold or neither does, the responses cannot tell, for each has a level of its own."""

_EXPLAINED_BY_ORDER, _SOUND = 0.3, 1.7
"""Share of the variance of the responses' levels that a cut in their order has at the least, and R before it that
counts as being at the floor."""
_RISE = 0.3
"""Of a level from the first response that is off to the last one: 1.1 of an adapter whose weight grows threefold
with the steps, and 0 of weights that were left behind once."""

MEANINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("worker", ("worker",)),
    ("rank", ("worker",)),
    ("engine", ("worker",)),
    ("replica", ("worker",)),
    ("host", ("worker",)),
    ("lag", ("staleness",)),
    ("staleness", ("staleness",)),
    ("slot", ("packing",)),
    ("padding", ("padding",)),
    ("cached", ("stale_prefix",)),
    ("version", ("stale_weights", "staleness", "adapter", "worker")),
    ("step", ("stale_weights", "adapter")),
    ("batch", ("batch",)),
    ("neighbour", ("batch",)),
)
"""What a column is about, by a part of its name, and the causes that go with it."""


def meaning(name: str) -> tuple[str, ...]:
    """The causes that go with a column; none of one that has no known meaning."""
    return next((causes for part, causes in MEANINGS if part in name.lower()), ())


@detector(
    "worker",
    "staleness",
    "packing",
    "padding",
    "stale_prefix",
    "stale_weights",
    "adapter",
    "batch",
    needs=("metadata",),
    tokens=64,
)
def metadata(sample: Sample) -> Finding | None:
    """A column of metadata that says which sequences are off."""
    size, columns = gap(sample), by_metadata(sample)
    if size.value is None or size.value < 1.2 or not columns:
        return None
    clear = [each for each in columns if _is_clear(each)]
    # A version is a step less a lag: it speaks for neither of them where they speak themselves.
    clear = [each for each in clear if "version" not in each.name] or clear
    if not clear:
        return None
    best = max(clear, key=lambda each: each.explained)
    causes = _causes(best)
    rivals = [each for each in clear if each is not best and each.explained > 0.8 * best.explained]
    for each in rivals:
        causes += tuple(cause for cause in _causes(each) if cause not in causes)
    if not causes:
        return None
    assert best.low.value is not None and best.high.value is not None
    explained_N = of_sequences(sample, _affected(sample, best))
    others = f" So does {' and '.join(each.name for each in rivals)}." if rivals else ""
    return Finding(
        causes=causes,
        why=f"{best.name} separates them ({best.contrast}): R is {number(best.high.value)} floors in "
        f"{int(best.high_S.sum()):,} sequences, and {number(best.low.value)} in the others.{others}",
        statistic=f"R of the sequences that {best.name} sets apart, in floors",
        value=best.high,
        null=best.low.value,
        explained_N=explained_N,
        rest=sample.without(explained_N),
        false_alarm=best.p,
        picture=_picture(best),
        **some_sequences(sample, explained_N),
    )


def _affected(sample: Sample, groups: Groups) -> np.ndarray:
    """The sequences on the far side of the contrast; of an amount, all that have some: 0 padding, no lag and the
    first slot are sound, and little of it is less than much."""
    value_S = np.asarray(sample.evidence.metadata[groups.name])
    if not np.issubdtype(value_S.dtype, np.number):
        return groups.high_S
    some_S = value_S > 0
    return some_S if not (groups.high_S & ~some_S).any() else groups.high_S


def _is_clear(groups: Groups) -> bool:
    low, high = groups.low.value, groups.high.value
    if low is None or high is None:
        return False
    if meaning(groups.name) == ("padding",) and groups.growth is not None:
        slope, error = groups.growth
        if slope > max(_GROWS_T * error, _GROWS):
            return True
        # Few rows of a batch have none, which a permutation says little of: but they alone are sound, and the
        # others are the farther off the more they have.
        if groups.explained > _MOSTLY and low < _SOUND and high > 10 * low and slope > _RISES_T * error:
            return True
    if groups.p > _CHANCE or groups.explained < _EXPLAINED:
        return False
    return high > _TIMES * low and high > 1.3


def _causes(groups: Groups) -> tuple[str, ...]:
    """One cause where the column has one, or where its course tells: a jump, or growth in proportion."""
    causes = meaning(groups.name)
    if causes != ("stale_weights", "adapter"):
        return causes
    if groups.sound_of_high > _SPARED:
        return (*causes, "stale_prefix")
    # Of the steps that are off alone: those before a jump are no part of its course.
    course = groups.growth if groups.contrast == "the trend" else groups.growth_of_high
    if course is None:
        return causes
    slope, error = course
    grows, jumps = slope - error > _IN_PROPORTION, slope + error < _JUMP
    if grows == jumps:
        return causes
    return ("adapter",) if grows else ("stale_weights",)


@detector("stale_weights", "adapter", tokens=200)
def from_a_response_on(sample: Sample) -> Finding | None:
    """Responses at the floor up to one of them, in the order of the log, and above it from there on, where no
    column tells their steps."""
    told = any("stale_weights" in meaning(name) for name in sample.evidence.metadata)
    found, size = onset(sample), gap(sample)
    if not sample.evidence.in_order or told or found is None or size.value is None or size.value < 1.2:
        return None
    low, high = found.low.value, found.high.value
    if low is None or high is None or found.p > _CHANCE or found.explained < _EXPLAINED_BY_ORDER:
        return None
    if low > _SOUND or high < max(_TIMES * low, 1.3) or found.sound_of_high > _SPARED:
        return None
    if any(_changes_there(groups, found.high_S) for groups in by_metadata(sample)):
        return None
    slope, error = found.growth
    grows, jumps = slope - error > _RISE, slope + error < 2 * _RISE
    causes: tuple[str, ...] = ("stale_weights", "adapter")
    if grows != jumps:
        causes = ("adapter",) if grows else ("stale_weights",)
    explained_N = of_sequences(sample, found.high_S)
    return Finding(
        causes=causes,
        why=f"In the order of the log R is {number(low)} floors in the responses before "
        f"{name_of(sample, found.first)}, and {number(high)} from there on.",
        statistic="R of the responses from one of them on, in floors",
        value=found.high,
        null=low,
        explained_N=explained_N,
        rest=sample.without(explained_N),
        false_alarm=found.p,
        picture=_in_order(sample, found.first),
        **some_sequences(sample, explained_N),
    )


def _changes_there(groups: Groups, high_S: np.ndarray) -> bool:
    """Whether no label of a column is on both sides of the place, so that it may be what makes the gap: responses
    of one environment after those of another."""
    known_S = groups.label_S >= 0
    before, after = (set(groups.label_S[known_S & of_S].tolist()) for of_S in (~high_S, high_S))
    return not before & after


def _in_order(sample: Sample, first: int) -> Picture:
    """R of the responses in their order, of up to 400 of them."""
    size_S = gap_S(sample)
    known = np.flatnonzero(np.isfinite(size_S))
    shown = known[:: 1 + len(known) // 400]
    series = (("R", tuple((shown + 1.0).tolist()), tuple(size_S[shown].tolist())),)
    label, marks = "response, in the order of the log", (("from here on", first + 1.0),)
    return Picture("sequences", label, "R, in floors", series, (), marks, 1.0)


def _picture(groups: Groups) -> Picture:
    x = tuple(float(number) for number in range(len(groups.labels)))
    return Picture(
        "groups",
        groups.name,
        "R, in floors",
        (("R", x, tuple(gap.value for gap in groups.gaps)),),
        groups.labels,
        (),
        1.0,
    )
