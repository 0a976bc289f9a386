"""Blocks of logits or log-probabilities, [N, V], whoever holds them: lists, numpy, PyTorch on a CPU or a GPU.

Legend: N = states, V = vocabulary, R = some of the rows.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike

from . import kernel

if TYPE_CHECKING:
    import torch

Array = np.ndarray
Precision = Literal["float64", "float32", "bfloat16"]

_ACCEPTED = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True, eq=False)
class Block:
    """One side's values where they lie, the ids of a row adjacent in memory.

    `values` are float32 or float64; for bfloat16 in main memory the bits as uint16, as numpy has no such type; or
    a float32 or bfloat16 tensor on a GPU.
    """

    values: Any
    precision: Precision
    on_gpu: bool = False

    @classmethod
    def of(cls, values_NV: ArrayLike | torch.Tensor, side: str) -> Block:
        """Nothing is copied but float16 (to float32, which is exact), rows whose ids are not adjacent, lists (to
        float64) and float64 tensors on a GPU (to main memory).

        Raises:
            TypeError: values that are no floats, or of a width that is not known here.
            ValueError: not two axes.
        """
        torch = sys.modules.get("torch")  # a tensor cannot come from a module that nobody has imported
        if torch is not None and isinstance(values_NV, torch.Tensor):
            return cls._of_tensor(values_NV, side)
        if isinstance(values_NV, np.ndarray):
            array = values_NV
        else:
            try:
                array = np.asarray(values_NV, dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise ValueError(f"the {side} is no array of numbers [states, vocabulary]: {error}") from None
        _check(array.dtype.name, array.ndim, tuple(array.shape), side)
        if array.dtype == np.float16:
            array = array.astype(np.float32)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        if array.size and not kernel.has_adjacent_columns(array):
            array = np.ascontiguousarray(array)
        return cls(array, cast(Precision, array.dtype.name))

    @classmethod
    def _of_tensor(cls, tensor_NV: torch.Tensor, side: str) -> Block:
        import torch

        name = str(tensor_NV.dtype).removeprefix("torch.")
        _check(name, tensor_NV.ndim, tuple(tensor_NV.shape), side)
        tensor_NV = tensor_NV.detach()
        if tensor_NV.dtype == torch.float16:
            tensor_NV, name = tensor_NV.float(), "float32"
        if tensor_NV.stride(1) != 1:
            tensor_NV = tensor_NV.contiguous()
        if tensor_NV.is_cuda and name != "float64":
            return cls(tensor_NV, cast(Precision, name), on_gpu=True)
        tensor_NV = tensor_NV.cpu()
        array = tensor_NV.view(torch.uint16) if name == "bfloat16" else tensor_NV
        return cls(array.numpy(), cast(Precision, name))

    @property
    def shape(self) -> tuple[int, int]:
        n_rows, n_ids = self.values.shape
        return n_rows, n_ids

    def rows(self, rows: slice) -> Array:
        """Some rows as float64 [R, V], a copy."""
        return self._widened(self.values[rows])

    def at(self, token_id_N: Array) -> Array:
        """The value of one id of each row as float64 [N]."""
        at: tuple[Any, Any] = np.arange(len(token_id_N)), token_id_N
        if self.on_gpu:
            import torch

            at = torch.from_numpy(at[0]).to(self.values.device), torch.from_numpy(at[1]).to(self.values.device)
        return self._widened(self.values[at])

    def _widened(self, values: Any) -> Array:
        if self.on_gpu:
            return values.double().cpu().numpy()
        if self.precision == "bfloat16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        with np.errstate(invalid="ignore"):  # a NaN that signals
            return values.astype(np.float64)


def checked_token_ids(token_id_N: ArrayLike | torch.Tensor, n_rows: int, n_ids: int) -> Array:
    """int64 [N] in main memory.

    Raises:
        ValueError: other than one integer a row, or one that is outside the vocabulary.
    """
    ids = np.asarray(token_id_N.cpu() if hasattr(token_id_N, "cpu") else token_id_N)
    if ids.shape != (n_rows,) or ids.dtype.kind not in "iu":
        raise ValueError(f"token ids are {ids.dtype} {ids.shape}, must be integers, one for each of {n_rows} rows")
    outside = np.flatnonzero((ids < 0) | (ids >= n_ids))
    if len(outside):
        raise ValueError(f"row {outside[0]}: token id {ids[outside[0]]} is outside the vocabulary of {n_ids}")
    return ids.astype(np.int64)


def _check(dtype: str, n_axes: int, shape: tuple[int, ...], side: str) -> None:
    if dtype not in _ACCEPTED:
        raise TypeError(f"the {side} is {dtype}; {', '.join(_ACCEPTED)} can be measured")
    if n_axes != 2:
        raise ValueError(f"the {side} has shape {shape}, not [states, vocabulary]")
