"""Are two tensors the same, and if not, what is one of the other?

Tensors lie as they are stored: numpy has no bfloat16, so its bits lie in uint16. They are read a piece at a time.

Shapes: N elements, R rows, C columns, K columns of a random projection.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .tensor_results import TensorRecord

PIECE = 2**22
"""Elements that are in float64 at the same time."""

_COLUMNS = 72
"""Of the random projection: ranks up to about 64 are told."""

_ARITHMETIC = 2.0**-20
"""What a product of float32 matrices may be wrong by, relative to its factors' size."""

_FORMATS = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
"""The dtypes whose values are compared, and the distance from 1 to the next number."""


@dataclass(frozen=True, eq=False)
class Weight:
    """A tensor in its dtype, by torch's name; `bits` is of its shape."""

    bits: np.ndarray
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.bits.shape

    @property
    def transposed(self) -> Weight:
        return replace(self, bits=np.ascontiguousarray(self.bits.T))

    def floats(self, piece: slice | None = None) -> np.ndarray:
        """The values in float32 (of float64, itself), of its shape; of a `piece` of its elements, flat."""
        bits = self.bits if piece is None else self.bits.reshape(-1)[piece]
        if self.dtype == "bfloat16":
            return (bits.astype(np.uint32) << 16).view(np.float32)
        return bits if self.dtype == "float64" else bits.astype(np.float32)

    @property
    def has_values(self) -> bool:
        return self.dtype in _FORMATS


def cast(values: np.ndarray, dtype: str) -> np.ndarray:
    """Rounded to nearest, ties to even, as torch casts; the values stay in the dtype that they are in."""
    with np.errstate(over="ignore"):
        if dtype == "float16":
            return values.astype(np.float16).astype(values.dtype)
        if dtype == "float64":
            return values
        single = values.astype(np.float32)
    if dtype == "bfloat16":
        bits = single.view(np.uint32)
        rounded = (bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)) & np.uint32(0xFFFF0000)
        single = np.where(np.isnan(single), single, rounded.view(np.float32))
    return single.astype(values.dtype)


def compare(name: str, expected: Weight, found: Weight) -> TensorRecord:
    """What is told of `found`, which should be `expected`."""
    record = TensorRecord(name, "same", expected.shape, expected.dtype, found.dtype)
    if not (expected.has_values and found.has_values):
        if (expected.dtype, expected.shape) == (found.dtype, found.shape):
            same = bool(np.array_equal(expected.bits, found.bits))
            return record if same else replace(record, status="differs", kind="values")
        return replace(record, status="not_compared", reason=f"{expected.dtype} here, {found.dtype} there")
    differs = replace(record, status="differs", sha256=values_sha256(found, found.dtype))
    if expected.shape != found.shape:
        if _is_transposed(expected, found):
            return replace(differs, kind="transposed")
        return replace(differs, kind="shape", reason=f"{list(found.shape)} in place of {list(expected.shape)}")
    if is_same(expected, found):
        return record
    return _told(differs, expected, found)


def is_same(expected: Weight, found: Weight) -> bool:
    """Whether both have as many elements and the same in each place, once cast to each other's dtype."""
    if expected.bits.size != found.bits.size:
        return False
    if expected.dtype == found.dtype and np.array_equal(expected.bits.reshape(-1), found.bits.reshape(-1)):
        return True
    return all(
        np.array_equal(cast(a, found.dtype), cast(b, expected.dtype), equal_nan=True)
        for a, b in _pieces(expected, found)
    )


def same_values(expected: Weight, found: Weight) -> bool:
    """Whether both have the same values, in whichever order, once cast to each other's dtype."""
    if expected.bits.size != found.bits.size:
        return False
    left, right = cast(expected.floats(), found.dtype), cast(found.floats(), expected.dtype)
    return bool(np.array_equal(np.sort(left, axis=None), np.sort(right, axis=None), equal_nan=True))


def _is_transposed(expected: Weight, found: Weight) -> bool:
    return expected.bits.ndim == 2 and expected.shape[::-1] == found.shape and is_same(expected.transposed, found)


def _pieces(expected: Weight, found: Weight) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, expected.bits.size, PIECE):
        piece = slice(start, start + PIECE)
        yield expected.floats(piece), found.floats(piece)


def _told(differs: TensorRecord, expected: Weight, found: Weight) -> TensorRecord:
    """Of two of one shape with other values: how far apart, and whether one is simply made from the other."""
    count, largest, squares = 0, 0.0, np.zeros(4)
    for a, b in _pieces(expected, found):
        a, b = cast(a, found.dtype).astype(np.float64), cast(b, expected.dtype).astype(np.float64)
        gap = b - a
        count += int(np.count_nonzero(gap))
        largest = max(largest, float(np.max(np.abs(gap))))
        squares += (a @ a, a @ b, gap @ gap, b @ b)
    aa, ab, gaps, _ = squares
    far = replace(
        differs,
        differing=count / expected.bits.size,
        differing_rows=_differing_rows(expected, found),
        relative=float(np.sqrt(gaps / aa)) if aa else None,
        largest=largest,
    )
    if not np.isfinite(squares).all():
        return replace(far, kind="values", reason="values that are not finite")
    if _is_transposed(expected, found):
        return replace(far, kind="transposed")
    for dtype in ("bfloat16", "float16"):
        if all(np.array_equal(cast(a, dtype), b) for a, b in _pieces(expected, found)):
            return replace(far, kind="rounded", reason=dtype)
    if aa and _is_scaled(expected, found, ab / aa, gaps):
        return replace(far, kind="scaled", ratio=float(ab / aa))
    if _has_eight_bits(found) and not _has_eight_bits(expected):
        return replace(far, kind="eight_bits", reason="float8_e4m3fn")
    rank = _rank_of_difference(expected, found)
    return replace(far, kind="values") if rank is None else replace(far, kind="low_rank", rank=rank)


