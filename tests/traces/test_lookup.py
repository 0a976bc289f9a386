"""Single rows of a trace, found by their place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written_traces import full_trace, sampled_trace

from mismatchscope.errors import TraceError
from mismatchscope.traces.lookup import find_tokens


def test_a_row_is_found_with_its_number(tmp_path: Path) -> None:
    logp_ST = [np.linspace(-1, -0.5, n) for n in (5, 1, 7)]
    trace = sampled_trace(tmp_path / "t", logp_ST, ids=[2, 5, 9])
    found = find_tokens(trace, [(9, 6), (2, 0), (2, 4)], ["logprob", "token_id"])
    assert {place: entry["row"] for place, entry in found.items()} == {(2, 0): 0, (2, 4): 4, (9, 6): 12}
    assert found[9, 6]["logprob"] == logp_ST[2][6]
    assert found[2, 4]["token_id"] == (2 + 4) % 16


def test_places_that_cross_are_not_mixed_up(tmp_path: Path) -> None:
    """(0, 3) and (1, 1) ask for neither (0, 1) nor (1, 3)."""
    trace = sampled_trace(tmp_path / "t", [np.full(4, -1.0)] * 2)
    assert set(find_tokens(trace, [(0, 3), (1, 1)], ["logprob"])) == {(0, 3), (1, 1)}


def test_a_place_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    trace = full_trace(tmp_path / "t", [np.full((3, 4), 0.25)])
    assert find_tokens(trace, [(0, 3), (7, 0)], ["logprob"]) == {}
    assert find_tokens(trace, [], ["logprob"]) == {}


def test_a_broken_table_is_named(tmp_path: Path) -> None:
    trace = sampled_trace(tmp_path / "t", [np.full(4, -1.0)])
    (trace.path / "tokens.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(TraceError, match=r"tokens\.parquet cannot be read"):
        find_tokens(trace, [(0, 0)], ["logprob"])
