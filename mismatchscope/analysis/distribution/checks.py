"""All that is asked before any figure of a log is read: are the two columns of the same distribution?"""

from __future__ import annotations

from ...comparison.pair import PolicyPair
from ...measures.log_results import DistributionCheck
from ...reports.document import Alarm
from ..block import LogBlock
from ..rows import Rejected
from .duplicates import RepeatedResponses
from .ends import end_checks
from .kept_set import KeptSet
from .law import law_checks
from .row_order import row_checks
from .same_numbers import copy_check, unit_check
from .sample import ResponseSample
from .selection import selection_check
from .shift import shift_check
from .values import value_checks
from .zeros import zero_checks

_CODES = (
    *("row_order", "shift", "unit"),
    *("filled_values", "padding", "zeros", "repeated_value"),
    *("first_tokens", "last_token", "kept_set", "related"),
    *("duplicates", "selection", "temperature", "one_sided", "mean_ratio"),
    *("precision", "illegal_values", "copy"),
)
"""Causes before what they entail: of several that fail the first one is what to mend. A column of another order, at
another place or in another unit trips nearly all that follow; fillers trip the laws of ratios."""

_WARNINGS = ("temperature", "mean_ratio", "one_sided", "precision", "selection")
"""What fails of these makes figures mean something else; the others make them wrong."""


class DistributionChecks:
    """Keeps to `LogStatistic`. What the pair's own statistics know is taken from them at the end."""

    def __init__(self) -> None:
        self.sample = ResponseSample()
        self.repeated = RepeatedResponses()
        self.kept_set = KeptSet()

    def add(self, block: LogBlock) -> None:
        for part in (self.sample, self.repeated, self.kept_set):
            part.add(block)

    def merge(self, other: DistributionChecks) -> None:
        self.sample.merge(other.sample)
        self.repeated.merge(other.repeated)
        self.kept_set.merge(other.kept_set)

    def results(
        self, pair: PolicyPair, rejected: Rejected, *, selects: str | None = None, moved: int = 0
    ) -> list[DistributionCheck]:
        """In the order of `_CODES`. `pair` and `rejected` are of the same responses; `selects` is what the format's
        masks have left out, `moved` by how many tokens the reference was shifted before it came here."""
        statistics, examined = pair.statistics, self.sample.examined()
        checks = [
            shift_check(examined, moved),
            *row_checks(examined),
            *law_checks(pair, examined, self.kept_set),
            *value_checks(statistics.fillers, rejected, examined),
            *zero_checks(examined),
            copy_check(examined, identical=statistics.identical),
            unit_check(examined),
            self.repeated.result(),
            *end_checks(examined),
            selection_check(examined, rejected.dropped, selects),
            self.kept_set.check(),
        ]
        return sorted(checks, key=lambda check: _CODES.index(check.code))


def alarms_of(checks: list[DistributionCheck]) -> list[Alarm]:
    """An alarm for every check that fails."""
    return [
        Alarm(
            code=check.code,
            message=check.sentence,
            evidence=check.evidence,
            remedy=check.fix,
            severity="warning" if check.code in _WARNINGS else "error",
        )
        for check in checks
        if check.status == "fail" and check.code != "illegal_values"  # of which the rejected tokens' alarm speaks
    ]
