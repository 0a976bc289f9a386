"""The bounds of a report as rows."""

from __future__ import annotations

from ..measures.results import Interval
from .document import Report
from .summary import Row
from .text import estimate, number, setting

_MEAN = "mean over responses"
_MAXIMUM_TV, _MAXIMUM_KL = "rests on the largest TV seen", "rests on the largest KL seen"
_SLACK = "α₀ + α₁ − β"
_VACUOUS = "no less than the range of rewards"
_BOUNDS = {
    "max_free_linear": ("max-free, linear", _MEAN),
    "max_free_quadratic": ("max-free, quadratic", _MEAN),
    "adaptive": ("adaptive", _MAXIMUM_TV),
    "coupling": ("coupling", _MAXIMUM_TV),
    "mixed_tv": ("mixed, TV", _MAXIMUM_TV),
    "mixed_kl": ("mixed, KL", _MAXIMUM_KL),
    "pinsker_marginal_tv": ("Pinsker, TV", _MAXIMUM_TV),
    "pinsker_marginal_kl": ("Pinsker, KL", _MAXIMUM_KL),
    "classical_tv": ("classical, TV", _MAXIMUM_TV),
    "classical_kl": ("classical, KL", _MAXIMUM_KL),
    "slack_mean": ("slack of the means", _SLACK),
    "slack_observed_max": ("slack of the maxima", _SLACK),
}


def bound_rows(report: Report) -> list[Row]:
    """What the mismatch can cost, bound by bound; rewards between −1 and 1 have a range of 2."""
    rows = []
    for name, (label, note) in _BOUNDS.items() if report.bounds is not None else ():
        value = getattr(report.bounds, name)
        if isinstance(value, Interval):
            rows.append(Row(label, estimate(value.value, value.low, value.high), note))
        elif value is not None:
            vacuous = value >= 2 and note is not _SLACK
            rows.append(Row(label, number(value), _VACUOUS if vacuous else note))
    return rows + discounted_rows(report)


def discounted_rows(report: Report) -> list[Row]:
    """The bounds of a discounted objective; none unless its discount was given."""
    bounds = report.bounds
    if bounds is None or bounds.discount is None:
        return []
    given = f"γ {setting(bounds.discount)}, ε {setting(bounds.advantage_max or 0.0)}"
    of = "β" if report.beta is not None else "α₁"
    found = {f"discounted, {of}": bounds.two_policies_lower, "discounted, α₀ + α₁": bounds.three_policies_lower}
    return [
        Row(label, f"≥ {number(value)}", f"{_VACUOUS if value >= 2 else _MAXIMUM_TV}; {given}")
        for label, value in found.items()
        if value is not None
    ]
