"""Intervals over steps: equal to textbook formulas where noise is white, and held as often as they say where it
is not."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_runs import autoregressive

from mismatchscope.measures.autocorrelation import ar1_product, contrast, persistence, relative_change, slope


def held(steps: int, correlation: float, runs: int = 300) -> float:
    """How often the interval of a slope holds 0.02 a step."""
    rng = np.random.default_rng([steps, int(10 * correlation)])
    step_T = np.arange(steps) * 5.0
    value_RT = autoregressive(rng, correlation, (runs, steps)) + 0.02 * step_T
    found = [slope(step_T, value_T) for value_T in value_RT]
    return float(np.mean([each.low <= 0.02 <= each.high for each in found]))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("steps", "correlation", "at_least"), [(8, 0.0, 0.93), (20, 0.5, 0.92), (50, 0.8, 0.89), (200, 0.8, 0.92)]
)
def test_the_slopes_interval_holds_as_often_as_it_says(steps: int, correlation: float, at_least: float) -> None:
    # Of the calibration: 0.97, 0.95, 0.93, 0.95; with 300 runs the standard error is 0.013.
    assert held(steps, correlation) >= at_least


def test_a_slope_is_that_of_least_squares() -> None:
    rng = np.random.default_rng(0)
    step_T, value_T = np.array([0, 1, 2, 4, 8, 9, 12, 20, 21, 30]), rng.normal(size=10)
    found = slope(step_T, value_T)
    assert found.value == pytest.approx(np.polyfit(step_T, value_T, 1)[0], rel=1e-12)
    assert found.low is not None and found.high is not None and found.low < found.value < found.high  # type: ignore[operator]
    assert found.n == 10


def test_a_wave_that_is_slower_than_the_noise_makes_a_wide_interval() -> None:
    """The same values in an order that makes neighbours alike tell less of a slope."""
    rng = np.random.default_rng(3)
    step_T = np.arange(100.0)
    persistent_T = autoregressive(rng, 0.9, (100,))
    shuffled_T = rng.permutation(persistent_T)
    wide, narrow = (slope(step_T, value_T) for value_T in (persistent_T, shuffled_T))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)  # type: ignore[operator]


def test_units_of_steps_and_values_only_scale_the_slope() -> None:
    value_T = autoregressive(np.random.default_rng(1), 0.4, (40,))
    one, other = slope(np.arange(40), value_T), slope(10 * np.arange(40) + 3, 7 * value_T - 100)
    for name in ("value", "low", "high"):
        assert getattr(other, name) == pytest.approx(0.7 * getattr(one, name), rel=1e-6)


def test_what_cannot_be_known_is_none() -> None:
    assert slope(np.array([3]), np.array([1.0])).value is None
    few = slope(np.arange(7), np.arange(7) ** 2.0)
    assert few.value == pytest.approx(6.0)
    assert few.low is None and few.high is None
    constant = slope(np.arange(20), np.full(20, 0.3))
    assert (constant.low, constant.high) == (constant.value, constant.value)


def test_relative_change_is_the_ratio_of_means() -> None:
    value_T = np.array([1.0, 2, 3, 9, 9, 9, 9, 2, 4, 6])
    found = relative_change(value_T, 3)
    assert found.value == pytest.approx(2.0)
    assert (found.low, found.method) == (None, "noise-hides-the-ratio")
    found = relative_change(np.array([1.0, 1.1, 1, 1.3, 1.2, 1.6, 1.5, 1.8, 2.1, 2.3]), 3)
    assert found.low < found.value < found.high  # type: ignore[operator]
    assert found.low * found.high == pytest.approx(found.value**2)  # type: ignore[operator]
    assert relative_change(np.array([1.0, 0.0, 1, 1.1, 1, 0.9, 1, 1, 1, 1]), 3).value == pytest.approx(1.5)
    assert relative_change(np.array([5.0, 2, 3, 0, 5, 0, 0, 0]), 3).low is None
    assert relative_change(np.array([0.0, 0, 0, 0, 5, 6, 7, 8]), 3).value is None
    assert relative_change(np.array([1.0, 2, -3, 0, 5, 6, 7, 8]), 3).value is None


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_the_interval_of_the_relative_change_holds_over_runs_that_drift(correlation: float) -> None:
    rng = np.random.default_rng(5)
    drift_T = np.linspace(0, 1, 50)
    value_RT = np.exp(drift_T + 0.2 * autoregressive(rng, correlation, (300, 50)))
    truth = np.exp(drift_T[-10:]).mean() / np.exp(drift_T[:10]).mean()
    found = [each for each in (relative_change(value_T, 10) for value_T in value_RT) if each.low is not None]
    assert len(found) > 270
    assert np.mean([each.low <= truth <= each.high for each in found]) > 0.92  # type: ignore[operator]
    assert np.mean([each.low > 1 for each in found]) > 0.8  # type: ignore[operator]


def heavy(name: str, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Values of a figure that never changes and has extreme steps."""
    if name == "spikes":
        return np.exp(0.1 * rng.normal(size=shape)) * np.where(rng.random(shape) < 0.03, 20, 1)
    if name == "pareto":
        return rng.pareto(1.5, shape) + 0.1
    return np.exp(float(name) * rng.normal(size=shape))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [20, 100])
