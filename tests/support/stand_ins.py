"""Small stand-ins for trainers that are not installed: packages with the signatures of the real ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def importable(directory: Path, modules: dict[str, str]) -> Iterator[None]:
    """Modules, by dotted name and source, that can be imported within it, and are forgotten after it."""
    top = {name.partition(".")[0] for name in modules}
    for name, source in modules.items():
        *packages, last = name.split(".")
        folder = directory
        for package in packages:
            folder /= package
            folder.mkdir(exist_ok=True)
            (folder / "__init__.py").touch()
        (folder / f"{last}.py").write_text(source, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(directory)
        patch.setattr(sys, "meta_path", list(sys.meta_path))
        try:
            yield
        finally:
            for name in [name for name in sys.modules if name.partition(".")[0] in top]:
                del sys.modules[name]


VERL = {
    "verl.utils.debug.metrics": """
def calculate_debug_metrics(data) -> dict:
    return {"training/rollout_probs_diff_valid": 1}
""",
    "verl.trainer.ppo.ray_trainer": """
def step(batch):
    from verl.utils.debug.metrics import calculate_debug_metrics
    return calculate_debug_metrics(batch)
""",
    "verl.trainer.ppo.v1.trainer_base": """
from verl.utils.debug.metrics import calculate_debug_metrics

def step(batch):
    return calculate_debug_metrics(batch)
""",
}

AREAL = {
    "areal.trainer.ppo.actor": """
import torch

class PPOActor:
    def __init__(self, config, engine):
        self.config, self.engine = config, engine

    def compute_advantages(self, data):
        loss_mask = torch.roll(data["loss_mask"].float(), shifts=-1, dims=-1)
        old_logp = torch.roll(data["logprobs"], shifts=-1, dims=-1)
        if not self.config.use_decoupled_loss:
            data["prox_logp"] = old_logp
        old_logp *= loss_mask
        data["advantages"] = data["rewards"][:, None] * loss_mask
        data["loss_mask"], data["logprobs"] = loss_mask, old_logp
        return data

    def ppo_update(self, data) -> None:
        self._ppo_update(data)

    def _ppo_update(self, data) -> None:
        data.pop("rewards")
        self.updated = True
"""
}

OPENRLHF = {
    "openrlhf.trainer.ray.ppo_actor": """
from abc import ABC

class ActorPPOTrainer(ABC):
    def __init__(self, strategy, replay_buffer, max_epochs):
        self.strategy, self.replay_buffer, self.max_epochs = strategy, replay_buffer, max_epochs

    def ppo_train(self, kl_ctl):
        statuses = []
        for epoch in range(self.max_epochs):
            for step, experience in enumerate(self.replay_buffer):
                statuses.append(self.training_step(experience, kl_ctl, step, None))
        return statuses

    def training_step(self, experience, kl_ctl, step, loss_batch_info=None):
        return {"metrics": {}, "step": step}
"""
}
