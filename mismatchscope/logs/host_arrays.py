"""Arrays of a training step as numpy arrays: torch tensors of any device and dtype, numpy arrays, lists.

What lies on a device comes over in one copy, however many tensors it is: each copy would make the device finish all
of its work first. torch is not imported here: where there is a tensor, somebody else has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np


def on_host(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values with every tensor, alone or in a list, as a numpy array; bfloat16 becomes float32."""
    torch = sys.modules.get("torch")
    if torch is None:
        return dict(values)
    tensors = [tensor for value in values.values() for tensor in _tensors(value, torch.Tensor)]
    arrays: dict[int, np.ndarray] = {}
    for device in {tensor.device for tensor in tensors}:
        there = [tensor for tensor in tensors if tensor.device == device]
        copied = [_array(tensor, torch) for tensor in there] if device.type == "cpu" else in_one_copy(there, torch)
        arrays |= {id(tensor): array for tensor, array in zip(there, copied, strict=True)}
    return {name: _replaced(value, arrays) for name, value in values.items()}


def in_one_copy(tensors: Sequence[Any], torch: Any) -> list[np.ndarray]:
    """Tensors of one device as numpy arrays, moved to this machine's memory as one tensor of bytes."""
    exact = [_of_numpy_dtype(tensor, torch).contiguous() for tensor in tensors]
    # From the widest to the narrowest each begins at a multiple of its own width.
    order = sorted(range(len(exact)), key=lambda index: -exact[index].element_size())
    packed = torch.cat([exact[index].reshape(-1).view(torch.uint8) for index in order]).cpu().numpy()
    arrays: list[np.ndarray] = [np.empty(0)] * len(exact)
    start = 0
    for index in order:
        tensor = exact[index]
        stop = start + tensor.numel() * tensor.element_size()
        dtype = np.dtype(str(tensor.dtype).removeprefix("torch."))
        arrays[index] = packed[start:stop].view(dtype).reshape(tuple(tensor.shape))
        start = stop
    return arrays


def _array(tensor: Any, torch: Any) -> np.ndarray:
    return np.asarray(_of_numpy_dtype(tensor, torch).numpy())


def _of_numpy_dtype(tensor: Any, torch: Any) -> Any:
    """The tensor out of its graph; as float32 where numpy does not have its dtype: bfloat16, 8-bit floats."""
    tensor = tensor.detach()
    native = not tensor.is_floating_point() or tensor.dtype in (torch.float16, torch.float32, torch.float64)
    return tensor if native else tensor.float()


def _tensors(value: Any, kind: type) -> Iterator[Any]:
    if isinstance(value, kind):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each, kind)


def _replaced(value: Any, arrays: dict[int, np.ndarray]) -> Any:
    if isinstance(value, list | tuple):
        return [_replaced(each, arrays) for each in value]
    return arrays.get(id(value), value)
