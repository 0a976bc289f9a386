"""Simulated logs in which something else goes with the lag, with a worker, or with the second half of a run.

Shapes: S responses, N their tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from softmax_log import concentrations, positions, softmax_log

from mismatchscope.analysis.groups import GroupSums

Design = Callable[[np.random.Generator], GroupSums]


def responses(rng: np.random.Generator, steps: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(Lengths, steps, prompts) [S] of 12 prompts a step with two responses each."""
    step_S = np.repeat(np.arange(steps), 24)
    return rng.integers(16, 64, len(step_S)), step_S, np.arange(len(step_S)) // 2


def lag_grows_with_the_error(rng: np.random.Generator) -> GroupSums:
    """The share of stale responses and the error of all of them grow over the run."""
    length_S, step_S, prompt_S = responses(rng)
    lag_S = (rng.random(len(step_S)) < 0.1 + 0.8 * step_S / 19) * rng.integers(1, 4, len(step_S))
    return softmax_log(
        rng,
        length_S,
        step_S,
        prompt_S,
        concentration_N=concentrations(rng, int(length_S.sum())),
        error_N=np.repeat(0.08 * 2 ** (step_S / 19), length_S),
        lag_N=np.repeat(lag_S, length_S),
    )


def lag_grows_as_prompts_get_harder(rng: np.random.Generator) -> GroupSums:
    """The share of stale responses grows while prompts become less certain."""
    length_S, step_S, prompt_S = responses(rng)
    lag_S = (rng.random(len(step_S)) < 0.1 + 0.8 * step_S / 19).astype(int)
    concentration_N = np.repeat(6 - 3.5 * step_S / 19, length_S) * rng.uniform(0.5, 1.5, length_S.sum())
    return softmax_log(
        rng,
        length_S,
        step_S,
        prompt_S,
        concentration_N=concentration_N,
        error_N=0.1,
        lag_N=np.repeat(lag_S, length_S),
    )


