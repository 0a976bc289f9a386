"""The exponent of the spread of a response's log ratio, of sums that are a random walk or share a bias."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures.length_scaling import length_scaling
from mismatchscope.measures.log_results import LengthScaling


def simulated(
    seed: int, bias: float, longest: int = 1000, responses: int = 600, drift: float = -0.01
) -> LengthScaling:
    """Σ d = drift · T + bias · T · z + √T · z′, four responses a prompt, a prompt's z shared in part."""
    rng = np.random.default_rng(seed)
    length_S = np.exp(rng.uniform(np.log(50), np.log(longest), responses)).astype(int)
    prompt_S = np.arange(responses) // 4
    x_S = (
        drift * length_S
        + bias * length_S * rng.normal(size=responses)
        + np.sqrt(length_S) * rng.normal(size=responses)
    )
    columns = {
        "responses": np.ones(responses),
        "log_ratio": x_S,
        "square": x_S**2,
        "product": x_S * length_S,
        "length": length_S * 1.0,
        "length_square": length_S**2.0,
        "log_length": np.log(length_S),
    }
    found = length_scaling((np.log2(length_S) * 4).astype(int), prompt_S, columns)
    assert found is not None
    return found


def test_the_interval_of_a_random_walk_holds_a_half() -> None:
    found = [simulated(seed, 0.0) for seed in range(100)]
    assert np.mean([each.exponent.low <= 0.5 <= each.exponent.high for each in found]) > 0.88  # type: ignore[operator]
    assert np.mean([each.code == "random_walk" for each in found]) > 0.85


def test_a_bias_within_responses_has_exponent_one() -> None:
    found = [simulated(seed, 1.0) for seed in range(50)]
    assert np.mean([each.exponent.low <= 1 <= each.exponent.high for each in found]) > 0.85  # type: ignore[operator]
    assert np.mean([each.code == "biased" for each in found]) > 0.8


def test_both_together_are_between() -> None:
    assert simulated(1, 0.05, responses=4000).code == "between"


def test_a_common_drift_is_no_spread() -> None:
    assert simulated(2, 0.0, drift=-3.0).exponent.value == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("longest", "responses"), [(60, 600), (1000, 40)])
def test_it_cannot_tell_without_a_spread_of_lengths_or_responses(longest: int, responses: int) -> None:
    found = simulated(3, 0.0, longest, responses)
    assert found.code == "cannot_tell"
    assert found.exponent.value is None
