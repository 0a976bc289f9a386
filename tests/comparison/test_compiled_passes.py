"""Statistics of a pair are the same from the compiled passes and from numpy, edge cases and all."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from mismatchscope.comparison.states import States
from mismatchscope.comparison.statistics import PairStatistics
from mismatchscope.measures import kernel
from mismatchscope.measures.positions import PositionProfile
from mismatchscope.measures.selected_states import POINTS
from mismatchscope.measures.sketches import QuantileSketch


def block(seed: int) -> States:
    """Sequences with everything that a column may hold: zeros in runs, −inf, whole numbers, constant tails."""
    rng = np.random.default_rng(seed)
    length_S = rng.integers(1, 90, 30)
    offsets_S1, n = np.concatenate([[0], np.cumsum(length_S)]), int(length_S.sum())
    mu_N = -rng.exponential(1.0, n) * (rng.random(n) < 0.7)
    pi_N = np.minimum(mu_N + rng.standard_normal(n) * rng.choice([0.0, 1e-13, 1e-5, 0.02, 3.0], n), 0.0)
    mu_N[rng.random(n) < 0.02] = -25.0
    pi_N[rng.random(n) < 0.01] = -np.inf
    pi_N[rng.random(n) < 0.05] = 0.0
    for s in range(5):
        middle = (offsets_S1[s] + offsets_S1[s + 1]) // 2
        mu_N[middle : offsets_S1[s + 1]] = -0.5 if s % 2 else 0.0
    mu_N = np.where(rng.random(n) < 0.3, mu_N.astype(np.float16), mu_N).astype(np.float64)
    return States(
        sequence_id_S=rng.permutation(10**6)[:30] + 100 * seed,
        prompt_id_S=np.arange(30) // 4,
        cluster_S=np.arange(30) // 4 + seed,
        whole_S=rng.random(30) < 0.8,
        length_S=length_S,
        position_N=np.concatenate([np.arange(length) for length in length_S]) + 3,
        token_id_N=rng.integers(0, 99, n),
        logp_mu_N=mu_N,
        logp_pi_N=pi_N,
        recorded_pi_N=pi_N,
        certified_lower_N=None,
        tv_upper_N=None,
        columns={},
        topk=False,
    )


def statistics() -> PairStatistics:
    found = PairStatistics()
    for seed in range(3):
        found.add(block(seed))
    return found


def check_equal(one: Any, other: Any, path: str = "") -> None:
    if isinstance(one, np.ndarray):
        if one.dtype.kind == "f":
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13, err_msg=path)
        else:
            np.testing.assert_array_equal(one, other, err_msg=path)
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for name in one:
            check_equal(one[name], other[name], f"{path}.{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for at, (a, b) in enumerate(zip(one, other, strict=True)):
            check_equal(a, b, f"{path}.{at}")
    elif dataclasses.is_dataclass(one) or hasattr(one, "__dict__"):
        check_equal(vars(one), vars(other), path)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-11, abs=1e-13, nan_ok=True), path
    else:
        assert one == other, path


SHOWN = (
    *("sums", "shares", "tv_lower", "corrections", "probabilities", "best_tv", "estimated_tv_by_index", "largest"),
    *("fillers", "outside_band", "sequences", "tokens", "impossible", "identical"),
)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("few", [True, False], ids=["values kept", "values in bins"])
def test_compiled_passes_and_numpy_agree(few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernel.backend() != "c":
        pytest.skip("there is no C compiler")
    if not few:
        monkeypatch.setattr(QuantileSketch.__init__, "__defaults__", (10, 11))
        monkeypatch.setattr(PositionProfile.__init__, "__defaults__", (10,))
    compiled = statistics()
    monkeypatch.setattr(kernel, "library", lambda: None)
    plain = statistics()
    for name in SHOWN:
        check_equal(getattr(compiled, name), getattr(plain, name), name)
    assert compiled.points.n > POINTS
    np.testing.assert_allclose(compiled.points.points(), plain.points.points(), rtol=1e-12)
    for name, sketch in compiled.sketches.items():
        levels = (0.01, 0.5, 0.9, 0.99)
        assert sketch.quantiles(levels) == pytest.approx(
            plain.sketches[name].quantiles(levels), rel=1e-9, abs=1e-15
        ), name
        assert sketch.n == plain.sketches[name].n
