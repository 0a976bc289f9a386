"""`length`: what is said of beginnings of responses, from figures that are known and from an engine's."""

from __future__ import annotations

from pathlib import Path

import pytest
from probe_runs import probed, settings

from mismatchscope.errors import ConfigError
from mismatchscope.measures.results import Interval
from mismatchscope.probes.length import _reached
from mismatchscope.probes.run_probe import plan_probe
from mismatchscope.reports.pair_fields import PrefixMeasures

LONG = {"samples": 2, "max_new_tokens": 40}


def row(tokens: int, low: float, high: float) -> PrefixMeasures:
    return PrefixMeasures(tokens, Interval((low + high) / 2, low, high), 0.0, 0.1, 50)


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([(0.01, 0.02), (0.03, 0.05), (0.12, 0.2)], "is reached after more than 8 and by 16 tokens."),
        ([(0.01, 0.02), (0.05, 0.12), (0.12, 0.2)], "is reached after more than 4 and by 16 tokens."),
        ([(0.2, 0.3), (0.3, 0.4), (0.5, 0.6)], "is reached by 4 tokens."),
        ([(0.01, 0.02), (0.02, 0.04), (0.03, 0.06)], "is not reached in 16 tokens"),
        ([(0.01, 0.02), (0.02, 0.04), (0.03, 0.16)], "neither shown to be reached"),
    ],
)
def test_a_length_is_named_only_where_intervals_tell(ends: list[tuple[float, float]], said: str) -> None:
    rows = [row(tokens, *each) for tokens, each in zip((4, 8, 16), ends, strict=True)]
    assert said in _reached(rows, 0.1).sentence


@pytest.mark.parametrize("values", [("0",), ("1",), ("many",)])
def test_what_is_no_tv_is_refused(values: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        plan_probe("length", settings(), values)


@pytest.mark.slow
def test_beginnings_come_farther_apart(tmp_path: Path) -> None:
    report, started = probed(
        "length", tmp_path / "run", values=("0.05",), behavior="synthetic:tv=0.2", limit=24, sampling=LONG
    )
    probe = report.probe
    assert probe is not None and started == ["synthetic"] * 2
    assert probe.cells[0].path == "rollout" and probe.cells[0].setting == "as drawn"
    tv = [each.tv.value for each in probe.lengths]
    assert [each.tokens for each in probe.lengths] == [4, 8, 16, 32] and tv == sorted(tv)
    assert next(each for each in probe.conclusion if each.code == "reached").sentence.startswith("A TV of 0.05")
    assert report.sequence.tv is not None, "the tokens are drawn from the policy that is measured"


@pytest.mark.slow
def test_equal_policies_have_no_spread_to_tell(tmp_path: Path) -> None:
    report, _ = probed("length", tmp_path / "run", sampling=LONG)
    assert report.probe is not None
    assert all(each.tv.value == 0.0 and each.spread == 0.0 for each in report.probe.lengths)
    assert report.probe.conclusion[0].code == "cannot_tell"


@pytest.mark.slow
def test_short_responses_have_no_beginnings(tmp_path: Path) -> None:
    report, _ = probed("length", tmp_path / "run", sampling={"samples": 1, "max_new_tokens": 2})
    assert report.probe is not None and not report.probe.lengths
    assert "No response has 4 tokens" in report.probe.conclusion[0].sentence
