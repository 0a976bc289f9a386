"""Records what OpenRLHF's actor trains on.

    export MISMATCHSCOPE_RECORD=/logs/run-7     # and `setup` as Ray's worker_process_setup_hook, see process_setup

In an `Experience`, `sequences` [B, T] has prompt and response, and `action_mask`, `action_log_probs` (π_old) and
`rollout_log_probs` (μ) [B, T − 1] begin at its second token: value [t] is of token t + 1. Trap: where the engine
reported no log-prob for a token, OpenRLHF writes 0.0.
"""

from __future__ import annotations

import functools
from typing import Any

from ..logs.recorder import Recorder
from .process_setup import recorder_from_environment, when_imported
from .signatures import required

WRITTEN_AGAINST = "OpenRLHF at commit 3c3be623 (August 2026)"
_MODULE = "openrlhf.trainer.ray.ppo_actor"


def setup() -> None:
    """For Ray's `worker_process_setup_hook`: attach in the processes that import OpenRLHF's actor."""
    when_imported(_MODULE, lambda: attach(recorder_from_environment("openrlhf")))


def attach(recorder: Recorder) -> None:
    """Record every experience once, in the first epoch over it; of ranks that share one, the first alone.

    Raises:
        UsageError: this version of OpenRLHF does not have what the hook needs.
    """
    import importlib

    trainer = required(importlib.import_module(_MODULE), "ActorPPOTrainer", (), "OpenRLHF", WRITTEN_AGAINST)
    train = required(trainer, "ppo_train", ("kl_ctl",), "OpenRLHF", WRITTEN_AGAINST)
    original = required(trainer, "training_step", ("experience", "kl_ctl", "step"), "OpenRLHF", WRITTEN_AGAINST)
    counts = {"rollouts": 0, "epochs": 0}

    @functools.wraps(train)
    def ppo_train(self: Any, *arguments: Any, **options: Any) -> Any:
        counts["rollouts"] += 1
        counts["epochs"] = 0
        return train(self, *arguments, **options)

    @functools.wraps(original)
    def training_step(self: Any, experience: Any, kl_ctl: Any, step: int, *arguments: Any, **options: Any) -> Any:
        counts["epochs"] += step == 0  # OpenRLHF counts from 0 in each epoch
        with recorder.guarded("An experience of OpenRLHF was not recorded"):
            if counts["epochs"] == 1 and getattr(self.strategy, "ring_attn_rank", 0) == 0:
                recorder.log(step=counts["rollouts"], **_batch(experience))
        return original(self, experience, kl_ctl, step, *arguments, **options)

    trainer.ppo_train = ppo_train  # type: ignore[attr-defined]
    trainer.training_step = training_step  # type: ignore[attr-defined]


def _batch(experience: Any) -> dict[str, Any]:
    if experience.rollout_log_probs is None:
        raise ValueError("OpenRLHF holds no log-probs of the sampler: switch its importance-sampling correction on")
    mask = experience.action_mask
    length_B = experience.attention_mask.sum(dim=-1) - 1
    in_front_B = (mask.long().cumsum(dim=-1) == 0).sum(dim=-1)
    prompt_B = in_front_B.minimum(length_B)
    places = experience.sequences.new_ones(experience.sequences.shape).cumsum(dim=-1)
    return {
        "token_ids": experience.sequences[:, 1:],
        "mask": mask,
        "lengths": length_B,
        "prompt_lengths": prompt_B,
        "prompt_token_ids": experience.sequences,
        "prompt_mask": places <= prompt_B[:, None] + 1,
        "behavior_logprobs": experience.rollout_log_probs,
        "reference_logprobs": experience.action_log_probs,
        "advantages": experience.advantages,
        "rewards": experience.rewards,
        "truncated": experience.truncated,
    }
