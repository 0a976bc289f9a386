"""One planted fault for each detector, in the log-probs of random policies, and that this detector names it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mismatchscope.diagnosis.catalogue import causes
from mismatchscope.diagnosis.detector import detectors, not_shown
from mismatchscope.diagnosis.evidence import OwnGap, TokenEvidence
from mismatchscope.diagnosis.peeling import peel
from mismatchscope.diagnosis.results import diagnose
from tests.support.random_policies import (
    FINE,
    LENGTH,
    SEQUENCES,
    VOCABULARY,
    Pair,
    log_softmax,
)

Plant = Callable[[], TokenEvidence]
PLANTS: dict[str, tuple[str, Plant]] = {}
"""By detector: a cause that it is to name, and evidence that has it."""


def plant(detector: str, cause: str) -> Callable[[Plant], Plant]:
    def register(make: Plant) -> Plant:
        PLANTS[detector] = cause, make
        return make

    return register


@plant("values.no_numbers", "not_finite")
def missing() -> TokenEvidence:
    pair = Pair(1)
    pi_N = pair.scored()
    pi_N[[3, 99, 400]] = np.nan
    return pair.evidence(pi_N)


@plant("values.another_unit", "probabilities")
def probabilities() -> TokenEvidence:
    pair = Pair(2)
    return pair.evidence(np.exp(pair.scored()))


@plant("values.fill_values", "filler")
def zeros() -> TokenEvidence:
    pair = Pair(3)
    pi_N = pair.scored()
    pi_N[pair.rng.random(len(pi_N)) < 0.05] = 0.0
    return pair.evidence(pi_N)


@plant("values.tool_text", "mask")
def foreign_runs() -> TokenEvidence:
    pair = Pair(4)
    pi_N, mu_N = pair.scored(), pair.of_sampled(pair.mu_NV)
    for sequence in range(0, SEQUENCES, 2):
        run = slice(sequence * LENGTH + 10, sequence * LENGTH + 18)
        pi_N[run] = pair.rng.uniform(-14, -7, size=8)
    return pair.evidence(pi_N, mu_N)


@plant("values.likeliest", "top1_logprob")
def likeliest() -> TokenEvidence:
    pair = Pair(5)
    # States with two candidates, as models have them at most places.
    pair.logits_NV[:, :2] += pair.rng.uniform(8, 11, size=(len(pair.logits_NV), 2))
    pair.mu_NV = log_softmax(pair.rounded())
    pair.draw()
    return pair.evidence(pair.scored(), pair.mu_NV.max(1))


@plant("alignment.moved", "off_by_one")
def moved() -> TokenEvidence:
    pair = Pair(6)
    return pair.evidence(np.roll(pair.scored().reshape(SEQUENCES, LENGTH), 1, axis=1).ravel())


@plant("alignment.moved_from_a_token_on", "retokenised")
def moved_later() -> TokenEvidence:
    pair = Pair(7)
    pi_SL = pair.scored().reshape(SEQUENCES, LENGTH)
    for sequence in range(0, SEQUENCES, 2):
        pi_SL[sequence, 20:] = np.roll(pi_SL[sequence, 20:], 1)
    return pair.evidence(pi_SL.ravel())


@plant("alignment.rows_of_others", "row_order")
def other_rows() -> TokenEvidence:
    pair = Pair(8)
    pi_SL = pair.scored().reshape(SEQUENCES, LENGTH)
    pi_SL[: SEQUENCES // 4] = np.roll(pi_SL[: SEQUENCES // 4], 1, axis=0)
    return pair.evidence(pi_SL.ravel())


@plant("position.versions_in_response", "weights_changed_in_response")
def older_beginnings() -> TokenEvidence:
    """At a place of its own in each response, so that no position tells."""
    pair = Pair(31)
    first_S = pair.rng.integers(5, LENGTH - 5, SEQUENCES)
    older_N = pair.position_N < first_S[pair.sequence_N]
    return pair.evidence(pair.off(np.where(older_N, 0.1, 0.0)), version_N=np.where(older_N, 6, 7))


@plant("sampler.log_odds", "temperature")
def temperature() -> TokenEvidence:
    pair = Pair(9)
    return pair.evidence(pair.scored(temperature=1.3))


@plant("sampler.proportional_logits", "temperature")
def temperature_of_tops() -> TokenEvidence:
    pair = Pair(10)
    return pair.top(log_softmax(pair.rounded() / 1.1))


def _cut(pair: Pair, k: int) -> None:
    """μ as a sampler with top-k leaves it, and tokens drawn from that."""
    order_NV = np.argsort(-pair.mu_NV, axis=1)
    np.put_along_axis(pair.mu_NV, order_NV[:, k:], -np.inf, axis=1)
    pair.mu_NV = pair.mu_NV - np.log(np.exp(pair.mu_NV).sum(1, keepdims=True))
    pair.draw()


@plant("sampler.one_way", "truncation")
def cut() -> TokenEvidence:
    pair = Pair(11)
    _cut(pair, 8)
    return pair.evidence(pair.scored())


@plant("sampler.cut_off", "truncation")
def cut_whole() -> TokenEvidence:
    pair = Pair(12)
    _cut(pair, 8)
    return pair.whole(log_softmax(pair.rounded()))


@plant("sampler.missing_mass", "padded_vocabulary")
def padded() -> TokenEvidence:
    pair = Pair(13)
    return pair.whole(log_softmax(pair.rounded()) - np.log1p(0.2))


@plant("sampler.seen_ids", "penalty")
def penalty() -> TokenEvidence:
    pair = Pair(14)
    seen_NV = np.zeros((len(pair.token_N), VOCABULARY), dtype=bool)
    for n in range(1, len(seen_NV)):
        if n % LENGTH:
            seen_NV[n] = seen_NV[n - 1]
            seen_NV[n, pair.token_N[n - 1]] = True
    logp_NV = log_softmax(pair.rounded())
    return pair.top(log_softmax(np.where(seen_NV, 1.3 * logp_NV, logp_NV)), k=VOCABULARY)


@plant("precision.stored", "stored_precision")
def stored() -> TokenEvidence:
    pair = Pair(15, FINE)
    short_N = pair.scored().astype(np.float32).view(np.uint32) + 0x8000 & 0xFFFF0000
    return pair.evidence(short_N.astype(np.uint32).view(np.float32).astype(np.float64))


@plant("precision.grid", "head_precision")
def coarse_head() -> TokenEvidence:
    pair = Pair(16, FINE)
    return pair.whole(log_softmax(np.rint(pair.rounded() * 16) / 16))


@plant("precision.unlike_itself", "dropout")
def noisy() -> TokenEvidence:
    pair = Pair(35)
    return pair.evidence(pair.off(0.3), own_gap=OwnGap("reference", 0.25, 0.08))


@plant("position.boundary", "window")
def window() -> TokenEvidence:
    pair = Pair(17)
    return pair.evidence(pair.off(np.where(pair.position_N >= 25, 0.02 * (pair.position_N - 24), 0.0)))


@plant("position.change_in_response", "weights_changed_in_response")
def changed() -> TokenEvidence:
    pair = Pair(18)
    place_N = np.repeat(pair.rng.integers(16, 34, SEQUENCES), LENGTH)
    return pair.evidence(pair.off(np.where(pair.position_N < place_N, 0.4, 0.0)))


@plant("grouping.metadata", "worker")
def worker() -> TokenEvidence:
    pair = Pair(19)
    other_N = np.repeat(np.arange(SEQUENCES) % 4 == 2, LENGTH)
    names_S = np.array([f"worker-{number % 4}" for number in range(SEQUENCES)])
    return pair.evidence(pair.off(np.where(other_N, 0.5, 0.0)), metadata={"worker": names_S})


@plant("grouping.from_a_response_on", "stale_weights")
def missed_sync() -> TokenEvidence:
    pair = Pair(34)
    return pair.evidence(pair.off(np.where(pair.sequence_N >= 15, 0.5, 0.0)), in_order=True)


@plant("routing.some_responses", "stale_weights")
def some() -> TokenEvidence:
    pair = Pair(20)
    return pair.evidence(pair.off(np.where(np.repeat(np.arange(SEQUENCES) % 3 == 0, LENGTH), 0.5, 0.0)))


@plant("attention.before_the_response", "context")
def another_beginning() -> TokenEvidence:
    """Most tokens are less likely, some by far, from the first one on."""
    pair = Pair(32)
    pi_N = pair.scored()
    size_N = np.abs(pair.rng.normal(size=len(pi_N))) * np.exp(pair.rng.normal(-2.5, 1.2, len(pi_N)))
    z_N = np.where(pair.rng.random(len(pi_N)) < 0.8, -size_N, size_N)
    return pair.evidence(np.minimum(pi_N + z_N * (1 - np.exp(pi_N)), 0.0))


@plant("attention.course_of_the_levels", "rope")
def other_angles() -> TokenEvidence:
    """Logits that are off in proportion to the position."""
    pair = Pair(33)
    size_N1 = 0.008 * (pair.position_N + 11)[:, None]
    logits_NV = pair.rounded() + size_N1 * pair.rng.normal(size=pair.logits_NV.shape)
    return pair.top(log_softmax(logits_NV)).but(prompt_length_S=np.full(SEQUENCES, 10))


@plant("weights_or_attention.beyond_the_body", "head")
def another_head() -> TokenEvidence:
    pair = Pair(21)
    head_VH = pair.head_VH + pair.rng.normal(scale=0.15, size=pair.head_VH.shape)
    return pair.whole(log_softmax(pair.rounded(pair.state_NH @ head_VH.T)))


@plant("weights_or_attention.function_of_the_token", "head")
def offsets_of_tokens() -> TokenEvidence:
    pair = Pair(22)
    return pair.evidence(pair.of_sampled(log_softmax(pair.rounded() + pair.rng.normal(0, 0.3, VOCABULARY))))


@plant("weights_or_attention.noise", "dropout")
def dropout() -> TokenEvidence:
    pair = Pair(23)
    return pair.evidence(pair.off(0.3 * np.exp(pair.rng.normal(scale=0.6, size=len(pair.token_N)))))


@plant("weights_or_attention.decoded_tokens", "fp8_cache")
def rounded_cache() -> TokenEvidence:
    pair = Pair(24, FINE)
    return pair.evidence(pair.off(np.where(pair.position_N > 0, 0.5, 0.0)))


@plant("weights_or_attention.along_the_sequence", "rope")
def growing() -> TokenEvidence:
    pair = Pair(25)
    return pair.evidence(pair.off(0.06 * (1.0 + pair.position_N) ** 1.2))


@pytest.mark.parametrize("detector", PLANTS)
def test_a_planted_fault_is_found_by_its_detector(detector: str) -> None:
    cause, make = PLANTS[detector]
    found = [finding for finding in peel(make()).findings if finding.detector == detector]
    assert found and cause in found[0].causes
    assert found[0].why.endswith(".") and found[0].explained_N.any()


def test_every_detector_has_a_planted_fault() -> None:
    assert set(PLANTS) == {each.name for each in detectors()}


def test_a_cause_without_a_detector_is_said_with_the_experiment_that_tells() -> None:
    named = {cause for each in detectors() for cause in each.causes}
    assert named.isdisjoint(not_shown()) and named | set(not_shown()) == set(causes())
    pair = Pair(30)
    _, answer = diagnose(pair.evidence(pair.scored()))
    for code in not_shown():
        (line,) = (each for each in answer.not_asked if causes()[code].title in each)
        assert line.startswith("not from this evidence") and "; to tell, " in line
