"""Planted faults are found by their checks, sound logs pass all of them, and no split of a log matters.

benchmarks/results/calibration_distribution.md has the rates over many more logs.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.analysis.block import LogBlock
from mismatchscope.analysis.distribution.checks import DistributionChecks
from mismatchscope.analysis.distribution.ends import end_checks
from mismatchscope.analysis.distribution.row_order import row_checks
from mismatchscope.analysis.distribution.selection import selection_check
from mismatchscope.analysis.distribution.shift import shift_check
from mismatchscope.measures.distance_histogram import DistanceHistogram
from mismatchscope.measures.log_results import DistributionCheck

sys.path.append(str(Path(__file__).resolve().parents[3] / "benchmarks"))

from calibration_distribution import checks_of, simulate
from distribution_designs import SOUND, Size, block_of, sound, tool_turns
from distribution_faults import FAULTS, ranks_twice, shifted, tempered


@pytest.mark.parametrize("seed", range(2))
def test_sound_logs_pass(seed: int) -> None:
    for name, design in SOUND.items():
        if "1,000" in name or "long" in name or "10,000" in name:
            continue
        failed = [
            check.sentence
            for check in checks_of(design.draw(np.random.default_rng([seed, *name.encode()])))
            if check.status == "fail"
        ]
        assert not failed, name


@pytest.mark.parametrize("seed", range(2))
def test_planted_faults_are_found(seed: int) -> None:
    for name, design in FAULTS.items():
        if "5,000" in name:
            continue
        checks = checks_of(design.draw(np.random.default_rng([7, seed, *name.encode()])))
        failed = {check.code: check for check in checks if check.status == "fail"}
        assert set(design.fails) <= set(failed), name
        assert all(failed[code].fix for code in design.fails)


@pytest.mark.parametrize(
    "name", ["all rows permuted", "π in base 10", "−100 in 1 % of π", "0 in 5 % of μ", "a quarter shifted by +1"]
)
def test_of_several_that_fail_the_first_is_the_planted_one(name: str) -> None:
    found = []
    for seed in range(10):
        checks = checks_of(FAULTS[name].draw(np.random.default_rng([seed, *name.encode()])))
        found.append([check.code for check in checks if check.status == "fail"])
    assert {codes[0] for codes in found} == set(FAULTS[name].fails)
    assert any(len(codes) > 1 for codes in found) or "shifted" in name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["heavy tails of experts, 8 responses", "stale weights", "short responses"])
def test_false_alarms_are_rare(name: str) -> None:
    """A rate of 1 % makes more than 6 of 150 logs fail in one test of 500."""
    assert simulate(name, 150, seed=5).others <= 6 / 150


def test_a_quarter_that_is_shifted_is_counted() -> None:
    columns = sound(np.random.default_rng(3), Size(400, (64, 200)))
    (check,) = (check for check in checks_of(shifted(columns, 1, 0.25)) if check.code == "shift")
    assert check.count is not None and check.of is not None
    assert check.count / 400 == pytest.approx(0.25, abs=0.05)
    assert check.evidence["responses"]["1"] == check.count
    assert check.evidence["share_low"] < 0.25 < check.evidence["share_high"]
    assert "1 token further" in check.sentence


@pytest.mark.parametrize(("moved", "advice"), [(0, "--shift 1"), (1, "--shift 2"), (-1, "leave --shift out")])
def test_a_shift_is_advised_of_the_log_as_it_was_written(moved: int, advice: str) -> None:
    columns = shifted(sound(np.random.default_rng(3), Size(64, (64, 200))), 1, 1.0)
    checks = DistributionChecks()
    checks.add(block_of(columns))
    assert (shift_check(checks.sample.examined(), moved).fix or "").endswith(advice)


@pytest.mark.parametrize("temperature", [0.6, 0.8, 1.2])
def test_the_temperature_is_in_its_interval(temperature: float) -> None:
    columns = tempered(sound(np.random.default_rng(4), Size(400)), temperature)
    (check,) = (check for check in checks_of(columns) if check.code == "temperature")
    assert check.evidence["low"] - 0.01 < temperature < check.evidence["high"] + 0.01
    assert check.evidence["high"] - check.evidence["low"] < 0.1


@pytest.mark.parametrize(("temperature", "said"), [(1.02, "sharpened"), (0.98, "flattened")])
def test_a_policy_that_training_sharpened_is_no_fault_of_a_column(temperature: float, said: str) -> None:
    """The behaviour at τ 1.02 is the reference's policy before it became 2 % sharper."""
    checks = checks_of(tempered(sound(np.random.default_rng(4), Size(400)), temperature))
    assert [check.code for check in checks if check.status == "fail"] == []
    (check,) = (check for check in checks if check.code == "temperature")
    assert check.evidence["sharpness"] == pytest.approx(temperature, abs=0.01)
    assert f"a policy that training {said}" in check.sentence


def test_the_temperature_is_fitted_at_equal_entropy_where_the_log_has_entropies() -> None:
    columns = tempered(sound(np.random.default_rng(5), Size(200)), 0.7)
    p_R = np.exp(columns.pi_R)
    entropy_R = -(p_R * columns.pi_R + (1 - p_R) * np.log1p(-np.minimum(p_R, 1 - 1e-12)))
    (check,) = (
        check
        for check in checks_of(replace(columns, by_token={"entropy": entropy_R}))
        if check.code == "temperature"
    )
    assert check.evidence["temperature"] == pytest.approx(0.7, abs=0.02)
    assert "The best-fit temperature is 0.7" in check.sentence or "is 0.69" in check.sentence


@settings(max_examples=10, deadline=None)
@given(cuts=st.sets(st.integers(1, 39), max_size=4), seed=st.integers(0, 3))
def test_the_split_does_not_matter(cuts: set[int], seed: int) -> None:
    columns = tool_turns(ranks_twice(sound(np.random.default_rng(seed), Size(40)), 0.3), scored=True)
    columns = shifted(columns, 1, 0.5)
    responses = len(columns.length_S)
    whole, merged = DistributionChecks(), DistributionChecks()
    whole.add(_renumbered(block_of(columns), 0))
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), responses], strict=True):
        part = DistributionChecks()
        part.add(_renumbered(block_of(columns.responses(np.arange(start, stop))), start))
        merged.merge(part)
    assert _results(merged) == _results(whole)


def _renumbered(block: LogBlock, start: int) -> LogBlock:
    return replace(block, sequence_id_S=block.sequence_id_S + start)


def _results(checks: DistributionChecks) -> list[tuple[str, str, int | None, int | None]]:
    examined = checks.sample.examined()
    found: list[DistributionCheck] = [
        shift_check(examined),
        *row_checks(examined),
        *end_checks(examined),
        selection_check(examined, DistanceHistogram(), None),
        checks.repeated.result(),
    ]
    return [(check.code, check.status, check.count, check.of) for check in found]
