"""What the order of the responses of a log tells where no column has their steps."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.diagnosis.detectors.grouping import from_a_response_on
from mismatchscope.diagnosis.sample import Sample
from mismatchscope.diagnosis.statistics.order import onset
from tests.support.random_policies import SEQUENCES, Pair

FIRST = 13
ALARMS, TRIALS = 4, 200


def off_by(size_S: np.ndarray, seed: int = 1, **facts: object) -> Sample:
    """Responses with a z of these standard deviations beside rounding."""
    pair = Pair(seed)
    return Sample.of(pair.evidence(pair.off(size_S[pair.sequence_N])).but(**{"in_order": True, **facts}))


def from_on(size: float) -> np.ndarray:
    return np.where(np.arange(SEQUENCES) >= FIRST, size, 0.0)


@pytest.mark.parametrize("size", [0.1, 0.5])
def test_weights_that_were_left_behind_are_off_alike_from_a_response_on(size: float) -> None:
    found = from_a_response_on(off_by(from_on(size)))
    assert found is not None and found.causes == ("stale_weights",)
    assert f"before {FIRST}," in found.why and len(found.sequences) > 0
    assert found.false_alarm is not None and found.false_alarm < 1e-3


def test_an_adapter_grows_from_a_response_on() -> None:
    found = from_a_response_on(off_by(0.5 * np.maximum(np.arange(SEQUENCES) - FIRST + 1.0, 0) / SEQUENCES))
    assert found is not None and found.causes == ("adapter",)


def test_the_place_is_where_it_was_planted() -> None:
    found = onset(off_by(from_on(0.5)))
    assert found is not None and found.first == FIRST and not found.high_S[:FIRST].any()


def test_nothing_is_said_of_sequences_in_no_order() -> None:
    assert from_a_response_on(off_by(from_on(0.5), in_order=False)) is None


def test_a_column_of_steps_is_asked_instead() -> None:
    assert from_a_response_on(off_by(from_on(0.5), metadata={"step": np.arange(SEQUENCES) // 4})) is None


def test_a_column_that_changes_there_may_be_what_makes_the_gap() -> None:
    environment_S = np.where(np.arange(SEQUENCES) >= FIRST, "agents", "sums")
    assert from_a_response_on(off_by(from_on(0.5), metadata={"environment": environment_S})) is None
    mixed_S = np.where(np.arange(SEQUENCES) % 2, "agents", "sums")
    assert from_a_response_on(off_by(from_on(0.5), metadata={"environment": mixed_S})) is not None


@pytest.mark.slow
def test_responses_that_are_off_here_and_there_have_no_beginning() -> None:
    """Those of one worker, say: by chance few of many such logs look like one that was left behind."""
    rng = np.random.default_rng(0)
    alarms = 0
    for seed in range(TRIALS):
        chosen_S = rng.random(SEQUENCES) < 0.4
        alarms += from_a_response_on(off_by(np.where(chosen_S, 0.5, 0.0), seed)) is not None
    assert alarms <= ALARMS


def test_prompts_whose_responses_stand_together_are_one_unit() -> None:
    """Four prompts of ten responses have too few orders to say anything."""
    assert onset(off_by(from_on(0.5), prompt_S=np.arange(SEQUENCES) // 10)) is None
