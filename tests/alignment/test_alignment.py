"""What two traces share is found completely, and whatever is not the same is said."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aligned_rows import align, by_row
from builders import V, record, records, stored
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.alignment.alignment import Alignment
from mismatchscope.errors import EmptyComparisonError, MisalignedError, TraceError
from mismatchscope.records import Observed, SequenceRecord
from mismatchscope.traces import Trace

Store = Callable[..., Trace]


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return lambda batch, **changes: stored(tmp_path_factory.mktemp("side"), batch, **changes)


def full_at(seen: Observed, position: int) -> np.ndarray | None:
    found = np.flatnonzero(seen.full_row_R == position)
    return seen.full_logprobs_RV[found[0]] if len(found) else None


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 7), min_size=2, max_size=6),
    lost_mu=st.sets(st.integers(1, 5)),
    lost_pi=st.sets(st.integers(1, 5)),
    rejected=st.sets(st.tuples(st.integers(0, 5), st.integers(0, 6)), max_size=4),
    fraction=st.sampled_from([0.4, 1.0]),
    max_rows=st.integers(1, 9),
    max_states=st.integers(1, 4),
)
def test_every_shared_row_comes_out_once_with_its_own_figures(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    lost_mu: set[int],
    lost_pi: set[int],
    rejected: set[tuple[int, int]],
    fraction: float,
    max_rows: int,
    max_states: int,
) -> None:
    mu, pi = (
        {each.sequence_id: each for each in records(lengths, seed=seed, fraction=fraction)} for seed in (1, 2)
    )
    for number, (sequence_id, position) in enumerate(sorted(rejected)):
        if sequence_id < len(lengths) and position < lengths[sequence_id]:
            (mu, pi)[number % 2][sequence_id].observed.logprob_T[position] = (np.nan, np.inf)[number // 2 % 2]
    mu = {key: each for key, each in mu.items() if key not in lost_mu}
    pi = {key: each for key, each in pi.items() if key not in lost_pi}
    shared = mu.keys() & pi.keys()
    expected = {}
    for key in shared:
        for position, token in enumerate(mu[key].response_token_ids.tolist()):
            seen = mu[key].observed, pi[key].observed
            logp = tuple(side.logprob_T[position] for side in seen)
            if not any(math.isnan(x) or x == math.inf for x in logp):
                expected[key, position] = (token, logp, tuple(full_at(side, position) for side in seen))

    traces = [stored(tmp_path_factory.mktemp("side"), list(side.values())) for side in (mu, pi)]
    if not expected:
        with pytest.raises(EmptyComparisonError):
            align(*traces)
        return
    alignment = align(*traces)
    rows = by_row(alignment, max_rows, 2 * 4 * V * max_states)
    assert rows.keys() == expected.keys()
    for key, (token, logp, full) in expected.items():
        assert (rows[key]["token"], rows[key]["logp"], rows[key]["prompt"]) == (token, logp, key[0] // 2)
        if None in [None if side is None else 0 for side in full]:
            assert rows[key]["full"] is None
        else:
            np.testing.assert_array_equal(rows[key]["full"], full)
    counts = alignment.counts
    compared = {key for key, _ in expected}
    assert (counts.matched_sequences, counts.sequences) == (len(shared), len(compared))
    assert counts.prompts == len({key // 2 for key in compared})
    left = {key: sum(found == key for found, _ in expected) for key in compared}
    assert counts.partial_sequences == sum(left[key] < lengths[key] for key in compared)
    assert counts.tokens == len(expected)
    assert counts.rejected == sum(lengths[key] for key in shared) - len(expected)
    assert counts.unmatched_behavior == len(mu) - len(shared)
    assert counts.unmatched_reference == len(pi) - len(shared)


def test_a_rejected_row_is_named(store: Store) -> None:
    mu, pi = records([4, 4]), records([4, 4], seed=1)
    pi[1].observed.logprob_T[2] = np.nan
    alignment = align(store(mu), store(pi))
    assert alignment.counts.rejected == 1
    assert "position 2 of sequence 1, where the reference's is nan" in alignment.notes[0]


def test_a_log_prob_of_minus_infinity_is_legal(store: Store) -> None:
    pi = records([4], seed=1)
    pi[0].observed.logprob_T[2] = -np.inf
    pi[0].observed.full_logprobs_RV[2, pi[0].response_token_ids[2]] = -np.inf
    alignment = align(store(records([4])), store(pi))
    assert (alignment.counts.tokens, alignment.counts.rejected) == (4, 0)
    assert by_row(alignment)[0, 2]["logp"][1] == -np.inf


def test_nothing_in_common_is_an_error(store: Store) -> None:
    mu, pi = store([record(0, 3)]), store([record(1, 3)])
    with pytest.raises(EmptyComparisonError, match=r"\(1 sequences\).*no sequence in common"):
        align(mu, pi)
    with pytest.raises(EmptyComparisonError, match="leave no token"):
        align(store([record(0, 0)]), store([record(0, 0)]))


def with_tokens(each: SequenceRecord, prompt: list[int], response: list[int]) -> SequenceRecord:
    each.prompt_token_ids = np.array(prompt, np.int32)
    each.response_token_ids = np.array(response, np.int32)
    each.observed = Observed(np.full(len(response), -1.0))
    return each


@pytest.mark.parametrize(
    ("mu", "pi", "said"),
    [
        (([1, 2], [3, 4, 5]), ([1, 2], [3, 9, 5]), "at position 1 the behaviour has token 4, the reference 9"),
        (([1, 2], [3, 4, 5]), ([1, 2], [4, 5, 6]), r"shifted by -1"),
        (([1, 2], [3, 4, 5]), ([1, 2], [4, 5]), r"shifted by -1"),
        (([1, 2], [3, 4, 5]), ([1, 2], [2, 3, 4]), r"shifted by \+1"),
        (([1, 2], [3, 4, 5]), ([1], [2, 3, 4, 5]), "response begins 1 tokens earlier"),
        (([1, 2], [3, 4, 5]), ([1, 2, 3, 4], [5]), "response begins 2 tokens later"),
        (([1, 2], [3, 4, 5]), ([1, 2], [3, 4]), "only the behaviour has the last token of the response, 5"),
        (([1, 2], [3, 4]), ([1, 2], [3, 4, 0]), "only the reference has the last token of the response, 0"),
        (([1, 2], [3, 4, 5]), ([1, 2], [3]), "only the behaviour has the last 2 tokens"),
        (([0, 1, 2], [3, 4]), ([1, 2], [3, 4]), "only the behaviour's prompt begins with token 0"),
        (([1, 2], [3, 4]), ([1, 7], [3, 4]), r"prompts differ from position 1 on \(2 and 2 tokens\)"),
        (([1, 2], [3, 4]), ([1, 2, 5, 6], [3, 4]), r"prompts differ from position 2 on \(2 and 4 tokens\)"),
    ],
)
def test_other_tokens_are_an_error_that_names_what_happened(
    store: Store, mu: tuple[list[int], list[int]], pi: tuple[list[int], list[int]], said: str
) -> None:
    same = [record(key, 2, level="sampled") for key in (0, 1)]
    sides = [store([*same, with_tokens(record(5, 2), *side)]) for side in (mu, pi)]
    with pytest.raises(MisalignedError, match=rf"Sequence 5 .*{said}.*Sequences that differ: 1 of 3") as raised:
        align(*sides)
    assert raised.value.hint


def test_a_mask_that_one_side_was_cut_by_is_pointed_at(store: Store) -> None:
    sides = [store([with_tokens(record(5, 2), [1, 2], response)]) for response in ([3], [3, 4, 5])]
    with pytest.raises(MisalignedError, match="only the reference has the last 2 tokens") as raised:
        align(*sides)
    assert raised.value.hint is not None and "a mask that ends in zeros" in raised.value.hint


def test_tokens_that_contradict_their_sequences_are_an_error(store: Store) -> None:
    mu, pi = store(records([5, 3])), store(records([5, 3], seed=1))
    path = pi.path / "tokens.parquet"
    table = pq.read_table(path)
    ids = table["token_id"].to_numpy().copy()
    ids[6] = (ids[6] + 1) % V
    pq.write_table(table.set_column(2, table.schema.field("token_id"), pa.array(ids)), path)
    with pytest.raises(TraceError, match=r"disagree at position 1 of sequence 1: token_id is"):
        align(mu, Trace.open(pi.path, verify=False))
    pq.write_table(table.take(pa.array([1, 0, 2, 3, 4, 5, 6, 7])), path)
    with pytest.raises(TraceError, match=r"disagree at position 0 of sequence 0: position is 1 and 0"):
        align(mu, Trace.open(pi.path, verify=False))


def test_a_distribution_with_nan_is_an_error(store: Store) -> None:
    pi = records([5], seed=1)
    pi[0].observed.full_logprobs_RV[3, 2] = np.nan
    with pytest.raises(TraceError, match="distribution 3 holds NaN"):
        align(store(records([5])), store(pi))


def shifted_pair(
    shift: int, *, noise: float, tokens: int = 40
) -> tuple[list[SequenceRecord], list[SequenceRecord]]:
    """Two sides that agree up to `noise` once the reference is read `shift` tokens further."""
    mu, pi = records([tokens] * 5, level="sampled"), records([tokens] * 5, level="sampled")
    rng = np.random.default_rng(3)
    for each in pi:
        logp_T = each.observed.logprob_T
        each.observed.logprob_T = np.roll(logp_T, shift) + rng.normal(size=tokens) * noise
    return mu, pi


@pytest.mark.parametrize("shift", [-1, 1])
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.3])
def test_log_probs_shifted_by_one_are_an_error(store: Store, shift: int, noise: float) -> None:
    mu, pi = (store(side) for side in shifted_pair(shift, noise=noise))
    with pytest.raises(MisalignedError, match=rf"shifted by one token.*read {re.escape(f'{shift:+d}')} token"):
        align(mu, pi)


@pytest.mark.parametrize("noise", [0.0, 0.3, 30.0])
def test_a_large_mismatch_is_no_shift(store: Store, noise: float) -> None:
    mu, pi = (store(side) for side in shifted_pair(0, noise=noise))
    assert align(mu, pi).counts.tokens == 200


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("position", [0, 1, 2, -2, -1])
def test_one_bad_position_near_an_end_is_no_shift(store: Store, side: int, position: int) -> None:
    """Every other token is certain, so a shift that loses the bad ones at the border would look perfect."""
    pair = records([20] * 10, level="sampled"), records([20] * 10, level="sampled")
    for batch in pair:
        for each in batch:
            each.observed.logprob_T = np.full(20, -1e-4)
    for each in pair[side]:
        each.observed.logprob_T[position] = -6.0
    assert align(*map(store, pair)).counts.tokens == 200


def test_too_few_tokens_say_nothing_of_a_shift(store: Store) -> None:
    mu, pi = (store(side) for side in shifted_pair(1, noise=0.0, tokens=6))
    assert align(mu, pi).counts.tokens == 30


@pytest.mark.slow
def test_a_long_trace_is_streamed_in_bounded_pieces(store: Store) -> None:
    """200 000 tokens: no block exceeds its rows, no piece its bytes, and every token comes by."""
    k, limit = 8, 2**20
    mu, pi = (records([2000] * 100, seed=seed, level="topk", k=k) for seed in (1, 1))
    alignment = Alignment(store(mu), store(pi))
    tokens = 0
    for block in alignment.blocks(rows=4096):
        assert len(block.token_id_N) <= 4096
        for part, observed in block.topk_pieces(limit):
            assert observed.logp_mu_NK.nbytes + observed.logp_pi_NK.nbytes <= limit
            tokens += part.stop - part.start
    assert tokens == 200_000


def test_the_two_sides_may_lie_in_other_row_groups(store: Store) -> None:
    """Sequences that one side lacks, of any length, in blocks of any size."""
    lengths = [1, 40, 3, 0, 7, 120, 2, 9]
    mu, pi = (records(lengths, seed=seed) for seed in (1, 2))
    alignment = Alignment(store(mu[1:]), store([pi[at] for at in (0, 2, 3, 5, 7)]))
    expected = by_row(alignment)
    assert {key for key, _ in expected} == {2, 5, 7}
    for rows in (1, 10, 1000):
        found = by_row(alignment, rows)
        assert found.keys() == expected.keys()
        assert all(found[key]["logp"] == expected[key]["logp"] for key in expected)
        counts = alignment.counts
        assert (counts.matched_sequences, counts.unmatched_behavior, counts.unmatched_reference) == (4, 3, 1)
        assert counts.sequences == 3  # one is empty
