"""The rounding floor: from the largest |logit| of every sequence of both sides, or not at all."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from builders import records, stored

from mismatchscope.comparison.rounding import rounding_floor
from mismatchscope.measures.rounding import rounding_floor_tv
from mismatchscope.traces import Trace


def side(directory: Path, largest: list[float | None], lm_head: str | None = "bfloat16") -> Trace:
    batch = records([3] * len(largest))
    for each, logit in zip(batch, largest, strict=True):
        each.max_abs_logit = logit
    directory.mkdir()
    return stored(directory, batch, effective={} if lm_head is None else {"lm_head": lm_head})


def test_the_errors_of_two_sides_add_up(tmp_path: Path) -> None:
    sides = side(tmp_path / "mu", [3.0, 30.0, 7.0]), side(tmp_path / "pi", [12.0, 5.0], "float16")
    floors = [rounding_floor_tv(30.0, "bfloat16"), rounding_floor_tv(12.0, "float16")]
    assert rounding_floor(*sides) == pytest.approx(math.tanh(sum(map(math.atanh, floors))))


@pytest.mark.parametrize("largest", [[30.0, None], [None, None], [30.0, math.inf]])
def test_a_sequence_that_does_not_know_may_have_had_the_largest(
    tmp_path: Path, largest: list[float | None]
) -> None:
    known = side(tmp_path / "known", [30.0, 2.0])
    assert rounding_floor(known, known) is not None
    assert rounding_floor(known, side(tmp_path / "unknown", largest)) is None


def test_unknown_dtypes_and_traces_from_before_the_column_have_none(tmp_path: Path) -> None:
    known = side(tmp_path / "known", [30.0])
    assert rounding_floor(side(tmp_path / "no-dtype", [30.0], None), known) is None
    old = side(tmp_path / "old", [30.0])
    file = old.path / "sequences.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["max_abs_logit"]), file)
    assert rounding_floor(Trace.open(old.path, verify=False), known) is None
