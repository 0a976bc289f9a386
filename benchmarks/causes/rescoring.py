"""The experiment `rescore` of a planted case: the sound side scores the same tokens again under candidates.

Shapes: N tokens, S sequences, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import torch
from architectures import EOS
from bench import Array
from draws import Sampler, processed
from faults_of_the_context import SYSTEM_TEXT
from policy import Attention, Policy, Rows, Run
from weights import eight_bits, to_eight_bits
from workshop import Planted, Workshop

from mismatchscope.diagnosis.candidates import Candidate, Family, Tried, closing, tried
from mismatchscope.diagnosis.evidence import Floor, TokenEvidence
from mismatchscope.diagnosis.fitting import fitted
from mismatchscope.diagnosis.sample import PRIOR, Sample
from mismatchscope.diagnosis.statistics.size import gap
from mismatchscope.probes.confirm.found import NONE

SEQUENCES = 10
"""That are scored again."""
FAMILIES = (
    Family("temperature", "temperature", (0.6, 0.9, 1.1, 1.6), own=1.0),
    Family("rope", "base", (0.2, 5.0), own=1.0),
    Family("rope", "scaling factor", (0.6, 1.7), own=1.0),
    Family("attention_scale", "scale", (0.5, 2.0), own=1.0),
    Family("attention_scale", "soft cap", (5.0, 30.0, 200.0)),
    Family("window", "window", (16, 32, 64, 128), whole=True),
)
"""Those of which the value without a change does not differ by model; the epsilon of the norms does."""
AFTER_THE_FIRST = "after the first token"
EIGHT_BITS = {"fp8_weights": ("by tensor", "by channel"), "fp8_cache": ("of all tokens", AFTER_THE_FIRST)}
WITH_BOS, ADDED = ("BOS doubled", "BOS missing"), "BOS added"


class Rescoring:
    """`floor` is what the case's evidence has."""

    def __init__(self, workshop: Workshop, made: Planted, floor: Floor | None) -> None:
        self.made, self.bench, self.policy = made, made.bench, workshop.policy
        self.floor, self.measured = floor or Floor(PRIOR, "prior"), floor is not None
        (self.plant,) = made.plants
        self.sampler = self.plant.kind == "sampler"
        self._rows = self.bench.rows.select(self._chosen)
        self._run = self.bench.run if self.sampler else workshop.mu_run
        self._plain_NV: torch.Tensor | None = None

    @property
    def closing(self) -> str:
        """The causes of the candidates that close the gap."""
        closed = closing(gap(Sample.of(self.evidence)), self._tried(), measured=self.measured)
        return " or ".join(sorted({each.candidate.cause for each in closed})) or NONE

    @property
    def beginnings(self) -> list[Tried]:
        """With a BOS more or less, of a model that has one."""
        return [self._of("context", name) for name in WITH_BOS] if self.policy.model.has_bos else []

    def _tried(self) -> Iterator[Tried]:
        epsilon = Family("norm", "epsilon", (1e-4, 1e-2), own=self.policy.epsilon)
        for family in (*FAMILIES, epsilon):
            yield fitted(self.evidence, family, self._score)
        yield from self.beginnings or [self._of("context", ADDED)]
        for text in SYSTEM_TEXT:
            yield self._of("context", text)
        if self.plant.cause[0] == "truncation":
            yield self._of("truncation", "the kept set of the sampler's settings")
        for cause, names in EIGHT_BITS.items():
            yield from (self._of(cause, name) for name in names)

    def _of(self, cause: str, name: str) -> Tried:
        return tried(self.evidence, Candidate(cause, name), self._score)

    @cached_property
    def _chosen(self) -> list[int]:
        """Sequences that are scored again: of those that a part is about, where it is not about all."""
        about_N = np.zeros(len(self.bench.sequence_N), dtype=bool)
        for _, _, on_N in self.bench.parts:
            about_N |= on_N
        affected = np.unique(self.bench.sequence_N[about_N]) if about_N.any() else np.arange(self.bench.sequences)
        return [int(s) for s in affected[:SEQUENCES]]

    @cached_property
    def evidence(self) -> TokenEvidence:
        """The tokens that are scored again: what the faulty side has of them as μ, what the sound one has as π."""
        columns, chosen = self.made.columns, self._chosen
        at_M = np.flatnonzero(np.isin(columns.sequence_N, chosen))
        faulty_N, sound_N = (columns.mu_N, columns.pi_N) if self.sampler else (columns.pi_N, columns.mu_N)
        number_S = np.searchsorted(chosen, columns.sequence_N[at_M])
        return TokenEvidence(
            faulty_N[at_M],
            sound_N[at_M],
            number_S,
            columns.position_N[at_M],
            self.bench.draws.prompt_S[chosen],
            floor=self.floor,
        )

    def _score(self, candidate: Candidate) -> Array:
        """Log-probs of the same tokens from the sound side under a candidate."""
        if candidate.cause == "fp8_cache":
            return self._in_their_batches(candidate)
        rows, run = _changed(candidate, self._rows, self._run, self.policy)
        logp_NV = self._sampled(candidate, self._scored(rows, run))
        token_N = self.made.columns.token_N[np.isin(self.made.columns.sequence_N, self._chosen)]
        return logp_NV[np.arange(len(token_N)), torch.from_numpy(token_N)].numpy().astype(np.float64)

    def _in_their_batches(self, candidate: Candidate) -> Array:
        """The same among all sequences: the scale of a cache in eight bits is planted by batch."""
        columns = self.made.columns
        rows, run = _changed(candidate, self.bench.rows, self._run, self.policy)
        logp_NV = self.policy.logp(rows, run).numpy()
        logp_N = logp_NV[np.arange(len(columns.token_N)), columns.token_N].astype(np.float64)
        logp_M = logp_N[np.isin(columns.sequence_N, self._chosen)]
        if candidate.name == AFTER_THE_FIRST:
            return np.where(self.evidence.position_N == 0, self.evidence.logp_pi_N, logp_M)
        return logp_M

    def _sampled(self, candidate: Candidate, logp_NV: torch.Tensor) -> torch.Tensor:
        """After a candidate's temperature, or on the kept set of the sampler that the settings name."""
        if candidate.cause == "temperature":
            sampler = Sampler(temperature=candidate.value or 1.0)
        elif candidate.cause == "truncation" and self.plant.sampler is not None:
            sampler = self.plant.sampler(self.made.strengths[0])
        else:
            return logp_NV
        settings = [torch.full((len(logp_NV),), getattr(sampler, name)) for name in Sampler.__dataclass_fields__]
        return processed(logp_NV, torch.zeros(logp_NV.shape, dtype=torch.bool), settings)

    def _scored(self, rows: Rows, run: Run) -> torch.Tensor:
        """What is scored without a change is kept: the sampler's candidates need no other."""
        if run is not self._run or rows != self._rows:
            return self.policy.logp(rows, run)
        if self._plain_NV is None:
            self._plain_NV = self.policy.logp(rows, run)
        return self._plain_NV


