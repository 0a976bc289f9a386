"""Columns whose values stand beside the wrong ones."""

from __future__ import annotations

import numpy as np

from ..detector import Finding, Picture, detector, of_sequences
from ..sample import Sample
from ..statistics.alignment import Moved, other_rows, ragged_ends, read_elsewhere, shifted, split
from ..statistics.size import gap
from ..statistics.stat import Stat, share
from ..words import number, some_sequences

_FEWEST = 2


@detector("off_by_one", tokens=48)
def moved(sample: Sample) -> Finding | None:
    """Sequences that agree when a column is moved by a token or two."""
    found = shifted(sample)
    chosen = np.flatnonzero(found.shift_S)
    parted = np.count_nonzero((split(sample).from_S > 0) & (found.shift_S == 0))
    if len(chosen) < _FEWEST or parted >= max(_FEWEST, 0.3 * len(chosen)):
        return None
    value, counts = np.unique(found.shift_S[chosen], return_counts=True)
    shift = int(value[counts.argmax()])
    way = "further" if shift > 0 else "earlier"
    return _moved(
        sample,
        found,
        "off_by_one",
        f"{len(chosen):,} of the {found.telling:,} sequences that can tell agree when π is read {abs(shift)} "
        f"token{'s' if abs(shift) > 1 else ''} {way}: their mean |Δ| is {number(found.before)} as they are, and "
        f"{number(found.after)} moved.",
    )


@detector("retokenised", tokens=48)
def moved_from_a_token_on(sample: Sample) -> Finding | None:
    """Sequences that agree as they are up to a token, and moved after it."""
    found = split(sample)
    chosen = np.flatnonzero(found.shift_S)
    swapped = int(np.count_nonzero(other_rows(sample).partner_C >= 0))
    # A row that is another's may agree with it by chance at the beginning: what explains more rows is asked first.
    if len(chosen) < _FEWEST or swapped > len(chosen):
        return None
    return _moved(
        sample,
        found,
        "retokenised",
        f"{len(chosen):,} of the {found.telling:,} sequences that can tell agree up to a token and, moved by one "
        f"or two, after it: their mean |Δ| is {number(found.before)} as they are, and {number(found.after)} so.",
    )


def _moved(sample: Sample, found: Moved, cause: str, why: str) -> Finding | None:
    explained_N = of_sequences(sample, found.shift_S != 0)
    rest = read_elsewhere(sample, found.reads_N)
    if cause == "retokenised":
        rest = rest.without(ragged_ends(sample, found))
    return Finding(
        causes=(cause,),
        why=why,
        statistic="mean |Δ log p| as it is over that at the best shift",
        value=Stat(found.before / max(found.after, 1e-12), None, None, int(np.count_nonzero(found.shift_S))),
        null=1.0,
        explained_N=explained_N,
        rest=rest,
        picture=_by_sequence(sample, rest),
        **some_sequences(sample, explained_N),
    )


def _by_sequence(sample: Sample, rest: Sample) -> Picture:
    """Mean |Δ| of each sequence, as it is and mended."""
    count = min(sample.evidence.sequences, 400)
    x = tuple(float(s) for s in range(count))

    def means(each: Sample) -> tuple[float | None, ...]:
        sum_S = each.by_sequence(np.abs(each.delta_N))[:count]
        return tuple(
            float(total / tokens) if tokens else None
            for total, tokens in zip(sum_S, each.live_S[:count], strict=True)
        )

    return Picture(
        "sequences", "sequence", "mean |Δ log p|", (("as it is", x, means(sample)), ("moved", x, means(rest)))
    )


@detector("row_order", tokens=48)
def rows_of_others(sample: Sample) -> Finding | None:
    """Sequences whose columns are unrelated, where another one's column fits."""
    found = other_rows(sample)
    matched = int(np.count_nonzero(found.partner_C >= 0))
    tried = len(found.unsound_C)
    if matched < _FEWEST or matched < 0.4 * tried:
        return None
    explained_N = of_sequences(sample, found.unsound_C)
    rest = sample.without(explained_N)
    return Finding(
        causes=("row_order",),
        why=f"For {matched:,} of {tried:,} sequences with unrelated columns another one's column fits: mean |Δ| is "
        f"{number(found.before)} in their own row, and {number(found.after)} in that one.",
        statistic="share of unrelated sequences that another row fits",
        value=share(matched, tried),
        null=0.0,
        explained_N=explained_N,
        rest=rest if gap(rest).value is not None else None,
        picture=_by_sequence(sample, rest),
        **some_sequences(sample, explained_N),
    )