def long_responses_are_stale(rng: np.random.Generator, per_lag: float = 0.0) -> GroupSums:
    """Hard prompts have long responses, whose first tokens are stale when the last ones are sampled."""
    step_S, prompt_S = np.repeat(np.arange(12), 32), np.arange(384) // 2
    hard_S = np.repeat(rng.random(192) < 0.4, 2)
    length_S = np.where(hard_S, rng.integers(80, 160, 384), rng.integers(16, 64, 384))
    left_N = np.repeat(length_S, length_S) - positions(length_S)
    lag_N = np.where(left_N > 80, (left_N - 41) // 40, 0)
    tokens = int(length_S.sum())
    concentration_N = np.where(
        np.repeat(hard_S, length_S), concentrations(rng, tokens, 0.3), concentrations(rng, tokens, 0.6)
    )
    error_N = 0.1 * (1 + per_lag * lag_N)
    return softmax_log(
        rng, length_S, step_S, prompt_S, concentration_N=concentration_N, error_N=error_N, lag_N=lag_N
    )


def uncertain_openings_are_stale(rng: np.random.Generator) -> GroupSums:
    """First halves are stale, and the openings of all responses are less certain than their ends."""
    step_S, prompt_S = np.repeat(np.arange(12), 32), np.arange(384) // 2
    length_S = rng.integers(32, 96, 384)
    position_N = positions(length_S)
    stale_N = np.repeat(rng.random(384) < 0.6, length_S) & (position_N < np.repeat(length_S, length_S) / 2)
    concentration_N = np.clip(2 + position_N / 16, 2, 8) * rng.uniform(0.6, 1.4, len(position_N))
    return softmax_log(
        rng,
        length_S,
        step_S,
        prompt_S,
        concentration_N=concentration_N,
        error_N=0.1,
        lag_N=stale_N.astype(int),
    )


def longest_responses_to_worker_0(rng: np.random.Generator) -> GroupSums:
    """Worker 0 gets the longest of each prompt's responses, and the error of all grows with position."""
    step_S, prompt_S = np.repeat(np.arange(8), 48), np.arange(384) // 4
    length_S = np.exp(rng.uniform(np.log(8), np.log(200), 384)).astype(int)
    longest_S = np.argsort(np.argsort(prompt_S * 1000 + length_S)) % 4 == 3
    return softmax_log(
        rng,
        length_S,
        step_S,
        prompt_S,
        concentration_N=concentrations(rng, int(length_S.sum())),
        error_N=0.05 * (1 + positions(length_S) / 60),
        worker_S=np.where(longest_S, 0, rng.integers(1, 4, 384)),
    )


def longer_prompts_to_worker_0(rng: np.random.Generator) -> GroupSums:
    """Worker 0 has a tenth of the prompts, whose responses are four times as long."""
    prompt_S = np.arange(480) // 4
    worker_S = np.where((rng.permutation(120) < 12)[prompt_S], 0, 1 + prompt_S % 3)
    length_S = (np.where(worker_S == 0, 64, 16) * np.exp(rng.uniform(-0.3, 0.3, 480))).astype(int)
    spread_S = 0.1 * np.exp(0.8 * rng.standard_normal(120))[prompt_S]
    return softmax_log(
        rng,
        length_S,
        prompt_S // 12,
        prompt_S,
        concentration_N=concentrations(rng, int(length_S.sum())),
        error_N=np.repeat(spread_S, length_S),
        worker_S=worker_S,
    )


def worker_3_joins_late(rng: np.random.Generator) -> GroupSums:
    """Worker 3 joins at half time, and the error of all grows by three over the run."""
    step_S, prompt_S = np.repeat(np.arange(30), 24), np.arange(720) // 2
    length_S = rng.integers(16, 64, 720)
    return softmax_log(
        rng,
        length_S,
        step_S,
        prompt_S,
        concentration_N=concentrations(rng, int(length_S.sum())),
        error_N=np.repeat(0.05 * 3 ** (step_S / 29), length_S),
        worker_S=np.where(step_S < 15, rng.integers(3, size=720), rng.integers(4, size=720)),
    )


def harder_prompts_to_worker_0(rng: np.random.Generator) -> GroupSums:
    """Worker 0 serves the prompts whose states are less certain, and nothing in the log says which these are."""
    prompt_S = np.arange(512) // 2
    length_S = rng.integers(16, 64, 512)
    hard_S = prompt_S % 4 == 0
    tokens = int(length_S.sum())
    return softmax_log(
        rng,
        length_S,
        prompt_S // 16,
        prompt_S,
        concentration_N=np.where(
            np.repeat(hard_S, length_S), concentrations(rng, tokens, 0.2), concentrations(rng, tokens, 0.6)
        ),
        error_N=0.1,
        worker_S=np.where(hard_S, 0, rng.integers(1, 4, 512)),
    )


def states_change(rng: np.random.Generator, change: str) -> GroupSums:
    """From step 12 on states are others, with the same error of the logits throughout; or, of a `cache`, not."""
    step_S, prompt_S = np.repeat(np.arange(24), 24), np.arange(576) // 2
    longer_S = (step_S >= 12) if change == "longer" else np.zeros(576, dtype=bool)
    length_S = np.where(longer_S, rng.integers(160, 320, 576), rng.integers(80, 120, 576))
    tokens = int(length_S.sum())
    position_N, after_N = positions(length_S), np.repeat(step_S >= 12, length_S)
    error_N, concentration_N = np.full(tokens, 0.1), concentrations(rng, tokens)
    if change == "longer":  # and the error grows with position, as it did before
        error_N = 0.05 * (1 + position_N / 60)
    elif change == "uncertain openings":
        concentration_N = np.where(position_N < 16, np.where(after_N, 2.0, 5.5), concentration_N)
    elif change == "certain endings":
        concentration_N = np.where((position_N >= 40) & after_N, 6.5, 3.0) * rng.uniform(0.7, 1.3, tokens)
    elif change == "harder prompts":
        concentration_N = np.where(after_N, 2.5, 5.0) * rng.uniform(0.6, 1.4, tokens)
    elif change == "cache":
        error_N = np.where(after_N & (position_N < 16), 0.3, 0.1)
    return softmax_log(rng, length_S, step_S, prompt_S, concentration_N=concentration_N, error_N=error_N)


LAGS: tuple[Design, ...] = (
    lag_grows_with_the_error,
    lag_grows_as_prompts_get_harder,
    long_responses_are_stale,
    uncertain_openings_are_stale,
)
"""In none of them does the error depend on the lag."""
WORKERS: tuple[Design, ...] = (
    longest_responses_to_worker_0,
    longer_prompts_to_worker_0,
    worker_3_joins_late,
    harder_prompts_to_worker_0,
)
"""In none of them does the error depend on the worker."""
STATES = ("longer", "uncertain openings", "certain endings", "harder prompts")
"""What changes at step 12, though the logits' errors do not."""
