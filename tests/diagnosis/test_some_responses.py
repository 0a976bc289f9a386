"""Responses of which some are off: by how they are, and by what a column says of them."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.diagnosis.detectors.grouping import metadata
from mismatchscope.diagnosis.detectors.routing import some_responses
from mismatchscope.diagnosis.peeling import peel
from mismatchscope.diagnosis.sample import Sample
from tests.support.random_policies import FINE, LENGTH, SEQUENCES, Pair


def unrelated(seed: int, spared: float, spread: float) -> Sample:
    """Every third response is scored by a policy of its own, all but this share of its tokens."""
    pair = Pair(seed)
    pi_N = pair.scored()
    off_N = (pair.sequence_N % 3 == 0) & (pair.rng.random(len(pi_N)) >= spared)
    less_N = 5 * np.exp(pair.rng.normal(0, spread, len(pi_N))) * (1 - np.exp(pi_N))
    return Sample.of(pair.evidence(np.where(off_N, pi_N - less_N, pi_N)))


@pytest.mark.parametrize("seed", range(3))
def test_what_spares_some_tokens_is_seen_by_attention(seed: int) -> None:
    found = some_responses(unrelated(seed, spared=0.4, spread=0.8))
    assert found is not None and found.causes == ("packing",)


@pytest.mark.parametrize("seed", range(3))
def test_what_spares_none_may_be_the_experts_of_another_row(seed: int) -> None:
    found = some_responses(unrelated(seed, spared=0.0, spread=0.1))
    assert found is not None and found.causes == ("packing", "routing_replay")


def padded(padding_S: np.ndarray, size: float) -> Sample:
    pair = Pair(7, FINE)
    off_N = size * np.sqrt(padding_S / padding_S.max())[pair.sequence_N]
    return Sample.of(pair.evidence(pair.off(off_N), metadata={"padding": padding_S}))


def test_one_row_without_padding_is_enough_where_the_others_have_more_the_farther_they_are_off() -> None:
    padding_S = np.arange(SEQUENCES)[::-1] % 20 + 1
    padding_S[4] = 0
    found = metadata(padded(padding_S, 0.6))
    assert found is not None and found.causes == ("padding",)


def test_two_rows_by_chance_are_not() -> None:
    """Nothing grows with the padding: that two rows without any are sound says little."""
    pair = Pair(8, FINE)
    padding_S = pair.rng.permutation(np.arange(SEQUENCES) % 20 + 1)
    padding_S[[4, 9]] = 0
    off_N = np.where(np.isin(pair.sequence_N, [4, 9]), 0.0, 0.4)
    found = metadata(Sample.of(pair.evidence(pair.off(off_N), metadata={"padding": padding_S})))
    assert found is None or (found.false_alarm is not None and found.false_alarm <= 5e-4)


@pytest.mark.parametrize("places", [(3, 10), (20, 30), (LENGTH - 6, LENGTH - 2)])
def test_a_temperature_beside_text_that_was_tokenised_again_is_found(places: tuple[int, int]) -> None:
    """In every other response the column is moved from a token on, here and there next to either end."""
    pair = Pair(12, FINE)
    pi_SL = pair.scored(temperature=1.1).reshape(SEQUENCES, LENGTH)
    for sequence in range(0, SEQUENCES, 2):
        place = int(pair.rng.integers(*places)) if sequence % 4 else LENGTH // 2
        pi_SL[sequence, place:] = np.roll(pi_SL[sequence, place:], 1)
    found = {cause for finding in peel(pair.evidence(pi_SL.ravel())).findings for cause in finding.causes}
    assert found == {"retokenised", "temperature"}
