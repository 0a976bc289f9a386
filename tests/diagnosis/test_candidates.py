"""Candidates that are scored again: the one that was planted closes the gap, and no other does."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.diagnosis.candidates import Candidate, Family, closing, fitted, tried
from mismatchscope.diagnosis.evidence import Array, Floor, TokenEvidence
from mismatchscope.diagnosis.sample import Sample
from mismatchscope.diagnosis.statistics.size import gap

SEQUENCES, LENGTH, VOCABULARY, FLOOR = 24, 32, 50, 0.02
RNG = np.random.default_rng(3)
LOGITS_NV = RNG.normal(0, 2, (SEQUENCES * LENGTH, VOCABULARY))
TOKEN_N = np.array([RNG.choice(VOCABULARY, p=np.exp(row - np.logaddexp.reduce(row))) for row in LOGITS_NV])
NOISE_N = FLOOR * RNG.normal(size=SEQUENCES * LENGTH)


def logp(logits_NV: Array) -> Array:
    normalised_NV = logits_NV - np.logaddexp.reduce(logits_NV, axis=1, keepdims=True)
    return normalised_NV[np.arange(len(TOKEN_N)), TOKEN_N]


def at_temperature(temperature: float) -> Array:
    return logp(LOGITS_NV / temperature)


def with_bias(bias: float) -> Array:
    """Another fault of one number: the lower half of the ids is likelier."""
    return logp(LOGITS_NV + bias * (np.arange(VOCABULARY) < VOCABULARY / 2))


def evidence(mu_N: Array) -> TokenEvidence:
    """μ as it is given, with rounding, against the sound policy; the floor was measured."""
    number_N = np.arange(len(TOKEN_N))
    p_N = np.exp(mu_N)
    return TokenEvidence(
        mu_N + NOISE_N * (1 - p_N),
        logp(LOGITS_NV),
        number_N // LENGTH,
        number_N % LENGTH,
        np.arange(SEQUENCES),
        floor=Floor(FLOOR, "repeat"),
    )


FAMILIES = {
    "temperature": Family("temperature", "temperature", (0.5, 0.8, 1.25, 2.0)),
    "head": Family("head", "bias", (0.01, 0.1, 1.0)),
}
SCORES = {
    "temperature": lambda candidate: at_temperature(candidate.value),
    "head": lambda candidate: with_bias(candidate.value),
}


@pytest.mark.parametrize("planted", [0.9, 0.97, 1.04, 1.3])
def test_the_number_that_was_planted_is_found_and_no_other_cause_closes_the_gap(planted: float) -> None:
    seen = evidence(at_temperature(planted))
    before = gap(Sample.of(seen))
    candidates = [fitted(seen, family, SCORES[cause]) for cause, family in FAMILIES.items()]
    (best,) = closing(before, candidates, measured=True)
    assert best.candidate.cause == "temperature"
    assert best.candidate.value == pytest.approx(planted, rel=0.01)
    assert best.left.value == pytest.approx(1.0, abs=0.15)


def test_a_gap_of_another_cause_is_closed_by_no_candidate() -> None:
    seen = evidence(with_bias(0.4))
    found = fitted(seen, FAMILIES["temperature"], SCORES["temperature"])
    assert closing(gap(Sample.of(seen)), [found], measured=True) == []


def test_without_a_floor_a_gap_is_closed_only_where_a_tenth_is_left() -> None:
    seen = evidence(at_temperature(1.05))
    found = fitted(seen, FAMILIES["temperature"], SCORES["temperature"])
    before = gap(Sample.of(seen))
    assert before.value is not None and before.value < 10
    assert closing(before, [found], measured=True)
    assert not closing(before, [found], measured=False)


def test_candidates_that_are_as_good_are_not_told_apart() -> None:
    seen = evidence(at_temperature(1.3))
    twins = [
        tried(seen, Candidate(cause, cause), lambda candidate: at_temperature(1.3)) for cause in ("rope", "norm")
    ]
    assert [each.candidate.cause for each in closing(gap(Sample.of(seen)), twins, measured=True)] == [
        "rope",
        "norm",
    ]


def test_a_sound_pair_has_nothing_to_close() -> None:
    seen = evidence(logp(LOGITS_NV))
    found = fitted(seen, FAMILIES["temperature"], SCORES["temperature"])
    assert closing(gap(Sample.of(seen)), [found], measured=True) == []
