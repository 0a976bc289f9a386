"""Repeat floors: what repeating a side shows, and what of the mismatch lies above it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from synthetic_pair import make_pair
from written_traces import full_trace, pair_of, sampled_trace

from mismatchscope.comparison.compare_traces import compare
from mismatchscope.comparison.floors import NO_REPEATS, Repeats, measure_floors
from mismatchscope.engines.synthetic.policy import SyntheticOptions
from mismatchscope.records import Evidence, Sampling
from mismatchscope.traces import Trace

PROMPTS = 12
LENGTH_S = np.tile([3, 5, 4], 4)
TV_S = np.random.default_rng(0).uniform(0.02, 0.1, PROMPTS)
NOISE_S = np.random.default_rng(1).uniform(0.0, 0.01, PROMPTS)


def shifted(directory: Path, tv_S: np.ndarray, length_S: np.ndarray = LENGTH_S, **facts: object) -> Trace:
    """Whole distributions, (½ − TV, ½ + TV) at every state of a prompt: TV to the even one is exactly `tv_S`."""
    return full_trace(
        directory,
        [np.tile([0.5 - tv, 0.5 + tv], (length, 1)) for tv, length in zip(tv_S, length_S, strict=True)],
        **facts,
    )


@pytest.fixture
def mu(tmp_path: Path) -> Trace:
    return shifted(tmp_path / "mu", np.zeros(PROMPTS))


@pytest.fixture
def pi(tmp_path: Path) -> Trace:
    return shifted(tmp_path / "pi", TV_S, role="reference")


@pytest.mark.parametrize(
    ("seeds", "again", "expected"),
    [
        ({"sampling": 0}, {"sampling": 0, "shuffle": 1}, "reshuffled"),
        ({"sampling": 0}, {"sampling": 0}, "same"),
        ({}, {}, None),
    ],
)
def test_of_a_repeat_no_more_is_said_than_its_trace_states(
    tmp_path: Path, mu: Trace, seeds: dict[str, int], again: dict[str, int], expected: str | None
) -> None:
    pi = shifted(tmp_path / "pi", TV_S, role="reference", seeds=seeds)
    second = shifted(tmp_path / "pi-again", TV_S, role="reference", seeds=again)
    floor = measure_floors(pair_of(mu, pi), Repeats(reference=second), margin=0.5).floors.reference
    assert floor is not None
    assert floor.composition == expected


def test_without_repeats_there_is_no_floor(mu: Trace, pi: Trace) -> None:
    measured = measure_floors(pair_of(mu, pi), NO_REPEATS, margin=0.5)
    assert (measured.floors.behavior, measured.floors.reference, measured.floors.excess) == (None, None, None)
    assert measured.largest is None


def test_a_floor_is_the_side_against_its_own_repeat(tmp_path: Path, mu: Trace, pi: Trace) -> None:
    again = shifted(tmp_path / "pi-again", TV_S + NOISE_S, role="reference")
    floors = measure_floors(pair_of(mu, pi), Repeats(reference=again), margin=0.5).floors
    assert floors.behavior is None
    assert not floors.reference.identical
    assert floors.reference.observed_max == pytest.approx(NOISE_S.max(), abs=1e-6)
    assert floors.reference.mean.value == pytest.approx(np.average(NOISE_S, weights=LENGTH_S), abs=1e-6)
    p_S = np.array([0.5 - TV_S, 0.5 + TV_S])
    q_S = np.array([0.5 - TV_S - NOISE_S, 0.5 + TV_S + NOISE_S])
    kl_S = (p_S * np.log(p_S / q_S)).sum(axis=0)
    assert floors.reference.kl == pytest.approx(np.average(kl_S, weights=LENGTH_S), rel=1e-2)


def test_a_repeat_with_the_same_bits_is_identical(mu: Trace, pi: Trace) -> None:
    floors = measure_floors(pair_of(mu, pi), Repeats(behavior=mu), margin=0.5).floors
    assert floors.behavior.identical and floors.behavior.mean.value == 0.0
    assert floors.excess.value == pytest.approx(np.average(TV_S, weights=LENGTH_S), abs=1e-6)


def test_a_reference_with_the_same_bits_is_identical_at_the_ids_of_the_behaviour(tmp_path: Path) -> None:
    """What of π lies below μ's k-th probability bounds TV to μ, not to π itself."""
    made = make_pair(tmp_path, evidence=Evidence("topk", k=2), reference=SyntheticOptions(epsilon=2.0))
    pair = pair_of(made.behavior, made.reference)
    floors = measure_floors(pair, Repeats(reference=made.reference), margin=0.5).floors
    assert floors.reference.identical and floors.reference.observed_max == 0.0
    assert floors.reference.mean.value == 0.0


