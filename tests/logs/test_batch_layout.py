"""Padded, packed and ragged batches of the same responses are the same rows."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope.errors import UsageError
from mismatchscope.logs.batch_layout import layout_of

ROWS = st.lists(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=6), min_size=1, max_size=5)


@given(ROWS, st.integers(0, 3))
def test_three_ways_to_lie_are_one(rows: list[list[tuple[int, bool]]], padding: int) -> None:
    """Each way loses what follows the last token that the mask keeps, and nothing else."""
    width = max(map(len, rows)) + padding
    tokens = [[token for token, _ in row] for row in rows]
    masks = [[kept for _, kept in row] for row in rows]
    length = [max((place + 1 for place, kept in enumerate(row) if kept), default=0) for row in masks]
    wanted = [token for row, end in zip(tokens, length, strict=True) for token in row[:end]]
    padded = np.array([row + [7] * (width - len(row)) for row in tokens]).reshape(len(rows), width)
    padded_mask = np.array([row + [False] * (width - len(row)) for row in masks]).reshape(len(rows), width)
    flat, flat_mask = np.array([*chain(*tokens)], dtype=int), np.array([*chain(*masks)], dtype=bool)
    cu_seqlens = np.cumsum([0, *map(len, rows)])
    if width:
        layout = layout_of(padded, padded_mask)
        assert layout.of_tokens(padded, "t").tolist() == wanted and layout.length_B.tolist() == length
    ragged = layout_of(tokens, masks)
    assert ragged.of_tokens(tokens, "t").tolist() == wanted and ragged.length_B.tolist() == length
    packed = layout_of(flat, flat_mask, cu_seqlens=cu_seqlens)
    assert packed.of_tokens(flat, "t").tolist() == flat.tolist()  # lengths are given: what is masked stays
    assert packed.length_B.tolist() == [len(row) for row in rows]


def test_lengths_keep_what_a_rejection_masked() -> None:
    layout = layout_of(np.zeros((2, 4)), np.zeros((2, 4)), lengths=[3, 1])
    assert layout.length_B.tolist() == [3, 1]
    assert layout_of(np.zeros((2, 4)), np.zeros((2, 4))).length_B.tolist() == [0, 0]


def test_prompts_in_front_are_left_out() -> None:
    tokens = np.array([[10, 11, 1, 2], [12, 3, 0, 0]])
    mask = np.array([[0, 0, 1, 1], [0, 1, 0, 0]])
    layout = layout_of(tokens, mask, prompt_lengths=[2, 1])
    assert layout.of_tokens(tokens, "t").tolist() == [1, 2, 3]
    assert layout.of_tokens([0.5, 0.25], "advantages").tolist() == [0.5, 0.5, 0.25]


def test_one_value_a_response_stands_for_its_tokens() -> None:
    layout = layout_of([[1, 2], [3]])
    for advantages in ([0.5, 1.5], np.array([[0.5], [1.5]])):
        assert layout.of_tokens(advantages, "advantages").tolist() == [0.5, 0.5, 1.5]
    assert layout.of_tokens([[None, -1.0], [-2.0]], "x", np.float64).tolist()[1:] == [-1.0, -2.0]


@pytest.mark.parametrize(
    ("token_ids", "arguments", "named"),
    [
        ([1, 2, 3], {}, "one row"),
        ([1, 2, 3], {"lengths": [1, 1]}, "lengths"),
        ([[1, 2]], {"mask": [[1, 1, 1]]}, "mask"),
        ([[1, 2]], {"mask": [[1, 0.5]]}, "mask"),
        ([[1, 2]], {"prompt_lengths": [3]}, "lengths"),
        ([[1, 2]], {"lengths": [1, 1]}, "lengths"),
        ([["a"]], {}, "token_ids"),
        (7, {}, "token_ids"),
    ],
)
def test_what_does_not_fit_is_named(token_ids: object, arguments: dict, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        layout_of(token_ids, **arguments)
