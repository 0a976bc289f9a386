"""Which rule recorded weights follow, in words, as far as the ratios that occurred show it."""

from __future__ import annotations

import math

from ..measures.weight_evidence import Edges, Following
from ..reports.text import number

RATIOS = {
    "token": "π_old/μ of the token",
    "sequence": "π_old/μ of the response",
    "geometric": "the geometric mean of π_old/μ over the response",
    "inverse": "μ/π_old of the token",
    "before": "π_old/μ of the token before",
    "after": "π_old/μ of the token after",
    "target": "π_θ/μ of the token",
}
"""What weights may follow, in words."""

_ASYMMETRIC_BANDS = ((0.5, 5.0),)
"""Published ones, whose bounds differ from those of the inverse."""
_NARROW, _CLEAR = 1.1, 1.25
"""By how many times the ratios on either side of a threshold may differ where it is read off, and where it is taken
for a published one upside down."""


def rule_of(name: str, following: Following) -> tuple[str, str]:
    """(rule, what the weights are)."""
    floor, cap = following.clamps or (None, None)
    what = RATIOS[name]
    if floor is not None and cap is not None:
        what += f", between {number(floor)} and {number(cap)}"
    elif cap is not None:
        what += f", at most {number(cap)}"
    elif floor is not None:
        what += f", at least {number(floor)}"
    clamped = floor is not None or cap is not None
    edges = following.edges
    unseen = [] if floor is not None or edges.below else [f"below {number(math.exp(following.lowest))}"]
    unseen += [] if cap is not None or edges.above else [f"above {number(math.exp(following.highest))}"]
    zeros = f", and 0 where that is {outside(edges)}" if following.zero else ""
    text = f"{what}{zeros}" + (f"; what the rule does {' and '.join(unseen)} is not seen" if unseen else "")
    if not following.zero:
        truncated = {"token": "token_tis", "sequence": "sequence_tis"}.get(name, f"{name}_truncated")
        return truncated if clamped else f"{name}_ratio", text
    if clamped:
        return f"{name}_masked_truncated", text
    if name == "token" and edges.below and edges.above:
        return "icepop", text
    if name == "sequence" and not edges.below:
        return "sequence_mis", text
    return f"{name}_masked", text


def inverse_of(edges: Edges) -> str | None:
    """The published band whose bounds, turned upside down, are the only ones that these can be."""
    for low, high in _ASYMMETRIC_BANDS:
        inverse = (1 / high, 1 / low)
        if all(
            end - start <= math.log(_CLEAR) and start <= math.log(bound) <= end
            for (start, end), bound in zip(edges.brackets, inverse, strict=True)
        ):
            return f"{low:g} – {high:g}"
    return None


def outside(edges: Edges) -> str:
    """Where nothing was kept; of a side on which nothing was dropped, nothing is said."""
    (below, low), (high, above) = edges.brackets
    if not edges.above:
        return f"below {_threshold(below, low)}"
    if not edges.below:
        return f"above {_threshold(high, above)}"
    return f"outside {_threshold(below, low)} – {_threshold(high, above)}"


def _threshold(low: float, high: float) -> str:
    """The shortest number between two ratios, given by their logarithms; both where they are far apart."""
    if high - low > math.log(_NARROW):
        return f"({number(math.exp(low))} to {number(math.exp(high))})"
    centre = math.exp((low + high) / 2)
    roundings = (float(f"{centre:.{digits}g}") for digits in range(1, 9))
    return f"{next((value for value in roundings if low <= math.log(value) <= high), centre):g}"
