"""The hook on a stand-in of OpenRLHF, whose log-probs begin at the second token of a sequence."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.dataset as ds
import pytest
import torch
from stand_ins import OPENRLHF, importable

import mismatchscope as ms
from mismatchscope.integrations import openrlhf


@pytest.fixture
def trainer_class(tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "openrlhf_stand_in").mkdir()
    with importable(tmp_path / "openrlhf_stand_in", OPENRLHF):
        yield importlib.import_module("openrlhf.trainer.ray.ppo_actor").ActorPPOTrainer


def experience(**changes: Any) -> Any:
    """Two sequences, of three prompt tokens and four of two turns, and of one and two."""
    action = torch.tensor([[0, 0, 1, 1, 0, 1], [1, 1, 0, 0, 0, 0]], dtype=torch.bool)
    mu = torch.tensor([[0, 0, -1.0, -2, 0, -3], [-4, -5, 0, 0, 0, 0]])
    fields = {
        "sequences": torch.tensor([[1, 2, 3, 11, 12, 13, 14], [4, 21, 22, 0, 0, 0, 0]]),
        "attention_mask": torch.tensor([[1] * 7, [1, 1, 1, 0, 0, 0, 0]]),
        "action_mask": action,
        "rollout_log_probs": mu,
        "action_log_probs": (mu - 0.5) * action,
        "advantages": torch.ones(2, 6),
        "rewards": torch.tensor([1.0, 0.0]),
        "truncated": torch.tensor([False, True]),
    }
    return SimpleNamespace(**(fields | changes))


def test_every_experience_is_recorded_once_from_its_first_response_token(
    tmp_path: Path, trainer_class: Any
) -> None:
    with ms.Recorder(tmp_path / "log", strict=True) as recorder:
        openrlhf.attach(recorder)
        trainer = trainer_class(SimpleNamespace(), [experience(), experience()], max_epochs=3)
        assert [status["step"] for status in trainer.ppo_train(0.1)] == [0, 1] * 3
        trainer.ppo_train(kl_ctl=0.1)
    rows = ds.dataset(tmp_path / "log").to_table().to_pylist()
    assert [row["step"] for row in rows] == [1] * 4 + [2] * 4
    first, second = rows[:2]
    assert (first["prompt_token_ids"], first["token_ids"]) == ([1, 2, 3], [11, 12, 13, 14])
    assert (second["prompt_token_ids"], second["token_ids"]) == ([4], [21, 22])
    assert first["mask"] == [True, True, False, True] and second["mask"] == [True, True]
    assert first["behavior_logprobs"] == [-1, -2, 0, -3] and second["behavior_logprobs"] == [-4, -5]
    assert second["reference_logprobs"] == [-4.5, -5.5]
    assert (first["truncated"], second["truncated"], first["reward"]) == (False, True, 1.0)


def test_ranks_that_share_a_sequence_record_it_once(tmp_path: Path, trainer_class: Any) -> None:
    with ms.Recorder(tmp_path / "log", strict=True) as recorder:
        openrlhf.attach(recorder)
        trainer_class(SimpleNamespace(ring_attn_rank=1), [experience()], max_epochs=1).ppo_train(0.1)
    assert recorder.rows == 0


def test_without_log_probs_of_the_sampler_it_trains_on(tmp_path: Path, trainer_class: Any) -> None:
    recorder = ms.Recorder(tmp_path / "log")
    openrlhf.attach(recorder)
    trainer = trainer_class(SimpleNamespace(), [experience(rollout_log_probs=None)], max_epochs=1)
    assert len(trainer.ppo_train(0.1)) == 1 and (recorder.errors, recorder.rows) == (1, 0)


def test_a_trainer_whose_step_has_moved_is_refused(tmp_path: Path, trainer_class: Any) -> None:
    trainer_class.training_step = lambda self, batch: None
    with pytest.raises(ms.errors.UsageError, match="takes no experience and no kl_ctl and no step"):
        openrlhf.attach(ms.Recorder(tmp_path / "log"))
