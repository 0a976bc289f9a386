"""Shapes: N states, V vocabulary."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures.temperature import temperature_at_equal_entropy


def sampled(
    rng: np.random.Generator, temperature: float, error: float = 0.02, states: int = 4000, vocabulary: int = 200
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tokens drawn by μ at a temperature: log μ, log π, the entropy of π, and the prompt, [N] each."""
    prompt_N = np.arange(states) // 50
    sharpness_N = np.exp(0.5 * rng.normal(1.0, 0.45, states // 50)[prompt_N] + rng.normal(0.5, 0.5, states))
    logits_NV = sharpness_N[:, None] * rng.normal(size=(states, vocabulary))

    def log_softmax(value_NV: np.ndarray) -> np.ndarray:
        return value_NV - np.log(np.exp(value_NV).sum(axis=1, keepdims=True))

    mu_NV = log_softmax(logits_NV / temperature)
    pi_NV = log_softmax(logits_NV + error * rng.normal(size=logits_NV.shape))
    token_N = (mu_NV + rng.gumbel(size=mu_NV.shape)).argmax(axis=1)
    at = (np.arange(states), token_N)
    return mu_NV[at], pi_NV[at], -(np.exp(pi_NV) * pi_NV).sum(axis=1), prompt_N


@pytest.mark.parametrize("temperature", [0.6, 0.8, 0.9, 1.0, 1.2])
def test_the_temperature_is_found_to_some_per_cent(temperature: float) -> None:
    found = temperature_at_equal_entropy(*sampled(np.random.default_rng(1), temperature))
    assert found is not None and found.low is not None and found.high is not None
    assert found.value == pytest.approx(temperature, rel=0.04)
    assert found.low < found.value < found.high  # type: ignore[operator]
    assert found.high - found.low < 0.05
    assert found.clusters == 80


def test_the_slope_is_that_of_a_regression_with_a_level_for_each_bin() -> None:
    mu_N, pi_N, entropy_N, prompt_N = sampled(np.random.default_rng(2), 0.8, states=400)
    edges = np.quantile(entropy_N, np.linspace(0, 1, 33)[1:-1])
    dummies_NB = np.searchsorted(edges, entropy_N)[:, None] == np.arange(32)
    design = np.column_stack([pi_N, dummies_NB])
    slope = np.linalg.lstsq(design, mu_N, rcond=None)[0][0]
    found = temperature_at_equal_entropy(mu_N, pi_N, entropy_N, prompt_N)
    assert found is not None
    assert found.value == pytest.approx(1 / slope)


def test_too_little_says_nothing() -> None:
    mu_N, pi_N, entropy_N, prompt_N = sampled(np.random.default_rng(3), 0.8, states=100)
    assert temperature_at_equal_entropy(mu_N[:9], pi_N[:9], entropy_N[:9], prompt_N[:9]) is None
    assert temperature_at_equal_entropy(mu_N, np.full(100, -1.0), entropy_N, prompt_N) is None
    assert temperature_at_equal_entropy(mu_N, pi_N, entropy_N, np.zeros(100, dtype=int)) is None
    assert temperature_at_equal_entropy(mu_N, -pi_N, entropy_N, prompt_N) is None
