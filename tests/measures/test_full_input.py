"""What `divergences` accepts, refuses and leaves in place."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from blocks import normal

from mismatchscope.errors import EmptyComparisonError
from mismatchscope.measures.full import Divergences, divergences

INF = np.inf


# --- token ids -----------------------------------------------------------------------------------------------


def test_log_ratio_of_the_given_tokens(backend):
    mu, pi = normal(4, 1000), normal(4, 1000, seed=1)
    ids = np.array([0, 999, 3, 3])
    logp_mu, logp_pi = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (mu.astype(float), pi.astype(float)))
    expected = (logp_pi - logp_mu)[np.arange(4), ids]
    assert divergences(mu, pi, ids).log_ratio == pytest.approx(expected, abs=1e-6)
    assert divergences(mu, pi).log_ratio is None


def test_log_ratio_outside_a_support_is_not_a_number_to_trust(backend):
    mu, pi = normal(3, 50), normal(3, 50)
    mu[0, 7] = mu[2, 7] = pi[1, 7] = pi[2, 7] = -INF
    assert divergences(mu, pi, np.full(3, 7)).log_ratio == pytest.approx([INF, -INF, np.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, 50], "row 1: token id 50 is outside the vocabulary of 50"),
        ([-1, 0], "row 0: token id -1"),
        ([0], "one for each of 2 rows"),
        ([0.0, 1.0], "must be integers"),
    ],
)
def test_bad_token_ids(backend, ids, message):
    with pytest.raises(ValueError, match=message):
        divergences(normal(2, 50), normal(2, 50), np.array(ids))


# --- what is read, and where ---------------------------------------------------------------------------------


def test_strided_rows_are_read_in_place(backend):
    mu, pi = normal(12, 1000), normal(12, 1000, seed=1)
    rows = (slice(10, 1, -3), slice(0, 901))
    result = divergences(mu[rows], pi[rows])
    assert np.array_equal(result.tv, divergences(mu[rows].copy(), pi[rows].copy()).tv)


def test_nothing_as_long_as_a_row_is_allocated(compiled_kernel):
    mu, pi = normal(40, 20000), normal(40, 20000, seed=1)
    divergences(mu[:1], pi[:1])
    tracemalloc.start()
    divergences(mu, pi, np.zeros(40, int), threads=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < mu[0].nbytes


@pytest.mark.parametrize("array", [normal(4, 20)[:, ::2], normal(20, 4).T, normal(10), normal(1, 2, 3)])
def test_a_layout_that_is_not_rows_of_ids_is_refused(backend, array):
    with pytest.raises(ValueError, match=r"not adjacent in memory|not \[states, vocabulary\]"):
        divergences(array, array)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.uint16, ">f4"])
def test_other_types_are_refused(backend, dtype):
    with pytest.raises(TypeError, match="float32 and bfloat16"):
        divergences(normal(2, 5).astype(dtype), normal(2, 5))


def test_shapes_must_agree_and_hold_something(backend):
    with pytest.raises(ValueError, match="shapes must be the same"):
        divergences(normal(2, 5), normal(2, 6))
    for shape in ((0, 5), (5, 0)):
        with pytest.raises(EmptyComparisonError):
            divergences(normal(*shape), normal(*shape))


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_number_of_threads_changes_nothing(backend, threads):
    mu, pi = normal(23, 600), normal(23, 600, seed=1)
    expected = divergences(mu, pi)
    result = divergences(mu, pi, threads=threads)
    for name in fused.FIELDS:
        assert np.array_equal(getattr(result, name), getattr(expected, name))
    with pytest.raises(ValueError, match="threads is 0"):
        divergences(mu, pi, threads=0)


def test_torch_tensors_and_bfloat16(backend):
    torch = pytest.importorskip("torch")
    mu, pi = torch.from_numpy(normal(4, 1300, scale=3)), torch.from_numpy(normal(4, 1300, scale=3, seed=1))
    ids = torch.tensor([5, 6, 7, 8])
    plain = divergences(mu.numpy(), pi.numpy(), ids.numpy())
    assert np.array_equal(divergences(mu.requires_grad_(), pi, ids).log_ratio, plain.log_ratio)

    rounded = mu.detach().bfloat16()
    for low_mu, low_pi in ((rounded, pi), (pi, rounded), (rounded, pi.bfloat16())):
        low = divergences(low_mu, low_pi, ids)
        wide = divergences(low_mu.float(), low_pi.float(), ids)
        for name in (*fused.FIELDS, "log_ratio"):
            assert getattr(low, name) == pytest.approx(getattr(wide, name), rel=1e-6, abs=1e-12)
    with pytest.raises(TypeError, match="float16"):
        divergences(pi.half(), pi)
