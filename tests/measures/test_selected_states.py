"""The few states that are kept: the largest, and a sample that is the same whatever the chunks."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.measures.selected_states import POINTS, LargestStates, SampledPoints, State


def state(tv: float, sequence_id: int, position: int) -> State:
    return State(tv, sequence_id, 0, position, 0, 1.0, -1.0, -1.0, {})


@settings(max_examples=60)
@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3]), min_size=1, max_size=60), st.integers(1, 4))
def test_the_largest_come_first_and_equals_by_their_place(values: list[float], parts: int) -> None:
    tv_N = np.array(values)
    expected = sorted(
        ((-tv, at) for at, tv in enumerate(values) if tv > 0),
    )[:10]
    for order in (1, -1):
        largest = LargestStates(10)
        for part in np.array_split(np.arange(len(values))[::order], parts):
            other = LargestStates(10)
            rows = other.candidates(tv_N[part], part, np.arange(len(part) + 1), np.zeros_like(part))
            other.add([state(tv_N[part][row], int(part[row]), 0) for row in rows])
            largest.merge(other)
        assert [(-found.tv, found.sequence_id) for found in largest.states()] == expected


def test_candidates_are_no_more_than_can_get_in() -> None:
    largest = LargestStates(2)
    largest.add([state(0.5, 0, 0), state(0.4, 0, 1)])
    tv_N, place_N = np.array([0.1, 0.4, 0.6, 0.0]), np.arange(4)
    assert largest.candidates(tv_N, place_N, np.arange(5), place_N).tolist() == [1, 2]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 5))
def test_the_sample_does_not_depend_on_chunks(n: int, parts: int) -> None:
    sequence_N, position_N = np.arange(n) // 7, np.arange(n) % 7
    x_N, y_N = -np.random.default_rng(n).exponential(size=(2, n))
    whole, merged = SampledPoints(), SampledPoints()
    whole.add(sequence_N, np.arange(n + 1), position_N, x_N, y_N)
    for part in np.array_split(np.arange(n), parts)[::-1]:
        one = SampledPoints()
        one.add(sequence_N[part], np.arange(len(part) + 1), position_N[part], x_N[part], y_N[part])
        merged.merge(one)
    assert whole.n == merged.n == n
    np.testing.assert_array_equal(whole.points(), merged.points())
    assert len(whole.points()) == min(n, POINTS)


def test_the_sample_looks_everywhere() -> None:
    points = SampledPoints()
    n = 60_000
    log_x_N = np.log(np.linspace(1e-9, 1, n))
    points.add(np.arange(n), np.arange(n + 1), np.zeros(n, dtype=np.int64), log_x_N, np.zeros(n))
    counts, _ = np.histogram(points.points()[:, 2], bins=6, range=(0, 1))
    # 100 expected in each; a sound hash strays by 4 standard deviations once in ten thousand.
    assert (np.abs(counts - 100) < 40).all()
