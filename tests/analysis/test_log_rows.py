"""Rows of a log become blocks: what counts, what is left out and why."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_rows import log_batch, sampled_rows

from mismatchscope.analysis import rows as rows_module
from mismatchscope.analysis.block import UNKNOWN, LogBlock
from mismatchscope.analysis.rows import Rejected, blocks_of


def only_block(**columns: object) -> tuple[LogBlock, Rejected]:
    rejected = Rejected()
    (block,) = blocks_of(log_batch(**columns), rejected)
    return block, rejected


def test_lists_become_arrays_in_order() -> None:
    block, rejected = only_block(
        behavior_logprobs=[[-1.0, -2.0], [-3.0]],
        reference_logprobs=[[-1.5, -2.5], [-3.5]],
        token_ids=[[7, 8], [9]],
        prompt=[5, 6],
        step=[1, None],
        worker=["a", None],
        turns=[[0, 1], None],
    )
    assert block.logp_mu_N.tolist() == [-1.0, -2.0, -3.0]
    assert block.logp_pi_N.tolist() == [-1.5, -2.5, -3.5]
    assert block.token_id_N.tolist() == [7, 8, 9]
    assert block.position_N.tolist() == [0, 1, 0]
    assert block.offsets_S1.tolist() == [0, 2, 3]
    assert block.cluster_S.tolist() == [5, 6]
    assert block.by_row["step"].tolist() == [1, UNKNOWN]
    assert block.by_row["worker"].tolist() == ["a", ""]
    assert block.by_token["turns"].tolist() == [0, 1, UNKNOWN]
    assert not rejected.responses and not rejected.tokens and not rejected.masked


def test_what_no_policy_can_have_is_counted_and_left_out() -> None:
    block, rejected = only_block(
        behavior_logprobs=[[-1.0, float("nan"), -2.0, 0.5], [float("-inf")], [-1.0, -1.0], [], None, [-1.0]],
        reference_logprobs=[[-1.0, -1.0, float("-inf"), -1.0], [-1.0], [-1.0], [], [-1.0], None],
    )
    assert block.sequence_id_S.tolist() == [0]
    assert block.whole_S.tolist() == [False]
    assert block.logp_mu_N.tolist() == [-1.0, -2.0]
    assert block.logp_pi_N.tolist() == [-1.0, float("-inf")]  # a leak, and no fault of the log
    assert dict(rejected.tokens) == {
        "log-prob of μ is not a number": 1,
        "log-prob of μ is above 0": 1,
        "μ gives its own token no probability": 1,
    }
    assert dict(rejected.responses) == {
        "no behavior_logprobs": 1,
        "no reference_logprobs": 1,
        "no response tokens": 1,
        "reference_logprobs has another length": 1,
        "no token counts": 1,
    }


def test_masked_tokens_are_neither_counted_nor_rejected() -> None:
    nan = float("nan")
    block, rejected = only_block(
        behavior_logprobs=[[-1.0, 0.0, -2.0], [nan]],
        reference_logprobs=[[-1.0, nan, -2.0], [-1.0]],
        mask=[[True, False, True], [False]],
    )
    assert block.length_S.tolist() == [2]
    assert block.position_N.tolist() == [0, 2]
    assert block.whole_S.tolist() == [True]
    assert rejected.masked == 2
    assert dict(rejected.responses) == {"no token counts": 1}
    assert not rejected.tokens


def test_a_response_without_a_prompt_stands_alone() -> None:
    block, _ = only_block(
        behavior_logprobs=[[-1.0], [-1.0], [-1.0]], reference_logprobs=[[-1.0]] * 3, prompt=[3, None, None]
    )
    assert len(set(block.cluster_S.tolist())) == 3


def test_ids_of_two_files_differ() -> None:
    batch = log_batch(behavior_logprobs=[[-1.0]], reference_logprobs=[[-1.0]])
    ids = {int(block.sequence_id_S[0]) for file in (0, 1) for block in blocks_of(batch, Rejected(), file)}
    assert len(ids) == 2


def test_without_a_column_every_row_is_rejected() -> None:
    rejected = Rejected()
    assert list(blocks_of(log_batch(behavior_logprobs=[[-1.0], [-2.0]]), rejected)) == []
    assert dict(rejected.responses) == {"no reference_logprobs": 2}


@pytest.mark.parametrize("versions, lag", [(([3], [5]), 2), (([None], [5]), UNKNOWN)])
def test_lag_is_how_far_the_trainer_is_ahead(versions: tuple[list[int], list[int]], lag: int) -> None:
    block, _ = only_block(
        behavior_logprobs=[[-1.0]],
        reference_logprobs=[[-1.0]],
        policy_version=versions[0],
        trainer_version=versions[1],
    )
    found = block.label_S("lag")
    assert found is not None and found.tolist() == [lag]


@given(tokens=st.integers(1, 60), responses=st.integers(1, 9), seed=st.integers(0, 9))
def test_small_blocks_hold_the_same_tokens(tokens: int, responses: int, seed: int) -> None:
    batch = log_batch(**sampled_rows(9, seed=seed))
    whole = list(blocks_of(batch, Rejected()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "BLOCK_TOKENS", tokens)
        patch.setattr(rows_module, "BLOCK_RESPONSES", responses)
        pieces = list(blocks_of(batch, Rejected()))
    for name in ("logp_mu_N", "logp_pi_N", "token_id_N", "position_N", "sequence_id_S", "cluster_S", "length_S"):
        joined = np.concatenate([getattr(piece, name) for piece in pieces])
        assert np.array_equal(joined, getattr(whole[0], name))
    assert all(len(piece.length_S) == 1 or piece.offsets_S1[-1] <= tokens for piece in pieces)
    assert all(len(piece.length_S) <= responses for piece in pieces)


def test_a_negative_version_is_none() -> None:
    block, _ = only_block(
        behavior_logprobs=[[-1.0, -1.0], [-1.0]],
        reference_logprobs=[[-1.0, -1.0], [-1.0]],
        policy_version=[-1, 4],
        trainer_version=[6, 6],
        versions=[[-1, 3], [4]],
    )
    assert block.by_token["versions"].tolist() == [UNKNOWN, 3, 4]
    lag_S = block.label_S("lag")
    assert lag_S is not None and lag_S.tolist() == [UNKNOWN, 2]


def test_responses_that_are_masked_throughout_are_no_loss() -> None:
    rejected = Rejected()
    batch = log_batch(
        behavior_logprobs=[[-1.0], [-1.0], None], reference_logprobs=[[-1.0]] * 3, mask=[[True], [False], [True]]
    )
    assert len(list(blocks_of(batch, rejected))) == 1
    assert rejected.responses.total() == 2
    assert rejected.lost_responses == 1