def test_the_excess_is_over_the_larger_floor_paired_by_prompt(tmp_path: Path, mu: Trace, pi: Trace) -> None:
    """Against a jackknife over prompts of the difference of the two means."""
    smaller = shifted(tmp_path / "mu-again", NOISE_S / 4)
    larger = shifted(tmp_path / "pi-again", TV_S + NOISE_S, role="reference")
    measured = measure_floors(pair_of(mu, pi), Repeats(behavior=smaller, reference=larger), margin=0.5)
    excess, difference_S = measured.floors.excess, TV_S - NOISE_S
    assert measured.largest.pi is larger
    value = np.average(difference_S, weights=LENGTH_S)
    assert (excess.value, excess.clusters, excess.n) == (pytest.approx(value, abs=1e-6), PROMPTS, LENGTH_S.sum())
    left_out = np.array(
        [np.average(np.delete(difference_S, c), weights=np.delete(LENGTH_S, c)) for c in range(PROMPTS)]
    )
    error = np.sqrt((PROMPTS - 1) / PROMPTS * ((left_out - left_out.mean()) ** 2).sum())
    # Hall's correction moves the ends; the width is Student's to first order.
    assert excess.high - excess.low == pytest.approx(2 * stats.t.ppf(0.975, PROMPTS - 1) * error, rel=0.2)


def test_what_both_have_in_common_cancels_by_prompt(tmp_path: Path, mu: Trace) -> None:
    """The noise is as spread as the mismatch, and the same 0.001 lies between them at every prompt."""
    pi = shifted(tmp_path / "pi", TV_S, role="reference")
    again = shifted(tmp_path / "mu-again", TV_S - 0.001)
    excess = measure_floors(pair_of(mu, pi), Repeats(behavior=again), margin=0.5).floors.excess
    assert excess.value == pytest.approx(0.001, abs=1e-6)
    assert excess.high - excess.low < 1e-5


@pytest.mark.parametrize(
    ("factor", "prompts", "code"), [(0.5, 12, "above_floor"), (1.5, 12, "unresolved"), (1.5, 60, "within_floor")]
)
def test_a_mismatch_is_above_a_smaller_floor_and_within_a_larger_one_of_enough_prompts(
    tmp_path: Path, factor: float, prompts: int, code: str
) -> None:
    tv_S, length_S = np.resize(TV_S, prompts), np.resize(LENGTH_S, prompts)
    mu, pi, again = (
        shifted(tmp_path / name, tv_S * share, length_S)
        for name, share in (("mu", 0), ("pi", 1), ("again", factor))
    )
    assert compare(mu, pi, repeats=Repeats(behavior=again)).finding.code == code


def test_a_few_prompts_apart_over_identical_repeats_are_no_noise(tmp_path: Path) -> None:
    """3 of 8 prompts differ by 0.5, and no repeat by a bit: nothing of that is chance."""
    tv_S, length_S = np.array([0.4, 0.4, 0.4, 0, 0, 0, 0, 0]), np.full(8, 4)
    mu, pi = shifted(tmp_path / "mu", np.zeros(8), length_S), shifted(tmp_path / "pi", tv_S, length_S)
    both = compare(mu, pi, repeats=Repeats(behavior=mu, reference=pi)).finding
    assert both.code == "above_floor" and "bit-identical" in both.sentence
    assert compare(mu, pi, repeats=Repeats(behavior=mu)).finding.code == "unresolved"


@pytest.mark.parametrize("kept", [PROMPTS - 1, PROMPTS])
def test_a_repeat_of_other_sequences_cannot_be_paired(tmp_path: Path, mu: Trace, pi: Trace, kept: int) -> None:
    """The floor stays what it is, only the excess needs the same sequences; and the prompts are not blamed."""
    again = shifted(tmp_path / "mu-again", NOISE_S[:kept], LENGTH_S[:kept])
    report = compare(mu, pi, repeats=Repeats(behavior=again))
    assert report.floor.behavior.mean.value > 0
    assert (report.floor.excess is None) == (kept < PROMPTS)
    assert (report.finding.code == "unresolved") == (kept < PROMPTS)
    assert "Too few prompts" not in report.finding.sentence


def test_one_prompt_resolves_nothing(tmp_path: Path) -> None:
    mu, pi, again = (
        shifted(tmp_path / name, np.array([tv]), np.array([40]))
        for name, tv in (("mu", 0.0), ("pi", 0.1), ("again", 0.01))
    )
    report = compare(mu, pi, repeats=Repeats(behavior=again))
    assert report.finding.code == "unresolved" and "Too few prompts" in report.finding.sentence
    assert report.floor.excess.value == pytest.approx(0.09, abs=1e-6)


def sampled(directory: Path, factor_S: np.ndarray, **facts: object) -> Trace:
    return sampled_trace(directory, [np.full(4, np.log(0.5 * factor)) for factor in factor_S], **facts)


@pytest.mark.parametrize(("policy", "paired"), [("processed", True), ("raw", False)])
def test_sampled_tokens_give_an_excess_only_where_they_are_of_the_policy(
    tmp_path: Path, policy: str, paired: bool
) -> None:
    """(1 − ρ)₊ of prompts whose ratio is 1 − TV, whose mean is TV only if μ drew the tokens."""
    facts = {"policy": policy, "sampling": Sampling(temperature=0.7), "temperature": 1.0}
    mu = sampled(tmp_path / "mu", np.ones(PROMPTS), **facts)
    pi = sampled(tmp_path / "pi", 1 - TV_S, role="reference", **facts)
    again = sampled(tmp_path / "again", 1 - NOISE_S, **facts)
    pair = pair_of(mu, pi, policy=policy, on_policy=paired)
    measured = measure_floors(pair, Repeats(behavior=again), margin=0.5)
    assert measured.largest.pi is again
    if paired:
        assert measured.floors.excess.value == pytest.approx((TV_S - NOISE_S).mean())
    else:
        assert measured.floors.excess is None
