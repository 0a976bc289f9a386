"""Which experiment is next: the one that rules out most of what is likely, for its cost."""

from __future__ import annotations

import pytest

from mismatchscope.diagnosis import narrowing
from mismatchscope.diagnosis.narrowing import Narrowing, every_cause, ranked_experiments, weights_of

NAMES = ["weights", "repeat", "rescore"]


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Planted cases in which nothing was named, by what was there."""
    found: dict[str, int] = {}
    monkeypatch.setattr(narrowing, "untold", lambda: found)
    return found


def test_the_likelier_cause_is_asked_for_first(counts: dict[str, int]) -> None:
    counts |= {"dropout": 40}
    assert Narrowing(every_cause(), list(NAMES), every_cause()).following() == "repeat"
    counts |= {"dropout": 0, "rope": 200, "norm": 200}
    assert Narrowing(every_cause(), list(NAMES), every_cause()).following() == "rescore"


def test_what_candidates_did_not_close_is_no_longer_likely(counts: dict[str, int]) -> None:
    counts |= {"rope": 9, "dropout": 4}
    assert weights_of(["rope", "dropout"]) == {"rope": 10.0, "dropout": 5.0}
    assert weights_of(["rope", "dropout"], {"rescore"}) == {"rope": pytest.approx(2.0), "dropout": 5.0}


def test_a_single_cause_is_put_to_the_cheapest_that_could_rule_it_out(counts: dict[str, int]) -> None:
    assert ranked_experiments(weights_of(["rope"]), ["float32", "repeat"])[0] == "repeat"


def test_the_answer_is_left_once_it_could_have_been_ruled_out(counts: dict[str, int]) -> None:
    put = Narrowing(["dropout"], ["repeat"], every_cause())
    assert put.following() == "repeat"
    put.tell("repeat", "most")
    assert put.following() is None and put.remaining == ["dropout"]


def test_a_result_against_all_that_was_suspected_withdraws_it(counts: dict[str, int]) -> None:
    put = Narrowing(["dropout"], ["repeat"], every_cause())
    put.tell("repeat", "none")
    assert put.withdrawn and "dropout" not in put.remaining and "rope" in put.remaining
