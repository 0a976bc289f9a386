"""Traces whose figures cannot all be true end a comparison; storage and rounding do not do that to a sound one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders import V, records, stored

from mismatchscope.comparison.compare_traces import compare
from mismatchscope.errors import NotComparableError
from mismatchscope.records import Evidence, SequenceRecord
from mismatchscope.traces import Trace

LENGTHS = [9, 4, 12]
ROWS = sum(LENGTHS)
K = 5


def batch(seed: int, level: str) -> list[SequenceRecord]:
    """Of one policy a seed; with top-k evidence both sides show μ's ids."""
    made = records(LENGTHS, seed=seed, level=level, k=K)
    if level == "topk" and seed:
        full = records(LENGTHS, seed=seed)
        for pi, mu, whole in zip(made, records(LENGTHS, level=level, k=K), full, strict=True):
            ids_TK = mu.observed.topk_ids_TK
            pi.observed.topk_ids_TK = ids_TK
            pi.observed.topk_logprobs_TK = np.take_along_axis(
                whole.observed.full_logprobs_RV.astype(float), ids_TK, axis=1
            )
    return made


def compared(directory: Path, mu: list[SequenceRecord], pi: list[SequenceRecord]) -> None:
    traces: list[Trace] = []
    for name, side in (("mu", mu), ("pi", pi)):
        k = {"evidence": Evidence("topk", K)} if side[0].observed.topk_ids_TK is not None else {}
        traces.append(stored(directory / name, side, **k))
    compare(*traces)


def affine(side: list[SequenceRecord]) -> None:
    """What a trainer writes that scales its column: 3x − 2."""
    for each in side:
        each.observed.logprob_T = 3 * each.observed.logprob_T - 2


@pytest.mark.parametrize("side", ["mu", "pi"])
@pytest.mark.parametrize("level", ["full", "topk"])
def test_a_column_that_its_own_distributions_deny_is_counted(tmp_path: Path, side: str, level: str) -> None:
    mu, pi = batch(0, level), batch(0, level)
    affine(mu if side == "mu" else pi)
    with pytest.raises(NotComparableError, match="column logprob: it is not what") as raised:
        compared(tmp_path, mu, pi)
    message = raised.value.message
    assert str(tmp_path / side / "trace" / "tokens.parquet") in message
    assert (f"{ROWS} of {ROWS} rows" in message) == (level == "full")


@pytest.mark.parametrize("levels", [("topk", "sampled"), ("sampled", "full"), ("topk", "full")])
def test_evidence_that_one_side_has_alone_is_held_against_its_column(
    tmp_path: Path, levels: tuple[str, str]
) -> None:
    mu, pi = batch(0, levels[0]), batch(0, levels[1])
    affine(mu if levels[0] == "topk" else pi)
    with pytest.raises(NotComparableError, match="column logprob: it is not what"):
        compared(tmp_path, mu, pi)


def test_the_worst_row_is_named(tmp_path: Path) -> None:
    pi = batch(1, "full")
    pi[1].observed.logprob_T[2] -= 0.01
    pi[2].observed.logprob_T[7] -= 0.02
    with pytest.raises(NotComparableError, match=r"at 2 of 25 rows; worst at row 20 \(position 7 of sequence 2\)"):
        compared(tmp_path, batch(0, "full"), pi)


def stored_as(dtype: str, values: np.ndarray) -> np.ndarray:
    if dtype != "bfloat16":
        return values.astype(dtype).astype(np.float64)
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000  # to the nearest, ties to even
    return rounded.astype(np.uint32).view(np.float32).astype(np.float64)


