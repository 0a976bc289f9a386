"""Are tokens that a mask leaves out single ones among those it keeps, as those that a rejection left out are, or in
runs and at ends, as tool output, padding and stop tokens are?

Shapes: R recorded tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass
class Scatter:
    """Counts that merge."""

    seen: int = 0
    left: int = 0
    within: int = 0
    """Of those left out, the ones between two tokens that were seen."""
    in_a_row: int = 0
    """Of these, the ones whose next token was left out too."""

    def add(self, left_R: Array, seen_R: Array, first_R: Array) -> None:
        """`left_R` were left out of `seen_R`; `first_R` begins each response."""
        within_R = left_R[1:-1] & seen_R[:-2] & seen_R[2:] & ~first_R[1:-1] & ~first_R[2:]
        self.seen += int(np.count_nonzero(seen_R))
        self.left += int(np.count_nonzero(left_R))
        self.within += int(np.count_nonzero(within_R))
        self.in_a_row += int(np.count_nonzero(within_R & left_R[2:]))

    def merge(self, other: Scatter) -> None:
        self.seen += other.seen
        self.left += other.left
        self.within += other.within
        self.in_a_row += other.in_a_row

    @property
    def is_scattered(self) -> bool:
        """Whether most are within a response, and the next token is left out less often than half-way between as
        often as any and always."""
        if not self.left or 2 * self.within < self.left:
            return False
        return self.in_a_row / self.within < (1 + self.left / self.seen) / 2
