"""What looks as if an array had been filled up, and what does not though it is certain."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures.padding import looks_padded, padding_tokens

REAL = [-0.3, -1.2, -0.5]


def padding(ids: list[int], logp: list[float], other: list[float] | None = None) -> int:
    columns = (np.array(logp), np.array(logp if other is None else other))
    # Beside other responses, so that nothing is seen beyond a response's own ends.
    ids_N = np.concatenate([[9] * 5, ids, [9] * 5])
    mu_N, pi_N = (np.concatenate([[-1.0] * 5, column, [-1.0] * 5]) for column in columns)
    start, end = np.array([0, 5, 5 + len(ids)]), np.array([5, 5 + len(ids), 10 + len(ids)])
    return int(padding_tokens(mu_N, pi_N, ids_N, start, end)[1])


@pytest.mark.parametrize(
    ("ids", "logp", "expected"),
    [
        ([5, 6, 7] + [0] * 6, REAL + [0.0] * 6, 6),
        ([0] * 6 + [5, 6, 7], [0.0] * 6 + REAL, 6),
        ([0] * 5 + [5, 6, 7] + [0] * 4, [0.0] * 5 + REAL + [0.0] * 4, 9),
        ([5, 6, 2] + [2] * 6, REAL + [0.0] * 6, 6),  # padded with the end-of-sequence token, which was drawn once
        ([5, 6, 7, 8] + [0] * 6, [*REAL, 0.0] + [0.0] * 6, 6),  # the last real token was certain
        ([0] * 8, [0.0] * 8, 8),
        ([5, 6, 7] + [0] * 3, REAL + [0.0] * 3, 0),  # too few
        ([5, 6, 7, 1, 2, 3, 4], REAL + [0.0] * 4, 0),  # certain, and not one id
        ([5, 3, 3, 3] + [3] * 6, [-1.0, -0.5, -1e-2, -1e-4] + [0.0] * 6, 0),  # a loop, ever surer
        ([5, 6, 7] + [0] * 6, REAL + [-1.0] * 6, 0),
    ],
)
def test_ends_of_one_id(ids: list[int], logp: list[float], expected: int) -> None:
    assert padding(ids, logp) == expected


def test_both_sides_are_zero() -> None:
    assert padding([5, 6, 7] + [0] * 6, REAL + [0.0] * 6, [*REAL, *[-0.2] * 6]) == 0


def test_few_such_responses_come_by_themselves() -> None:
    padding_S = np.zeros(1000, dtype=np.int64)
    assert not looks_padded(padding_S)
    padding_S[:15] = 7
    assert not looks_padded(padding_S)  # 10 are usual
    padding_S[:40] = 7
    assert looks_padded(padding_S)
    assert not looks_padded(np.array([7])) and looks_padded(np.array([7, 7]))
