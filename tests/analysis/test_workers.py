"""Workers that differ are named; those that were only given other steps, lengths or prompts are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from simulated_runs import RunDesign, simulated_run
from softmax_log import concentrations, positions, softmax_log

from mismatchscope.analysis.group_rows import groups_of
from mismatchscope.analysis.groups import GroupSums


def differs(sums: GroupSums) -> dict[str, bool | None]:
    (table,) = [each for each in groups_of(sums) if each.by == "worker"]
    return {row.label: row.differs for row in table.rows}


def test_one_bad_worker_of_eight_is_named() -> None:
    design = RunDesign(steps=10, prompts=16, samples=4, workers=8, bad_worker=5, prompt_spread=0.5, length=(16, 48))
    found = []
    for seed in range(2):
        sums = GroupSums()
        sums.add(simulated_run(design, seed).block())
        found.append(differs(sums))
    assert all(each["worker-5"] for each in found)
    assert sum(any(value for name, value in each.items() if name != "worker-5") for each in found) <= 1


def longest_to_one(rng: np.random.Generator) -> GroupSums:
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


def longer_prompts(rng: np.random.Generator) -> GroupSums:
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


def late_joiner(rng: np.random.Generator) -> GroupSums:
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


def harder_prompts(rng: np.random.Generator) -> GroupSums:
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


@pytest.mark.slow
@pytest.mark.parametrize("design", [longest_to_one, longer_prompts, late_joiner, harder_prompts])
def test_what_a_worker_is_given_is_no_difference(design: Callable[[np.random.Generator], GroupSums]) -> None:
    """At 5 %, more than 3 of 12 logs name a worker in one test of 400."""
    named = [any(differs(design(np.random.default_rng(seed))).values()) for seed in range(12)]
    assert sum(named) <= 3


def test_a_worker_alone_in_its_steps_is_not_compared() -> None:
    rng = np.random.default_rng(0)
    step_S, prompt_S = np.repeat(np.arange(16), 8), np.arange(128) // 2
    length_S = np.full(128, 16)
    sums = softmax_log(
        rng,
        length_S,
        step_S,
        prompt_S,
        concentration_N=concentrations(rng, 2048),
        error_N=np.repeat(np.where(step_S < 8, 0.05, 0.4), length_S),
        worker_S=np.where(step_S < 8, 0, rng.integers(1, 3, 128)),
    )
    assert differs(sums) == {"worker-0": None, "worker-1": False, "worker-2": False}
