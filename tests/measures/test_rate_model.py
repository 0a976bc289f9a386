"""Effects of a rate model against a generalised linear model's equations, and its intervals against known truth."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures.rate_model import expected_sums, explained_share, rate_ratio


def rows(
    seed: int, effect: float, *, rare: bool = False
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """(Which rows have the effect, factors, clusters, sums, exposures): it goes with the first factor in part."""
    rng = np.random.default_rng(seed)
    cluster_E = np.repeat(np.arange(200), 3)
    first_E, second_E = cluster_E % 10, np.tile(np.arange(3), 200)
    is_E = rng.random(600) < 0.1 + 0.08 * first_E
    exposure_E = rng.uniform(1, 20, 600)
    rate_E = 0.1 * np.exp(0.3 * first_E + 0.2 * second_E + effect * is_E + 0.4 * rng.normal(size=200)[cluster_E])
    noise_E = rng.gamma(0.5, 2.0, 600) if rare else rng.gamma(4, 0.25, 600)
    return is_E, [first_E, second_E], cluster_E, exposure_E * rate_E * noise_E, exposure_E


def test_the_sums_of_every_level_are_those_expected() -> None:
    _, factors, _, sum_E, exposure_E = rows(1, 0.0)
    expected_E = expected_sums(factors, sum_E, exposure_E)
    for level_E in factors:
        np.testing.assert_allclose(np.bincount(level_E, expected_E), np.bincount(level_E, sum_E), rtol=1e-4)
    rate_E = np.log(expected_E / exposure_E)
    design_EK = np.column_stack([np.eye(10)[factors[0]], np.eye(3)[factors[1]]])
    np.testing.assert_allclose(design_EK @ np.linalg.lstsq(design_EK, rate_E, rcond=None)[0], rate_E, atol=1e-9)


def test_without_a_factor_all_have_one_rate() -> None:
    np.testing.assert_allclose(expected_sums([], np.array([1.0, 5.0]), np.array([1.0, 2.0])), [2.0, 4.0])


@pytest.mark.parametrize("rare", [False, True])
def test_the_interval_holds_the_effect(*, rare: bool) -> None:
    """At 95 %, fewer than 135 of 150 in one test of 200."""
    held = []
    for seed in range(150):
        found = rate_ratio(*rows(seed, 0.5, rare=rare)).ratio
        assert found.low is not None and found.high is not None
        held.append(found.low <= np.exp(0.5) <= found.high)
    assert np.mean(held) >= 0.88


def test_what_goes_with_a_factor_alone_has_no_effect_of_its_own() -> None:
    _, factors, cluster_E, sum_E, exposure_E = rows(2, 0.0)
    found = rate_ratio(factors[0] > 4, factors, cluster_E, sum_E, exposure_E)
    assert found.overlap == pytest.approx(0, abs=1e-6)
    assert found.ratio.value is None
    assert explained_share(factors[0] > 4, factors[:1], exposure_E) == pytest.approx(1)
    assert explained_share(factors[1] == 0, factors[:1], np.ones(600)) == pytest.approx(0, abs=1e-9)


def test_sums_of_zero_have_no_effect_that_could_be_told() -> None:
    is_E, factors, cluster_E, sum_E, exposure_E = rows(3, 0.0)
    for zero_E in (np.zeros(600), np.where(is_E, 0.0, sum_E)):
        assert rate_ratio(is_E, factors, cluster_E, zero_E, exposure_E).ratio.value is None
