"""The hook on a stand-in of verl: its trainers' metrics function, reached by both of their ways to import it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest
import torch
from stand_ins import VERL, importable

import mismatchscope as ms
from mismatchscope.integrations import verl
from mismatchscope.logs.recorder_metrics import PREFIX

B, P, R = 2, 3, 4
ATTENTION = torch.tensor([[0, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1]])


@pytest.fixture(autouse=True)
def _stand_in(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "verl_stand_in").mkdir()
    with importable(tmp_path / "verl_stand_in", VERL):
        yield


def data(**meta: Any) -> Any:
    torch.manual_seed(0)
    mu = -torch.rand(B, R) * ATTENTION[:, P:]
    return SimpleNamespace(
        batch={
            "prompts": torch.tensor([[0, 5, 6], [7, 8, 9]]),
            "responses": torch.tensor([[11, 12, 13, 0], [21, 22, 23, 24]]),
            "attention_mask": ATTENTION,
            "response_mask": torch.tensor([[0, 0, 0, 0], [1, 1, 0, 1]]),
            "rollout_log_probs": mu,
            "old_log_probs": mu + 0.01 * ATTENTION[:, P:],
            "routed_experts": torch.arange(B * (P + R) * 4, dtype=torch.int16).reshape(B, P + R, 2, 2),
            "rm_scores": torch.tensor([[0.0, 0, 1, 0], [0, 0, 0, 0.5]]),
        },
        non_tensor_batch={
            "data_source": np.array(["math", "code"], dtype=object),
            "min_global_steps": np.array([3, 4]),
        },
        meta_info=meta,
    )


@pytest.mark.parametrize("trainer", ["verl.trainer.ppo.ray_trainer", "verl.trainer.ppo.v1.trainer_base"])
@pytest.mark.parametrize("imported_before", [True, False])
def test_a_step_of_either_trainer_is_recorded(tmp_path: Path, trainer: str, imported_before: bool) -> None:
    if imported_before:
        importlib.import_module(trainer)
    with ms.Recorder(tmp_path / "log", strict=True) as recorder:
        verl.attach(recorder)
        metrics = importlib.import_module(trainer).step(data(global_steps=9))
        importlib.import_module(trainer).step(data())
    assert metrics["training/rollout_probs_diff_valid"] == 1 and metrics[f"{PREFIX}tokens"] == 3
    first, second, *later = ds.dataset(tmp_path / "log").to_table().to_pylist()
    held = data().batch
    assert first["token_ids"] == [11, 12, 13] and not any(first["mask"])  # rejected, and not lost
    assert second["token_ids"] == [21, 22, 23, 24] and second["mask"] == [True, True, False, True]
    assert second["behavior_logprobs"] == held["rollout_log_probs"][1].tolist()
    assert second["reference_logprobs"] == held["old_log_probs"][1].tolist()
    assert [first["prompt_token_ids"], second["prompt_token_ids"]] == [[5, 6], [7, 8, 9]]
    assert second["experts"] == held["routed_experts"][1, P:].reshape(R, 4).tolist()
    assert [first["reward"], second["reward"]] == [1.0, 0.5]
    assert (first["environment"], first["policy_version"], second["policy_version"]) == ("math", 3, 4)
    assert first["step"] == 9 and {row["step"] for row in later} == {2}


def test_a_batch_without_prompts_is_recorded_too(tmp_path: Path) -> None:
    """The newer trainer passes little: padded tensors and a mask."""
    given = data()
    given.batch = {
        name: given.batch[name] for name in ("responses", "response_mask", "rollout_log_probs", "old_log_probs")
    }
    given.non_tensor_batch = {}
    with ms.Recorder(tmp_path / "log", strict=True) as recorder:
        verl.attach(recorder)
        importlib.import_module("verl.trainer.ppo.v1.trainer_base").step(given)
    first, second = ds.dataset(tmp_path / "log").to_table().to_pylist()
    assert first["token_ids"] == [] and second["token_ids"] == [21, 22, 23, 24] and "prompt" not in first


def test_an_error_of_ours_does_not_stop_verl(tmp_path: Path) -> None:
    recorder = ms.Recorder(tmp_path / "log")
    verl.attach(recorder)
    given = data()
    del given.batch["old_log_probs"]
    step = importlib.import_module("verl.trainer.ppo.ray_trainer").step
    assert step(given) == {"training/rollout_probs_diff_valid": 1}
    assert recorder.errors == 1


def test_another_signature_is_refused(tmp_path: Path) -> None:
    module = importlib.import_module("verl.utils.debug.metrics")
    module.calculate_debug_metrics = lambda batch: {}
    with pytest.raises(ms.errors.UsageError, match="calculate_debug_metrics of this verl takes no data"):
        verl.attach(ms.Recorder(tmp_path / "log"))
