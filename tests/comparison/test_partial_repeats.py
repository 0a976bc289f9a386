"""Repeats that saw a part of the states make nothing certain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written_traces import sampled_trace

from mismatchscope.comparison.compare_traces import compare
from mismatchscope.comparison.floors import Repeats
from mismatchscope.reports.document import Report

N = 20
MU = [np.full(5, -2.0)] * N
PI = [np.full(5, -2.0 - 0.3 * (s % 2)) for s in range(N)]


def report(directory: Path, mu_again: list[np.ndarray], pi_again: list[np.ndarray]) -> Report:
    kinds = {"mu": {}, "pi": {"role": "reference"}}
    traces = {}
    for name, side, logp_ST in (
        ("mu", "mu", MU),
        ("pi", "pi", PI),
        ("mu2", "mu", mu_again),
        ("pi2", "pi", pi_again),
    ):
        traces[name] = sampled_trace(directory / name, logp_ST, **kinds[side])
    return compare(traces["mu"], traces["pi"], repeats=Repeats(traces["mu2"], traces["pi2"]), max_rejected=0.99)


def test_whole_repeats_that_are_identical_make_it_certain(tmp_path: Path) -> None:
    found = report(tmp_path, MU, PI).finding
    assert found.code == "above_floor"
    assert found.sentence.startswith("Above the repeat floor: repeats are bit-identical")


@pytest.mark.parametrize("lost", ["sequences", "rows"])
def test_repeats_of_two_prompts_do_not(tmp_path: Path, lost: str) -> None:
    if lost == "sequences":
        found = report(tmp_path, MU[:2], PI[:2])
    else:
        found = report(tmp_path, [*MU[:2], *[np.full(5, np.nan)] * (N - 2)], PI)
    assert found.finding.code == "unresolved"
    assert "bit-identical" not in found.finding.sentence
