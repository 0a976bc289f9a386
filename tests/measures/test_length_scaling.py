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
    bias_S = drift + bias * rng.normal(size=responses)
    half_S2 = np.stack([length_S // 2, length_S - length_S // 2], axis=1)
    return scaling(length_S, half_S2 * bias_S[:, None] + np.sqrt(half_S2) * rng.normal(size=half_S2.shape))


def scaling(length_S: np.ndarray, part_S2: np.ndarray) -> LengthScaling:
    """Of responses whose early and late tokens have these Σ d, four a prompt."""
    x_S = part_S2.sum(axis=1)
    columns = {
        "responses": np.ones(len(x_S)),
        "log_ratio": x_S,
        "square": x_S**2,
        "product": x_S * length_S,
        "length": length_S * 1.0,
        "length_square": length_S**2.0,
        "log_length": np.log(length_S),
        "early": part_S2[:, 0],
        "early_late": part_S2[:, 0] * part_S2[:, 1],
    }
    found = length_scaling((np.log2(length_S) * 4).astype(int), np.arange(len(x_S)) // 4, columns)
    assert found is not None
    return found


def independent(kind: str, seed: int, responses: int = 400) -> LengthScaling:
    """Tokens' errors that have nothing in common: normal ones, rare large ones, or larger at later positions."""
    rng = np.random.default_rng([seed, len(kind)])
    length_S = np.exp(rng.uniform(np.log(8), np.log(256), responses)).astype(int)
    position_ST = np.arange(256)
    d_ST = rng.normal(0, 0.05, (responses, 256))
    if kind == "rare":
        d_ST += (rng.random(d_ST.shape) < 0.005) * 2 * rng.standard_t(2, d_ST.shape)
    if kind == "later":
        d_ST *= 1 + position_ST / 60
        d_ST -= 0.001 * (1 + position_ST / 60) ** 2
    early_ST = position_ST < length_S[:, None] // 2
    late_ST = ~early_ST & (position_ST < length_S[:, None])
    return scaling(length_S, np.stack([(d_ST * early_ST).sum(axis=1), (d_ST * late_ST).sum(axis=1)], axis=1))


def test_the_interval_of_a_random_walk_holds_a_half() -> None:
    found = [simulated(seed, 0.0) for seed in range(100)]
    assert np.mean([each.exponent.low <= 0.5 <= each.exponent.high for each in found]) > 0.88  # type: ignore[operator]
    assert np.mean([each.code == "random_walk" for each in found]) > 0.85
    assert np.mean([each.shared.low <= 0 <= each.shared.high for each in found]) > 0.9  # type: ignore[union-attr, operator]


def test_a_bias_within_responses_has_exponent_one() -> None:
    found = [simulated(seed, 1.0) for seed in range(50)]
    assert np.mean([each.exponent.low <= 1 <= each.exponent.high for each in found]) > 0.85  # type: ignore[operator]
    assert np.mean([each.code == "biased" for each in found]) > 0.8
    assert np.mean([each.shared.value for each in found]) > 0.95  # type: ignore[union-attr, misc]


def test_later_tokens_that_err_more_are_no_bias() -> None:
    found = [independent("later", seed) for seed in range(20)]
    assert {each.code for each in found} <= {"above", "between"}
    assert np.mean([each.code == "above" for each in found]) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "at_most"), [("normal", 0.03), ("rare", 0.03), ("later", 0.09)])
def test_independent_errors_are_rarely_called_a_bias(kind: str, at_most: float) -> None:
    """In 1, 0 and 4.5 % of 200 logs; the exponent alone is above ½ in 4, 8 and 79 %."""
    found = [independent(kind, seed, 120) for seed in range(200)]
    assert np.mean([each.code in ("between", "biased") for each in found]) <= at_most


def test_both_together_are_between() -> None:
    assert simulated(1, 0.05, responses=4000).code == "between"


def test_a_common_drift_is_no_spread() -> None:
    assert simulated(2, 0.0, drift=-3.0).exponent.value == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("longest", "responses"), [(60, 600), (1000, 40)])
def test_it_cannot_tell_without_a_spread_of_lengths_or_responses(longest: int, responses: int) -> None:
    found = simulated(3, 0.0, longest, responses)
    assert found.code == "cannot_tell"
    assert found.exponent.value is None
