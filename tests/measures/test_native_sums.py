"""The compiled sums that native metrics are made of, against numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from mismatchscope.measures import kernel
from mismatchscope.measures.native.batch_sums import sums_by_batch
from mismatchscope.measures.native.registry import EVERY_METRIC, TRAINERS

N = 3000
OFFSETS_S1 = np.array([0, 1, 100, 250, 2500, 2990, N])
BATCH_S = np.array([0, 0, 1, 1, 2, 0])


def log_probs(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Of both policies, [N] each, with what is beyond clamps and floats at tokens 0, 5 to 8 and N - 1."""
    rng = np.random.default_rng(0)
    mu_N = -rng.exponential(1.0, N) * (rng.random(N) < 0.7)
    pi_N = np.minimum(mu_N + rng.standard_normal(N) * rng.choice([0.0, 1e-9, 0.02, 0.8, 5.0], N), 0.0)
    mu_N[[7, 8]] = -60.0, -720.0
    pi_N[[5, 6, 7, 8, N - 1]] = -30.0, -100.0, -0.5, -0.1, -np.inf
    return mu_N.astype(kind), pi_N.astype(kind)


def masks() -> dict[str, np.ndarray | None]:
    """[N] each; no response is left empty."""
    rng = np.random.default_rng(1)
    place_N, last_N = np.arange(N), np.repeat(OFFSETS_S1[1:] - 1, np.diff(OFFSETS_S1))
    first_N = np.repeat(OFFSETS_S1[:-1], np.diff(OFFSETS_S1))
    return {
        "all": None,
        "holes": (rng.random(N) < 0.8) | (place_N == 0) | (place_N == N - 1),
        "padded on the right": (place_N - first_N) * 4 <= (last_N - first_N) * 3,
        "padded on the left": (place_N - first_N) * 4 >= last_N - first_N,
        "turns": ((place_N - first_N) % 300 < 170) & ((place_N - first_N) != 3),
    }


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("kind", ["float64", "float32"])
@pytest.mark.parametrize("mask", masks())
def test_compiled_sums_are_those_of_numpy(
    compiled_kernel: None, mask: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mu_N, pi_N = log_probs(kind)
    counts_N = masks()[mask]
    if counts_N is not None:
        mu_N[~counts_N] = np.nan  # padding
    compiled = sums_by_batch(mu_N, pi_N, OFFSETS_S1, BATCH_S, EVERY_METRIC, counts_N=counts_N)
    monkeypatch.setattr(kernel, "library", lambda: None)
    plain = sums_by_batch(mu_N, pi_N, OFFSETS_S1, BATCH_S, EVERY_METRIC, counts_N=counts_N)
    assert compiled.keys() == plain.keys()
    for batch, sums in compiled.items():
        for of in ("total", "largest", "smallest"):
            mine, theirs = getattr(sums, of), getattr(plain[batch], of)
            assert mine.keys() == theirs.keys()
            for name, value in mine.items():
                assert value == pytest.approx(theirs[name], rel=1e-11, abs=1e-13, nan_ok=True), (batch, of, name)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_metric_is_the_same_whichever_others_are_asked_for(compiled_kernel: None, trainer: str) -> None:
    mu_N, pi_N = log_probs("float64")
    together = sums_by_batch(mu_N, pi_N, OFFSETS_S1, BATCH_S, EVERY_METRIC)[1]
    for metric in TRAINERS[trainer]:
        alone = sums_by_batch(mu_N, pi_N, OFFSETS_S1, BATCH_S, (metric,))[1]
        assert metric.value(alone) == metric.value(together), metric.name


def test_there_is_only_what_was_asked_for() -> None:
    sums = sums_by_batch(*log_probs("float64"), OFFSETS_S1, BATCH_S, TRAINERS["openrlhf"])[1]
    assert sums.total.keys() == {"tokens", "log_ratio"}
    assert not sums.largest and not sums.smallest


@pytest.mark.parametrize("offsets_S1", [[0, 10, N + 1], [-1, 10, N], [0, 20, 10]])
def test_boundaries_are_of_tokens_that_are_there(offsets_S1: list[int]) -> None:
    with pytest.raises(ValueError, match="must rise"):
        sums_by_batch(*log_probs("float64"), np.array(offsets_S1), BATCH_S[:2], EVERY_METRIC)


def test_both_policies_have_the_same_tokens() -> None:
    mu_N, pi_N = log_probs("float64")
    with pytest.raises(ValueError, match="the same tokens"):
        sums_by_batch(mu_N, pi_N[1:], OFFSETS_S1, BATCH_S, EVERY_METRIC)
    with pytest.raises(ValueError, match="the same tokens"):
        sums_by_batch(mu_N, pi_N, OFFSETS_S1, BATCH_S, EVERY_METRIC, counts_N=np.ones(1, dtype=bool))
