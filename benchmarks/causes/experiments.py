"""What the experiments of `diagnose --confirm` find of a planted case: both policies are computed again.

What stands for an engine is the network with what was planted in it, μ's or π's. Results are told by the rules of
the package where it has them as functions, and by the same thresholds on R where it has them on TV. Faults of a
log, and those that were over when it was written, can only be scored again.

Shapes: N tokens, S sequences, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from bench import Columns, excess
from plants import Plant
from policy import Attention, Rows
from rescoring import Rescoring
from weights import HEAD
from workshop import Planted, Workshop

from mismatchscope.diagnosis.answer import BEYOND
from mismatchscope.diagnosis.candidates import closing
from mismatchscope.diagnosis.evidence import Floor, TokenEvidence
from mismatchscope.diagnosis.sample import Sample
from mismatchscope.diagnosis.statistics.size import gap
from mismatchscope.diagnosis.statistics.stat import Stat
from mismatchscope.engines.common.loaded_weights import weight_of
from mismatchscope.measures.results import Interval
from mismatchscope.measures.tensor_difference import compare
from mismatchscope.probes.confirm.experiments import SAME_BATCHES, kind_of, share_of
from mismatchscope.probes.confirm.found import MOST, NONE, UNCLEAR
from mismatchscope.probes.context import CLEAR, GONE, HALF

OVER = ("staleness", "weights that changed in the response", "stale prefix cache")
"""Plants that are over when engines are started again."""
STATES = 192
"""That get contexts of one token."""


def possible(plant: Plant) -> tuple[str, ...]:
    """Experiments on a plant of engines that are there, or of a log and engines that are gone."""
    if plant.kind == "log" or plant.name in OVER:
        return ("rescore",)
    return ("weights", "context", "repeat", "alone", "path", "float32", "rescore")


class Experiments:
    """Results of the experiments on one case, by their names in the catalogue; `floor` is what its evidence has."""

    def __init__(self, workshop: Workshop, made: Planted, floor: Floor | None) -> None:
        self.workshop, self.made, self.bench, self.policy = workshop, made, made.bench, workshop.policy
        self.rescoring = Rescoring(workshop, made, floor)
        (self.plant,) = made.plants
        self.sampler = self.plant.kind == "sampler"

    def result(self, name: str) -> str:
        return getattr(self, f"_{name}")()

    def _weights(self) -> str:
        """Every tensor that π has loaded against the checkpoint, by the comparison and the names of the package."""
        if self.plant.cause[0] == "temperature":
            return "same"  # it is planted in the head's weights, which an engine that scales its logits has not
        found = {name: value for run, _, _ in self.bench.parts for name, value in run.weights.items()}
        expected = {**self.policy.parameters, HEAD: self.policy.head_weight}
        dtype = torch.bfloat16 if self.policy.checkpoint_precision == "bf16" else torch.float32
        records = [
            compare(name, weight_of(expected[name].data.to(dtype)), weight_of(value.to(dtype)))
            for name, value in found.items()
        ]
        differing = [record for record in records if record.status == "differs"]
        return kind_of(differing) if differing else "same"

    def _context(self) -> str:
        """R of states whose context is one token, over R with whole contexts; before it, the candidates of BOS."""
        if self.sampler:
            return UNCLEAR  # both sides are seen before top-k and top-p: there is no gap then
        before = gap(Sample.of(self.rescoring.evidence))
        if closing(before, self.rescoring.beginnings, measured=self.rescoring.measured):
            return "beginning"
        one, rounding = self._one_token()
        if one.value is None or one.high is None or before.low is None or before.high is None:
            return "vanishes" if one.value == 0 else UNCLEAR
        clear = rounding > CLEAR
        to_rounding = (before.value or 0) > BEYOND and rounding <= BEYOND
        if not clear and one.high / before.low < (HALF if to_rounding else GONE):
            return "vanishes"
        if not clear and (to_rounding or (one.low or 0) / before.high < GONE):
            return UNCLEAR
        return UNCLEAR if one.high / before.low < HALF else "stays"

    def _one_token(self) -> tuple[Stat, float]:
        """R with one token of context, and its value."""
        run, rows, on_N = self.bench.parts[-1]
        columns = self.made.columns
        places = np.flatnonzero(on_N)
        places = np.sort(np.random.default_rng(0).permutation(places)[:STATES])
        ids = [(int(columns.previous_N[n]), int(columns.token_N[n])) for n in places]
        own = self.bench.rows
        before: list[tuple[int, ...]] = []
        for n in places:
            s = int(columns.sequence_N[n])
            before.append(rows.ids_S[s][: len(rows.ids_S[s]) - len(own.ids_S[s])])
        bare = Rows(tuple(ids), (1,) * len(ids))
        added = Rows(
            tuple((*prefix, *pair) for prefix, pair in zip(before, ids, strict=True)),
            tuple(len(prefix) + 1 for prefix in before),
            None if rows.apart_S is None else tuple(map(len, before)),
        )
        token_N = np.array([pair[1] for pair in ids])
        at = np.arange(len(ids)), token_N
        mu_N = self.policy.logp(bare, self.workshop.mu_run).numpy()[at].astype(np.float64)
        torch.manual_seed(0)
        pi_N = self.policy.logp(added, run.but(prefix=None)).numpy()[at].astype(np.float64)
        prompt_N = self.bench.draws.prompt_S[columns.sequence_N[places]]
        seen = TokenEvidence(
            mu_N, pi_N, np.arange(len(ids)), np.zeros(len(ids), int), prompt_N, floor=self.rescoring.floor
        )
        if not (mu_N != pi_N).any():
            return Stat(0.0), 0.0
        size = gap(Sample.of(seen))
        return size, size.value or 0.0

    def _repeat(self) -> str:
        """π against itself. What is planted is computed the same way again, but for dropout."""
        run, rows, on_N = self.bench.parts[-1] if self.bench.parts else (self.bench.run, self.bench.rows, None)
        if not run.dropout:
            return NONE
        columns = self.made.columns
        torch.manual_seed(1)
        again = self._columns([(run, rows, on_N)]).pi_N
        part = _part(excess(columns.pi_N, again), excess(columns.mu_N, columns.pi_N))
        return SAME_BATCHES if part == MOST else part

    def _path(self) -> str:
        """Prefill against decode of π's engine: a cache that rounds, and chunks, are of one of them alone."""
        attention = self.bench.parts[-1][0].attention if self.bench.parts else Attention()
        return self._without(attention.stored is not None or attention.boundary is not None)

    def _alone(self) -> str:
        """A response alone against one in a batch: neighbours and padding are gone."""
        return self._without(self.plant.name in ("packing without a mask", "left padding attended to"))

    def _without(self, has_part: bool) -> str:
        """How much of the gap is there between what is planted and the same engine without it."""
        if not has_part:
            return NONE
        columns = self.made.columns
        sound = self._columns([]).pi_N
        return _part(excess(columns.pi_N, sound), excess(columns.mu_N, columns.pi_N))

    def _float32(self) -> str:
        """What is left where both sides compute in float32; what is gone is most of it, or next to none."""
        if self.sampler:
            return UNCLEAR
        columns = self.made.columns
        exact = {"precision": "fp32", "head": "fp32"}
        torch.manual_seed(0)
        pi_N = self._columns([(run.but(**exact), rows, on_N) for run, rows, on_N in self.bench.parts], exact).pi_N
        mu = self.policy.logp(self.bench.rows, self.workshop.mu_run.but(**exact)).numpy()
        mu_N = mu[np.arange(len(columns.token_N)), columns.token_N].astype(np.float64)
        left = _part(excess(mu_N, pi_N), excess(columns.mu_N, columns.pi_N))
        return {NONE: MOST, MOST: NONE}.get(left, UNCLEAR)

    def _columns(self, parts: list, sound: dict | None = None) -> Columns:
        """The columns of the same case with other parts."""
        bench = self.bench
        kept = bench.parts, bench.edits, bench.sound_NV, bench.run
        bench.parts, bench.edits, bench.sound_NV = parts, [], None
        bench.run = bench.run.but(**(sound or {}))
        columns = bench.finish()
        bench.parts, bench.edits, bench.sound_NV, bench.run = kept
        return columns

    def _rescore(self) -> str:
        return self.rescoring.closing


def _part(part: float, whole: float) -> str:
    """How much of a gap another one is, as the package has it."""
    return share_of(Interval(part, part, part), Interval(whole, whole, whole))
