"""The sentence that an audit ends with: when is each of them true?"""

from __future__ import annotations

import re

import pytest

from mismatchscope.comparison.finding import finding_of
from mismatchscope.measures.excess import Excess
from mismatchscope.measures.results import Alpha, Interval
from mismatchscope.reports.document import Counts, Finding, Floor, Floors

COUNTS = Counts(prompts=3, sequences=6, tokens=1200)
ALPHA = Alpha(observed_max=0.25, mean=Interval(0.02, 0.015, 0.025))
ABOVE = Excess(Interval(0.016, 0.01, 0.02, clusters=3), 0.002, above=True, within=False, needed_clusters=None)
WITHIN = Excess(Interval(0.001, -0.001, 0.0015, clusters=3), 0.002, above=False, within=True, needed_clusters=None)
NEITHER = Excess(Interval(0.016, -0.01, 0.04, clusters=3), 0.002, above=False, within=False, needed_clusters=1234)
NO_FLOOR = Excess(Interval(0.016, -0.01, 0.04, clusters=3), 0.0, above=False, within=False, needed_clusters=None)


def found(
    floors: Floors,
    excess: Excess | None = None,
    alpha: Alpha = ALPHA,
    *,
    identical: bool = False,
    deterministic: bool | None = None,
) -> Finding:
    if deterministic is None:
        deterministic = floors == EXACT_REPEATS
    return finding_of(alpha, floors, excess, COUNTS, identical=identical, deterministic=deterministic)


def floor(mean: float | None, *, identical: bool = False) -> Floor:
    return Floor(observed_max=0.01, mean=Interval(mean), identical=identical)


BOTH = Floors(behavior=floor(0.004), reference=floor(0.002))
EXACT_REPEATS = Floors(behavior=floor(0.0, identical=True), reference=floor(0.0, identical=True))
ONE_SIDE = Floors(behavior=floor(0.0, identical=True))


@pytest.mark.parametrize(
    ("excess", "code"), [(ABOVE, "above_floor"), (WITHIN, "within_floor"), (NEITHER, "unresolved")]
)
def test_neither_above_nor_within_is_unresolved(excess: Excess, code: str) -> None:
    finding = found(BOTH, excess)
    assert (finding.code, finding.margin) == (code, 0.002)


def test_what_is_unresolved_says_how_many_prompts_would_likely_decide() -> None:
    finding = found(BOTH, NEITHER)
    assert finding.prompts_needed == 1234
    assert "about 1,234 prompts would likely decide" in finding.sentence
    assert "Neither above the repeat floor of 0.00400 nor within a margin of 0.00200 of it" in finding.sentence
    assert found(BOTH, WITHIN).prompts_needed is None


def test_a_claim_of_equality_says_its_margin() -> None:
    sentence = found(BOTH, WITHIN).sentence
    assert sentence.startswith("Within the repeat floor of 0.00400, to a margin of 0.00200 (0.500 of it)")
    assert "the excess is 0.0010 [-0.0010, 0.0015]" in sentence


@pytest.mark.parametrize("excess", [NO_FLOOR, ABOVE, None])
def test_identical_repeats_of_both_sides_make_any_difference_certain(excess: Excess | None) -> None:
    """However wide the interval is, and without one."""
    finding = found(EXACT_REPEATS, excess)
    assert finding.code == "above_floor"
    assert finding.sentence.startswith("Above the repeat floor: repeats are bit-identical, and μ and π are not")


def test_what_is_above_and_small_is_above() -> None:
    both = Excess(Interval(0.001, 0.0005, 0.0015, clusters=3), 0.002, above=True, within=True, needed_clusters=None)
    assert found(BOTH, both).code == "above_floor"


def test_identical_repeats_of_one_side_prove_nothing_of_the_other() -> None:
    finding = found(ONE_SIDE, NO_FLOOR)
    assert finding.code == "unresolved"
    assert finding.sentence.startswith("Not shown to be above the repeat floor (μ alone), which is 0")
    assert "cannot be told" in finding.sentence and finding.prompts_needed is None


