"""Fields of the report for what differs between two sides, and for how large that is beside rounding."""

from __future__ import annotations

from typing import Any

from ..measures.results import result


@result
class RoundingSize:
    """A mismatch beside what rounding usually makes: root mean squares of log ρ / (1 − p) over sampled tokens."""

    value: float
    """over the tokens with p < 0.9, p the geometric mean of the two probabilities"""
    usual: float
    """of sound pairs of these dtypes"""
    times: float
    beyond: bool
    """more than 1.5 times the usual, which no sound pair reached"""
    n: int
    """tokens"""


@result
class Difference:
    """One provenance key on which the two sides differ."""

    key: str
    behavior: Any = None
    reference: Any = None
    rank: int = 0
    """1 can have the largest effect on log-probs; 0: no effect is known, or none as large as the mismatch"""
    why: str | None = None
    """what a difference at this key can do"""

    @property
    def one_sided(self) -> bool:
        """Whether one side alone reports it, and nothing is known of what that does."""
        return not self.rank and (self.behavior is None) != (self.reference is None)
