"""Responses with the log-probs of two policies, for writers to put into a trainer's files."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class Sample:
    """A sequence of T tokens, P of them the prompt's. Arrays are of all T; log-probs mean something where
    `generated_T` is true."""

    tokens_T: np.ndarray
    prompt: int
    generated_T: np.ndarray
    mu_T: np.ndarray
    pi_T: np.ndarray
    advantage: float
    reward: float
    environment: str = "math"
    details: dict[str, object] = field(default_factory=dict)

    @property
    def response(self) -> slice:
        return slice(self.prompt, len(self.tokens_T))


def samples(count: int, seed: int = 0, *, turns: int = 1, longest: int = 40) -> list[Sample]:
    """Two samples a prompt; with several turns, two tokens of a tool stand between one and the next."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        if index % 2 == 0:
            prompt_P = rng.integers(3, 1000, rng.integers(2, 9))
        length = int(rng.integers(4 * turns, max(longest, 4 * turns + 1)))
        generated_T = np.concatenate([np.zeros(len(prompt_P), bool), np.ones(length, bool)])
        for turn in range(1, turns):
            place = len(prompt_P) + turn * length // turns
            generated_T[place - 2 : place] = False
        mu_T = np.where(generated_T, -rng.exponential(size=len(generated_T)), 0).astype(np.float32)
        error_T = 0.05 * rng.normal(size=len(generated_T))
        pi_T = np.where(generated_T, np.minimum(mu_T + error_T, 0), 0).astype(np.float32)
        tokens_T = np.concatenate([prompt_P, rng.integers(3, 1000, length)])
        made.append(
            Sample(tokens_T, len(prompt_P), generated_T, mu_T, pi_T, float(rng.normal()), float(rng.integers(0, 2)))
        )
    return made
