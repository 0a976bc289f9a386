"""Top-k evidence of two sides, matched id by id against plain loops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from builders import V, record, records, stored
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.alignment.alignment import Alignment
from mismatchscope.alignment.block import Block
from mismatchscope.alignment.observed_ids import ObservedPair
from mismatchscope.records import SequenceRecord


def pieces(alignment: Alignment, max_rows: int = 2**20) -> Iterator[tuple[Block, int, ObservedPair]]:
    """(block, first row in it, both policies at the observed ids) of every piece of at most `max_rows` rows."""
    k = alignment.behavior.evidence.k
    for block in alignment.blocks():
        for part, observed in block.topk_pieces(max_rows * 4 * 2 * 8 * (k + 1)):
            yield block, part.start, observed


def distributions(batch: list[SequenceRecord]) -> dict[tuple[int, int], list[float]]:
    """The whole distributions in float64, as the lists that they are compared with."""
    return {
        (each.sequence_id, position): each.observed.full_logprobs_RV[position].astype(float).tolist()
        for each in batch
        for position in range(len(each.response_token_ids))
    }


def topk_records(lengths: list[int], seed: int, k: int, **changes: Any) -> list[SequenceRecord]:
    """As float32 distributions would give them, so that both kinds of evidence have the same numbers."""
    batch = records(lengths, seed=seed, level="topk", k=k)
    for each in batch:
        each.observed.topk_logprobs_TK = each.observed.topk_logprobs_TK.astype(np.float32).astype(float)
        each.observed.logprob_T = each.observed.logprob_T.astype(np.float32).astype(float)
    return batch


def scored(asked: list[SequenceRecord], seed: int, *, overlap: bool = True) -> list[SequenceRecord]:
    """π at the ids that μ shows, with the overlap of the tails that a scorer adds."""
    full = records([len(each.response_token_ids) for each in asked], seed=seed)
    logp = distributions(full)
    for mu, pi in zip(asked, full, strict=True):
        ids_TK = mu.observed.topk_ids_TK
        values, overlaps = np.full(ids_TK.shape, np.nan), np.full(len(ids_TK), np.nan)
        for position, ids in enumerate(ids_TK.tolist()):
            row = logp[pi.sequence_id, position]
            kth = [x for x in mu.observed.topk_logprobs_TK[position].tolist() if not math.isnan(x)]
            seen = {*ids, int(mu.response_token_ids[position])}
            values[position] = [row[a] if a >= 0 else math.nan for a in ids]
            if kth:
                capped = (math.exp(min(row[a], kth[-1])) for a in range(V) if a not in seen)
                overlaps[position] = math.fsum(capped)
        pi.observed.topk_ids_TK, pi.observed.topk_logprobs_TK = ids_TK.copy(), values
        pi.observed.tail_overlap_T = overlaps if overlap else None
        pi.observed.full_row_R = pi.observed.full_logprobs_RV = None
        pi.observed.logprob_T = pi.observed.logprob_T.astype(np.float32).astype(float)
    return full


def shorten(batch: list[SequenceRecord], seed: int) -> None:
    """Cut some lists short, as truncated sampling does, padding them with -1."""
    rng = np.random.default_rng(seed)
    for each in batch:
        ids_TK = each.observed.topk_ids_TK
        cut_TK = np.arange(ids_TK.shape[1]) >= rng.integers(1, ids_TK.shape[1] + 1, size=len(ids_TK))[:, None]
        each.observed.topk_ids_TK = np.where(cut_TK, -1, ids_TK).astype(np.int32)
        each.observed.topk_logprobs_TK[cut_TK] = np.nan


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    k=st.integers(1, V),
    cut=st.booleans(),
    kind=st.sampled_from(["scored", "own", "full"]),
    max_rows=st.integers(1, 30),
)
def test_both_sides_are_seen_at_the_union_of_the_list_and_the_sampled_token(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], k: int, cut: bool, kind: str, max_rows: int
) -> None:
    mu = topk_records(lengths, seed=1, k=k)
    if cut:
        shorten(mu, seed=5)
    if kind == "scored":
        pi = scored(mu, seed=2)
    elif kind == "own":
        pi = topk_records(lengths, seed=2, k=max(1, k - 1))
    else:
        pi = records(lengths, seed=2)
        for each in pi:
            each.observed.logprob_T = each.observed.logprob_T.astype(np.float32).astype(float)
    listed_pi = {
        (each.sequence_id, t): dict(
            zip(each.observed.topk_ids_TK[t].tolist(), each.observed.topk_logprobs_TK[t], strict=True)
        )
        for each in pi
        if kind == "own"
        for t in range(len(each.response_token_ids))
    }
    logp_pi = distributions(records(lengths, seed=2))
    overlaps = {
        (each.sequence_id, t): float(each.observed.tail_overlap_T[t])
        for each in scored(mu, seed=2)
        for t in range(len(each.response_token_ids))
    }
    alignment = Alignment(*(stored(tmp_path_factory.mktemp("side"), side) for side in (mu, pi)))
    rows = 0
    for block, first, chunk in pieces(alignment, max_rows):
        assert not list(block.full_pieces())
        sequence_id_N = np.repeat(block.sequence_id_S, block.length_S)
        for n in range(len(chunk.logp_mu_NK)):
            rows += 1
            at = first + n
            key, token = (int(sequence_id_N[at]), int(block.position_N[at])), int(block.token_id_N[at])
            each = mu[key[0]]
            expected = {}
            ids = [a for a in each.observed.topk_ids_TK[key[1]].tolist() if a >= 0]
            for a, logp in zip(ids, each.observed.topk_logprobs_TK[key[1]].tolist(), strict=False):
                if kind != "own":
                    expected[a] = (logp, logp_pi[key][a])
                elif a in listed_pi[key]:
                    expected[a] = (logp, float(listed_pi[key][a]))
            expected.setdefault(token, (block.logp_mu_N[at], block.logp_pi_N[at]))
            pairs = zip(chunk.logp_mu_NK[n].tolist(), chunk.logp_pi_NK[n].tolist(), strict=True)
            found = [(a, b) for a, b in pairs if not math.isnan(a) or not math.isnan(b)]
            assert sorted(found) == sorted(expected.values())
            if kind != "own" and not math.isnan(overlaps[key]):
                assert chunk.tail_overlap_N[n] == pytest.approx(overlaps[key], rel=1e-5, abs=1e-6)
            else:
                assert chunk.tail_overlap_N is None or chunk.tail_overlap_N[n] == math.inf
    assert rows == sum(lengths)


def test_an_overlap_says_nothing_once_the_reference_lacks_one_of_the_ids(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    mu = topk_records([3], seed=1, k=4)
    pi = scored(mu, seed=2)
    pi[0].observed.topk_logprobs_TK[1, 2] = np.nan  # the engine had no answer
    ((_, _, chunk),) = pieces(Alignment(*(stored(tmp_path_factory.mktemp("side"), side) for side in (mu, pi))))
    assert np.isfinite(chunk.tail_overlap_N).tolist() == [True, False, True]
    assert np.isnan(chunk.logp_mu_NK[1, 2])
    assert np.array_equal(np.isnan(chunk.logp_mu_NK), np.isnan(chunk.logp_pi_NK))


def test_without_an_overlap_there_is_none(tmp_path_factory: pytest.TempPathFactory) -> None:
    mu = topk_records([3], seed=1, k=4)
    pi = scored(mu, seed=2, overlap=False)
    ((_, _, chunk),) = pieces(Alignment(*(stored(tmp_path_factory.mktemp("side"), side) for side in (mu, pi))))
    assert chunk.tail_overlap_N is None


def test_one_side_with_top_k_leaves_the_sampled_tokens(tmp_path_factory: pytest.TempPathFactory) -> None:
    mu, pi = topk_records([3], seed=1, k=4), [record(0, 3, seed=2, level="sampled")]
    alignment = Alignment(*(stored(tmp_path_factory.mktemp("side"), side) for side in (mu, pi)))
    assert not list(pieces(alignment))
    assert "both have sampled alone" in alignment.notes[0]
