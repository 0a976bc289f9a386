"""Sweeps say at every threshold what the rule itself says there, whatever the blocks."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mismatchscope.measures.corrections import Corrections, RatioBlock
from mismatchscope.measures.corrections.setting import Setting
from mismatchscope.measures.corrections.sweep_grids import SWEEPS
from mismatchscope.measures.corrections.sweeps import Sweeps, sweep_settings


def arrays(seed: int, sequences: int) -> list[dict[str, np.ndarray]]:
    """Some with far ratios, some with near ones."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(sequences):
        length, spread = int(rng.integers(1, 9)), float(10 ** rng.uniform(-4, 0.3))
        mu = rng.uniform(-3, -0.1, length)
        d = np.minimum(rng.standard_t(3, length) * spread, -mu / 2)
        r = np.minimum(rng.standard_normal(length) * spread, -mu / 2)
        found.append({"mu": mu, "d": d, "r": r, "a": np.full(length, rng.choice([-1.0, 0.0, 1.0]))})
    return found


def block_of(rows: list[dict[str, np.ndarray]], three: bool = True) -> RatioBlock:
    mu, d, r, a = (np.concatenate([row[key] for row in rows]) for key in ("mu", "d", "r", "a"))
    offsets = np.cumsum([0, *(len(row["d"]) for row in rows)])
    if not three:
        return RatioBlock(d, offsets, logp_mu_T=mu)
    return RatioBlock(d, offsets, target_log_ratio_T=r, advantage_T=a, logp_mu_T=mu)


def swept(*blocks: RatioBlock) -> Sweeps:
    corrections, sweeps = Corrections(binned_at=sweep_settings()), Sweeps()
    for block in blocks:
        corrections.add(block)
        sweeps.add(block)
    return sweeps


@settings(max_examples=8)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 11))
def test_every_point_is_the_rule_at_that_threshold(seed: int, sequences: int, cut: int) -> None:
    rows = arrays(seed, sequences)
    cut = min(cut, sequences - 1)
    merged = swept(block_of(rows[cut:]))
    merged.merge(swept(block_of(rows[:cut])))
    whole = Corrections([Setting(s.rule, s.parameters(p)) for s in SWEEPS for p in s.points])
    whole.add(block_of(rows))
    expected = iter(whole.results())
    for sweep in merged.results():
        for point in sweep.points:
            direct = next(expected)
            assert point.name == direct.name
            for name, value in asdict(direct).items():
                assert getattr(point, name) == (
                    pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value
                )
    assert next(expected, None) is None


def test_looser_thresholds_never_keep_less() -> None:
    for sweep in swept(block_of(arrays(3, 200))).results():
        kept = [point.kept_tokens for point in sweep.points]
        assert kept == sorted(kept), sweep.name


def test_what_one_block_lacks_no_sweep_has() -> None:
    rows = arrays(1, 6)
    names = {sweep.name for sweep in swept(block_of(rows), block_of(rows, three=False)).results()}
    assert "ppo_clip" not in names and "dppo_tv_mask" not in names
    assert {"icepop", "ipo_mask", "k3_rejection"} <= names
    assert swept(block_of(rows)).results() and not Sweeps().results()
    other_way = swept(block_of(rows, three=False), block_of(rows))
    assert {sweep.name for sweep in other_way.results()} == names
