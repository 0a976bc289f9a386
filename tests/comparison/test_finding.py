"""The sentence that an audit ends with: when is each of them true?"""

from __future__ import annotations

import pytest

from mismatchscope.comparison.finding import finding_of
from mismatchscope.measures.results import Alpha, Interval
from mismatchscope.reports.document import Counts, Finding, Floor, Floors

COUNTS = Counts(prompts=3, sequences=6, tokens=1200)
ALPHA = Alpha(observed_max=0.25, mean=Interval(0.02, 0.015, 0.025))


def found(floors: Floors, alpha: Alpha = ALPHA, *, identical: bool = False) -> Finding:
    return finding_of(alpha, floors, COUNTS, identical=identical)


def floors_with(excess: Interval | None, behavior: float | None = 0.004, reference: float | None = 0.002) -> Floors:
    def floor(mean: float | None) -> Floor:
        return Floor(observed_max=0.01, mean=Interval(mean), identical=False)

    return Floors(behavior=floor(behavior), reference=floor(reference), excess=excess)


@pytest.mark.parametrize(
    ("low", "code"), [(1e-12, "above_floor"), (0.0, "within_floor"), (-1e-12, "within_floor"), (None, "unresolved")]
)
def test_only_an_interval_wholly_above_0_is_above_the_floor(low: float | None, code: str) -> None:
    assert found(floors_with(Interval(0.016, low, 0.03))).code == code


@pytest.mark.parametrize(
    ("excess", "reason"),
    [
        (None, "Cannot be paired"),
        (Interval(0.016, n=400, clusters=1), "Too few prompts"),
        (Interval(0.016, n=1200, clusters=3), "All prompts are as far"),
    ],
)
def test_an_excess_without_an_interval_resolves_nothing_and_says_why(excess: Interval | None, reason: str) -> None:
    unresolved = found(floors_with(excess))
    assert unresolved.code == "unresolved"
    assert unresolved.sentence.startswith(reason) and "the repeat floor of 0.00400" in unresolved.sentence


def test_without_a_floor_there_is_none_to_compare_with() -> None:
    assert found(Floors()).code == "no_floor"
    # A floor whose mean the evidence does not give is no floor either.
    assert found(floors_with(None, None, None)).code == "no_floor"


def test_identical_traces_are_that_whatever_the_floor() -> None:
    for floors in (Floors(), floors_with(Interval(0.016, 0.01, 0.03))):
        assert found(floors, identical=True).code == "identical"


def test_the_excess_is_told_in_multiples_of_the_larger_floor() -> None:
    sentence = found(floors_with(Interval(0.016, 0.01, 0.02))).sentence
    assert sentence.startswith("Above the repeat floor of 0.00400, 5 times it: mean TV 0.0200 [0.0150, 0.0250]")
    assert "α₁ ≥ 0.250" in sentence
    assert "5 times it" in found(floors_with(Interval(0.016, 0.01, 0.02), 0.002, 0.004)).sentence


def test_a_floor_of_identical_repeats_has_no_multiples() -> None:
    sentence = found(floors_with(Interval(0.02, 0.01, 0.03), 0.0, 0.0)).sentence
    assert "repeats are identical" in sentence and "times" not in sentence


def test_every_sentence_says_of_how_much_it_speaks() -> None:
    cases = [
        Floors(),
        floors_with(None),
        floors_with(Interval(0.0, -1.0, 1.0)),
        floors_with(Interval(1.0, 0.5, 2.0)),
    ]
    for floors in cases:
        for identical in (True, False):
            assert found(floors, identical=identical).sentence.endswith("(1,200 tokens of 3 prompts).")


def test_a_mean_that_the_evidence_does_not_give_is_no_number() -> None:
    unknown = Alpha(observed_max=0.25, mean=Interval(None))
    for floors in (Floors(), floors_with(Interval(0.0, -1.0, 1.0)), floors_with(Interval(1.0, 0.5, 2.0))):
        sentence = found(floors, unknown).sentence
        assert "not measurable from this evidence" in sentence and "None" not in sentence
