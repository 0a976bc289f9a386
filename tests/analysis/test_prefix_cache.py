"""When early positions are said to be worse than later ones, and when only their states changed."""

from __future__ import annotations

import numpy as np
import pytest
from confounded_logs import STATES, states_change
from simulated_runs import RunDesign, SimulatedRun, simulated_run

from mismatchscope.analysis.groups import GroupSums
from mismatchscope.analysis.prefix_cache import stale_cache_of

CACHE = {"steps": 24, "prompts": 12, "samples": 2, "length": (80, 120)}


def summed(run: SimulatedRun) -> GroupSums:
    sums = GroupSums()
    for block in run.blocks(400):
        sums.add(block)
    return sums


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "code", "at_least"),
    [
        ({"cache_from": 12, "cache_factor": 3.0, "cache_tokens": 16}, "stale_cache", 0.95),
        ({"change_at": 12, "change_factor": 2.5}, "cannot_tell", 0.9),
        ({"step_spread": 0.1, "step_correlation": 0.5}, "neither", 0.9),
        ({}, "neither", 0.9),
    ],
)
def test_a_stale_cache_is_told_from_what_all_positions_show(
    fault: dict[str, float], code: str, at_least: float
) -> None:
    found = [stale_cache_of(summed(simulated_run(RunDesign(**CACHE, **fault), seed))) for seed in range(40)]  # type: ignore[arg-type]
    assert np.mean([each is not None and each.code == code for each in found]) >= at_least
    if code != "neither":
        assert np.mean([each is not None and each.since in (11, 12, 13) for each in found]) >= at_least - 0.1


def test_few_steps_or_short_responses_cannot_tell() -> None:
    short = stale_cache_of(summed(simulated_run(RunDesign(steps=20, length=(8, 30)))))
    few = stale_cache_of(summed(simulated_run(RunDesign(steps=5, length=(80, 120)))))
    assert short is not None and short.code == "cannot_tell"
    assert few is not None and few.code == "cannot_tell"
    assert few.early is None


def test_of_a_run_that_drifts_no_step_is_named() -> None:
    """The last steps are worse than the first ones, and so it is not said that none is."""
    found = stale_cache_of(summed(simulated_run(RunDesign(**CACHE, drift=1.0), 0)))  # type: ignore[arg-type]
    assert found is not None and found.code == "neither"
    assert found.early is not None and found.early.low is not None and found.early.low > 1
    assert found.sentence.startswith("No step is seen from which on mean TV at like certainty is larger")


def code_after(change: str, seed: int) -> str:
    found = stale_cache_of(states_change(np.random.default_rng(seed), change))
    assert found is not None
    return found.code


@pytest.mark.slow
@pytest.mark.parametrize("change", STATES)
def test_other_states_are_no_cache(change: str) -> None:
    codes = [code_after(change, seed) for seed in range(5)]
    assert set(codes) <= {"neither", "cannot_tell"}


@pytest.mark.slow
def test_a_cache_is_found_where_states_are_of_many_tokens() -> None:
    assert [code_after("cache", seed) for seed in range(3)] == ["stale_cache"] * 3
