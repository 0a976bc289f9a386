"""The prompt is its tokens, whatever its id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import records, stored
from hypothesis import given
from hypothesis import strategies as st

from mismatchscope.alignment.alignment import Alignment
from mismatchscope.alignment.cursors import Responses
from mismatchscope.alignment.prompt_clusters import PromptClusters, PromptsOf, prompt_keys
from mismatchscope.errors import MisalignedError


def responses(prompts: Sequence[tuple[int, Sequence[int]]]) -> Responses:
    """One sequence a pair of prompt id and prompt tokens, each with one response token."""
    n = len(prompts)
    return Responses(
        sequence_id_S=np.arange(n),
        prompt_id_S=np.array([prompt_id for prompt_id, _ in prompts]),
        prompt_P=np.array([token for _, tokens in prompts for token in tokens], dtype=np.int32),
        prompt_length_S=np.array([len(tokens) for _, tokens in prompts]),
        response_F=np.zeros(n, dtype=np.int32),
        length_S=np.ones(n, dtype=np.int64),
    )


PROMPTS = st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(0, 2), max_size=3)), min_size=1, max_size=20)


@given(prompts=PROMPTS)
def test_keys_are_equal_where_tokens_are(prompts: list[tuple[int, list[int]]]) -> None:
    key_S = prompt_keys(responses(prompts)).tolist()
    for (id_a, a), key_a in zip(prompts, key_S, strict=True):
        for (id_b, b), key_b in zip(prompts, key_S, strict=True):
            assert (key_a == key_b) == (a == b if a or b else id_a == id_b)


@given(prompts=PROMPTS)
def test_equal_tokens_are_one_cluster_and_so_is_one_id(prompts: list[tuple[int, list[int]]]) -> None:
    """One id can still fall apart where its prompts were met under other ids first: equal tokens come first."""
    label_S = PromptClusters().labels(responses(prompts)).tolist()
    for (_, a), label_a in zip(prompts, label_S, strict=True):
        for (_, b), label_b in zip(prompts, label_S, strict=True):
            if a and a == b:
                assert label_a == label_b


@given(prompts=PROMPTS, cut=st.integers(0, 20))
def test_blocks_make_no_difference(prompts: list[tuple[int, list[int]]], cut: int) -> None:
    whole, parts = PromptClusters(), PromptClusters()
    label_S = whole.labels(responses(prompts)).tolist()
    blocks = [block for block in (prompts[:cut], prompts[cut:]) if block]
    assert [label for block in blocks for label in parts.labels(responses(block)).tolist()] == label_S
    assert (whole.ids, whole.prompts) == (parts.ids, parts.prompts)


def test_copies_of_a_prompt_are_one() -> None:
    clusters = PromptClusters()
    label_S = clusters.labels(responses([(number, [7, number % 4]) for number in range(64)]))
    assert len(set(label_S.tolist())) == clusters.prompts == 4
    assert clusters.ids == 64


def test_turns_of_one_id_are_one() -> None:
    assert len(set(PromptClusters().labels(responses([(3, [1, 2]), (3, [1, 2, 8, 9])])).tolist())) == 1


def test_without_prompt_tokens_the_id_counts() -> None:
    clusters = PromptClusters()
    assert len(set(clusters.labels(responses([(0, []), (1, []), (0, [])])).tolist())) == 2


def test_the_same_prompt_has_the_same_label_in_another_trace() -> None:
    here = PromptClusters().labels(responses([(0, [5, 6]), (1, [8])]))
    there = PromptClusters().labels(responses([(41, [8]), (7, [5, 6])]))
    assert here.tolist() == there[::-1].tolist()


def test_the_order_of_tokens_counts() -> None:
    assert len(set(prompt_keys(responses([(0, [1, 2]), (0, [2, 1]), (0, [1, 2, 0])])).tolist())) == 3


def test_the_prompts_of_a_trace_are_known_by_their_ids_whatever_is_before_the_responses(tmp_path: Path) -> None:
    """Each sequence has its own prompt in the trace; cut short, all of them begin alike."""
    given = [replace(each, prompt_id=each.sequence_id) for each in records([3, 2, 4, 5])]
    given[3].prompt_token_ids = given[0].prompt_token_ids  # under another id
    trace = stored(tmp_path / "given", given)
    shorter = [replace(each, prompt_token_ids=np.array([7], dtype=np.int32)) for each in given]
    mu, pi = stored(tmp_path / "mu", shorter), stored(tmp_path / "pi", given)
    with pytest.raises(MisalignedError):
        list(Alignment(mu, pi).blocks())
    alignment = Alignment(mu, pi, prompts=trace)
    (block,) = alignment.blocks()
    first, second, third, fourth = block.cluster_S.tolist()
    assert fourth == first and len({first, second, third}) == 3
    assert (alignment.counts.prompts, alignment.counts.prompt_ids) == (3, 4)
    own = np.concatenate([each.cluster_S for each in Alignment(trace, trace).blocks()])
    assert block.cluster_S.tolist() == own.tolist(), "so that the two can be paired"
    assert PromptsOf(trace).labels(responses([(2, [7]), (0, [])])).tolist() == [third, first]


def test_other_responses_are_refused_whatever_is_before_them(tmp_path: Path) -> None:
    given = records([3, 2])
    trace = stored(tmp_path / "given", given)
    changed = [replace(each, response_token_ids=each.response_token_ids[::-1].copy()) for each in given]
    with pytest.raises(MisalignedError):
        list(Alignment(trace, stored(tmp_path / "changed", changed), prompts=trace).blocks())
