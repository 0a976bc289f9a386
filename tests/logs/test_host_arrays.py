"""Tensors of every dtype come to the host as they are, those of a device in one copy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mismatchscope.logs.host_arrays import in_one_copy, on_host

DTYPES = [
    torch.bool,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
]


def expected(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()


def tensors() -> list[torch.Tensor]:
    torch.manual_seed(0)
    shapes = [(3, 5), (), (0, 4), (7,)]
    return [(torch.randn(shape) * 3).to(dtype) for dtype in DTYPES for shape in shapes]


def test_one_copy_keeps_every_bit_shape_and_order() -> None:
    given = [*tensors(), torch.randn(4, 6).t(), torch.randn(3, requires_grad=True) * 2]
    for tensor, array in zip(given, in_one_copy(given, torch), strict=True):
        np.testing.assert_array_equal(array, expected(tensor))
        assert array.dtype == expected(tensor).dtype and array.flags.aligned


def test_a_device_is_copied_from_once(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = []
    cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: copies.append(tensor.shape) or cpu(tensor))
    in_one_copy(tensors(), torch)
    assert len(copies) == 1


def test_tensors_in_lists_are_found_and_the_rest_is_left_alone() -> None:
    rows = [torch.tensor([1.0, 2.0]), torch.tensor([3.0])]
    found = on_host({"rows": rows, "one": torch.ones(2, 2), "list": [[1, 2]], "text": "w", "none": [None, 1]})
    assert [row.tolist() for row in found["rows"]] == [[1.0, 2.0], [3.0]]
    assert isinstance(found["one"], np.ndarray)
    assert (found["list"], found["text"], found["none"]) == ([[1, 2]], "w", [None, 1])


def test_recording_arrays_does_not_import_torch_and_ends_with_the_process(tmp_path: Path) -> None:
    program = (
        "import sys, mismatchscope as ms\n"
        f"recorder = ms.Recorder({str(tmp_path)!r}, strict=True)\n"
        "recorder.log(token_ids=[[1]], behavior_logprobs=[[-1.0]], reference_logprobs=[[-1.0]])\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
    assert len(list(tmp_path.glob("*.parquet"))) == 1