@pytest.mark.parametrize(
    ("difference", "reason"),
    [
        (None, "Cannot be paired"),
        (Interval(0.016, n=400, clusters=1), "Too few prompts"),
        (Interval(0.016, n=1200, clusters=3), "All prompts are as far"),
    ],
)
def test_an_excess_without_an_interval_resolves_nothing_and_says_why(
    difference: Interval | None, reason: str
) -> None:
    excess = None if difference is None else Excess(difference, 0.002, False, False, None)
    unresolved = found(BOTH, excess)
    assert unresolved.code == "unresolved"
    assert unresolved.sentence.startswith(reason) and "the repeat floor of 0.00400" in unresolved.sentence


def test_without_a_floor_there_is_none_to_compare_with() -> None:
    assert found(Floors()).sentence.startswith("No repeat floor was measured")
    # A floor whose mean the evidence does not give is no floor either; but it was measured.
    unknown = found(Floors(behavior=floor(None), reference=floor(None)))
    assert (found(Floors()).code, unknown.code, unknown.margin) == ("no_floor", "unresolved", None)
    assert "does not give the mean TV of the repeats" in unknown.sentence


def test_identical_traces_are_that_whatever_the_floor() -> None:
    for floors, excess in ((Floors(), None), (BOTH, ABOVE)):
        assert found(floors, excess, identical=True).code == "identical"


def test_the_mismatch_is_told_in_multiples_of_the_larger_floor() -> None:
    sentence = found(BOTH, ABOVE).sentence
    assert sentence.startswith("Above the repeat floor of 0.00400, 5 times it: mean TV 0.0200 [0.0150, 0.0250]")
    assert "α₁ ≥ 0.250" in sentence
    other = Floors(behavior=floor(0.002), reference=floor(0.004))
    assert "5 times it" in found(other, ABOVE).sentence


def test_a_floor_of_nothing_has_no_multiples() -> None:
    sentence = found(ONE_SIDE, ABOVE).sentence
    assert "which is 0" in sentence and "times" not in sentence


def test_every_sentence_says_of_how_much_it_speaks() -> None:
    cases = [(Floors(), None), (BOTH, None), (BOTH, NEITHER), (BOTH, WITHIN), (BOTH, ABOVE), (EXACT_REPEATS, None)]
    for floors, excess in cases:
        for identical in (True, False):
            sentence = found(floors, excess, identical=identical).sentence
            assert sentence.endswith("(1,200 tokens of 3 prompts).")


@pytest.mark.parametrize(
    ("mean", "said"),
    [
        (Interval(None), "mean TV not measurable from this evidence"),
        (Interval(None, 0.01), "mean TV ≥ 0.0100"),
        (Interval(None, 0.01, 0.8), "mean TV 0.0100 – 0.800"),
    ],
)
def test_a_mean_that_the_evidence_does_not_give_is_no_number(mean: Interval, said: str) -> None:
    unknown = Alpha(observed_max=0.25, mean=mean)
    for floors, excess in ((Floors(), None), (BOTH, NEITHER), (EXACT_REPEATS, None)):
        sentence = found(floors, excess, unknown).sentence
        assert said in sentence and "None" not in sentence


def test_identical_repeats_of_a_part_make_nothing_certain() -> None:
    finding = found(EXACT_REPEATS, deterministic=False)
    assert finding.code == "unresolved"
    assert finding.sentence.startswith("Cannot be paired by prompt with the repeat floor, which is 0: ")


@pytest.mark.parametrize("low", [None, -0.01, 0.01])
@pytest.mark.parametrize("needed", [None, 1, 59])
@pytest.mark.parametrize(("behavior", "reference"), [(None, None), (0.0, None), (None, 0.01), (0.01, 0.02)])
@pytest.mark.parametrize("paired", [True, False])
def test_every_finding_is_a_whole_sentence(
    low: float | None, needed: int | None, behavior: float | None, reference: float | None, paired: bool
) -> None:
    """A capital, one full stop, no placeholder, no empty place and no `1 prompts`."""
    sides = [None if noise is None else floor(noise) for noise in (behavior, reference)]
    difference = Interval(0.016, low, None if low is None else 0.04, clusters=3)
    above = low is not None and low > 0
    excess = Excess(difference, 0.01, above=above, within=False, needed_clusters=needed) if paired else None
    sentence = found(Floors(behavior=sides[0], reference=sides[1]), excess).sentence
    assert re.fullmatch(r"[A-Z].*[^.]\.", sentence)
    assert not re.search(r"None|nan|[{}]|  |\b1 \w+s\b", sentence)
