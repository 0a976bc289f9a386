"""What the figures mean, in words: where they lie among public ones, and what a response adds up to."""

from __future__ import annotations

from .document import Report
from .reading_fields import Place
from .summary import Row
from .text import count, number, setting, share

READING = ("what it means", "places for these numbers, no certificate")
_FIGURE = {
    "abs_logprob_diff": "mean |Δ log p|",
    "rms_log_ratio": "rms of Δ log p",
    "k3": "mean k3",
}


def reading_rows(report: Report) -> list[Row]:
    """Places and sums, one a row; nothing for a report that has none."""
    reading, rows = report.reading, []
    if place := reading.place:
        rows.append(Row(_FIGURE[place.figure], f"{number(place.value)}, {_among(place)}", place_note(place)))
    if reading.outside_band is not None:
        rows.append(Row("ρ outside 0.8 – 1.2", share(reading.outside_band), _tokens(report)))
    if response := reading.per_response:
        if response.sum_tv is not None:
            length = number(response.mean_length)
            length = f"responses of {length} {'token' if length == '1' else 'tokens'}"
            rows.append(Row("Σ TV of a response", number(response.sum_tv), length))
        which = "the only response" if response.responses == 1 else f"all {response.responses} responses"
        if response.responses >= 20:
            which = f"90 % of {count(response.responses, 'response')}"
        rows.append(Row("ρ(y)", f"{number(response.ratio_low)} to {number(response.ratio_high)}", which))
    return rows


def place_note(place: Place) -> str:
    """What the public figures are of."""
    return f"{count(len(place.public), 'public report')}"


def sources(report: Report) -> list[str]:
    """One line a public figure: what was measured there, and where it was said."""
    place = report.reading.place
    if place is None:
        return []
    return [f"{_range(each.low, each.high)}: {each.setup} ({each.source})" for each in place.public]


def _tokens(report: Report) -> str:
    return f"of {count(report.counts.tokens, 'sampled token')}"


def _among(place: Place) -> str:
    known = _range(min(each.low for each in place.public), max(each.high for each in place.public))
    return f"{place.position} {known}"


def _range(low: float, high: float) -> str:
    return setting(low) if low == high else f"{setting(low)} – {setting(high)}"