@pytest.mark.parametrize("level", ["full", "topk"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_column_that_was_stored_in_less_precision_is_sound(tmp_path: Path, dtype: str, level: str) -> None:
    mu, pi = batch(0, level), batch(1, level)
    for each in (*mu, *pi):
        each.observed.logprob_T = stored_as(dtype, each.observed.logprob_T)
    compared(tmp_path, mu, pi)


def test_another_precision_excuses_no_more_than_it_explains(tmp_path: Path) -> None:
    pi = batch(1, "full")
    for each in pi:
        each.observed.logprob_T = stored_as("bfloat16", each.observed.logprob_T * 1.05)
    with pytest.raises(NotComparableError, match="column logprob"):
        compared(tmp_path, batch(0, "full"), pi)


def test_numbers_that_stand_for_minus_infinity_agree_with_it(tmp_path: Path) -> None:
    pi = batch(1, "full")
    token = pi[0].response_token_ids[3]
    pi[0].observed.full_logprobs_RV[3, token] = -np.inf
    pi[0].observed.full_logprobs_RV[3] -= np.logaddexp.reduce(pi[0].observed.full_logprobs_RV[3])
    pi[0].observed.logprob_T[3] = np.finfo(np.float32).min
    compared(tmp_path, batch(0, "full"), pi)


def with_ids(change: Callable[[np.ndarray], None]) -> Callable[[list[SequenceRecord]], None]:
    return lambda side: change(side[2].observed.topk_ids_TK)


def set_last(value: int) -> Callable[[np.ndarray], None]:
    def change(ids_TK: np.ndarray) -> None:
        ids_TK[4, -1] = value

    return change


def repeat_first(ids_TK: np.ndarray) -> None:
    ids_TK[4, -1] = ids_TK[4, 0]


def empty_list(side: list[SequenceRecord]) -> None:
    side[2].observed.topk_ids_TK[4] = -1


def hide_likeliest(side: list[SequenceRecord]) -> None:
    """The sampled token was the likeliest, and is not in the list."""
    seen = side[2].observed
    seen.logprob_T[4] = seen.topk_logprobs_TK[4, 0]
    ids = set(range(V)) - {int(side[2].response_token_ids[4])}
    seen.topk_ids_TK[4] = sorted(ids)[:K]


@pytest.mark.parametrize("side", ["mu", "pi"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_ids(set_last(V)), f"an id that no token has, of a vocabulary of {V}, .* row 17 .*: {V}"),
        (with_ids(repeat_first), "an id is listed twice, at 1 of 25 rows; worst at row 17"),
        (empty_list, "the list is empty, at 1 of 25 rows"),
    ],
)
def test_lists_of_ids_that_no_policy_has_are_refused(
    tmp_path: Path, side: str, change: Callable[[list[SequenceRecord]], None], message: str
) -> None:
    mu, pi = batch(0, "topk"), batch(1, "topk")
    for each in pi:
        each.observed.topk_ids_TK = each.observed.topk_ids_TK.copy()
    change(mu if side == "mu" else pi)
    with pytest.raises(NotComparableError, match=message):
        compared(tmp_path, mu, pi)


def test_the_top_k_holds_a_sampled_token_that_is_likelier_than_its_last(tmp_path: Path) -> None:
    mu = batch(0, "topk")
    hide_likeliest(mu)
    with pytest.raises(NotComparableError, match="likelier than the last listed and not among them, at 1 of"):
        compared(tmp_path, mu, batch(1, "sampled"))


def test_a_manifest_states_the_length_of_its_lists(tmp_path: Path) -> None:
    mu, pi = stored(tmp_path / "mu", batch(0, "topk"), evidence=Evidence("topk", 2)), batch(1, "topk")
    with pytest.raises(NotComparableError, match="longer than the manifest's k of 2, at 25 of 25 rows"):
        compare(mu, stored(tmp_path / "pi", pi))


@pytest.mark.parametrize("value", [-0.1, 1.5, np.inf])
def test_a_tail_overlap_is_a_probability(tmp_path: Path, value: float) -> None:
    pi = batch(1, "topk")
    for each in pi:
        each.observed.tail_overlap_T = np.full(len(each.response_token_ids), 0.01)
    pi[0].observed.tail_overlap_T[1] = value
    with pytest.raises(NotComparableError, match=r"column tail_overlap: .*, at 1 of 25 rows; worst at row 1 "):
        compared(tmp_path, batch(0, "topk"), pi)


def test_lists_that_are_not_compared_are_weighed_too(tmp_path: Path) -> None:
    mu = batch(0, "topk")
    mu[0].observed.topk_logprobs_TK[3] = -0.1
    mu[0].observed.topk_ids_TK[3] = [each for each in range(V) if each != mu[0].response_token_ids[3]][:K]
    with pytest.raises(NotComparableError, match="the probabilities sum to more than one, at 1 of"):
        compared(tmp_path, mu, batch(1, "sampled"))


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_zeros_on_both_sides_are_no_measurement(tmp_path: Path, zero: float) -> None:
    mu, pi = batch(0, "sampled"), batch(1, "sampled")
    for each in (*mu, *pi):
        each.observed.logprob_T[:] = zero
    with pytest.raises(NotComparableError, match=r"every log-prob is 0, on both sides and at all 25 rows"):
        compared(tmp_path, mu, pi)
    pi[0].observed.logprob_T[0] = -0.3
    compared(tmp_path / "but one", mu, pi)


def test_a_masked_row_may_hold_anything(tmp_path: Path) -> None:
    mu, pi = batch(0, "full"), batch(1, "full")
    for each in pi:
        each.mask_T = np.ones(len(each.response_token_ids), dtype=bool)
    pi[1].mask_T[2] = False
    pi[1].observed.logprob_T[2] = 0.0
    compared(tmp_path, mu, pi)
