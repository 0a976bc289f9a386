"""The label of a prompt is a function of its tokens and their order, and of nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope.measures.prompt_hash import label_of, labels_of_ids, labels_of_tokens

WORD = 2**64
PINNED = [4781608239502428648, 9215588309883865087, 0]


def mixed(key: int) -> int:
    key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    key = (key ^ (key >> 27)) * 0x94D049BB133111EB % WORD
    return key ^ (key >> 31)


def expected(tokens: list[int]) -> int:
    """The definition, in Python's integers."""
    terms = [
        mixed((token * 0x9E3779B97F4A7C15 + (place + 1) * 0xBF58476D1CE4E5B9) % WORD)
        for place, token in enumerate(tokens)
    ]
    key = mixed((sum(terms) + len(tokens)) % WORD)
    return key - WORD if key >= WORD // 2 else key


@given(prompts=st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=5), max_size=6))
def test_labels_follow_their_definition(prompts: list[list[int]]) -> None:
    assert label_of(prompts).tolist() == [expected(tokens) for tokens in prompts]
    assert label_of([np.array(tokens, dtype=np.int32) for tokens in prompts]).tolist() == label_of(prompts).tolist()


def test_one_list_or_all_end_to_end() -> None:
    flat_P = np.array([5, 6, 7, 5], dtype=np.int32)
    assert labels_of_tokens(flat_P, np.array([2, 0, 2])).tolist() == label_of([[5, 6], [], [7, 5]]).tolist()


def test_labels_stay_what_they_are() -> None:
    """Traces and logs that were written by different versions are compared."""
    assert label_of([[1, 2, 3], [3, 2, 1], []]).tolist() == PINNED
    assert labels_of_ids(np.array([0, 1])).tolist() == [0, mixed(1)]
