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
    assert found.low < 2 < found.high  # type: ignore[operator]
    assert relative_change(np.array([1.0, 2, 3, 0, 5, 6, 7, 8]), 3).low is None
    assert relative_change(np.array([0.0, 0, 0, 0, 5, 6, 7, 8]), 3).value is None
    assert relative_change(np.array([1.0, 2, -3, 0, 5, 6, 7, 8]), 3).value is None


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_the_interval_of_the_relative_change_holds_over_runs_that_drift(correlation: float) -> None:
    rng = np.random.default_rng(5)
    drift_T = np.linspace(0, 1, 50)
    value_RT = np.exp(drift_T + 0.2 * autoregressive(rng, correlation, (300, 50)))
    truth = np.exp(drift_T[-10:]).mean() / np.exp(drift_T[:10]).mean()
    found = [relative_change(value_T, 10) for value_T in value_RT]
    assert np.mean([each.low <= truth <= each.high for each in found]) > 0.92  # type: ignore[operator]
    assert np.mean([each.low > 1 for each in found]) > 0.8  # type: ignore[operator]


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
