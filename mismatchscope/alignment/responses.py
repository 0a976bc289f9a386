"""The sequences of a trace in memory: who they are and which tokens they have, without what was observed of them.

Shapes: S sequences, P all prompt tokens end to end, F all response tokens end to end (the rows of tokens.parquet).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import TraceError
from ..traces.columns import flat
from ..traces.reader import Trace
from ..traces.schema import SEQUENCES, TOKENS


@dataclass(frozen=True, eq=False)
class Responses:
    """Some or all sequences of a trace; `length_S` and `prompt_length_S` say how many tokens each has."""

    sequence_id_S: np.ndarray
    prompt_id_S: np.ndarray
    prompt_P: np.ndarray
    prompt_length_S: np.ndarray
    response_F: np.ndarray
    length_S: np.ndarray

    @classmethod
    def of(cls, trace: Trace) -> Responses:
        """Raises `TraceError` when ids are not rising or the two tables disagree on the number of tokens."""
        names = ["sequence_id", "prompt_id", "prompt_token_ids", "response_token_ids"]
        table = trace.read_sequences(names)
        sequence_id_S, prompt_id_S = (table[name].to_numpy() for name in names[:2])
        prompt, response = (flat(table[name].combine_chunks()) for name in names[2:])
        if (np.diff(sequence_id_S) <= 0).any():
            raise TraceError(f"{trace.path / SEQUENCES}: the rows are not in rising order of sequence_id.")
        if len(response[0]) != trace.manifest.counts.tokens:
            raise TraceError(
                f"{trace.path}: {SEQUENCES} has {len(response[0])} response tokens, "
                f"{TOKENS} {trace.manifest.counts.tokens}."
            )
        return cls(sequence_id_S, prompt_id_S, *prompt, *response)

    @cached_property
    def end_S(self) -> np.ndarray:
        """The row after the last one of each sequence."""
        return np.cumsum(self.length_S)

    @cached_property
    def prompt_end_S(self) -> np.ndarray:
        return np.cumsum(self.prompt_length_S)

    def take(self, at_S: np.ndarray) -> Responses:
        """The sequences at these rising indices."""
        chosen_S = np.zeros(len(self.sequence_id_S), dtype=bool)
        chosen_S[at_S] = True
        if chosen_S.all():
            return self
        return Responses(
            self.sequence_id_S[at_S],
            self.prompt_id_S[at_S],
            self.prompt_P[np.repeat(chosen_S, self.prompt_length_S)],
            self.prompt_length_S[at_S],
            self.response_F[np.repeat(chosen_S, self.length_S)],
            self.length_S[at_S],
        )

    def rows_of(self, at_S: np.ndarray) -> np.ndarray:
        """Boolean [F]: the rows of tokens.parquet that belong to the sequences at these indices."""
        chosen_S = np.zeros(len(self.sequence_id_S), dtype=bool)
        chosen_S[at_S] = True
        return np.repeat(chosen_S, self.length_S)

    def tokens(self, at: int) -> tuple[np.ndarray, np.ndarray]:
        """Prompt and response of one sequence."""
        prompt_end, end = int(self.prompt_end_S[at]), int(self.end_S[at])
        prompt = self.prompt_P[prompt_end - self.prompt_length_S[at] : prompt_end]
        return prompt, self.response_F[end - self.length_S[at] : end]

    def locate(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Sequence id and position of each of the rows start … stop-1."""
        row_N = np.arange(start, stop)
        at_N = np.searchsorted(self.end_S, row_N, side="right")
        return self.sequence_id_S[at_N], row_N - (self.end_S - self.length_S)[at_N]
