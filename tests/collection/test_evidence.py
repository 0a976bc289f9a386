"""What is recorded of each state, under a budget and of what the engines can see."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope.collection.evidence import StatesToRecord, choose_evidence, plan_recording
from mismatchscope.config import AuditSettings
from mismatchscope.errors import ConfigError
from mismatchscope.records import Evidence


def chosen(evidence: str, budget: str, **states: Any) -> Evidence:
    return choose_evidence(AuditSettings(evidence=evidence, budget=budget), StatesToRecord(**states))


BIG = {"tokens": 100_000, "vocabulary": 150_000, "traces": 2}


class TestBudget:
    def test_auto_takes_the_strongest_that_fits(self) -> None:
        small = {"tokens": 1000, "vocabulary": 1024, "traces": 4}
        assert chosen("auto", "1GiB", **small).level == "full"
        assert chosen("auto", "1GiB", **BIG).k == 64
        assert chosen("auto", "50MB", **BIG).k == 16
        assert chosen("auto", "1MB", **BIG).level == "sampled"

    def test_unknown_vocabulary_is_not_taken_for_small(self) -> None:
        assert chosen("auto", "1GiB", **BIG | {"vocabulary": None}).level == "topk"

    @given(level=st.sampled_from(["auto", "full", "full:0.01", "topk:64", "topk"]), budget=st.integers(1, 2**34))
    def test_nothing_exceeds_the_budget(self, level: str, budget: int) -> None:
        try:
            found = chosen(level, str(budget), **BIG)
        except ConfigError as error:
            assert "budget" in error.message
            return
        states = BIG["tokens"] * BIG["traces"]
        stored = {"full": 4 * BIG["vocabulary"] * found.fraction, "topk": 12 * found.k, "sampled": 0}
        assert states * stored[found.level] <= budget

    def test_refusal_says_what_would_fit(self) -> None:
        with pytest.raises(ConfigError) as caught:
            chosen("full", "1GiB", **BIG)
        share = float(caught.value.hint.split("full:")[1].split()[0])
        assert chosen(f"full:{share * 0.99}", "1GiB", **BIG).level == "full"

    def test_full_evidence_is_recorded_on_request_where_the_vocabulary_is_unknown(self) -> None:
        assert chosen("full:0.5", "1B", **BIG | {"vocabulary": None}) == Evidence("full", fraction=0.5)


def test_auto_keeps_to_what_every_engine_can_see() -> None:
    small = {"tokens": 1000, "vocabulary": 1024, "traces": 4}
    assert chosen("auto", "1GiB", **small, visible=("topk", "sampled")).level == "topk"
    assert chosen("auto", "1GiB", **small, visible=("sampled",)).level == "sampled"


class TestReason:
    """Whoever gets less than whole distributions is told why, and what would bring them back."""

    def planned(self, evidence: str, **states: Any) -> tuple[str, str | None]:
        found = plan_recording(AuditSettings(evidence=evidence, budget="1GiB"), StatesToRecord(**states))
        return found.why, found.restore

    def test_what_was_asked_for_needs_no_other(self) -> None:
        assert self.planned("topk:8", **BIG) == ("as asked for", None)

    def test_auto_that_fits_says_how_much_it_takes(self) -> None:
        why, restore = self.planned("auto", tokens=1000, vocabulary=1024, traces=4)
        assert (why, restore) == ("auto: whole distributions fit, up to 0.015 GiB of 1GiB", None)

    def test_the_budget_that_would_hold_them_is_named_and_holds_them(self) -> None:
        why, restore = self.planned("auto", **BIG)
        assert why == "auto: whole distributions may need 111.8 GiB, more than the budget of 1GiB"
        assert restore == "--budget 112GiB"
        assert chosen("auto", restore.split()[1], **BIG).level == "full"

    def test_no_budget_makes_an_engine_show_more(self) -> None:
        assert self.planned("auto", **BIG, visible=("topk", "sampled")) == (
            "auto: not every engine shows its whole distributions",
            None,
        )

    def test_an_unknown_vocabulary_is_said_to_be_unknown(self) -> None:
        why, restore = self.planned("auto", **BIG | {"vocabulary": None})
        assert "is not known before the start" in why
        assert restore == "--evidence full"
