"""The hook on a stand-in of AReaL, whose arrays are rolled by one token when the actor updates on them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.dataset as ds
import pytest
import torch
from stand_ins import AREAL, importable

import mismatchscope as ms
from mismatchscope.integrations import areal

IDS = torch.tensor([[1, 2, 3, 11, 12, 13], [4, 21, 22, 0, 0, 0]])
MASK = torch.tensor([[0, 0, 0, 1, 0, 1], [0, 1, 1, 0, 0, 0]])
MU = torch.tensor([[0, 0, 0, -1.5, 0, -0.5], [0, -0.25, -0.75, 0, 0, 0]])
VERSIONS = torch.tensor([[-1, -1, -1, 6, -1, 7], [-1, 5, 5, 0, 0, 0]], dtype=torch.int32)


@pytest.fixture
def actor_class(tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "areal_stand_in").mkdir()
    with importable(tmp_path / "areal_stand_in", AREAL):
        yield importlib.import_module("areal.trainer.ppo.actor").PPOActor


def actor(actor_class: Any, head: bool = True, decoupled: bool = True) -> Any:
    engine = SimpleNamespace(is_data_parallel_head=lambda: head, get_version=lambda: 8)
    return actor_class(SimpleNamespace(use_decoupled_loss=decoupled), engine)


def data() -> dict[str, Any]:
    """What a workflow returns and the actor scored: π_old is 0.01 below μ, at [t] for token t + 1."""
    return {
        "input_ids": IDS.clone(),
        "attention_mask": IDS > 0,
        "loss_mask": MASK.clone(),
        "logprobs": MU.clone(),
        "versions": VERSIONS.clone(),
        "rewards": torch.tensor([1.0, -1.0]),
        "prox_logp": torch.roll(MU - 0.01, shifts=-1, dims=-1),
    }


def test_what_was_rolled_is_rolled_back(tmp_path: Path, actor_class: Any) -> None:
    with ms.Recorder(tmp_path / "log", strict=True) as recorder:
        areal.attach(recorder)
        trained = actor(actor_class)
        trained.ppo_update(trained.compute_advantages(data()))
        actor(actor_class, head=False).ppo_update(
            trained.compute_advantages(data())
        )  # a rank that shares the batch
    assert trained.updated
    first, second = ds.dataset(tmp_path / "log").to_table().to_pylist()
    assert (first["prompt_token_ids"], first["token_ids"]) == ([1, 2, 3], [11, 12, 13])
    assert (second["prompt_token_ids"], second["token_ids"]) == ([4], [21, 22])
    assert first["mask"] == [True, False, True] and second["mask"] == [True, True]
    assert first["behavior_logprobs"] == [-1.5, 0.0, -0.5] and second["behavior_logprobs"] == [-0.25, -0.75]
    assert second["reference_logprobs"] == pytest.approx([-0.26, -0.76])
    assert first["versions"] == [6, -1, 7] and first["policy_version"] is None  # interrupted by an update
    assert second["versions"] == [5, 5] and second["policy_version"] == 5
    assert (first["step"], first["trainer_version"], first["reward"]) == (8, 8, 1.0)
    assert second["advantages"] == [-1.0, -1.0]


def test_where_one_policy_overwrote_the_other_nothing_is_recorded(tmp_path: Path, actor_class: Any) -> None:
    recorder = ms.Recorder(tmp_path / "log")
    areal.attach(recorder)
    trained = actor(actor_class, decoupled=False)
    trained.ppo_update(trained.compute_advantages(data()))
    assert trained.updated and (recorder.errors, recorder.rows) == (1, 0)


def test_an_actor_without_the_update_is_refused(tmp_path: Path, actor_class: Any) -> None:
    del actor_class._ppo_update
    with pytest.raises(ms.errors.UsageError, match=r"This AReaL has no PPOActor\._ppo_update"):
        areal.attach(ms.Recorder(tmp_path / "log"))
