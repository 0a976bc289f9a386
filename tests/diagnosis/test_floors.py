"""What counts as the floor where none was measured, and what may be said then."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.diagnosis.peeling import peel
from mismatchscope.diagnosis.results import diagnose
from mismatchscope.diagnosis.sample import PRIOR, WIDEST
from tests.support.random_policies import LENGTH, SEQUENCES, VOCABULARY, Pair, log_softmax


@pytest.mark.parametrize("rounding", [0.02, 0.03, 0.05])
@pytest.mark.parametrize("seed", range(5))
def test_a_sound_pair_of_unknown_floor_is_never_called_a_fault(rounding: float, seed: int) -> None:
    """Some engines round more than others: what a gap of up to `WIDEST` priors is cannot be known."""
    pair = Pair(seed, rounding)
    causes, answer = diagnose(pair.evidence(pair.scored(), floor=None))
    assert answer.code in ("ordinary_rounding", "cannot_tell")
    assert all(each.cause == "ordinary_rounding" for each in causes)


def test_what_no_rounding_makes_is_called_so_without_a_floor() -> None:
    pair = Pair(1)
    _, answer = diagnose(pair.evidence(pair.off(20 * WIDEST * PRIOR), floor=None))
    assert answer.code not in ("ordinary_rounding", "cannot_tell")


def test_the_quieter_responses_are_the_floor_of_those_that_are_off() -> None:
    pair = Pair(2, rounding=0.04)
    off_N = np.repeat(np.arange(SEQUENCES) % 4 == 0, LENGTH)
    floor = peel(pair.evidence(pair.off(np.where(off_N, 1.0, 0.0)), floor=None)).sample.floor
    assert floor.source == "quiet part" and PRIOR < floor.value < 1.5 * pair.rounding


def test_responses_that_agree_as_float32_does_are_no_pair_of_16_bits() -> None:
    """Of unknown dtypes: the others' gap, which 16 bits could make, is none of rounding then."""
    pair = Pair(3, rounding=1e-6)
    off_N = np.repeat(np.arange(SEQUENCES) % 4 == 0, LENGTH)
    sample = peel(pair.evidence(pair.off(np.where(off_N, 0.02, 0.0)), floor=None)).sample
    assert sample.floor.value < 1e-5
    _, answer = diagnose(sample.evidence)
    assert answer.code not in ("ordinary_rounding", "cannot_tell")


def padded(pair: Pair) -> np.ndarray:
    """Ids beyond the vocabulary have a thousandth of the mass, a few times more or less of it by the state."""
    more_N1 = np.exp(pair.rng.normal(scale=0.6, size=(len(pair.token_N), 1)))
    return log_softmax(pair.rounded()) - np.log1p(1e-3 * more_N1)


def nucleus(pair: Pair) -> np.ndarray:
    """μ lacks the least of its ids, which together have up to a thousandth."""
    order_NV = np.argsort(pair.mu_NV, axis=1)
    sum_NV = np.exp(np.take_along_axis(pair.mu_NV, order_NV, 1)).cumsum(1)
    cut_NV = np.take_along_axis(sum_NV, np.argsort(order_NV, 1), 1) < 1e-3
    pair.mu_NV = log_softmax(np.where(cut_NV, -np.inf, pair.mu_NV))
    pair.draw()
    return log_softmax(pair.rounded())


FAULTS = {
    "padded_vocabulary": padded,
    "truncation": nucleus,
    "temperature": lambda pair: log_softmax(pair.rounded() / 1.01),
    "head": lambda pair: log_softmax(pair.rounded() + pair.rng.normal(0, 0.01, VOCABULARY)),
}


@pytest.mark.parametrize("cause", FAULTS)
def test_a_fault_at_every_state_is_named_without_a_floor(cause: str) -> None:
    """Its responses are all alike, so that none is quieter; what it is a function of tells it from rounding."""
    pair = Pair(6, rounding=1e-5)
    pi_NV = FAULTS[cause](pair)
    named, answer = diagnose(pair.evidence(pair.of_sampled(pi_NV), floor=None))
    assert answer.code in ("cause", "set") and named[0].cause == cause


def test_a_gap_that_16_bits_could_make_and_nothing_says_they_do_cannot_be_told() -> None:
    pair = Pair(4, rounding=0.01)
    _, answer = diagnose(pair.evidence(pair.scored(), floor=None))
    assert answer.code == "cannot_tell" and "third party" in answer.next


def test_a_floor_that_was_measured_stays() -> None:
    pair = Pair(5, rounding=0.05)
    evidence = pair.evidence(pair.scored())
    assert peel(evidence).sample.floor == evidence.floor
