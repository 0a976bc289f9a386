"""Everything that an analysis adds up over a log: filled block by block, merged in any order.

To add a statistic: a class that keeps to `LogStatistic`, made in `LogStatistics` and named in `_STATISTICS`.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol, Self

import numpy as np

from ..comparison.statistics import PairStatistics
from ..logs.source import LogBatch
from ..measures.corrections.catalogue import Need
from .block import LogBlock
from .correction_audit import CorrectionAudits
from .corrections import LogCorrections
from .distribution.checks import DistributionChecks
from .groups import GroupSums
from .native_metrics import NativeMetrics
from .rows import Rejected, blocks_of
from .sequences import SequenceSamples
from .settings import AnalysisSettings
from .states import states_of, target_states
from .token_sample import TokenSample


class LogStatistic(Protocol):
    """Takes in whole responses, none of them twice. Any split of a log and any order gives the same result."""

    def add(self, block: LogBlock) -> None: ...

    def merge(self, other: Self) -> None: ...


_STATISTICS = (
    *("corrections", "correction_audit", "distribution", "groups", "native_metrics", "sequences_shown"),
    "token_sample",
)
"""The attributes of `LogStatistics` that keep to `LogStatistic`."""


class LogStatistics:
    """All of it, of some responses of a log."""

    def __init__(self, settings: AnalysisSettings) -> None:
        self._repairs = settings.repairs
        self.pair, self.alpha0, self.beta = (PairStatistics(corrections=False) for _ in range(3))
        self.corrections = LogCorrections(settings)
        self.correction_audit = CorrectionAudits(settings)
        self.distribution = DistributionChecks()
        self.groups = GroupSums()
        self.native_metrics = NativeMetrics(settings)
        self.sequences_shown = SequenceSamples()
        self.token_sample = TokenSample()
        self.rejected = Rejected()
        self.rows = self.sequences = self.partial = 0
        self.prompts_unknown = 0
        """Responses whose prompt the log does not say: each counts as a prompt."""
        self.known_tokens: Counter[Need] = Counter()
        """How many of the tokens that count have a value of π_θ, and of the advantages: 0 where the column that is
        there has none, no key where there is no column."""
        self.remarks: list[str] = []

    def add(self, batch: LogBatch, file: int = 0) -> int:
        """Take in some rows of the file of this number; return how many tokens of them count."""
        self.rows += batch.rows.num_rows + sum(batch.rejected.values())
        self._remark(batch.remarks)
        tokens = 0
        batch = self._repairs.applied(batch, file)
        for block in blocks_of(batch, self.rejected, file):
            self._add(block)
            tokens += int(block.offsets_S1[-1])
        return tokens

    def _add(self, block: LogBlock) -> None:
        states = states_of(block)
        self.pair.add(states)
        of_target = target_states(block)
        if of_target is not None:
            self.alpha0.add(of_target[0])
            self.beta.add(of_target[1])
        for name in _STATISTICS:
            getattr(self, name).add(block)
        columns: dict[Need, np.ndarray | None] = {
            "target": block.logp_theta_N,
            "advantages": block.of_tokens("advantages"),
        }
        for need, value_N in columns.items():
            if value_N is not None:
                self.known_tokens[need] += len(value_N) - int(np.count_nonzero(np.isnan(value_N)))
        self.sequences += len(block.whole_S)
        self.partial += int((~block.whole_S).sum())
        self.prompts_unknown += int((block.cluster_S == ~block.sequence_id_S).sum())

    def merge(self, other: LogStatistics) -> None:
        """Take in what another one has seen of other responses."""
        for name in ("pair", "alpha0", "beta", "rejected", *_STATISTICS):
            getattr(self, name).merge(getattr(other, name))
        self.rows += other.rows
        self.sequences += other.sequences
        self.partial += other.partial
        self.prompts_unknown += other.prompts_unknown
        self.known_tokens.update(other.known_tokens)
        self._remark(tuple(other.remarks))

    def _remark(self, remarks: tuple[str, ...]) -> None:
        self.remarks += [remark for remark in dict.fromkeys(remarks) if remark not in self.remarks]
