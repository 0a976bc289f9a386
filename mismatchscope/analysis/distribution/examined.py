"""What is known of responses that are examined one by one.

Shapes: C responses, W first tokens of each, K shifts, V as in `shift_votes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...measures.shift_votes import ShiftVotes, shift_of_responses, shift_votes

COUNTS, MASKED, SAME = np.uint8(1), np.uint8(2), np.uint8(4)
"""Of a token with legal log-probs of both policies: it counts, or the mask leaves it out; its two log-probs have
the same bits."""

FIRST = 4
"""How many tokens the start of a response is."""
_UNCERTAIN = -0.01
_CLEARLY_UNCERTAIN = 0.1


@dataclass(frozen=True, eq=False)
class ExaminedResponses:
    """Some of the `of` responses that a log has.

    `last_C` is |Δ log p| of the last token that counts; `length_C` is how many do, `padding_C` how many of them at
    the ends look like padding. `scored_…_CW` are log-probs of the first tokens, masked ones too, and 0 where there
    is none.
    """

    of: int
    sequence_id_C: np.ndarray
    cluster_C: np.ndarray
    step_C: np.ndarray
    length_C: np.ndarray
    last_C: np.ndarray
    padding_C: np.ndarray
    scored_mu_CW: np.ndarray
    scored_pi_CW: np.ndarray
    entropy_CW: np.ndarray
    """Of the trainer's policy; NaN where the log has none, anything where no token is."""
    flags_CW: np.ndarray

    def __len__(self) -> int:
        return len(self.length_C)

    @property
    def said(self) -> str:
        """How many of the log's responses these are, for a sentence."""
        if len(self) == self.of:
            return f"all {self.of:,} were examined"
        return f"{len(self):,} of {self.of:,} were examined"

    @cached_property
    def counts_CW(self) -> np.ndarray:
        return (self.flags_CW & COUNTS) > 0

    @cached_property
    def masked_CW(self) -> np.ndarray:
        """Tokens that the mask leaves out though both policies scored them; exact zeros stand for no score."""
        return ((self.flags_CW & MASKED) > 0) & (self.scored_mu_CW != 0) & (self.scored_pi_CW != 0)

    @cached_property
    def mu_CW(self) -> np.ndarray:
        """log μ, NaN at tokens that do not count."""
        return np.where(self.counts_CW, self.scored_mu_CW, np.nan)

    @cached_property
    def pi_CW(self) -> np.ndarray:
        return np.where(self.counts_CW, self.scored_pi_CW, np.nan)

    @cached_property
    def distance_CW(self) -> np.ndarray:
        """|Δ log p|, of masked tokens too."""
        return np.abs(self.scored_pi_CW - self.scored_mu_CW)

    @cached_property
    def tokens_C(self) -> np.ndarray:
        """How many tokens of the window count."""
        return np.count_nonzero(self.counts_CW, axis=1)

    @cached_property
    def votes(self) -> ShiftVotes:
        return shift_votes(self.mu_CW, self.pi_CW)

    @cached_property
    def shifts(self) -> tuple[np.ndarray, np.ndarray]:
        """(shift that each response fits better at [C], whether it can tell [C])."""
        return shift_of_responses(self.votes)

    @cached_property
    def mean_distance_C(self) -> np.ndarray:
        return row_means(self.distance_CW, self.counts_CW)

    @cached_property
    def surprise_C(self) -> np.ndarray:
        """Mean −log μ."""
        return -row_means(self.scored_mu_CW, self.counts_CW)

    @cached_property
    def first_and_rest_C(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean |Δ log p| of the first tokens, and of the others in the window."""
        first_CW = self.counts_CW & (np.cumsum(self.counts_CW, axis=1) <= FIRST)
        rest_CW = self.counts_CW & ~first_CW
        return row_means(self.distance_CW, first_CW), row_means(self.distance_CW, rest_CW)

    @cached_property
    def uncertain_CW(self) -> np.ndarray:
        """Tokens that count and that π is not nearly certain of."""
        return self.counts_CW & (self.scored_pi_CW < _UNCERTAIN)

    @cached_property
    def equal_C(self) -> np.ndarray:
        """How many uncertain tokens have log-probs of the same bits."""
        return np.count_nonzero(self.uncertain_CW & ((self.flags_CW & SAME) > 0), axis=1)

    @cached_property
    def agreeing_C(self) -> np.ndarray:
        """Share of the tokens uncertain to either side whose smaller −log p is more than half the larger."""
        larger_CW = np.maximum(-self.scored_mu_CW, -self.scored_pi_CW)
        agrees_CW = (self.distance_CW < larger_CW / 2).astype(np.float64)
        return row_means(agrees_CW, self.counts_CW & (larger_CW > _CLEARLY_UNCERTAIN))

    @cached_property
    def correlation_C(self) -> np.ndarray:
        """Pearson's of the two columns; NaN where one is constant."""
        of_CW = self.counts_CW
        mu_CW, pi_CW = (
            np.where(of_CW, logp_CW - row_means(logp_CW, of_CW)[:, None], 0.0)
            for logp_CW in (self.scored_mu_CW, self.scored_pi_CW)
        )
        scale_C = np.sqrt((mu_CW**2).sum(axis=1) * (pi_CW**2).sum(axis=1))
        product_C = (mu_CW * pi_CW).sum(axis=1)
        return np.where(scale_C > 0, product_C / np.where(scale_C > 0, scale_C, 1.0), np.nan)


def row_means(value_CW: np.ndarray, of_CW: np.ndarray) -> np.ndarray:
    """The mean of some values of each row, NaN where it has none."""
    count_C = np.count_nonzero(of_CW, axis=1)
    sum_C = np.where(of_CW, value_CW, 0.0).sum(axis=1)
    return np.where(count_C > 0, sum_C / np.maximum(count_C, 1), np.nan)
