"""Every two settings whose errors against a third one are related: the table under that of a probe's cells."""

from __future__ import annotations

from collections.abc import Iterator

from .logs.section import Section, interval_text
from .pair_fields import Probe, ProbeCell
from .probe_section import place_in
from .text import UNKNOWN, estimate, number

_HEADER = ("setting", "against", "path", "mean TV", "rms error", "the other's", "correlation", "quadrature")
_NOTE = (
    "of log p of the sampled tokens, from the third party's; quadrature is the mean square between the two over "
    "the sum of both errors', 1 where they have nothing in common"
)


def errors_sections(probe: Probe) -> Iterator[Section]:
    """One; none where nothing was held against a third setting."""
    rows = tuple(
        (cell.setting, cell.against, place_in(probe, cell), *_figures(cell))
        for cell in probe.cells
        if cell.third is not None
    )
    if rows:
        yield Section("errors of two", _NOTE, (), _HEADER, rows)


def _figures(cell: ProbeCell) -> tuple[str, ...]:
    mean, errors = None if cell.pair is None else cell.pair.alpha.mean, cell.errors
    tv = UNKNOWN if mean is None else estimate(mean.value, mean.low, mean.high)
    if errors is None:
        return (tv, *(UNKNOWN,) * 4)
    return (
        tv,
        number(errors.rms_setting),
        number(errors.rms_against),
        interval_text(errors.correlation),
        interval_text(errors.quadrature),
    )
