"""The course of the distance of two distributions along the sequence, and the cause that it tells."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mismatchscope.diagnosis.detectors.attention import course_of_the_levels
from mismatchscope.diagnosis.evidence import Array
from mismatchscope.diagnosis.sample import Sample
from mismatchscope.diagnosis.statistics.levels import levels
from tests.support.random_policies import SEQUENCES, Pair, log_softmax

PROMPT = 10


def apart(level_of: Callable[[Array, np.random.Generator], Array], seed: int = 1) -> Sample:
    """Logits that are off by so much at each token, at random over the ids."""
    pair = Pair(seed, rounding=1e-4)
    level_N = level_of(pair.position_N, pair.rng)
    logits_NV = pair.rounded() + level_N[:, None] * pair.rng.normal(size=pair.logits_NV.shape)
    return Sample.of(pair.top(log_softmax(logits_NV)).but(prompt_length_S=np.full(SEQUENCES, PROMPT)))


def spread(rng: np.random.Generator, count: int, by: float) -> Array:
    return np.exp(by * rng.normal(size=count))


def of_eight_bits(position_N: Array, rng: np.random.Generator) -> Array:
    return 0.03 * spread(rng, len(position_N), 0.6)


def of_a_sink(position_N: Array, rng: np.random.Generator) -> Array:
    first_N = np.where(position_N == 0, 0.4, 1.0)
    return 0.25 * first_N * (position_N + PROMPT) ** -0.7 * spread(rng, len(position_N), 0.8)


def of_another_beginning(position_N: Array, rng: np.random.Generator) -> Array:
    return 2.0 * (position_N + PROMPT) ** -0.7 * spread(rng, len(position_N), 0.8)


@pytest.mark.parametrize(
    ("level_of", "cause"),
    [(of_eight_bits, "fp8_weights"), (of_a_sink, "attention_scale"), (of_another_beginning, "context")],
)
def test_a_course_tells_its_cause(level_of: Callable[..., Array], cause: str) -> None:
    found = course_of_the_levels(apart(level_of))
    assert found is not None
    assert found.causes == (cause,)


def test_rounding_has_no_course() -> None:
    assert course_of_the_levels(apart(lambda position_N, rng: np.zeros(len(position_N)))) is None


@pytest.mark.parametrize("exponent", [-0.5, 0.0, 1.0])
def test_the_exponent_is_the_one_that_was_planted(exponent: float) -> None:
    sample = apart(lambda position_N, rng: 0.05 * ((position_N + PROMPT + 1.0) / PROMPT) ** exponent)
    found = levels(sample)
    assert found is not None
    assert found.exponent == pytest.approx(exponent, abs=0.05)
