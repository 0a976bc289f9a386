"""Candidates that are scored again: the one that was planted closes the gap, and no other does."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.diagnosis.candidates import Candidate, Family, closing, tried
from mismatchscope.diagnosis.evidence import Array, Floor, TokenEvidence
from mismatchscope.diagnosis.fitting import fitted
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
    "temperature": Family("temperature", "temperature", (0.5, 0.8, 1.25, 2.0), own=1.0),
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


def test_without_a_measured_floor_more_of_the_gap_has_to_fall() -> None:
    seen = evidence(at_temperature(1.015))
    found = fitted(seen, FAMILIES["temperature"], SCORES["temperature"])
    before = gap(Sample.of(seen))
    assert before.value is not None and 1.4 < before.value < 2.8
    assert closing(before, [found], measured=True)
    assert not closing(before, [found], measured=False)


def test_a_whole_number_is_found_between_the_values_of_a_grid() -> None:
    def windowed(candidate: Candidate) -> Array:
        assert candidate.value == round(candidate.value or 0)
        return with_bias((candidate.value - 37) / 40 + 0.4)

    seen = evidence(with_bias(0.4))
    found = fitted(seen, Family("window", "window", (8, 16, 32, 64, 128), whole=True), windowed)
    assert found.candidate.value == 37


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


def test_a_fit_that_finds_nothing_ends_early_and_one_that_does_ends_near() -> None:
    seen, counts = evidence(at_temperature(0.9)), {"temperature": 0, "head": 0}

    def counted(candidate: Candidate) -> Array:
        counts[candidate.cause] += 1
        return SCORES[candidate.cause](candidate)

    right, wrong = (fitted(seen, family, counted) for family in FAMILIES.values())
    assert counts["head"] < counts["temperature"] <= 4 + 10
    assert right.candidate.value == pytest.approx(0.9, rel=0.01)
    assert wrong.left.value is not None and wrong.left.value > 5


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (13_100.0, "rope_theta = 13,100"),
        (0.7, "rope_theta = 0.7"),
        (1e-5, "rope_theta = 1e-05"),
        (None, "rope_theta"),
    ],
)
def test_a_number_is_shown_as_a_person_writes_it(value: float | None, text: str) -> None:
    assert str(Candidate("rope", "rope_theta", value)) == text


def test_a_number_whose_effect_grows_with_itself_is_found_from_a_grid_of_decades() -> None:
    """Its logarithm is far from the least of any parabola through the grid."""
    seen = evidence(with_bias(0.003 * 100))
    family = Family("norm", "epsilon", (1e-8, 1e-6, 1e-5, 1e-4, 1e-2, 1.0))
    found = fitted(seen, family, lambda candidate: with_bias((candidate.value or 0) * 100))
    assert found.candidate.value == pytest.approx(0.003, rel=0.1)
    assert [each.candidate.cause for each in closing(gap(Sample.of(seen)), [found], measured=True)] == ["norm"]


def test_the_same_bits_close_a_gap() -> None:
    seen = evidence(at_temperature(1.3))
    same = tried(seen, Candidate("context", "BOS added"), lambda candidate: seen.logp_mu_N)
    assert same.left.value == 0
    assert closing(gap(Sample.of(seen)), [same], measured=False) == [same]
