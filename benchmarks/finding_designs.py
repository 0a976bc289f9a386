"""Audits of two means whose truth is known: what `calibration_finding.py` draws from.

A mismatch is a floor's noise drawn once more, and an excess on top; prompts differ in how noisy they are, and both
sides of a prompt share that. All in units of the floor's mean, which is 1.

Shape suffixes: C prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mismatchscope.measures.accumulators import ClusterSums

RARE = 0.05  # the share of prompts that a rare excess is on
FLOOR = 0.004  # mean TV of a repeat
TOKENS_PER_DRAW = 4  # so many tokens of a prompt have one noise: rel. error of a prompt's mean 2/√tokens


@dataclass(frozen=True)
class Design:
    """`noise`: prompts are about as noisy as each other (light), by a log-normal of log sd 1 (spread), or a
    twentieth of them has half of it, Pareto (heavy). `excess` is on all prompts alike, or on a twentieth of them,
    Pareto; elsewhere: none, but the mismatch is as large on every prompt, whatever its floor. `pareto_index` is
    that of both; every size is cut at TV = 1."""

    noise: Literal["light", "spread", "heavy"]
    excess: Literal["none", "all", "rare", "elsewhere"]
    size: float = 0.0
    pareto_index: float = 1.5

    @property
    def name(self) -> str:
        tail = f", Pareto {self.pareto_index}" if "heavy" in self.noise or self.excess == "rare" else ""
        on = {
            "none": "no excess",
            "all": f"excess {self.size:g} on all",
            "rare": f"excess {self.size:g} on 5 %",
            "elsewhere": "as much, alike on all prompts",
        }
        return f"{self.noise} noise, {on[self.excess]}{tail}"

    def draw(self, rng: np.random.Generator, prompts: int) -> tuple[ClusterSums, ClusterSums]:
        """The sums of mismatch and floor by prompt."""
        tokens_C = rng.integers(50, 600, prompts)
        level_C = self._levels(rng, prompts)
        floor_C = _noise(rng, level_C, tokens_C)
        if self.excess == "elsewhere":
            level_C = np.full(prompts, FLOOR)
        ours_C = np.minimum(_noise(rng, level_C, tokens_C) + self._excesses(rng, prompts), 1.0)
        return _sums(ours_C, tokens_C), _sums(np.minimum(floor_C, 1.0), tokens_C)

    def _levels(self, rng: np.random.Generator, prompts: int) -> np.ndarray:
        if self.noise == "heavy":
            level_C = np.full(prompts, 0.5)
            hit_C = rng.random(prompts) < RARE
            level_C[hit_C] += 0.5 / RARE * self._pareto(rng, int(hit_C.sum()))
            return FLOOR * level_C
        spread = {"light": 0.5, "spread": 1.0}[self.noise]
        return FLOOR * np.exp(spread * rng.standard_normal(prompts) - spread**2 / 2)

    def _excesses(self, rng: np.random.Generator, prompts: int) -> np.ndarray:
        if self.excess != "rare":
            return np.full(prompts, FLOOR * self.size)
        excess_C, hit_C = np.zeros(prompts), rng.random(prompts) < RARE
        excess_C[hit_C] = FLOOR * self.size / RARE * self._pareto(rng, int(hit_C.sum()))
        return excess_C

    def _pareto(self, rng: np.random.Generator, draws: int) -> np.ndarray:
        """Of mean 1."""
        a = self.pareto_index
        return (1 - rng.random(draws)) ** (-1 / a) * (a - 1) / a


NOISES: tuple[Literal["light", "spread", "heavy"], ...] = ("light", "spread", "heavy")
SAME = tuple(Design(noise, "none") for noise in NOISES)
"""Two runs of one law."""

UNSEEN = tuple(Design("heavy", "elsewhere", pareto_index=index) for index in (1.2, 1.5, 2.5))
"""As large a mean as a floor half of which is on a twentieth of the prompts, and not on those: few prompts show the
mismatch and not the floor."""


def apart(size: float) -> tuple[Design, ...]:
    """As far apart as a margin of so many floors, so that saying "within" it is wrong."""
    rare = [Design(noise, "rare", size, index) for noise in NOISES for index in (1.2, 1.5, 2.5)]
    return (*(Design(noise, "all", size) for noise in NOISES), *rare)


def _noise(rng: np.random.Generator, level_C: np.ndarray, tokens_C: np.ndarray) -> np.ndarray:
    draws_C = tokens_C / TOKENS_PER_DRAW
    return level_C * rng.gamma(draws_C) / draws_C


def _sums(mean_C: np.ndarray, tokens_C: np.ndarray) -> ClusterSums:
    sums = ClusterSums()
    sums.add(np.arange(len(mean_C)), mean_C * tokens_C, tokens_C, mean_C)
    return sums
