"""What a sampler does between its logits and the draw, one transform after another, each held against the trainer.

Computed in float64 from the raw policies of both sides at states that were seen whole, so that a sampler that was
not run can be tried on the same states. The run's own last step is the distribution that its engine recorded.

Shapes: M states of a piece, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..alignment.alignment import Alignment
from ..alignment.block import Block
from ..alignment.full_states import FullSide, fitted
from ..measures import sampler
from ..measures.accumulators import Clusters, ClusterSums
from ..measures.intervals import ANY, UNIT
from ..measures.results import Interval
from ..measures.sketches import QuantileSketch
from ..records import Transforms
from ..reports.sampler_fields import KeptMass, SamplerCheck, SamplerStep
from ..traces.reader import Trace
from .pair import Pair
from .sampler_policy import Occurrences, RawPolicy, Step, penalises, steps_of

_PIECE_BYTES = 8 * 1024 * 1024  # of float32 log-probs: in float64, sorted and copied, they are twenty times that

_ROUNDING = 1e-5  # of a TV of float32 log-probs


@dataclass(frozen=True)
class SamplerSteps:
    """The run's own steps, then what was tried. `check` is None where the sampler draws from its raw policy."""

    own: list[SamplerStep]
    tried: list[SamplerStep]
    check: SamplerCheck | None


def sampler_steps(
    raw: Pair, drawn: Trace, own: Transforms, tried: Sequence[Step], *, trainer_temperature: float | None
) -> SamplerSteps | None:
    """`raw` is the pair of the raw policies, `drawn` the trace of the distribution that tokens were drawn from.

    A trainer divides by `trainer_temperature`, by default by the sampler's. None where no state was seen whole on
    both sides.
    """
    steps = [_Accumulator(step) for step in steps_of(own, trainer_temperature)]
    trials = [_Accumulator(step) for step in tried]
    side = FullSide(drawn) if own.transforms and drawn.manifest.counts.full_states else None
    check, clusters = SamplerChecking(own), Clusters()
    at_once = drawn.manifest.engine == "sglang"
    penalties = any(penalises(each.sampling) for each in (*steps, *trials))
    for block in Alignment(raw.mu, raw.pi, mask=raw.context.mask).blocks():
        responses = _responses(raw.mu, block) if penalties else None
        row_N = clusters.rows(np.repeat(block.cluster_S, block.length_S))
        for index_M, logp_mu_MV, logp_pi_MV in block.full_pieces(_PIECE_BYTES):
            before = None if responses is None else _occurrences(block, index_M, responses)
            mu, pi = (RawPolicy(each, before, at_once=at_once) for each in (logp_mu_MV, logp_pi_MV))
            recorded_MV = None
            if side is not None:
                recorded_MV = _recorded(side, block.behavior_row_N[index_M], logp_mu_MV.shape[1])
                check.add(mu, recorded_MV)
            tv_M = None
            for step in steps:
                seen_MV = recorded_MV if step is steps[-1] else None
                tv_M = step.add(row_N[index_M], mu, pi, recorded_MV=seen_MV, before_M=tv_M)
            for trial in trials:
                trial.add(row_N[index_M], mu, pi, before_M=tv_M)
    if not steps[0].states:
        return None
    confidence = raw.context.confidence
    return SamplerSteps(
        [each.result(confidence, tried=False) for each in steps],
        [each.result(confidence, tried=True) for each in trials],
        None if side is None else check.result,
    )


def _responses(trace: Trace, block: Block) -> dict[int, np.ndarray]:
    """The whole responses of a block, by sequence: a loss mask leaves tokens out that a penalty counts."""
    table = trace.find_sequences(set(block.sequence_id_S.tolist()), ["response_token_ids"])
    assert table is not None, "every trace has its responses"
    columns = (table[name].to_pylist() for name in ("sequence_id", "response_token_ids"))
    return {sequence: np.array(ids, dtype=np.int64) for sequence, ids in zip(*columns, strict=True)}


def _occurrences(block: Block, index_M: np.ndarray, responses: dict[int, np.ndarray]) -> Occurrences:
    """What is in the responses before these rows of a block."""
    states, ids, counts = ([np.zeros(0, dtype=np.int64)] for _ in range(3))
    sequence_id_N = block.sequence_id_N
    for state, row in enumerate(index_M.tolist()):
        earlier = responses[int(sequence_id_N[row])][: block.position_N[row]]
        id_U, count_U = np.unique(earlier, return_counts=True)
        states.append(np.full(len(id_U), state))
        ids.append(id_U)
        counts.append(count_U)
    return Occurrences(np.concatenate(states), np.concatenate(ids), np.concatenate(counts))


