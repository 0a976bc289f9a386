"""Are two columns of log-probs shifted against each other by a token, although their token ids agree?

Shapes: N tokens ordered by (sequence, position), I of them with a neighbour on both sides.
"""

from __future__ import annotations

import numpy as np

from ..errors import MisalignedError

SHIFTS = (-1, 0, 1)
ENOUGH_TOKENS = 64
CLEARLY = 2.0  # a right alignment beats a wrong one by a factor of ten and more


class ShiftTest:
    """Re-scores at the shifts −1, 0 and +1, where s compares log μ at t with log π at t + s; 0 must win.

    The score of a shift is a mean |Δ log p| within sequences. Tokens at the ends of a sequence have no partner at
    some shift, and one large Δ that drops out there would look like a better alignment. So each shift is scored
    twice, once with every inner log μ taking part and once with every inner log π, and the worse score counts.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._sums = {shift: np.zeros(2) for shift in SHIFTS}

    def add(self, sequence_id_N: np.ndarray, logp_mu_N: np.ndarray, logp_pi_N: np.ndarray) -> None:
        """Take in rows that follow each other; −inf and NaN take no part."""
        usable_N = np.isfinite(logp_mu_N) & np.isfinite(logp_pi_N)
        inner = (sequence_id_N[2:] == sequence_id_N[:-2]) & usable_N[2:] & usable_N[1:-1] & usable_N[:-2]
        at_I = np.flatnonzero(inner) + 1
        self.tokens += len(at_I)
        for shift, total in self._sums.items():
            total += (
                np.abs(logp_mu_N[at_I] - logp_pi_N[at_I + shift]).sum(),
                np.abs(logp_mu_N[at_I - shift] - logp_pi_N[at_I]).sum(),
            )

    @property
    def mean_abs_dlogp(self) -> dict[int, float]:
        """The score of each shift; NaN where no sequence has three tokens."""
        return {shift: float(max(total)) / (self.tokens or np.nan) for shift, total in self._sums.items()}

    @property
    def shift(self) -> int:
        """The shift that explains the rows clearly better than 0 does, else 0."""
        scores = self.mean_abs_dlogp
        best = min((-1, 1), key=scores.__getitem__)
        return best if self.tokens >= ENOUGH_TOKENS and scores[best] * CLEARLY < scores[0] else 0

    def check(self) -> None:
        """Raise `MisalignedError` for log-probs that fit better when moved by one token."""
        if not self.shift:
            return
        scores = self.mean_abs_dlogp
        raise MisalignedError(
            f"The log-probs are shifted by one token: mean |Δ log p| is {scores[0]:.3g} where token ids agree, but "
            f"{scores[self.shift]:.3g} when the reference's are read {self.shift:+d} token further "
            f"({self.tokens} tokens).",
            hint="log p of token t comes from the logits at t − 1; one side is off by one",
        )
