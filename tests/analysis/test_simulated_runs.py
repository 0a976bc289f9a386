"""The simulated runs keep their word: what other tests take for the truth is the truth."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_runs import RunDesign, simulated_run

from mismatchscope.logs.columns import BY_ROW, column_type

ASYNCHRONOUS = RunDesign(steps=20, lags=(0, 1, 2), per_lag=0.5, turns=2, bad_worker=1, cache_from=10)


@pytest.mark.parametrize("design", [RunDesign(steps=40), ASYNCHRONOUS], ids=["plain", "asynchronous"])
def test_tokens_are_drawn_from_mu(design: RunDesign) -> None:
    run = simulated_run(design)
    ratio_N = np.exp(run.logp_pi_N - run.logp_mu_N)
    error = ratio_N.std() / np.sqrt(len(ratio_N))
    assert abs(ratio_N.mean() - 1) < 4 * error
    shortfall_N = np.maximum(0, 1 - ratio_N)
    assert abs(shortfall_N.mean() - run.tv_N.mean()) < 4 * (shortfall_N - run.tv_N).std() / np.sqrt(len(ratio_N))


def test_blocks_are_the_run() -> None:
    run = simulated_run(ASYNCHRONOUS)
    blocks = list(run.blocks(100))
    assert np.array_equal(np.concatenate([block.logp_mu_N for block in blocks]), run.logp_mu_N[run.mask_N])
    trained = [np.repeat(block.by_row["trainer_version"], block.recorded_S) for block in blocks]
    lag = np.concatenate(trained) - run.version_N
    assert set(lag.tolist()) == {0, 1, 2}
    assert run.version_N.min() >= 0
    assert (run.tv_N[lag == 2].mean() > 1.5 * run.tv_N[lag == 0].mean()).all()


def test_rows_have_the_form_of_every_log() -> None:
    run = simulated_run(ASYNCHRONOUS)
    rows = run.rows(5, 9)
    assert rows.num_rows == 4
    for field in rows.schema:
        assert field.type == column_type(field.name, double=True)
    assert set(BY_ROW) - set(rows.schema.names) == {"policy_version", "truncated"}
    block = run.block(5, 9)
    assert np.array_equal(rows["behavior_logprobs"].flatten().to_numpy(), block.logp_R["behavior"])


def test_the_same_seed_gives_the_same_run() -> None:
    first, second, other = simulated_run(seed=3), simulated_run(seed=3), simulated_run(seed=4)
    assert np.array_equal(first.logp_mu_N, second.logp_mu_N)
    assert len(other.logp_mu_N) != len(first.logp_mu_N)