def _rows(weight: Weight, size: int) -> Iterator[slice]:
    """The elements in pieces of whole rows, `size` elements each, as many rows at a time as fit in a piece."""
    step = max(1, PIECE // size) * size
    for start in range(0, weight.bits.size, step):
        yield slice(start, start + step)


def _differing_rows(expected: Weight, found: Weight) -> float:
    rows = expected.shape[0] if len(expected.shape) > 1 else expected.bits.size
    size = expected.bits.size // rows
    differing = 0
    for piece in _rows(expected, size):
        a, b = cast(expected.floats(piece), found.dtype), cast(found.floats(piece), expected.dtype)
        differing += int(np.count_nonzero((a != b).reshape(-1, size).any(axis=1)))
    return differing / rows


_LARGEST_OF_EIGHT_BITS = 448.0
"""Of fp8 e4m3: three bits of mantissa, normal from 2⁻⁶ on."""


def _has_eight_bits(weight: Weight) -> bool:
    """Whether all values of a matrix are numbers of fp8 e4m3 times a scale of the tensor, or of each row, that
    makes the largest one 448; as they are once they were multiplied out in bfloat16 at the least."""
    if weight.bits.ndim < 2 or min(weight.shape) < 8:
        return False
    columns = weight.shape[-1]
    largest = max(float(np.abs(weight.floats(piece)).max()) for piece in _rows(weight, columns))
    return any(
        all(
            _is_on_the_grid(np.abs(weight.floats(piece)).reshape(-1, columns), scaled_to)
            for piece in _rows(weight, columns)
        )
        for scaled_to in (largest, None)
    )


def _is_on_the_grid(value_RC: np.ndarray, largest: float | None) -> bool:
    """Whether values are fp8 numbers under the scale that makes `largest` 448, or each row's where it is None."""
    of_row = value_RC.max(axis=1, keepdims=True) if largest is None else largest
    scaled_RC = value_RC / (np.maximum(of_row, np.finfo(np.float32).tiny) / _LARGEST_OF_EIGHT_BITS)
    _, exponent_RC = np.frexp(np.maximum(scaled_RC, 2.0**-6))
    steps_RC = np.ldexp(scaled_RC, 4 - exponent_RC)  # between 8 and 16 of normal numbers
    return bool((np.abs(steps_RC - np.rint(steps_RC)) <= 16 * 2.0**-8).all())


def _spacing(expected: Weight, found: Weight) -> float:
    """Relative distance of neighbouring numbers, in the coarser of the two dtypes."""
    return max(_FORMATS[expected.dtype], _FORMATS[found.dtype])


def _is_scaled(expected: Weight, found: Weight, ratio: float, gaps: float) -> bool:
    """Whether every element is `ratio` times what it should be, but for rounding, and that explains the difference.

    A ratio of almost 1 that leaves most of the difference where it is explains nothing.
    """
    spacing, left = _spacing(expected, found), 0.0
    for a, b in _pieces(expected, found):
        rest = np.abs(b.astype(np.float64) - ratio * a)
        if (rest > spacing * np.abs(ratio * a)).any():
            return False
        left += float(rest @ rest)
    return left < gaps / 4


def _rank_of_difference(expected: Weight, found: Weight) -> int | None:
    """The rank of what was added to a matrix, as far as rounding lets it be told; None where it is not low.

    The range of the difference is found by a random projection (Halko, Martinsson and Tropp 2011, algorithm 4.1).
    What is outside it must be no more than the rounding of the matrix itself, and the difference well above that.
    """
    if expected.bits.ndim != 2 or min(expected.shape) < 8:
        return None
    difference_RC = found.floats().astype(np.float32) - expected.floats().astype(np.float32)
    columns = min(_COLUMNS, min(expected.shape) // 4)
    projection_CK = np.random.default_rng(0).standard_normal((difference_RC.shape[1], columns), dtype=np.float32)
    basis_RK, _ = np.linalg.qr(difference_RC @ projection_CK)
    inside_KC = basis_RK.T @ difference_RC
    rounding = (_spacing(expected, found) / 2 + _ARITHMETIC) * float(np.linalg.norm(found.floats()))
    size, outside = (float(np.linalg.norm(each)) for each in (difference_RC, difference_RC - basis_RK @ inside_KC))
    if outside > rounding or size < 4 * rounding:
        return None
    singular_K = np.linalg.svd(inside_KC, compute_uv=False)
    tails_K = np.sqrt(np.cumsum(singular_K[::-1] ** 2)[::-1])  # what is left without the first 0, 1, … of them
    rank = int(np.count_nonzero(tails_K > rounding))
    changed = min(np.count_nonzero(difference_RC.any(axis=axis)) for axis in (0, 1))
    return rank if 2 * rank <= changed else None  # a change of few rows or columns has no other rank


def values_sha256(weight: Weight, dtype: str) -> str:
    """Of the values once they are cast to a dtype, in float32: `TensorRecord.sha256` of a tensor that has them."""
    digest = hashlib.sha256()
    for start in range(0, weight.bits.size, PIECE):
        values = cast(weight.floats(slice(start, start + PIECE)), dtype)
        digest.update(np.ascontiguousarray(values, dtype=np.float32).data)
    return digest.hexdigest()
