"""Sequences and requests as they cross the border of a process, and what a finished sequence asks of a scorer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import record

from mismatchscope.records import (
    Evidence,
    Observed,
    Request,
    SequenceRecord,
    read_part,
    read_requests,
    request_to_score,
    write_part,
    write_requests,
)


def test_a_scorer_is_asked_at_the_ids_that_were_observed() -> None:
    ids_TK = np.array([[5, 2], [3, -1]], dtype=np.int32)
    logp_TK = np.array([[-0.1, -2.5], [0.0, np.nan]])
    raw_TK = np.array([[-0.2, -2.0], [-0.3, -1.5]])
    ids = np.array([5, 3], dtype=np.int32)
    each = SequenceRecord(
        9,
        4,
        prompt_token_ids=np.array([1], dtype=np.int32),
        response_token_ids=ids,
        finish_reason="stop",
        observed=Observed(logp_TK[:, 0], ids_TK, logp_TK),
        raw=Observed(raw_TK[:, 0], np.abs(ids_TK), raw_TK),
    )
    topk = Evidence("topk", k=2)
    request = request_to_score(each, topk)
    assert (request.sequence_id, request.prompt_id, request.finish_reason) == (9, 4, "stop")
    np.testing.assert_array_equal(request.observed_ids_TK, ids_TK)
    # The second state kept one token alone: what was not observed of it has no mass.
    np.testing.assert_array_equal(request.kth_logprob_T, [-2.5, -np.inf])
    raw = request_to_score(each, topk, "raw")
    np.testing.assert_array_equal(raw.kth_logprob_T, [-2.0, -1.5])
    full = request_to_score(each, Evidence("full"))
    assert full.observed_ids_TK is None and full.kth_logprob_T is None


@pytest.mark.parametrize("k", [2, 3, 8])
def test_a_list_shorter_than_k_shows_all_that_there_is(k: int) -> None:
    """However wide the array is that holds it: no id that is not listed has mass."""
    ids_TK = np.array([[5, 2], [3, -1]], dtype=np.int32)
    logp_TK = np.array([[-0.1, -2.5], [0.0, np.nan]])
    ids = np.array([5, 3], dtype=np.int32)
    each = SequenceRecord(0, 0, ids, ids, "stop", Observed(logp_TK[:, 0], ids_TK, logp_TK))
    request = request_to_score(each, Evidence("topk", k))
    np.testing.assert_array_equal(request.kth_logprob_T, [-2.5 if k == 2 else -np.inf, -np.inf])
    assert request.observed_ids_TK.shape == (2, k)
    np.testing.assert_array_equal(request.observed_ids_TK[:, :2], ids_TK)
    assert (request.observed_ids_TK[:, 2:] == -1).all()


def test_a_sampled_token_behind_the_top_k_bounds_nothing() -> None:
    ids_TK, logp_TK = np.array([[5, 2, 9]], dtype=np.int32), np.array([[-0.1, -2.5, -30.0]])
    each = SequenceRecord(0, 0, ids_TK[0], ids_TK[0, 2:], "stop", Observed(logp_TK[:, 2], ids_TK, logp_TK))
    request = request_to_score(each, Evidence("topk", 2))
    np.testing.assert_array_equal(request.kth_logprob_T, [-2.5])
    np.testing.assert_array_equal(request.observed_ids_TK, ids_TK)


def test_a_part_holds_everything_that_is_known_of_its_sequence(tmp_path: Path) -> None:
    each = record(4, 3, raw=True, level="full")
    each.batch, each.policy_version, each.worker, each.group = 3, 17, "node1", "g"
    each.max_abs_logit, each.prompt_text, each.response_pieces = 31.25, "1+1=", ["2", "!", "</s>"]
    each.extra, each.experts = {"reward": 0.5}, np.arange(12, dtype=np.int16).reshape(3, 2, 2)
    back = read_part(write_part(tmp_path, each))
    for name, value in vars(each).items():
        if isinstance(value, Observed):
            for part, array in vars(value).items():
                np.testing.assert_array_equal(getattr(getattr(back, name), part), array)
        else:
            np.testing.assert_array_equal(getattr(back, name), value)


def test_requests_come_back_as_they_were_written(tmp_path: Path) -> None:
    prompt = np.array([4, 2], dtype=np.int32)
    requests = [Request(0, 0, prompt="text"), Request(1, 0, prompt_token_ids=prompt, finish_reason="stop")]
    write_requests(tmp_path / "file", requests)
    text, tokens = read_requests(tmp_path / "file")
    assert vars(text) == vars(requests[0])
    np.testing.assert_array_equal(tokens.prompt_token_ids, prompt)
    assert (tokens.prompt, tokens.finish_reason) == (None, "stop")
    write_requests(tmp_path / "none", [])
    assert read_requests(tmp_path / "none") == []
