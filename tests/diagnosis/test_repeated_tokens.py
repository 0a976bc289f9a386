"""What sampled tokens tell of a penalty on repetition: new tokens are moved one way, repeated ones the other."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.diagnosis.detectors.sampler import log_odds
from mismatchscope.diagnosis.sample import Sample
from mismatchscope.diagnosis.statistics.seen_ids import repeated_apart
from tests.support.random_policies import FINE, LENGTH, VOCABULARY, Pair, log_softmax


def seen_NV(pair: Pair) -> np.ndarray:
    """Ids that came before each token in its response."""
    found = np.zeros((len(pair.token_N), VOCABULARY), dtype=bool)
    for n in range(1, len(found)):
        if n % LENGTH:
            found[n] = found[n - 1]
            found[n, pair.token_N[n - 1]] = True
    return found


def penalised(factor: float, seed: int = 14) -> Sample:
    pair = Pair(seed, FINE)
    logp_NV = log_softmax(pair.rounded())
    pi_NV = log_softmax(np.where(seen_NV(pair), factor * logp_NV, logp_NV))
    return Sample.of(pair.evidence(pair.of_sampled(pi_NV)))


@pytest.mark.parametrize("factor", [1.05, 1.3, 0.9])
def test_a_penalty_moves_new_and_repeated_tokens_apart(factor: float) -> None:
    sample = penalised(factor)
    found = repeated_apart(sample)
    assert found is not None and found.new.value is not None and found.again.value is not None
    assert found.new.value > 0.72 and found.again.value < 0.65 and found.t > 2.5
    named = log_odds(sample)
    assert named is not None and named.causes == ("penalty",)


@pytest.mark.parametrize("temperature", [0.9, 1.2])
def test_a_temperature_is_none(temperature: float) -> None:
    pair = Pair(9, FINE)
    named = log_odds(Sample.of(pair.evidence(pair.scored(temperature))))
    assert named is not None and named.causes == ("temperature",)


def test_rounding_moves_both_either_way() -> None:
    pair = Pair(3)
    found = repeated_apart(Sample.of(pair.evidence(pair.scored())))
    assert found is not None and found.new.value == pytest.approx(0.5, abs=0.08)
    assert found.again.value == pytest.approx(0.5, abs=0.08) and abs(found.t) < 4
