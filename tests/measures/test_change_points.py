"""Change points are found where they are, and are not found where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_runs import autoregressive

from mismatchscope.measures.change_points import MIN_STEPS, change_points, largest_change


def share_with_a_change(value_RT: np.ndarray) -> float:
    step_T = np.arange(value_RT.shape[1])
    return float(np.mean([bool(change_points(step_T, value_T)) for value_T in value_RT]))


@pytest.mark.parametrize(
    ("steps", "correlation", "at_most"), [(20, 0.0, 0.02), (50, 0.5, 0.04), (100, 0.8, 0.06), (300, 0.5, 0.03)]
)
def test_false_alarms_are_as_rare_as_stated(steps: int, correlation: float, at_most: float) -> None:
    # Of the calibration: 0.001, 0.012, 0.02, 0.005; with 300 runs the standard error is below 0.01.
    rng = np.random.default_rng([steps, int(10 * correlation)])
    assert share_with_a_change(autoregressive(rng, correlation, (300, steps))) <= at_most


def test_a_drift_is_no_change() -> None:
    rng = np.random.default_rng(1)
    drift_T = np.linspace(0, 10, 60)
    assert share_with_a_change(drift_T + rng.normal(size=(300, 60))) <= 0.02


def test_a_change_of_three_standard_deviations_is_found_where_it_is() -> None:
    rng = np.random.default_rng(2)
    value_RT = autoregressive(rng, 0.3, (100, 60)) + 3.0 * (np.arange(60) >= 40)
    found = [change_points(np.arange(60) * 10, value_T) for value_T in value_RT]
    assert np.mean([bool(each) for each in found]) > 0.7
    nearest = [min(abs(change.step - 400) for change in each) for each in found if each]
    assert np.mean(np.array(nearest) <= 20) > 0.9
    change = found[0][0]
    assert change.after - change.before == pytest.approx(3, abs=1)
    assert change.p_value < 0.01


def shrinking(rng: np.random.Generator, runs: int, steps: int) -> np.ndarray:
    """Means of batches that become 32 times as large at half the run, of a figure with a heavy tail."""
    half = (runs, steps // 2)
    return np.concatenate([rng.gamma(0.5, 2, half), rng.gamma(16, 1 / 16, half)], axis=1)


def test_noise_that_shrinks_is_no_change() -> None:
    """Of 60 runs 0 to 3; of the logarithms alone 50."""
    assert share_with_a_change(shrinking(np.random.default_rng(6), 60, 200)) <= 0.1


SMOOTH = {
    "saturates": lambda t: 1.5 - np.exp(-6 * t),
    "rises in a quarter": lambda t: 1 + 1 / (1 + np.exp(-12 * (t - 0.5))),
    "rises at the end": lambda t: 1 + 2 * t**3,
    "a season": lambda t: 1 + 0.5 * np.sin(12 * t),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_a_smooth_course_is_no_change(name: str) -> None:
    """Of 60 runs 0 to 3; of a step against a line alone up to 42."""
    value_RT = SMOOTH[name](np.linspace(0, 1, 100)) + 0.05 * np.random.default_rng(7).normal(size=(60, 100))
    assert share_with_a_change(value_RT) <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("steps", [50, 200])
@pytest.mark.parametrize("spread", ["grows", "shrinks", "of both signs"])
def test_a_change_of_noise_is_rarely_taken_for_one_of_level(spread: str, steps: int) -> None:
    """Of 300 runs at most 3 % (up to 82 % of the logarithms alone)."""
    rng = np.random.default_rng([8, steps])
    value_RT = shrinking(rng, 300, steps)
    if spread == "grows":
        value_RT = value_RT[:, ::-1]
    if spread == "of both signs":
        value_RT = rng.normal(size=(300, steps)) * np.where(np.arange(steps) < steps // 2, 1, 0.1)
    assert share_with_a_change(value_RT) <= 0.05


@pytest.mark.parametrize("level", [1e-300, 1e300])
def test_a_change_is_found_at_any_size(level: float) -> None:
    value_T = level * (1 + 0.1 * np.random.default_rng(9).normal(size=40) + 2 * (np.arange(40) >= 20))
    with np.errstate(all="raise", under="ignore"):
        assert [change.step for change in change_points(np.arange(40), value_T)] == [20]


def test_two_changes_are_both_found() -> None:
    rng = np.random.default_rng(3)
    level_T = np.where((np.arange(90) >= 30) & (np.arange(90) < 60), 6.0, 0.0)
    found = change_points(np.arange(90), level_T + rng.normal(size=90))
    assert [change.step for change in found] == pytest.approx([30, 60], abs=1)
    assert found[0].after == found[1].before == pytest.approx(6, abs=0.6)


def test_a_long_run_is_searched_to_the_step() -> None:
    value_T = np.random.default_rng(4).normal(size=1_000)
    value_T[701:] += 5
    (change,) = change_points(np.arange(1_000), value_T)
    assert abs(change.step - 701) <= 1


def test_a_positive_figure_is_searched_by_its_logarithm() -> None:
    """Noise in proportion to the level: a fall to a twentieth is as clear as a rise to the twentyfold."""
    noise_T = np.exp(np.random.default_rng(5).normal(size=40))
    level_T = np.where(np.arange(40) < 20, 20.0, 1.0)
    assert len(change_points(np.arange(40), level_T * noise_T)) == 1


def test_a_step_without_noise_is_certain() -> None:
    (change,) = change_points(np.arange(20), np.where(np.arange(20) < 10, 1.0, 2.0))
    assert (change.step, change.before, change.after) == (10, 1.0, 2.0)


def test_nothing_is_claimed_of_few_or_constant_values() -> None:
    assert largest_change(np.full(50, 0.7)) is None
    assert largest_change(np.arange(MIN_STEPS - 1.0)) is None
    assert change_points(np.zeros(0), np.zeros(0)) == ()