def _changed(candidate: Candidate, rows: Rows, run: Run, policy: Policy) -> tuple[Rows, Run]:
    """What a candidate changes of the contexts or of the run."""
    value = candidate.value
    match candidate.cause, candidate.name:
        case "context", "BOS doubled" | "BOS added":
            return rows.behind([[EOS]] * len(rows.ids_S)), run
        case "context", "BOS missing":
            ids_S = tuple(ids[1:] for ids in rows.ids_S)
            return Rows(ids_S, tuple(start - 1 for start in rows.start_S)), run
        case "context", text:
            return rows.behind([policy.model.ids(text)] * len(rows.ids_S)), run
        case "norm", _:
            return rows, run.but(epsilon=value)
        case "rope", "base":
            return rows, run.but(attention=Attention(frequencies=_another_base(value or 1.0)))
        case "rope", _:
            return rows, run.but(attention=Attention(frequencies=lambda f: f / (value or 1.0)))
        case "attention_scale", "scale":
            return rows, run.but(attention=Attention(scale=value or 1.0))
        case "attention_scale", "soft cap":
            return rows, run.but(attention=Attention(soft_cap=value))
        case "window", _:
            return rows, run.but(attention=Attention(window=round(value or 0)))
        case "fp8_weights", name:
            layers = policy.network.config.num_hidden_layers
            return rows, run.but(weights=eight_bits(policy, layers, name == "by channel"))
        case "fp8_cache", _:
            return rows, run.but(attention=Attention(stored=to_eight_bits))
    return rows, run


def _another_base(times: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Frequencies of a rotary base that is so many times the model's."""

    def frequencies(own: torch.Tensor) -> torch.Tensor:
        return own * torch.tensor(times) ** (-torch.arange(len(own)) / len(own))

    return frequencies
