"""Populations of prompts whose figures are known exactly: what `calibration.py` draws its audits from.

Shape suffixes: N tokens, C prompts, K kinds of prompt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

NEAR_ZERO = 1e-6  # states that do not mismatch: TV uniform on [0, NEAR_ZERO]
TAIL_START = 1e-3  # states that do: Pareto on [TAIL_START, 1]
KINDS = 25  # kinds of prompt, equally likely; a finite number keeps the truth a finite sum
HUGE = 0.9  # of the states of a rare prompt mismatch


@dataclass(frozen=True)
class Design:
    """A population of prompts. `rate` is the median fraction of mismatching states, `spread` its log sd.

    Lengths are uniform on `shortest` … `longest`, or geometric with the same mean. Where `effects` is "pareto" the
    rates have a Pareto tail of index 1/`spread`; where it is "rare" one prompt in 25 mismatches nearly everywhere.
    Each prompt is answered `samples` times.
    """

    name: str
    rate: float
    spread: float
    pareto_index: float
    shortest: int
    longest: int
    hard_are_longer: bool = False
    geometric_lengths: bool = False
    effects: Literal["lognormal", "pareto", "rare"] = "lognormal"
    samples: int = 1

    @property
    def rate_K(self) -> np.ndarray:
        if self.effects == "rare":
            return np.where(np.arange(KINDS) < KINDS - 1, self.rate, HUGE)
        if self.effects == "pareto":
            return np.minimum(self.rate * (2 * (1 - _levels())) ** -self.spread, HUGE)
        return np.minimum(self.rate * np.exp(self.spread * _normal_quantiles()), 0.5)

    @property
    def longest_K(self) -> np.ndarray:
        share_K = 0.3 + 0.7 * ndtr(_normal_quantiles()) if self.hard_are_longer else np.ones(KINDS)
        return (self.shortest + (self.longest - self.shortest) * share_K).astype(int)

    @property
    def length_K(self) -> np.ndarray:
        """Mean length of every kind."""
        return (self.shortest + self.longest_K) / 2

    def draw(self, rng: np.random.Generator, prompts: int) -> tuple[np.ndarray, np.ndarray]:
        """TV of every state and the prompt it belongs to."""
        kind_C = rng.integers(KINDS, size=prompts)
        shape = (self.samples, prompts)
        if self.geometric_lengths:
            length_C = rng.geometric(1 / self.length_K[kind_C], shape).sum(axis=0)
        else:
            length_C = rng.integers(self.shortest, self.longest_K[kind_C] + 1, shape).sum(axis=0)
        prompt_N = np.repeat(np.arange(prompts), length_C)
        tv_N = NEAR_ZERO * rng.random(prompt_N.size)
        hit_N = np.flatnonzero(rng.random(prompt_N.size) < np.repeat(self.rate_K[kind_C], length_C))
        uniform = rng.random(hit_N.size)
        tv_N[hit_N] = TAIL_START * (1 - uniform * self._tail_mass) ** (-1 / self.pareto_index)
        return tv_N, prompt_N

    def token_mean(self) -> float:
        return float(self.length_K @ self._mean_K() / self.length_K.sum())

    def prompt_mean(self) -> float:
        return float(self._mean_K().mean())

    def tokens_beyond(self, tau: float) -> float:
        return float(self.length_K @ self._beyond_K(tau) / self.length_K.sum())

    def prompts_beyond(self, tau: float) -> float:
        """1 - E[P(TV ≤ tau)^T] over the lengths T, a geometric sum either way."""
        below_K = 1 - self._beyond_K(tau)
        if self.geometric_lengths:
            powers_K = below_K / (self.length_K - (self.length_K - 1) * below_K)
        else:
            lengths_K = self.longest_K - self.shortest + 1
            with np.errstate(invalid="ignore"):
                powers_K = below_K**self.shortest * (1 - below_K**lengths_K) / ((1 - below_K) * lengths_K)
        return float(1 - (np.where(below_K < 1, powers_K, 1.0) ** self.samples).mean())

    def tau(self, beyond: float) -> float | None:
        """The τ that a share `beyond` of prompts exceeds; None where fewer have any mismatch at all."""
        if self.prompts_beyond(TAIL_START) <= beyond:
            return None
        return math.exp(
            brentq(lambda log_tau: self.prompts_beyond(math.exp(log_tau)) - beyond, math.log(TAIL_START), 0)
        )

    @property
    def _tail_mass(self) -> float:
        return 1 - TAIL_START**self.pareto_index

    def _mean_K(self) -> np.ndarray:
        a = self.pareto_index
        tail_mean = a / (a - 1) * TAIL_START * (1 - TAIL_START ** (a - 1)) / self._tail_mass
        return self.rate_K * tail_mean + (1 - self.rate_K) * NEAR_ZERO / 2

    def _beyond_K(self, tau: float) -> np.ndarray:
        tail = (max(tau, TAIL_START) / TAIL_START) ** -self.pareto_index - TAIL_START**self.pareto_index
        near_zero = max(0.0, 1 - tau / NEAR_ZERO)
        return self.rate_K * max(0.0, tail) / self._tail_mass + (1 - self.rate_K) * near_zero


DESIGNS = (
    Design("mild", 0.1, 0.5, 2.5, 50, 400),
    Design("geometric lengths", 0.1, 1.0, 2.5, 20, 580, geometric_lengths=True),
    Design("moderate", 0.03, 1.0, 1.7, 20, 600),
    Design("hard prompts longer", 0.03, 1.0, 1.7, 20, 600, hard_are_longer=True),
    Design("heavy", 0.01, 1.2, 1.2, 20, 600, hard_are_longer=True),
    Design("very heavy", 0.003, 1.5, 1.1, 20, 300, hard_are_longer=True),
    Design("Pareto", 0.01, 0.9, 1.2, 20, 600, hard_are_longer=True, effects="pareto"),
    Design("rare huge", 0.01, 0.0, 0.5, 20, 400, hard_are_longer=True, effects="rare"),
)
# The same with eight responses a prompt.
MANY_SAMPLES = tuple(
    replace(design, name=f"{design.name}, 8 samples", samples=8)
    for design in DESIGNS
    if design.name in ("hard prompts longer", "very heavy", "Pareto", "rare huge")
)


def _levels() -> np.ndarray:
    return (np.arange(KINDS) + 0.5) / KINDS


def _normal_quantiles() -> np.ndarray:
    return ndtri(_levels())
