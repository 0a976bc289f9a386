"""What counts as the floor where none was measured, and what may be said then."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.diagnosis.peeling import peel
from mismatchscope.diagnosis.results import diagnose
from mismatchscope.diagnosis.sample import PRIOR, WIDEST
from tests.support.random_policies import LENGTH, SEQUENCES, Pair


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


def test_a_gap_that_16_bits_could_make_and_nothing_says_they_do_cannot_be_told() -> None:
    pair = Pair(4, rounding=0.01)
    _, answer = diagnose(pair.evidence(pair.scored(), floor=None))
    assert answer.code == "cannot_tell" and "third party" in answer.next


def test_a_floor_that_was_measured_stays() -> None:
    pair = Pair(5, rounding=0.05)
    evidence = pair.evidence(pair.scored())
    assert peel(evidence).sample.floor == evidence.floor
