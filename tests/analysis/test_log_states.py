"""Two and three policies of a log: sampled tokens that stand for μ exactly give each pair's exact TV and KL."""

from __future__ import annotations

import numpy as np
import pytest
from log_rows import log_batch

from mismatchscope.analysis.rows import Rejected, blocks_of
from mismatchscope.analysis.states import states_of, target_states

MU = np.array([0.5, 0.25, 0.25])
PI = np.array([0.4, 0.4, 0.2])
THETA = np.array([0.1, 0.3, 0.6])
DRAWN = [0, 0, 1, 2]  # each token as often as μ draws it


def columns(*, target: bool = True, rows: int = 2) -> dict[str, list[list[float]]]:
    policies = {"behavior": MU, "reference": PI} | ({"target": THETA} if target else {})
    return {f"{name}_logprobs": [np.log(policy)[DRAWN].tolist()] * rows for name, policy in policies.items()}


def tv(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).sum() / 2)


def kl(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * np.log(a / b)).sum())


def test_the_pair_of_sampler_and_trainer() -> None:
    (block,) = blocks_of(log_batch(**columns(target=False)), Rejected())
    states = states_of(block)
    assert states.sampled.shortfall.mean() == pytest.approx(tv(MU, PI))
    assert states.sampled.k3.mean() == pytest.approx(kl(MU, PI))
    assert target_states(block) is None


def test_the_other_pairs_of_three_policies() -> None:
    (block,) = blocks_of(log_batch(**columns()), Rejected())
    found = target_states(block)
    assert found is not None
    of_old, of_behavior = found
    assert of_old.columns["tv_estimate"].mean() == pytest.approx(tv(PI, THETA))
    assert of_old.columns["kl_estimate"].mean() == pytest.approx(kl(PI, THETA))
    assert of_behavior.sampled.shortfall.mean() == pytest.approx(tv(MU, THETA))
    assert of_behavior.columns == {}


@pytest.mark.parametrize("lost", [None, [float("nan")] * 4, [0.5] * 4])
def test_responses_without_a_target_are_in_the_first_pair_alone(lost: list[float] | None) -> None:
    (block,) = blocks_of(log_batch(**columns() | {"target_logprobs": [np.log(THETA)[DRAWN], lost]}), Rejected())
    found = target_states(block)
    assert found is not None
    assert [len(states.length_S) for states in (states_of(block), *found)] == [2, 1, 1]


def test_a_token_that_the_trainer_cannot_draw_has_no_weight() -> None:
    logp_pi = [float("-inf"), float("-inf"), np.log(0.4), np.log(0.2)]
    (block,) = blocks_of(log_batch(**columns(rows=1) | {"reference_logprobs": [logp_pi]}), Rejected())
    found = target_states(block)
    assert found is not None
    assert found[0].columns["tv_estimate"].tolist()[:2] == [0.0, 0.0]
    assert np.isfinite(found[0].columns["kl_estimate"]).all()
