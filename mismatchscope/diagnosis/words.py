"""Numbers and counts in the sentences of findings.

Shapes: N tokens, S sequences.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from .evidence import Array
from .sample import Sample

NAMES = {"behavior": "μ", "reference": "π"}


def number(value: float | None) -> str:
    """With three digits, or with two where one of them is before the point."""
    if value is None or not np.isfinite(value):
        return "unknown" if value is None else "∞"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}".replace("-", "−")


def percent(value: float) -> str:
    """A share; never 0 % or 100 % of one that is not."""
    shown = f"{100 * value:.3g}" if 0.0005 < value < 0.9995 else f"{100 * value:.5g}"
    return f"{shown} %"


def tokens(count: int) -> str:
    return f"{count:,} token" if count == 1 else f"{count:,} tokens"


class Scope(TypedDict):
    scope: str | None
    sequences: tuple[int, ...]


def some_sequences(sample: Sample, chosen_N: Array) -> Scope:
    """Which sequences have these tokens, where they are not all of them; the first dozen by number."""
    having = np.unique(sample.evidence.sequence_N[chosen_N])
    count = len(having)
    if count == int(np.count_nonzero(sample.live_S)):
        return {"scope": "all sequences", "sequences": ()}
    shown = ", ".join(name_of(sample, int(s)) for s in having[:6])
    more = " …" if count > 6 else ""
    return {
        "scope": f"{count:,} of {sample.evidence.sequences:,} sequences: {shown}{more}",
        "sequences": tuple(having[:1000].tolist()),
    }


def name_of(sample: Sample, sequence: int) -> str:
    names = sample.evidence.name_S
    return str(sequence if names is None else names[sequence])
