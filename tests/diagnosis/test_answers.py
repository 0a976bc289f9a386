"""Faults planted in the log-probs of random policies, and what is said of them; sound pairs, and nothing said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mismatchscope.diagnosis.evidence import TokenEvidence
from mismatchscope.diagnosis.results import diagnose

SEQUENCES, LENGTH, VOCABULARY = 40, 50, 48
ROUNDING = 0.02
"""Standard deviation of what either side adds to a logit: about that of bfloat16."""


def log_softmax(logits_NV: np.ndarray) -> np.ndarray:
    shifted = logits_NV - logits_NV.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


class Pair:
    """μ draws from its own logits, π has the same ones but for rounding and what a test plants."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        tokens = SEQUENCES * LENGTH
        self.logits_NV = self.rng.normal(size=(tokens, VOCABULARY)) * self.rng.uniform(0.5, 4, size=(tokens, 1))
        logp_NV = log_softmax(self.rounded())
        drawn_N = (logp_NV + self.rng.gumbel(size=logp_NV.shape)).argmax(1)
        self.token_N = drawn_N
        self.logp_mu_N = logp_NV[np.arange(tokens), drawn_N]

    def rounded(self) -> np.ndarray:
        return self.logits_NV + self.rng.normal(scale=ROUNDING, size=self.logits_NV.shape)

    def scored(self, temperature: float = 1.0) -> np.ndarray:
        logp_NV = log_softmax(self.rounded() / temperature)
        return logp_NV[np.arange(len(logp_NV)), self.token_N]

    def evidence(self, logp_pi_N: np.ndarray, **others: Any) -> TokenEvidence:
        sequence_N = np.repeat(np.arange(SEQUENCES), LENGTH)
        return TokenEvidence(
            self.logp_mu_N,
            logp_pi_N,
            sequence_N,
            np.tile(np.arange(LENGTH), SEQUENCES),
            np.arange(SEQUENCES),
            token_N=self.token_N,
            **others,
        )


def missing(pair: Pair) -> TokenEvidence:
    logp_pi_N = pair.scored()
    logp_pi_N[[3, 99, 400]] = np.nan
    return pair.evidence(logp_pi_N)


def off_by_one(pair: Pair) -> TokenEvidence:
    by_sequence = pair.scored().reshape(SEQUENCES, LENGTH)
    return pair.evidence(np.roll(by_sequence, 1, axis=1).ravel())


def temperature(pair: Pair) -> TokenEvidence:
    return pair.evidence(pair.scored(temperature=1.3))


def worker(pair: Pair) -> TokenEvidence:
    logp_pi_N, other_N = pair.scored(), np.repeat(np.arange(SEQUENCES) % 4 == 2, LENGTH)
    logp_pi_N[other_N] += pair.rng.normal(scale=0.5, size=other_N.sum()) * (1 - np.exp(logp_pi_N[other_N]))
    names_S = np.array([f"worker-{number % 4}" for number in range(SEQUENCES)])
    return pair.evidence(np.minimum(logp_pi_N, 0), metadata={"worker": names_S})


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("plant", "cause"),
    [(missing, "not_finite"), (off_by_one, "off_by_one"), (temperature, "temperature"), (worker, "worker")],
)
def test_a_planted_fault_is_among_what_is_named(
    plant: Callable[[Pair], TokenEvidence], cause: str, seed: int
) -> None:
    causes, _ = diagnose(plant(Pair(seed)))
    assert cause in [each.cause for each in causes]


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_named_in_a_sound_pair(seed: int) -> None:
    pair = Pair(100 + seed)
    names_S = pair.rng.permutation(np.repeat([f"worker-{number}" for number in range(4)], SEQUENCES // 4))
    causes, _ = diagnose(pair.evidence(pair.scored(), metadata={"worker": names_S}))
    assert {each.cause for each in causes} <= {"ordinary_rounding"}


def test_two_faults_at_once_are_both_found() -> None:
    pair = Pair(7)
    logp_pi_N = pair.scored(temperature=1.3)
    logp_pi_N[::97] = np.nan
    causes, _ = diagnose(pair.evidence(logp_pi_N))
    assert {"not_finite", "temperature"} <= {each.cause for each in causes}
