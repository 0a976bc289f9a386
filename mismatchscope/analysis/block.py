"""Rows of a log as arrays: what every statistic of an analysis takes in.

Shapes: S responses of a block that have a token left, R all their recorded tokens, N those of them that count: the
mask is true and every log-prob that the comparison needs is legal. R and N are ordered by response, then position.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..logs.source import LogBatch
from ..measures.sampled import LOG_TOLERANCE
from ..measures.token_sums import TokenFigures, token_figures

UNKNOWN = np.iinfo(np.int64).min
"""An integer label that the log does not have: a step, a version, a lag."""


@dataclass(frozen=True, eq=False)
class LogBlock:
    """Whole responses of a log.

    `logp_R` has the log-probs by role, "behavior" and "reference" always and "target" where the log has it,
    float64, NaN where there is none. `by_row` has the other columns of a value a response and `by_token` those of a
    value a token, under the names of `logs.columns`; absent where the log lacks them. Integers that are unknown are
    `UNKNOWN`, floats NaN, texts "".
    """

    sequence_id_S: np.ndarray
    cluster_S: np.ndarray
    recorded_S: np.ndarray
    """How many tokens each response has recorded."""
    whole_S: np.ndarray
    """Whether no token that the mask keeps was rejected."""
    counts_R: np.ndarray
    mask_R: np.ndarray
    token_id_R: np.ndarray
    logp_R: dict[str, np.ndarray]
    by_row: dict[str, np.ndarray]
    by_token: dict[str, np.ndarray]
    batch: LogBatch

    @cached_property
    def position_R(self) -> np.ndarray:
        """Place of each token in its response, from 0."""
        start_S = np.cumsum(self.recorded_S) - self.recorded_S
        position_R = np.arange(len(self.counts_R))
        position_R -= np.repeat(start_S, self.recorded_S)
        return position_R

    @cached_property
    def length_S(self) -> np.ndarray:
        """How many tokens of each response count; at least 1."""
        if self.all_count:
            return self.recorded_S
        start_S = np.cumsum(self.recorded_S) - self.recorded_S
        return np.add.reduceat(self.counts_R, start_S, dtype=np.int64)

    @cached_property
    def start_S(self) -> np.ndarray:
        """Where the tokens that count of each response begin, in [N]."""
        return np.cumsum(self.length_S) - self.length_S

    @cached_property
    def offsets_S1(self) -> np.ndarray:
        return np.append(self.start_S, self.length_S.sum())

    @cached_property
    def all_count(self) -> bool:
        return bool(self.counts_R.all())

    def kept(self, value_R: np.ndarray) -> np.ndarray:
        """The values of the tokens that count, [N]."""
        return value_R if self.all_count else value_R[self.counts_R]

    @cached_property
    def position_N(self) -> np.ndarray:
        return self.kept(self.position_R)

    @cached_property
    def token_id_N(self) -> np.ndarray:
        return self.kept(self.token_id_R)

    @cached_property
    def logp_mu_N(self) -> np.ndarray:
        return self.kept(self.logp_R["behavior"])

    @cached_property
    def logp_pi_N(self) -> np.ndarray:
        return self.kept(self.logp_R["reference"])

    @cached_property
    def figures(self) -> TokenFigures:
        """What the tokens that count say of μ and π_old, by token and summed by response."""
        return token_figures(self.logp_mu_N, self.logp_pi_N, self.offsets_S1)

    @cached_property
    def logp_theta_N(self) -> np.ndarray | None:
        """π_θ's, NaN at tokens that lack it or hold what no log-prob is; None where the log has no such column."""
        if "target" not in self.logp_R:
            return None
        logp_N = self.kept(self.logp_R["target"])
        return np.where(logp_N <= LOG_TOLERANCE, logp_N, np.nan)

    def of_tokens(self, name: str) -> np.ndarray | None:
        """A column by token at the tokens that count, [N]; None where the log has none."""
        return self.kept(self.by_token[name]) if name in self.by_token else None

    def label_S(self, name: str) -> np.ndarray | None:
        """A column by response, [S]; also "lag" = trainer_version − policy_version; None where the log has none."""
        if name != "lag":
            return self.by_row.get(name)
        sampled_S, trained_S = self.by_row.get("policy_version"), self.by_row.get("trainer_version")
        if sampled_S is None or trained_S is None:
            return None
        known_S = (sampled_S != UNKNOWN) & (trained_S != UNKNOWN)
        return np.where(known_S, trained_S - np.where(known_S, sampled_S, 0), UNKNOWN)
