"""What records of detectors do to an answer, and that the committed ones are of the detectors that there are."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from mismatchscope.diagnosis.answer import answer_of
from mismatchscope.diagnosis.catalogue import ROUNDING, causes
from mismatchscope.diagnosis.detector import MOST_IN_A_SET, detectors
from mismatchscope.diagnosis.peeling import Peeled, peel
from mismatchscope.diagnosis.records import FILE, RecordLevel, committed, level_of, record_of
from mismatchscope.diagnosis.results import diagnose
from tests.support.random_policies import LENGTH, SEQUENCES, Pair

NOISE = "weights_or_attention.noise"


def of_dropout() -> Peeled:
    pair = Pair(23)
    return peel(pair.evidence(pair.off(0.3 * np.exp(pair.rng.normal(scale=0.6, size=len(pair.token_N))))))


def record(right: int, cases: int) -> dict[str, dict[str, dict[str, object]]]:
    confused = {"rope": 3, "norm": 2, "context": 2, "window": 1, ROUNDING: 1}
    return {NOISE: {"sampled": {"right": right, "cases": cases, "confused": confused}}}


def test_a_detector_that_is_mostly_right_names_alone() -> None:
    answer = answer_of(of_dropout(), record(90, 100))
    assert answer.code == "cause" and answer.named[0].causes == ("dropout",)


def test_one_that_is_sometimes_wrong_names_what_there_was_then_as_well() -> None:
    answer = answer_of(of_dropout(), record(80, 100))
    assert answer.code == "set"
    assert answer.named[0].causes[0] == "dropout" and "rope" in answer.named[0].causes
    assert len(answer.named[0].causes) == MOST_IN_A_SET and ROUNDING not in answer.named[0].causes


def test_one_that_is_often_wrong_names_nothing() -> None:
    answer = answer_of(of_dropout(), record(60, 100))
    assert answer.code == "unknown" and not answer.named and len(answer.doubted) == 1


def test_metadata_and_a_floor_make_levels_of_their_own() -> None:
    pair = Pair(1)
    bare = pair.evidence(pair.scored())
    assert level_of(bare) == "sampled"
    assert level_of(bare.but(metadata={"worker": np.arange(SEQUENCES)})) == "metadata"
    assert (
        level_of(bare.but(floor=None))
        == level_of(peel(bare.but(floor=None)).sample.evidence)
        == "sampled, no floor"
    )
    assert level_of(pair.top(pair.mu_NV)) == "top-k"
    assert level_of(pair.whole(pair.mu_NV)) == "full"


def test_the_committed_records_are_of_registered_detectors() -> None:
    assert FILE.exists()
    by_name = {each.name: each for each in detectors()}
    assert set(committed()) <= set(by_name)
    for name, levels in committed().items():
        assert set(levels) <= set(get_args(RecordLevel))
        for row in levels.values():
            assert 0 <= row["right"] <= row["cases"] and row["cases"] > 0
            assert set(row["confused"]) <= {*causes(), ROUNDING}, name


def test_most_detectors_have_a_record() -> None:
    """One that planted cases never make speak has none, nor has a new one until the tables are made again; it then
    states no confidence."""
    without = {each.name for each in detectors()} - set(committed())
    assert len(without) <= 2


def test_an_answer_quotes_the_record_of_its_detector() -> None:
    pair = Pair(6)
    evidence = pair.evidence(np.roll(pair.scored().reshape(SEQUENCES, LENGTH), 1, axis=1).ravel())
    found, answer = diagnose(evidence)
    stated = record_of("alignment.moved", "sampled")
    assert stated is not None and found[0].confidence is not None
    assert (found[0].confidence.right, found[0].confidence.cases) == (stated.right, stated.cases)
    assert found[0].confidence.precision.value == pytest.approx(stated.right / stated.cases)
    assert f"was right in {stated.right} of {stated.cases} planted cases" in answer.what
