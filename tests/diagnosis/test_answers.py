"""What is said of pairs of random policies: nothing of sound ones, and both of two faults."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.diagnosis.results import diagnose
from tests.support.random_policies import LENGTH, SEQUENCES, VOCABULARY, Pair, log_softmax


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_named_in_a_sound_pair(seed: int) -> None:
    pair = Pair(100 + seed)
    names_S = pair.rng.permutation(np.repeat([f"worker-{number}" for number in range(4)], SEQUENCES // 4))
    lag_S, padding_S = pair.rng.integers(0, 3, SEQUENCES), pair.rng.integers(0, 20, SEQUENCES)
    facts = {"worker": names_S, "lag": lag_S, "padding": padding_S}
    causes, answer = diagnose(pair.evidence(pair.scored(), floor=None, metadata=facts))
    assert {each.cause for each in causes} <= {"ordinary_rounding"}
    assert answer.floor_source == "prior" and answer.level == "sampled"


def test_two_faults_at_once_are_both_found() -> None:
    pair = Pair(7)
    pi_N = pair.scored(temperature=1.3)
    pi_N[::97] = np.nan
    causes, _ = diagnose(pair.evidence(pi_N))
    assert {"not_finite", "temperature"} <= {each.cause for each in causes}


def test_the_sequences_that_are_off_are_said() -> None:
    pair = Pair(8)
    pi_SL = pair.scored().reshape(SEQUENCES, LENGTH)
    pi_SL[10:20] = np.roll(pi_SL[10:20], 1, axis=1)  # a quarter of the log is shifted
    (cause, *_), answer = diagnose(pair.evidence(pi_SL.ravel()))
    assert cause.cause == "off_by_one" and cause.sequences == tuple(range(10, 20))
    assert answer.left is not None and answer.left.value == pytest.approx(1, abs=0.2)


def test_a_row_that_is_the_next_one_s_in_a_quarter_of_the_log() -> None:
    pair = Pair(9)
    pi_SL = pair.scored().reshape(SEQUENCES, LENGTH)
    pi_SL[10:20] = pi_SL[11:21]
    (cause, *_), _ = diagnose(pair.evidence(pi_SL.ravel()))
    assert cause.cause == "row_order"


def test_weights_that_are_newer_from_a_place_of_its_own_in_each_response_on() -> None:
    pair = Pair(10)
    place_N = np.repeat(pair.rng.integers(14, 36, SEQUENCES), LENGTH)
    causes, _ = diagnose(pair.evidence(pair.off(np.where(pair.position_N >= place_N, 0.4, 0.0))))
    assert {each.cause for each in causes} == {"weights_changed_in_response", "routing"}


def test_older_weights_of_all_responses_are_not_called_a_head() -> None:
    """What is mostly a function of the token can be either; but at step 0 there are no older weights."""
    pair = Pair(12)
    pi_N = pair.of_sampled(log_softmax(pair.rounded() + pair.rng.normal(0, 0.3, VOCABULARY)))
    pi_N = np.minimum(pi_N + pair.rng.normal(0, 0.22, len(pi_N)) * (1 - np.exp(pi_N)), 0.0)
    found, _ = diagnose(pair.evidence(pi_N))
    assert {"head", "stale_weights"} <= {each.cause for each in found}
    step_S = pair.rng.permutation(np.arange(SEQUENCES) % 4)
    with_steps, _ = diagnose(pair.evidence(pi_N, metadata={"step": step_S}))
    assert "head" in {each.cause for each in with_steps}
    assert "stale_weights" not in {each.cause for each in with_steps}


def test_a_few_tokens_are_too_few_to_tell() -> None:
    pair = Pair(11)
    evidence = pair.evidence(pair.scored())
    few = evidence.but(
        logp_mu_N=evidence.logp_mu_N[:20],
        logp_pi_N=evidence.logp_pi_N[:20],
        sequence_N=evidence.sequence_N[:20],
        position_N=evidence.position_N[:20],
        prompt_S=evidence.prompt_S[:1],
        token_N=pair.token_N[:20],
        previous_N=None,
    )
    causes, answer = diagnose(few)
    assert not causes and answer.code == "cannot_tell" and "that takes 30" in answer.why


def test_where_nothing_is_left_to_explain_no_second_cause_is_named() -> None:
    """What rounding makes may have a course of its own: here it is smaller towards the end of the responses."""
    pair = Pair(41)
    off_N = pair.sequence_N % 4 == 0
    z_N = pair.rng.normal(size=len(off_N)) * np.where(off_N, 1.0, 0.02 * (pair.position_N < LENGTH // 2))
    pi_N = np.minimum(pair.of_sampled(pair.mu_NV) + z_N * (1 - np.exp(pair.of_sampled(pair.mu_NV))), 0.0)
    workers_S = np.where(np.arange(SEQUENCES) % 4 == 0, "w0", "w1")
    causes, answer = diagnose(pair.evidence(pi_N, metadata={"worker": workers_S}))
    assert [each.cause for each in causes] == ["worker"]
    assert answer.left is not None and answer.left.value is not None and answer.left.value < 1.25
