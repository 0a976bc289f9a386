"""The metrics of a batch against float64 formulas, their names against the page."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from mismatchscope.logs.recorder_metrics import METRICS, PREFIX, batch_metrics

ROOT = Path(__file__).resolve().parents[2]
LENGTH_B = np.array([4, 0, 3, 2])


def test_every_metric_by_its_formula() -> None:
    rng = np.random.default_rng(0)
    mu, old, new = (rng.uniform(-3, -0.1, 9) for _ in range(3))
    mask = np.array([1, 1, 0, 1, 1, 1, 1, 1, 1], dtype=bool)
    found = batch_metrics(LENGTH_B, mask, mu, old, new, np.array([np.nan, 1, 9, 3, 2, 2, 2, 2, 2]))
    d = old - mu
    log_rho = np.array([d[[0, 1, 3]].sum(), d[4:7].sum(), d[7:].sum()])
    rho, rho_y, gap = np.exp(d[mask]), np.exp(log_rho), np.abs(np.exp(old) - np.exp(mu))[mask]
    wanted = {
        "tokens": 8,
        "responses": 4,
        "rejected_tokens": 0,
        "token/tv": np.maximum(1 - rho, 0).mean(),
        "token/kl_k1": -d[mask].mean(),
        "token/kl_k3": (rho - 1 - d[mask]).mean(),
        "token/abs_logprob_diff": np.abs(d[mask]).mean(),
        "token/abs_logprob_diff_max": np.abs(d[mask]).max(),
        "token/prob_diff": gap.mean(),
        "token/prob_diff_max": gap.max(),
        "token/ratio": rho.mean(),
        "token/ratio_max": rho.max(),
        "sequence/log_ratio": log_rho.mean(),
        "sequence/log_ratio_std": log_rho.std(),
        "sequence/ratio": rho_y.mean(),
        "sequence/tv": np.maximum(1 - rho_y, 0).mean(),
        "sequence/ess_fraction": rho_y.sum() ** 2 / (3 * (rho_y**2).sum()),
        "update/abs_logprob_diff": np.abs(new - old)[mask].mean(),
        "lag/mean": 2.0,
        "lag/max": 3.0,
    }
    assert wanted.keys() == METRICS.keys()
    assert found == pytest.approx({f"{PREFIX}{name}": value for name, value in wanted.items()}, rel=1e-12)


def test_what_cannot_be_computed_is_left_out_and_never_0() -> None:
    nan = np.full(9, np.nan)
    found = batch_metrics(LENGTH_B, None, nan, nan, nan, nan)
    assert found == {f"{PREFIX}tokens": 0, f"{PREFIX}responses": 4, f"{PREFIX}rejected_tokens": 9}


def test_illegal_log_probs_are_counted_and_their_response_has_no_ratio() -> None:
    mu = np.array([-1.0, -np.inf, -1, -1, np.nan, -1, -1, 0.5, -1])
    old = np.full(9, -1.0)
    old[8] = -np.inf  # legal: π_old gives a token of μ no mass
    found = batch_metrics(LENGTH_B, None, mu, old)
    assert found[f"{PREFIX}rejected_tokens"] == 3 and found[f"{PREFIX}tokens"] == 6
    assert not any("sequence/" in name for name in found)  # each response has a rejected token
    assert found[f"{PREFIX}token/tv"] == pytest.approx(1 / 6)


def test_large_sums_do_not_overflow_the_effective_sample_size() -> None:
    mu, old = np.full(2000, -2.0), np.full(2000, -1.0)
    found = batch_metrics(np.array([1000, 1000]), None, mu, old)
    assert found[f"{PREFIX}sequence/ess_fraction"] == pytest.approx(1)


def test_the_page_lists_every_metric() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "generate_recorder_metrics.py"))
    page = (ROOT / "docs" / "recorder.md").read_text(encoding="utf-8")
    assert page == script["with_table"](page), "run scripts/generate_recorder_metrics.py"
    assert all(f"`{PREFIX}{name}`" in page for name in METRICS)
