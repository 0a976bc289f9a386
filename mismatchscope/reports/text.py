"""Numbers as people read them: as many digits as carry meaning."""

from __future__ import annotations

import math
from typing import Any

UNKNOWN = "–"
_ROUNDING = 1e-9
"""An interval that is narrower, relative to its ends, has the width of rounding errors: its digits mean nothing."""


def number(value: float | None) -> str:
    """Three significant digits; more where the figure is close to 1 and the distance to 1 is what matters."""
    if value is None or not math.isfinite(value) or value == int(value) or abs(value) >= 1e6:
        return _fixed(value, 0)
    if abs(value) < 1e-3:
        return _scientific(value)
    decimals = 2 - _magnitude(value)
    if abs(value - 1) < 0.1:
        decimals = 1 - _magnitude(value - 1)
    return _fixed(value, min(max(decimals, 0), 5))


def estimate(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """`0.00213 [0.00188, 0.00239]`: all to the digits that the width of the interval leaves meaningful.

    Ends without an estimate between them are bounds: `≥ 0.00188`, or `0.00188 – 0.86`.
    """
    if value is None and low is not None:
        return f"≥ {number(low)}" if high is None else f"{number(low)} – {number(high)}"
    if value is None or (low is None and high is None):
        return number(value)
    ends = [number(low), number(value), number(high)]
    if low is not None and high is not None and math.isfinite(high - low) and high > low:
        largest = max(abs(low), abs(value), abs(high))
        if high - low <= _ROUNDING * largest:
            ends = [number(value)] * 3
        elif 1e-3 <= largest < 1e6:
            mantissa, exponent = f"{high - low:.1e}".split("e")
            decimals = 1 - int(exponent)  # two digits of the width
            if mantissa < "2":  # three, where two would be coarse and the figures have as many
                decimals = max(decimals, min(decimals + 1, 2 - _magnitude(largest)))
            decimals = min(decimals, max(5, -int(exponent)))  # one will do where the figures get long
            ends = [_rounded(end, max(decimals, 0)) for end in (low, value, high)]
    return f"{ends[1]} [{ends[0]}, {ends[2]}]"


def _rounded(value: float, decimals: int) -> str:
    return _scientific(value) if 0 < abs(value) < 10.0**-decimals else _fixed(value, decimals)


def _fixed(value: float | None, decimals: int) -> str:
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value + 0.0:,.{decimals}f}" if abs(value) < 1e6 else _scientific(value)  # + 0.0 unsigns a zero


def _scientific(value: float) -> str:
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value)))


def setting(value: float) -> str:
    """A number that somebody chose (a threshold, a quantile): as it was typed."""
    return f"{value:.6g}"


def share(value: float | None) -> str:
    """A fraction in per cent, `12.4 %`, with the distance to 100 % kept: `99.99 %`."""
    if value is None or math.isnan(value):
        return UNKNOWN
    nearest = min(abs(value), abs(1 - value)) or 1.0
    text = f"{100 * value:.{min(max(-_magnitude(nearest), 0), 6)}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"


def probability(logprob: float) -> str:
    return number(math.exp(logprob))


def count(n: int, thing: str) -> str:
    """`1 prompt`, `4,096 tokens`."""
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `2 h 5 min`: as exact as an estimate is."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def one_line(value: Any, width: int = 40) -> str:
    """One provenance value on one line."""
    text = UNKNOWN if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return shortened(text, width)


def shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
