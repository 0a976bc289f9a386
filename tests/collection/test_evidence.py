"""What is recorded of each state, under a budget and of what the engines can see."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope.collection.evidence import StatesToRecord, choose_evidence
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
