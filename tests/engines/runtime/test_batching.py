"""Which sequences share a batch."""

from __future__ import annotations

import re
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope.composition import BatchComposition
from mismatchscope.engines.runtime.batching import plan_batches
from mismatchscope.errors import ConfigError
from mismatchscope.records import Request


def requests(lengths: list[int]) -> list[Request]:
    """Sequences 100, 101, … with prompts of these lengths."""
    return [
        Request(100 + index, index, prompt_token_ids=np.zeros(length, dtype=np.int32))
        for index, length in enumerate(lengths)
    ]


def ids(batches: list[list[Request]]) -> list[list[int]]:
    return [[request.sequence_id - 100 for request in batch] for batch in batches]


def test_batches_are_the_same_every_time() -> None:
    asked = requests([1] * 10)
    assert ids(plan_batches(asked, BatchComposition(4))) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    shuffled = [plan_batches(asked, BatchComposition(4, shuffle_seed=seed)) for seed in (1, 1, 2)]
    assert shuffled[0] == shuffled[1] != shuffled[2]
    assert sorted(chain.from_iterable(ids(shuffled[0]))) == list(range(10))
    assert [len(batch) for batch in shuffled[0]] == [4, 4, 2]


def test_batches_by_length_hold_sequences_of_a_kind() -> None:
    batches = plan_batches(requests([3, 9, 1, 7, 9, 2]), BatchComposition(2, order="length"))
    assert [[len(request.prompt_token_ids) for request in batch] for batch in batches] == [[9, 9], [7, 3], [2, 1]]


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=40),
    st.integers(1, 12),
    st.sampled_from(["given", "length", None]),
    st.none() | st.integers(0, 2**31),
)
def test_every_request_is_in_one_batch(lengths: list[int], size: int, order: str | None, seed: int | None) -> None:
    asked = requests(lengths)
    batches = plan_batches(asked, BatchComposition(size, order, seed))
    assert sorted(chain.from_iterable(ids(batches))) == list(range(len(lengths)))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1) and 1 <= len(batches[-1]) <= size
    laid = [len(request.prompt_token_ids) for batch in batches for request in batch]
    if order == "length":
        assert laid == sorted(laid, reverse=True)
    if seed is None and order != "length":
        assert laid == lengths
    # The same batches, named one by one.
    explicit = BatchComposition(batches=tuple(tuple(r.sequence_id for r in batch) for batch in batches))
    assert plan_batches(asked[::-1], explicit) == batches


@given(st.permutations(range(6)), st.sets(st.integers(1, 5)))
def test_explicit_batches_are_taken_row_by_row(order: list[int], cuts: set[int]) -> None:
    borders = [0, *sorted(cuts), 6]
    batches = [order[start:stop] for start, stop in pairwise(borders)]
    composition = BatchComposition(batches=tuple(tuple(100 + index for index in batch) for batch in batches))
    assert ids(plan_batches(requests([1] * 6), composition)) == batches


@pytest.mark.parametrize(
    ("batches", "says"),
    [
        (((100, 101),), "lack 102 (1 in all)"),
        (((100, 101), (102, 7)), "name sequences that the task does not have, 7 (1 in all)"),
        (((100, 101), (102, 101)), "name more than once 101 (1 in all)"),
        ((), "lack 100, 101, 102 (3 in all)"),
    ],
)
def test_explicit_batches_of_other_sequences_are_refused(batches: tuple[tuple[int, ...], ...], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        plan_batches(requests([1, 1, 1]), BatchComposition(batches=batches))
    assert caught.value.hint


def test_a_composition_without_a_size_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="without a batch size"):
        plan_batches(requests([1]), BatchComposition())
