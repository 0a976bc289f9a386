"""How often finding and version verdict are wrong: the committed table in small."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.slow

AUDITS = 1000
# Three binomial standard errors of a share of 0.05 over so many audits are 0.02.
WRONG = 0.07


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("calibration_finding")


@pytest.mark.parametrize("prompts", [8, 64])
def test_two_runs_of_one_law_are_not_above_each_other(benchmark: ModuleType, prompts: int) -> None:
    for design in benchmark.SAME:
        row = benchmark.calibrate(design, prompts, AUDITS, seed=7, margin=benchmark.MARGIN)
        assert row.above <= WRONG, row
        assert row.within == 0 if prompts == 8 else row.within >= 0.8, row


def test_two_runs_of_one_version_are_unchanged(benchmark: ModuleType) -> None:
    for design in benchmark.SAME:
        row = benchmark.calibrate(design, 64, AUDITS, seed=8, margin=benchmark.VERSION_MARGIN, within_first=True)
        assert row.within >= 0.88 and row.above <= WRONG, row


@pytest.mark.parametrize("size", [0.5, 1.0])
def test_what_is_as_far_as_the_margin_is_not_within_it(benchmark: ModuleType, size: float) -> None:
    """On all prompts alike, and on a twentieth of them with a heavy tail."""
    for design in benchmark.apart(size)[::2]:
        row = benchmark.calibrate(design, 64, AUDITS, seed=9, margin=size)
        assert row.within <= WRONG, row
        if design.excess == "rare":  # what says noise wherever it is not above would be wrong nearly always
            assert row.not_above > 0.8, row
