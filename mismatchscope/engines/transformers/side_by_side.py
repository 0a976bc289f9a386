"""Two settings of transformers in one process: each batch is scored by both, and their logits are compared where
they are. What leaves a batch is a row of figures for each state, and nothing of the size of the vocabulary.

No SPEC names this engine: probes ask for it (`collection.side_by_side`). μ is the policy beside, π the one that the
trace is of. The figures are those that stored distributions give, to the bit: both sides are normalised and rounded
as `capture` does before they are compared.

Shapes: S sequences of a batch, T response tokens, N states of one block, R of them at a time, F figures,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...composition import BatchComposition
from ...errors import EngineError
from ...measures.full import EXACT, divergences
from ...records import Request, Sampling, SequenceRecord, Task
from ..base import Engine, Options, option
from .engine import ScoredLogits, TransformersEngine, batch_memory_errors
from .options import TransformersOptions
from .room import check_room, share_weights

if TYPE_CHECKING:
    from ..common.tokenized import ScoreRequest

_ROWS = 32
"""States whose log-probs exist at the same time in main memory: more of them leave the processor's cache."""


@dataclass(frozen=True)
class SideBySideOptions(Options):
    """The options of both models, and what μ's logits are seen through; π's is the task's `sampling`."""

    mu: dict[str, Any] = option(None, "the options of the model beside")
    pi: dict[str, Any] = option(None, "the options of the model that the trace is of")
    mu_sampling: dict[str, Any] = option(None, "what the logits of the model beside are seen through")


class SideBySideEngine(Engine):
    name: ClassVar[str] = TransformersEngine.name
    options_type: ClassVar[type[Options]] = SideBySideOptions
    packages = TransformersEngine.packages
    capabilities = replace(TransformersEngine.capabilities, evidence=("sampled",), rollout=False, weights=False)
    options: SideBySideOptions

    def load(self) -> None:
        self._mu, self._pi = (
            TransformersEngine(self.model, TransformersOptions(**options))
            for options in (self.options.mu, self.options.pi)
        )
        self._mu.load()
        check_room(self._mu.network, self._pi.options)
        self._pi.load()
        share_weights(self._mu.network, self._pi.network)

    def facts(self) -> dict[str, Any]:
        """Those of π, and under `beside` those of μ."""
        return self._pi.facts() | {"beside": self._mu.facts()}

    @property
    def default_composition(self) -> BatchComposition:
        return self._pi.default_composition

    def check(self, requests: Sequence[Request], task: Task) -> None:
        for engine in (self._mu, self._pi):
            engine.check(requests, task)

    def rollout(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        raise NotImplementedError

    def score(self, batch: Sequence[Request], task: Task) -> Iterator[SequenceRecord]:
        requests = self._pi.to_score(batch, task)
        beside = replace(task, sampling=Sampling(**self.options.mu_sampling))
        comparison = _Comparison(beside, task, requests)
        with batch_memory_errors(len(batch)):
            both = (self._mu.scored_logits(requests, beside), self._pi.scored_logits(requests, task))
            for mu, pi in zip(*both, strict=True):
                comparison.add(mu, pi)
        for row, request in enumerate(requests):
            yield comparison.record(self._pi, row, request)


class _Comparison:
    """Two policies along the sequences of one batch: the log-probs of the tokens, and `EXACT`."""

    def __init__(self, mu: Task, pi: Task, requests: Sequence[ScoreRequest]) -> None:
        from ..common.capture import LogitRange, TaskRecorder

        longest = max(len(request.response_token_ids) for request in requests)
        self._recorders = tuple(TaskRecorder(task, requests, longest) for task in (mu, pi))
        self._ranges = tuple(LogitRange(len(requests)) for _ in (mu, pi))
        self._exact_STF = np.full((len(requests), longest, len(EXACT)), np.nan)

    def add(self, mu: ScoredLogits, pi: ScoredLogits) -> None:
        """The logits of the same states; on a GPU all at once, where the order of a sum depends on how many there
        are."""
        rows = len(mu.position_N) if mu.logits_NV.is_cuda else _ROWS
        same = (np.array_equal(a, b) for a, b in zip((mu.sequence_N, mu.position_N), pi[:2], strict=True))
        if not all(same):
            raise EngineError("the two models lay the batch out in another order")
        for start in range(0, len(mu.position_N), rows):
            part = slice(start, start + rows)
            self._add_rows(mu.rows(part), pi.rows(part))

    def _add_rows(self, *sides: ScoredLogits) -> None:
        log_probs_RV = []
        for side, recorder, range_ in zip(sides, self._recorders, self._ranges, strict=True):
            range_.add(side.sequence_N, side.logits_NV)
            [logp_RV] = recorder.logprobs(side.logits_NV)
            recorder.add(side.sequence_N, side.position_N, [logp_RV], side.token_N)
            log_probs_RV.append(logp_RV)
        found = divergences(*log_probs_RV, normalised=True)
        at = sides[0].sequence_N, sides[0].position_N
        self._exact_STF[at] = np.stack([getattr(found, name) for name in EXACT], axis=1)

    def record(self, engine: TransformersEngine, row: int, request: ScoreRequest) -> SequenceRecord:
        """What was seen of one sequence."""
        length = len(request.response_token_ids)
        ([beside], [observed]) = (recorder.finish(row, length) for recorder in self._recorders)
        observed.exact_TF = self._exact_STF[row, :length].copy()
        largest_mu, largest_pi = (float(range_.largest_S[row]) for range_ in self._ranges)
        record = engine.record(request, request.response_token_ids, observed, largest_pi)
        record.beside, record.max_abs_logit_beside = beside, largest_mu
        return record
