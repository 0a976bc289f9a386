"""Gates against a baseline, on simulated pairs of audits: the benchmark's claim with fewer of them."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

AUDITS = 40


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("calibration_gates")


@pytest.mark.parametrize("prompts", [8, 16])
def test_two_runs_of_one_law_do_not_fail(benchmark: ModuleType, prompts: int) -> None:
    """At 5 % four of forty happen once in twenty; on the point it were a third of them."""
    law = next(law for law in benchmark.LAWS if law.name == "prompts differ")
    row = benchmark.calibrate(law, prompts, AUDITS, seed=3)
    for expression, rates in row["gates"]["same"].items():
        assert rates["fail"] <= 4 / AUDITS, expression
    assert row["coverage"]["token.tv.p90"] > 0.8


def test_a_real_change_is_found_at_64_prompts(benchmark: ModuleType) -> None:
    law = next(law for law in benchmark.LAWS if law.name == "prompts alike")
    row = benchmark.calibrate(law, 64, AUDITS // 2, seed=3)
    assert row["gates"]["larger"]["token.tv.mean > +10%"]["fail"] > 0.8
    assert row["gates"]["same"]["token.tv.mean > +10%"]["pass"] > 0.5, "and no change is decided too"
