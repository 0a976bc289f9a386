"""A pair of policies being made: draws of μ, what π is on which of their tokens, and what a log then does to them.

Shapes: N tokens, S sequences, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from draws import Draws
from policy import Policy, Rows, Run, Weights

Array = np.ndarray


@dataclass
class Bench:
    """What a plant works on. Faults of a model add parts, faults of a log add edits; `finish` carries them out."""

    policy: Policy
    run: Run
    """π without a fault."""
    draws: Draws
    update: Callable[[], Weights]
    """What training changes of the weights."""
    rng: np.random.Generator
    metadata: dict[str, Array] = field(default_factory=dict)
    detail: dict[str, Any] = field(default_factory=dict)
    parts: list[tuple[Run, Rows, Array]] = field(default_factory=list)
    edits: list[Callable[[Columns], None]] = field(default_factory=list)
    sound_NV: Array | None = None
    """What π is without a fault, where that is known already."""

    @property
    def rows(self) -> Rows:
        return self.draws.rows

    @property
    def sequences(self) -> int:
        return len(self.rows.ids_S)

    @property
    def sequence_N(self) -> Array:
        return np.repeat(np.arange(self.sequences), self.rows.lengths)

    @property
    def position_N(self) -> Array:
        return np.concatenate([np.arange(length) for length in self.rows.lengths])

    def some(self, low: float, high: float) -> Array:
        """[S] bool: sequences chosen at random, a share of them between the two, at least two in and two out."""
        count = round(self.sequences * self.rng.uniform(low, high))
        count = min(max(count, 2), self.sequences - 2)
        chosen_S = np.zeros(self.sequences, dtype=bool)
        chosen_S[self.rng.choice(self.sequences, count, replace=False)] = True
        return chosen_S

    def differ(self, run: Run, *, rows: Rows | None = None, on: Array | None = None) -> None:
        """π is this run where `on` is true: [S] of sequences, [N] of tokens, everywhere by default."""
        tokens = int(self.rows.lengths.sum())
        if on is None:
            on = np.ones(tokens, dtype=bool)
        on_N = on if len(on) == tokens else on[self.sequence_N]
        self.parts.append((run, self.rows if rows is None else rows, on_N))

    def finish(self) -> Columns:
        """Both columns, after the edits."""
        tokens = int(self.rows.lengths.sum())
        pi_NV = np.empty(self.draws.logp_NV.shape, np.float32)
        left_N = np.ones(tokens, dtype=bool)
        for run, rows, on_N in self.parts:
            self._score(pi_NV, run, rows, on_N)
            left_N &= ~on_N
        if self.sound_NV is not None:
            pi_NV[left_N] = self.sound_NV[left_N]
        else:
            self._score(pi_NV, self.run, self.rows, left_N)
        columns = Columns.of(self, pi_NV)
        for edit in self.edits:
            edit(columns)
        return columns

    def _score(self, pi_NV: Array, run: Run, rows: Rows, on_N: Array) -> None:
        sequences = np.unique(self.sequence_N[on_N])
        if not len(sequences):
            return
        if run.prefix is not None:
            run = run.but(prefix=(run.prefix[0], [run.prefix[1][s] for s in sequences]))
        among_N = np.isin(self.sequence_N, sequences)
        scored = self.policy.logp(rows.select(list(sequences)), run).numpy()
        pi_NV[on_N] = scored[on_N[among_N]]


@dataclass
class Columns:
    """Two policies on tokens, as a log would hold them; edits change the arrays or put others in their place."""

    mu_N: Array
    pi_N: Array
    mu_NV: Array
    pi_NV: Array
    token_N: Array
    previous_N: Array
    sequence_N: Array
    position_N: Array
    rng: np.random.Generator

    @classmethod
    def of(cls, bench: Bench, pi_NV: Array) -> Columns:
        rows = bench.rows
        both = list(zip(rows.ids_S, rows.start_S, strict=True))
        token_N = np.concatenate([np.array(ids[start:]) for ids, start in both])
        previous_N = np.concatenate([np.array(ids[start - 1 : -1]) for ids, start in both])
        place = np.arange(len(token_N)), token_N
        mu_N, pi_N = (rows_NV[place].astype(np.float64) for rows_NV in (bench.draws.logp_NV, pi_NV))
        return cls(
            mu_N,
            pi_N,
            bench.draws.logp_NV,
            pi_NV,
            token_N,
            previous_N,
            bench.sequence_N,
            bench.position_N,
            bench.rng,
        )

    @property
    def sequences(self) -> int:
        return int(self.sequence_N[-1]) + 1

    def tokens_of(self, sequence: int) -> Array:
        """Places of a sequence's tokens."""
        return np.flatnonzero(self.sequence_N == sequence)

    def side(self, name: str) -> Array:
        """The column of "mu" or "pi", to write into."""
        return self.mu_N if name == "mu" else self.pi_N

    def keep(self, chosen_N: Array) -> None:
        """Only these tokens stay. Every sequence keeps at least one."""
        for name in ("mu_N", "pi_N", "mu_NV", "pi_NV", "token_N", "previous_N", "sequence_N", "position_N"):
            setattr(self, name, getattr(self, name)[chosen_N])

    def move(self, side: str, source_N: Array) -> None:
        """One side's figures, and its distributions, are those of other tokens."""
        setattr(self, f"{side}_N", self.side(side)[source_N])
        setattr(self, f"{side}_NV", getattr(self, f"{side}_NV")[source_N])


def excess(mu_N: Array, pi_N: Array) -> float:
    """Root mean square of z = Δ / (1 − p) over tokens with p < 0.9 that have two finite log-probs."""
    with np.errstate(invalid="ignore", over="ignore"):
        delta_N = pi_N - mu_N
        p_N = np.exp(np.minimum((mu_N + pi_N) / 2, 0))
    used_N = np.isfinite(delta_N) & (p_N < 0.9)
    if not used_N.any():
        return float("nan")
    return float(np.sqrt(np.mean((delta_N[used_N] / (1 - p_N[used_N])) ** 2)))