class _Mean:
    def __init__(self) -> None:
        self.sums = ClusterSums()

    def add(self, row_M: np.ndarray, value_M: np.ndarray) -> None:
        self.sums.add(row_M, value_M, np.ones(len(value_M), dtype=np.int64), value_M)

    def interval(self, confidence: float, bounds: tuple[float, float] = UNIT) -> Interval:
        return self.sums.interval(confidence=confidence, bounds=bounds)


class _Accumulator:
    """The figures of one step, filled a piece at a time."""

    def __init__(self, step: Step) -> None:
        self.label, self.sampling, self._divisor = step
        self.states = self._ids = 0
        self._mass, self._floor, self._tv, self._added, self._replayed = (_Mean() for _ in range(5))
        self._cut = QuantileSketch()

    def add(
        self,
        row_M: np.ndarray,
        mu: RawPolicy,
        pi: RawPolicy,
        *,
        recorded_MV: np.ndarray | None = None,
        before_M: np.ndarray | None,
    ) -> np.ndarray:
        """TV to the trainer, [M]. `recorded_MV` is what the engine had, where this is what it did; `before_M` is
        the TV that this one is held against."""
        uncut_MV = mu.uncut(self.sampling)
        kept_MV = mu.kept(self.sampling, uncut_MV)
        logp_MV = sampler.restricted(uncut_MV, kept_MV)
        self._floor.add(row_M, sampler.total_variation(logp_MV, mu.divided(self._divisor)))
        if recorded_MV is not None:
            logp_MV, kept_MV = recorded_MV, recorded_MV > -np.inf
        mass_M = sampler.mass_of(uncut_MV, kept_MV)
        tv_M = sampler.total_variation(logp_MV, pi.divided(self._divisor))
        replayed_MV = sampler.restricted(pi.uncut(self.sampling), kept_MV)
        self._mass.add(row_M, mass_M)
        self._cut.add(1.0 - mass_M)
        self._ids += int(kept_MV.sum())
        self._tv.add(row_M, tv_M)
        # No log-prob of a trainer without mass on the kept ids is of the same distribution.
        self._replayed.add(row_M, np.nan_to_num(sampler.total_variation(logp_MV, replayed_MV), nan=1.0))
        if before_M is not None:
            self._added.add(row_M, tv_M - before_M)
        self.states += len(row_M)
        return tv_M

    def result(self, confidence: float, *, tried: bool) -> SamplerStep:
        p90, p99 = self._cut.quantiles((0.9, 0.99))
        kept = KeptMass(
            mean=self._mass.interval(confidence),
            p10=None if p90 is None else 1.0 - p90,
            p01=None if p99 is None else 1.0 - p99,
            least=self._mass.sums.smallest,
            ids=self._ids / self.states,
        )
        return SamplerStep(
            change=self.label,
            tried=tried,
            kept=kept,
            floor=self._floor.interval(confidence),
            tv=self._tv.interval(confidence),
            added=self._added.interval(confidence, ANY) if self._added.sums.n else None,
            replayed=self._replayed.interval(confidence),
        )


def _recorded(side: FullSide, row_M: np.ndarray, width: int) -> np.ndarray:
    """What tokens were drawn from at these rows, float64 [M, V]."""
    logp_MV = fitted(side.read(side.find(row_M)), width)
    return sampler.normalised(logp_MV.astype(np.float64))


class SamplerChecking:
    """How what tokens were drawn from compares with what a sampler makes of its raw policy in float64."""

    def __init__(self, own: Transforms) -> None:
        self._own = own
        self._states = self._same = self._tied = 0
        self._max_tv = 0.0

    def add(self, mu: RawPolicy, recorded_MV: np.ndarray) -> None:
        uncut_MV = mu.uncut(self._own)
        kept_MV = mu.kept(self._own, uncut_MV)
        computed_MV = sampler.restricted(uncut_MV, kept_MV)
        tv_M = sampler.total_variation(computed_MV, recorded_MV)
        same_M = (kept_MV == (recorded_MV > -np.inf)).all(axis=1)
        self._states += len(same_M)
        self._same += int(same_M.sum())
        if not same_M.all():
            sides = (np.sort(each_MV[~same_M], axis=1) for each_MV in (computed_MV, recorded_MV))
            self._tied += int((sampler.total_variation(*sides) < _ROUNDING).sum())
        self._max_tv = max(self._max_tv, float(tv_M.max()))

    @property
    def result(self) -> SamplerCheck:
        return SamplerCheck(self._states, self._same, self._tied, self._max_tv)
