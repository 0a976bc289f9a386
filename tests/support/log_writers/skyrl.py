"""Files as SkyRL's `TrainingInputBatch.save` leaves them: `pickle.dump` of a dictionary whose `__reduce__` names a
function of its module. A module of that name stands in for SkyRL's while they are written."""

from __future__ import annotations

import io
import pickle
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .samples import Sample

MODULE = "skyrl.backends.skyrl_train.training_batch"


def _rebuild_tensor_batch(cls: type, state: dict[str, Any]) -> Any:
    raise AssertionError("what SkyRL would run was run")


class TrainingInputBatch(dict):  # type: ignore[type-arg]
    """As SkyRL's: pickled by its state, never by its entries."""

    state: dict[str, Any]

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (_rebuild_tensor_batch, (type(self), self.state))


@contextmanager
def skyrls_module() -> Iterator[None]:
    module = types.ModuleType(MODULE)
    for thing in (_rebuild_tensor_batch, TrainingInputBatch):
        thing.__module__ = MODULE
        setattr(module, thing.__name__, thing)
    names = [MODULE.rsplit(".", count)[0] for count in range(MODULE.count(".") + 1)]
    sys.modules.update(dict.fromkeys(names, module))
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def serialized(tensor: Any) -> dict[str, Any]:
    """`_serialize_tensor`."""
    import torch

    try:
        array = tensor.numpy()
    except TypeError:
        buffer = io.BytesIO()
        torch.save(tensor, buffer)
        return {"format": "torch", "data": buffer.getvalue()}
    return {"format": "numpy", "data": array.tobytes(), "shape": array.shape, "dtype": str(array.dtype)}


def tensors_of(samples: Sequence[Sample], *, pad: int = 0, experts: bool = False) -> dict[str, Any]:
    """A batch: prompt and response are padded on the left, values of responses too; `pad` copies of the first row
    fill it up, which the loss does not count."""
    import torch

    ordered = [*samples, *[samples[0]] * pad]
    width = max(len(sample.tokens_T) for sample in samples)
    longest = max(len(sample.tokens_T) - sample.prompt for sample in samples)

    def left(values: Any, length: int, dtype: Any) -> np.ndarray:
        return np.pad(np.asarray(values, dtype), [(length - len(values), 0)] + [(0, 0)] * (np.ndim(values) - 1))

    def stacked(of: Any, length: int, dtype: Any) -> Any:
        return torch.from_numpy(np.stack([left(of(sample), length, dtype) for sample in ordered]))

    loss = stacked(lambda s: s.generated_T[s.response], longest, np.float32)
    loss[len(samples) :] = 0
    tensors = {
        "sequences": stacked(lambda s: s.tokens_T, width, np.int64),
        "attention_mask": stacked(lambda s: np.ones(len(s.tokens_T)), width, np.int64),
        "response_mask": stacked(lambda s: np.ones(len(s.tokens_T) - s.prompt), longest, np.int64),
        "loss_mask": loss,
        "rollout_logprobs": stacked(lambda s: s.mu_T[s.response], longest, np.float32),
        "rollout_expert_indices": None,
        "pixel_values": None,
        "action_log_probs": stacked(lambda s: s.pi_T[s.response], longest, np.float32),
        "base_action_log_probs": None,
        "values": None,
        "advantages": stacked(lambda s: np.full(len(s.tokens_T) - s.prompt, s.advantage), longest, np.float32),
    }
    if experts:
        routed = stacked(lambda s: np.arange(2 * len(s.tokens_T)).reshape(-1, 1, 2) % 60, width, np.uint8)
        tensors["rollout_expert_indices"] = routed
    return tensors


def write_step(
    directory: Path, step: int, samples: Sequence[Sample], *, pad: int = 0, metadata: Any = None, **changes: Any
) -> Path:
    """`global_step_N_training_input.pkl`. `changes` replace tensors, or their serialised form."""
    import torch

    tensors = tensors_of(samples, pad=pad) | changes
    batch = TrainingInputBatch()
    stored = {
        name: value if value is None or isinstance(value, dict) else serialized(value)
        for name, value in tensors.items()
    }
    batch.state = {
        "batch_dict": stored,
        "batch_size": len(samples) + pad,
        "device": torch.device("cpu"),
        "metadata": {
            "policy_mini_batch_boundaries": [(0, len(samples))],
            "response_length": 10,
            "avg_response_length": 7.5,
            "pad_size": pad,
            "metrics": {"avg_final_rewards": 0.25},
            **(metadata or {}),
        },
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"global_step_{step}_training_input.pkl"
    with skyrls_module(), open(path, "wb") as file:
        pickle.dump(batch, file)
    return path