@pytest.mark.parametrize("name", ["0.5", "1.5", "2.0", "spikes", "pareto"])
def test_extreme_steps_are_no_change(name: str, steps: int) -> None:
    """Of 300 runs with a lognormal spread, spikes or a Pareto tail 0.7 to 5 % have an interval without 1; of
    logarithms it would be up to 54 %. The standard error of 5 % is 1.3 %."""
    value_RT = heavy(name, np.random.default_rng([steps, len(name)]), (300, steps))
    found = [relative_change(value_T, max(3, steps // 5)) for value_T in value_RT]
    missed = [each.low is not None and not each.low <= 1 <= each.high for each in found]  # type: ignore[operator]
    assert np.mean(missed) <= 0.08


def test_one_extreme_step_leaves_the_ratio_without_ends() -> None:
    value_T = 1 + 0.01 * np.random.default_rng(0).normal(size=20)
    value_T[-2] = 50.0
    found = relative_change(value_T, 4)
    assert found.value > 10  # type: ignore[operator]
    assert (found.low, found.high) == (None, None)


def test_a_change_of_level_at_a_known_place_keeps_the_ratio_sharp() -> None:
    rng = np.random.default_rng(1)
    value_T = np.exp(0.2 * rng.normal(size=30)) * np.where(np.arange(30) < 15, 1, 10)
    found = relative_change(value_T, 6, breaks=(15,))
    assert found.value == pytest.approx(10, rel=0.3)
    assert found.low is not None and found.high / found.low < 2  # type: ignore[operator]


@pytest.mark.parametrize("level", [1e-300, 1e300])
def test_the_largest_and_smallest_floats_keep_an_interval(level: float) -> None:
    value_T = 1 + 0.1 * np.random.default_rng(2).normal(size=20)
    with np.errstate(all="raise", under="ignore"):
        change, line = relative_change(level * value_T, 4), slope(np.arange(20), level * value_T)
    plain = relative_change(value_T, 4)
    assert (change.low, change.high) == pytest.approx((plain.low, plain.high))
    assert line.high == pytest.approx(level * slope(np.arange(20), value_T).high)  # type: ignore[operator]


@pytest.mark.parametrize(("place", "known"), [(0, True), (10, True), (19, False)])
def test_what_no_float_holds_has_no_ends(place: int, known: bool) -> None:
    value_T = np.full(20, 1e-17)
    value_T[place] = 1e300
    with np.errstate(all="raise", under="ignore"):
        found = relative_change(value_T, 4)
    assert (found.low, found.high) == (None, None)
    assert (found.value is not None) == known


def test_the_product_with_an_ar1_covariance_is_that_of_the_matrix() -> None:
    value_TK = np.random.default_rng(0).normal(size=(30, 3))
    place_T = np.arange(30)
    matrix_TT = 0.7 ** np.abs(place_T[:, None] - place_T)
    np.testing.assert_allclose(ar1_product(value_TK, 0.7), matrix_TT @ value_TK, rtol=1e-12)


def test_persistence_is_estimated_from_above() -> None:
    rng = np.random.default_rng(2)
    for rho in (0.0, 0.5, 0.8):
        value_RT = autoregressive(rng, rho, (200, 100))
        found_R = [persistence(value_T - value_T.mean(), fitted=1) for value_T in value_RT]
        assert rho <= np.mean(found_R) < rho + 0.25


def test_a_contrast_of_what_never_varies_is_exact() -> None:
    assert contrast(np.full(10, 3.0), np.array([-1.0] * 5 + [1.0] * 5)).high == 0.0


@pytest.mark.parametrize("steps", [5, 12, 40, 301])
@pytest.mark.parametrize("level", [1.0, 0.3, 0.1, 7e-5])
def test_what_does_not_change_has_no_slope(steps: int, level: float) -> None:
    found = slope(np.arange(steps, dtype=float), np.full(steps, level))
    assert found.value == 0.0
    assert {found.low, found.high} <= {0.0, None}
