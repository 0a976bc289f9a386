"""Tensors on a GPU are recorded as the same tensors in main memory are."""

from __future__ import annotations

from pathlib import Path

import pyarrow.dataset as ds
import pytest
import torch

import mismatchscope as ms
from mismatchscope.logs.recorder_metrics import PREFIX

B, T = 3, 4
LENGTH_B = torch.tensor([3, 4, 0])


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["padded", "packed"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_tensors_on_a_gpu_are_recorded_as_those_in_main_memory(
    tmp_path: Path, dtype: torch.dtype, form: str
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    torch.manual_seed(0)
    mu_BT = -torch.rand(B, T)
    given = {
        "token_ids": torch.randint(0, 1000, (B, T)),
        "mask": torch.tensor([[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]]),
        "behavior_logprobs": mu_BT.to(dtype),
        "reference_logprobs": (mu_BT + 0.01 * torch.randn(B, T)).to(dtype),
        "target_logprobs": (mu_BT + 0.01 * torch.randn(B, T)).to(dtype),
        "versions": torch.arange(B * T).reshape(B, T),
    }
    if form == "packed":
        there = torch.arange(T) < LENGTH_B[:, None]
        given = {name: value[there] for name, value in given.items()}
        given["cu_seqlens"] = torch.tensor([0, 3, 7, 7], dtype=torch.int32)
    given |= {
        "trainer_version": torch.tensor([6, 7, 8]),
        "rewards": torch.tensor([1.0, 0.5, 0.0], dtype=dtype),
        "truncated": torch.tensor([False, True, False]),
        "advantages": torch.tensor([0.5, -0.5, 0.0], dtype=dtype),
        "prompt_token_ids": torch.tensor([[0, 5, 6], [0, 5, 6], [1, 2, 3]]),
        "prompt_mask": torch.tensor([[0, 1, 1], [0, 1, 1], [1, 1, 1]]),
    }
    tables, metrics = [], []
    for device in ("cpu", "cuda"):
        with ms.Recorder(tmp_path / device, strict=True) as recorder:
            metrics.append(recorder.log(step=7, **{name: value.to(device) for name, value in given.items()}))
        tables.append(ds.dataset(tmp_path / device, format="parquet").to_table())
    assert tables[0].equals(tables[1]) and tables[0].num_rows == B
    assert metrics[0] == metrics[1] and metrics[0][f"{PREFIX}tokens"] == 6
