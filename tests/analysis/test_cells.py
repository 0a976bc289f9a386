"""The cells of a log: no split or order matters, and of a large log whole prompts of steps are left out."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.analysis.cells import KEYS, CellSums


def units(number: int = 400) -> tuple[dict[str, np.ndarray | None], np.ndarray]:
    rng = np.random.default_rng(1)
    keys: dict[str, np.ndarray | None] = {name: rng.integers(3, size=number) for name in KEYS}
    keys["step"], keys["prompt"], keys["rank"] = rng.integers(8, size=number), rng.integers(20, size=number), None
    return keys, rng.integers(1, 9, (number, 3)).astype(float)


def added(cells: CellSums, units_of: slice) -> CellSums:
    keys, sums = units()
    cells.add({name: None if key is None else key[units_of] for name, key in keys.items()}, sums[units_of])
    return cells


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(0, 400), max_rows=st.sampled_from([20, 100, 10_000]), merged=st.booleans())
def test_no_split_matters(cut: int, max_rows: int, merged: bool) -> None:
    whole_keys, whole_sums = added(CellSums(max_rows), slice(None)).rows()
    first = added(CellSums(max_rows), slice(cut, None))
    if merged:
        first.merge(added(CellSums(max_rows), slice(0, cut)))
    else:
        added(first, slice(0, cut))
    keys, sums = first.rows()
    assert len(sums) <= max_rows
    np.testing.assert_array_equal(sums, whole_sums)
    for name in KEYS:
        np.testing.assert_array_equal(keys[name], whole_keys[name])


def test_rows_are_cells() -> None:
    keys, sums = units()
    found, cells = added(CellSums(), slice(None)).rows()
    distinct = np.unique(np.stack([key for key in keys.values() if key is not None], axis=1), axis=0)
    assert len(cells) == len(distinct)
    np.testing.assert_allclose(cells.sum(axis=0), sums.sum(axis=0))
    assert set(zip(found["step"].tolist(), found["prompt"].tolist(), strict=True)) <= set(
        zip(keys["step"].tolist(), keys["prompt"].tolist(), strict=True)  # type: ignore[union-attr]
    )
