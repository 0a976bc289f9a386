"""What `divergences` accepts, refuses and leaves in place."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from dataclasses import fields

import numpy as np
import pytest
from blocks import normal

from mismatchscope.errors import EmptyComparisonError
from mismatchscope.measures.full import Divergences, divergences

INF = np.inf


def same(result: Divergences, expected: Divergences) -> None:
    for field in fields(Divergences):
        value, other = getattr(result, field.name), getattr(expected, field.name)
        np.testing.assert_array_equal(value, other, err_msg=field.name)


# --- token ids -----------------------------------------------------------------------------------------------


def test_log_ratio_of_the_given_tokens(backend):
    mu, pi = normal(4, 1000), normal(4, 1000, seed=1)
    ids = np.array([0, 999, 3, 3])
    logp_mu, logp_pi = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (mu.astype(float), pi.astype(float)))
    expected = (logp_pi - logp_mu)[np.arange(4), ids]
    assert divergences(mu, pi, ids).log_ratio == pytest.approx(expected, abs=1e-6)
    assert divergences(mu, pi).log_ratio is None
    stored = divergences(logp_mu, logp_pi, ids.tolist(), normalised=True)
    assert stored.log_ratio == pytest.approx(expected, rel=1e-12)


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


def test_ids_that_lie_apart_are_measured_like_others(backend):
    mu, pi = normal(4, 200), normal(4, 200, seed=1)
    expected = divergences(mu[:, ::2].copy(), pi[:, ::2].copy(), [3, 4, 5, 6])
    same(divergences(mu[:, ::2], np.asfortranarray(pi[:, ::2]), [3, 4, 5, 6]), expected)


@pytest.mark.parametrize("dtype", [np.float16, ">f4", np.float64])
def test_every_floating_point_type_is_measured_exactly(backend, dtype):
    mu, pi = normal(3, 700, scale=3), normal(3, 700, scale=3, seed=1)
    result = divergences(mu.astype(dtype), pi.astype(dtype), [1, 2, 3])
    exact = divergences(mu.astype(dtype).astype(float), pi.astype(dtype).astype(float), [1, 2, 3])
    for field in fields(Divergences):
        assert getattr(result, field.name) == pytest.approx(getattr(exact, field.name), rel=1e-4, abs=1e-6)


def test_float64_keeps_what_float32_cannot_say():
    mu = normal(1, 50).astype(float)
    pi = mu.copy()
    pi[0, 0] += 1e-12
    assert divergences(mu, pi).max_abs_dlogp[0] == pytest.approx(1e-12, rel=1e-2)
    assert divergences(mu.astype(np.float32), pi.astype(np.float32)).max_abs_dlogp[0] == 0


def test_lists(backend):
    mu, pi = [[0, 1, 2.5]], [[0.5, -np.inf, 2]]
    same(divergences(mu, pi, [1]), divergences(np.array(mu), np.array(pi), np.array([1])))
    for wrong in ([[0, 1], [2]], [["a"]]):
        with pytest.raises(ValueError, match="the behaviour is no array of numbers"):
            divergences(wrong, pi)


@pytest.mark.parametrize("array", [normal(10), normal(1, 2, 3)])
def test_other_than_two_axes_are_refused(backend, array):
    with pytest.raises(ValueError, match=r"the behaviour has shape .*, not \[states, vocabulary\]"):
        divergences(array, array)


@pytest.mark.parametrize("dtype", [np.int32, np.uint16, bool, complex])
def test_other_types_are_refused(backend, dtype):
    with pytest.raises(TypeError, match=r"the reference is .*; float64, float32, float16, bfloat16"):
        divergences(normal(2, 5), normal(2, 5).astype(dtype))


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
    same(result, expected)
    with pytest.raises(ValueError, match="threads is 0"):
        divergences(mu, pi, threads=0)


def test_torch_tensors_and_bfloat16(backend):
    torch = pytest.importorskip("torch")
    mu, pi = torch.from_numpy(normal(4, 1300, scale=3)), torch.from_numpy(normal(4, 1300, scale=3, seed=1))
    ids = torch.tensor([5, 6, 7, 8])
    same(divergences(mu.clone().requires_grad_(), pi, ids), divergences(mu.numpy(), pi.numpy(), ids.numpy()))
    same(divergences(mu.T.contiguous().T, pi, ids), divergences(mu, pi, ids))
    same(divergences(mu.double(), pi, ids), divergences(mu.numpy().astype(float), pi.numpy(), ids))
    same(divergences(mu.half(), pi, ids), divergences(mu.half().float(), pi, ids))

    rounded = mu.bfloat16()
    for low_mu, low_pi in ((rounded, pi), (pi, rounded), (rounded, pi.bfloat16()), (rounded, pi.double())):
        low = divergences(low_mu, low_pi, ids)
        wide = divergences(low_mu.float(), low_pi if low_pi.dtype == torch.float64 else low_pi.float(), ids)
        for field in fields(Divergences):
            assert getattr(low, field.name) == pytest.approx(getattr(wide, field.name), rel=1e-6, abs=1e-12)
    with pytest.raises(TypeError, match="the behaviour is int64"):
        divergences(pi.long(), pi)


def test_stored_log_probabilities_in_bfloat16_are_no_policy_that_sums_to_one(backend):
    torch = pytest.importorskip("torch")
    logp = torch.from_numpy(normal(2, 1300, scale=3)).log_softmax(-1).bfloat16()
    with pytest.raises(ValueError, match="row 0 of the behaviour log-probabilities is not normalised"):
        divergences(logp, logp, normalised=True)
    assert divergences(logp, logp).tv.tolist() == [0, 0]


def test_nothing_here_imports_torch():
    code = "import sys, mismatchscope.measures.full as full; full.divergences([[0.0, 1.0]], [[1.0, 0.0]])"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"], check=True)
