"""Quantiles of streams: exact while few, within the stated error when many, the same in any order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.measures.sketches import RELATIVE_ERROR, QuantileSketch, sample_quantiles

LEVELS = (0.01, 0.5, 0.9, 0.99, 0.999)
values = st.lists(st.floats(allow_nan=False, allow_subnormal=False, width=64), min_size=1, max_size=200)


def sketch_of(value_N: np.ndarray, *, exact_values: int, parts: int = 1, merge: bool = False) -> QuantileSketch:
    sketch = QuantileSketch(exact_values)
    for part_N in np.array_split(value_N, parts):
        if merge:
            one = QuantileSketch(exact_values)
            one.add(part_N)
            sketch.merge(one)
        else:
            sketch.add(part_N)
    return sketch


def close(found: float | None, expected: float | None) -> bool:
    if expected is None or found is None or not math.isfinite(expected):
        return found == expected
    return abs(found - expected) <= RELATIVE_ERROR * abs(expected)


@settings(max_examples=100)
@given(values, st.integers(1, 5), st.booleans())
def test_few_values_are_exact(numbers: list[float], parts: int, merge: bool) -> None:
    value_N = np.array(numbers)
    sketch = sketch_of(value_N, exact_values=len(value_N), parts=parts, merge=merge)
    assert sketch.exact
    assert sketch.quantiles(LEVELS) == sample_quantiles(value_N, LEVELS)


@pytest.mark.slow
@settings(max_examples=100)
@given(values, st.integers(1, 5), st.booleans())
def test_many_values_are_within_the_stated_error(numbers: list[float], parts: int, merge: bool) -> None:
    value_N = np.array(numbers)
    sketch = sketch_of(value_N, exact_values=0, parts=parts, merge=merge)
    assert not sketch.exact
    for view, expected_N in (
        (sketch, value_N),
        (sketch.negated(), -value_N),
        (sketch.absolute(), np.abs(value_N)),
    ):
        pairs = zip(view.quantiles(LEVELS), sample_quantiles(expected_N, LEVELS), strict=True)
        assert all(close(found, expected) for found, expected in pairs)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_neither_order_nor_chunks_change_a_digit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    value_N = np.concatenate([rng.normal(0, 1, 500), np.zeros(20), rng.lognormal(-20, 5, 500), [np.inf]])
    once = sketch_of(value_N, exact_values=300)
    again = sketch_of(rng.permutation(value_N), exact_values=300, parts=7, merge=True)
    assert once.quantiles(LEVELS) == again.quantiles(LEVELS)
    edges = np.linspace(-2, 2, 9)
    np.testing.assert_array_equal(once.histogram(edges), again.histogram(edges))


def test_a_million_values_keep_every_digit_of_the_tail() -> None:
    value_N = np.random.default_rng(0).lognormal(-8, 3, 1_000_000)
    sketch = sketch_of(value_N, exact_values=1_000_000)
    assert sketch.exact and sketch.quantiles((0.999,)) == sample_quantiles(value_N, (0.999,))
    sketch.add(np.array([1.0]))
    assert not sketch.exact
    assert close(sketch.quantiles((0.999,))[0], sample_quantiles(np.append(value_N, 1.0), (0.999,))[0])


def test_quantiles_never_leave_the_values() -> None:
    sketch = sketch_of(np.full(50, 0.3), exact_values=0)
    assert sketch.quantiles((0.5,)) == (0.3,)


def test_histograms_count_everything() -> None:
    value_N = np.array([-5.0, -0.5, 0.0, 0.25, 0.75, np.inf])
    for exact_values in (0, 100):
        counts = sketch_of(value_N, exact_values=exact_values).histogram(np.array([-1.0, 0.0, 0.5, 1.0]))
        assert counts.tolist() == [2, 2, 2]


def test_largest_finite_magnitude() -> None:
    assert QuantileSketch().largest_finite_magnitude() is None
    assert sketch_of(np.array([np.inf, -np.inf]), exact_values=9).largest_finite_magnitude() is None
    assert sketch_of(np.array([1.0, -3.0, np.inf]), exact_values=9).largest_finite_magnitude() == 3.0
    coarse = sketch_of(np.array([1.0, -3.0, np.inf]), exact_values=0).largest_finite_magnitude()
    assert coarse == pytest.approx(3.0, rel=2 * RELATIVE_ERROR)


def test_values_are_given_up_once() -> None:
    sketch = sketch_of(np.arange(3.0), exact_values=0)
    with pytest.raises(ValueError, match="given up"):
        sketch.values()
