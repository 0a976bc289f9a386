"""Which policy a column is, where its name does not say.

Shapes: S responses, R their tokens.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mismatchscope.analysis.distribution.column_policies import column_policies, step_drift
from mismatchscope.analysis.distribution.examined import ExaminedResponses
from mismatchscope.analysis.distribution.sample import ResponseSample
from mismatchscope.logs.source import ColumnOrigin

sys.path.append(str(Path(__file__).resolve().parents[3] / "benchmarks"))

from distribution_designs import Size, block_of, logp_of, sound

BEHAVIOR = ColumnOrigin("behavior_logprobs", "rollout_log_probs", "behavior")
OPEN = ColumnOrigin("reference_logprobs", "log_probs", "reference", settled=False, remark="π_old or π_θ")
TARGET = ColumnOrigin("target_logprobs", "train_log_probs", "target")


def examined(
    seed: int,
    *,
    drift: float = 0.0,
    steps: int = 16,
    a_step: int = 24,
    by_length: bool = False,
    spread: float = 0.3,
) -> ExaminedResponses:
    """The logarithm of the error rises by `drift` within a step; `by_length` sorts each step by length."""
    rng = np.random.default_rng([seed, 3])
    columns = sound(rng, Size(steps * a_step, (32, 128)))
    step_S = np.arange(steps * a_step) // a_step
    if by_length:
        columns = columns.responses(np.lexsort((columns.length_S, step_S)))
    place_S = (np.arange(steps * a_step) % a_step) / (a_step - 1)
    scale_S = 0.05 * np.exp(drift * place_S + spread * rng.normal(size=len(place_S)))
    if by_length:
        scale_S = scale_S * columns.length_S / 64
    error_R = rng.normal(size=len(columns.mu_R)) * scale_S[columns.sequence_R]
    block = block_of(replace(columns, pi_R=logp_of(columns.logit_R + error_R)))
    sample = ResponseSample()
    sample.add(replace(block, by_row={"step": step_S}))
    return sample.examined()


def decided(responses: ExaminedResponses, *others: ColumnOrigin) -> tuple[str, bool, str]:
    found = column_policies((BEHAVIOR, OPEN, *others), responses)[1]
    return found.policy, found.settled, found.remark


def test_a_policy_that_moves_within_steps_may_be_either() -> None:
    """Responses that finish later are sampled by older weights, or by a worker of other kernels: π_old differs more
    from them too."""
    policy, settled, remark = decided(examined(1, drift=0.8))
    assert (policy, settled) == ("unknown", False)
    assert remark.startswith("π_old or π_θ; within a step |Δ log p| changes by a factor of")
    assert "updated meanwhile looks so, and π_old" in remark


def test_a_policy_that_stands_still_may_be_either() -> None:
    policy, settled, remark = decided(examined(2, steps=60, spread=0.05))
    assert (policy, settled) == ("reference", False)
    assert "a π_θ that the updates of a step did not move" in remark


def test_a_wide_interval_tells_nothing() -> None:
    policy, settled, remark = decided(examined(3, steps=6, a_step=6))
    assert (policy, settled) == ("unknown", False)
    assert "cannot tell" in remark


def test_without_steps_nothing_is_told() -> None:
    assert step_drift(examined(4, steps=3)) is None
    assert decided(examined(4, steps=3))[:2] == ("unknown", False)


def test_beside_the_target_it_is_most_likely_the_old_policy() -> None:
    policy, settled, remark = decided(examined(5), TARGET)
    assert (policy, settled) == ("unknown", False)
    assert "most likely π_old" in remark


def test_settled_columns_stay_what_they_are() -> None:
    found = column_policies((BEHAVIOR, TARGET), examined(6))
    assert [(column.policy, column.settled) for column in found] == [("behavior", True), ("target", True)]


def test_an_empty_sample() -> None:
    assert step_drift(ResponseSample().examined()) is None


@pytest.mark.slow
@pytest.mark.parametrize("by_length", [False, True])
def test_no_rise_is_seen_where_there_is_none(*, by_length: bool) -> None:
    """At 0.1 %, more than 2 of 200 logs show one in one test of 1,000; sorted by length too."""
    seen = ["updated meanwhile" in decided(examined(seed, by_length=by_length))[2] for seed in range(200)]
    assert sum(seen) <= 2


def test_a_rise_is_seen() -> None:
    assert all("updated meanwhile" in decided(examined(seed, drift=0.6))[2] for seed in range(10))


def test_ranks_that_write_files_of_their_own_train_side_by_side() -> None:
    """Each half of a step is a rank's, and holds half of the drift."""
    responses = examined(7, drift=0.8, a_step=48)
    half_C = responses.sequence_id_C % 48 >= 24
    file_C = np.where(half_C, np.int64(1) << np.int64(40), 0)
    one = step_drift(responses)
    two = step_drift(replace(responses, sequence_id_C=responses.sequence_id_C + file_C))
    assert one is not None and two is not None
    assert one.value == pytest.approx(0.8, abs=0.15)
    assert two.value == pytest.approx(0.4, abs=0.15)
