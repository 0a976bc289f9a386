"""The hook that slime calls itself, on what slime hands to it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.dataset as ds
import pytest
import torch

import mismatchscope as ms
from mismatchscope.integrations import slime
from mismatchscope.integrations.process_setup import DIRECTORY


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(slime, "_recorders", [])
    monkeypatch.setenv(DIRECTORY, str(tmp_path / "log"))
    return tmp_path / "log"


def data() -> dict[str, Any]:
    """Two of the three responses of a rollout: this rank's, by `partition`."""
    return {
        "partition": [2, 0],
        "tokens": [torch.tensor([1, 2, 11, 12]), torch.tensor([3, 21])],
        "response_lengths": torch.tensor([2, 1]),
        "loss_masks": [torch.tensor([1, 0], dtype=torch.int), torch.tensor([0], dtype=torch.int)],
        "rollout_log_probs": [torch.tensor([-1.0, 0.0]), torch.tensor([-2.0])],
        "log_probs": [torch.tensor([-1.5, -9.0]), torch.tensor([-2.5])],
        "entropy": [torch.tensor([0.5, 0.25]), torch.tensor([0.125])],
        "advantages": [torch.tensor([1.0, 1.0]), torch.tensor([-1.0])],
        "raw_reward": [0.0, 5.0, 1.0],
        "truncated": [0, 1],
        "source_names": ["math", "code"],
        "rollout_top_p_token_ids": [torch.tensor([11, 7, 12]), torch.tensor([21])],
        "rollout_top_p_token_offsets": [torch.tensor([0, 2, 3]), torch.tensor([0, 1])],
    }


def record(given: dict[str, Any]) -> ms.Recorder:
    slime.record(SimpleNamespace(), 7, given)
    (recorder,) = slime._recorders
    recorder.close()
    return recorder


def test_a_rollout_is_recorded(log: Path) -> None:
    assert record(data()).errors == 0
    first, second = ds.dataset(log).to_table().to_pylist()
    assert (first["prompt_token_ids"], first["token_ids"]) == ([1, 2], [11, 12])
    assert (second["token_ids"], second["mask"]) == ([21], [False])
    assert first["behavior_logprobs"] == [-1.0, 0.0] and first["reference_logprobs"] == [-1.5, -9.0]
    assert (first["reward"], second["reward"], second["truncated"]) == (1.0, 0.0, True)
    assert (first["step"], first["environment"]) == (7, "math")
    assert first["kept_ids"] == [[11, 7], [12]] and second["kept_ids"] == [[21]]
    assert first["entropy"] == [0.5, 0.25] and second["advantages"] == [-1.0]


@pytest.mark.parametrize("missing", ["log_probs", "rollout_log_probs"])
def test_what_slime_has_not_computed_is_said(log: Path, missing: str, caplog: pytest.LogCaptureFixture) -> None:
    given = data()
    del given[missing]
    recorder = record(given)
    assert (recorder.errors, recorder.rows) == (1, 0) and f"slime holds no {missing}" in caplog.text


@pytest.mark.parametrize(
    ("pipeline_end", "tensor_rank", "context_size", "rows", "errors"),
    [(True, 0, 1, 2, 0), (False, 0, 1, 0, 0), (True, 1, 1, 0, 0), (True, 0, 2, 0, 1)],
)
def test_of_ranks_that_share_responses_one_records(
    log: Path,
    monkeypatch: pytest.MonkeyPatch,
    pipeline_end: bool,
    tensor_rank: int,
    context_size: int,
    rows: int,
    errors: int,
) -> None:
    parallel = SimpleNamespace(
        model_parallel_is_initialized=lambda: True,
        get_context_parallel_world_size=lambda: context_size,
        is_pipeline_last_stage=lambda: pipeline_end,
        get_tensor_model_parallel_rank=lambda: tensor_rank,
    )
    monkeypatch.setitem(sys.modules, "megatron.core.parallel_state", parallel)
    recorder = record(data())
    assert (recorder.rows, recorder.errors) == (rows, errors)


def test_without_a_directory_it_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slime, "_recorders", [])
    monkeypatch.delenv(DIRECTORY, raising=False)
    with pytest.raises(ms.errors.UsageError, match=f"{DIRECTORY} is not set"):
        slime.record(SimpleNamespace(), 0, data())
