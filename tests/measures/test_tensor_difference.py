"""What is told of two tensors, against torch's casts and differences that were made on purpose."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mismatchscope.engines.common.loaded_weights import weight_of
from mismatchscope.measures.tensor_difference import cast, compare, is_same, same_values

MATRIX = torch.randn(48, 64, generator=torch.Generator().manual_seed(0))
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32, "float64": torch.float64}


def told(expected: torch.Tensor, found: torch.Tensor):
    return compare("w", weight_of(expected), weight_of(found))


@pytest.mark.parametrize("dtype", DTYPES)
def test_casts_are_those_of_torch(dtype: str) -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3.4e38, 1 + 2**-8, 1 + 3 * 2**-8], np.float32)
    values = np.concatenate([bits.view(np.float32), special])
    expected = torch.from_numpy(values).to(DTYPES[dtype]).float().numpy()
    assert np.array_equal(cast(values, dtype), expected, equal_nan=True)


@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("loaded", DTYPES)
def test_a_cast_is_no_difference(stored: str, loaded: str) -> None:
    tensor = MATRIX.to(DTYPES[stored])
    record = told(tensor, tensor.to(DTYPES[loaded]))
    assert (record.status, record.dtype, record.dtype_found) == ("same", stored, loaded)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("ratio", [1.01, 0.5, -1.0, 3.0])
def test_scaled(dtype: str, ratio: float) -> None:
    tensor = MATRIX.to(DTYPES[dtype])
    record = told(tensor, (tensor.float() * ratio).to(DTYPES[dtype]))
    assert record.kind == "scaled"
    assert record.ratio == pytest.approx(ratio, rel=1e-3)
    assert record.relative == pytest.approx(abs(ratio - 1), rel=0.02)


def test_transposed() -> None:
    assert told(MATRIX, MATRIX.T.contiguous()).kind == "transposed"
    square = MATRIX[:, :48].contiguous()
    assert told(square, square.T.contiguous()).kind == "transposed"


def test_another_shape() -> None:
    record = told(MATRIX, MATRIX[:40])
    assert (record.kind, record.reason) == ("shape", "[40, 64] in place of [48, 64]")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounded_values_in_a_wider_dtype(dtype: str) -> None:
    record = told(MATRIX, MATRIX.to(DTYPES[dtype]).float())
    assert (record.kind, record.reason) == ("rounded", dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rank", [1, 4, 8])
def test_a_matrix_of_low_rank_added(dtype: str, rank: int) -> None:
    generator = torch.Generator().manual_seed(1)
    added = torch.randn(48, rank, generator=generator) @ torch.randn(rank, 64, generator=generator)
    tensor = MATRIX.to(DTYPES[dtype])
    record = told(tensor, (tensor.float() + added).to(DTYPES[dtype]))
    assert (record.kind, record.rank) == ("low_rank", rank)


@pytest.mark.parametrize("size", [2**-8, 2**-7, 2**-5, 0.1, 1.0])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_noise_is_nothing_but_other_values(dtype: str, size: float) -> None:
    """However small: an optimiser's step is neither rounding nor a scale nor an adapter."""
    noise = torch.randn(48, 64, generator=torch.Generator().manual_seed(2))
    tensor = MATRIX.to(DTYPES[dtype])
    found = (tensor.float() * (1 + size * noise)).to(DTYPES[dtype])
    record = told(tensor, found)
    gap = (found.double() - tensor.double()).flatten()
    assert (record.status, record.kind) == ("differs", "values")
    assert record.differing == pytest.approx(float((gap != 0).double().mean()))
    assert record.relative == pytest.approx(float(gap.norm() / tensor.double().norm()))
    assert record.largest == pytest.approx(float(gap.abs().max()))


def test_half_of_a_tensor() -> None:
    found = MATRIX.clone()
    found[24:] += torch.randn(24, 64, generator=torch.Generator().manual_seed(3))
    assert told(MATRIX, found).differing == 0.5


def test_other_dtypes_have_bits_alone() -> None:
    ids = torch.arange(8)
    assert told(ids, ids).status == "same"
    assert told(ids, ids + 1).kind == "values"
    eight = MATRIX.to(torch.float8_e4m3fn)
    assert told(eight, eight).status == "same"
    assert told(MATRIX, eight).status == "not_compared"


def test_values_that_are_not_finite() -> None:
    broken = MATRIX.clone()
    broken[0, 0] = torch.nan
    assert told(broken, broken).status == "same"
    assert told(MATRIX, broken).reason == "values that are not finite"


def test_another_order_of_the_same_values() -> None:
    packed = weight_of(MATRIX.bfloat16().view(6, 8, 64).transpose(1, 2).reshape(-1))
    assert same_values(weight_of(MATRIX), packed) and not is_same(weight_of(MATRIX), packed)
    assert not same_values(weight_of(MATRIX * 2), packed)


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("kept_in", ["float32", "bfloat16"])
def test_weights_of_eight_bits(by_row: bool, kept_in: str) -> None:
    expected = torch.randn(48, 64, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    values = expected.float()
    scale = (values.abs().amax(1, keepdim=True) if by_row else values.abs().amax()) / 448
    found = ((values / scale).to(torch.float8_e4m3fn).float() * scale).to(getattr(torch, kept_in))
    record = told(expected, found)
    assert (record.kind, record.reason) == ("eight_bits", "float8_e4m3fn")


def test_a_few_rows() -> None:
    expected = torch.randn(40, 16, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    found = expected.clone()
    found[5:9] += 1
    assert told(expected, found).differing_rows == 0.1
    assert told(expected, expected + 1).differing_rows == 1.0
