"""Workers that differ are named; those that were only given other steps, lengths or prompts are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from confounded_logs import WORKERS, Design
from simulated_runs import RunDesign, simulated_run
from softmax_log import concentrations, softmax_log

from mismatchscope.analysis.group_rows import groups_of
from mismatchscope.analysis.groups import GroupSums
from mismatchscope.analysis.staleness import staleness_of


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


@pytest.mark.slow
@pytest.mark.parametrize("design", WORKERS)
def test_what_a_worker_is_given_is_no_difference(design: Design) -> None:
    """At 5 %, more than 3 of 12 logs name a worker in one test of 400."""
    named = [any(differs(design(np.random.default_rng(seed))).values()) for seed in range(12)]
    assert sum(named) <= 3


@pytest.mark.filterwarnings("error")
def test_where_no_token_differs_no_worker_is_compared() -> None:
    block = simulated_run(RunDesign(steps=4)).block()
    sums = GroupSums()
    sums.add(replace(block, logp_R=dict.fromkeys(block.logp_R, block.logp_R["behavior"])))
    assert set(differs(sums).values()) == {None}


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


def test_a_worker_that_alone_is_late_is_not_told_from_its_lag() -> None:
    rng = np.random.default_rng(0)
    step_S, prompt_S, length_S = np.repeat(np.arange(8), 16), np.arange(128) // 2, np.full(128, 16)
    worker_S = rng.integers(3, size=128)
    sums = softmax_log(
        rng,
        length_S,
        step_S,
        prompt_S,
        concentration_N=concentrations(rng, 2048),
        error_N=np.repeat(np.where(worker_S == 0, 0.4, 0.1), length_S),
        worker_S=worker_S,
        lag_N=np.repeat(np.where(worker_S == 0, 2, 0), length_S),
    )
    assert differs(sums)["worker-0"] is None
    found = staleness_of(sums)
    assert found is not None and found.alike is not None and found.alike.value is None
    assert found.remark == "Lag goes with worker (100 %): what it does cannot be told from what they do."
