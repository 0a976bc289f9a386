"""What two traces share is found completely, and whatever is not the same is said."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import V, record, records, stored
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.alignment.matching import Alignment, align
from mismatchscope.errors import EmptyComparisonError, MisalignedError, NotComparableError, TraceError
from mismatchscope.records import Observed, SequenceRecord
from mismatchscope.traces import ModelFacts, Trace

Store = Callable[..., Trace]


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return lambda batch, **changes: stored(tmp_path_factory.mktemp("side"), batch, **changes)


def by_row(alignment: Alignment, **limits: int) -> dict[tuple[int, int], dict[str, Any]]:
    """Everything the chunks say of full evidence, one entry a row."""
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    for chunk in alignment.chunks(**limits):
        full = {int(row): at for at, row in enumerate(chunk.index_M)} if chunk.index_M is not None else {}
        for n in range(len(chunk.token_id_N)):
            key = (int(chunk.sequence_id_N[n]), int(chunk.position_N[n]))
            assert key not in rows
            rows[key] = {
                "prompt": int(chunk.prompt_id_N[n]),
                "token": int(chunk.token_id_N[n]),
                "logp": (chunk.logp_mu_N[n], chunk.logp_pi_N[n]),
                "full": (chunk.logp_mu_MV[full[n]], chunk.logp_pi_MV[full[n]]) if n in full else None,
            }
    assert list(rows) == sorted(rows)
    return rows


def full_at(seen: Observed, position: int) -> np.ndarray | None:
    found = np.flatnonzero(seen.full_row_R == position)
    return seen.full_logprobs_RV[found[0]] if len(found) else None


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
    rows = by_row(alignment, max_rows=max_rows, max_bytes=2 * 4 * V * max_states)
    assert rows.keys() == expected.keys()
    full_states = 0
    for key, (token, logp, full) in expected.items():
        assert (rows[key]["token"], rows[key]["logp"], rows[key]["prompt"]) == (token, logp, key[0] // 2)
        if None in [None if side is None else 0 for side in full]:
            assert rows[key]["full"] is None
        else:
            full_states += 1
            np.testing.assert_array_equal(rows[key]["full"], full)
    counts = alignment.counts
    assert (counts.sequences, counts.prompts) == (len(shared), len({key // 2 for key in shared}))
    assert (counts.tokens, counts.full_states) == (len(expected), full_states)
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
    with pytest.raises(MisalignedError, match=rf"Sequence 5 .*{said}.*1 of 3 sequences differ") as raised:
        align(*sides)
    assert raised.value.hint


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
        list(align(store(records([5])), store(pi)).chunks())


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


def widened(batch: list[SequenceRecord], mass: float) -> list[SequenceRecord]:
    """The same distributions with two more ids, which share this mass."""
    for each in batch:
        logp_RV = each.observed.full_logprobs_RV
        with np.errstate(divide="ignore"):
            extra = np.full((len(logp_RV), 2), np.log(mass / 2), dtype=np.float32)
        each.observed.full_logprobs_RV = np.hstack([logp_RV, extra])
    return batch


@pytest.mark.parametrize("wide", [0, 1])
def test_padding_without_mass_is_cut_off(store: Store, wide: int) -> None:
    sides = [records([5]), records([5], seed=1)]
    sides[wide] = widened(sides[wide], 0.0)
    sizes = [V, V]
    sizes[wide] = V + 2
    tokenizers = ("t", "other files")
    traces = [
        store(side, model=ModelFacts(name="tiny", vocabulary_size=size), tokenizer_sha256=tokenizer)
        for side, size, tokenizer in zip(sides, sizes, tokenizers, strict=True)
    ]
    alignment = align(*traces)
    (chunk,) = alignment.chunks()
    assert chunk.logp_mu_MV.shape == chunk.logp_pi_MV.shape == (5, V)
    assert any("padding was cut off" in note for note in alignment.notes)


@pytest.mark.parametrize("mass", [1e-8, 1e-3])
def test_padding_with_mass_is_a_leak_unless_negligible(store: Store, mass: float) -> None:
    alignment = align(store(records([5])), store(widened(records([5], seed=1), mass)))
    (chunk,) = alignment.chunks()
    if mass < 1e-6:
        assert chunk.logp_pi_MV.shape == (5, V)
    else:
        assert chunk.logp_mu_MV.shape == chunk.logp_pi_MV.shape == (5, V + 2)
        assert np.isneginf(chunk.logp_mu_MV[:, V:]).all()
        np.testing.assert_allclose(np.exp(chunk.logp_pi_MV[:, V:]).sum(axis=1), mass, rtol=1e-5)
        assert any("counts as leak" in note for note in alignment.notes)


def test_another_vocabulary_is_an_error(store: Store) -> None:
    mu = store(records([5], level="sampled"))
    small = ModelFacts(vocabulary_size=4)
    with pytest.raises(MisalignedError, match=r"Token id \d+ lies outside the reference's vocabulary of 4"):
        align(mu, store(records([5], level="sampled"), model=small))
    larger = ModelFacts(vocabulary_size=V + 100)
    assert "padded" in align(mu, store(records([5], level="sampled"), model=larger)).notes[0]
    with pytest.raises(MisalignedError, match="the tokenizers differ too"):
        align(mu, store(records([5], level="sampled"), model=larger, tokenizer_sha256="other"))


@pytest.mark.parametrize(
    ("mu", "pi", "comparable"),
    [
        ({"policy": "raw"}, {"policy": "raw"}, True),
        ({"policy": "processed"}, {"policy": "support"}, True),
        ({"policy": "processed"}, {"policy": "raw"}, True),
        (
            {"policy": "processed", "sampling": {"temperature": 0.7, "top_p": 1.0, "top_k": 0}},
            {"policy": "raw"},
            False,
        ),
        (
            {"policy": "processed", "sampling": {"temperature": 1.0, "top_p": 0.9, "top_k": 0}},
            {"policy": "raw"},
            False,
        ),
        ({"policy": "processed", "sampling": None}, {"policy": "raw"}, False),
        ({"policy": "raw"}, {"policy": "processed", "temperature": 0.7}, False),
        ({"policy": "raw"}, {"policy": "support"}, False),
        ({"policy": "support"}, {"policy": "processed"}, False),
    ],
)
def test_only_the_same_question_is_answered(
    store: Store, mu: dict[str, Any], pi: dict[str, Any], comparable: bool
) -> None:
    traces = store(records([5]), **mu), store(records([5], seed=1), **pi)
    if comparable:
        assert align(*traces).counts.tokens == 5
    else:
        with pytest.raises(NotComparableError, match=f"holds the {mu['policy']} policy") as raised:
            align(*traces)
        assert f"score the {mu['policy']} behaviour trace" in raised.value.hint


def test_what_is_worth_knowing_is_noted(store: Store) -> None:
    mu = store(records([5], fraction=0.5))
    assert align(mu, mu).notes == []
    pi = records([5], seed=1, level="sampled")
    pi[0].prompt_id = 9
    notes = align(mu, store(pi, temperature=0.7, tokenizer_sha256="other")).notes
    for said in (
        "divided by 1.0 on one side and by 0.7",
        "tokenizer files",
        "number their prompts",
        "sampled alone",
    ):
        assert any(said in note for note in notes)
    stale = ModelFacts(name="tiny", weights_sha256="older", vocabulary_size=V)
    assert align(mu, store(records([5], seed=1), model=stale)).counts.tokens == 5


def test_a_long_trace_is_streamed_in_bounded_chunks(store: Store) -> None:
    """200 000 tokens: no chunk exceeds its bound, in rows or in bytes, and every token comes by."""
    k = 8
    mu, pi = (records([2000] * 100, seed=seed, level="topk", k=k) for seed in (1, 1))
    alignment = align(store(mu), store(pi))
    tokens = 0
    limit = 2**20
    for chunk in alignment.chunks(max_rows=4096, max_bytes=limit):
        assert len(chunk.token_id_N) <= 4096
        assert chunk.logp_mu_NK.nbytes + chunk.logp_pi_NK.nbytes <= limit
        tokens += len(chunk.token_id_N)
    assert tokens == 200_000
