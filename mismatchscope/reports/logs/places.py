"""Where the intervals of a table of groups lie, side by side on one line."""

from __future__ import annotations

from typing import NamedTuple

from ...measures.log_results import Groups


class Place(NamedTuple):
    """Where an estimate and its ends lie, from 0 to 100; an end that is unknown is where the estimate is."""

    low: float
    value: float
    high: float


def places(groups: Groups) -> list[Place | None]:
    """Mean TV of each row on one line from 0 to the largest end; None where it is unknown."""
    ends = [row.tv.high if row.tv.high is not None else row.tv.value for row in groups.rows]
    largest = max((end for end in ends if end is not None), default=0.0)
    if largest <= 0:
        return [None] * len(groups.rows)

    def at(value: float) -> float:
        return round(100 * min(max(value, 0.0), largest) / largest, 1)

    found: list[Place | None] = []
    for row in groups.rows:
        value = row.tv.value
        if value is None:
            found.append(None)
            continue
        low, high = (value if end is None else end for end in (row.tv.low, row.tv.high))
        found.append(Place(at(low), at(value), at(high)))
    return found
