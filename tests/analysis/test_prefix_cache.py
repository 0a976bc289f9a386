"""When early positions are said to be worse than later ones, and when only their states changed."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_runs import RunDesign, SimulatedRun, simulated_run
from softmax_log import concentrations, positions, softmax_log

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


def code_after_a_change(seed: int, change: str) -> str:
    """Of a log whose states are others from step 12 on, with the same error of the logits throughout."""
    rng = np.random.default_rng(seed)
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
    sums = softmax_log(rng, length_S, step_S, prompt_S, concentration_N=concentration_N, error_N=error_N)
    found = stale_cache_of(sums)
    assert found is not None
    return found.code


@pytest.mark.slow
@pytest.mark.parametrize("change", ["longer", "uncertain openings", "certain endings", "harder prompts"])
def test_other_states_are_no_cache(change: str) -> None:
    codes = [code_after_a_change(seed, change) for seed in range(5)]
    assert set(codes) <= {"neither", "cannot_tell"}


@pytest.mark.slow
def test_a_cache_is_found_where_states_are_of_many_tokens() -> None:
    assert [code_after_a_change(seed, "cache") for seed in range(3)] == ["stale_cache"] * 3
