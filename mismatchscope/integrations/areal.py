"""Records what AReaL's `PPOActor` updates on.

    from mismatchscope.integrations import areal

    areal.attach(ms.Recorder("logs/run-7"))    # in the training process, before the first update

By the time of the update AReaL has rolled `logprobs` and `loss_mask` by −1: value [t] is of token t + 1, as it is
in `prox_logp`. `versions` are not rolled, and −1 on the prompt. The hook rolls back. It records where the loss is
decoupled and `prox_logp` was recomputed: otherwise AReaL has overwritten one of the two policies with the other.
"""

from __future__ import annotations

import functools
from typing import Any

from ..logs.recorder import Recorder
from .process_setup import recorder_from_environment, when_imported
from .signatures import required

WRITTEN_AGAINST = "AReaL at commit 4aef98d8 (May 2026)"
_MODULE = "areal.trainer.ppo.actor"


def setup() -> None:
    """Attach in a process that imports AReaL's actor; the environment names the directory to record in."""
    when_imported(_MODULE, lambda: attach(recorder_from_environment("areal")))


def attach(recorder: Recorder) -> None:
    """Record every batch that an actor of this process updates on; of ranks that share a batch, the first alone.

    Raises:
        UsageError: this version of AReaL does not have what the hook needs.
    """
    import importlib

    module = importlib.import_module(_MODULE)
    actor = required(module, "PPOActor", (), "AReaL", WRITTEN_AGAINST)
    original = required(actor, "_ppo_update", ("data",), "AReaL", WRITTEN_AGAINST)

    @functools.wraps(original)
    def ppo_update(self: Any, data: dict[str, Any]) -> Any:
        with recorder.guarded("A batch of AReaL was not recorded"):
            if self.engine.is_data_parallel_head():
                recorder.log(**_batch(self, data))
        return original(self, data)

    actor._ppo_update = ppo_update  # type: ignore[attr-defined]


def _batch(actor: Any, data: dict[str, Any]) -> dict[str, Any]:
    if not actor.config.use_decoupled_loss:
        raise ValueError("without use_decoupled_loss AReaL keeps one of the two log-probs: set it to true")
    if data.get("prox_logp") is None:
        raise ValueError("AReaL has no prox_logp to record: set prox_logp_method to recompute")
    mask_BL = data["loss_mask"].roll(1, -1)
    length_B = data["attention_mask"].sum(dim=-1)
    in_front_B = (mask_BL.cumsum(dim=-1) == 0).sum(dim=-1)
    version = actor.engine.get_version()
    return {
        "step": version,
        "token_ids": data["input_ids"],
        "mask": mask_BL,
        "lengths": length_B,
        "prompt_lengths": in_front_B.minimum(length_B),
        "behavior_logprobs": data["logprobs"].roll(1, -1),
        "reference_logprobs": data["prox_logp"].roll(1, -1),
        "advantages": data["advantages"].roll(1, -1),
        "versions": data.get("versions"),
        "trainer_version": version,
        "rewards": data.get("rewards"),
    }
